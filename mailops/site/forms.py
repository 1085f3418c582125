"""How a key of hosts.toml is read: a text, a number, a list, a table, each with an example of what would be right.

Lists are counted from 1 in messages, as people count. What is wrong becomes an empty placeholder, so that the rest can
still be judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mailops.site import values
from mailops.site.problems import Problems

# A key that is not known, its value, the table's own key, known keys that look like it -> what it probably is, or "".
Hint = Callable[[str, Any, str, list[str], Problems], str]


@dataclass(frozen=True)
class Form:
    """How to read one key: `read(value, key, problems)` gives what to keep, or None when it is wrong."""

    example: str  # what would be right
    read: Callable[[Any, str, Problems], Any]


def kind_of(value: Any) -> str:
    """What a value is, in a person's words: "a text", "a list"."""
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
    return "a table" if isinstance(value, dict) else kinds.get(type(value), "a date")


def text(example: str, check: Callable[[str], str] = str, empty: bool = False, lines: bool = False) -> Form:
    """A text that `check` accepts. With `empty` it may be "", with `lines` it may have several."""

    def read(value: Any, key: str, problems: Problems) -> str | None:
        try:
            if not isinstance(value, str):
                raise values.Wrong(f"is {kind_of(value)}; write {example}")
            if empty and not value:
                return value
            if not value.strip():
                raise values.Wrong(f"is empty; write {example}")
            if not (value.replace("\n", "").replace("\t", "") if lines else value).isprintable():
                raise values.Wrong("has a character that cannot be seen; leave it out")
            kept = check(value)
            if kept.isascii() and not value.isascii():
                problems.notes.append(f'{problems.file}: {key}: {values.quoted(value)} is "{kept}" in mail')
            return kept
        except values.Wrong as wrong:
            problems.add(key, str(wrong))
            return None

    return Form(example, read)


def number(example: str, allowed: range) -> Form:
    def read(value: Any, key: str, problems: Problems) -> int | None:
        if type(value) is not int:  # True is an int as well
            problems.add(key, f"is {kind_of(value)}; write {example}")
        elif value not in allowed:
            last = allowed[-1]
            bounds = f"{allowed[0]} or {last}" if len(allowed) == 2 else f"one from {allowed[0]} to {last}"
            problems.add(key, f"cannot be {value}; write {bounds}")
        else:
            return value
        return None

    return Form(example, read)


def list_(example: str, item: Form, placeholder: Any) -> Form:
    """A list; what is wrong in it becomes `placeholder`, so that the rest keeps its numbers."""

    def read(value: Any, key: str, problems: Problems) -> tuple[Any, ...] | None:
        if not isinstance(value, list):
            problems.add(key, f"is {kind_of(value)}; write {example}")
            return None
        rows = (item.read(row, f"{key}[{number}]", problems) for number, row in enumerate(value, 1))
        return tuple(placeholder if row is None else row for row in rows)

    return Form(example, read)


def table(example: str, keys: dict[str, Form], required: Iterable[str] = (), hint: Hint | None = None) -> Form:
    """A table with these keys; the values that are right come back in a dict.

    `hint` may know better than the names of `keys` what somebody meant by a key that is not among them.
    """

    def read(value: Any, key: str, problems: Problems) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            problems.add(key, f"is {kind_of(value)}; write {example}")
            return None
        for name in value:
            if name not in keys:
                _unknown(name, value[name], key, keys, hint, problems)
        found = {
            name: form.read(value[name], values.dotted(key, name), problems)
            for name, form in keys.items()
            if name in value
        }
        for name in required:
            if name not in value:
                missing(name, keys, key, problems)
        return {name: kept for name, kept in found.items() if kept is not None}

    return Form(example, read)


def missing(name: str, keys: dict[str, Form], key: str, problems: Problems) -> None:
    """Ask for a required key, unless it has had its line already: misspelt, misplaced or wrong."""
    if not problems.broken(values.dotted(key, name)):
        problems.add(values.dotted(key, name), f"is missing; write {keys[name].example}")


def _unknown(  # noqa: PLR0913, PLR0917 (a place in the file, and what is known of it)
    name: str, value: Any, key: str, keys: dict[str, Form], hint: Hint | None, problems: Problems
) -> None:
    """Say that a key is not known, and which one was probably meant."""
    import difflib

    near = difflib.get_close_matches(name, keys.keys(), 1)
    better = hint(name, value, key, near, problems) if hint else ""
    if not better and near:
        better = f"did you mean {near[0]}?"
        problems.spoil(values.dotted(key, near[0]))
    better = better or f"write one of {', '.join(keys)}"
    problems.add(values.dotted(key, name), f"is not a known key; {better}")
