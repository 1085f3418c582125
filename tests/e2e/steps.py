"""Cutting an agent short at a system call of one's choice, on a real machine, with no hook in the agent.

A script of ours stands before python3 in the machine's PATH. When it is told to, it starts the real one under
strace(1), which counts the calls of the agent's main thread, and kills or stops it at the n-th of a kind. The
programs that the agent starts are not traced: to start one, and to wait for it, are steps of the agent.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mailops import bootstrap
from mailops.errors import MailopsError
from mailops.lab import replica
from mailops.manifest import Manifest
from mailops.site import reader
from mailops.ssh import machine as machines
from mailops.ssh.machine import Machine
from tests.e2e.house import PROJECT, House
from tests.e2e.pace import pace

FOLDER = "/var/tmp/steps"  # where this computer sees it as well
# Calls that change something when they succeed, and those that may.
CHANGE = (
    "rename renameat renameat2 unlink unlinkat link linkat symlink symlinkat mkdir mkdirat rmdir chmod fchmod fchmodat"
    " chown fchown lchown fchownat fsync fdatasync ftruncate truncate mknod mknodat utimensat setxattr fsetxattr"
    " fallocate copy_file_range sendfile flock fork vfork exit_group"
)
MAY_CHANGE = {
    "openat": re.compile(r"O_CREAT|O_TRUNC"),  # to open what is there changes nothing
    "write": re.compile(r"^write\(\d+</(?!dev/|proc/)"),
    "pwrite64": re.compile(r"^pwrite64\(\d+</"),
    "ioctl": re.compile(r"SETFLAGS"),
}
LINE = re.compile(r"(\w+)\(.*\) += (-?\d+|\?)")

# how: strace's options for the next agent; then: what happens when it has been stopped.
WRAPPER = f"""#!/bin/sh
[ -e {FOLDER}/how ] || exec /usr/bin/python3 "$@"
how=$(cat {FOLDER}/how); rm -f {FOLDER}/how
echo $$ >{FOLDER}/pid
if [ -e {FOLDER}/then ]; then
    mv {FOLDER}/then {FOLDER}/then.now
    (
        until grep -q 'stopped by SIGSTOP' {FOLDER}/log; do kill -0 $$ || exit; sleep 0.02; done
        sh {FOLDER}/then.now $$
    ) </dev/null >/dev/null 2>&1 &
fi
exec strace -D -q -y -s 0 -o {FOLDER}/log $how /usr/bin/python3 "$@"
"""
# The sshd of this login is found by walking up.
HANG_UP = """
session=$1
while [ "$session" -gt 1 ] && ! grep -q '^sshd' /proc/$session/comm; do
    session=$(awk '/^PPid:/ {print $2}' /proc/$session/status)
done
kill -9 $session
while kill -0 $session 2>/dev/null; do sleep 0.01; done
kill -CONT $1
"""


A_HASH = "{BLF-CRYPT}$2b$10$" + "a" * 53  # of whatever password


@dataclasses.dataclass(frozen=True)
class Step:
    """One system call of a run: the `number`-th of its kind, as strace shows it, without what differs by chance."""

    call: str
    number: int
    shown: str

    def __str__(self) -> str:
        return f"{self.call} {self.number}: {self.shown}"


def rotation() -> str:
    """A number that the next commit has one more of; without git, the day."""
    # Through sudo the folder is another user's, which git would not look at.
    count = ["git", "-C", str(PROJECT), "-c", "safe.directory=*", "rev-list", "--count", "HEAD"]
    try:
        return subprocess.run(count, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return str(int(time.time() // 86400))


class Stepped:
    """A machine whose next agent can be watched or cut."""

    def __init__(self, house: House, name: str) -> None:
        self.house, self.name = house, name
        self.folder = replica.root_path(house.lab, name) / FOLDER.lstrip("/")

    def __enter__(self) -> Stepped:
        script = (
            "[ -e /usr/bin/strace ] || apt-get -yq -o DPkg::Lock::Timeout=60 install --no-install-recommends strace"
        )
        self.run(f"{script}; rm -rf {FOLDER}; mkdir {FOLDER}")
        self.run("cat >/usr/local/bin/python3; chmod 755 /usr/local/bin/python3", WRAPPER)
        return self

    def __exit__(self, *_: object) -> None:
        """An agent that is still stopped would hold the machine in all tests to come."""
        left = f"pid=$(cat {FOLDER}/pid 2>/dev/null) && grep -qz -e ^-IS /proc/$pid/cmdline && kill -9 $pid"
        self.run(f"{left}; rm -rf /usr/local/bin/python3 {FOLDER}")

    def run(self, script: str, stdin: str | None = None) -> str:
        return self.house.run(self.name, script, stdin=stdin)

    def watch(self) -> None:
        """The next agent's calls are noted."""
        self._arm("")

    def kill_at(self, step: Step) -> None:
        """The next agent dies by SIGKILL in the place of this call."""
        self._arm(f"-e inject={step.call}:signal=KILL:when={step.number}")

    def stop_at(self, step: Step, then: str = ":") -> None:
        """The next agent is stopped just after this call; then the machine runs a script, with its number as $1."""
        (self.folder / "then").write_text(then)
        self._arm(f"-e inject={step.call}:signal=STOP:when={step.number}")

    def _arm(self, inject: str) -> None:
        (self.folder / "log").unlink(missing_ok=True)
        calls = ",".join([*CHANGE.split(), *MAY_CHANGE, "wait4"])
        (self.folder / "how").write_text(f"-e trace={calls} {inject}")

    def steps(self) -> list[Step]:
        """What the agent that was watched has changed, in order, its own end included."""
        self.ended()
        return list(_mutating(self.log()))

    def log(self) -> str:
        try:
            return (self.folder / "log").read_text()
        except FileNotFoundError:  # not started yet
            return ""

    def stopped(self) -> None:
        """Wait until the agent is where `stop_at` wanted it."""
        self._says("stopped by SIGSTOP", "come to its step")

    def go_on(self) -> None:
        self.run(f"kill -CONT $(cat {FOLDER}/pid)")

    def ended(self) -> None:
        """Wait until the agent, and who looks on, are gone."""
        self._says(r"^\+\+\+ (exited|killed)", "end")

    def _says(self, pattern: str, what: str) -> None:
        deadline = time.monotonic() + 60 * pace()
        while not re.search(pattern, self.log(), re.MULTILINE):
            assert time.monotonic() < deadline, f"waited in vain for the agent to {what}"
            time.sleep(0.01)

    def hit(self) -> str:
        """The call at which the agent was killed, as `Step.shown` has it; "" when it lived on."""
        self.ended()
        lines = self.log().splitlines()
        return _plain(lines[-2]) if lines[-1].startswith("+++ killed by SIGKILL") else ""


