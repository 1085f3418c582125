"""Debian packages: installing what is missing, while package scripts start no daemon."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..shared.errors import AgentError
from . import dpkg
from .lock import RUN
from .shell import ENVIRONMENT, run, runs, tail, write_atomic

if TYPE_CHECKING:
    import subprocess

    from ..shared.calls import Link
    from ..shared.forms import Manifest

LISTS = "/var/lib/apt/lists"
POLICY = "/usr/sbin/policy-rc.d"
INSTALLING = f"{RUN}/installing"
# What package scripts ask before they start or stop a daemon (invoke-rc.d(8)). All may stop: another mail server, too.
POLICY_TEXT = """#!/bin/sh
# mailops: no daemon starts while packages are being installed
while [ "${1#--}" != "$1" ]; do shift; done
[ "$2" = stop ] || exit 101
"""
# The one that stays: a daemon that refuses to start leaves its package half configured, and later upgrades undone.
LASTING_POLICY = """#!/bin/sh
# mailops: of mail no daemon starts while the vault is locked, and none at all while packages are being installed
while [ "${{1#--}}" != "$1" ]; do shift; done
[ "$2" = stop ] && exit 0
[ -e {installing} ] && exit 101
case ${{1%.service}} in {names}) timeout 10 mountpoint -q {mountpoint} || exit 101 ;; esac
exit 0
"""
# A source that does not answer is no reason to wait for long.
BRIEFLY = ("-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=10", "-o", "Acquire::https::Timeout=10")
# apt's, dpkg's and debconf's words for a lock that another process has. A disk that cannot be written is none.
HELD = re.compile("Could not get lock|locked by another process")
UNREADABLE = "The list of sources could not be read."
A_DAY = 86400.0  # seconds
PATIENCE = 300.0  # seconds for another apt to finish


class Unfetched(AgentError):
    """A package that the lists name is not where they say."""


def converge(
    wanted: list[str],
    debconf: list[str],
    link: Link,
    dry_run: bool = False,
    unpacked: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Install what is missing, with live progress; returns a line per package.
    `debconf` answers what they ask (debconf-set-selections(1)); of a package that is there already it is left as it is.
    `unpacked` is called with the name of each package that is there and was not set up yet.
    """
    absent = dpkg.missing(wanted)
    if dry_run:
        return [f"install {name}" for name in absent]
    if absent:
        with _no_daemon_starts():
            if answers := [line for line in debconf if line.split()[0] in absent]:
                _patiently("debconf-set-selections", stdin="\n".join(answers))
            _finish_others(link)
            if fresh := _lists_age() > A_DAY:
                update(link)
            try:
                _install(absent, link, unpacked)
            except Unfetched:
                if fresh:
                    raise
                update(link)  # the lists name what has been replaced since
                _install(absent, link, unpacked)
    else:
        _clear()
    return [f"install {name}" for name in absent]


def take(versions: dict[str, str], link: Link) -> None:
    """Install exactly these versions, older ones than there are, too. Unfetched where they do not come."""
    with _no_daemon_starts():
        _finish_others(link)
        names = [f"{name}={version}" for name, version in versions.items()]
        _install(names, link, lambda _: None, "--allow-downgrades")


def _finish_others(link: Link) -> None:
    """What an interrupted run has left half installed, or half unpacked: dpkg cannot finish that, it comes anew."""
    if not dpkg.half_done():
        return
    done = _wait_for_locks("dpkg", "--configure", "-a", "--force-confold")
    if torn := dpkg.torn():
        _install(torn, link, lambda _: None, "--reinstall")
    elif done.returncode:
        raise AgentError(f"dpkg --configure -a failed: {tail(done.stderr)}")


def _lists_age() -> float:
    """Seconds since the last `apt-get update`; endless when there has been none."""
    try:
        names = [name for name in os.listdir(LISTS) if name.endswith("_Packages") or "Release" in name]
    except FileNotFoundError:
        names = []
    return time.time() - max((os.stat(f"{LISTS}/{name}").st_ctime for name in names), default=0.0)


def _patiently(*command: str, stdin: str = "") -> None:
    """Run what does not wait for the locks of apt, dpkg or debconf itself; Debian's daily timer, or what a cut run
    started, may have them."""
    if (done := _wait_for_locks(*command, stdin=stdin)).returncode:
        raise AgentError(f"{' '.join(command)} failed: {tail(done.stderr)}")


