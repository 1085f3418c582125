"""A replica of a site: up, down, and what is there. This is what `fab lab.…` and the tests call."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mailops.lab import blueprint, cache, dns, host, layout, running, snapshot
from mailops.lab.blueprint import Place, Plan
from mailops.lab.furnish import Login, furnish, host_key, make_identity
from mailops.lab.image import RECIPES, Say, images
from mailops.lab.layout import FIRST_HOST_NUMBER, OUTSIDE, OUTSIDE_NUMBER, Lab, LabError, locked, write
from mailops.lab.machine import Machine, lay_out, machines
from mailops.lab.outside import furnish_world, wait_for_services
from mailops.lab.zones import STRANGER_MX
from mailops.site.reader import load

DEFAULT_NAME = "lab"
Agree = Callable[[list[str]], None]
SUITES = {"bookworm": "12", "trixie": "13"}
OUTSIDE_PLAN = Plan(OUTSIDE, "outside", "world", "root", STRANGER_MX)


def default_name() -> str:
    return os.environ.get("MAILOPS_LAB", DEFAULT_NAME)


def up(site_file: Path, lab_name: str, say: Say, agree: Agree = lambda _: None) -> Path:
    """Bring up a replica of the site in `site_file`; returns the replica's hosts.toml.

    Idempotent: what exists is kept, what is off is switched on, what is new is added, what the site
    no longer has is removed. `say` gets a line for each thing that takes time; `agree` the names of the site's machines
    that would be removed with the mail that is on them, before anything is done, and raises where they must not be.
    """
    lab = Lab(lab_name)
    site = load(site_file)
    plans = [OUTSIDE_PLAN, *blueprint.plans(site)]
    source = blueprint.with_whole_paths(site_file.read_text(), site_file.parent)
    host.require_root()
    with locked(f"lab-{lab.name}"):
        differing = _what_differs(lab, plans)
        if names := [there.name for there in differing if there.name != OUTSIDE]:
            agree(names)
        with locked("computer"):
            host.prepare()
            layout.give_slot(lab)
        roots = images({plan.image for plan in plans}, say)
        with locked("computer"):
            cache.start(roots[OUTSIDE_PLAN.image])
        make_identity(lab)
        passwords = _passwords(lab, blueprint.secret_names(source))
        for there in differing:
            say(f"removing {there.name}: the site does not have it, or not like this")
            running.remove(there)
        _make_what_is_missing(lab, plans, roots, passwords, say)
        _write_hosts_file(lab, source)
        dns.refresh(lab)  # before the first machine asks
        _start_all(lab, say)
    return lab.hosts_file


def _passwords(lab: Lab, names: Sequence[str]) -> dict[str, str]:
    """A random password for each secret of the site, made once, each in a file only its owner can read."""
    lab.secrets.mkdir(mode=0o700, exist_ok=True)
    for name in names:
        if not (lab.secrets / name).exists():
            write(lab.secrets / name, secrets.token_urlsafe(18) + "\n", 0o600)
    return {name: (lab.secrets / name).read_text().strip() for name in names}


def _what_differs(lab: Lab, plans: Iterable[Plan]) -> list[Machine]:
    wanted = {plan.name: plan for plan in plans}
    return [there for there in machines(lab) if not _fits(there, wanted.get(there.name))]


def _fits(there: Machine, plan: Plan | None) -> bool:
    if plan is None or (there.role, there.image, there.hostname) != (plan.role, plan.image, plan.hostname):
        return False
    # The outside machine is the lab's own: it follows a newer mailops. The others live on, as servers do.
    return there.name != OUTSIDE or RECIPES[plan.image].key in os.readlink(there.folder / "image")


def _make_what_is_missing(
    lab: Lab, plans: Iterable[Plan], roots: Mapping[str, Path], passwords: Mapping[str, str], say: Say
) -> None:
    for plan in plans:
        there = machines(lab)
        if plan.name in {other.name for other in there}:
            continue
        say(f"making {plan.name} ({plan.hostname}, {plan.image})")
        number = OUTSIDE_NUMBER if plan == OUTSIDE_PLAN else _free_number(there)
        new = Machine(lab, plan.name, plan.role, plan.image, plan.hostname, number)
        running.remove(new)  # what a killed run has left of it
        lay_out(new, roots[plan.image])
        furnish(new, Login(plan.user, passwords.get(f"hosts.{plan.name}.sudo_pw")))
        if plan == OUTSIDE_PLAN:
            furnish_world(new)
        new.save()


def _free_number(there: Iterable[Machine]) -> int:
    taken = {other.number for other in there}
    return next(number for number in range(FIRST_HOST_NUMBER, 255) if number not in taken)


def _write_hosts_file(lab: Lab, source: str) -> None:
    hosts = [there for there in machines(lab) if there.name != OUTSIDE]
    places = {there.name: Place(there.address, host_key(there)) for there in hosts}
    text = blueprint.copy(source, places, lab.identity, lab.name_server, lab.secrets)
    source_then = lab.folder / "source.toml"
    if lab.hosts_file.exists() and source_then.exists():
        text = blueprint.keep_own_values(text, lab.hosts_file.read_text(), source_then.read_text(), source)
    write(lab.hosts_file, text)
    write(source_then, source)
    _give_to_caller(lab)


def _give_to_caller(lab: Lab) -> None:
    """Through sudo, the files that plain `fab` needs belong to the user who typed it."""
    if "SUDO_UID" not in os.environ:
        return
    uid, gid = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
    keys = lab.identity.parent
    for path in (lab.folder, lab.hosts_file, lab.secrets, *lab.secrets.iterdir(), keys, *keys.iterdir()):
        os.chown(path, uid, gid, follow_symlinks=False)


def _start_all(lab: Lab, say: Say) -> None:
    there = machines(lab)
    off = [one.name for one in there if not running.is_on(one)]
    if off:
        say(f"starting {', '.join(off)}")
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(running.start, there))
    wait_for_services(Machine.load(lab, OUTSIDE))


def down(lab_name: str) -> list[str]:
    """Remove a lab, in whatever state it is; the machines that were there. The last one takes the cache and the bridge
    with it.
    """
    host.require_root()
    lab = Lab(lab_name)
    with locked(f"lab-{lab.name}"):
        names = [folder.name for folder in sorted(lab.machines.glob("*"))]
        for name in names:
            running.remove(_whatever(lab, name))
        host.delete(lab.folder)
        with locked("computer"):
            if not layout.labs():
                cache.stop()
                host.bridge_down()
    return names


def keep(lab_name: str) -> None:
    """Take a snapshot of a lab, unless it has one; its machines are off for a moment."""
    host.require_root()
    lab = Lab(lab_name)
    with locked(f"lab-{lab.name}"):
        if not snapshot.exists(lab):
            snapshot.take(lab)


def copy(lab_name: str, other_name: str, say: Say) -> Path:
    """Another lab, made from the snapshot of the lab `lab_name` and with a snapshot at that moment; its hosts.toml.

    Seconds instead of a bootstrap: the machines are as bootstrapped, at other addresses.
    """
    lab, other = Lab(lab_name), Lab(other_name)
    down(other.name)
    with locked(f"lab-{other.name}"):
        with locked("computer"):
            layout.give_slot(other)
        make_identity(other)
        say(f"making {other.name} from {lab.name}")
        snapshot.give(lab, other)
        _write_hosts_file(other, (other.folder / "source.toml").read_text())
        snapshot.take(other)
    return other.hosts_file


def is_kept(lab_name: str) -> bool:
    """Whether a lab has a snapshot to come back to."""
    return snapshot.exists(Lab(lab_name))


def come_back(lab_name: str) -> None:
    """The lab as it was at its snapshot, as after a power cut at that moment; LabError if there is none."""
    host.require_root()
    lab = Lab(lab_name)
    with locked(f"lab-{lab.name}"):
        snapshot.come_back(lab)


def _whatever(lab: Lab, name: str) -> Machine:
    """A machine to remove; what a killed `up` left has no facts, and was never on."""
    try:
        return Machine.load(lab, name)
    except LabError:
        return Machine(lab, name, "", "", "", 0)


def status(lab_name: str) -> list[dict[str, str]]:
    """A line for each machine: name, role, debian, address, state ("on", "off" or "booting")."""
    host.require_root()
    return [
        {
            "name": there.name,
            "role": there.role,
            "debian": SUITES[RECIPES[there.image].suite],
            "address": there.address,
            "state": _state(there),
        }
        for there in machines(Lab(lab_name))
    ]


def _state(there: Machine) -> str:
    if not running.is_on(there):
        return "off"
    return "on" if running.answers(there) else "booting"


# By name, for tasks and tests


def _machine(lab_name: str, name: str) -> Machine:
    host.require_root()
    return Machine.load(Lab(lab_name), name)


def run(  # noqa: PLR0913, PLR0917 (the shape of subprocess.run)
    lab_name: str,
    name: str,
    command: Sequence[str] | str,
    input: str | None = None,
    check: bool = True,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command (a list) or a shell script (a string) as root inside a machine, without ssh."""
    return running.run(_machine(lab_name, name), command, input, check, timeout)


