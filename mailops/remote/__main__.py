"""The agent's doors: one call from the laptop, or a command typed on the machine itself."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from .link import stdio
from .shared.errors import AgentError
from .system import units
from .vault import watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from .link import Link
    from .shared.calls import Args

# A function of a module, which is loaded when it is called: a call takes little longer than what it loads.
CALLS = {
    "converge": "bootstrap.call",
    "generations": "changes.rollback.listing",
    "diff": "changes.rollback.diff",
    "rollback": "changes.rollback.call",
    "drift": "changes.drift.call",
    "history": "changes.history.call",
    "unlock": "vault.boot.unlock",
    "lock": "vault.boot.close",
    "status": "status.call",
    "certificate": "status.certificate",
    "mailcfg": "accounts.mailcfg.call",
    "dkim": "dkim.call",
    "tunnel": "tunnel.call",
    "queue": "queue.call",
    "trace": "trace.call",
}

COMMANDS = {"mailcfg": "accounts.mailcfg.main", "mailboot": "vault.boot.main"}


def load(call: str) -> None:
    """Load what a call needs, before its arguments are there."""
    if call in CALLS:
        _place(CALLS[call])


def serve(call: str, args: Args) -> None:
    """Answer one call from the laptop: events while it runs, then a result or an error."""
    link = stdio()
    link.origin = sys.argv[1] if len(sys.argv) > 1 else ""  # from the command line that sshd ran

    def end(error: AgentError) -> None:
        link.fail(error)
        watch.leave(error.code)

    link.watch = watch.Watch(str(args.get("task", call)), end).look
    try:
        if manifest := args.get("manifest"):
            units.look_ahead(manifest["services"])
        answer: Callable[[Args, Link], Mapping[str, object]] = getattr(*_place(CALLS[call]))
        link.finish(answer(args, link))
    except AgentError as error:
        link.fail(error)
    except Exception as error:  # ours to mend: the laptop shows where, without the values of variables
        import traceback

        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
        link.fail(AgentError(f"{type(error).__name__} in the agent at {where}: {error}"))


def command(name: str, argv: list[str]) -> int:
    """A command typed on the machine."""
    watch.Watch(name, lambda error: watch.leave(_told(name, error))).begin()
    try:
        main: Callable[[list[str]], int] = getattr(*_place(COMMANDS[name]))
        return main(argv)
    except AgentError as error:
        return _told(name, error)
    except KeyboardInterrupt:
        return 130


def _told(name: str, error: AgentError) -> int:
    print(f"{name}: {error.message}" + (f"\n  {error.hint}" if error.hint else ""), file=sys.stderr, flush=True)
    return error.code


def _place(function: str) -> tuple[ModuleType, str]:
    """The module of a function, loaded, and the function's name there."""
    module, _, name = function.rpartition(".")
    return importlib.import_module(f".{module}", __package__), name


if __name__ == "__main__":
    sys.exit(command(sys.argv[1], sys.argv[2:]))
