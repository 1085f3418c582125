"""The table of contents of the command line: every task is listed here, none is defined deep.

`fab` finds it through fabfile.py; an installed package serves the same tasks as `mailops`.
"""

from __future__ import annotations

from typing import Any

from invoke import Collection, task

from mailops.cli.words import WordsTask, WordTask

JSON = {"json": "print JSON on stdout, progress on stderr"}
WRITE = {"write": "write it into hosts.toml, too, without asking"}
YES = {"yes": "do it although machines or the administrator depend on it, without asking"}
GENERATE = {"generate": "make a password, and print what to send to the person"}
OVERWRITE = {"overwrite": "replace files that were edited on the machine, too"}
TAKE_OVER = {"take_over": "end another run that holds the machine, and undo what it had begun"}


@task(help={**OVERWRITE, **JSON, **TAKE_OVER})
def bootstrap(c: Any, overwrite: bool = False, json: bool = False, take_over: bool = False) -> None:
    """Make the machines what hosts.toml says.

    Packages, vault, accounts, keys, configuration, daemons: without -H of all machines of the site, the
    mailhost first. Run it again at any time: what is as it should be is left alone. It stops, with a diff,
    where somebody has edited a file on the machine.

    Example: fab -H mail bootstrap
    """
    from mailops import bootstrap as converge

    converge.bootstrap(c, overwrite, json, take_over)


@task(help=JSON)
def plan(c: Any, json: bool = False) -> None:
    """Show what bootstrap would change; touch nothing.

    With diffs of the files, secrets masked.

    Example: fab -H mail plan
    """
    from mailops import bootstrap as converge

    converge.plan(c, json)


@task(help={**OVERWRITE, **JSON, **TAKE_OVER})
def push(c: Any, overwrite: bool = False, json: bool = False, take_over: bool = False) -> None:
    """Push the configuration alone, no packages.

    It is checked before a daemon sees it, and taken back if the daemons then do not answer as they should.

    Example: fab -H mail push
    """
    from mailops import bootstrap as converge

    converge.push(c, overwrite, json, take_over)


@task(help=JSON)
def generations(c: Any, json: bool = False) -> None:
    """List the earlier states that a machine's files had.

    Each push or bootstrap that changes a file makes a new one.

    Example: fab -H mail generations
    """
    from mailops.changes import generations

    generations.show(c, json)


@task(
    klass=WordTask,
    positional=["to"],
    help={"to": "the number of a generation; the one before the active if left out", **OVERWRITE, **JSON, **TAKE_OVER},
)
def rollback(
    c: Any, to: str | None = None, overwrite: bool = False, json: bool = False, take_over: bool = False
) -> None:
    """Bring a machine's files back to an earlier state.

    With contents, owners and modes; the daemons are told, and asked whether they work. Packages, system
    users, accounts and keys stay as they are.

    Example: fab -H mail rollback 41
    """
    from mailops.changes import generations

    generations.rollback(c, to, overwrite, json, take_over)


@task(
    klass=WordTask,
    positional=["since"],
    help={"since": "the number of a generation; the one before the active if left out", **JSON},
)
def diff(c: Any, since: str | None = None, json: bool = False) -> None:
    """Show what changed in a machine's files, and since when.

    Unified diffs from an earlier generation to the active one, secrets masked.

    Example: fab -H mail diff 41
    """
    from mailops.changes import generations

    generations.diff(c, since, json)


@task(help=JSON)
def drift(c: Any, json: bool = False) -> None:
    """List files that were edited by hand on the machines.

    With diffs; the exit code is 3 when there are any.

    Example: fab drift
    """
    from mailops.changes import drift

    drift.show(c, json)


@task(help={"count": "how many runs, of each machine", **JSON})
def history(c: Any, count: str = "20", json: bool = False) -> None:
    """Show who changed what on the machines, from where.

    Example: fab -H mail history --count 5
    """
    from mailops.changes import history

    history.show(c, count, json)


@task(help=TAKE_OVER)
def unlock(c: Any, take_over: bool = False) -> None:
    """Open the vault, and start mail.

    It asks for the passphrase, and returns when SMTP and IMAP really answer.

    Example: fab unlock
    """
    from mailops import vault

    vault.unlock(c, take_over)


@task(help=TAKE_OVER)
def lock(c: Any, take_over: bool = False) -> None:
    """Stop mail and close the vault.

    Example: fab lock
    """
    from mailops import vault

    vault.lock(c, take_over)