def _wait_for_locks(*command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    deadline = time.monotonic() + PATIENCE
    while (done := run(*command, stdin=stdin, check=False, timeout=None)).returncode:
        if not HELD.search(done.stderr) or time.monotonic() > deadline:
            break
        time.sleep(1)
    return done


def update(link: Link) -> None:
    """Read the package lists. A source that fails is told of, and does without: what we need may be in another one."""
    link.progress("packages", 0, "reading package lists")
    done = _wait_for_locks("apt-get", "-q", *BRIEFLY, "update")
    told = [line[3:] for line in done.stderr.splitlines() if line.startswith(("E: ", "W: "))]
    if UNREADABLE in told:  # then apt does nothing at all
        reason = "; ".join(line for line in told if line != UNREADABLE)
        raise AgentError(f"apt cannot read its list of sources: {reason}", "mend that file there, then bootstrap again")
    for line in dict.fromkeys(line for line in told if "Some index files failed" not in line):
        link.say(f"a source of packages is left out: {line}")


def _install(names: list[str], link: Link, unpacked: Callable[[str], None], *options: str) -> None:
    """apt-get with its machine-readable progress (APT's README.progress-reporting) on a pipe of our own."""
    import subprocess

    reading, writing = os.pipe()
    command = ["apt-get", "-y", "-q", "install", "--no-install-recommends", *options, *names]
    command += ["-o", f"APT::Status-Fd={writing}", "-o", "Dpkg::Options::=--force-confold"]
    command += ["-o", "DPkg::Lock::Timeout=300"]
    with open("/var/log/mailops-apt.log", "wb") as log:
        os.chmod(log.name, 0o640)
        runs.append(command[0])
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENVIRONMENT, pass_fds=[writing]
        )
        os.close(writing)
        fresh: list[str] = []
        with os.fdopen(reading, encoding="utf-8", errors="replace") as status:
            for line in status:
                _report(line, link, fresh, unpacked)
        code = process.wait()
    if code:
        with open("/var/log/mailops-apt.log", encoding="utf-8", errors="replace") as log_text:
            reason = tail(log_text.read(), 6)
        kind = Unfetched if "Unable to fetch" in reason else AgentError
        raise kind(f"apt-get could not install the packages: {reason}", hint="see /var/log/mailops-apt.log there")


def _report(line: str, link: Link, fresh: list[str], unpacked: Callable[[str], None]) -> None:
    """`dlstatus:1:12.5:text` (first half of the bar) or `pmstatus:package:40.1:Installed package` (second half).

    dpkg unpacks many packages and then sets them up; those in between are `fresh`.
    """
    kind, _, rest = line.rstrip("\n").partition(":")
    fields = rest.split(":", 2)
    if len(fields) < 3 or kind not in ("dlstatus", "pmstatus"):
        return
    try:
        percent = float(fields[1]) / 2 + (50 if kind == "pmstatus" else 0)
    except ValueError:
        return
    link.progress("packages", percent, fields[2])
    if fields[2].startswith("Unpacking "):
        fresh.append(fields[0])
    elif fields[2].startswith("Preparing to configure "):
        while fresh:
            unpacked(fresh.pop())


@contextmanager
def _no_daemon_starts() -> Iterator[None]:
    """Keep package scripts from starting daemons with Debian's own configuration (invoke-rc.d(8)).

    An administrator's own policy-rc.d is left alone.
    """
    policy = _policy()
    if policy and not _is_ours(policy):
        yield
        return
    if INSTALLING in policy:
        os.makedirs(RUN, mode=0o700, exist_ok=True)
        write_atomic(INSTALLING, b"")
    else:
        write_atomic(POLICY, POLICY_TEXT.encode(), 0o755)  # half of it would be somebody else's to the next run
    try:
        yield
    finally:
        _clear()


def keep_policy(wanted: Manifest, dry_run: bool = False) -> list[str]:
    """Package scripts do not even try to start a daemon of mail while the vault is locked.

    An administrator's own policy-rc.d is left alone.
    """
    policy, units = _policy(), [service["unit"].removesuffix(".service") for service in wanted["services"]]
    if not wanted["vault"] or (policy and not _is_ours(policy)):
        return []
    names = "|".join(f"{unit.partition('-')[0]}*" for unit in units)
    text = LASTING_POLICY.format(names=names, mountpoint=wanted["vault"]["mountpoint"], installing=INSTALLING)
    if policy == text:
        return []
    if not dry_run:
        write_atomic(POLICY, text.encode(), 0o755)
    return [POLICY]


def _clear() -> None:
    """What holds for an installation alone; left by a cut run, it would keep others' packages from starting."""
    if os.path.exists(INSTALLING):
        os.unlink(INSTALLING)
    policy = _policy()
    if _is_ours(policy) and INSTALLING not in policy:
        os.unlink(POLICY)


def _policy() -> str:
    """The text of policy-rc.d, "" where there is none."""
    try:
        with open(POLICY, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _is_ours(policy: str) -> bool:
    return "mailops:" in policy
