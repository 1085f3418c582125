"""The administrator's own additions to a daemon's configuration: a file of theirs, carried in one of ours.

A managed file that names a `local` file is made on the machine, from the rendered text (the base) and that
file. So an addition is staged, checked, probed and rolled back with the rest, and mailops never writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..shared.errors import AgentError

Lines = list[bytes]


def merged(base: bytes, local: bytes, style: str, source: str = "this machine's local additions") -> bytes:
    """The file that the daemon reads: `base`, then `local`; a comment names `source`, the local file.

    `style` says whose grammar it is. "append": later settings win, as in Dovecot, Redis and Rspamd.
    "main.cf" and "master.cf": what `local` sets is taken out of `base` first, since postconf warns of
    everything that is set twice (postconf(5), master(5)). A `local` that sets nothing gives `base` itself.

    What `local` itself sets twice stays: which one is meant only its author knows. postconf names both lines;
    of two entries in master.cf master(8) takes the last.
    """
    lines = _lines(local)
    if not any(map(_says_something, lines)):
        return base
    kept = _lines(base)
    if style != "append":
        name = NAMES[style]
        # A first line with white space before it would continue the last entry of the base.
        first = next(number for number, line in enumerate(lines) if _says_something(line))
        lines[first] = lines[first].lstrip()
        kept = _without(kept, {name(entry) for entry in _entries(lines)} - {None}, name)
    return b"".join([*kept, b"\n# --- From %s\n" % source.encode(), *lines])


def mode(wanted: int, local: int, style: str, source: str) -> int:
    """The mode of the merged file: not open to those to whom the local file is closed.

    Raises AgentError for a private main.cf: sendmail(1) reads it as whoever calls it, and would fail.
    """
    if local & 0o004:
        return wanted
    if style == "main.cf":
        raise AgentError(
            f"{source} may not be read by everybody, as main.cf must be",
            f"chmod a+r {source}; what is secret goes into a file of its own that main.cf names",
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


def _parameter(line: bytes) -> bytes | None:
    """main.cf: `name = value`, `name=value`."""
    name, equals, _ = line.partition(b"=")
    return name.strip() if equals else None


def _service(line: bytes) -> bytes | None:
    """master.cf: the service's name and type; there may be an `smtp inet` and an `smtp unix`."""
    fields = line.split(maxsplit=2)
    return b" ".join(fields[:2]) if len(fields) > 1 else None


NAMES: dict[str, Callable[[bytes], bytes | None]] = {"main.cf": _parameter, "master.cf": _service}