@task(help={"quiet": "show those alone that are not up, as for cron", **JSON})
def status(c: Any, quiet: bool = False, json: bool = False) -> None:
    """Say how the machines are: vault, daemons, ports, queue.

    The exit code is 0 when all are up, 1 when mail does not work on one, 4 when one cannot be reached, and 5 when a
    vault is locked and all else is well.

    Example: fab status --quiet
    """
    from mailops.health import status

    status.show(c, json, quiet)


@task(help={"port": "the local port to try first", "browser": "open the address in a browser"})
def tunnel(c: Any, port: str = "11334", browser: bool = True) -> None:
    """Open the rspamd console at a local port, until Ctrl-C.

    Example: fab tunnel --port 8080 --no-browser
    """
    from mailops import tunnel
    from mailops.cli import words

    tunnel.tunnel(c, words.number(port, "a port", 0), browser)


@task(help={"name": "a host of hosts.toml", "fingerprint": "pin without asking when this is what it shows: SHA256:…"})
def trust(c: Any, name: str, fingerprint: str = "") -> None:
    """Show a machine's host key, and pin it in hosts.toml.

    Example: fab trust mail
    """
    from mailops import trust

    trust.trust(c, name, fingerprint)


@task(help={"command": "a mailcfg command and its words, quoted as one", **WRITE, **YES, **JSON})
def mailcfg(c: Any, command: str, write: bool = False, yes: bool = False, json: bool = False) -> None:
    """Run a mailcfg command; `fab mailcfg help` lists them.

    A password left out is asked for, without echo.

    Example: fab mailcfg "addalias sales@example.test user1@example.test"
    """
    import shlex

    from mailops import accounts

    accounts.run(c, shlex.split(command), json, write=write, yes=yes)


@task(
    help={
        "what": "an address, @ and a domain, an ID of the queue, or a Message-ID",
        "since": "how far to look back: 2h, 3d, 2w, today, yesterday, 2026-11-28; two days if left out",
        **JSON,
    }
)
def trace(c: Any, what: str, since: str = "", json: bool = False) -> None:
    """Tell the way of a message: who, filter, mailbox.

    Also of one that was refused before it had an ID. From the machines' journals.

    Example: fab trace ann@example.test --since yesterday
    """
    from mailops import trace

    trace.trace(c, what, since, json)


@task(name="ls", help={"each": "every message, however many there are", **JSON})
def queue_ls(c: Any, each: bool = False, json: bool = False) -> None:
    """List the mail that waits on the machines, and why.

    Many messages are told by their reasons. `fab queue` is the same.

    Example: fab -H mail queue.ls --each
    """
    from mailops import queue

    queue.show(c, each, json)


@task(name="show", help={"id": "the ID of a message, as `fab queue` shows it", **JSON})
def queue_show(c: Any, id: str, json: bool = False) -> None:
    """Show a message that waits: headers, start of the body.

    Example: fab queue.show 4D37E2B2092
    """
    from mailops import queue

    queue.look(c, id, json)


@task(name="flush")
def queue_flush(c: Any) -> None:
    """Try now to deliver what waits.

    What is on hold stays.

    Example: fab -H mail queue.flush
    """
    from mailops import queue

    queue.flush(c)


IDS = {"ids": "IDs of messages, as `fab queue` shows them"}


@task(
    klass=WordsTask,
    positional=["ids"],
    name="rm",
    help={
        **IDS,
        "deferred": "all that could not be delivered yet, and are not on hold",
        "all": "all that are there",
        "yes": "do not ask",
    },
)
def queue_rm(
    c: Any,
    ids: str | None = None,
    deferred: bool = False,
    all: bool = False,
    yes: bool = False,
) -> None:
    """Delete mail that waits.

    Neither sender nor recipient is told. With --deferred or --all it says how many there are, and asks.

    Example: fab queue.rm 4D37E2B2092 5FDFA6225C3
    """
    from mailops import queue

    queue.change(c, "queue.rm", ids, "all" if all else "deferred" if deferred else "", yes)


@task(klass=WordsTask, positional=["ids"], name="hold", help={**IDS, "all": "all that are there"})
def queue_hold(c: Any, ids: str | None = None, all: bool = False) -> None:
    """Keep mail that waits from being delivered.

    Example: fab queue.hold 4D37E2B2092
    """
    from mailops import queue

    queue.change(c, "queue.hold", ids, "all" if all else "")


