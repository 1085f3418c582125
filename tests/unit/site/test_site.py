"""hosts.toml: what a good one means, and the one clear line that each wrong one gets."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from mailops.errors import BAD_INPUT, MailopsError
from mailops.site import openpgp, place, reader
from mailops.site.model import Alias, Secret, Site, Upstream
from mailops.site.problems import SiteError
from tests.unit.site.test_openpgp import FINGERPRINT, KEY

SPACED = " ".join(FINGERPRINT[at : at + 4].lower() for at in range(0, 40, 4))
CLEAR = "hunter2-in-clear"
_BLOB = base64.b64encode(b"\0\0\0\x0bssh-ed25519" + b"\0\0\0\x20" + bytes(range(32))).decode()
HOST_KEY = f"ssh-ed25519 {_BLOB}"

GOOD = f"""\
domain = "example.test"
admin_email = "admin@example.test"
mail_domains = ["example.test", "second.test"]
mail_users = [
    {{ email = "admin@example.test", pw = {{ command = "pass show mail/admin" }} }},
    {{ email = "relay@example.test", pw = {{ env = "RELAY_PW" }} }},
    {{ email = "user@second.test", pw = {{ keyring = "mail/user@second.test" }} }},
]
mail_aliases = [
    {{ src = "sales@example.test", dst = "user@second.test" }},
    {{ src = "info@second.test", dst = "someone@elsewhere.test" }},
]
cryptdir_pw = {{ prompt = "Passphrase of the vault" }}
dkim_selector = "202611"
vault = "/vault"

[hosts.mail]
role = "mailhost"
address = "192.0.2.25"
port = 22
user = "root"
host_key = "{HOST_KEY}"
debian = 13

