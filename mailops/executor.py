"""What makes stock `fab` ours: hosts are those of hosts.toml, and a user's mistake is a line, not a traceback."""

from __future__ import annotations

import os
import sys
from typing import Any

import fabric
from invoke import Executor as InvokeExecutor
from invoke.exceptions import Exit

from mailops import secrets
from mailops.errors import BAD_INPUT, MailopsError

INTERRUPTED = 130  # as a shell has it for SIGINT
PIPE_CLOSED = 141  # and for SIGPIPE


class Executor(fabric.Executor):  # type: ignore[misc]
    """One call per task: `-H` names hosts of the site, and the task itself goes over them.

    Stock Fabric would run a task without `-H` on the laptop, and stop at the first host that fails.
    """

    def expand_calls(self, calls: Any, apply_hosts: bool = True) -> Any:
        if self.core.remainder:  # stock `fab -- COMMAND` never gets here: it reads no project, and no pin
            raise MailopsError("there is no task to run a command with", "log in with ssh", BAD_INPUT)
        self.config["mailops_hosts"] = self.core[0].args.hosts.value or ""
        return InvokeExecutor.expand_calls(self, calls)

    def execute(self, *tasks: Any) -> Any:
        try:
            return super().execute(*tasks)
        except MailopsError as error:
            raise Exit(f"mailops: {secrets.mask(str(error))}", error.code) from None
        except BrokenPipeError:  # `fab … | head`: nobody reads on, which is no mistake
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Exit(code=PIPE_CLOSED) from None
        except KeyboardInterrupt:
            raise Exit("interrupted; run it again and it is picked up where it was", INTERRUPTED) from None
