"""What the mail daemons have written of the messages that passed, out of the journal.

Only what their own units have logged counts (a field that journald sets itself), and postsuper(1) of root: whoever may
run logger(1) could write the rest.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from ..system import shell

UNITS = ("postfix.service", "postfix@-.service", "dovecot.service", "rspamd.service")
BY_HAND = ("_UID=0", "SYSLOG_IDENTIFIER=postfix/postsuper")
FIELDS = "--output-fields=MESSAGE,SYSLOG_IDENTIFIER,_SOURCE_REALTIME_TIMESTAMP"
MOST = 100_000  # lines that are looked at
LONGEST = 8000  # characters of a line


class Line(NamedTuple):
    when: float  # Unix time
    program: str
    text: str


def lines(since: float) -> tuple[list[Line], bool]:
    """Oldest first, from the Unix time `since` on; and whether there are more: these are the newest MOST then."""
    units = [word for unit in UNITS for word in (f"_SYSTEMD_UNIT={unit}", "+")]
    command = ["journalctl", "-q", "--no-pager", "--reverse", "--output=json", FIELDS, f"--lines={MOST}"]
    found = list(_read([*command, f"--since=@{since:.0f}", *units, *BY_HAND]))
    return found[::-1], len(found) >= MOST


def begins() -> float:
    """When the oldest line of the journal was written; 0 where there is none."""
    said, _ = shell.beginning(1 << 16, "journalctl", "-q", "--no-pager", "--output=json", "--output-fields=_BOOT_ID")
    try:
        return int(json.loads(said.partition(b"\n")[0])["__REALTIME_TIMESTAMP"]) / 1e6
    except (ValueError, KeyError):
        return 0.0


def _read(command: list[str]) -> Iterator[Line]:
    shell.run("journalctl", "--sync", check=False)
    null = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=null, stdout=subprocess.PIPE, stderr=null, env=shell.ENVIRONMENT) as journal:
        for entry in journal.stdout or ():
            if line := parsed(entry):
                yield line


def parsed(entry: bytes) -> Line | None:
    try:
        fields = json.loads(entry)
    except ValueError:
        return None
    text = fields.get("MESSAGE") or ""
    if isinstance(text, list):  # bytes that are no UTF-8
        text = bytes(text).decode(errors="replace")
    when = fields.get("_SOURCE_REALTIME_TIMESTAMP") or fields.get("__REALTIME_TIMESTAMP") or 0
    return Line(int(when) / 1e6, str(fields.get("SYSLOG_IDENTIFIER", "")), text[:LONGEST])
