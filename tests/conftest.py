"""What every run prints at its end: the time per file, so that growth is seen while it is small."""

from __future__ import annotations

from collections import Counter

import pytest

SHOWN = 20  # files
LEAST = 1.0  # seconds


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    spent = time_per_file(terminalreporter)
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
