"""A machine that was taken over: it has the right host key and speaks the agent's language, and says what it likes.

`machines` puts it in the place of the network; all that the laptop sends is kept, to be searched for secrets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mailops import bootstrap, fleet
from mailops.ssh import protocol, wire

Line = bytes | Exception
Script = Callable[[str], Iterable[Line]]  # what a machine says to a call of that name

SITE = """\
domain = "example.test"
admin_email = "admin@example.test"
mail_domains = ["example.test"]
mail_users = [
    { email = "admin@example.test", pw = { env = "TRUST_ADMIN" } },
    { email = "relay@example.test", pw = { env = "TRUST_RELAY" } },
    { email = "other@example.test", pw = { env = "TRUST_OTHER" } },
]
cryptdir_pw = { env = "TRUST_VAULT" }
dkim_selector = "202611"
dkim_selector_next = "202612"

[hosts.mail]
role = "mailhost"
address = "192.0.2.25"
sudo_pw = { env = "TRUST_SUDO_MAIL" }

[hosts.backup]
role = "mailnull"
address = "192.0.2.26"
sudo_pw = { env = "TRUST_SUDO_BACKUP" }

[hosts.web]
role = "mailnull"
address = "192.0.2.27"

[hosts.web.override]
relay_email = "other@example.test"
"""
SECRETS = {
    name: f"secret-of-{name.lower()}-{number}"
    for number, name in enumerate(
        ("TRUST_ADMIN", "TRUST_RELAY", "TRUST_OTHER", "TRUST_VAULT", "TRUST_SUDO_MAIL", "TRUST_SUDO_BACKUP")
    )
}
PEM = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQqF2bW==\n-----END CERTIFICATE-----\n"
HELLO = b'{"t":"hello"}\n'


def says(**event: Any) -> bytes:
    return json.dumps(event).encode() + b"\n"


def asks(what: Any, data: Any) -> bytes:
    return says(t="ask", what=what, data=data)


def result(data: Any) -> bytes:
    return says(t="result", data=data)


class Channel:
    """As Paramiko's, as far as it is used."""

    closed = False

    def __init__(self, said: Iterable[Line], sent: bytearray, stderr: bytes = b"") -> None:
        self._said, self._sent, self._stderr = iter(said), sent, stderr
        self._rest = b""

    def recv(self, size: int) -> bytes:
        if not self._rest:
            item = next(self._said, b"")
            if isinstance(item, Exception):
                raise item
            self._rest = item
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def recv_stderr(self, size: int) -> bytes:
        piece, self._stderr = self._stderr[:size], self._stderr[size:]
        return piece

    def send(self, data: bytes) -> int:
        self._sent += data
        return len(data)

    sendall = send

    def settimeout(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        pass

    def get_transport(self) -> Any:
        return SimpleNamespace(join=lambda _: None, is_active=lambda: True, get_exception=lambda: None)


class Site:
    """A site on paper. `scripts` has what each of its machines says; `sent` what each of them was sent."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "hosts.toml"
        self.cache = folder / "cache"
        self.scripts: dict[str, Script] = {}
        self.sent: dict[str, bytearray] = {}
        self.stderr = b""
        self.file.write_text(SITE)

    def start(self, transport: Any, command: str) -> Channel:
        found = re.search(r"agent-\w+ \d+ (\w+)", command)
        assert found
        sent = self.sent.setdefault(transport.name, bytearray())
        return Channel(self.scripts[transport.name](found[1]), sent, self.stderr)

    def cached(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.cache.rglob("facts/*")}

    def context(self, hosts: str) -> Any:
        return SimpleNamespace(config={"mailops_hosts": hosts})


class Connection:
    user = "root"

    def __init__(self, site: Any, host: Any, config: Any = None) -> None:
        self.transport = SimpleNamespace(name=host.name, is_active=lambda: True)

    def begin(self) -> None:
        pass

    begin_login = close = begin

    def await_login(self) -> bool:
        return True


def machines(monkeypatch: Any, folder: Path) -> Site:
    site = Site(folder)
    monkeypatch.setenv("MAILOPS_SITE", str(site.file))
    monkeypatch.setenv("XDG_CACHE_HOME", str(site.cache))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    fleet._load.cache_clear()
    monkeypatch.setattr(bootstrap.Rendering, "certificates", {})
    monkeypatch.setattr("mailops.ssh.machine.PinnedConnection", Connection)
    monkeypatch.setattr(wire, "start", site.start)
    return site


def small_bounds(monkeypatch: Any) -> None:
    """What is endless shows sooner."""
    for name, value in {"EVENTS": 300, "SAYS": 30, "NOISE": 1 << 12, "LONG": 1 << 18, "SHORT": 1 << 17}.items():
        monkeypatch.setattr(protocol, name, value)


def endless(line: bytes) -> Iterator[bytes]:
    while True:
        yield line


# What honest machines answer, by call or task.

FACTS = {"release": 13, "mailhost_certificate": ""}
ENTRY = {"path": "/etc/x", "secret": False, "before": "YQ==", "after": "Yg==", "was": "0644 root:root"}
ENTRY |= {"now": "0600 root:root", "state": "edited"}
BY = {"who": "ann@laptop", "from": "192.0.2.1", "task": "push"}
RUN = {"changes": {"files": ["/etc/x"]}, "generation": 2}
DKIM = {"domain": "example.test", "selector": "202612", "name": "202612._domainkey.example.test"}
DKIM |= {"value": f"v=DKIM1; k=rsa; p={'A' * 200}", "path": "/vault/dkim/example.test.202612.key"}
WAITING = {"id": "4D37E2B2092", "queue": "deferred", "since": 1.0, "size": 512, "sender": "a@example.test", "count": 1}
WAITING |= {"recipients": ["b@elsewhere.test"], "reason": "connection refused", "reasons": 1}
JUDGED = {"action": "no action", "score": 1.5, "limit": 15.0, "signed": "example.test:s=x", "forced": ""}
JUDGED |= {"symbols": [{"name": "R_SPF_FAIL", "score": 1.0, "words": "SPF fails"}]}
DELIVERY = {"to": "b@example.test", "orig": "", "relay": "mx", "status": "sent", "text": "250 ok", "queued": "ABCDE2"}
DELIVERY |= {"when": 2.0, "tries": 1, "did": ["in INBOX"], "advice": ""}
STORY = {"id": "ABCDE1", "when": 1.0, "message_id": "<x@y>", "sender": "a@example.test", "size": 5, "filter": JUDGED}
STORY |= {"came": {"door": "port 25", "host": "mx[192.0.2.1]", "login": ""}, "to": [DELIVERY], "recipients": 1}
STORY |= {"next": ["ABCDE2"], "refused": [{"to": "c@example.test", "text": "550 no", "advice": "fab user.ls"}]}
STORY |= {"times": 1, "removed": "done", "held": False}
CHANGED = {"chosen": 1, "done": 1, "missing": [], "agreed": True}
HONEST: dict[str, dict[str, Any]] = {
    "queue": {"count": 1, "held": 0, "now": 2.0, "messages": [WAITING]},
    "trace": {"stories": [STORY], "count": 1, "begins": 1.0, "looked_from": None, "locked": False},
    "queue.flush": {"count": 1, "held": 0},
    "queue.show": {"now": 2.0, "message": WAITING, "head": ["Subject: x"], "body": ["Hello."], "more": True},
    "queue.rm": CHANGED,
    "queue.hold": CHANGED,
    "queue.release": CHANGED,
    "plan": {"changes": {"files": ["/etc/x"]}, "files": [ENTRY], "edited": [ENTRY], "refused": ""}
    | {"interrupted": False, "locked": False, "new_vault": False},
    "bootstrap": RUN | {"locked": False},
    "push": RUN | {"locked": False},
    "rollback": RUN | {"locked": False},
    "unlock": RUN | {"changed": True},
    "lock": RUN | {"changed": True},
    "status": {"state": "up", "role": "mailhost", "hostname": "mail.example.test", "release": 13, "queue": 0}
    | {"vault": {"mountpoint": "/vault", "open": True, "free": 1 << 30}, "services": {"postfix.service": "active"}}
    | {"probes": {"smtp": ""}, "uptime": 10.5, "drift": ["/etc/x"], "busy": "", "interrupted": False, "unadvised": []}
    | {"generation": 1, "applied": 1.0, "now": 2.0, "certificate": PEM}
    | {
        "versions": {"rspamd": "3.12.1-1"},
        "packages": ["dovecot-core is half-configured"],
        "torn": ["dovecot-core"],
        "sources": ["rspamd from https://x.test/"],
        "held_packages": ["rspamd"],
    }
    | {"upgraded": "this machine runs Debian 13, and the configuration is for Debian 12"}
    | {
        "certificate_fault": ["the certificate for mail.example.test is to be made anew"],
        "accounts": ["a@example.test left hosts.toml; next: fab user.rm a@example.test"],
        "reboot": ["the kernel x"],
    }
    | {"certificates": [{"names": ["mail.example.test"], "ends": 3.0}], "able": ["nginx.service"]}
    | {"oldest": {"since": 1.0, "reason": "connection refused"}},
    "certificate": {"certificate": PEM},
    "history": {
        "entries": [
            BY
            | {"when": 1.0, "outcome": "done", "changed": {"files": ["/etc/x"], "accounts": 2}}
            | {"revision": "abc", "seconds": 1.5, "why": "", "generation": 2}
        ]
    },
    "generations": {
        "active": 1,
        "generations": [BY | {"number": 1, "when": 1.0, "revision": "", "changed": ["/etc/x"], "proven": True}],
    },
    "diff": {"from": 1, "to": 2, "files": [ENTRY]},
    "drift": {"files": [ENTRY], "unpushed": ["/etc/mailops/local/x"], "locked": False, "generation": 1},
    "mailcfg": {"code": 0, "lines": ["added"], "rows": [{"id": 1, "src": "a@example.test"}], "error": "", "hint": ""}
    | {"removed": [["a@example.test", "b@example.test"]]},
    "tunnel": {"password": "0123456789" * 4},
    "dkim": {"keys": [DKIM], "made": [DKIM["name"]]},
}


def honest(task: str) -> Script:
    """A machine that does as it is told; `task` is that of a `converge` or of a `queue`."""

    def script(call: str) -> Iterator[bytes]:
        yield HELLO
        if call == "converge":
            yield asks("manifest", FACTS)
        yield result(HONEST[task if call in ("converge", "queue") else call])

    return script
