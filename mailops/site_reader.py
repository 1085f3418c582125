"""hosts.toml into a Site: a walk over the data that collects every problem and stops at none.

The shape of the file is the tables at the end of this module. Lists are counted from 1 in messages, as
people count. What is wrong becomes an empty placeholder, so that the rest can still be judged.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mailops import site_rules
from mailops import site_values as values
from mailops.roles import ROLES
from mailops.site import LOCAL_ADMIN_ALIASES, Alias, Host, Override, Secret, Site, Upstream, User


def read(path: Path) -> tuple[Site | None, list[str]]:
    """The site, and the problems of its file; with a problem the site is good for nothing.

    Only a file that is no TOML at all gives no site.
    """
    problems = Problems(str(path))
    data = _parse(path, problems)
    if data is None:
        return None, problems.lines
    found = SITE.read(data, "", problems)
    site = _site(path, found | {"notes": tuple(problems.notes)})
    if "cryptdir_pw" not in found and any(host.role == "mailhost" for host in site.hosts.values()):
        _missing("cryptdir_pw", SITE_KEYS, "", problems)
    for inputs, rule in site_rules.RULES:
        if not problems.broken(*inputs):
            for key, text in rule(site):
                problems.add(key, text)
    return site, problems.lines


@dataclass
class Problems:
    """The lines to show, and which keys they are about."""

    file: str
    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is taken otherwise than it was written
    _keys: set[str] = field(default_factory=set)

    def add(self, key: str, text: str) -> None:
        self.lines.append(f"{self.file}: {key}: {text}")
        self.spoil(key)

    def spoil(self, key: str) -> None:
        """Note that `key` cannot be judged, without a line of its own."""
        self._keys.add(_plain(key))

    def broken(self, *keys: str) -> bool:
        """Whether something is wrong with one of `keys`, in it, or around it."""
        return any(_overlap(_plain(key), wrong) for key in keys for wrong in self._keys)


def _plain(key: str) -> str:
    """`mail_users[2].email` as `mail_users.email`: what is wrong in one row is wrong in the list."""
    return re.sub(r"\[\d+\]", "", key)


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _parse(path: Path, problems: Problems) -> dict[str, Any] | None:
    text = ""
    try:
        text = path.read_bytes().decode()
        return tomllib.loads(text)
    except OSError as error:
        problems.lines.append(f"{path}: cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problems.lines.append(f"{path}: line {line}: is not UTF-8; save the file in that encoding")
    except RecursionError:
        problems.lines.append(f"{path}: is nested too deeply; a site needs three levels")
    except ValueError as error:
        problems.lines.append(f"{path}: {_syntax(str(error), text)}")
    return None


def _syntax(message: str, text: str) -> str:
    """tomllib's "Invalid value (at line 3, column 7)" in our order of words, with the usual remedy."""
    found = re.fullmatch(r"(.*) \(at (.*)\)", message, re.DOTALL)
    what, where = found.groups() if found else (message, "somewhere")
    if twice := re.fullmatch(r"Cannot declare \((.*)\) twice", what):
        name = ".".join(re.findall(r"'([^']*)'", twice[1]))
        return f"{where.partition(',')[0]}: [{name}] stands twice; put all of it under one"
    bare = what == "Invalid value" and _is_word(text, where)
    remedy = 'text stands in "quotes"' if bare else "https://toml.io shows how it is done"
    return f"{where}: is not TOML: {what[:1].lower()}{what[1:]}; {remedy}"


def _is_word(text: str, where: str) -> bool:
    """Whether a word, a path or an address stands at that line and column."""
    place = re.fullmatch(r"line (\d+), column (\d+)", where)
    return bool(place and re.match(r"[\w/~.@]", text.split("\n")[int(place[1]) - 1][int(place[2]) - 1 :]))


@dataclass(frozen=True)
class Rule:
    """How to read one key: `read(value, key, problems)` gives what to keep, or None when it is wrong."""

    example: str  # what would be right
    read: Callable[[Any, str, Problems], Any]


def kind_of(value: Any) -> str:
    """What a value is, in a person's words: "a text", "a list"."""
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
    return "a table" if isinstance(value, dict) else kinds.get(type(value), "a date")


def _text(example: str, check: Callable[[str], str] = str, empty: bool = False, lines: bool = False) -> Rule:
    """A text that `check` accepts. With `empty` it may be "", with `lines` it may have several."""

    def read(value: Any, key: str, problems: Problems) -> str | None:
        try:
            if not isinstance(value, str):
                raise values.Wrong(f"is {kind_of(value)}; write {example}")
            if empty and not value:
                return value
            if not value.strip():
                raise values.Wrong(f"is empty; write {example}")
            if not (value.replace("\n", "").replace("\t", "") if lines else value).isprintable():
                raise values.Wrong("has a character that cannot be seen; leave it out")
            kept = check(value)
            if kept.isascii() and not value.isascii():
                problems.notes.append(f'{problems.file}: {key}: {values.quoted(value)} is "{kept}" in mail')
            return kept
        except values.Wrong as wrong:
            problems.add(key, str(wrong))
            return None

    return Rule(example, read)


