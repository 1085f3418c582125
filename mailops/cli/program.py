"""The commands `fab` and `mailops`: Fabric's program, with the connection begun before Fabric is loaded."""

from __future__ import annotations

import gc
import sys
from typing import Any

from mailops import __version__
from mailops.errors import MailopsError
from mailops.site.place import find
from mailops.ssh import headstart

# What a command loads is a hundred thousand objects, none of them garbage; to look for it takes a tenth of the time.
gc.set_threshold(100_000)


def fab() -> None:
    """Fabric's own `fab`, which finds the tasks of the current folder in its fabfile.py.

    `fab -H mail -- COMMAND` reads no fabfile; where there is a site our executor refuses it, as Fabric's would accept
    any host key.
    """
    headstart.begin()
    import fabric

    from mailops.cli.config import Config
    from mailops.cli.listing import Program

    executor: Any = fabric.Executor
    if "--" in sys.argv and _has_site():
        from mailops.cli.executor import Executor as executor
    _run(Program(name="Fabric", version=fabric.__version__, executor_class=executor, config_class=Config))


def main() -> None:
    """The same tasks as `mailops`, for a site that lives in a folder of its own."""
    headstart.begin()
    from mailops import tasks
    from mailops.cli.config import Config
    from mailops.cli.executor import Executor
    from mailops.cli.listing import Program

    program = Program(
        name="mailops", version=__version__, namespace=tasks.namespace, executor_class=Executor, config_class=Config
    )
    _run(program)


def _run(program: Any) -> None:
    """To the end, also where it comes early: `fab --list | head -1` is no mistake."""
    try:
        try:
            if program.name != "mailops" and sys.argv[1:] in (["-V"], ["--version"]):
                print(f"mailops {__version__}")  # Fabric tells of itself, and of what it stands on
            program.run()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        from mailops.cli import executor

        sys.exit(executor.nobody_reads())


def _has_site() -> bool:
    try:
        return bool(find())
    except MailopsError:
        return False
