"""The `mailops` command: the same tasks as `fab`, for a site that lives in a folder of its own."""

from __future__ import annotations

from fabric import Config
from fabric.main import Fab

from mailops import __version__, tasks
from mailops.executor import Executor


def main() -> None:
    program = Fab(
        name="mailops", version=__version__, namespace=tasks.namespace, executor_class=Executor, config_class=Config
    )
    program.run()
