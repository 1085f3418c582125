"""Nothing to do, and one file changed: mailops beside `ssh host true`, Ansible and pyinfra, over three distances.

All contenders take turns in one run, over the same delay line, against the same machine.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import desired, lab, ours, report, versions
from benchmarks.line import Line, delay_line
from benchmarks.rounds import Contender, Sample, medians, play, ratios
from mailops.lab.layout import LabError

TOLERANCE = 1.5  # milliseconds; a line further off its mark is no line to measure by

TITLES = {
    "ssh_true": "`ssh host true`",
    "mailops_noop": "mailops, nothing to do",
    "mailops_change": "mailops, one file changed",
    "ansible_noop": "Ansible, nothing to do",
    "pyinfra_noop": "pyinfra, nothing to do",
    "ssh_true_curve25519": "`ssh host true`, curve25519",
}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Prepare what is needed, measure, print the table; a whole run writes it into docs/performance.md as well."""
    rivals = [] if options.quick else prepare_rivals()
    with lab.house(options) as house:
        contenders = ours.contenders(house)
        if rivals:
            wanted = desired.write_down(house)
            contenders += [rival.contender(house, wanted) for rival in rivals]
        found = measure(house, contenders, options)
        used = versions.of(house, [(rival.name, rival.version) for rival in rivals])
    figures = as_json(found)
    text = "\n".join([table(figures), *beside_ours(figures), versions.sentence(used)])
    print(f"{text}\n")
    if options.publish:
        report.write_section("converge", text)
    return figures


def prepare_rivals() -> list[Any]:
    from benchmarks import rivals

    return [rivals.Ansible(), rivals.Pyinfra()]


def measure(house: lab.House, contenders: list[Contender], options: argparse.Namespace) -> dict[int, list[Sample]]:
    """All samples, by round trip in milliseconds."""
    found: dict[int, list[Sample]] = {}
    with delay_line() as line:
        for milliseconds in options.round_trips:
            set_distance(line, house.address, milliseconds)
            lab.say(f"{options.rounds} rounds of {', '.join(one.name for one in contenders)}")
            found[milliseconds] = play(contenders, options.rounds, line.command)
    return found


def set_distance(line: Line, address: str, milliseconds: int) -> None:
    """LabError when a packet does not take that long."""
    line.round_trip(milliseconds)
    measured = line.measured(address)
    lab.say(f"the line is set to {milliseconds} ms; a packet takes {measured:.2f} ms there and back")
    if not milliseconds <= measured <= milliseconds + TOLERANCE:
        raise LabError(f"at {milliseconds} ms a packet takes {measured:.2f} ms", "is this computer busy?")


def as_json(found: dict[int, list[Sample]]) -> dict[str, dict[str, Any]]:
    """By round trip: each contender's median seconds, and "ratios": the medians of its ratios to `ssh host true`."""
    return {
        str(milliseconds): _rounded(medians(samples)) | {"ratios": _rounded(ratios(samples, ours.YARDSTICK))}
        for milliseconds, samples in found.items()
    }


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def table(figures: dict[str, dict[str, Any]]) -> str:
    """A row for each contender, a column for each round trip: median seconds, and how many times `ssh host true`."""
    names = [name for name in TITLES if all(name in row for row in figures.values())]
    head = ["", *(f"{milliseconds} ms" for milliseconds in figures)]
    rows = [[TITLES[name], *(_cell(row, name) for row in figures.values())] for name in names]
    return report.table(head, rows)


def beside_ours(figures: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each of the others: how many times as long as mailops it takes for the same."""
    lines = []
    for name in ("ansible_noop", "pyinfra_noop"):
        if all(name in row for row in figures.values()):
            times = {at: row["ratios"][name] / row["ratios"][ours.NOOP] for at, row in figures.items()}
            told = ", ".join(f"{ratio:.0f} times at {at} ms" for at, ratio in times.items())
            lines.append(f"{TITLES[name].partition(',')[0]} takes as long as mailops {told}.\n")
    return lines


def _cell(row: dict[str, Any], name: str) -> str:
    ratio = row["ratios"][name]
    return f"{row[name]:.2f} s" if name == "ssh_true" else f"{row[name]:.2f} s ({ratio:.{2 if ratio < 10 else 0}f} x)"
