"""What somebody has changed by hand on the machines since mailops wrote it, and what happens to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailops import fleet
from mailops.errors import DIFFERENT, MailopsError
from mailops.roles import MADE
from mailops.screen import diffs
from mailops.ssh.machine import Machine

if TYPE_CHECKING:
    from typing import TypedDict

    from mailops.remote.shared.calls import Drift

    class Shown(TypedDict):
        """A Drift as it may be printed."""

        files: list[diffs.Shown]
        unpushed: list[str]
        generation: int
        locked: bool


def show(c: Any, as_json: bool = False) -> None:
    """List the hand-edited, missing and chmod-ed files of each machine; MailopsError (3) when there are any.

    All machines are looked at first. One that cannot be asked counts for more: its code is the one that is raised.
    """
    found: list[diffs.Shown] = []
    where: list[str] = []

    def look(machine: Machine) -> Shown:
        result: Drift = machine.call("drift", {})
        files = diffs.edits(result["files"])
        found.extend(files)
        where.extend([machine.host.name] * bool(files))
        return {
            "files": files,
            "unpushed": result["unpushed"],
            "generation": result["generation"],
            "locked": result["locked"],
        }

    fleet.each(c, MADE, look, as_json, _print)
    if found:
        what = "1 file differs" if len(found) == 1 else f"{len(found)} files differ"
        hint = (
            f"to keep it, move it into hosts.toml ([override]) or /etc/mailops/local/ on the machine; then, or to\n"
            f"  drop it: fab -H {','.join(where)} push --overwrite (what it said stays in the generations)"
        )
        raise MailopsError(f"{what} from what mailops wrote", hint, DIFFERENT)


def _print(name: str, result: Shown) -> None:
    if not result["files"]:
        print(f"{name}  every file is as mailops wrote it")
    if result["locked"]:
        print(f"{name}  the vault is locked: the files in it were not compared")
    print(diffs.text(name, result["files"]), end="")
    for path in result["unpushed"]:
        print(f"{name}  {path} was changed and is not in use yet; next: fab -H {name} push")