[hosts.backup]
role = "mailnull"
sudo_pw = {{ prompt = "sudo on backup" }}
"""


def _load(tmp_path: Path, text: str) -> Site:
    path = tmp_path / "hosts.toml"
    path.write_text(text)
    return reader.load(path)


def _problems(tmp_path: Path, text: str) -> list[str]:
    """The lines that the file gets, without the folder of the test."""
    with pytest.raises(SiteError) as caught:
        _load(tmp_path, text)
    assert caught.value.code == BAD_INPUT
    assert str(caught.value) == "\n".join(caught.value.problems)
    assert all("\n" not in line for line in caught.value.problems)
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.problems]


def _mutated(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, f"{old!r} is not once in the good site"
    return GOOD.replace(old, new)


ALIASES = "mail_aliases = [\n"
USER_TO = '{{ src = "user@second.test", dst = "{}" }},\n'
A_TO_B = '{ src = "a@second.test", dst = "b@second.test" },\n'
TOP = 'vault = "/vault"\n'
MAIL_KEY = f'host_key = "{HOST_KEY}"'
ROW = '{ email = "user@second.test", pw = { keyring = "mail/user@second.test" } }'
PW = '{ keyring = "mail/user@second.test" }'
PASSPHRASE = '{ prompt = "Passphrase of the vault" }'

# What is changed in the good site, into what, and the line (a regular expression, whole) that it gets.
# fmt: off
WRONG: dict[str, tuple[str, str, str]] = {
    # The file
    "syntax": (
        '"/vault"',
        "/vault",
        r'line 15, column 9: is not TOML: invalid value; text stands in "quotes"',
    ),
    "no value": (
        '"/vault"',
        "",
        r"line 15, column 9: is not TOML: invalid value; https://toml.io shows how it is done",
    ),
    "a table twice": (
        "[hosts.backup]",
        '[hosts.mail]\naddress = "192.0.2.77"\n[hosts.backup]',
        r"line \d+: \[hosts\.mail\] stands twice; put all of it under one",
    ),
    "a key twice": (
        TOP,
        TOP + 'domain = "b.test"\n',
        r"line 16, column \d+: is not TOML: cannot overwrite .*",
    ),
    # Keys
    "misspelt": (
        "cryptdir_pw",
        "cryptdir_pwd",
        r"cryptdir_pwd: is not a known key; did you mean cryptdir_pw\?",
    ),
    "misspelt, required": ("admin_email", "admin_emial", r"admin_emial: .*; did you mean admin_email\?"),
    "unheard of": (TOP, TOP + "greylist = true\n", r"greylist: is not a known key; remove it"),
    "of a host": ("port = 22", "prot = 22", r"hosts\.mail\.prot: is not a known key; did you mean port\?"),
    "of a host, at the top": (TOP, TOP + "port = 22\n", r"port: .* one machine: move it below its \[hosts.*"),
    "of the site, in a host": (
        "debian = 13",
        'resolver = "192.0.2.53"',
        r"hosts\.mail\.resolver: is not a known key; it is a key of the whole site: move it above .*",
    ),
    "a name with dots": (
        "[hosts.backup]",
        "[hosts.backup.example.org]",
        r'hosts\.backup\.example: is not a known key; a name with dots stands in quotes: \[hosts\."back.*',
    ),
    "of a user": (
        ROW,
        f'{{ emial = "user@second.test", pw = {PW} }}',
        r"mail_users\[3\]\.emial: .* mean email\?",
    ),
    "of an alias": ('dst = "user@', 'dest = "user@', r"mail_aliases\[1\]\.dest: .*; did you mean dst\?"),
    "of a secret": ("{ env =", "{ environ =", r"mail_users\[2\]\.pw\.environ: .*; did you mean env\?"),
    "with a line break in it": (TOP, TOP + '"a\\nb" = 1\n', r'"a\\nb": is not a known key; .*'),
    # Types
    "number for text": ('"202611"', "202611", r'dkim_selector: is a number; write dkim_selector = "202611"'),
    "text for list": (
        '["example.test", "second.test"]',
        '"example.test"',
        r"mail_domains: is a text; write .*",
    ),
    "number in a list": (
        '"second.test"]',
        '"second.test", 3]',
        r"mail_domains\[3\]: is a number; write a domain.*",
    ),
    "text for a user": (ROW, '"user@second.test"', r"mail_users\[3\]: is a text; write \{ email = .*"),
    "text for an alias": (
        ALIASES,
        ALIASES + '"a@b.test",\n',
        r"mail_aliases\[1\]: is a text; write \{ src = .*",
    ),
    "list for hosts": (
        GOOD[GOOD.index("[hosts.mail]") :],
        "[[hosts]]\n",
        r"hosts: is a list; write \[hosts\.mail.*",
    ),
    "text for a host": (
        TOP,
        TOP + 'hosts.web = "web"\n',
        r"hosts\.web: is a text; write a \[hosts\.…\] table .*",
    ),
    "text for a port": ("port = 22", 'port = "22"', r"hosts\.mail\.port: is a text; write port = 22"),
    "true for a number": (
        "debian = 13",
        "debian = true",
        r"hosts\.mail\.debian: is true or false; write debi.*",
    ),
    "a date": ('"202611"', "2026-11-01", r"dkim_selector: is a date; write .*"),
    # What is missing or empty
    "no domain": ('domain = "example.test"\n', "", r'domain: is missing; write domain = "example\.org"'),
    "no admin": (
        'admin_email = "admin@example.test"\n',
        "",
        r"admin_email: is missing; write admin_email = .*",
    ),
    "no passphrase": (
        f"cryptdir_pw = {PASSPHRASE}\n",
        "",
        r"cryptdir_pw: is missing; write cryptdir_pw = \{ .*",
    ),
    "no password": (
        ROW,
        '{ email = "user@second.test" }',
        r"mail_users\[3\]\.pw: is missing; write pw = \{ .*",
    ),
    "no role": ('role = "mailnull"\n', "", r'hosts\.backup\.role: is missing; write role = "mailhost"'),
    "no hosts": (GOOD[GOOD.index("[hosts.mail]") :], "", r"hosts: is missing; write \[hosts\.mail\] with .*"),
    "an empty text": ('user = "root"', 'user = " "', r'hosts\.mail\.user: is empty; write user = "root"'),
    "an invisible character": (
        '"root"',
        '"ro\\u0007ot"',
        r"hosts\.mail\.user: has a character that cannot be .*",
    ),
    # Domains
    "no domain name": (
        '"second.test"]',
        '"second_test"]',
        r'mail_domains\[2\]: "second_test" is not a domain name;.*',
    ),
    "one label": (
        '"second.test"]',
        '"second.test", "x"]',
        r'mail_domains\[3\]: "x" is not a domain name; .*',
    ),
    "not ASCII": (
        TOP,
        TOP + 'mail_server_hostname = "straße.test"\n',
        r'mail_server_hostname: "straße\.test" is not a domain name; .* form, xn--.*',
    ),
    "domain twice": (
        '"second.test"]',
        '"second.test", "Example.test"]',
        r"mail_domains\[3\]: .*as mail_domains\[1\].*",
    ),
    "own domain unlisted": (
        '["example.test", ',
        "[",
        r'mail_domains: does not list "example\.test", the domain of .*',
    ),
    # Addresses
    "no address": (
        'email = "user@second.test"',
        'email = "foo"',
        r'mail_users\[3\]\.email: "foo" is not an address; .*',
    ),
    "two dots": (
        'src = "sales@',
        'src = "sa..les@',
        r'mail_aliases\[1\]\.src: "sa\.\.les@example\.test" is not .*',
    ),
    "two addresses": (
        "someone@elsewhere.test",
        "a@b.test, c@d.test",
        r"mail_aliases\[2\]\.dst: .* is not an address;.*",
    ),
    "a user with a detail": (
        'email = "user@second.test"',
        'email = "user+lists@second.test"',
        r'mail_users\[3\]\.email: "user\+lists@second\.test" has a \+detail, .*; write "user@second.*',
    ),
    "no login name": (
        'email = "user@',
        'email = "us/er@',
        r'mail_users\[3\]\.email: "us/er@.*" could not log in; .*',
    ),
    "user in no domain of ours": (
        'email = "user@second.test"',
        'email = "user@third.test"',
        r'mail_users\[3\]\.email: "user@third\.test" is in a domain .* does not list; add "third\.test"',
    ),
    "alias in no domain of ours": (
        "info@second.test",
        "info@third.test",
        r"mail_aliases\[2\]\.src: .* does not list;.*",
    ),
    "user twice": (
        ROW,
        ROW + ", " + ROW.replace("user@s", "USER@S", 1),
        r"mail_users\[4\]\.email: .* as mail_users\[3\].*",
    ),
    "alias twice": (
        ALIASES,
        ALIASES + '{ src = "info@second.test", dst = "someone@elsewhere.test" },\n',
        r"mail_aliases\[3\]: info@second\.test -> someone@.* is there already, as mail_aliases\[1\];.*",
    ),
    "admin would bounce": (
        '"admin@example.test"\n',
        '"boss@example.test"\n',
        r'admin_email: "boss@.*" would bounce; .*',
    ),
    "admin is nobody's system alias": (
        '"admin@example.test"\n',
        '"root@second.test"\n',
        r"admin_email: .* would bounce.*",
    ),
    "admin at the mailhost": (
        '"admin@example.test"\n',
        '"root@mail.example.test"\n',
        r'admin_email: "root@mail\.example\.test" is at a machine, .*; name a mailbox of mail_users or .*',
    ),
    "admin at a null client": (
        '"admin@example.test"\n',
        '"root@backup.example.test"\n',
        r"admin_email: .* is at a machine, .*",
    ),
    "admin at whatever machine": (
        '"admin@example.test"\n',
        '"root@localhost.localdomain"\n',
        r"admin_email: .* is at a machine, .*",
    ),
    "relay missing": (
        'email = "relay@',
        'email = "rely@',
        r'mail_users: has no "relay@.*", as whom backup will log in;.*',
    ),
    "relay elsewhere": (
        TOP,
        TOP + 'relay_email = "null@example.test"\n',
        r'mail_users: has no "null@example\.test", .*',
    ),
    "system address with a domain": (
        TOP,
        TOP + 'mail_local_admin_aliases = ["root@example.test"]\n',
        r'mail_local_admin_aliases\[1\]: "root@example\.test" is not the local part .*; leave out the @ .*',
    ),
    "system address twice": (
        TOP,
        TOP + 'mail_local_admin_aliases = ["abuse", "abuse"]\n',
        r"mail_local.*\[2\]: .*",
    ),
    # Aliases that lead nowhere
    "loop of two": (
        ALIASES,
        ALIASES + A_TO_B + '{ src = "b@second.test", dst = "a@second.test" },\n',
        r"mail_aliases: (b@second\.test) -> a@second\.test -> \1 is a loop; let one of them end in a mailbox",
    ),
    "loop of one": (
        ALIASES,
        ALIASES + '{ src = "a@second.test", dst = "a@second.test" },',
        r"mail_aliases: a@second\.test -> a@second\.test is a loop; .*",
    ),
    "loop through a detail": (
        ALIASES,
        ALIASES + A_TO_B + '{ src = "b@second.test", dst = "a+x@second.test" },\n',
        r"mail_aliases: .* is a loop; .*",
    ),
    "loop of two domains": (
        ALIASES,
        ALIASES
        + '{ src = "@example.test", dst = "x@second.test" },\n{ src = "@second.test", dst = "x@example.test" },\n',
        r"mail_aliases: @.*\.test -> @.*\.test -> @.*\.test is a loop; .*",
    ),
    "alias for a whole domain, as elsewhere": (
        '"sales@example.test"',
        '"*@example.test"',
        r'mail_aliases\[1\]\.src: "\*@example\.test" is not an address; for what no mailbox and no other alias of the '
        r'domain has, write "@example\.test"',
    ),
    "loop through a system alias": (
        'admin_email = "admin@example.test"',
        'admin_email = "info@second.test"\nmail_local_admin_aliases = ["postmaster", "staff"]',
        "",  # made whole in the test below
    ),
    "alias hides a mailbox": (
        "sales@example.test",
        "admin@example.test",
        r'mail_aliases\[1\]\.src: "admin@example\.test" is a mailbox, which this alias would hide; .*',
    ),
    # Passwords
    "user's, in clear": (
        PW,
        f'"{CLEAR}"',
        r"mail_users\[3\]\.pw: is a password in clear; write a reference, .*",
    ),
    "user's, all digits": (
        PW,
        "12345678",
        r"mail_users\[3\]\.pw: is a password in clear; write a reference, .*",
    ),
    "vault's, in clear": (
        PASSPHRASE,
        f'"{CLEAR}"',
        r"cryptdir_pw: is a password in clear; write a reference, .*",
    ),
    "sudo's, in clear": (
        '{ prompt = "sudo on backup" }',
        f'"{CLEAR}"',
        r"hosts\.backup\.sudo_pw: is a password in .*",
    ),
    "in clear, in a table": (
        PW,
        f'{{ value = "{CLEAR}" }}',
        r"mail_users\[3\]\.pw\.value: is not a known key; .*",
    ),
    "in clear, as a variable": (
        PW,
        f'{{ env = "{CLEAR}" }}',
        r"mail_users\[3\]\.pw\.env: is not the name of an .*",
    ),
    "in clear, as an entry": (
        PW,
        f'{{ keyring = "{CLEAR}" }}',
        r'mail_users\[3\]\.pw\.keyring: .* "service/user"',
    ),
    "two sources": (
        PASSPHRASE,
        '{ prompt = "x", env = "X" }',
        r"cryptdir_pw: says prompt and env; write exactly .*",
    ),
    "no source": (
        PASSPHRASE,
        "{}",
        r"cryptdir_pw: says nothing; write exactly one of prompt, env, command, keyring",
    ),
    "empty source": (PASSPHRASE, '{ env = "" }', r'cryptdir_pw\.env: is empty; write env = "NAME"'),
    "list": (PASSPHRASE, f'["{CLEAR}"]', r"cryptdir_pw: is a list; write a reference, such as .*"),
    # Hosts
    "no such role": (
        '"mailhost"',
        '"mailhots"',
        r'hosts\.mail\.role: "mailhots" is not a role; write one of mailhost,.*',
    ),
    "port 0": ("port = 22", "port = 0", r"hosts\.mail\.port: cannot be 0; write one from 1 to 65535"),
    "senders of a mailhost": (
        "debian = 13",
        'debian = 13\nsenders = ["shop@example.test"]',
        r"hosts\.mail\.senders: is for a mailnull\b.*, and mail is a mailhost; .*",
    ),
    "a machine that is a domain": (
        "debian = 13",
        'debian = 13\n[hosts."second.test"]\nrole = "mailnull"\ndebian = 13',
        r'hosts\."second\.test": "second\.test" is among mail_domains: .*; call it \[hosts\.web\], say, with .*',
    ),
    "Debian 11": ("debian = 13", "debian = 11", r"hosts\.mail\.debian: cannot be 11; write 12 or 13"),
    "bad IP address": (
        "192.0.2.25",
        "192.0.2.325",
        r'hosts\.mail\.address: "192\.0\.2\.325" is neither a host name .*',
    ),
    "user in the address": (
        "192.0.2.25",
        "root@mail",
        r"hosts\.mail\.address: .*; write the part before the @ as user",
    ),
    "port in the address": (
        "192.0.2.25",
        "mail:22",
        r"hosts\.mail\.address: .*; write .* the last colon as port",
    ),
    "bad login name": ('"root"', '"-root"', r'hosts\.mail\.user: "-root" is not a login name; .*'),
    "bad name": (
        "[hosts.backup]",
        "[hosts.Back_up]",
        r"hosts\.Back_up: is not a name for a machine; use a-z, .*",
    ),
    "same address": (
        "[hosts.backup]",
        '[hosts.backup]\naddress = "192.0.2.25"',
        r"hosts\.backup\.address: .* of mail; .*",
    ),
    "two mailhosts": (
        '"mailnull"',
        '"mailhost"',
        r"hosts: mail and backup are both mailhosts; a site has one, .*",
    ),
    "fingerprint as host key": (
        MAIL_KEY,
        'host_key = "SHA256:abc"',
        r"hosts\.mail\.host_key: does not begin with a .*",
    ),
    "host key with a comment": (
        HOST_KEY,
        f"{HOST_KEY} root@mail",
        r"hosts\.mail\.host_key: .* leave out the comment.*",
    ),
    "host key cut off": (HOST_KEY, HOST_KEY[:-8], r"hosts\.mail\.host_key: is damaged after ssh-ed25519; .*"),
    "host key of another type": (
        HOST_KEY,
        f"ssh-rsa {_BLOB}",
        r"hosts\.mail\.host_key: is damaged after ssh-rsa; .*",
    ),
    "no resolver": (TOP, TOP + 'resolver = "dns.test"\n', r'resolver: "dns\.test" is not an IP address; .*'),
    # DKIM and folders
    "bad selector": ('"202611"', '"2026/11"', r'dkim_selector: "2026/11" is not a selector; use letters, .*'),
    "selector climbs": ('"202611"', '"..x"', r'dkim_selector: "\.\.x" is not a selector; .*'),
    "next is current": (
        TOP,
        TOP + 'dkim_selector_next = "202611"\n',
        r'dkim_selector_next: "202611" is dkim_sel.*',
    ),
    "relative path": (TOP, 'vault = "vault"\n', r'vault: "vault" is not an absolute path; begin it with /'),
    "dots in a path": (TOP, 'vault = "/srv/../etc"\n', r'vault: "/srv/\.\./etc" is not a plain path; .*'),
    "blank in a path": (TOP, 'vault = "/srv/my mail"\n', r'vault: "/srv/my mail" is not a plain path; .*'),
    "vault is /": (TOP, 'vault = "/"\n', r'vault: "/" belongs to the system; .*'),
    "vault below /etc": (TOP, 'vault = "/etc/vault"\n', r'vault: "/etc/vault" belongs to the system; .*'),
    "vault is /var/lib": (TOP, 'vault = "/var/lib"\n', r'vault: "/var/lib" belongs to the system; .*'),
    "keys outside": (
        TOP,
        TOP + 'dkim_keyroot = "/srv/dkim"\n',
        r'dkim_keyroot: "/srv/dkim" is not inside the vault;.*',
    ),
    "scripts beside": (
        TOP,
        TOP + 'sieve_root = "/vaults/x"\n',
        r'sieve_root: "/vaults/x" is not inside the vault;.*',
    ),
    "keys among mail": (
        TOP,
        TOP + 'dkim_keyroot = "/vault/mail/k"\n',
        r"dkim_keyroot: .* overlaps the folder of mail .*",
    ),
    "scripts among keys": (
        TOP,
        TOP + 'sieve_root = "/vault/dkim"\n',
        r"sieve_root: .* overlaps dkim_keyroot .*",
    ),
    "ciphertext inside": (
        TOP,
        TOP + 'vault_cipherdir = "/vault/c"\n',
        r"vault_cipherdir: .* lies in the vault that it .*",
    ),
    "vault in ciphertext": (
        '"/vault"',
        '"/var/lib/mailops/vault/v"',
        r"vault: .* lies in vault_cipherdir; .*",
    ),
}
# fmt: on
SYSTEM_LOOP = WRONG.pop("loop through a system alias")


@pytest.mark.parametrize(("old", "new", "line"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_site_gets_its_one_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    problems = _problems(tmp_path, _mutated(old, new))
    assert len(problems) == 1, problems
    assert re.fullmatch("hosts\\.toml: " + line, problems[0]), problems[0]
    assert CLEAR not in problems[0]
    assert "12345678" not in problems[0]


@pytest.mark.parametrize(
    ("end", "line"),
    [
        ("root@mail.example.test", "which is at a machine, whose mail goes to admin_email in turn; .*"),
        ("someone@second.test", "which would bounce; .*"),
    ],
)
def test_an_alias_of_the_administrators_must_lead_to_somebody(tmp_path: Path, end: str, line: str) -> None:
    text = _mutated('"admin@example.test"\n', '"sales@example.test"\n')
    (problem,) = _problems(tmp_path, text.replace('dst = "user@second.test"', f'dst = "{end}"'))
    assert re.fullmatch(rf'hosts\.toml: admin_email: "sales@.*" leads to {re.escape(end)}, {line}', problem), problem
    assert _load(tmp_path, text).admin_email == "sales@example.test"
    assert _load(tmp_path, text.replace('sales@example.test"\n', 'boss@elsewhere.test"\n', 1))


URL = "https://apt.elsewhere.test/stable/"
UPSTREAM = {"url": URL, "key": "its.asc", "fingerprint": FINGERPRINT}


def _with_upstream(tmp_path: Path, kind: str = "upstream", **changes: str | None) -> str:
    """The good site with a source of Rspamd's; a key that is None is left out."""
    (tmp_path / "its.asc").write_text(KEY)
    values = {name: value for name, value in (UPSTREAM | changes).items() if value is not None}
    table = ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
    return _mutated(TOP, f'{TOP}rspamd = "{kind}"\nrspamd_upstream = {{ {table} }}\n')


