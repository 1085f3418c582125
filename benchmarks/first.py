"""The first bootstrap of a bare machine, beside `apt-get install` of the same packages and nothing else on its twin.

Both take their packages from the lab's cache, which has them all from a round that does not count. In every round both
machines are new, and they take turns in who goes first.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import desired, lab, ours, report, versions
from benchmarks.rounds import Contender, Sample, turn
from mailops.lab import replica, running
from mailops.lab.layout import Lab
from mailops.lab.machine import machines

ROUNDS = 4
APT, BOOTSTRAP = "apt_get_install", "first_bootstrap"
TWIN = "twin"
SITE = lab.SITE + f'\n[hosts.{TWIN}]\nrole = "mailnull"\ndebian = {{release}}\n'
# Both begin with the lists: a bare machine has none.
INSTALL = """
export DEBIAN_FRONTEND=noninteractive
apt-get -q update && apt-get -yq install --no-install-recommends {packages}
"""


def run(options: argparse.Namespace) -> dict[str, Any]:
    try:
        rounds = options.rounds or ROUNDS
        samples: list[Sample] = []
        for number in range(rounds + 1):
            house = bare(options.debian)
            lab.say(f"round {number} of {rounds}" if number else "a round that does not count: it fills the cache")
            found = play_round(house, twin_first=number % 2 == 0)
            samples += found if number else []
        used = versions.of(house)
    finally:
        if not options.keep:
            lab.say("taking the lab down")
            replica.down(lab.FIRST)
    figures = as_json(samples)
    text = f"{table(figures)}\n{versions.sentence(used)}\n"
    print(text)
    if options.publish:
        report.write_section("first", text)
    return figures


def bare(release: int) -> lab.House:
    """Two machines as a provider hands them out: those of the round before are thrown away."""
    for there in machines(Lab(lab.FIRST)):
        if there.name != "outside":
            running.remove(there)
    house = lab.up(lab.FIRST, SITE, release)
    for name in ("mail", TWIN):
        replica.run(lab.FIRST, name, ["systemctl", "is-system-running", "--wait"], check=False)
    return house


def play_round(house: lab.House, twin_first: bool) -> list[Sample]:
    """What both take. The twin's packages are installed by ssh, from its connection to its end."""
    install = INSTALL.format(packages=" ".join(desired.manifest(house).packages))
    twin = ours.ssh(house, TWIN)
    contenders = [
        Contender(BOOTSTRAP, ours.bootstrap, lambda: lab.environment(house.lab.hosts_file), folder=lab.PROJECT),
        Contender(APT, lambda: [*twin, install], lambda: lab.environment(house.lab.hosts_file)),
    ]
    return [turn(one, _here) for one in (reversed(contenders) if twin_first else contenders)]


def _here(command: Sequence[str | Path]) -> list[str]:
    return [str(word) for word in command]


def as_json(samples: Sequence[Sample]) -> dict[str, Any]:
    """Median seconds of both, and the median of the rounds' ratios."""
    seconds = {name: [sample.seconds for sample in samples if sample.contender == name] for name in (APT, BOOTSTRAP)}
    ratios = [ours / apt for ours, apt in zip(seconds[BOOTSTRAP], seconds[APT], strict=True)]
    figures = {name: statistics.median(own) for name, own in seconds.items()} | {"ratio": statistics.median(ratios)}
    return {name: round(value, 3) for name, value in figures.items()}


def table(figures: dict[str, Any]) -> str:
    rows = [
        ["`apt-get update`, `apt-get install` of the same packages", f"{figures[APT]:.1f} s", ""],
        ["`fab bootstrap` of a bare machine", f"{figures[BOOTSTRAP]:.1f} s", f"{figures['ratio']:.2f} x"],
    ]
    return report.table(["", "median", ""], rows)