def _number(example: str, allowed: range) -> Rule:
    def read(value: Any, key: str, problems: Problems) -> int | None:
        if type(value) is not int:  # True is an int as well
            problems.add(key, f"is {kind_of(value)}; write {example}")
        elif value not in allowed:
            last = allowed[-1]
            bounds = f"{allowed[0]} or {last}" if len(allowed) == 2 else f"one from {allowed[0]} to {last}"
            problems.add(key, f"cannot be {value}; write {bounds}")
        else:
            return value
        return None

    return Rule(example, read)


def _list(example: str, item: Rule, placeholder: Any) -> Rule:
    """A list; what is wrong in it becomes `placeholder`, so that the rest keeps its numbers."""

    def read(value: Any, key: str, problems: Problems) -> tuple[Any, ...] | None:
        if not isinstance(value, list):
            problems.add(key, f"is {kind_of(value)}; write {example}")
            return None
        rows = (item.read(row, f"{key}[{number}]", problems) for number, row in enumerate(value, 1))
        return tuple(placeholder if row is None else row for row in rows)

    return Rule(example, read)


def _table(example: str, keys: dict[str, Rule], required: Iterable[str] = ()) -> Rule:
    """A table with these keys; the values that are right come back in a dict."""

    def read(value: Any, key: str, problems: Problems) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            problems.add(key, f"is {kind_of(value)}; write {example}")
            return None
        for name in value:
            if name not in keys:
                _unknown(name, value[name], key, keys, problems)
        found = {
            name: rule.read(value[name], values.dotted(key, name), problems)
            for name, rule in keys.items()
            if name in value
        }
        for name in required:
            if name not in value:
                _missing(name, keys, key, problems)
        return {name: kept for name, kept in found.items() if kept is not None}

    return Rule(example, read)


def _missing(name: str, keys: dict[str, Rule], key: str, problems: Problems) -> None:
    """Ask for a required key, unless it has had its line already: misspelt, misplaced or wrong."""
    if not problems.broken(values.dotted(key, name)):
        problems.add(values.dotted(key, name), f"is missing; write {keys[name].example}")


def _unknown(name: str, value: Any, key: str, keys: dict[str, Rule], problems: Problems) -> None:
    """Say that a key is not known, and which one was probably meant."""
    import difflib

    near = difflib.get_close_matches(name, keys.keys(), 1)
    if keys is HOST_KEYS and name in SITE_KEYS:
        # In TOML everything below a [header] belongs to it: the commonest slip of all.
        hint = "it is a key of the whole site: move it above the first [hosts.…] line"
        problems.spoil(name)
    elif keys is HOST_KEYS and isinstance(value, dict) and not near:
        hint = f'a name with dots stands in quotes: [hosts."{key.removeprefix("hosts.")}.{name}"]'
        problems.spoil(f"{key}.role")
    elif keys in (SITE_KEYS, HOST_KEYS) and _is_variable(name):
        hint = f"it is a variable of the templates: move it below a line [{values.dotted(key, 'override')}]"
    elif keys is SITE_KEYS and name in HOST_KEYS:
        hint = "it is a key of one machine: move it below its [hosts.…] line"
        problems.spoil("hosts")
    elif near:
        hint = f"did you mean {near[0]}?"
        problems.spoil(values.dotted(key, near[0]))
    else:
        hint = "remove it" if keys is SITE_KEYS else f"write one of {', '.join(keys)}"
    problems.add(values.dotted(key, name), f"is not a known key; {hint}")


def _is_variable(name: str) -> bool:
    from mailops import site_override  # only where it is needed: it reads the templates' tables

    return name in site_override.EVERY


def _read_secret(value: Any, key: str, problems: Problems) -> Secret | None:
    """A reference to a password. Its messages never show a value: it may be the password itself."""
    if not isinstance(value, dict):
        clear = "a password in clear" if isinstance(value, str | int | float) else kind_of(value)
        problems.add(key, f"is {clear}; write a reference, such as {_REFERENCE}")
        return None
    before = len(problems.lines)
    found = SECRET.read(value, key, problems)
    if len(problems.lines) > before:
        return None
    if len(found) != 1:
        both = " and ".join(found) or "nothing"
        problems.add(key, f"says {both}; write exactly one of {', '.join(SECRET_KEYS)}")
        return None
    ((kind, reference),) = found.items()
    return Secret(kind, reference, key)


