"""What ssh_config(5) says of a host: the files are read as OpenSSH reads them, line by line, for one name.

Paramiko's own reader ends in an error at much that OpenSSH takes, and passes over `Include`. Here a line that means
nothing to us is passed over. Only a value that we need, and that cannot be, is an error, and names its line.
"""

from __future__ import annotations

import glob
import ipaddress
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mailops.errors import BAD_INPUT, MailopsError
from mailops.ssh import ssh_match

DEFAULTS = ("~/.ssh/config", "/etc/ssh/ssh_config")
DEEPEST = 16  # files that include each other, as OpenSSH has it
NEEDED = (
    *("hostname", "user", "port", "identityfile", "connecttimeout", "proxyjump", "proxycommand"),
    *("canonicalizehostname", "canonicaldomains", "canonicalizemaxdots", "canonicalizefallbacklocal"),
)
WHOLE = ("proxycommand",)  # the rest of the line, as it stands
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
ENOUGH = 86400  # seconds: more is for ever, and too much for a socket
LINE = re.compile(r"(\w+)(?:\s*=\s*|\s+|$)(.*)")


class Value(NamedTuple):
    """What stands in a line, and where that is."""

    text: str
    where: str


class Answer(NamedTuple):
    """How a host is reached; empty and 0 for what the files do not say. `jumps` are the hops of ProxyJump, in order."""

    hostname: str
    user: str
    port: int
    identities: list[str]
    timeout: int
    jumps: list[str]
    proxy: str
    files: list[str]


def lookup(name: str, user: str = "", address: str = "", port: int = 0, files: tuple[str, ...] = DEFAULTS) -> Answer:
    """What the files say of `name`; `user`, `address` and `port` are what hosts.toml says, which wins.

    MailopsError (2) for a file that was asked for and is not there, and for a value that cannot be.
    """
    search = _Search(name, user, files)
    search.read()
    if not address:
        search.canonicalize()
    if search.wants_final:
        search.read_again()
    return search.answer(address, port)


