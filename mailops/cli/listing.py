"""The list of tasks under headings, what is typed daily first; and help in our own words.

Stock Fabric lists by the alphabet, behind thirty options of which a site needs four. For a fabfile that is not ours all
is as Fabric has it.
"""

from __future__ import annotations

import inspect
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from fabric.main import Fab
from invoke.exceptions import Exit
from invoke.util import helpline

from mailops.screen import paint

# A name with a dot and a star is all tasks of that group which are not named before.
HEADINGS: dict[str, tuple[str, ...]] = {
    "Every day": ("status", "unlock", "queue", "trace", "user.add", "user.passwd"),
    "Change the machines": ("plan", "bootstrap", "push", "lock", "trust", "certificate.*"),
    "Users, aliases, domains": ("user.*", "alias.*", "domain.*", "mailcfg"),
    "Mail that waits": ("queue.*",),
    "What was changed, and the way back": ("history", "drift", "generations", "diff", "rollback"),
    "Signatures and spam": ("dkim.*", "tunnel"),
    "A replica on this computer": ("lab.*",),
}
OPTIONS = (
    ("-H HOST,HOST", "only these machines of hosts.toml"),
    ("-i FILE", "log in with this private key"),
    ("-S FILE", "read this in the place of ~/.ssh/config"),
    ("-t SECONDS", "wait so long for a connection"),
)
OURS = {"bootstrap", "plan", "unlock"}  # tasks by which a fabfile of ours is known
OTHERS = "Others"


class Program(Fab):  # type: ignore[misc]
    """`fab` and `mailops`, with lists and help of our own where the tasks are ours."""

    def list_flat(self) -> None:
        if self.list_root or self.list_depth or not self._is_ours():
            super().list_flat()
            return
        for line in listing(self.collection):
            print(line)

    list_nested = list_flat

    def print_help(self) -> None:
        if not hasattr(self, "collection"):  # stock `fab --help` looks for no tasks
            with suppress(Exit):
                self.load_collection()
        if not (hasattr(self, "collection") and self._is_ours()):
            super().print_help()
            return
        print(f"Usage: {self.binary} [-H HOST] TASK [its words and options]\n")
        for line in [*listing(self.collection), *_columns(OPTIONS, "Options, before the task")]:
            print(line)
        print(f"{self.binary} TASK --help says more of a task.")

    def print_task_help(self, name: str) -> None:
        if not self._is_ours():
            super().print_task_help(name)
            return
        context = self.parser.contexts[name]
        words = " ".join(f"<{word.name}>" if word.value is None else f"[{word.name}]" for word in _words(context))
        print(f"Usage: {self.binary} [-H HOST] {name} [options] {words}".rstrip() + "\n")
        print(textwrap.indent(inspect.getdoc(self.collection[name]) or "", "  ") + "\n")
        if options := context.help_tuples():
            print("Options:")
            self.print_columns(options)

    def _is_ours(self) -> bool:
        return set(self.collection.tasks) >= OURS


def listing(collection: Any) -> Iterator[str]:
    """A heading, its tasks with a line each, an empty line; and so on."""
    rest = {name.removesuffix(f".{_default(collection, name)}"): task for name, task in _tasks(collection)}
    for heading, patterns in [*HEADINGS.items(), (OTHERS, ("*",))]:
        names = [name for pattern in patterns for name in rest if _is(name, pattern, patterns)]
        pairs = [(name, helpline(rest.pop(name)) or "") for name in dict.fromkeys(names)]
        if pairs:
            yield from _columns(pairs, heading)


def _tasks(collection: Any) -> list[tuple[str, Any]]:
    names = [
        *collection.tasks,
        *(f"{group}.{name}" for group in collection.collections for name in collection.collections[group].tasks),
    ]
    return [(name, collection[name]) for name in names]


def _default(collection: Any, name: str) -> str:
    """The task of a group that the group's own name stands for."""
    group = collection.collections.get(name.partition(".")[0])
    return (group and group.default) or " "


def _is(name: str, pattern: str, patterns: tuple[str, ...]) -> bool:
    if pattern == "*":
        return True
    return name == pattern or (pattern.endswith(".*") and name.startswith(pattern[:-1]) and name not in patterns)


def _words(context: Any) -> list[Any]:
    return list(context.positional_args)


def _columns(pairs: Any, heading: str) -> Iterator[str]:
    width = shutil.get_terminal_size().columns
    yield paint.colour(heading, "1") if paint.coloured(sys.stdout) else heading
    for name, text in pairs:
        yield f"  {name:<15} {text}" if width >= 60 else f"  {name}\n      {text}"
    yield ""
