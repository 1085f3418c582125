"""How the machines are: one line each to scan, everything with --json."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mailops import fleet
from mailops.errors import FAILED, LOCKED, MailopsError
from mailops.roles import MADE, runs
from mailops.services import accounts
from mailops.ssh.machine import BareMachine, Machine

if TYPE_CHECKING:
    from mailops.remote.shared.calls import NotSetUp, Status, StatusArgs

# A mark, and the state in words.
STATES = {"up": ("✓", "up"), "degraded": ("✗", "degraded"), "locked": ("●", "locked"), "bare": ("●", "not set up")}
GIB = 1 << 30
DAY = 86400
CLOCK = 300.0  # seconds; what was said may have been on its way for some of them


def show(c: Any, as_json: bool = False, quiet: bool = False) -> None:
    """Ask each machine; one that cannot be asked is told of in its line. `quiet` shows only those that are not up.

    MailopsError when one is not: 4 where it cannot be asked, 1 where mail does not work, 5 where all that is wrong is a
    locked vault.
    """
    states: dict[str, str] = {}

    def ask(machine: Machine) -> Status | NotSetUp:
        result = _ask(machine)
        states[machine.host.name] = result["state"]
        return result

    def show_one(name: str, result: Status | NotSetUp) -> None:
        if not quiet or result["state"] != "up":
            print("\n".join(_lines(name, result)), flush=True)

    fleet.each(c, MADE, ask, as_json, show_one)
    if down := {name: state for name, state in states.items() if state != "up"}:
        told = [f"{name} is {STATES[state][1]}" for name, state in down.items()]
        raise MailopsError(", ".join(told), code=LOCKED if set(down.values()) == {"locked"} else FAILED)


def _ask(machine: Machine) -> Status | NotSetUp:
    try:
        return machine.call("status", _listed(machine))
    except BareMachine as bare:
        return {"state": "bare", "release": bare.release}


def _listed(machine: Machine) -> StatusArgs:
    """What hosts.toml lists by now, for who has accounts to compare."""
    if not runs(machine.host.role, "accounts"):
        return {}
    wanted = accounts.listed(machine.site)
    return {"accounts": {"domains": [*wanted.domains], "users": [*wanted.users], "aliases": [*wanted.aliases]}}


def _lines(name: str, result: Status | NotSetUp) -> list[str]:
    head = f"{name:<12} {' '.join(STATES[result['state']]):<14} Debian {result['release']}"
    if result["state"] == "bare":
        return [f"{head}  next: fab -H {name} bootstrap"]
    head += f"  {result['role']:<9} {result['hostname']}  queue {_queue(result)}  up {_span(result['uptime'])}"
    lines = [head, *_details(result), *_locked(name, result)]
    lines += [f"{'':<12} ✗ {line}" for line in _bad(name, result)]
    lines += [f"{'':<12} ● {line}" for line in _odd(name, result)]
    if result["unadvised"]:
        lines.append(f"{'':<12} next: fab -H {name} bootstrap, which starts afresh what does not answer")
    return lines


def _queue(result: Status) -> str:
    told = "?" if result["queue"] is None else str(result["queue"])
    if oldest := result.get("oldest"):
        told += f", oldest {_span(_now(result) - oldest['since'])}"
    return f"{told} ({result['held']} on hold)" if result.get("held") else told


def _details(result: Status) -> list[str]:
    """Room, certificates, versions: a line below the first."""
    vault = result["vault"]
    told = [f"vault {vault['free'] / GIB:.1f} GiB free"] if vault and "free" in vault else []
    for leaf in result.get("certificates", []):
        days = max(0, int((leaf["ends"] - _now(result)) // DAY))
        told.append(f"certificate {', '.join(leaf['names'])} {days} d left")
    told += [f"{package} {version}" for package, version in result.get("versions", {}).items()]
    return [f"{'':<12} {'  '.join(told)}"] if told else []


def _locked(name: str, result: Status) -> list[str]:
    """What a locked machine does all the same, and how it is opened."""
    if result["state"] != "locked":
        return []
    task = "bootstrap" if result.get("upgraded") else "unlock"
    running = [unit for unit in result.get("able", []) if result["services"].get(unit) == "active"]
    others = f", {', '.join(running)} runs all the same" if running else ""
    return [f"{'':<12} the vault is locked, mail is off{others}; next: fab -H {name} {task}"]


def _bad(name: str, result: Status) -> list[str]:
    """What keeps mail from working; of a locked machine, what should work without the vault and does not."""
    vault, locked = result["vault"], result["state"] == "locked"
    bad = []
    if vault and vault["open"] and not vault.get("answers", True):
        bad = [f"the vault does not answer; next: fab -H {name} lock, then unlock"]
    bad += [
        f"{unit} is {state}; next"
        + (f", as root there: systemctl unmask {unit}" if state == "masked" else f": fab -H {name} bootstrap")
        for unit, state in result["services"].items()
        if state != "active" and (not locked or unit in result.get("able", []))
    ]
    return bad + [f"{probe}: {fleet.told(name, reason)}" for probe, reason in result["probes"].items() if reason]


def _odd(name: str, result: Status) -> list[str]:
    """What does not keep mail from working, and should be looked at."""
    odd = [f"edited on the machine: {', '.join(result['drift'])}; see fab -H {name} drift"] if result["drift"] else []
    if oldest := result.get("oldest"):
        odd.append(f"the oldest message in the queue waits: {oldest['reason']}; see: fab -H {name} queue")
    odd += [fleet.told(name, line) for line in result.get("certificate_fault", [])]
    odd += [fleet.told(name, line) for line in result.get("accounts", [])]
    odd += [f"{line}; next, as root there: reboot; then fab -H {name} unlock" for line in result.get("reboot", [])]
    if damage := result["vault"] and result["vault"].get("damage"):
        odd.append(f"{damage['what']}; next: {damage['next']}")
    odd += [f"not yet {line}; next: fab -H {name} bootstrap" for line in result.get("sources", [])]
    if broken := result.get("packages"):
        anew = "; then apt-get install --reinstall what must be" if result.get("torn") else ""
        odd.append(f"packages are half installed: {', '.join(broken)}; next, as root there: dpkg --configure -a{anew}")
    if held := result.get("held_packages"):
        names = " ".join(held)
        odd.append(f"held, so without updates: {', '.join(held)}; next, as root there: apt-mark unhold {names}")
    if swap := result.get("swap"):
        odd.append(
            f"swap is in clear ({', '.join(swap)}), and may hold what a thief of the disk reads; "
            f"next, as root there: swapoff -a, and out of /etc/fstab; or encrypt it"
        )
    if abs(ahead := _now(result) - time.time()) > CLOCK:
        way = f"{_span(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this computer's"
        odd.append(f"its clock is {way}; next, on the one that is wrong, as root: timedatectl set-ntp true")
    task = "unlock" if result["state"] == "locked" and not result.get("upgraded") else "bootstrap"
    interrupted = f"an interrupted run is to be finished or undone; next: fab -H {name} {task}"
    if result.get("upgraded"):
        odd.append(f"{result['upgraded']}; next: fab -H {name} bootstrap")
    return odd + ([interrupted] if result["interrupted"] else []) + ([result["busy"]] if result["busy"] else [])


def _now(result: Status) -> float:
    """By the machine's own clock."""
    return float(result.get("now", time.time()))


def _span(seconds: float) -> str:
    days, rest = divmod(int(seconds), 86400)
    return f"{days} d" if days else f"{rest // 3600} h {rest % 3600 // 60} min"