def test_a_source_of_rspamd_is_its_address_and_the_one_key_that_the_fingerprint_names(tmp_path: Path) -> None:
    found = _load(tmp_path, _with_upstream(tmp_path, url=URL.rstrip("/"), suite="sid", fingerprint=SPACED))
    armoured = openpgp.public_key(KEY)[1]
    assert (found.rspamd, found.rspamd_upstream) == ("upstream", Upstream(URL, "sid", armoured))
    assert _load(tmp_path, _with_upstream(tmp_path, "debian")).rspamd == "debian"
    whole = str(tmp_path / "its.asc")
    assert _load(tmp_path, _with_upstream(tmp_path, key=whole)).rspamd_upstream == Upstream(URL, None, armoured)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"kind": "newest"}, 'rspamd: "newest" is not known; write "debian" or "upstream"'),
        (
            {"url": "ftp://x.test/"},
            r"rspamd_upstream.url: .* is not the address of a repository; write one like https.*",
        ),
        ({"url": "https://me:pw@x.test/"}, r"rspamd_upstream.url: .*; leave out user and password"),
        ({"url": "http://x.test:99999/"}, r"rspamd_upstream.url: .* is not the address of a repository; .*"),
        ({"url": "http://x.test/a\nTrusted: yes"}, r"rspamd_upstream.url: has a character that cannot be seen; .*"),
        ({"url": None}, r"rspamd_upstream.url: is missing; write url = .*"),
        ({"key": None}, r"rspamd_upstream.key: is missing; write key = .*"),
        ({"key": "no.asc"}, r"rspamd_upstream.key: no.asc cannot be read: No such file or directory; write the path.*"),
        ({"key": "hosts.toml"}, r"rspamd_upstream.key: hosts.toml does not hold one ASCII-armoured public key; gpg .*"),
        ({"fingerprint": None}, r"rspamd_upstream.fingerprint: is missing; write fingerprint = .*"),
        (
            {"fingerprint": FINGERPRINT[-16:]},
            r"rspamd_upstream.fingerprint: .* is not a whole fingerprint; write its 40.*",
        ),
        (
            {"fingerprint": "0" * 40},
            rf"rspamd_upstream.fingerprint: is not that of its.asc, which is {FINGERPRINT}; ask its owner.*",
        ),
        ({"suite": "trixie main"}, r"rspamd_upstream.suite: .* is not a suite; write one like trixie, or leave it out"),
    ],
)
def test_a_wrong_source_gets_its_one_line(tmp_path: Path, changes: dict[str, str | None], line: str) -> None:
    (problem,) = _problems(tmp_path, _with_upstream(tmp_path, **changes))  # type: ignore[arg-type]
    assert re.fullmatch("hosts\\.toml: " + line, problem), problem