def _read_user(value: Any, key: str, problems: Problems) -> User | None:
    found = USER.read(value, key, problems)
    return None if found is None else User(found.get("email", ""), found.get("pw", _NO_SECRET))


def _read_alias(value: Any, key: str, problems: Problems) -> Alias | None:
    found = ALIAS.read(value, key, problems)
    return None if found is None else Alias(found.get("src", ""), found.get("dst", ""))


def _read_hosts(value: Any, key: str, problems: Problems) -> dict[str, Host] | None:
    if not isinstance(value, dict):
        problems.add(key, f"is {kind_of(value)}; write {_HOSTS_EXAMPLE}")
        return None
    if not value:
        problems.add(key, f"is empty; write {_HOSTS_EXAMPLE}")
    hosts = {}
    for name, table in value.items():
        try:
            values.host_name(name)
        except values.Wrong as wrong:
            problems.add(values.dotted(key, name), str(wrong))
        found = HOST.read(table, values.dotted(key, name), problems) or {}
        if "override" in found:
            found |= _read_host_override(found.pop("override"), values.dotted(key, name), name, found, problems)
        hosts[name] = Host(**{"role": "", **found, "name": name})
    return hosts


def _keep_host_override(value: Any, key: str, problems: Problems) -> Any:
    """Left for `_read_host_override`, but a key of the machine that has slipped below it is not missing."""
    for name in HOST_KEYS.keys() & (value.keys() if isinstance(value, dict) else set()):
        problems.spoil(values.dotted(key.removesuffix(".override"), name))
    return value


def _read_host_override(
    table: Any, key: str, name: str, found: dict[str, Any], problems: Problems
) -> dict[str, dict[str, Override]]:
    """Which variables a machine has depends on its role."""
    from mailops import site_override

    override = site_override.read_host(table, f"{key}.override", name, found.get("role", ""), problems)
    return {} if override is None else {"override": override}


def _read_override(value: Any, key: str, problems: Problems) -> dict[str, Override] | None:
    from mailops import site_override

    return site_override.read_site(value, key, problems)


