"""Bootstrap, push and plan: render what a machine should be, and have its agent make it so, or say how it differs."""

from __future__ import annotations

import base64
import sys
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mailops import cache, fleet, needed, secrets
from mailops.errors import BAD_INPUT, DIFFERENT, DISTRUSTED, LOCKED, MailopsError
from mailops.manifest import File, Manifest
from mailops.roles import MADE, is_central, runs
from mailops.screen import planned, terminal
from mailops.services.compose import manifest_for
from mailops.site.model import Host, Site
from mailops.ssh.machine import Answers, BareMachine, Listener, Machine

if TYPE_CHECKING:
    from typing import TypedDict

    from mailops.remote.shared.calls import Changed, ConvergeArgs, Edit, Facts, Plan, PlanArgs, Served
    from mailops.remote.shared.forms import Manifest as Wanted
    from mailops.screen.diffs import Shown

    class ShownPlan(TypedDict):
        """A Plan as it may be printed."""

        changes: dict[str, list[str]]
        edited: list[Shown]
        refused: str
        interrupted: bool
        locked: bool
        new_vault: bool
        diffs: dict[str, str]  # by path


@dataclass
class Rendering:
    """The manifest of one host, made when the machine has told its facts, and the answers that go with it."""

    site: Site
    host: Host
    listener: Any
    config: Any = None
    manifest: Manifest | None = field(default=None, init=False)

    # Of mailhosts, by site: each is asked once in a command.
    certificates: ClassVar[dict[Path, str | MailopsError]] = {}

    def answers(self) -> Answers:
        return {
            "manifest": self.tell,
            "files": self.contents,
            "hashes": self.hashes,
            "passphrase": lambda data: passphrase(self.site, self.listener, data["new"]),
            "recovery": lambda key: show_recovery_key(self.host.name, key),
            "revision": self.revision,
            "edited": self.show_edits,
        }

    def guess(self) -> tuple[Facts, Wanted] | tuple[None, None]:
        """The facts that the machine told last time, and the manifest for them: more often than not they still hold."""
        facts = cache.facts(self.site, self.host)
        if facts is None or self._asks_a_person():
            return None, None
        return facts, self.render(facts)

    def tell(self, facts: Facts) -> Wanted:
        """The manifest for the facts that the machine has just told."""
        cache.remember_facts(self.site, self.host, facts)
        return self.render(facts)

    def render(self, facts: Facts) -> Wanted:
        if runs(self.host.role, "nullclient"):
            facts = facts | {"mailhost_certificate": self._certificate() or facts["mailhost_certificate"]}
        self.manifest = manifest_for(self.site, self.host, facts, secrets.resolve)
        return self.manifest.to_json()

    def contents(self, paths: list[str]) -> dict[str, str]:
        return {path: base64.b64encode(self.files[path].content).decode() for path in paths}

    @cached_property
    def files(self) -> dict[str, File]:
        assert self.manifest is not None  # noqa: S101 - the agent asks for the manifest first
        return {file.path: file for file in self.manifest.files}

    # What is seldom asked is loaded when it is.

    def hashes(self, emails: list[str]) -> dict[str, str]:
        from mailops import accounts

        return accounts.hashes(self.site, emails)

    def revision(self, _: Any) -> str:
        from mailops.site import revision

        return revision.of(self.site.path)

    def show_edits(self, entries: list[Edit]) -> None:
        from mailops.screen import diffs

        diffs.show_edits(self.host.name, self.listener, entries)

    def _asks_a_person(self) -> bool:
        """Whether making the manifest means to ask for a password: not before the machine wants it."""
        relay = [user.pw for user in self.site.mail_users if user.email == self.site.relay_email]
        return runs(self.host.role, "nullclient") and any(pw.kind == "prompt" for pw in relay)

    def _certificate(self) -> str:
        """What the mailhost serves, for its null clients to verify; "" when it cannot be asked now."""
        if self.site.path not in self.certificates:
            self.certificates[self.site.path] = self._ask_certificate()
        found = self.certificates[self.site.path]
        return found if isinstance(found, str) else ""

    def _ask_certificate(self) -> str | MailopsError:
        mailhost = self.site.mailhost()
        if mailhost is None:
            return ""
        try:
            with Machine(self.site, mailhost, self.listener, self.config) as machine:
                served: Served = machine.call("certificate", {})
                return served["certificate"]
        except MailopsError as error:
            self.listener.say(f"the mailhost's certificate could not be read: {error.message}")
            return error