class _Search:
    def __init__(self, name: str, user: str, files: tuple[str, ...]) -> None:
        self.name, self.host, self.paths = name, name, files
        self.fixed_user = user
        self.found: dict[str, Value] = {}
        self.identities: list[Value] = []
        self.files: list[str] = []
        self.final = self.wants_final = False

    def read(self) -> None:
        """All files once. What was found before stays: the first value counts."""
        for path in self.paths:
            whole = os.path.expanduser(path)
            if path not in DEFAULTS and (os.path.isdir(whole) or not os.access(whole, os.R_OK)):
                raise MailopsError(f"there is no ssh_config {path}, or none that you may read", "", BAD_INPUT)
            self._file(whole, True, 0)

    def read_again(self) -> None:
        """For what is said of the name that was found."""
        self.final = True
        self.found.setdefault("hostname", Value(self.hostname, ""))
        self.read()

    def _file(self, path: str, active: bool, depth: int) -> None:
        if path not in self.files:
            self.files.append(path)
        applies = active
        for where, key, rest in _lines(path):
            if key == "host":
                applies = active and ssh_match.names(words(rest), self.host)
            elif key == "match":
                applies = active and self._matches(words(rest), where)
            elif key == "include" and depth < DEEPEST:
                for pattern in words(rest):
                    for included in sorted(glob.glob(_beside(path, pattern))):
                        self._file(included, applies, depth + 1)
            elif applies and key in NEEDED:
                self._take(key, rest, where)

    def _matches(self, criteria: list[str], where: str) -> bool:
        self.wants_final |= "final" in map(str.lower, criteria)
        return ssh_match.matches(criteria, self, where)

    def _take(self, key: str, rest: str, where: str) -> None:
        given = words(rest)
        if not given:
            return
        text = rest.strip() if key in WHOLE else " ".join(given) if key == "canonicaldomains" else given[0]
        if key == "identityfile":
            if text not in (value.text for value in self.identities):
                self.identities.append(Value(text, where))
        elif not (key.startswith("proxy") and {"proxyjump", "proxycommand"} & self.found.keys()):
            self.found.setdefault(key, Value(text, where))

    def text(self, key: str, default: str = "") -> str:
        return self.found[key].text if key in self.found else default

    @property
    def user(self) -> str:
        """Whoever logs in: root, where nobody says otherwise."""
        return self.fixed_user or self.text("user") or "root"

    @property
    def hostname(self) -> str:
        return ssh_match.expand(self.text("hostname", "%h"), {"h": self.host})

    def canonicalize(self) -> None:
        """The name with a domain of CanonicalDomains behind it, the first that the resolver knows."""
        wanted = self.text("canonicalizehostname").lower()
        proxied = self.text("proxyjump", "none") != "none" or self.text("proxycommand", "none") != "none"
        if wanted not in ("yes", "always") or (proxied and wanted == "yes"):
            return
        self.wants_final = True
        name = self.hostname
        if _is_address(name) or name.count(".") > self._number("canonicalizemaxdots", 1, 0, 1000):
            return
        domains = self.text("canonicaldomains", "none")
        for domain in domains.split() if domains != "none" else []:
            if _is_known(f"{name}.{domain}"):
                self.host = f"{name}.{domain}"
                self.found["hostname"] = Value(self.host, self.found["canonicaldomains"].where)
                return
        if self.text("canonicalizefallbacklocal").lower() == "no":
            where = self.found["canonicalizefallbacklocal"].where
            hint = f"give {self.name} an address in hosts.toml"
            raise MailopsError(f"{where}: no domain of {domains} knows {name}", hint, BAD_INPUT)

    def answer(self, address: str, port: int) -> Answer:
        hostname = address or self.hostname
        port = port or self._number("port", 0, 1, 65535)
        tokens = ssh_match.tokens(self.name, hostname, str(port or 22), self.user)
        jumps, proxy = self.text("proxyjump", "none"), self.text("proxycommand", "none")
        return Answer(
            hostname,
            self.text("user"),
            port,
            [ssh_match.expand(os.path.expandvars(value.text), tokens) for value in self.identities],
            self._seconds("connecttimeout"),
            [ssh_match.expand(hop, tokens) for hop in jumps.split(",")] if jumps.lower() != "none" else [],
            ssh_match.expand(proxy, tokens) if proxy.lower() != "none" else "",
            self.files,
        )

    def _number(self, key: str, default: int, least: int, most: int) -> int:
        if key not in self.found:
            return default
        text, where = self.found[key]
        if key == "port" and not text.isdigit():
            try:
                return socket.getservbyname(text, "tcp")
            except OSError:
                text = ""
        if not text.isdigit() or not least <= int(text) <= most:
            raise MailopsError(f"{where}: {self.found[key].text!r} is not a number for {key}", code=BAD_INPUT)
        return int(text)

    def _seconds(self, key: str) -> int:
        """A time as sshd_config(5) has it: 90, 1m30s; none is 0."""
        if self.text(key, "none").lower() == "none":
            return 0
        text, where = self.found[key]
        if not re.fullmatch(r"(\d+[smhdw]?)+", text, re.IGNORECASE):
            raise MailopsError(f"{where}: {text!r} is not a time for {key}", "as in 30 or 1m30s", BAD_INPUT)
        parts = re.findall(r"(\d+)([a-z]?)", text.lower())
        return min(sum(int(number) * SECONDS[unit] for number, unit in parts), ENOUGH)


def words(text: str) -> list[str]:
    """The words of a line: quoted ones may have blanks, and `#` at the start of one begins a comment."""
    found: list[str] = []
    for part in re.finditer(r"""(?:"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?|\\.|[^\s"'])+""", text):
        if part[0].startswith("#"):
            break
        # A backslash stays but before a quote, a blank, or another one.
        found.append(re.sub(r"""\\(["'\\ ])|["']""", lambda it: it[1] or "", part[0]))
    return found


def _lines(path: str) -> Iterator[tuple[str, str, str]]:
    """Where, keyword in small letters, and the rest, of each line that has one. A file that is not there has none."""
    try:
        text = Path(path).read_bytes().decode(errors="surrogateescape")
    except OSError:
        return
    for number, line in enumerate(text.split("\n"), 1):
        if (found := LINE.fullmatch(line.strip(" \t\r\f"))) and not line.lstrip().startswith("#"):
            yield f"{path} line {number}", found[1].lower(), found[2]


def _beside(path: str, pattern: str) -> str:
    """Where an included file is: beside the person's own configuration, or the system's."""
    folder = "/etc/ssh" if path.startswith("/etc/ssh/") else os.path.expanduser("~/.ssh")
    return os.path.join(folder, os.path.expanduser(pattern))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_known(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except (OSError, UnicodeError):
        return False
    return True
