"""The agent's doors: one call from the laptop, or a command typed on the machine itself."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

from . import accounts, boot, converge, dkim, drift, history, rollback, status
from .errors import AgentError
from .link import stdio

CALLS: dict[str, Callable[[dict[str, Any], Any], dict[str, Any]]] = {
    "converge": converge.call,
    "generations": rollback.listing,
    "diff": rollback.diff,
    "rollback": rollback.call,
    "drift": drift.call,
    "history": history.call,
    "unlock": boot.unlock,
    "lock": boot.close,
    "status": status.call,
    "certificate": status.certificate,
    "mailcfg": accounts.call,
    "dkim": dkim.call,
}

COMMANDS: dict[str, Callable[[list[str]], int]] = {"mailcfg": accounts.main, "mailboot": boot.main}


def serve(header: dict[str, Any]) -> None:
    """Answer one call from the laptop: events while it runs, then a result or an error."""
    link = stdio()
    try:
        link.finish(CALLS[header["call"]](header["args"], link))
    except AgentError as error:
        link.fail(error)
    except Exception as error:  # ours to mend: the laptop shows where, without the values of variables
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
        link.fail(AgentError(f"{type(error).__name__} in the agent at {where}: {error}"))


def command(name: str, argv: list[str]) -> int:
    """A command typed on the machine."""
    try:
        return COMMANDS[name](argv)
    except AgentError as error:
        print(f"{name}: {error.message}" + (f"\n  {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(command(sys.argv[1], sys.argv[2:]))