def bootstrap(c: Any, overwrite: bool = False, as_json: bool = False, take_over: bool = False) -> None:
    """Packages, vault, accounts, keys, configuration, daemons: everything that hosts.toml says.

    MailopsError (3) where files were edited by hand on the machine, unless `overwrite` is set.
    """
    _say_notes()
    if not c.config.get("mailops_hosts"):
        for host in fleet.load().hosts.values():
            if host.role not in MADE:
                print(f"{host.name}  ● left out: mailops cannot make a {host.role} yet", file=sys.stderr)
    relays: list[str] = []  # null clients that are new, or otherwise than they were, or that it has not heard of yet
    knows = False  # the mailhost, of all null clients
    done: dict[str, Changed] = {}

    def work(machine: Machine) -> Changed:
        nonlocal knows
        result = done[machine.host.name] = _apply(c, machine, "bootstrap", overwrite, take_over)
        if is_central(machine.host.role):
            knows = True
        elif not knows and _is_news(machine, result):
            relays.append(machine.host.name)
        return result

    try:
        fleet.each(c, MADE, work, as_json, task="bootstrap")
    finally:
        if relays:
            _introduce(c, relays)
        if not as_json:
            for line in planned.next_steps(done):
                print(line)


def _say_notes() -> None:
    """What hosts.toml says and is taken otherwise."""
    for line in fleet.load().notes:
        print(line, file=sys.stderr)


def _is_news(machine: Machine, result: Changed) -> bool:
    """Whether the mailhost may have to be told of a null client; what has failed before is tried again."""
    if "files" in result["changes"] or result.get("unknown"):
        return True
    mailhost = machine.site.mailhost()
    return mailhost is not None and machine.host.name in cache.untold(machine.site, mailhost)


def _introduce(c: Any, relays: list[str]) -> None:
    """The mailhost learns of null clients that were set up without it: it takes no mail in a name it does not know.

    MailopsError when it cannot be told; their mail waits until it is (smtp_reply_filter in their main.cf).
    """
    site = fleet.load()
    mailhost = site.mailhost()
    if mailhost is None:
        return
    cache.remember_untold(site, mailhost, list(dict.fromkeys([*cache.untold(site, mailhost), *relays])))
    if mailhost in fleet.select(c, site, MADE):  # it has just failed, and said why
        return
    names = ", ".join(relays)
    try:
        with fleet.machine(c, site, mailhost, quiet=True) as machine:
            machine.listener.say(f"is told of {names}, as by fab -H {mailhost.name} push")
            result = _apply(c, machine, "push")
            if unwell := fleet.ailing(mailhost.name, result):
                raise fleet.Unwell(unwell)
    except fleet.Unwell:
        raise
    except MailopsError as error:
        hint = f"when that is mended: fab -H {mailhost.name} push"
        what = error.what if error.where == mailhost.name else error.message
        what = f"{what} (it is to be told of {names}, whose mail waits until then)"
        raise MailopsError(what, hint, error.code, mailhost.name) from error
    _doubt_mailhost()


def push(c: Any, overwrite: bool = False, as_json: bool = False, take_over: bool = False) -> None:
    """The configuration alone, no packages; hand edits as with `bootstrap`."""
    _say_notes()
    fleet.each(c, MADE, lambda machine: _apply(c, machine, "push", overwrite, take_over), as_json, task="push")
    _doubt_mailhost()


def push_site(c: Any, site: Site) -> None:
    """Push `site`'s configuration to its mailhost; for tasks that have just changed hosts.toml."""
    with fleet.mailhost(c, site) as machine:
        try:
            _apply(c, machine, "push")
        except MailopsError as error:
            fab = f"fab -H {machine.host.name}"
            if error.code == LOCKED:  # by another run perhaps, and whoever called us has no --take-over
                error.hint = f"{error.hint} (it is for {fab} push; then try again)"
            if error.code == DIFFERENT:  # nor --overwrite
                error.hint = f"{fab} drift shows it; {fab} push --overwrite drops it; then try again"
            raise


def plan(c: Any, as_json: bool = False) -> None:
    """What bootstrap would change on each machine; nothing is touched.

    MailopsError (1), when all is shown, where a daemon's own check objects to it, or somebody has a port that we need.
    """
    _say_notes()
    refused: list[str] = []

    def work(machine: Machine) -> ShownPlan:
        result = _plan(c, machine)
        if result["refused"]:
            refused.append(machine.host.name)
        return result

    fleet.each(c, MADE, work, as_json, _print_plan, task="plan")
    _doubt_mailhost()
    if refused:
        raise MailopsError(f"{', '.join(refused)}: a bootstrap would be refused")


def _doubt_mailhost() -> None:
    """MailopsError (6) when it may be compromised by what it said to the question for its certificate. Its null clients
    are done by now, with the certificate that they had.
    """
    for found in Rendering.certificates.values():
        if isinstance(found, MailopsError) and found.code == DISTRUSTED:
            raise found