@task(klass=WordsTask, positional=["ids"], name="release", help={**IDS, "all": "all that are on hold"})
def queue_release(c: Any, ids: str | None = None, all: bool = False) -> None:
    """Deliver mail that was on hold.

    Example: fab -H mail queue.release --all
    """
    from mailops import queue

    queue.change(c, "queue.release", ids, "all" if all else "")


@task(name="add", help={"email": "the whole address", **GENERATE, **WRITE, **JSON})
def user_add(c: Any, email: str, generate: bool = False, write: bool = False, json: bool = False) -> None:
    """Add a user; the password is asked for.

    Example: fab user.add ann@example.test --generate
    """
    from mailops import accounts

    accounts.run(c, ["adduser", accounts.whole(email)], json, write=write, generate=generate)


@task(name="rm", help={"email": "the whole address", **WRITE, **YES, **JSON})
def user_rm(c: Any, email: str, write: bool = False, yes: bool = False, json: bool = False) -> None:
    """Remove a user; the mail stays in the vault.

    Example: fab user.rm ann@example.test
    """
    from mailops import accounts

    accounts.run(c, ["rmuser", email], json, write=write, yes=yes)


@task(name="ls", help={"domain": "only this domain", **JSON})
def user_ls(c: Any, domain: str = "", json: bool = False) -> None:
    """List users, all or of a domain.

    Example: fab user.ls --domain example.test
    """
    from mailops import accounts

    accounts.run(c, ["lsuser", *([domain] if domain else [])], json)


@task(name="passwd", help={"email": "the whole address", **GENERATE, **YES, **JSON})
def user_passwd(c: Any, email: str, generate: bool = False, yes: bool = False, json: bool = False) -> None:
    """Change a user's password, at once.

    The new one is asked for, without echo.

    Example: fab user.passwd ann@example.test
    """
    from mailops import accounts

    accounts.run(c, ["passwd", email], json, yes=yes, generate=generate)


@task(name="disable", help={"email": "the whole address", **YES, **JSON})
def user_disable(c: Any, email: str, yes: bool = False, json: bool = False) -> None:
    """Keep a user from logging in; mail still arrives.

    Example: fab user.disable ann@example.test
    """
    from mailops import accounts

    accounts.run(c, ["disable", email], json, yes=yes)


@task(name="enable", help={"email": "the whole address", **JSON})
def user_enable(c: Any, email: str, json: bool = False) -> None:
    """Let a disabled user log in again.

    Example: fab user.enable ann@example.test
    """
    from mailops import accounts

    accounts.run(c, ["enable", email], json)


@task(
    name="add",
    help={"src": "the address that is written to, or @domain", "dst": "where its mail goes", **WRITE, **JSON},
)
def alias_add(c: Any, src: str, dst: str, write: bool = False, json: bool = False) -> None:
    """Add an alias.

    Example: fab alias.add sales@example.test user1@example.test
    """
    from mailops import accounts

    accounts.run(c, ["addalias", src, dst], json, write=write)


@task(
    name="rm",
    klass=WordTask,
    positional=["src", "dst"],
    help={
        "src": "an alias address, or the number that alias.ls shows",
        "dst": "the one destination to remove; all of them if left out",
        "left": "in place of both: the aliases that left hosts.toml",
        **WRITE,
        **YES,
        **JSON,
    },
)
def alias_rm(  # noqa: PLR0913, PLR0917 - words and flags of a command line
    c: Any,
    src: str | None = None,
    dst: str | None = None,
    left: bool = False,
    write: bool = False,
    yes: bool = False,
    json: bool = False,
) -> None:
    """Remove an alias, by its address or by its number.

    Example: fab alias.rm sales@example.test
    """
    from mailops import accounts

    accounts.run(c, accounts.aliases(src, dst, left), json, write=write, yes=yes)


@task(name="ls", help={"domain": "only this domain", **JSON})
def alias_ls(c: Any, domain: str = "", json: bool = False) -> None:
    """List aliases, all or of a domain.

    Example: fab alias.ls --json
    """
    from mailops import accounts

    accounts.run(c, ["lsalias", *([domain] if domain else [])], json)


