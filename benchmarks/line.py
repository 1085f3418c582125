"""A delay line: a client network on this computer whose only way to the lab's machines has a round trip of our choice.

    with delay_line() as line:
        line.round_trip(50)
        subprocess.run(line.command(["ssh", ...]))

The client side is a network namespace with one device, an address of the lab's network and no other way out. What
`relay` does with the frames in between is the whole of the distance. Nothing has to be cleaned up: devices and
namespace belong to the relay's process, which ends soon after its stdin, and so after us, however we end.
"""

from __future__ import annotations

import fcntl
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ping, relay
from mailops.lab.host import last_words, sh
from mailops.lab.layout import BASE, BRIDGE, NETWORK, LabError

CLIENT_SIDE = "line"
NUMBERS = range(2, 255)  # 10.213.0.1 is this computer's; the rest of slot 0 is free


@dataclass(frozen=True)
class Line:
    """One line; `address` is the client's."""

    relay: subprocess.Popen[str]
    address: str

    def round_trip(self, milliseconds: float) -> None:
        """Set the time that a packet takes to a machine and back; the line is at 0 until then."""
        assert self.relay.stdin  # noqa: S101 - it is a pipe
        self.relay.stdin.write(f"{milliseconds}\n")
        self.relay.stdin.flush()
        self._expect("set")

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """`argv` as a command that runs at the far end of the line. Costs a millisecond."""
        return ["nsenter", f"--net=/proc/{self.relay.pid}/ns/net", *map(str, argv)]

    def measured(self, machine: str, count: int = 9) -> float:
        """The median round trip to the machine of that address, in milliseconds. LabError when no answer comes."""
        said = sh(self.command([sys.executable, "-IS", ping.__file__, machine, str(count)]))
        return statistics.median(float(line) for line in said.split())

    def _expect(self, word: str) -> None:
        assert self.relay.stdout  # noqa: S101 - it is a pipe
        if self.relay.stdout.readline().strip() != word:
            said = self.relay.stderr.read() if self.relay.stderr else ""
            raise LabError(f"the delay line does not work: {last_words(said, 1)}", "has this kernel TAP devices (tun)?")

    def attach(self, device: str) -> None:
        """One end into the lab's bridge, the other with an address of the lab's network."""
        self._expect("ready")
        sh(["ip", "link", "set", device, "master", BRIDGE, "up"])
        for words in (
            f"address add {self.address}/16 dev {CLIENT_SIDE}",
            f"link set {CLIENT_SIDE} up",
            "link set lo up",
        ):
            sh(self.command(["ip", *words.split()]))


@contextmanager
def delay_line() -> Iterator[Line]:
    """A line into the lab's bridge, which must be there. Several may exist at once. LabError says what is missing.

    At the end it waits, at most a minute, for those who still use it.
    """
    with _own_number() as (number, lock):
        device = f"mobench{number}"
        command = [sys.executable, "-IS", relay.__file__, device, CLIENT_SIDE]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us; the line stays until we leave
            pass_fds=[lock],  # and the number is taken for as long as the line is there
        ) as process:  # at the end, this closes its stdin and waits
            line = Line(process, f"{NETWORK}.0.{number}")
            line.attach(device)
            yield line


@contextmanager
def _own_number() -> Iterator[tuple[int, int]]:
    """A number that no other line has, and the descriptor of the lock; the kernel gives it back."""
    (BASE / "locks").mkdir(parents=True, exist_ok=True)
    for number in NUMBERS:
        with open(BASE / "locks" / f"line-{number}", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield number, file.fileno()
            return
    raise LabError("there are too many delay lines on this computer")
