"""hosts.toml into a Site: a walk over the data that collects every problem and stops at none.

The shape of the file is the tables at the end of this module.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from mailops.roles import ROLES, runs
from mailops.site import forms, rules, values
from mailops.site.model import (
    HOST_KEYS,
    LOCAL_ADMIN_ALIASES,
    MAILNULL_KEYS,
    SITE_KEYS,
    Alias,
    Host,
    Override,
    Secret,
    Site,
    Upstream,
    User,
)
from mailops.site.problems import Problems, SiteError


def load(path: Path) -> Site:
    """Read and check a site's file before any connection is opened. Raises `SiteError` with all its problems."""
    site, problems = read(path)
    if site is None or problems:
        raise SiteError(problems)
    return site


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
    if "cryptdir_pw" not in found and any(runs(host.role, "vault") for host in site.hosts.values()):
        forms.missing("cryptdir_pw", SITE_FORMS, "", problems)
    for inputs, rule in rules.RULES:
        if not problems.broken(*inputs):
            for key, text in rule(site):
                problems.add(key, text)
    if not problems.lines:
        doubts = [f"{problems.file}: {key}: {text}" for key, text in rules.to_nobody(site)]
        site = replace(site, notes=(*site.notes, *doubts)) if doubts else site
    return site, problems.lines


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


def _hint_for_host(name: str, value: Any, key: str, near: list[str], problems: Problems) -> str:
    if name in SITE_KEYS:
        # In TOML everything below a [header] belongs to it: the commonest slip of all.
        problems.spoil(name)
        return "it is a key of the whole site: move it above the first [hosts.…] line"
    if isinstance(value, dict) and not near:
        problems.spoil(f"{key}.role")
        return f'a name with dots stands in quotes: [hosts."{key.removeprefix("hosts.")}.{name}"]'
    return _hint_for_variable(name, key)


def _hint_for_site(name: str, value: Any, key: str, near: list[str], problems: Problems) -> str:
    if hint := _hint_for_variable(name, key):
        return hint
    if name in HOST_KEYS:
        problems.spoil("hosts")
        return "it is a key of one machine: move it below its [hosts.…] line"
    return "" if near else "remove it"


def _hint_for_variable(name: str, key: str) -> str:
    from mailops.site import override  # only where it is needed: it reads the templates' tables

    where = values.dotted(key, "override")
    return f"it is a variable of the templates: move it below a line [{where}]" if name in override.EVERY else ""


def _read_secret(value: Any, key: str, problems: Problems) -> Secret | None:
    """A reference to a password. Its messages never show a value: it may be the password itself."""
    if not isinstance(value, dict):
        clear = "a password in clear" if isinstance(value, str | int | float) else forms.kind_of(value)
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
        problems.add(key, f"is {forms.kind_of(value)}; write {_HOSTS_EXAMPLE}")
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
    for name in HOST_FORMS.keys() & (value.keys() if isinstance(value, dict) else set()):
        problems.spoil(values.dotted(key.removesuffix(".override"), name))
    return value


def _read_host_override(
    table: Any, key: str, name: str, found: dict[str, Any], problems: Problems
) -> dict[str, dict[str, Override]]:
    """Which variables a machine has depends on its role; a mailnull may see some of the Site's own keys otherwise."""
    from mailops.site import override

    key, role, own = f"{key}.override", found.get("role", ""), {}
    if isinstance(table, dict) and (not role or runs(role, "nullclient")):
        own = {name: table[name] for name in MAILNULL_KEYS if name in table}
        table = {name: value for name, value in table.items() if name not in own}
    read_ = {name: SITE_FORMS[name].read(value, values.dotted(key, name), problems) for name, value in own.items()}
    variables = override.read_host(table, key, name, role, problems)
    if variables is None:
        return {}
    return {"override": variables | {name: value for name, value in read_.items() if value is not None}}


def _read_override(value: Any, key: str, problems: Problems) -> dict[str, Override] | None:
    from mailops.site import override

    return override.read_site(value, key, problems)


def _read_upstream(value: Any, key: str, problems: Problems) -> Upstream | None:
    """Its key is read here, and must be the one that the fingerprint names: nothing else of it reaches a machine."""
    before = len(problems.lines)
    found = UPSTREAM.read(value, key, problems)
    if found is None or len(problems.lines) > before:
        return None
    from mailops.site import openpgp  # only where it is needed

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
    "prompt": forms.text('prompt = "what to ask"'),
    "env": forms.text('env = "NAME"', values.env_name),
    "command": forms.text('command = "pass show mail/vault"', lines=True),
    "keyring": forms.text('keyring = "service/user"', values.keyring_entry),
}
SECRET = forms.table(_REFERENCE, SECRET_KEYS)