@task(name="add", help={"domain": "a domain whose mail this server takes", **WRITE, **JSON})
def domain_add(c: Any, domain: str, write: bool = False, json: bool = False) -> None:
    """Add a domain.

    Example: fab domain.add third.test
    """
    from mailops import accounts

    accounts.run(c, ["adddom", domain], json, write=write)


@task(name="rm", help={"domain": "a domain that mailcfg knows", **WRITE, **YES, **JSON})
def domain_rm(c: Any, domain: str, write: bool = False, yes: bool = False, json: bool = False) -> None:
    """Remove a domain; its mail stays in the vault.

    Example: fab domain.rm third.test
    """
    from mailops import accounts

    accounts.run(c, ["rmdom", domain], json, write=write, yes=yes)


@task(name="ls", help=JSON)
def domain_ls(c: Any, json: bool = False) -> None:
    """List the domains.

    Example: fab domain.ls
    """
    from mailops import accounts

    accounts.run(c, ["lsdom"], json)


@task(name="ls", help=JSON)
def dkim_ls(c: Any, json: bool = False) -> None:
    """Show the DKIM keys and the TXT records to publish.

    Example: fab dkim.ls
    """
    from mailops.dkim import keys

    keys.ls(c, json)


@task(
    name="prepare", optional=["selector"], help={"selector": "the next selector; the next year and month if left out"}
)
def dkim_prepare(c: Any, selector: str = "") -> None:
    """Make the next DKIM keys, for early publication.

    Example: fab dkim.prepare --selector 202701
    """
    from mailops.dkim import keys

    keys.prepare(c, selector or None)


@task(name="rotate", help={"force": "switch although a name server does not serve the new key"})
def dkim_rotate(c: Any, force: bool = False) -> None:
    """Sign with the next DKIM keys, once DNS serves them.

    Example: fab dkim.rotate
    """
    from mailops.dkim import keys

    keys.rotate(c, force)


@task(name="up", help={"remove": "delete machines that are not as hosts.toml says, without asking"})
def lab_up(c: Any, remove: bool = False) -> None:
    """Boot a replica of the site on this computer.

    Debian machines with a DNS of their own, and one machine that plays the outside world. One that hosts.toml does not
    have like this any more goes with the mail on it: it asks before that.

    Example: fab lab.up
    """
    from mailops.lab import commands

    commands.up(remove)


@task(name="down")
def lab_down(c: Any) -> None:
    """Stop the replica's machines and delete them.

    Example: fab lab.down
    """
    from mailops.lab import commands

    commands.down()


@task(name="status", help=JSON)
def lab_status(c: Any, json: bool = False) -> None:
    """List the replica's machines.

    Example: fab lab.status
    """
    from mailops.lab import commands

    commands.status(json)


@task(name="shell", help={"name": "a machine that lab.status shows"})
def lab_shell(c: Any, name: str) -> None:
    """Open a root shell in a machine of the replica.

    Example: fab lab.shell mail
    """
    from mailops.lab import commands

    commands.shell(name)


@task(name="reboot", help={"name": "a machine that lab.status shows"})
def lab_reboot(c: Any, name: str) -> None:
    """Reboot a machine of the replica, and await it.

    Example: fab lab.reboot mail
    """
    from mailops.lab import commands

    commands.reboot(name)


@task(name="publish")
def lab_publish(c: Any) -> None:
    """Put the DKIM records into the replica's DNS.

    Example: fab lab.publish
    """
    from mailops.lab import commands

    commands.publish(c)


def group(name: str, *tasks: Any, default: Any = None) -> Collection:
    """`default` is what the group's own name does."""
    collection = Collection(name)
    for entry in tasks:
        collection.add_task(entry, default=entry is default)
    return collection


namespace = Collection(
    bootstrap,
    plan,
    push,
    generations,
    rollback,
    diff,
    drift,
    history,
    unlock,
    lock,
    status,
    trace,
    tunnel,
    trust,
    mailcfg,
    group("queue", queue_ls, queue_show, queue_flush, queue_rm, queue_hold, queue_release, default=queue_ls),
    group("user", user_add, user_rm, user_ls, user_passwd, user_disable, user_enable),
    group("alias", alias_add, alias_rm, alias_ls),
    group("domain", domain_add, domain_rm, domain_ls),
    group("dkim", dkim_ls, dkim_prepare, dkim_rotate),
    group("lab", lab_up, lab_down, lab_status, lab_shell, lab_reboot, lab_publish),
)