def test_upstreams_rspamd_has_no_source_by_default(tmp_path: Path) -> None:
    (problem,) = _problems(tmp_path, _mutated(TOP, f'{TOP}rspamd = "upstream"\n'))
    assert "rspamd_upstream: is missing, and rspamd is upstream's; write rspamd_upstream = {" in problem


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ('{ src = "a@second.test", dst = "usr@second.test" },', '"usr@second.test" is neither a mailbox nor an alias'),
        ('{ src = "a@second.test", dst = "usr@second.test" },', 'did you mean "user@second.test"?'),
        ('{ src = "@second.test", dst = "ghost@second.test" },', '"ghost@second.test" is neither'),
        ('{ src = "@second.test", dst = "user@second.test" }, { src = "a@second.test", dst = "b@second.test" },', ""),
        ('{ src = "a@second.test", dst = "user+x@second.test" },', ""),
        ('{ src = "a@second.test", dst = "postmaster@second.test" },', ""),
        ('{ src = "a@second.test", dst = "b@elsewhere.test" },', ""),
    ],
)
def test_an_alias_to_nobody_here_is_named_and_is_no_fault(tmp_path: Path, rows: str, told: str) -> None:
    """The database may have a mailbox of that name, which `user.add` made."""
    notes = _load(tmp_path, _mutated(ALIASES, f"{ALIASES}{rows}\n")).notes
    assert len(notes) == bool(told), notes
    assert told in "".join(notes)


