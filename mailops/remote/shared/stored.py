"""What one mailops keeps and a later one reads: each stored form carries a number, and older ones are lifted.

On machines: manifest, generation, journal, entry of the history, origins, the certificates told of. On the laptop its
notes: an old one counts for nothing, and is not missed for long. A form that changes gets the next FORMAT and a step
in STEPS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .errors import AgentError

if TYPE_CHECKING:
    from typing import Literal, overload

    from .forms import Entry, Generation, Journal, Manifest, Origins, Served

FORMAT = 1
Stored = dict[str, object]


def numbered(stored: Mapping[str, object]) -> Stored:
    """What is to be kept, with the number of its form."""
    return {"format": FORMAT, **stored}


if TYPE_CHECKING:

    @overload
    def lift(kind: Literal["manifest"], stored: Manifest) -> Manifest: ...
    @overload
    def lift(kind: Literal["generation"], stored: Generation) -> Generation: ...
    @overload
    def lift(kind: Literal["journal"], stored: Journal) -> Journal: ...
    @overload
    def lift(kind: Literal["entry"], stored: Entry) -> Entry: ...
    @overload
    def lift(kind: Literal["origins"], stored: Origins) -> Origins: ...
    @overload
    def lift(kind: Literal["certificates"], stored: Served) -> Served: ...


def lift(kind: str, stored: Mapping[str, object]) -> Mapping[str, object]:
    """A stored form of this or an earlier version as this one has it.

    `kind` is a key of STEPS. AgentError for one that a later version wrote.
    """
    number = stored.get("format", 0)
    if not isinstance(number, int) or number > FORMAT:
        told = f"a newer mailops has worked here ({kind} in format {number}, and this one knows {FORMAT})"
        raise AgentError(told, "update mailops on this computer")
    lifted = dict(stored)
    for step in STEPS[kind][number:]:
        lifted = step(lifted)
    return numbered(lifted | {"format": FORMAT})


def _manifest_0(stored: Stored) -> Stored:
    """Some parts came one by one, before there were numbers."""
    lists: Stored = {name: [] for name in ("sources", "users", "directories", "certificates", "services", "probes")}
    lifted = lists | {"release": None, "vault": None, "accounts": None, "dkim": None} | stored
    lifted["probes"] = _each(lifted["probes"], {"when": "", "service": ""})
    lifted["directories"] = _each(lifted["directories"], {"mend": True})
    if isinstance(vault := lifted["vault"], dict):
        lifted["vault"] = {"queue": ""} | vault
    return lifted


def _each(items: object, lacking: Stored) -> list[Stored]:
    """A list of records, with what they may lack."""
    return [lacking | item for item in items] if isinstance(items, list) else []


def _generation_0(stored: Stored) -> Stored:
    return {"parent": None, "replaced": {}, "locals": {}} | stored


def _journal_0(stored: Stored) -> Stored:
    return {"services": [], "running": [], "vault": ""} | stored


def _entry_0(stored: Stored) -> Stored:
    return stored


def _certificates_0(stored: Stored) -> Stored:
    return {"told": {}} | stored


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
    "certificates": (_certificates_0,),
}
