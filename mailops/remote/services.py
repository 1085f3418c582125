"""systemd units: what runs, what starts at boot, and who must notice a changed file."""

from __future__ import annotations

from typing import Any

from .errors import AgentError
from .shell import run

UNIT_FILES = "/etc/systemd/system"


def states(units: list[str]) -> dict[str, dict[str, str]]:
    """ActiveState, UnitFileState and LoadState of each unit, from one `systemctl show`."""
    if not units:
        return {}
    properties = "--property=Id,ActiveState,UnitFileState,LoadState"
    blocks = run("systemctl", "show", properties, *units).stdout.strip().split("\n\n")
    parsed = [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks]
    return dict(zip(units, parsed, strict=True))


def at_boot(services: list[dict[str, Any]], dry_run: bool = False) -> list[str]:
    """Mail daemons never start at boot, they wait for the vault; the others do."""
    now = states([service["unit"] for service in services])
    changes: list[str] = []
    for service in services:
        unit, state = service["unit"], now[service["unit"]]["UnitFileState"]
        verb = "disable" if service["mail"] else "enable"
        if state == {"disable": "enabled", "enable": "disabled"}[verb]:
            changes.append(f"{verb} {unit} at boot")
            if not dry_run:
                run("systemctl", verb, unit)
    return changes


def touched(service: dict[str, Any], paths: list[str]) -> str:
    """What the changed `paths` ask of a service: "" for nothing, else "reload" or "restart"."""
    unit = service["unit"]
    own_unit = (f"{UNIT_FILES}/{unit}", f"{UNIT_FILES}/{unit}.d/")
    if any(path.startswith(own_unit) for path in paths):
        return "restart"
    if any(path == root or path.startswith(f"{root}/") for path in paths for root in service["roots"]):
        return str(service["on_change"])
    return ""


def running(services: list[dict[str, Any]]) -> list[str]:
    """The units of `services` that run now."""
    now = states([service["unit"] for service in services])
    return [unit for unit, state in now.items() if state["ActiveState"] == "active"]


def activate(services: list[dict[str, Any]], paths: list[str], dry_run: bool = False) -> list[str]:
    """Start what should run and is down; reload or restart what runs with changed files."""
    now = states([service["unit"] for service in services])
    down = [unit for unit, state in now.items() if state["ActiveState"] != "active"]
    told = [(touched(service, paths), service["unit"]) for service in services if service["unit"] not in down]
    told = [(verb, unit) for verb, unit in told if verb]
    if not dry_run:
        if any(path.startswith(UNIT_FILES) for path in paths):
            run("systemctl", "daemon-reload")
        if down:
            start(down)
        for verb, unit in told:
            _tell(verb, unit)
    return [f"start {unit}" for unit in down] + [f"{verb} {unit}" for verb, unit in told]


def _tell(verb: str, unit: str) -> None:
    done = run("systemctl", verb, unit, check=False, timeout=180)
    if done.returncode:
        raise AgentError(f"{unit} did not {verb}: {log(unit)}", units=[unit])


def start(units: list[str]) -> None:
    """Start `units` together; AgentError carries the log of the first that fails."""
    run("systemctl", "reset-failed", *units, check=False)
    if run("systemctl", "start", *units, check=False, timeout=180).returncode:
        broken = [unit for unit, state in states(units).items() if state["ActiveState"] != "active"]
        reason = log(broken[0]) if broken else "no reason given"
        raise AgentError(f"{', '.join(broken)} did not start: {reason}", units=broken)


def stop(units: list[str]) -> None:
    if units:
        run("systemctl", "stop", *units, timeout=180)


def log(unit: str, lines: int = 5) -> str:
    """The unit's last own words in the journal, on one line."""
    text = run("journalctl", "--no-pager", "--output=cat", f"--lines={lines}", f"--unit={unit}", check=False)
    return " | ".join(text.stdout.strip().splitlines())