def test_a_loop_through_a_system_alias_is_found(tmp_path: Path) -> None:
    text = _mutated(*SYSTEM_LOOP[:2]).replace('dst = "someone@elsewhere.test"', 'dst = "staff@example.test"')
    (line,) = _problems(tmp_path, text)
    assert "staff@example.test -> info@second.test" in line
    assert "is a loop" in line


def test_all_problems_come_at_once_and_no_password_is_among_them(tmp_path: Path) -> None:
    text = f"""\
domain = "example"
admin_email = 7
mail_domains = ["example.test", "example.test", "-x.test"]
mail_users = [
    {{ email = "admin@example.test", pw = "{CLEAR}" }},
    {{ email = "admin@example.test", pw = {{ prompt = "x", env = "{CLEAR}" }} }},
    {{ pw = {{ password = "{CLEAR}" }} }},
]
mail_aliases = [{{ src = "foo", dst = "" }}]
cryptdir_pw = "{CLEAR}"
dkim_selector = "a b"
vault = "/usr"
passwd = "{CLEAR}"
[hosts.mail]
role = "mailhost"
port = 99999
sudo_pw = ["{CLEAR}"]
[hosts.mail2]
role = "mailhost"
[hosts.x]
"""
    problems = _problems(tmp_path, text)
    keys = [line.split(": ")[1] for line in problems]
    assert sorted(keys) == sorted(
        [
            "domain",
            "admin_email",
            "mail_domains[2]",
            "mail_domains[3]",
            "mail_users[1].pw",
            "mail_users[2].email",
            "mail_users[2].pw.env",
            "mail_users[3].email",
            "mail_users[3].pw.password",
            "mail_aliases[1].src",
            "mail_aliases[1].dst",
            "cryptdir_pw",
            "dkim_selector",
            "vault",
            "passwd",
            "hosts.mail.port",
            "hosts.mail.sudo_pw",
            "hosts.x.role",
            "hosts",
        ]
    )
    assert CLEAR not in "\n".join(problems)


