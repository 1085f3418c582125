"""What a machine may ask for in a call: decided here, from its role, the task, and what this very call has sent.

A machine that was taken over asks for whatever it likes. It gets what its own work needs, once: an unlock of the
mailhost the passphrase, a bootstrap the hashes of users that it was just sent the names of. Whatever a call is not
listed with is refused, and ends the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mailops import printable
from mailops.roles import ROLES
from mailops.ssh import protocol
from mailops.ssh.shapes import Odd, Shape, flag, line, listing, matching, number, real, record

if TYPE_CHECKING:
    from mailops.remote.shared.forms import Manifest

FILES = ("manifest", "files")  # also of a plan, which has the daemons check what it would write
RUN = (*FILES, "revision", "edited")
# What a machine may ask for in a task, whatever it is for; and what it may where it has a service.
ALLOWED: dict[str, tuple[str, ...]] = {"bootstrap": RUN, "push": RUN, "plan": FILES, "rollback": ("edited",)}
ALLOWED["queue.rm"] = ("delete",)
WITH_SERVICE: dict[tuple[str, str], tuple[str, ...]] = {
    ("bootstrap", "vault"): ("passphrase", "recovery"),
    ("bootstrap", "accounts"): ("hashes",),
    ("unlock", "vault"): ("passphrase",),
    ("mailcfg", "accounts"): ("hash",),
}
SEVERAL = ("files", "hashes")  # asked for as they are needed; of each file and user, once


def nothing(value: Any) -> None:
    if value is not None:
        raise Odd("is not empty")


# The question in words, and what comes with it.
QUESTIONS: dict[str, tuple[str, Shape]] = {
    "manifest": ("what it should be", protocol.FACTS),
    "files": ("contents of files", listing(line(), 1000)),
    "hashes": ("hashes of users' passwords", listing(line())),
    "passphrase": ("the passphrase of the vault", record({"new": flag})),
    "recovery": ("a recovery key to be shown", matching(r"([0-9a-f]{8}-){7}[0-9a-f]{8}", "recovery key")),
    "hash": ("the hash of a password", line()),
    "revision": ("the revision of the site", nothing),
    "edited": ("hand edits to be shown", protocol.ENTRIES),
    "delete": ("a yes to deleting mail", record({"count": number(1), "age": real()})),
}


class Questions:
    """The questions of one call. `args` is what the call has sent; `task` its name, or its task where it has one."""

    def __init__(self, role: str, task: str, args: Mapping[str, Any]) -> None:
        self.task = task
        self._allowed = _allowed(task, role)
        self._asked: set[str] = set()
        self._open: dict[str, set[str]] = {}  # what may still be asked for of each kind
        self._new_vault = False
        self._email = _needs_hash(args)
        self._unsure = bool(args.get("which")) and not args.get("sure")
        self._learn(args.get("manifest"))

    def check(self, what: str, data: Any) -> Any:
        """What came with a question that may be answered, made harmless; Odd for any other question."""
        if what not in QUESTIONS:
            raise Odd(f"asked in {self.task} for what nobody knows ({what!r})")
        if what not in self._allowed:
            raise self._odd(what, f"which {self.task} does not need from here")
        if what in self._asked and what not in SEVERAL:
            raise self._odd(what, "a second time")
        if what == "manifest" and self._asked:
            raise self._odd(what, "too late")
        self._asked.add(what)
        try:
            data = QUESTIONS[what][1](data)
        except Odd:
            raise self._odd(what, "in a way that none of ours asks") from None
        self._narrow(what, data)
        return data

    def answered(self, what: str, answer: Any) -> None:
        """What was sent in answer to a question."""
        if what == "manifest":
            self._learn(answer)

    def _learn(self, manifest: Manifest | None) -> None:
        if manifest:
            accounts = manifest.get("accounts")
            self._open = {
                "files": {file["path"] for file in manifest["files"]},
                "hashes": set(accounts.get("users", ())) if accounts else set(),
            }

    def _narrow(self, what: str, data: Any) -> None:
        """Of the questions that are allowed, those that this call has given no cause for."""
        if what in SEVERAL:
            left = self._open.get(what, set())
            if not data or len(set(data)) < len(data) or not left.issuperset(data):
                strange = next((item for item in data if item not in left), "")
                raise self._odd(what, f"which are not its own, or which it has: {strange[:200]!r}")
            left.difference_update(data)
        if what == "passphrase":
            self._new_vault = data["new"]
            if data["new"] and self.task != "bootstrap":
                raise self._odd(what, f"to make a new vault, which {self.task} never does")
        if what == "recovery" and not self._new_vault:
            raise self._odd(what, "although no vault was made")
        if what == "delete" and not self._unsure:
            raise self._odd(what, "which was said already")
        if what == "hash" and (not self._email or data != self._email):
            raise self._odd(what, f"of {data[:200]!r}, who was not spoken of")

    def _odd(self, what: str, why: str) -> Odd:
        return Odd(printable.line(f"asked in {self.task} for {QUESTIONS[what][0]} ({what!r}), {why}"))


def _allowed(task: str, role: str) -> set[str]:
    """Nothing for a role without services: no task is for its machines."""
    services = ROLES[role].services if role in ROLES else ()
    more = [WITH_SERVICE.get((task, service), ()) for service in services]
    return {what for part in (ALLOWED.get(task, ()), *more) for what in part} if services else set()


def _needs_hash(args: Mapping[str, Any]) -> str:
    """The user whose hash a `mailcfg` without one is going to need."""
    argv = args.get("argv") or [""]
    return argv[1] if argv[0] in ("adduser", "passwd") and len(argv) > 1 and not args.get("hash") else ""