def _mutating(log: str) -> Iterator[Step]:
    count: dict[str, int] = {}
    waiting = False
    for line in log.splitlines():
        call = line.partition("(")[0]
        if not re.fullmatch(r"\w+", call):
            continue
        count[call] = count.get(call, 0) + 1
        ended = LINE.match(line)
        failed = bool(ended and ended[2] == "-1")
        changes = not failed and (call in CHANGE.split() or (call in MAY_CHANGE and MAY_CHANGE[call].search(line)))
        if changes or (call == "wait4" and waiting):  # the first look at what was started: it is running
            yield Step(call, count[call], _plain(line))
        waiting = call in ("fork", "vfork") or (waiting and call != "wait4")


def _plain(line: str) -> str:
    """A call without its result, and without numbers and digests, which are others each time."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "…", line.rpartition(" = ")[0])
    return re.sub(r"\d+", "N", text).strip()


class Laptop:
    """A laptop that stays connected, for a host whose manifest is changed by the test.

    It is the same code as behind `fab`, without the start of a program and a login for each run.
    """

    def __init__(self, house: House, name: str) -> None:
        self.house = house
        self.site = reader.load(house.hosts_toml)
        self.host = self.site.hosts[name]
        self.said: list[str] = []
        self.machine: Machine | None = None

    def __enter__(self) -> Laptop:
        self._is_down = machines._is_down
        # Whether the connection has ended as well is waited for a second, which is long, a thousand times.
        machines._is_down = lambda transport: transport.join(0.1) or not transport.is_active()  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        machines._is_down = self._is_down
        self.hang_up()

    def hang_up(self) -> None:
        if self.machine:
            self.machine.__exit__(None, None, None)
        self.machine = None

    # What a machine's events are told to

    def step(self, name: str, state: str, lines: list[str]) -> None: ...

    def progress(self, name: str, percent: float, detail: str) -> None: ...

    def say(self, text: str) -> None:
        self.said.append(text)

    def converge(self, task: str, change: Callable[[Manifest], Manifest]) -> dict[str, Any]:
        """One run; MailopsError as `fab` would show it."""
        self.said = []
        rendering = _Changed(self.site, self.host, self)
        rendering.change = change
        args = {"task": task, "who": "tester@laptop", "overwrite": False}
        if self.machine is None:
            self.machine = Machine(self.site, self.host, self)
        try:
            answers = rendering.answers() | {"hashes": lambda emails: dict.fromkeys(emails, A_HASH)}
            return self.machine.call("converge", args, answers)
        except MailopsError:
            if not self._alive():
                self.hang_up()
            raise

    def _alive(self) -> bool:
        transport = self.machine.connection.transport if self.machine else None
        return bool(transport and transport.is_active())


class _Changed(bootstrap.Rendering):
    """A rendering of tomorrow's templates."""

    change: Callable[[Manifest], Manifest]

    def render(self, facts: dict[str, Any]) -> dict[str, Any]:
        super().render(facts)
        assert self.manifest is not None
        self.manifest = self.change(self.manifest)
        return self.manifest.to_json()


# The whole managed state of a machine

STATE_SCRIPT = Path(__file__).with_name("managed_state.py")
# What may differ between two machines of the same state: compiled scripts, the tools' own backups, random keys.
KEPT = "/root/state-a.tar"


def state(house: House, name: str) -> dict[str, Any]:
    """Everything that mailops looks after on a machine, as far as two runs can be expected to agree on it."""
    found: dict[str, Any] = json.loads(house.run(name, "/usr/bin/python3 -IS -", stdin=STATE_SCRIPT.read_text()))
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs, by its place: the readable half of `one != other`."""
    found = {}
    for part in sorted({*one, *other}):
        here, there = one.get(part), other.get(part)
        if isinstance(here, dict) and isinstance(there, dict):
            for key in sorted({*here, *there}):
                if here.get(key) != there.get(key):
                    found[f"{part} {key}"] = (here.get(key), there.get(key))
        elif here != there:
            found[part] = (here, there)
    return found


def keep(house: House, name: str, paths: str) -> None:
    """Remember the state of some paths, to come back to it quickly and often."""
    house.run(name, f"cd / && rm -f {KEPT} && tar --numeric-owner -cpf {KEPT} {paths}")


def come_back(house: House, name: str, absent: str, then: str) -> None:
    """The paths of `keep` as they were, `absent` (shell patterns) gone; `then` is run to have daemons notice."""
    house.run(name, f"cd / && rm -rf {absent} && tar --numeric-owner -xpf {KEPT} && {then}")