@pytest.mark.parametrize(
    "broken", [f"cryptdir_pw = {CLEAR}", f'cryptdir_pw = "{CLEAR}', f'"{CLEAR}"', f"{CLEAR} {CLEAR}"]
)
def test_a_syntax_error_does_not_show_the_line(tmp_path: Path, broken: str) -> None:
    (line,) = _problems(tmp_path, f"{broken}\n{GOOD}")
    assert "is not TOML" in line
    assert CLEAR not in line


def test_a_password_is_in_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(SiteError) as caught:
        _load(tmp_path, _mutated(PASSPHRASE, f'"{CLEAR}"'))
    assert caught.value.__cause__ is None
    assert CLEAR not in repr(caught.value)


def test_a_good_site(tmp_path: Path) -> None:
    loaded = _load(tmp_path, GOOD)
    assert loaded.path == tmp_path / "hosts.toml"
    assert loaded.mail_domains == ("example.test", "second.test")
    assert [user.email for user in loaded.mail_users][2] == "user@second.test"
    assert loaded.mail_users[1].pw == Secret("env", "RELAY_PW", "mail_users[2].pw")
    assert loaded.mail_aliases[0] == Alias("sales@example.test", "user@second.test")
    mail, backup = loaded.hosts.values()
    assert (mail.name, mail.role, mail.address, mail.port, mail.debian) == (
        "mail",
        "mailhost",
        "192.0.2.25",
        22,
        13,
    )
    assert mail.host_key == HOST_KEY
    assert (backup.address, backup.port, backup.user, backup.host_key) == (None, None, None, None)
    assert backup.sudo_pw == Secret("prompt", "sudo on backup", "hosts.backup.sudo_pw")
    assert "sudo on backup" not in repr(loaded)


