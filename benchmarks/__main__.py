"""`script/bench`: understands the command line, makes this computer ready, and hands over to `play`.

It runs with the system's own python3, before there is a virtual environment: standard library only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks import arguments
from mailops.errors import MailopsError
from mailops.lab import demo_packages

PROJECT = Path(__file__).parents[1]
PYTHON = PROJECT / ".venv/bin/python"


def main(argv: list[str]) -> int:
    options = arguments.parse(argv)
    try:
        make_ready(options.benchmark)
    except MailopsError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130
    sys.stdout.flush()
    os.execv(PYTHON, [str(PYTHON), "-B", "-m", "benchmarks.play", *argv])  # noqa: S606


def make_ready(benchmark: str) -> None:
    """The virtual environment, and the Debian packages that a lab needs."""
    if os.geteuid() != 0:
        raise MailopsError("benchmarks boot machines, and only root may do that", "sudo script/bench …")
    if subprocess.run([PROJECT / "script/setup", "dev"], stdout=sys.stderr, check=False).returncode:
        raise MailopsError("the virtual environment could not be made", "the reason is above; then run it again")
    if benchmark != "start" and demo_packages.missing():
        demo_packages.install()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
