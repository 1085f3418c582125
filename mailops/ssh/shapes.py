"""Shapes: what a value that came from a machine must look like before anybody uses it.

A shape is a function. It gives the value back, its texts harmless to a terminal, or raises Odd. A record may have
more than its shape names: that is made harmless, and kept for `--json`.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from mailops import printable

Shape = Callable[[Any], Any]
DEEPEST = 8  # of what nobody has described
# In what is to be typed next. What is typed on the machine itself, as root there, is its own affair.
THERE = "as root there"
NOT_OURS = re.compile(r"[|&$<>`\\\n]|://|(?<![/\w.-])(fab|mailops|mailcfg) .*;")
MANY = 100_000  # members of one list or table
LARGEST = 1 << 53  # a whole number that every reader of JSON takes exactly
PEM = re.compile(r"(-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n)+")
LONGEST_PEM = 1 << 16


class Odd(ValueError):
    """What a machine did that none of ours does, as the end of a sentence about it, or about the `place` in a value of
    its own: names and numbers, from the outside in."""

    def __init__(self, what: str, place: tuple[str | int, ...] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.place = place


def line(longest: int = 8192) -> Shape:
    def check(value: Any) -> str:
        return printable.line(_text(value, longest))

    return check


def lines(longest: int = 1 << 16) -> Shape:
    """A text of several lines, cut where it gets too long: a daemon may have had much to say.

    Those after the first are set in: none of them looks like a line of ours, not like one that says what to type next.
    """

    def check(value: Any) -> str:
        text = printable.lines(_text(value, LARGEST))
        text = text if len(text) <= longest else f"{text[:longest]} …"
        return re.sub(r"\n {0,3}(?=\S)", "\n    ", text)

    return check


def advice(value: Any) -> str:
    """What to type next; a person may paste it into a shell of the laptop. What is no advice of ours is not shown."""
    text = printable.lines(_text(value, LARGEST))
    if len(text) > 500 or NOT_OURS.search(text.partition(THERE)[0]):
        return "what it advises is not shown: it is none of our commands"
    return printable.line(text)


def number(least: int = 0, most: int = LARGEST) -> Shape:
    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise Odd(f"is no whole number from {least} to {most}")
        return value

    return check


def real(least: float = 0, most: float = LARGEST) -> Shape:
    def check(value: Any) -> float:
        if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:
            raise Odd(f"is no number from {least} to {most}")
        return float(value) if type(value) is float else value

    return check


def flag(value: Any) -> bool:
    if type(value) is not bool:
        raise Odd("is neither true nor false")
    return value


def one_of(*known: str | int) -> Shape:
    def check(value: Any) -> Any:
        if not any(type(value) is type(word) and value == word for word in known):
            raise Odd(f"is none of {', '.join(map(str, known))}")
        return value

    return check


def matching(pattern: str, what: str, longest: int = 4096) -> Shape:
    def check(value: Any) -> str:
        if not re.fullmatch(pattern, text := _text(value, longest), re.ASCII):
            raise Odd(f"is no {what}")
        return text

    return check


def maybe(shape: Shape) -> Shape:
    return lambda value: None if value is None else shape(value)


def either(one: Shape, other: Shape) -> Shape:
    def check(value: Any) -> Any:
        try:
            return one(value)
        except Odd:
            return other(value)

    return check


def listing(shape: Shape, most: int = MANY) -> Shape:
    def check(value: Any) -> list[Any]:
        if not isinstance(value, list) or len(value) > most:
            raise Odd(f"is no list of at most {most}")
        return [_member(at, shape, item) for at, item in enumerate(value)]

    return check


def table(shape: Shape, most: int = MANY, name: Shape | None = None) -> Shape:
    """Names that only the machine knows, each with a value of one shape."""
    named = name or line()

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > most:
            raise Odd(f"is no table of at most {most}")
        return {named(key): _member(key, shape, item) for key, item in value.items()}

    return check


def record(needed: Mapping[str, Shape], allowed: Mapping[str, Shape] | None = None) -> Shape:
    """Names that we know: each of `needed`, perhaps some of `allowed`."""
    known = {**needed, **(allowed or {})}

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Odd("is no record")
        if missing := [key for key in needed if key not in value]:
            raise Odd(f"has no {missing[0]}")
        return {line()(key): _member(key, known.get(key, anything), item) for key, item in value.items()}

    return check


def anything(value: Any, depth: int = DEEPEST) -> Any:
    """What nobody has described: plain data, not too deep."""
    if depth == 0:
        raise Odd("is nested too deep")
    if isinstance(value, list):
        return [anything(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {line()(key): anything(item, depth - 1) for key, item in value.items()}
    if isinstance(value, str):
        return printable.lines(value)
    return value if value is None or type(value) is bool else real(-LARGEST)(value)


def content(value: Any) -> str:
    """Bytes in base64, which stay as they are."""
    try:
        base64.b64decode(value, validate=True)
    except (TypeError, ValueError):
        raise Odd("is no base64") from None
    return str(value)


def certificates(value: Any) -> str:
    """Certificates in PEM (RFC 7468) and nothing else, or "" for none."""
    text = _text(value, LONGEST_PEM)
    if text and not PEM.fullmatch(text):
        raise Odd("is no certificate")
    for block in re.findall(r"CERTIFICATE-----\n([^-]+)-----END", text):
        if not content(block.replace("\n", "")).startswith("M"):  # an ASN.1 sequence, as it begins in base64
            raise Odd("is no certificate")
    return text


def _text(value: Any, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise Odd(f"is no text of at most {longest} characters")
    return value


def _member(name: str | int, shape: Shape, value: Any) -> Any:
    try:
        return shape(value)
    except Odd as odd:
        raise Odd(odd.what, (name, *odd.place)) from None
