"""What every run prints at its end: the time per file, so that growth is seen while it is small."""

from __future__ import annotations

import datetime
import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
RECORD = PROJECT / "docs" / "testing.md"
MARK = "<!-- written by script/test --all -->\n"

BEGAN = pytest.StashKey[float]()
SHOWN = 20  # files
LEAST = 1.0  # seconds


def pytest_configure(config: pytest.Config) -> None:
    config.stash[BEGAN] = time.time()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    spent = time_per_file(terminalreporter)
    if os.environ.get("MAILOPS_TEST_RECORD"):
        head, mark, _ = RECORD.read_text().partition(MARK)
        RECORD.write_text(head + mark + record(terminalreporter, spent))
    long = [(path, seconds) for path, seconds in spent.most_common(SHOWN) if seconds >= LEAST]
    if len(spent) < 2 or not long:
        return
    terminalreporter.section("time per file")
    for path, seconds in long:
        terminalreporter.write_line(f"{seconds:7.1f}s {path}")
    terminalreporter.write_line(f"{spent.total():7.1f}s in {len(spent)} files, all workers together")


def time_per_file(terminalreporter: pytest.TerminalReporter) -> Counter[str]:
    """Seconds by file: each test with what was made and put away for it."""
    spent: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                spent[report.nodeid.partition("::")[0]] += report.duration
    return spent


def record(terminalreporter: pytest.TerminalReporter, spent: Counter[str]) -> str:
    """When, on which commit, how many of what, how long."""
    commit = ["git", "-C", str(PROJECT), "-c", "safe.directory=*", "describe", "--always", "--dirty", "--abbrev=12"]
    name = subprocess.run(commit, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    counts = [
        f"{len(terminalreporter.stats[word])} {word}"
        for word in ("passed", "failed", "error", "skipped")
        if terminalreporter.stats.get(word)
    ]
    minutes = (time.time() - terminalreporter.config.stash[BEGAN]) / 60
    lines = [f"| `{path}` | {seconds:.0f} |" for path, seconds in spent.most_common(SHOWN) if seconds >= LEAST]
    return "\n".join(
        [
            f"{datetime.date.today()}, commit `{name}`: {', '.join(counts)}, in {minutes:.0f} minutes"
            f" on {os.cpu_count()} cores.\n",
            "| file | seconds |",
            "|---|---|",
            *lines,
            "",
        ]
    )
