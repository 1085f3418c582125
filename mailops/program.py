"""The commands `fab` and `mailops`: Fabric's program, with the connection begun before Fabric is loaded."""

from __future__ import annotations

import gc

from mailops import headstart

# What a command loads is a hundred thousand objects, none of them garbage; to look for it takes a tenth of the time.
gc.set_threshold(100_000)


def fab() -> None:
    """Fabric's own `fab`, which finds the tasks of the current folder in its fabfile.py."""
    headstart.begin()
    from fabric.main import program

    program.run()


def main() -> None:
    """The same tasks as `mailops`, for a site that lives in a folder of its own."""
    headstart.begin()
    from fabric import Config
    from fabric.main import Fab

    from mailops import __version__, tasks
    from mailops.executor import Executor

    program = Fab(
        name="mailops", version=__version__, namespace=tasks.namespace, executor_class=Executor, config_class=Config
    )
    program.run()
