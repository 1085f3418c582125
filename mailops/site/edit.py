"""Changing one value of hosts.toml: the comments and the layout are the administrator's, and stay.

A value that exists is replaced in its place by tomlkit. A new one is a new line: below a commented-out
example of it when there is one, else below the last value of its table (tomlkit would put it after the
comments that belong to the next table). Whatever was done must read back as exactly what was asked for.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mailops.errors import BAD_INPUT, MailopsError

Value = str | int | bool | None

_HEADER = re.compile(r"\s*\[[^\[\]{},]+\]\s*(#.*)?")
_lock = threading.Lock()  # `fab trust` may pin several machines at once


def set_value(path: Path, keys: tuple[str, ...], value: Value) -> None:
    """Set the value at `keys`, such as ("hosts", "mail", "host_key"); None removes it.

    The file is replaced whole or not at all, keeps its mode and owner, and is not touched when nothing
    changes. Raises `MailopsError` when it cannot be read, changed or written.
    """
    with _lock:
        target = path.resolve()  # replace what a link points to, not the link
        try:
            before = target.read_bytes().decode()
            after = _edited(before, keys, value)
            if after != before:
                _replace(target, after.encode())
        except OSError as error:
            raise MailopsError(f"{path}: cannot be changed: {error.strerror}", code=BAD_INPUT) from None
        except (ValueError, RecursionError) as error:
            raise MailopsError(
                f"{path}: {'.'.join(keys)} cannot be set: {error}", "Write it by hand.", BAD_INPUT
            ) from None


def change_list(
    path: Path, key: str, add: Sequence[Any], remove: Sequence[int], check: Callable[[Path, Path], None]
) -> None:
    """Add items at the end of the list `key`, and take those at the numbers `remove` out (from 0).

    As `set_value`; `check(new, path)` may object, by a MailopsError, to the new file before it takes that one's place.
    A list that is not there begins with what it is without that: `mail_domains` with the site's own.
    """
    with _lock:
        target = path.resolve()
        try:
            before = target.read_bytes().decode()
            after = _with_list(before, key, add, remove)
            _replace(target, after.encode(), lambda new: check(new, path))
        except OSError as error:
            raise MailopsError(f"{path}: cannot be changed: {error.strerror}", code=BAD_INPUT) from None
        except (ValueError, RecursionError) as error:
            raise MailopsError(f"{path}: {key} cannot be changed: {error}", "Write it by hand.", BAD_INPUT) from None


def _with_list(text: str, key: str, add: Sequence[Any], remove: Sequence[int]) -> str:
    data = tomllib.loads(text)
    known = data.get(key, [data["domain"]] if key == "mail_domains" else [])
    wanted = data | {key: [*(item for at, item in enumerate(known) if at not in remove), *add]}
    if key not in data:
        return next(each for each in _new_list(text, key, wanted[key]) if tomllib.loads(each) == wanted)
    after = _with_tomlkit_list(text, key, add, remove)
    if tomllib.loads(after) != wanted:
        raise ValueError("there is no place for it")
    return after


def _new_list(text: str, key: str, items: list[Any]) -> Iterator[str]:
    """As a new line before the first table, where somebody would have written it."""
    import tomlkit

    lines = text.splitlines(keepends=True)
    value = tomlkit.array()
    for item in items:
        value.append(_inline(item))
    if any(isinstance(item, dict) for item in items):
        value.multiline(True)
    for place in _places(lines, (key,)):
        yield "".join([*lines[:place], f"{key} = {value.as_string()}\n", *lines[place:]])


def _with_tomlkit_list(text: str, key: str, add: Sequence[Any], remove: Sequence[int]) -> str:
    import tomlkit

    document = tomlkit.parse(text)
    items: Any = document[key]
    is_tables = isinstance(items, tomlkit.items.AoT)
    for at in sorted(remove, reverse=True):
        del items[at]
    for item in add:
        items.append(tomlkit.item(item) if is_tables else _inline(item))
    return tomlkit.dumps(document)


def _inline(item: Any) -> Any:
    """A row as people write it: { src = "a@example.org", dst = "b@example.org" }"""
    import tomlkit

    return tomlkit.value(_written(item))


def _written(item: Any) -> str:
    import tomlkit

    if isinstance(item, dict):
        return (
            "{ "
            + ", ".join(f"{tomlkit.key(name).as_string()} = {_written(value)}" for name, value in item.items())
            + " }"
        )
    return str(tomlkit.item(item).as_string())


def _edited(text: str, keys: tuple[str, ...], value: Value) -> str:
    data = tomllib.loads(text)
    wanted = _with_value(data, keys, value)
    if wanted == data:
        return text
    for candidate in _candidates(text, keys, value, new=not _has(data, keys)):
        with suppress(tomllib.TOMLDecodeError):
            if tomllib.loads(candidate) == wanted:
                return candidate
    raise ValueError("there is no place for it")


def _has(data: Any, keys: tuple[str, ...]) -> bool:
    return not keys or (isinstance(data, dict) and keys[0] in data and _has(data[keys[0]], keys[1:]))


def _with_value(data: Any, keys: tuple[str, ...], value: Value) -> dict[str, Any]:
    """A copy of the data with the value at `keys`; the tables on the way are made when missing."""
    if not isinstance(data, dict):
        raise ValueError(f"{keys[0]} would be in something that is not a table")
    changed = dict(data)
    if len(keys) > 1:
        if value is not None or keys[0] in data:
            changed[keys[0]] = _with_value(data.get(keys[0], {}), keys[1:], value)
    elif value is None:
        changed.pop(keys[0], None)
    else:
        changed[keys[0]] = value
    return changed


def _candidates(text: str, keys: tuple[str, ...], value: Value, new: bool) -> Iterator[str]:
    """The changed file in the ways it can be written, the nicest first."""
    if new and value is not None:
        yield from _with_line(text, keys, value)
    yield _with_tomlkit(text, keys, value)


def _with_line(text: str, keys: tuple[str, ...], value: str | int | bool) -> Iterator[str]:
    """The file with one more line, at the places where somebody would have written it."""
    import tomlkit

    lines = text.splitlines(keepends=True)
    ending = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    if lines and not lines[-1].endswith(("\n", "\r")):
        lines[-1] += ending
    new = f"{tomlkit.key(keys[-1]).as_string()} = {tomlkit.item(value).as_string()}{ending}"
    for place in _places(lines, keys):
        yield "".join([*lines[:place], new, *lines[place:]])


def _places(lines: list[str], keys: tuple[str, ...]) -> Iterator[int]:
    headers = [number for number, line in enumerate(lines) if _HEADER.fullmatch(line.rstrip())]
    ends = [*headers, len(lines)]
    starts = [number + 1 for number in headers if _has_header(lines[number], keys[:-1])]
    for start in [0] if len(keys) == 1 else starts:
        end = next(number for number in ends if number >= start)
        example = re.compile(rf"\s*#\s*{re.escape(keys[-1])}\s*=")
        yield from (number + 1 for number in range(start, end) if example.match(lines[number]))
        while end > start and lines[end - 1].strip()[:1] in ("", "#"):
            end -= 1
        yield end


def _has_header(line: str, keys: tuple[str, ...]) -> bool:
    """Whether the line is `[keys…]`, however it is spaced and quoted."""
    nested: dict[str, Any] = {}
    for key in reversed(keys):
        nested = {key: nested}
    with suppress(tomllib.TOMLDecodeError):
        return tomllib.loads(line) == nested
    return False


def _with_tomlkit(text: str, keys: tuple[str, ...], value: Value) -> str:
    import tomlkit

    document = tomlkit.parse(text)
    table: Any = document
    for key in keys[:-1]:
        if key not in table:
            table[key] = tomlkit.table(is_super_table=key != keys[-2])
        table = table[key]
    if value is None:
        del table[keys[-1]]
    else:
        table[keys[-1]] = value
    return tomlkit.dumps(document)


def _replace(target: Path, content: bytes, check: Callable[[Path], None] = lambda _: None) -> None:
    """Put a finished file in the place of the old one: a reader, or a power cut, sees one of the two."""
    status = target.stat()
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            with suppress(PermissionError):  # a file of somebody else becomes ours, as with any editor
                os.fchown(handle, status.st_uid, status.st_gid)
            os.fchmod(handle, status.st_mode & 0o7777)
            file.flush()
            os.fsync(handle)
        check(Path(name))
        os.replace(name, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _sync(target.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
