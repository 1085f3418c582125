"""What a single value of hosts.toml must look like, whatever stands around it.

Each function takes the text and returns it as the site keeps it, or raises `Wrong` with the words that
follow the key in the message: what is wrong, and what would be right.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from mailops.remote.shared import idn
from mailops.remote.shared.address import WHOLE

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_ATOM = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"  # RFC 5322, 3.2.3
_DOT_ATOM = re.compile(rf"(?!-){_ATOM}(\.{_ATOM})*")  # Postfix refuses a leading "-" (allow_min_user)
# Dovecot's auth_username_chars: nobody could log in as anything else. No "+", which starts a detail.
_MAILBOX = re.compile(r"[a-z0-9_][a-z0-9_-]*(\.[a-z0-9_-]+)*", re.ASCII)
_SELECTOR = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII | re.IGNORECASE)
_UNIX_NAME = re.compile(r"[a-z_][a-z0-9_.-]*", re.ASCII | re.IGNORECASE)
_PATH = re.compile(r"(/[A-Za-z0-9_.-]+)+", re.ASCII)
_APT_URL = re.compile(r"https?://([A-Za-z0-9.-]+)(?::([0-9]{1,5}))?(/[A-Za-z0-9._~+-]+)*/?", re.ASCII)
_APT_SUITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*", re.ASCII)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_HOST_KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
)
# Debian's own folders; a vault or its ciphertext may lie below some of them, never in their place.
_SYSTEM_TREES = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/lost+found"),
    *("/proc", "/root", "/run", "/sbin", "/sys", "/tmp", "/usr", "/var/run", "/var/tmp"),  # noqa: S108
)
_SYSTEM_FOLDERS = (
    *("/home", "/media", "/mnt", "/opt", "/srv", "/var", "/var/backups", "/var/cache", "/var/lib"),
    *("/var/lib/mailops", "/var/local", "/var/log", "/var/mail", "/var/opt", "/var/spool", "/var/www"),
)


class Wrong(ValueError):
    """What is wrong with a value, and what would be right."""


def quoted(text: str) -> str:
    """The value as a message shows it: in quotes, cut when it is long."""
    return f'"{text}"' if len(text) <= 80 else f'"{text[:79]}…"'


def dotted(key: str, name: str) -> str:
    """A key below a key, as TOML writes it: `hosts.mail`, or `hosts."mail.example.org"`."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        import json

        name = json.dumps(name)
    return f"{key}.{name}" if key else name


def domain(text: str) -> str:
    """A domain name with at least one dot, in lower case and ASCII (RFC 1123, 2.1)."""
    name = idn.to_ascii(text.lower())
    if not _is_domain(name):
        hint = "write one like example.org" if text.isascii() else "write it in its ASCII form, xn--…"
        raise Wrong(f"{quoted(text)} is not a domain name; {hint}")
    return name


def _is_host_name(name: str) -> bool:
    labels = name.split(".")
    # A last label of digits alone would be an address gone wrong, such as 192.0.2.300.
    return len(name) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def address(text: str) -> str:
    """A mail address, in lower case and ASCII: an RFC 5321 dot-string, "@", a domain name."""
    local, _, host = text.lower().rpartition("@")
    host = idn.to_ascii(host)
    if not _DOT_ATOM.fullmatch(local) or len(local) > 64 or len(local) + len(host) > 253 or not _is_domain(host):
        raise Wrong(f"{quoted(text)} is not an address; write user@domain")
    return f"{local}@{host}"


def alias_source(text: str) -> str:
    """An address, or @domain for what no mailbox and no other alias of the domain has (virtual(5))."""
    if text.startswith("*@"):
        raise Wrong(f"{quoted(text)} is not an address; {WHOLE.format(quoted(text[1:]))}")
    return f"@{domain(text[1:])}" if text.startswith("@") else address(text)


def _is_domain(name: str) -> bool:
    return "." in name and _is_host_name(name)


def mailbox(text: str) -> str:
    """An address that can be a mailbox: Dovecot lets it log in, and it has no +detail."""
    email = address(text)
    local, _, host = email.rpartition("@")
    if "+" in local:
        raise Wrong(
            f"{quoted(text)} has a +detail, which mailboxes do not have; "
            f"write {quoted(local.partition('+')[0] + '@' + host)}, it receives every +detail"
        )
    if not _MAILBOX.fullmatch(local):
        raise Wrong(f"{quoted(text)} could not log in; use letters, digits, '.', '_' and '-' before the @")
    return email


def local_part(text: str) -> str:
    """What stands before the @ of a system address, in lower case."""
    if not _MAILBOX.fullmatch(text.lower()) or len(text) > 64:
        hint = "leave out the @ and the domain" if "@" in text else "use letters, digits, '.', '_' and '-'"
        raise Wrong(f"{quoted(text)} is not the local part of an address; {hint}")
    return text.lower()


def selector(text: str) -> str:
    """A DKIM selector (RFC 6376, 3.1), which is also part of a file name."""
    if not all(map(_SELECTOR.fullmatch, text.split("."))) or len(text) > 63:
        raise Wrong(f'{quoted(text)} is not a selector; use letters, digits, "-", "_" and "."')
    return text


