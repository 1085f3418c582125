"""What a machine's mail system was before it is ours: files that we replace, mailboxes, queues that lie elsewhere.

Nothing of it is taken over or removed. Who sets up mailops there is told where it is, by `plan` and `bootstrap`.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
from typing import TYPE_CHECKING

from ..services import daemons
from ..system import dpkg, files
from . import generations

if TYPE_CHECKING:
    from ..shared.forms import Manifest

MAIL = "/var/mail"
ALIASES = "/etc/aliases"
FORWARDS = ("/root/.forward", "/home/*/.forward")


def told(wanted: Manifest, displaced: bool = False) -> list[str]:
    """A line for each thing; none where we have been before, but for mailboxes of a server that was `displaced` now."""
    if not os.path.exists(generations.ACTIVE):
        ours = [daemons.of(service["unit"]) for service in reversed(wanted["services"])]  # the way that mail takes
        homes = [place for daemon in ours if daemon.mailboxes for place in daemon.mailboxes()]
        queues = [line for daemon in ours if daemon.queues for line in daemon.queues()]
        return [*_files(wanted), *_redirects(), *_mailboxes([*_spool(), *homes]), *queues]
    return _mailboxes(_spool()) if displaced else []


def _files(wanted: Manifest) -> list[str]:
    """Files that somebody has made or changed, and where they are kept, as the origins of their paths."""
    fresh = dpkg.conffiles()
    lines = []
    for file in wanted["files"]:
        path = file["path"]
        if not os.path.isfile(path) or os.path.islink(path):
            continue
        content = files.read(path)
        as_it_came = fresh.get(path) == hashlib.md5(content, usedforsecurity=False).hexdigest()
        if not as_it_came and files.digest(content) != file["sha256"]:
            kept = f"{generations.OBJECTS}/{files.digest(content)}"
            lines.append(f"{path} was here before: it is replaced, and kept there as {kept}")
    if lines:
        lines.append("what of it is to stay belongs into hosts.toml or /etc/mailops/local")
    return lines


def _redirects() -> list[str]:
    """Whose mail goes elsewhere: to a program, a file, another mailbox."""
    names = []
    with contextlib.suppress(FileNotFoundError), open(ALIASES, encoding="utf-8", errors="replace") as file:
        lines = [line.split("#")[0].partition(":") for line in file if line[:1] not in " \t#"]
        leads = {name.strip().strip('"').lower(): end.strip().lower() for name, _, end in lines if name.strip()}
        names = sorted(name for name, end in leads.items() if end not in leads.keys() | {"root"})
    places = [f"{ALIASES} ({', '.join(names[:10])})"] if names else []
    places += sorted(path for pattern in FORWARDS for path in glob.glob(pattern))
    now = "that ends, and all mail for this machine's accounts is the administrator's; see mail_aliases in hosts.toml"
    return [f"mail is sent on by {'; '.join(places)}: {now}"] if places else []


def _mailboxes(places: list[str]) -> list[str]:
    left = "mailops leaves it there, and shows it to nobody; who wants it back copies it over IMAP"
    return [f"mail from before may be in {'; '.join(places)}: {left}"] if places else []


def _spool() -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        names = [entry.name for entry in os.scandir(MAIL) if entry.is_dir() or entry.stat().st_size]
        return [f"{MAIL} ({', '.join(sorted(names)[:10])})"] if names else []
    return []