def test_the_defaults(tmp_path: Path) -> None:
    loaded = _load(
        tmp_path,
        'domain = "Example.TEST"\nadmin_email = "Me@Elsewhere.test"\nvault = "/srv/v"\n[hosts.x]\nrole = "bastion"\n',
    )
    assert loaded.domain == "example.test"
    assert loaded.admin_email == "me@elsewhere.test"
    assert loaded.mail_domains == ("example.test",)
    assert (loaded.mail_users, loaded.mail_aliases) == ((), ())
    assert loaded.mail_server_hostname == "mail.example.test"
    assert loaded.relay_email == "relay@example.test"
    assert (loaded.dkim_selector, loaded.dkim_selector_next) == ("", "")
    assert (loaded.dkim_keyroot, loaded.sieve_root) == ("/srv/v/dkim", "/srv/v/sieve")
    assert loaded.vault_cipherdir == "/var/lib/mailops/vault"
    assert loaded.resolver is None
    assert loaded.cryptdir_pw.where == "cryptdir_pw"
    assert {"postmaster", "abuse", "root", "hostmaster", "webmaster"} <= set(loaded.mail_local_admin_aliases)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(
            ALIASES,
            ALIASES + USER_TO.format("x@y.test") + USER_TO.format("user@second.test"),
            id="an alias beside a mailbox that keeps a copy",
        ),
        pytest.param(
            ALIASES,
            ALIASES
            + "".join(
                f'{{ src = "{src}", dst = "{dst}" }},'
                for src in ("user@second.test", "admin@example.test")
                for dst in ("user@second.test", "admin@example.test")
            ),
            id="two who read each other's mail",
        ),
        pytest.param('dst = "user@', 'dst = "user+sales@', id="an alias to a detail"),
        pytest.param('"admin@example.test"\n', '"sales+admin@example.test"\n', id="an admin who is an alias"),
        pytest.param('"202611"', '""', id="no signing"),
        pytest.param("192.0.2.25", "2001:db8::25", id="IPv6"),
        pytest.param("[hosts.backup]", '[hosts."backup.example.org"]', id="a name with dots"),
        pytest.param("[hosts.backup]", '[hosts.backup]\nport = 2222\naddress = "192.0.2.25"', id="two behind a NAT"),
        pytest.param('{ command = "pass show mail/admin" }', '{ command = "a\\nb" }', id="a command of two lines"),
    ],
)
def test_what_is_allowed(tmp_path: Path, old: str, new: str) -> None:
    _load(tmp_path, _mutated(old, new))


