"""How the machines are: one line each to scan, everything with --json."""

from __future__ import annotations

import time
from typing import Any

from mailops import fleet
from mailops.roles import MADE
from mailops.ssh.machine import BareMachine, Machine

STATES = {"up": "✓ up", "degraded": "✗ degraded", "locked": "● locked", "bare": "● not set up"}
GIB = 1 << 30
CLOCK = 300.0  # seconds; what was said may have been on its way for some of them


def show(c: Any, as_json: bool = False) -> None:
    """Ask each machine; a machine that cannot be asked is told of in its line."""
    fleet.each(c, MADE, _ask, as_json, _print)


def _print(name: str, result: dict[str, Any]) -> None:
    for line in _lines(name, result):
        print(line, flush=True)


def _ask(machine: Machine) -> dict[str, Any]:
    try:
        return machine.call("status", {})
    except BareMachine as bare:
        return {"state": "bare", "release": bare.release}


def _lines(name: str, result: dict[str, Any]) -> list[str]:
    head = f"{name:<12} {STATES.get(result['state'], result['state']):<14} Debian {result['release']}"
    if result["state"] == "bare":
        return [f"{head}  next: fab -H {name} bootstrap"]
    queue = "?" if result["queue"] is None else result["queue"]
    queue = f"{queue} ({result['held']} on hold)" if result.get("held") else queue
    head += f"  {result['role']:<9} {result['hostname']}  queue {queue}  up {_span(result['uptime'])}"
    vault = result["vault"]
    if vault and "free" in vault:
        head += f"  vault {vault['free'] / GIB:.1f} GiB free"
    head += "".join(f"  {package} {version}" for package, version in result.get("versions", {}).items())
    if result["state"] == "locked":
        task = "bootstrap" if result.get("upgraded") else "unlock"
        locked = f"{'':<12} the vault is locked, mail is off; next: fab -H {name} {task}"
        return [head, locked] + [f"{'':<12} ● {line}" for line in _odd(name, result)]
    bad = []
    if vault and vault["open"] and not vault.get("answers", True):
        bad = [f"the vault does not answer; next: fab -H {name} lock, then unlock"]
    bad += [
        f"{unit} is {state}; next"
        + (f", as root there: systemctl unmask {unit}" if state == "masked" else f": fab -H {name} bootstrap")
        for unit, state in result["services"].items()
        if state != "active"
    ]
    bad += [f"{probe}: {fleet.told(name, reason)}" for probe, reason in result["probes"].items() if reason]
    lines = [head] + [f"{'':<12} ✗ {line}" for line in bad] + [f"{'':<12} ● {line}" for line in _odd(name, result)]
    if any("next" not in line for line in bad):
        lines.append(f"{'':<12} next: fab -H {name} bootstrap, which starts afresh what does not answer")
    return lines


def _odd(name: str, result: dict[str, Any]) -> list[str]:
    """What does not keep mail from working, and should be looked at."""
    odd = [f"edited on the machine: {', '.join(result['drift'])}; see fab -H {name} drift"] if result["drift"] else []
    odd += [f"{line}; next: fab -H {name} bootstrap" for line in result.get("certificate_fault", [])]
    if damage := (result["vault"] or {}).get("damage"):
        odd.append(f"{damage['what']}; next: {damage['next']}")
    odd += [f"not yet {line}; next: fab -H {name} bootstrap" for line in result.get("sources", [])]
    if broken := result.get("packages"):
        anew = "; then apt-get install --reinstall what must be" if "must be reinstalled" in str(broken) else ""
        odd.append(f"packages are half installed: {', '.join(broken)}; next, as root there: dpkg --configure -a{anew}")
    if held := result.get("held_packages"):
        names = " ".join(held)
        odd.append(f"held, so without updates: {', '.join(held)}; next, as root there: apt-mark unhold {names}")
    if swap := result.get("swap"):
        odd.append(
            f"swap is in clear ({', '.join(swap)}), and may hold what a thief of the disk reads; "
            f"next, as root there: swapoff -a, and out of /etc/fstab; or encrypt it"
        )
    if abs(ahead := result.get("now", time.time()) - time.time()) > CLOCK:
        way = f"{_span(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this computer's"
        odd.append(f"its clock is {way}; next, on the one that is wrong, as root: timedatectl set-ntp true")
    task = "unlock" if result["state"] == "locked" and not result.get("upgraded") else "bootstrap"
    interrupted = f"an interrupted run is to be finished or undone; next: fab -H {name} {task}"
    if result.get("upgraded"):
        odd.append(f"{result['upgraded']}; next: fab -H {name} bootstrap")
    return odd + ([interrupted] if result["interrupted"] else []) + ([result["busy"]] if result["busy"] else [])


def _span(seconds: float) -> str:
    days, rest = divmod(int(seconds), 86400)
    return f"{days} d" if days else f"{rest // 3600} h {rest % 3600 // 60} min"
