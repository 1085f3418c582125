"""What makes stock `fab` ours: hosts are those of hosts.toml, and a user's mistake is a line, not a traceback."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import fabric
from invoke import Executor as InvokeExecutor
from invoke.exceptions import Exit

from mailops import fleet, secrets
from mailops.errors import BAD_INPUT, INTERRUPTED, PIPE_CLOSED, MailopsError, Untouched
from mailops.roles import MADE, having
from mailops.ssh import headstart

# Tasks whose own words leave nothing to check, and the roles they are for: the connection to the first machine
# is begun at once, and the modules that the task needs are loaded while the handshake waits.
AT_ONCE = {
    "bootstrap": MADE,
    "plan": MADE,
    "push": MADE,
    "status": MADE,
    "drift": MADE,
    "generations": MADE,
    "queue": MADE,
    "unlock": having("vault"),
    "lock": having("vault"),
}
COMMANDS = ("fab", "mailops")


class Executor(fabric.Executor):  # type: ignore[misc]
    """One call per task: `-H` names hosts of the site, and the task itself goes over them.

    Stock Fabric would run a task without `-H` on the laptop, and stop at the first host that fails.
    """

    def expand_calls(self, calls: Any, apply_hosts: bool = True) -> Any:
        if self.core.remainder:
            raise MailopsError("there are tasks here, and no commands of your own", "ssh HOST COMMAND", BAD_INPUT)
        if self.config.run.dry:  # of Fabric it would hold back shell commands, and we run none: all would happen
            raise MailopsError("there is no --dry here", "fab plan shows what would change", BAD_INPUT)
        self.config["mailops_hosts"] = self.core[0].args.hosts.value or ""
        self.config["mailops_ssh_config"] = self.core[0].args["ssh-config"].value or ""
        expanded = InvokeExecutor.expand_calls(self, calls)
        if expanded and expanded[0].called_as in AT_ONCE:
            sys.setswitchinterval(headstart.SWITCH)
            fleet.begin(self.config, AT_ONCE[expanded[0].called_as], expanded[0].called_as)
        return expanded

    def execute(self, *tasks: Any) -> Any:
        try:
            done = super().execute(*tasks)
            sys.stdout.flush()
            sys.stderr.flush()
        except MailopsError as error:
            raise Exit(f"mailops: {secrets.mask(_as_typed(str(error)))}", error.code) from None
        except BrokenPipeError:  # `fab … | head`: nobody reads on, which is no mistake
            raise Exit(code=nobody_reads()) from None
        except Untouched:
            raise Exit("interrupted; nothing was changed", INTERRUPTED) from None
        except KeyboardInterrupt:
            raise Exit("interrupted; run it again and it is picked up where it was", INTERRUPTED) from None
        if Path(sys.argv[0]).name in COMMANDS:
            os._exit(0)  # all is said and done; to take the interpreter apart would cost a tenth of a no-op's time
        return done


def nobody_reads() -> int:
    """Whoever read stdout has left: what is still to be written goes nowhere. The exit code for that."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED


def _as_typed(text: str) -> str:
    """What to type next, for those who type `mailops` where others type `fab`."""
    return re.sub(r"\bfab (?=[-a-z])", "mailops ", text) if Path(sys.argv[0]).name == "mailops" else text
