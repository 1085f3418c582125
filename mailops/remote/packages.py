"""Debian packages: which are installed (dpkg's own status file), and installing what is missing."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import AgentError
from .shell import ENVIRONMENT, run, tail, write_atomic

STATUS = "/var/lib/dpkg/status"
LISTS = "/var/lib/apt/lists"
POLICY = "/usr/sbin/policy-rc.d"
POLICY_TEXT = "#!/bin/sh\n# mailops: no daemon starts while packages are being installed\nexit 101\n"
A_DAY = 86400.0  # seconds
PATIENCE = 300.0  # seconds for another apt to finish


def missing(wanted: list[str]) -> list[str]:
    have = _states()
    return [name for name in wanted if not have.get(name, "").endswith(" ok installed")]  # held ones, too


def converge(wanted: list[str], link: Any, dry_run: bool = False) -> list[str]:
    """Install what is missing, with live progress; returns a line per package."""
    absent = missing(wanted)
    if dry_run:
        return [f"install {name}" for name in absent]
    if absent:
        with _no_daemon_starts():
            if any(state.split()[-1] not in ("installed", "config-files") for state in _states().values()):
                _patiently("dpkg", "--configure", "-a", "--force-confold")  # an interrupted run's
            if _lists_age() > A_DAY:
                link.progress("packages", 0, "reading package lists")
                _patiently("apt-get", "-q", "update")
            _install(absent, link)
    elif os.path.exists(POLICY) and _is_ours():
        os.unlink(POLICY)  # an interrupted run's: it would keep the administrator's own packages from starting
    return [f"install {name}" for name in absent]


def _states() -> dict[str, str]:
    """Package -> its dpkg state (dpkg-query(1)); read from the file, which spares a process."""
    states: dict[str, str] = {}
    name = ""
    with open(STATUS, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("Package: "):
                name = line[9:].strip()
            elif line.startswith("Status: "):
                states[name] = line[8:].strip()
    return states


def _lists_age() -> float:
    """Seconds since the last `apt-get update`; endless when there has been none."""
    try:
        names = [name for name in os.listdir(LISTS) if name.endswith("_Packages") or "Release" in name]
    except FileNotFoundError:
        names = []
    return time.time() - max((os.stat(f"{LISTS}/{name}").st_ctime for name in names), default=0.0)


def _patiently(*command: str) -> None:
    """Run what does not wait for apt's locks itself; Debian's daily timer, or what a cut run started, may have them."""
    deadline = time.monotonic() + PATIENCE
    while (done := run(*command, check=False, timeout=None)).returncode:
        if "lock" not in done.stderr or time.monotonic() > deadline:
            raise AgentError(f"{' '.join(command)} failed: {tail(done.stderr)}")
        time.sleep(1)


def _install(names: list[str], link: Any) -> None:
    """apt-get with its machine-readable progress (APT's README.progress-reporting) on a pipe of our own."""
    reading, writing = os.pipe()
    command = ["apt-get", "-y", "-q", "install", "--no-install-recommends", *names]
    command += ["-o", f"APT::Status-Fd={writing}", "-o", "Dpkg::Options::=--force-confold"]
    command += ["-o", "DPkg::Lock::Timeout=300"]
    with open("/var/log/mailops-apt.log", "wb") as log:
        os.chmod(log.name, 0o640)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENVIRONMENT, pass_fds=[writing]
        )
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8", errors="replace") as status:
            for line in status:
                _report(line, link)
        code = process.wait()
    if code:
        with open("/var/log/mailops-apt.log", encoding="utf-8", errors="replace") as log_text:
            reason = tail(log_text.read(), 6)
        raise AgentError(f"apt-get could not install the packages: {reason}", hint="see /var/log/mailops-apt.log there")


def _report(line: str, link: Any) -> None:
    """`dlstatus:1:12.5:text` (first half of the bar) or `pmstatus:package:40.1:text` (second half)."""
    kind, _, rest = line.rstrip("\n").partition(":")
    fields = rest.split(":", 2)
    if len(fields) < 3 or kind not in ("dlstatus", "pmstatus"):
        return
    try:
        percent = float(fields[1]) / 2 + (50 if kind == "pmstatus" else 0)
    except ValueError:
        return
    link.progress("packages", percent, fields[2])


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
