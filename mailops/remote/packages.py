"""Debian packages: which are installed (dpkg's own status file), and installing what is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .errors import AgentError
from .shell import ENVIRONMENT, run, runs, tail, write_atomic

STATUS = "/var/lib/dpkg/status"
LISTS = "/var/lib/apt/lists"
POLICY = "/usr/sbin/policy-rc.d"
POLICY_TEXT = "#!/bin/sh\n# mailops: no daemon starts while packages are being installed\nexit 101\n"
A_DAY = 86400.0  # seconds
PATIENCE = 300.0  # seconds for another apt to finish


def missing(wanted: list[str]) -> list[str]:
    """Those of `wanted` that are not installed; read from dpkg's own file, which spares a process."""
    with open(STATUS, "rb") as file:
        text = b"\n" + file.read()
    return [name for name in wanted if not _is_installed(text, name.encode())]


def version(name: str) -> str:
    """The installed version of a package, "" when it is not there."""
    with open(STATUS, encoding="utf-8", errors="replace") as file:
        _, found, entry = f"\n{file.read()}".partition(f"\nPackage: {name}\n")
    fields = dict(line.split(": ", 1) for line in entry.partition("\n\n")[0].splitlines() if ": " in line)
    return fields.get("Version", "") if found and fields.get("Status", "").endswith(" installed") else ""


def _is_installed(text: bytes, name: bytes) -> bool:
    """deb822(5): each entry begins with its Package, and has a Status."""
    entry = text.find(b"\nPackage: %s\n" % name)
    status = text.find(b"\nStatus: ", entry + 1)
    return entry >= 0 and text[status + 1 : text.find(b"\n", status + 1)].endswith(b" ok installed")  # held ones, too


def converge(
    wanted: list[str],
    debconf: list[str],
    link: Any,
    dry_run: bool = False,
    unpacked: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Install what is missing, with live progress; returns a line per package.

    `debconf` answers what they ask (debconf-set-selections(1)); of a package that is there already it is left as it is.
    `unpacked` is called with the name of each package that is there and was not set up yet.
    """
    absent = missing(wanted)
    if dry_run:
        return [f"install {name}" for name in absent]
    if absent:
        with _no_daemon_starts():
            if answers := [line for line in debconf if line.split()[0] in absent]:
                _patiently("debconf-set-selections", stdin="\n".join(answers))
            if any(state not in ("installed", "config-files") for state in _states()):
                _patiently("dpkg", "--configure", "-a", "--force-confold")  # an interrupted run's
            if _lists_age() > A_DAY:
                link.progress("packages", 0, "reading package lists")
                _patiently("apt-get", "-q", "update")
            _install(absent, link, unpacked)
    elif os.path.exists(POLICY) and _is_ours():
        os.unlink(POLICY)  # an interrupted run's: it would keep the administrator's own packages from starting
    return [f"install {name}" for name in absent]


def _states() -> set[str]:
    """The states that packages are in (dpkg-query(1))."""
    with open(STATUS, encoding="utf-8", errors="replace") as file:
        return {line.split()[-1] for line in file if line.startswith("Status: ")}


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
    deadline = time.monotonic() + PATIENCE
    while (done := run(*command, stdin=stdin, check=False, timeout=None)).returncode:
        if "lock" not in done.stderr or time.monotonic() > deadline:
            raise AgentError(f"{' '.join(command)} failed: {tail(done.stderr)}")
        time.sleep(1)


def _install(names: list[str], link: Any, unpacked: Callable[[str], None]) -> None:
    """apt-get with its machine-readable progress (APT's README.progress-reporting) on a pipe of our own."""
    import subprocess

    reading, writing = os.pipe()
    command = ["apt-get", "-y", "-q", "install", "--no-install-recommends", *names]
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
        raise AgentError(f"apt-get could not install the packages: {reason}", hint="see /var/log/mailops-apt.log there")


def _report(line: str, link: Any, fresh: list[str], unpacked: Callable[[str], None]) -> None:
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
    if os.path.exists(POLICY) and not _is_ours():
        yield
        return
    write_atomic(POLICY, POLICY_TEXT.encode(), 0o755)  # half of it would be somebody else's to the next run
    try:
        yield
    finally:
        os.unlink(POLICY)


def _is_ours() -> bool:
    with open(POLICY, encoding="utf-8", errors="replace") as file:
        return "mailops:" in file.read()
