"""The command line of script/bench. Standard library only: it is read before there is a virtual environment."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = """\
examples:
  script/bench converge                        everything; 45 minutes; writes docs/performance.md
  script/bench converge --quick                `ssh host true` and mailops alone, at 50 ms; three minutes
  script/bench converge --quick --keep         the same, and the lab stays for the next time
  script/bench converge --quick --json out.json
  script/bench start                           `fab --list` beside `python -c 'import fabric'`
  script/bench first                           a bare machine's first bootstrap beside apt-get install
  script/bench memory                          what an idle mailhost keeps in memory

A run with all its defaults writes its figures into docs/performance.md.
exit codes: 0 measured, 1 something failed, 2 wrong use, 130 interrupted
Benchmarks boot machines, so they need root. They work in a lab called "bench" and in .bench/, and take the lab
down at the end; after one that was killed: script/bench clean
"""

FULL, QUICK = (0, 50, 100), (50,)  # milliseconds
ROUNDS, QUICK_ROUNDS = 25, 10


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(
        "script/bench",
        description="How long mailops takes, beside what one would use instead.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = main.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, text in (
        ("converge", "a bootstrap with nothing to do, and one with one changed file, over a distance"),
        ("start", "what the command line costs before it does anything"),
        ("first", "the first bootstrap of a bare machine"),
        ("memory", "what an idle mailhost keeps in memory"),
        ("clean", "take away what a killed run has left, and the others' virtual environments"),
    ):
        one = kinds.add_parser(name, help=text, description=text, epilog=EXAMPLES, formatter_class=main.formatter_class)
        if name != "clean":
            _measured(one)
        if name in ("converge", "first", "memory"):
            _in_a_lab(one)
        if name == "converge":
            _converge(one)
    return main


def _measured(one: argparse.ArgumentParser) -> None:
    one.add_argument("--json", type=_absolute, metavar="FILE", help="write the figures there, too")
    one.add_argument("--rounds", type=_positive, metavar="N", help="how often each contender has its turn")


def _in_a_lab(one: argparse.ArgumentParser) -> None:
    one.add_argument("--debian", type=int, choices=(12, 13), default=13, help="the machine's release (13)")
    one.add_argument("--keep", action="store_true", help="leave the lab up; the next run is ready sooner")


def _converge(one: argparse.ArgumentParser) -> None:
    one.add_argument("--quick", action="store_true", help="only `ssh host true` and mailops, at 50 ms, ten rounds")
    one.add_argument(
        "--round-trips", type=_list, metavar="MS,MS", help="milliseconds there and back (0,50,100; quick: 50)"
    )


def parse(argv: list[str]) -> argparse.Namespace:
    """What is wanted, every default filled in; exits with code 2 and a line of explanation when it is not clear."""
    options = parser().parse_args(argv)
    # The document has the figures of whole runs alone.
    cut_short = [getattr(options, name, None) for name in ("quick", "rounds", "round_trips")]
    options.publish = not any(cut_short) and getattr(options, "debian", 13) == 13
    if options.benchmark == "converge":
        options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
        options.round_trips = options.round_trips or (QUICK if options.quick else FULL)
    return options


def _absolute(text: str) -> Path:
    path = Path(text).absolute()
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rounds")
    return int(text)


def _list(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of milliseconds such as 0,50,100")
    return tuple(dict.fromkeys(int(part) for part in parts))
