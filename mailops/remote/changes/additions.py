"""The administrator's own additions to a daemon's configuration: a file of theirs, carried in one of ours.

A managed file that names a `local` file is made on the machine, from the rendered text (the base) and that
file. So an addition is staged, checked, probed and rolled back with the rest, and mailops never writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..services import daemons
from ..shared.errors import AgentError

Lines = list[bytes]


def merged(base: bytes, local: bytes, style: str, source: str = "this machine's local additions") -> bytes:
    """The file that the daemon reads: `base`, then `local`; a comment names `source`, the local file.

    `style` says how. "append": later settings win. Else it names the grammar of a file in which nothing may be set
    twice (see `services.daemons`): what `local` sets is taken out of `base` first. A `local` that sets nothing gives
    `base` itself.

    What `local` itself sets twice stays: which one is meant only its author knows, and the daemon's checks name it.
    """
    lines = _lines(local)
    if not any(map(_says_something, lines)):
        return base
    kept = _lines(base)
    if style != "append":
        name = daemons.grammar(style).name
        # A first line with white space before it would continue the last entry of the base.
        first = next(number for number, line in enumerate(lines) if _says_something(line))
        lines[first] = lines[first].lstrip()
        kept = _without(kept, {name(entry) for entry in _entries(lines)} - {None}, name)
    return b"".join([*kept, b"\n# --- From %s\n" % source.encode(), *lines])


def mode(wanted: int, local: int, style: str, source: str) -> int:
    """The mode of the merged file: not open to those to whom the local file is closed.

    Raises AgentError where everybody has to read the merged file.
    """
    if local & 0o004:
        return wanted
    if style != "append" and daemons.grammar(style).public:
        raise AgentError(
            f"{source} may not be read by everybody, as {style} must be",
            f"chmod a+r {source}; what is secret goes into a file of its own that {style} names",
        )
    return wanted & ~0o007


def _lines(text: bytes) -> Lines:
    """Whole lines, whatever the editor: no byte order mark, no CR before LF, LF at the very end."""
    text = text.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").removesuffix(b"\n")
    return [line + b"\n" for line in text.split(b"\n")]


def _says_something(line: bytes) -> bool:
    """Neither empty nor a comment; '#' begins one in all of these files."""
    return line.strip()[:1] not in (b"", b"#")


def _entries(lines: Lines) -> Iterator[bytes]:
    """The first line of each entry: one that says something, with no white space before it."""
    return (line for line in lines if _says_something(line) and not line[:1].isspace())


def _without(lines: Lines, names: set[bytes | None], name: Callable[[bytes], bytes | None]) -> Lines:
    """`lines` without the entries of these names: first lines and continuations, comments stay."""
    kept: Lines = []
    leaving = False
    for line in lines:
        if _says_something(line):
            if not line[:1].isspace():
                leaving = name(line) in names
            if leaving:
                continue
        kept.append(line)
    return kept
