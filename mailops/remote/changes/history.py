"""The machine's diary: who changed it, from where, with which revision of the site, and how it went.

A line of JSON each in /var/log/mailops/history.jsonl. Runs that found nothing to do are not in it. Who has mail here
is not either: addresses belong into the vault, so changes of accounts are counted, and a reason names domains alone.
What mailcfg did is in the vault, by name (`accounts.past`), and is shown with the rest while that is open.
"""

from __future__ import annotations

import contextlib
import grp
import os
from typing import TYPE_CHECKING

from .. import machine
from ..accounts import past
from ..shared.errors import REFUSED, AgentError
from ..shared.stored import lift, numbered
from ..system import diary

if TYPE_CHECKING:
    from ..shared.calls import History, HistoryArgs, Link
    from ..shared.forms import Entry

FOLDER = "/var/log/mailops"
PATH = f"{FOLDER}/history.jsonl"
PRIVATE = ("accounts", "dkim")  # rooms whose lines name domains and people
LOCAL_PART = r"[^\s<>\"',;:()]+@(?=[\w-]+\.[\w.-]*\w)"  # of a mail address; what follows is the domain
REASON = 300  # characters


def call(args: HistoryArgs, link: Link) -> History:
    """The agent call behind `fab history`: the last `count` entries, oldest first. "unseen" when a vault is closed, in
    which there may be more of them."""
    count = int(args["count"])
    of_accounts = _of_accounts(count)
    found = sorted(entries(count) + (of_accounts or []), key=lambda entry: entry["when"])[-count:]
    for entry in found:
        entry.pop("format", None)
    return {"entries": found, "unseen": of_accounts is None}


def entries(count: int) -> list[Entry]:
    return [lift("entry", entry) for entry in diary.last(PATH, count)]


def _of_accounts(count: int) -> list[Entry] | None:
    """What mailcfg did; None while it cannot be seen."""
    try:
        applied = machine.manifest()
    except AgentError:  # not set up yet
        return []
    if not applied["accounts"]:
        return []
    with contextlib.suppress(AgentError):  # a vault that does not answer
        if machine.vault_is_open(applied):
            return past.entries(machine.database(applied), count)
    return None


def reason(error: AgentError) -> str:
    """What is noted of it. Of a refusal that is also who refused, and in which words."""
    more = error.more if error.outcome == REFUSED else ()
    return "; ".join((error.what, *more))[:REASON]


def append(entry: Entry, changes: dict[str, list[str]]) -> None:
    """Note a run. A full disk keeps it from being noted, and from nothing else."""
    import re  # a run that changes nothing notes nothing

    changed = {room: len(lines) if room in PRIVATE else lines for room, lines in changes.items()}
    why = re.sub(LOCAL_PART, "…@", entry["why"])
    with contextlib.suppress(OSError):
        _make_folder()
        diary.append(PATH, numbered(entry) | {"why": why, "changed": changed}, _adm())


def _make_folder() -> None:
    if not os.path.isdir(FOLDER):
        os.makedirs(FOLDER, mode=0o750)
        os.chown(FOLDER, 0, _adm())


def _adm() -> int:
    """Debian's group of those who may read the logs."""
    try:
        return grp.getgrnam("adm").gr_gid
    except KeyError:
        return 0
