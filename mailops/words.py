"""Words of a task that may be left out: `fab rollback` and `fab rollback 5`; and words that must be numbers.

Invoke knows words that are required and flags that may be left out, nothing in between. Its parser takes every
positional argument without a value for a missing one; ours are told apart from those at the end of a task's words.
"""

from __future__ import annotations

from typing import Any

from invoke import Task
from invoke.parser.parser import ParseMachine

from mailops.errors import BAD_INPUT, MailopsError


class WordTask(Task):  # type: ignore[type-arg]
    """A task whose `positional` parameters with a default (None) may be left out: `@task(klass=WordTask, …)`."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Any]:
        arguments: list[Any] = super().get_arguments(ignore_unknown_help)
        parameters = self.argspec(self.body).parameters
        for argument in arguments:
            parameter = parameters[argument.name]
            argument.may_be_missing = argument.positional and parameter.default is not parameter.empty
        return arguments


def number(text: str, what: str, least: int = 1) -> int:
    """`text` as a whole number from `least` on; MailopsError (2) says that it is not `what`."""
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise MailopsError(f"{text!r} is not {what}", f"it is a number, from {least} on", BAD_INPUT)
    return int(text)


def _complete(machine: Any) -> None:
    """The end of a task's words: what may be missing, and is, is not waited for."""
    _let_go(machine.context)
    _invokes_complete(machine)


def _handle(machine: Any, token: str) -> None:
    """The next word: the name of a task begins that task, and is not taken for what may be missing."""
    if token in machine.contexts:
        _let_go(machine.context)
    _invokes_handle(machine, token)


def _let_go(context: Any) -> None:
    if context:
        context.positional_args = [
            argument
            for argument in context.positional_args
            if argument.value is not None or not getattr(argument, "may_be_missing", False)
        ]


_invokes_complete, _invokes_handle = ParseMachine.complete_context, ParseMachine.handle
ParseMachine.complete_context = _complete  # type: ignore[method-assign, assignment]
ParseMachine.handle = _handle  # type: ignore[method-assign, assignment]
