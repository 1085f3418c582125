"""Contenders taking turns, so that a slow minute of this computer hits all of them alike, and what their times say.

A computer may change its speed by half within seconds. So seconds are also told as a **ratio**: each sample
divided by the median of the samples of a yardstick (`ssh host true`) nearest to it in time, and the median of that.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mailops.lab.host import last_words
from mailops.lab.layout import LabError

Wrap = Callable[[Sequence[str | Path]], list[str]]  # brings a command line to the place where it is run

NEAREST = 4  # yardstick samples that a sample is divided by the median of
PATIENCE = 900.0  # seconds for one command


@dataclass(frozen=True)
class Sample:
    contender: str
    began: float  # seconds of the monotonic clock
    seconds: float

    def distance(self, other: Sample) -> float:
        """Seconds between the end of the earlier one and the start of the later one."""
        first, second = sorted((self, other), key=lambda sample: sample.began)
        return second.began - (first.began + first.seconds)


@dataclass(frozen=True)
class Contender:
    """Something to time: a command line and its environment.

    `check` looks at what it said, and raises LabError unless it did its work and no other. `ready` and `after` come
    before and after; neither is timed.
    """

    name: str
    command: Callable[[], Sequence[str | Path]]
    environment: Callable[[], Mapping[str, str]]
    check: Callable[[str], None] = lambda said: None
    ready: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None
    every: int = 1  # 2: it has its turn in every second round
    turns: int = 1  # how often in such a round
    folder: Path = field(default_factory=Path.cwd)


def play(contenders: Sequence[Contender], rounds: int, wrap: Wrap) -> list[Sample]:
    """Let all contenders take turns; the first is the yardstick, and comes before each of the others' turns.

    Each has had a turn before, which does not count: caches are as on any other day.
    """
    yardstick = contenders[0]
    for contender in schedule(contenders, 1):
        turn(contender, wrap)
    samples: list[Sample] = []
    for contender in schedule(contenders, rounds):
        samples.append(turn(yardstick, wrap))
        if contender is not yardstick:
            samples.append(turn(contender, wrap))
    samples.append(turn(yardstick, wrap))
    return samples


def schedule(contenders: Sequence[Contender], rounds: int) -> Iterable[Contender]:
    for number in range(rounds):
        for contender in contenders:
            if number % contender.every == 0:
                yield from [contender] * contender.turns


def turn(contender: Contender, wrap: Wrap) -> Sample:
    """One run, timed from the start of the process to its end. LabError when it fails or did not do its work."""
    contender.ready()
    command, environment = wrap(contender.command()), dict(contender.environment())
    # Files, not pipes: a pipe ends with the last of the processes that have it, and ssh leaves one behind.
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            command, env=environment, cwd=contender.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        guard = threading.Timer(PATIENCE, process.kill)
        guard.start()
        try:
            process.wait()  # without a timeout: with one, Python looks only every 50 ms
            seconds = time.monotonic() - began
        finally:
            guard.cancel()
            process.kill()
        output.seek(0)
        said = output.read()
    if process.returncode:
        raise LabError(f"{contender.name} ended {process.returncode}: {last_words(said)}")
    contender.check(said)
    contender.after()
    return Sample(contender.name, began, seconds)


def medians(samples: Iterable[Sample]) -> dict[str, float]:
    """Median seconds of each contender."""
    return {name: statistics.median(sample.seconds for sample in own) for name, own in _by_name(samples).items()}


def ratios(samples: Sequence[Sample], yardstick: str) -> dict[str, float]:
    """Of each contender the median of its samples' ratios to what the yardstick took at that time."""
    found = _by_name(samples)
    sticks = found[yardstick]
    return {
        name: statistics.median(sample.seconds / nearby(sample, sticks) for sample in own)
        for name, own in found.items()
    }


def nearby(sample: Sample, sticks: Sequence[Sample]) -> float:
    """What the yardstick took around that time: the median of its nearest samples, in seconds."""
    nearest = sorted((stick for stick in sticks if stick is not sample), key=sample.distance)[:NEAREST]
    return statistics.median(stick.seconds for stick in nearest)


def _by_name(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.contender, []).append(sample)
    return found
