"""What the daemons themselves said of a failure, out of the journal, fit for a report."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..system import units as services
from ..system.shell import run
from . import daemons

if TYPE_CHECKING:
    from typing import TypedDict

    class Logged(TypedDict, total=False):
        """Of systemd.journal-fields(7), as journalctl's JSON has them."""

        _SYSTEMD_UNIT: str
        UNIT: str  # that systemd itself speaks of
        SYSLOG_IDENTIFIER: str
        PRIORITY: str
        MESSAGE: str | list[int] | None  # bytes where it is no UTF-8


RECENT = 60.0  # seconds that a reload may have been ago
WARNING = 4  # syslog(3); worse is lower
REASON = re.compile(
    r"\b(warning|error|fatal|panic|fail(ed|ure|s)?|unknown|invalid|cannot|can't|could not|unable|unused|unsupported"
    r"|denied|refused|missing|no such|not found|bad|broken|obsolete|unavailable|throttling)\b",
    re.IGNORECASE,
)
# Our own questions; each daemon has more.
CHATTER = r"foreign\.invalid|<mailops-probe@"
DEATH = re.compile(r"\b(fatal|panic): ", re.IGNORECASE)
# Postfix's and Dovecot's word for not starting what dies at its start, for a while.
THROTTLING = "throttling"
# That while Dovecot was away, which is over when this is read: not for good.
PASSING = "no SASL authentication mechanisms"
# Nothing logs a password unless it is told to (Dovecot's auth_verbose_passwords, for one).
PASSWORD = re.compile(r"(pass(word)?s?\b[^:=]{0,20}[:=])\s*\S.*", re.IGNORECASE)
# Redis says again when it was, and all of them which process it is.
STAMP = re.compile(r"^(\d+:[A-Z] \d+ \w+ \d{4} [\d:.]+ . |\d{4}-\d\d-\d\d [\d:.]+ )?(#\d+\(\w+\) )?(<\w*>; )?")


def since(units: list[str], when: float, lines: int = 8) -> list[str]:
    """At most `lines` lines that `units` logged since the Unix time `when`, each once, oldest first.

    Those that look like a reason; where none does, the last ones of all.
    """
    run("journalctl", "--sync", check=False)
    chatter = _chatter()
    said = [line for line in _said(units, when) if not chatter.search(line[1])]
    reasons = _once(text for priority, text in said if priority <= WARNING or REASON.search(text))
    return reasons[:lines] or _once(text for _, text in said)[-lines:]


def since_reload(unit: str) -> list[str]:
    """What `unit` has said since it read its configuration, if that was a moment ago; in Dovecot's words."""
    lines: list[str] | None = None
    for text in _texts(unit, time.time() - RECENT):
        if "reloading configuration" in text or "starting up" in text:
            lines = []
        elif lines is not None:
            lines.append(text)
    return lines or []


def death(unit: str, when: float) -> str:
    """Why `unit` has given up starting some of its processes since the Unix time `when`; "" if it has not."""
    said = _texts(unit, when)
    if not any(THROTTLING in text for text in said):
        return ""
    return next((text for text in said if DEATH.search(text) and PASSING not in text), "")


def _texts(unit: str, when: float) -> list[str]:
    return [text for _, text in _said([unit], when)]


def _said(units: list[str], when: float) -> list[tuple[int, str]]:
    """Priority and text of each line."""
    journal = run("journalctl", "--no-pager", "--output=json", f"--since=@{when:.6f}", check=False)
    entries = (json.loads(line) for line in journal.stdout.splitlines() if line.startswith("{"))
    return [_line(entry) for entry in entries if any(_is_of(entry, unit) for unit in units)]


def _is_of(entry: Logged, unit: str) -> bool:
    """systemd's own words about a unit count as well: its exit status may be all there is."""
    names = (unit, services.instance(unit))
    processes = daemons.of(unit).processes
    return (
        entry.get("_SYSTEMD_UNIT") in names
        or entry.get("UNIT") in names
        or bool(processes and str(entry.get("SYSLOG_IDENTIFIER", "")).startswith(processes))
    )


def _chatter() -> re.Pattern[str]:
    return re.compile("|".join([CHATTER, *(each.chatter for each in daemons.every() if each.chatter)]), re.IGNORECASE)


def _line(entry: Logged) -> tuple[int, str]:
    message = entry.get("MESSAGE") or ""
    if isinstance(message, list):  # bytes that are no UTF-8
        message = bytes(message).decode(errors="replace")
    text = PASSWORD.sub(r"\1 …", STAMP.sub("", message.strip()))
    return int(entry.get("PRIORITY", 6)), f"{entry.get('SYSLOG_IDENTIFIER', '?')}: {text}"


def _once(lines: Iterable[str]) -> list[str]:
    """Without what differs from an earlier line in nothing but names of programs and sessions, and numbers."""
    seen: dict[str, str] = {}
    for line in lines:
        seen.setdefault(re.sub(r"<[^<>]*>|[0-9A-F]{2,}|\d+", "0", line.partition(": ")[2]), line)
    return list(seen.values())