def folder(text: str) -> str:
    """An absolute path on the machine that configuration files can hold without quoting."""
    if not text.startswith("/"):
        raise Wrong(f"{quoted(text)} is not an absolute path; begin it with /")
    if text != "/" and (not _PATH.fullmatch(text) or {".", ".."} & set(text.split("/"))):
        raise Wrong(
            f"{quoted(text)} is not a plain path; use letters, digits, '.', '_' and '-', no '..', and no '/' at the end"
        )
    return text


def own_folder(text: str) -> str:
    """A folder that mailops may make its own: not one that the system lives in."""
    path = PurePosixPath(folder(text))
    trees = {str(path), *map(str, path.parents[:-1])}
    if text == "/" or text in _SYSTEM_FOLDERS or trees.intersection(_SYSTEM_TREES):
        raise Wrong(f"{quoted(text)} belongs to the system; choose a folder that holds nothing else")
    return text


def host_name(text: str) -> str:
    """The name of a machine in hosts.toml: also its host name, and a name in the lab."""
    if not _is_host_name(text):
        raise Wrong('is not a name for a machine; use a-z, 0-9 and "-", as in [hosts.mail]')
    return text


def host_address(text: str) -> str:
    """A host name or an IP address, nothing around it."""
    if _is_host_name(text.lower()) or _is_ip(text):
        return text.lower()
    if "@" in text:
        raise Wrong(f"{quoted(text)} is more than an address; write the part before the @ as user")
    if re.fullmatch(r"[^:]+:\d+|\[.*\]:\d+", text):
        raise Wrong(f"{quoted(text)} is more than an address; write the part after the last colon as port")
    raise Wrong(f"{quoted(text)} is neither a host name nor an IP address; write one like 192.0.2.25")


def ip_address(text: str) -> str:
    """An IPv4 or IPv6 address."""
    if not _is_ip(text):
        raise Wrong(f"{quoted(text)} is not an IP address; write one like 192.0.2.53")
    return text


def _is_ip(text: str) -> bool:
    import ipaddress  # a few milliseconds that most commands need not spend

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def unix_user(text: str) -> str:
    """A login name on the machine."""
    if not _UNIX_NAME.fullmatch(text):
        raise Wrong(f"{quoted(text)} is not a login name; write one like root")
    return text


def host_key(text: str) -> str:
    """A public host key, "type base64", whose two halves agree (RFC 4253, 6.6)."""
    kind, _, encoded = text.partition(" ")
    if kind not in _HOST_KEY_TYPES:
        raise Wrong(f'does not begin with a type of key; write "ssh-ed25519 AAAA…", or let {_TRUST} do it')
    if " " in encoded.strip():
        raise Wrong("has more than a type and a key; leave out the comment at its end")
    if not _is_key_blob(kind, encoded):
        raise Wrong(f"is damaged after {kind}; copy it again, or let {_TRUST} do it")
    return f"{kind} {encoded}"


_TRUST = "`fab trust`"


def _is_key_blob(kind: str, encoded: str) -> bool:
    """Strings with four bytes of length each, the first of them the type, and nothing left over."""
    import base64

    try:
        blob = base64.b64decode(encoded, validate=True)
    except ValueError:
        return False
    fields = []
    while len(blob) >= 4:
        end = 4 + int.from_bytes(blob[:4])
        if end > len(blob):
            return False
        fields.append(blob[4:end])
        blob = blob[end:]
    return not blob and len(fields) > 1 and fields[0] == kind.encode()


def env_name(text: str) -> str:
    """The name of an environment variable. Not shown when wrong: it may be the password itself."""
    if not _ENV_NAME.fullmatch(text):
        raise Wrong("is not the name of an environment variable; use letters, digits and _")
    return text


def keyring_entry(text: str) -> str:
    """ "service/user"; the service may contain further slashes."""
    service, _, user = text.rpartition("/")
    if not service or not user:
        raise Wrong('names no entry of the keyring; write "service/user"')
    return text


def apt_url(text: str) -> str:
    """Where an apt repository is (sources.list(5)); no password stands in hosts.toml, nor in what apt prints."""
    found = _APT_URL.fullmatch(text)
    host, port = (found[1], int(found[2] or 80)) if found else ("", 0)
    if not (_is_host_name(host.lower()) or _is_ip(host)) or not 0 < port < 65536:
        hint = "leave out user and password" if "@" in text else "write one like https://rspamd.com/apt-stable/"
        raise Wrong(f"{quoted(text)} is not the address of a repository; {hint}")
    return text.rstrip("/") + "/"


def apt_suite(text: str) -> str:
    """A suite or code name below dists/ of a repository."""
    if not _APT_SUITE.fullmatch(text):
        raise Wrong(f"{quoted(text)} is not a suite; write one like trixie, or leave it out")
    return text


def fingerprint(text: str) -> str:
    """Of an OpenPGP key, in capitals and without the spaces that it is printed with."""
    digits = "".join(text.split()).upper()
    if not re.fullmatch(r"[0-9A-F]{40}", digits):
        raise Wrong(f"{quoted(text)} is not a whole fingerprint; write its 40 hexadecimal digits")
    return digits
