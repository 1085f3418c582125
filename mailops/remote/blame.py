"""Why a change did not work: the files that are suspect, and what the daemons themselves had to say."""

from __future__ import annotations

from typing import Any

from . import daemon_log, services
from .errors import AgentError
from .files import State
from .machine import MANIFEST

LINES = 6  # of a daemon's log


def reasons(error: Exception, wanted: dict[str, Any], changes: dict[str, State], began: float) -> list[str]:
    """What went wrong, the suspect files, the daemons' log lines since `began` (unix time), a line each."""
    told = error.message if isinstance(error, AgentError) else f"{type(error).__name__}: {error}"
    touched = [service for service in wanted["services"] if services.touched(service, list(changes))]
    guilty = [service for service in touched if service["unit"] in _accused(error)] or touched
    suspects = [path for path in changes if any(services.touched(service, [path]) for service in guilty)]
    shown = [_with_local(path, changes[path]) for path in suspects or list(changes) if path != MANIFEST]
    log = daemon_log.since([service["unit"] for service in guilty], began, LINES) if guilty else []
    return [told, *(f"suspect: {path}" for path in shown), *(f"log: {line}" for line in log)]


def _accused(error: Exception) -> set[str]:
    """The units of the probes that failed, or those that did not start."""
    failures = getattr(error, "failures", [])
    return {probe.get("service", "") for probe, _ in failures} | set(getattr(error, "units", ()))


def _with_local(path: str, state: State) -> str:
    addition = (state or {}).get("local")
    return f"{path} (with {addition})" if addition else path