def shell(lab_name: str, name: str, command: Sequence[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Become a root shell inside a machine; with a command, run that and return what it said."""
    if command:
        return run(lab_name, name, command, check=False)
    argv = running.enter(_machine(lab_name, name), ["bash", "--login"])
    os.execvp(argv[0], argv)  # noqa: S606


def start(lab_name: str, name: str) -> None:
    running.start(_machine(lab_name, name))


def stop(lab_name: str, name: str) -> None:
    """An orderly shutdown."""
    running.stop(_machine(lab_name, name))


def kill(lab_name: str, name: str) -> None:
    """A power cut."""
    running.kill(_machine(lab_name, name))


def reboot(lab_name: str, name: str) -> None:
    """Reboot from inside, and wait until the machine is really back."""
    running.reboot(_machine(lab_name, name))


def root_path(lab_name: str, name: str) -> Path:
    """A machine's file system as seen from this computer."""
    return _machine(lab_name, name).root


def address(lab_name: str, name: str) -> str:
    return _machine(lab_name, name).address


def publish(lab_name: str, records: Iterable[tuple[str, str, str]]) -> None:
    """Put (name, type, text) records into the lab's DNS; see dns.publish."""
    dns.publish(Lab(lab_name), records)


def unpublish(lab_name: str, records: Iterable[tuple[str, str]]) -> None:
    """Take published records of these (name, type) out of the lab's DNS."""
    dns.unpublish(Lab(lab_name), records)
