"""What the command line costs before it does anything: `fab --list` beside the import of the library it stands on."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import report, versions
from benchmarks.lab import FAB, PROJECT, environment
from benchmarks.rounds import Contender, medians, play, ratios
from mailops.lab.layout import LabError

ROUNDS = 30
IMPORT, LIST = "import_fabric", "fab_list"
MANY_TASKS = 20


def run(options: argparse.Namespace) -> dict[str, Any]:
    python = FAB.with_name("python")
    contenders = [
        Contender(IMPORT, lambda: [python, "-c", "import fabric"], _environment),
        Contender(LIST, lambda: [FAB, "--list"], _environment, all_tasks_listed, folder=PROJECT),
    ]
    samples = play(contenders, options.rounds or ROUNDS, lambda command: [str(word) for word in command])
    seconds, ratio = medians(samples), ratios(samples, IMPORT)[LIST]
    rows = [
        ["`python -c 'import fabric'`", f"{seconds[IMPORT]:.3f} s", ""],
        ["`fab --list`", f"{seconds[LIST]:.3f} s", f"{ratio:.2f} x"],
    ]
    text = f"{report.table(['', 'median', ''], rows)}\n{versions.sentence(versions.of_laptop())}\n"
    print(text)
    if options.publish:
        report.write_section("start", text)
    return {name: round(value, 4) for name, value in (seconds | {"ratio": ratio}).items()}


def _environment() -> dict[str, str]:
    return environment(PROJECT / "hosts.toml")


def all_tasks_listed(said: str) -> None:
    if len(said.splitlines()) < MANY_TASKS or "bootstrap" not in said:
        raise LabError(f"fab --list did not list the tasks: {said[-200:]}")