def test_a_mailnull_needs_neither_mailhost_nor_passphrase(tmp_path: Path) -> None:
    text = _mutated('"mailhost"', '"webmail"').replace(f"cryptdir_pw = {PASSPHRASE}\n", "")
    assert _load(tmp_path, text).hosts["backup"].role == "mailnull"


def test_system_aliases_leave_out_what_is_somebody_already(tmp_path: Path) -> None:
    text = _mutated(TOP, TOP + 'mail_local_admin_aliases = ["Root", "admin", "sales"]\n')
    assert _load(tmp_path, text).system_aliases() == (
        Alias("root@example.test", "admin@example.test"),
        Alias("root@second.test", "admin@example.test"),
        Alias("admin@second.test", "admin@example.test"),
        Alias("sales@second.test", "admin@example.test"),
    )


def test_a_file_that_cannot_be_read_gets_a_line_too(tmp_path: Path) -> None:
    path = tmp_path / "hosts.toml"
    for content, words in (
        (None, "cannot be read: No such file or directory"),
        (b'# one\ndomain = "\xff"\n', "line 2: is not UTF-8"),
        (b"a = " + b"[" * 100_000, "is nested too deeply"),
        (b"a = " + b"9" * 10_000, "is not TOML"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SiteError, match=words) as caught:
            reader.load(path)
        assert len(caught.value.problems) == 1


def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MAILOPS_SITE", raising=False)
    with pytest.raises(MailopsError, match=r"there is no hosts.toml in this folder"):
        place.find()
    (tmp_path / "hosts.toml").touch()
    assert place.find() == Path("hosts.toml")
    monkeypatch.setenv("MAILOPS_SITE", str(tmp_path))
    assert place.find() == tmp_path / "hosts.toml"
    monkeypatch.setenv("MAILOPS_SITE", "elsewhere.toml")
    with pytest.raises(MailopsError, match=r"MAILOPS_SITE names elsewhere.toml") as caught:
        place.find()
    assert caught.value.code == BAD_INPUT


def test_the_example_is_a_good_site() -> None:
    loaded = reader.load(Path(__file__).parents[3] / "hosts.toml")
    assert {host.role for host in loaded.hosts.values()} == {"mailhost", "mailnull"}


def test_no_remote_machinery_is_imported() -> None:
    import subprocess
    import sys

    code = (
        "import sys, mailops.site.reader, mailops.site.place;"
        "sys.exit(bool({'fabric', 'invoke', 'paramiko', 'tomlkit', 'jinja2', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_domain_in_other_letters_is_taken_in_ascii_and_that_is_said(tmp_path: Path) -> None:
    text = GOOD.replace("second.test", "Müller.test").replace("sales@example", "sales@bücher").replace("TEST", "test")
    text = text.replace('["example.test", ', '["example.test", "bücher.test", ')
    found = _load(tmp_path, text)
    assert found.mail_domains == ("example.test", "xn--bcher-kva.test", "xn--mller-kva.test")
    assert found.mail_users[2].email == "user@xn--mller-kva.test"
    assert found.mail_aliases[0] == Alias("sales@xn--bcher-kva.test", "user@xn--mller-kva.test")
    said = f'{tmp_path}/hosts.toml: mail_domains[3]: "Müller.test" is "xn--mller-kva.test" in mail'
    assert said in found.notes
    assert _load(tmp_path, GOOD).notes == ()
