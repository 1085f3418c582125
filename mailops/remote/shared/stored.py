"""What one mailops keeps and a later one reads: each stored form carries a number, and older ones are lifted.

On machines: manifest, generation, journal, entry of the history, origins. On the laptop its notes: an old one counts
for nothing, and is not missed for long. A form that changes gets the next FORMAT and a step in STEPS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import AgentError

FORMAT = 1
Stored = dict[str, Any]


def numbered(stored: Stored) -> Stored:
    """What is to be kept, with the number of its form."""
    return {"format": FORMAT, **stored}


def lift(kind: str, stored: Stored) -> Stored:
    """A stored form of this or an earlier version as this one has it.

    `kind` is a key of STEPS. AgentError for one that a later version wrote.
    """
    number = stored.get("format", 0)
    if number > FORMAT:
        told = f"a newer mailops has worked here ({kind} in format {number}, and this one knows {FORMAT})"
        raise AgentError(told, "update mailops on this computer")
    for step in STEPS[kind][number:]:
        stored = step(stored)
    return numbered(stored | {"format": FORMAT})


def _manifest_0(stored: Stored) -> Stored:
    """Some parts came one by one, before there were numbers."""
    lists: Stored = {name: [] for name in ("sources", "users", "directories", "certificates", "services", "probes")}
    lifted = lists | {"release": None, "vault": None, "accounts": None, "dkim": None} | stored
    lifted["probes"] = [{"when": "", "service": ""} | probe for probe in lifted["probes"]]
    lifted["directories"] = [{"mend": True} | directory for directory in lifted["directories"]]
    if lifted["vault"]:
        lifted["vault"] = {"queue": ""} | lifted["vault"]
    return lifted


def _generation_0(stored: Stored) -> Stored:
    return {"parent": None, "replaced": {}, "locals": {}} | stored


def _journal_0(stored: Stored) -> Stored:
    return {"services": [], "running": [], "vault": ""} | stored


def _entry_0(stored: Stored) -> Stored:
    return stored


def _origins_0(stored: Stored) -> Stored:
    """The paths themselves, with nothing beside them."""
    return {"paths": stored}


# From each format to the next, in their order: the first is for what has no number.
STEPS: dict[str, tuple[Callable[[Stored], Stored], ...]] = {
    "manifest": (_manifest_0,),
    "generation": (_generation_0,),
    "journal": (_journal_0,),
    "entry": (_entry_0,),
    "origins": (_origins_0,),
}
