"""Which machines a task is for, and doing it on each of them."""

from __future__ import annotations

import getpass
import json
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from mailops import needed, secrets
from mailops.errors import BAD_INPUT, DISTRUSTED, MailopsError
from mailops.roles import ROLES, having, is_central, runs
from mailops.screen import paint
from mailops.screen.report import Report
from mailops.site import place, reader
from mailops.site.model import Host, Site
from mailops.ssh import machine as machines
from mailops.ssh.connection import login
from mailops.ssh.machine import Machine

Result = TypeVar("Result", bound=Mapping[str, Any])


def load() -> Site:
    """The site of this folder, or of $MAILOPS_SITE; MailopsError lists everything that is wrong with it."""
    path = place.find()
    state = path.stat()
    return _load(path, state.st_ino, state.st_mtime_ns, state.st_size)


@cache
def _load(path: Path, *state: int) -> Site:
    return reader.load(path)


def begin(config: Any, roles: tuple[str, ...], task: str) -> None:
    """Begin to connect to the first machine of a task that is for `roles`. MailopsError as `load` and `select`.

    But not before its passwords are there: whoever is asked may take longer than a machine waits for a login.
    """
    site = load()
    hosts = _selected(config, site, roles)
    needed.fetch(_needs(config, site, task, hosts))
    if hosts[0].host_key:  # else nothing is said to it
        machines.begin(site, hosts[0], config)


def _needs(config: Any, site: Site, task: str, hosts: list[Host]) -> list[needed.Need]:
    asked = list(hosts)
    if task in needed.CONVERGE and any(runs(host.role, "nullclient") for host in hosts):
        asked += [host for host in site.hosts.values() if is_central(host.role)]  # for its certificate
    sudo = [host for host in asked if host.sudo_pw and login(host, config) != "root"]
    return needed.of(task, site, hosts, sudo)


def select(c: Any, site: Site, roles: tuple[str, ...]) -> list[Host]:
    """The hosts of `-H`, or every host with one of `roles`, in the order in which they depend on each other."""
    return _selected(c.config, site, roles)


def _selected(config: Any, site: Site, roles: tuple[str, ...]) -> list[Host]:
    names = [name.strip() for name in str(config.get("mailops_hosts") or "").split(",") if name.strip()]
    for name in names:
        if name not in site.hosts:
            known = ", ".join(site.hosts) or "none"
            raise MailopsError(f"{site.path.name} has no host {name!r}", f"it has: {known}", BAD_INPUT)
        if site.hosts[name].role not in roles:
            role, wanted = site.hosts[name].role, " or ".join(roles)
            raise MailopsError(f"{name} is a {role}; this task is for a {wanted}", code=BAD_INPUT)
    hosts = [site.hosts[name] for name in names] or [h for h in site.hosts.values() if h.role in roles]
    if not hosts:
        wanted = " or ".join(roles)
        raise MailopsError(f"{site.path.name} has no {wanted}", f'add [hosts.NAME] with role = "{roles[0]}"', BAD_INPUT)
    return sorted(hosts, key=lambda host: ROLES[host.role].order)


def mailhost(c: Any, site: Site) -> Machine:
    """The one mailhost of the site, for the tasks that speak to it alone."""
    host = select(c, site, having("vault"))[0]
    return machine(c, site, host)


def machine(c: Any, site: Site, host: Host, quiet: bool = False) -> Machine:
    """A machine whose progress is reported on stdout, or on stderr where stdout is for JSON."""
    return Machine(site, host, Report(host.name, sys.stderr if quiet else sys.stdout), c.config)


def each(  # noqa: PLR0913, PLR0917
    c: Any,
    roles: tuple[str, ...],
    work: Callable[[Machine], Result],
    as_json: bool = False,
    show: Callable[[str, Result], None] | None = None,
    task: str = "",
) -> None:
    """Do `work` on each selected machine; one that fails does not keep the others waiting.

    The passwords that all of them need for `task` are fetched first.
    A result is shown as soon as it is there or, with `as_json`, printed at the end with all the others.
    Raises MailopsError at the end, with the code of the first failure; but with 6 where a machine may be compromised.
    """
    site = load()
    results: dict[str, Mapping[str, Any]] = {}
    failures: list[MailopsError] = []
    hosts = select(c, site, roles)
    needed.fetch(_needs(c.config, site, task, hosts))
    for host in hosts:
        try:
            with machine(c, site, host, quiet=as_json) as target:
                results[host.name] = result = work(target)
            if show and not as_json:
                with redirect_stdout(StringIO()) as shown:
                    show(host.name, result)
                print(paint.page(secrets.mask(shown.getvalue()), sys.stdout), end="", flush=True)
            if unwell := ailing(host.name, result):
                raise Unwell(unwell)
        except Unwell as error:  # what it did is done, and stays told
            failures.append(error)
            if len(hosts) > 1:
                print(secrets.mask(f"{host.name}  ✗ {error}"), file=sys.stderr)
        except MailopsError as error:
            failures.append(error)
            results[host.name] = {"error": error.message, "hint": error.hint, "code": error.code}
            if len(hosts) > 1:
                print(secrets.mask(f"{host.name}  ✗ {error}"), file=sys.stderr)
    if as_json:
        print(json.dumps(secrets.masked(results), indent=2))
    if failures:
        if len(hosts) == 1 and not as_json:
            raise failures[0]
        codes = [error.code for error in failures]
        code = DISTRUSTED if DISTRUSTED in codes else codes[0]
        raise MailopsError(f"{len(failures)} of {len(hosts)} machines failed", code=code)


class Unwell(MailopsError):
    """A run was done, and leaves a machine on which mail does not work as it should."""


def ailing(name: str, result: Mapping[str, Any]) -> str:
    """What a run has found wrong on a machine when all was done; "" for nothing."""
    found = [f"✗ {what}: {told(name, said)}" for what, said in result.get("unwell", {}).items()]
    return "\n  ".join([f"{name}: the run is done, and mail is not well:", *found]) if found else ""


def told(name: str, said: str) -> str:
    """What a machine says to do, for the person who types it: it does not know its name in hosts.toml."""
    return said.replace("-H NAME", f"-H {name}")


def who() -> str:
    """The person at this laptop, for the machine's lock and history."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