def passphrase(site: Site, listener: Listener, new: bool) -> str:
    """The vault's passphrase, for what the person is told; one for a new vault is typed twice, and not a short one."""
    if site.cryptdir_pw is None:
        raise MailopsError(f"{site.path.name}: cryptdir_pw is not set", code=BAD_INPUT)
    listener.say(
        "it asks for a passphrase, to make a new vault" if new else "it asks for the passphrase, to open its vault"
    )
    if not new:
        return secrets.resolve(site.cryptdir_pw)
    return needed.new_passphrase(site.cryptdir_pw)


def show_recovery_key(name: str, key: str) -> bool:
    """To the person alone: the key must not end up in a log."""
    terminal.show(
        f"\n  The recovery key of the vault on {name}. It is shown once and stored nowhere: write it down.\n"
        f"  Whoever has it can open the vault without the passphrase.\n\n    {key}\n\n"
    )
    return True


def _apply(
    c: Any, machine: Machine, task: Literal["bootstrap", "push"], overwrite: bool = False, take_over: bool = False
) -> Changed:
    started = time.monotonic()
    rendering = Rendering(machine.site, machine.host, machine.listener, c.config)

    def args() -> ConvergeArgs:
        facts, wanted = rendering.guess()
        how: ConvergeArgs = {"task": task, "who": fleet.who(), "overwrite": overwrite, "take_over": take_over}
        return how | {"facts": facts, "manifest": wanted}

    result: Changed = machine.call("converge", args, rendering.answers(), install_python=task == "bootstrap")
    if is_central(machine.host.role):
        cache.remember_untold(machine.site, machine.host, [])
    result["seconds"] = round(time.monotonic() - started, 1)
    machine.listener.say(summary(result))
    return result


def summary(result: Changed) -> str:
    """What a run did, in a line: how much, which generation of the files is active now, and how long it took (s)."""
    count = sum(len(lines) for lines in result["changes"].values())
    changed = f"{count} changes" if count > 1 else "1 change" if count else "nothing changed"
    if "files" in result["changes"]:
        changed += f", generation {result['generation']}"
    waiting = "; mail waits here, for the mailhost does not know this machine" if result.get("unknown") else ""
    waiting += "; the vault is locked, mail waits for `fab unlock`" if result["locked"] else ""
    return f"{changed}, {result['seconds']} s{waiting}"


def _plan(c: Any, machine: Machine) -> ShownPlan:
    from mailops.screen import diffs

    rendering = Rendering(machine.site, machine.host, machine.listener, c.config)

    def args() -> PlanArgs:
        facts, wanted = rendering.guess()
        return {"task": "plan", "who": fleet.who(), "facts": facts, "manifest": wanted}

    try:
        found: Plan = machine.call("converge", args, rendering.answers())
    except BareMachine as bare:
        return _plan_of_bare(rendering, bare)
    files = diffs.all_shown(found["files"], ("now", "planned"))
    return {
        "changes": found["changes"],
        "edited": diffs.edits(found["edited"]),
        "refused": found["refused"],
        "interrupted": found["interrupted"],
        "locked": found["locked"],
        "new_vault": found["new_vault"],
        "diffs": {file["path"]: file["diff"] for file in files if file["diff"] and file["state"] != "new"},
    }


def _plan_of_bare(rendering: Rendering, bare: BareMachine) -> ShownPlan:
    """Where no agent can look, everything would be new."""
    if not bare.release:
        raise bare
    wanted = rendering.render({"release": bare.release, "mailhost_certificate": ""})
    changes = {
        "packages": [f"install {name}" for name in wanted["packages"]],
        "users": [f"user {user['name']}" for user in wanted["users"]],
        "vault": [f"make the vault {wanted['vault']['mountpoint']}"] if wanted["vault"] else [],
        "files": [file["path"] for file in wanted["files"]],
    }
    found = {room: lines for room, lines in changes.items() if lines}
    return {
        "changes": found,
        "edited": [],
        "refused": "",
        "interrupted": False,
        "locked": False,
        "new_vault": bool(wanted["vault"]),
        "diffs": {},
    }


def _print_plan(name: str, result: ShownPlan) -> None:
    if not result["changes"]:
        print(f"{name}  nothing would change")
    for room, lines in result["changes"].items():
        for line in lines:
            print(f"{name}  {room:<12} {line}")
    for text in result["diffs"].values():
        print(f"\n{text}", end="")
    if result["refused"]:
        print(f"{name}  ✗ {result['refused']}")
    if result["interrupted"]:
        print(f"{name}  what an interrupted run has left would be undone first")
    if result["edited"]:
        print(f"{name}  bootstrap would stop, as these were edited on the machine (--overwrite replaces them):")
        from mailops.screen import diffs

        print(diffs.text(name, result["edited"]), end="")
    if result["locked"] and not result["new_vault"]:
        print(f"{name}  the vault is locked: accounts, keys and files in it were not compared")
    if result["changes"]:
        stopped = result["refused"] or result["edited"]
        print(f"{name}  {planned.count(result['changes'])}" + ("" if stopped else f"; next: fab -H {name} bootstrap"))