USER = forms.table(
    '{ email = "user@example.org", pw = { command = "pass show mail/user" } }',
    {
        "email": forms.text('email = "user@example.org"', values.mailbox),
        "pw": forms.Form('pw = { command = "pass show mail/user" }', _read_secret),
    },
    required=("email", "pw"),
)
ALIAS = forms.table(
    '{ src = "sales@example.org", dst = "user@example.org" }',
    {
        "src": forms.text('src = "sales@example.org"', values.alias_source),
        "dst": forms.text('dst = "user@example.org"', values.address),
    },
    required=("src", "dst"),
)
PACKAGERS = ("debian", "upstream")
UPSTREAM = forms.table(
    'rspamd_upstream = { url = "https://rspamd.com/apt-stable/", key = "rspamd.asc", fingerprint = "…" }',
    {
        "url": forms.text('url = "https://rspamd.com/apt-stable/"', values.apt_url),
        "suite": forms.text('suite = "trixie"', values.apt_suite),
        "key": forms.text('key = "rspamd.asc"'),
        "fingerprint": forms.text('fingerprint = "…", the key\'s 40 hexadecimal digits', values.fingerprint),
    },
    required=("url", "key", "fingerprint"),
)
_USER = forms.Form(USER.example, _read_user)
_ALIAS = forms.Form(ALIAS.example, _read_alias)

HOST_FORMS = {
    "role": forms.text('role = "mailhost"', _role),
    "address": forms.text('address = "192.0.2.25"', values.host_address),
    "port": forms.number("port = 22", range(1, 65536)),
    "user": forms.text('user = "root"', values.unix_user),
    "host_key": forms.text('host_key = "ssh-ed25519 AAAA…"', values.host_key),
    "identity": forms.text('identity = "~/.ssh/id_ed25519"'),
    "sudo_pw": forms.Form('sudo_pw = { prompt = "sudo password" }', _read_secret),
    "debian": forms.number("debian = 13", range(12, 14)),
    "senders": forms.list_(
        'senders = ["noreply@example.org"]', forms.text('an address, as in "noreply@example.org"', values.address), ""
    ),
    "override": forms.Form("[hosts.….override] with variables below it", _keep_host_override),
}
HOST = forms.table('a [hosts.…] table with role = "mailhost"', HOST_FORMS, required=("role",), hint=_hint_for_host)

SITE_FORMS = {
    "domain": forms.text('domain = "example.org"', values.domain),
    "admin_email": forms.text('admin_email = "admin@example.org"', values.address),
    "mail_domains": forms.list_(
        'mail_domains = ["example.org"]', forms.text('a domain, as in "example.org"', values.domain), ""
    ),
    "mail_users": forms.list_(f"mail_users = [{USER.example}]", _USER, User("", _NO_SECRET)),
    "mail_aliases": forms.list_(f"mail_aliases = [{ALIAS.example}]", _ALIAS, Alias("", "")),
    "mail_local_admin_aliases": forms.list_(
        'mail_local_admin_aliases = ["postmaster"]',
        forms.text('a local part, as in "postmaster"', values.local_part),
        "",
    ),
    "mail_server_hostname": forms.text('mail_server_hostname = "mail.example.org"', values.domain),
    "relay_email": forms.text('relay_email = "relay@example.org"', values.mailbox),
    "cryptdir_pw": forms.Form('cryptdir_pw = { prompt = "Passphrase of the vault" }', _read_secret),
    "dkim_selector": forms.text('dkim_selector = "202611"', values.selector, empty=True),
    "dkim_selector_next": forms.text('dkim_selector_next = "202701"', values.selector, empty=True),
    "dkim_keyroot": forms.text('dkim_keyroot = "/vault/dkim"', values.folder),
    "sieve_root": forms.text('sieve_root = "/vault/sieve"', values.folder),
    "vault": forms.text('vault = "/vault"', values.own_folder),
    "vault_cipherdir": forms.text('vault_cipherdir = "/var/lib/mailops/vault"', values.own_folder),
    "rspamd": forms.text('rspamd = "upstream"', _packager),
    "rspamd_upstream": forms.Form(UPSTREAM.example, _read_upstream),
    "resolver": forms.text('resolver = "192.0.2.53"', values.ip_address),
    "hosts": forms.Form(_HOSTS_EXAMPLE, _read_hosts),
    "override": forms.Form("[override] with variables below it", _read_override),
}
SITE = forms.table("a site", SITE_FORMS, required=("domain", "admin_email", "hosts"), hint=_hint_for_site)
