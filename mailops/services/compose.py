"""Services -> manifest: what each brings, one after the other in the order of the role."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from mailops.errors import BAD_INPUT, MailopsError
from mailops.manifest import Directory, File, Manifest
from mailops.roles import ROLES
from mailops.services import render, tied
from mailops.services.names import names
from mailops.services.service import LOCAL, PLAIN, At, Service
from mailops.site.model import Host, Secret, Site

if TYPE_CHECKING:
    from mailops.remote.shared.calls import Facts


def manifest_for(site: Site, host: Host, facts: Facts, secrets: Callable[[Secret], str]) -> Manifest:
    """What `host` should be: the same site, host and facts give the same bytes.

    `facts` is what the machine says of itself: "release" (12 or 13, of Debian) and, for a mailnull machine,
    "mailhost_certificate" (PEM text, "" when not known). `secrets` gives a password for its reference.
    Raises `MailopsError` for a role that cannot be made, or an account that is not there.
    """
    at = At(site.seen_by(host), host, facts, secrets)
    services = {name: _service(name, at) for name in ROLES[host.role].services}
    if not services:
        raise MailopsError(f"{host.name}: the role {host.role} is not made by mailops yet", code=BAD_INPUT)
    parts = services.values()
    vault = next((part.vault for part in parts if part.vault), None)
    directories = [item for part in parts for item in part.directories]
    private = tuple(item for item in directories if vault and f"{item.path}/".startswith(f"{vault.mountpoint}/"))
    return Manifest(
        role=host.role,
        hostname=at.site.name_of(host),
        release=at.release,
        packages=tuple(dict.fromkeys(name for part in parts for name in part.packages)),
        sources=tuple(item for part in parts for item in part.sources),
        debconf=tuple(item for part in parts for item in part.debconf),
        users=tuple(item for part in parts for item in part.users),
        directories=(*(item for item in directories if item not in private), *_places_for_additions(parts)),
        vault=vault._replace(directories=private) if vault else None,
        accounts=next((part.accounts for part in parts if part.accounts), None),
        dkim=next((part.dkim for part in parts if part.dkim), None),
        certificates=tuple(item for part in parts for item in part.certificates),
        files=_files(services, at),
        services=tuple(item for part in parts for item in tied.marked(part.units, part.ties)),
        probes=tuple(item for part in parts for item in part.probes),
    )


def _service(name: str, at: At) -> Service:
    made: Service = import_module(f"mailops.services.{name}").service(at)
    return made


def _files(services: Mapping[str, Service], at: At) -> tuple[File, ...]:
    """Those of the templates and the services' own, by path."""
    ties = [tie for part in services.values() for tie in part.ties]
    known = names(at) | tied.names(ties)
    for part in services.values():
        known |= part.names
    files = [file for part in services.values() for file in part.files]
    files += tied.files(ties, at.site.vault, known.get("queue_directory", ""))
    for name, part in services.items():
        folders = (f"{name}/any", f"{name}/debian{at.release}")
        files += [_file(part, path, content) for path, content in render.tree(folders, known).items()]
    return tuple(sorted(files, key=lambda file: file.path))


def _file(part: Service, path: str, content: bytes) -> File:
    for begin, place in part.places.items():
        if path.startswith(begin):
            path = place + path.removeprefix(begin)
    folders = (found for begin, found in part.attributes.items() if begin.endswith("/") and path.startswith(begin))
    mode, owner, group = part.attributes.get(path) or next(folders, PLAIN)
    local, merge = part.additions.get(path, ("", "append"))
    return File(path, content, mode, owner, group, local=local, merge=merge)


def _places_for_additions(parts: Iterable[Service]) -> tuple[Directory, ...]:
    """The folders in which an administrator puts additions; what is in them is theirs."""
    folders = dict.fromkeys(os.path.dirname(local) for part in parts for local, _ in part.additions.values())
    return tuple(Directory(folder, mend=False) for folder in (LOCAL, *folders))
