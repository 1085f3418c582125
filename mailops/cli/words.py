"""The words of the command line, where Invoke's parser is not as kind as a person would expect.

* Words that may be left out: `fab rollback` and `fab rollback 5`. Invoke knows words that are required and flags that
  may be left out, nothing in between: it takes every positional argument without a value for a missing one.
* As many words as there are: `fab queue.rm ID ID`. To Invoke, the second one is the name of a task.
* `fab rollback --help`: to Invoke, `--help` is the word that `rollback` waits for. So is a flag that does not exist.
* A line that cannot be understood ends with code 2, and says where help is.

So parts of Invoke's parser are replaced that no documentation speaks of, all of them here, in versions alone that the
tests know. In another one, words that may be left out are flags: `fab rollback --to 5`.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import invoke
from invoke import Task
from invoke.exceptions import Exit
from invoke.parser.parser import ParseMachine

from mailops.errors import BAD_INPUT, MailopsError

TESTED = ("2.2",)  # versions of Invoke, up to their second number
PRIVATE = ("complete_context", "handle", "error")  # of its ParseMachine
SEEN = "a password in the command line is seen by everybody who runs ps, and stays in the shell's history"


class WordTask(Task):  # type: ignore[type-arg]
    """A task whose `positional` parameters with a default (None) may be left out: `@task(klass=WordTask, …)`."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Any]:
        arguments: list[Any] = super().get_arguments(ignore_unknown_help)
        parameters = self.argspec(self.body).parameters
        for argument in arguments:
            parameter = parameters[argument.name]
            argument.may_be_missing = argument.positional and parameter.default is not parameter.empty
            if argument.may_be_missing and not KNOWN:
                argument.positional = False
        return arguments


class WordsTask(WordTask):
    """One whose last word may be several: they arrive as one text, with blanks between them."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Any]:
        arguments = super().get_arguments(ignore_unknown_help)
        for argument in arguments:
            argument.takes_more = argument.positional
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
    elif more := _takes_more(machine, token):
        more.value = f"{more.value} {token}"
        return
    if _is_misplaced(machine, token):
        if machine.initial and token in machine.initial.flags and token not in HELP:
            machine.error(f"{token} goes before the name of the task")
        if token not in HELP:
            machine.error(f"No idea what {token!r} is!")
        machine.context.positional_args = []  # nothing is waited for any more
    _invokes_handle(machine, token)


def _is_misplaced(machine: Any, token: str) -> bool:
    """Whether a flag that the task does not have stands where a word of it is waited for."""
    context = machine.context
    waits = bool(context and context.missing_positional_args and not machine.waiting_for_flag_value)
    return waits and token.startswith("-") and token not in context.flags


def _takes_more(machine: Any, token: str) -> Any:
    """The word of the task that this one goes to as well; None where it does not."""
    context = machine.context
    if not context or token.startswith("-") or machine.waiting_for_flag_value or context.missing_positional_args:
        return None
    return next((argument for argument in context.positional_args if getattr(argument, "takes_more", False)), None)


def _error(machine: Any, message: str) -> None:
    if "--complete" in sys.argv:  # half a word, which the shell wants completed
        _invokes_error(machine, message)
    name = machine.context.name if machine.context else None
    if name in ASK_FOR_A_PASSWORD and re.match("No idea what '[^-]", message):  # it may be one, and is not repeated
        raise Exit(f"mailops: {SEEN}\n  choose another one; fab {name} <email> asks for it", BAD_INPUT)
    hint = f"fab {name} --help" if name else "fab --list shows the tasks"
    raise Exit(f"mailops: {message[0].lower()}{message[1:]}\n  {hint}", BAD_INPUT)


def _let_go(context: Any) -> None:
    if context:
        context.positional_args = [
            argument
            for argument in context.positional_args
            if argument.value is not None or not getattr(argument, "may_be_missing", False)
        ]


HELP = ("-h", "--help")
ASK_FOR_A_PASSWORD = ("user.add", "user.passwd")
KNOWN = ".".join(invoke.__version__.split(".")[:2]) in TESTED and all(hasattr(ParseMachine, name) for name in PRIVATE)
if KNOWN:
    _invokes_complete, _invokes_handle = ParseMachine.complete_context, ParseMachine.handle
    _invokes_error = ParseMachine.error
    ParseMachine.error = _error  # type: ignore[method-assign, assignment]
    ParseMachine.complete_context = _complete  # type: ignore[method-assign, assignment]
    ParseMachine.handle = _handle  # type: ignore[method-assign, assignment]
