"""Why a change did not work: the files that are suspect, and what the daemons themselves had to say."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ..machine import MANIFEST
from ..services import daemon_log
from ..shared.errors import AgentError
from ..system import units
from ..system.files import Change, is_secret
from . import generations

if TYPE_CHECKING:
    from ..shared.forms import Manifest, State

LINES = 6  # of a daemon's log, and of a file's difference


def reasons(error: Exception, wanted: Manifest, change: Change, began: float) -> list[str]:
    """What went wrong, the suspect files and what is new in them, the daemons' log lines since `began` (unix time).

    Raises nothing: a rollback waits for it, and is more important than why.
    """
    told = [error.what, *error.more] if isinstance(error, AgentError) else [f"{type(error).__name__}: {error}"]
    try:
        return [*told, *_evidence(error, wanted, change, began)]
    except Exception as trouble:
        return [*told, f"the suspects are not known: {trouble}"]


def _evidence(error: Exception, wanted: Manifest, change: Change, began: float) -> list[str]:
    touched = [service for service in wanted["services"] if units.touched(service, list(change.after))]
    guilty = [service for service in touched if service["unit"] in _accused(error)] or touched
    paths = [path for path in change.after if any(units.touched(service, [path]) for service in guilty)]
    suspects = [path for path in paths or change.after if path != MANIFEST]
    log = daemon_log.since([service["unit"] for service in guilty], began, LINES) if guilty else []
    written = generations.active()["files"]
    return [line for path in suspects for line in _suspect(path, change, written)] + [f"log: {line}" for line in log]


def fallen(error: Exception) -> set[str]:
    """The units that a reload or restart has killed: they have to be started afresh."""
    return set(getattr(error, "units", ()))


def _accused(error: Exception) -> set[str]:
    """The units of the probes that failed, or those that did not start."""
    failures = getattr(error, "failures", [])
    return {probe.get("service", "") for probe, _ in failures} | set(getattr(error, "units", ()))


def _suspect(path: str, change: Change, files: dict[str, State]) -> list[str]:
    before, after = change.before[path], change.after[path]
    addition = (after or {}).get("local")
    told = f"suspect: {path} (with {addition})" if addition else f"suspect: {path}"
    written = files.get(path)
    if not written or not after or is_secret(written, before) or is_secret(after):
        return [told]
    return [told, *_difference(_lines(before), _lines(after))]


def _difference(before: list[str], after: list[str]) -> list[str]:
    """What was taken out and put in, in a few lines; without comments."""
    found = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
    changed = [line for line in found if line[0] != "@" and line[1:].strip()[:1] not in ("", "#")]
    more = [f"  … and {len(changed) - LINES} lines more"] if len(changed) > LINES else []
    return [f"  {line[0]} {line[1:]}" for line in changed[:LINES]] + more


def _lines(state: State) -> list[str]:
    text = (generations.content(state) or b"").decode(errors="replace")
    return ["".join(char if char.isprintable() else " " for char in line) for line in text.split("\n")]