def _read_upstream(value: Any, key: str, problems: Problems) -> Upstream | None:
    """Its key is read here, and must be the one that the fingerprint names: nothing else of it reaches a machine."""
    before = len(problems.lines)
    found = UPSTREAM.read(value, key, problems)
    if found is None or len(problems.lines) > before:
        return None
    from mailops import openpgp  # only where it is needed

    path = Path(problems.file).parent / Path(found["key"]).expanduser()
    try:
        fingerprint, armoured = openpgp.public_key(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        remedy = "write the path of the public key's file, beside this one"
        problems.add(f"{key}.key", f"{path} cannot be read: {error.strerror}; {remedy}")
        return None
    except openpgp.BadKey as wrong:
        problems.add(f"{key}.key", f"{path} {wrong}; gpg --armor --export FINGERPRINT prints what is wanted")
        return None
    if fingerprint != found["fingerprint"]:
        text = f"is not that of {path}, which is {fingerprint}; ask its owner, by another way, which one is right"
        problems.add(f"{key}.fingerprint", text)
        return None
    return Upstream(found["url"], found.get("suite"), armoured)


def _packager(text: str) -> str:
    if text not in PACKAGERS:
        raise values.Wrong(f'{values.quoted(text)} is not known; write "debian" or "upstream"')
    return text


def _role(text: str) -> str:
    if text not in ROLES:
        raise values.Wrong(f"{values.quoted(text)} is not a role; write one of {', '.join(ROLES)}")
    return text


def _site(path: Path, found: dict[str, Any]) -> Site:
    """The site with its defaults."""
    domain = found.get("domain", "")
    vault = found.get("vault", "/vault")
    defaults = {
        "domain": domain,
        "admin_email": "",
        "mail_domains": (domain,),
        "mail_users": (),
        "mail_aliases": (),
        "mail_local_admin_aliases": LOCAL_ADMIN_ALIASES,
        "mail_server_hostname": f"mail.{domain}",
        "relay_email": f"relay@{domain}",
        "cryptdir_pw": _NO_SECRET,
        "dkim_selector": "",
        "dkim_selector_next": "",
        "dkim_keyroot": f"{vault}/dkim",
        "sieve_root": f"{vault}/sieve",
        "vault": vault,
        "vault_cipherdir": "/var/lib/mailops/vault",
        "resolver": None,
        "hosts": {},
        "override": {},
    }
    return Site(**{**defaults, **found, "path": path})


# What a site without a mailhost has: it is never asked, and would ask when it were.
_NO_SECRET = Secret("prompt", "Passphrase of the vault", "cryptdir_pw")
_REFERENCE = '{ command = "pass show mail/…" } or { prompt = "…" }'
_HOSTS_EXAMPLE = '[hosts.mail] with role = "mailhost" below it'

# The shape of the file: every key, how it is read, and what a good one looks like.
SECRET_KEYS = {
    "prompt": _text('prompt = "what to ask"'),
    "env": _text('env = "NAME"', values.env_name),
    "command": _text('command = "pass show mail/vault"', lines=True),
    "keyring": _text('keyring = "service/user"', values.keyring_entry),
}
SECRET = _table(_REFERENCE, SECRET_KEYS)

USER = _table(
    '{ email = "user@example.org", pw = { command = "pass show mail/user" } }',
    {
        "email": _text('email = "user@example.org"', values.mailbox),
        "pw": Rule('pw = { command = "pass show mail/user" }', _read_secret),
    },
    required=("email", "pw"),
)
ALIAS = _table(
    '{ src = "sales@example.org", dst = "user@example.org" }',
    {
        "src": _text('src = "sales@example.org"', values.address),
        "dst": _text('dst = "user@example.org"', values.address),
    },
    required=("src", "dst"),
)
PACKAGERS = ("debian", "upstream")
UPSTREAM = _table(
    'rspamd_upstream = { url = "https://rspamd.com/apt-stable/", key = "rspamd.asc", fingerprint = "…" }',
    {
        "url": _text('url = "https://rspamd.com/apt-stable/"', values.apt_url),
        "suite": _text('suite = "trixie"', values.apt_suite),
        "key": _text('key = "rspamd.asc"'),
        "fingerprint": _text('fingerprint = "…", the key\'s 40 hexadecimal digits', values.fingerprint),
    },
    required=("url", "key", "fingerprint"),
)
_USER = Rule(USER.example, _read_user)
_ALIAS = Rule(ALIAS.example, _read_alias)

HOST_KEYS = {
    "role": _text('role = "mailhost"', _role),
    "address": _text('address = "192.0.2.25"', values.host_address),
    "port": _number("port = 22", range(1, 65536)),
    "user": _text('user = "root"', values.unix_user),
    "host_key": _text('host_key = "ssh-ed25519 AAAA…"', values.host_key),
    "identity": _text('identity = "~/.ssh/id_ed25519"'),
    "sudo_pw": Rule('sudo_pw = { prompt = "sudo password" }', _read_secret),
    "debian": _number("debian = 13", range(12, 14)),
    "senders": _list(
        'senders = ["noreply@example.org"]', _text('an address, as in "noreply@example.org"', values.address), ""
    ),
    "override": Rule("[hosts.….override] with variables below it", _keep_host_override),
}
HOST = _table('a [hosts.…] table with role = "mailhost"', HOST_KEYS, required=("role",))

SITE_KEYS = {
    "domain": _text('domain = "example.org"', values.domain),
    "admin_email": _text('admin_email = "admin@example.org"', values.address),
    "mail_domains": _list('mail_domains = ["example.org"]', _text('a domain, as in "example.org"', values.domain), ""),
    "mail_users": _list(f"mail_users = [{USER.example}]", _USER, User("", _NO_SECRET)),
    "mail_aliases": _list(f"mail_aliases = [{ALIAS.example}]", _ALIAS, Alias("", "")),
    "mail_local_admin_aliases": _list(
        'mail_local_admin_aliases = ["postmaster"]',
        _text('a local part, as in "postmaster"', values.local_part),
        "",
    ),
    "mail_server_hostname": _text('mail_server_hostname = "mail.example.org"', values.domain),
    "relay_email": _text('relay_email = "relay@example.org"', values.mailbox),
    "cryptdir_pw": Rule('cryptdir_pw = { prompt = "Passphrase of the vault" }', _read_secret),
    "dkim_selector": _text('dkim_selector = "202611"', values.selector, empty=True),
    "dkim_selector_next": _text('dkim_selector_next = "202701"', values.selector, empty=True),
    "dkim_keyroot": _text('dkim_keyroot = "/vault/dkim"', values.folder),
    "sieve_root": _text('sieve_root = "/vault/sieve"', values.folder),
    "vault": _text('vault = "/vault"', values.own_folder),
    "vault_cipherdir": _text('vault_cipherdir = "/var/lib/mailops/vault"', values.own_folder),
    "rspamd": _text('rspamd = "upstream"', _packager),
    "rspamd_upstream": Rule(UPSTREAM.example, _read_upstream),
    "resolver": _text('resolver = "192.0.2.53"', values.ip_address),
    "hosts": Rule(_HOSTS_EXAMPLE, _read_hosts),
    "override": Rule("[override] with variables below it", _read_override),
}
SITE = _table("a site", SITE_KEYS, required=("domain", "admin_email", "hosts"))
