"""What a machine's mail system was before it is ours: files that we replace, mailboxes, queues that lie elsewhere.

Nothing of it is taken over or removed. Who sets up mailops there is told where it is, by `plan` and `bootstrap`.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
from typing import Any

from ..shared.errors import AgentError
from ..system import dpkg, files
from ..system.shell import run
from . import generations

SPOOL = "/var/spool/postfix"
MAIL = "/var/mail"
ALIASES = "/etc/aliases"
FORWARDS = ("/root/.forward", "/home/*/.forward")
# Where Dovecot keeps mail: 2.3, and what 2.4 has made of it.
PLACES = ("mail_location", "mail_driver", "mail_path", "mail_inbox_path")


def told(wanted: dict[str, Any], displaced: bool = False) -> list[str]:
    """A line for each thing; none where we have been before, but for mailboxes of a server that was `displaced` now."""
    if not os.path.exists(generations.ACTIVE):
        return [*_files(wanted), *_redirects(), *_mailboxes([*_spool(), *_homes(wanted)]), *_queues()]
    return _mailboxes(_spool()) if displaced else []


def _files(wanted: dict[str, Any]) -> list[str]:
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


def _homes(wanted: dict[str, Any]) -> list[str]:
    """Where its configuration, which is not ours yet, has mail elsewhere."""
    places = []
    if dpkg.version("postfix") and (home := _said("postconf", "-hx", "home_mailbox")):
        places.append(f"~/{home} of Unix users")
    if "dovecot-core" in wanted["packages"] and dpkg.version("dovecot-core"):
        said = dict(line.split(" = ", 1) for line in _said("doveconf", "-n").splitlines() if " = " in line)
        if settings := [f"{name} = {said[name]}" for name in PLACES if said.get(name)]:
            places.append(f"Dovecot's {', '.join(settings)}")
    return places


def _queues() -> list[str]:
    """Of Postfix, where they are not in Debian's place, from which ours goes on."""
    if not dpkg.version("postfix"):
        return []
    lines = []
    for conf in ["/etc/postfix", *_said("postconf", "-hx", "multi_instance_directories").replace(",", " ").split()]:
        folder = _said("postconf", "-c", conf, "-hx", "queue_directory")
        names = ("deferred", "active", "incoming", "hold", "maildrop")
        found = [
            path for name in names for path in glob.glob(f"{folder}/{name}/**", recursive=True) if _is_message(path)
        ]
        if folder and found and os.path.realpath(folder) != os.path.realpath(SPOOL):
            count = f"{len(found)} messages wait" if found[1:] else "1 message waits"
            again = f"as root there, while its Postfix still runs: postqueue -c {conf} -f"
            lines.append(f"{count} in {folder}, where ours does not look; {again}")
    return lines


def _is_message(path: str) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


def _said(*command: str) -> str:
    with contextlib.suppress(AgentError):  # it may be broken, or hang
        return run(*command, check=False, timeout=10).stdout.strip()
    return ""
