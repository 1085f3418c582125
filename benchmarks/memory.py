"""What an idle mailhost keeps in memory: the proportional set size (proc_pid_smaps(5)) of every process of the units
that mailops looks after, so that memory which several share is counted once.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

from benchmarks import lab, report, versions
from mailops.lab import replica
from mailops.lab.layout import LabError

TARGET = 250.0  # MiB
STEADY, PAUSE, TRIES = 0.5, 5.0, 60  # MiB between two readings, seconds between them, how many at most

# A line for each process: the unit, KiB. The units are those that mailops has files of.
READ = r"""
slices="/sys/fs/cgroup/system.slice /sys/fs/cgroup/systemd/system.slice" # cgroup v2, v1
cd /etc/systemd/system
for name in $(ls -d *.service.d mailops-*.service | sed 's/\.d$//' | sort -u); do
    pattern=$(echo "$name" | sed 's/@/@*/')
    for group in $(find $slices -type d -name "$pattern" 2>/dev/null); do
        cat $(find $group -name cgroup.procs) | while read -r process; do
            echo "$name $(sed -n 's/^Pss: *\([0-9]*\) kB/\1/p' /proc/$process/smaps_rollup 2>/dev/null)"
        done
    done
done
"""


def run(options: argparse.Namespace) -> dict[str, Any]:
    with lab.house(options) as house:
        house.fab("-H", "mail", "status")  # each daemon has done what it does for the first time
        found = settled(house)
        used = versions.of(house)
    text = f"{table(found)}\n{versions.sentence(used)}\n"
    print(text)
    if options.publish:
        report.write_section("memory", text)
    return {**{unit: round(size, 1) for unit, size in found.items()}, "sum": round(sum(found.values()), 1)}


def settled(house: lab.House) -> dict[str, float]:
    """MiB of each unit, once they stay as they are."""
    lab.say("waiting until nothing changes any more")
    before = read(house)
    for _ in range(TRIES):
        time.sleep(PAUSE)
        now = read(house)
        if abs(sum(now.values()) - sum(before.values())) < STEADY:
            return now
        before = now
    raise LabError("the machine's memory does not come to rest")


def read(house: lab.House) -> dict[str, float]:
    said = replica.run(house.lab.name, "mail", READ).stdout
    if not (found := sizes(said)):
        raise LabError("no process of a mail unit runs on the machine")
    return found


def sizes(said: str) -> dict[str, float]:
    """MiB of each unit from READ's lines; a process that has just ended has no size."""
    found: dict[str, float] = {}
    for line in said.splitlines():
        unit, *size = line.split()
        found[unit] = found.get(unit, 0.0) + sum(int(each) for each in size) / 1024
    return {unit: size for unit, size in found.items() if size}


def table(found: Mapping[str, float]) -> str:
    rows = [[f"`{unit}`", f"{size:.0f} MiB"] for unit, size in sorted(found.items(), key=lambda item: -item[1])]
    return report.table(["", "memory"], [*rows, ["all together", f"{sum(found.values()):.0f} MiB"]])
