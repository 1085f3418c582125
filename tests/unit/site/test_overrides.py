"""[override] in hosts.toml: which values fit, what they change, and the one line that each wrong one gets."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mailops.lab import blueprint
from mailops.roles import MADE
from mailops.services.compose import manifest_for
from mailops.site import defaults, edit, reader
from mailops.site.model import Host, Override, Site
from mailops.site.override import WORKED_OUT
from tests.unit.site.test_site import GOOD, TOP, _load, _problems

RELEASES = (12, 13)
KNOWN = [(role, name) for role in MADE for name in defaults.of(role)]

SITE, MAIL, BACKUP = "override", "hosts.mail.override", "hosts.backup.override"

# What is written below which table, and what its line says (a regular expression, whole).
WRONG: dict[str, tuple[str, str, str, str]] = {
    # Names
    "misspelt": (SITE, "message_size_limt", "5", r".*; did you mean message_size_limit\?"),
    "unheard of": (
        SITE,
        "zzz",
        "5",
        r"is not a variable of the templates; all of them are in .*/dovecot/defaults\.toml, .*/nullclient/.*;"
        r" what has no variable goes into /etc/mailops/local/ on the machine",
    ),
    "unheard of, on a host": (
        MAIL,
        "zzz",
        "5",
        r".*; all of them are in .*/postfix/defaults\.toml, .*",
    ),
    "misspelt, on a host": (BACKUP, "queue_run_dely", '"9s"', r".* mean queue_run_delay\?"),
    "of another role": (
        BACKUP,
        "rspamd_reject",
        "5",
        "is a variable of the role mailhost, and backup is a mailnull; remove it",
    ),
    "worked out": (SITE, "fqdn", '"x.test"', "is worked out from .*; it cannot be overridden"),
    "worked out, on a host": (MAIL, "release", "12", "is worked out from .*"),
    "of the site": (
        SITE,
        "dkim_keyroot",
        '"/vault/k"',
        r"is a key of the whole site, not a variable; move it above the \[override\] line",
    ),
    "of a machine": (
        SITE,
        "port",
        "22",
        r"is a key of one machine, not a variable; move it below its \[hosts\.…\] line",
    ),
    "of that machine": (BACKUP, "debian", "12", r".* move it above the \[hosts\.backup\.override\] line"),
    "of the site, on a host": (
        MAIL,
        "sieve_root",
        '"/vault/s"',
        r"is one for the whole site; move it above the first \[hosts\.…\] line",
    ),
    "of the site, on the mailhost": (MAIL, "admin_email", '"user@second.test"', "is one for the whole site; .*"),
    # Kinds
    "text for number": (SITE, "message_size_limit", '"5"', "is a text; write message_size_limit = 52428800"),
    "fraction for number": (
        SITE,
        "message_size_limit",
        "1.5",
        r"cannot be 1\.5; write a whole number, such as message_size_limit = 52428800",
    ),
    "true for number": (SITE, "message_size_limit", "true", "is true or false; write .*"),
    "less than nothing": (SITE, "rspamd_add_header", "-1.5", r"cannot be -1\.5; write 0 or more"),
    "no scanner": (
        MAIL,
        "rspamd_scanners_incoming",
        "0",
        "cannot be 0; write 1 or more; with less no mail gets through",
    ),
    "megabytes": (SITE, "message_size_limit", "50", "cannot be 50; write 0, for no limit, or 100000 or more; .*"),
    "endless": (SITE, "rspamd_reject", "inf", "cannot be inf; .*"),
    "not a number": (SITE, "rspamd_reject", "nan", "cannot be nan; .*"),
    "text for score": (SITE, "rspamd_reject", '"15"', r"is a text; write rspamd_reject = 15\.0"),
    "number for text": (SITE, "smtpd_banner", "7", r'is a number; write smtpd_banner = "\$myhostname ESMTP"'),
    "list for text": (SITE, "smtpd_banner", '["x"]', "is a list; write .*"),
    "number for list": (SITE, "mailboxes", "7", r'is a number; write mailboxes = \["Drafts", "Sent", .*\]'),
    "number in a list": (SITE, "mailboxes", '["Sent", 7]', "is a list with a number in it; write mailboxes = .*"),
    "text for true": (SITE, "greylisting", '"yes"', "is a text; write greylisting = false"),
    "number for true": (SITE, "greylisting", "1", "is a number; write .*"),
    "a date": (MAIL, "message_size_limit", "2026-11-01", "is a date; .*"),
    # Texts
    "empty": (SITE, "smtpd_banner", '" "', "is empty; write .*"),
    "empty in a list": (SITE, "mailboxes", '["Sent", ""]', "is empty; .*"),
    "two lines": (
        SITE,
        "smtpd_banner",
        r'"a\nrelayhost = evil.test"',
        "has a line break, and .* another setting; write it on one line",
    ),
    "two lines, as Windows has them": (SITE, "smtpd_banner", r'"a\r\nb"', "has a line break, .*"),
    "two lines in a list": (SITE, "smtpd_data_restrictions", r'["a", "b\n c"]', "has a line break, .*"),
    "two lines in a text for a list": (SITE, "smtpd_data_restrictions", '"""\na,\nb"""', "has a line break, .*"),
    "invisible": (SITE, "smtpd_banner", r'"a\u0007"', "has a character that cannot be seen; .*"),
    # Keys of the site that a mailnull may see otherwise: as strict as where they stand else
    "no address": (BACKUP, "admin_email", '"me"', '"me" is not an address; .*'),
    "admin would bounce": (BACKUP, "admin_email", '"me@second.test"', r'"me@second\.test" would bounce; .*'),
    "no such account": (BACKUP, "relay_email", '"me@second.test"', r'"me@second\.test" is not among mail_users, .*'),
}


@pytest.mark.parametrize(("table", "name", "value", "text"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_override_gets_its_one_line(tmp_path: Path, table: str, name: str, value: str, text: str) -> None:
    problems = _problems(tmp_path, f"{GOOD}\n[{table}]\n{name} = {value}\n")
    assert len(problems) == 1, problems
    assert re.fullmatch(re.escape(f"hosts.toml: {table}.{name}: ") + text, problems[0]), problems[0]


def test_other_tables_get_theirs(tmp_path: Path) -> None:
    (line,) = _problems(tmp_path, f"{GOOD}[[override]]\nmessage_size_limit = 5\n")
    assert line == "hosts.toml: override: is a list; write [override] with variables below it"
    (line,) = _problems(tmp_path, f"{GOOD}[override.zzz]\nreject = 5\n")
    assert "override.zzz: is not a variable" in line


def test_a_variable_in_a_wrong_place_is_shown_the_right_one(tmp_path: Path) -> None:
    (line,) = _problems(tmp_path, GOOD.replace(TOP, TOP + "message_size_limit = 5\n"))
    assert line.endswith("it is a variable of the templates: move it below a line [override]")
    (line,) = _problems(tmp_path, GOOD.replace("port = 22\n", "message_size_limit = 5\n"))
    assert line.endswith("it is a variable of the templates: move it below a line [hosts.mail.override]")
    (line,) = _problems(tmp_path, GOOD.replace("port = 22\n", "override = 5\n"))
    assert line == "hosts.toml: hosts.mail.override: is a number; write [hosts.mail.override] with variables below it"


def test_what_slipped_below_the_override_is_not_missing_as_well(tmp_path: Path) -> None:
    """In TOML everything below a [header] belongs to it."""
    first, rest = GOOD.split("\n", 1)
    (line,) = _problems(tmp_path, f"{rest}\n[override]\n{first}\n")
    assert line.startswith("hosts.toml: override.domain: is a key of the whole site")
    problems = _problems(tmp_path, GOOD.replace("[hosts.mail]\n", "[hosts.mail.override]\n"))
    assert len(problems) == 6
    assert all("move it above the [hosts.mail.override] line" in line for line in problems)


def test_a_role_that_is_wrong_itself_hides_nothing_and_adds_nothing(tmp_path: Path) -> None:
    text = GOOD.replace('"mailnull"', '"mailnul"') + "[hosts.backup.override]\n"
    (line,) = _problems(tmp_path, f'{text}queue_run_delay = "9s"\nrspamd_reject = 5\n')
    assert "hosts.backup.role" in line
    assert len(_problems(tmp_path, f"{text}zzz = 5\n")) == 2


def test_a_role_without_templates_has_nothing_to_override(tmp_path: Path) -> None:
    (line,) = _problems(
        tmp_path, f'{GOOD}[hosts.web]\nrole = "webmail"\n[hosts.web.override]\ninet_protocols = "all"\n'
    )
    assert (
        "hosts.web.override.inet_protocols: has nothing to change: there are no templates for the role webmail" in line
    )


def test_good_overrides(tmp_path: Path) -> None:
    loaded = _load(
        tmp_path,
        f"""{GOOD}
[override]
message_size_limit = 1000000
rspamd_reject = 12
rspamd_add_header = 4.5
greylisting = true
smtpd_data_restrictions = []
smtpd_helo_restrictions = "permit_mynetworks, reject"
redis_maxmemory = ""
[hosts.mail.override]
message_size_limit = 2000000
[hosts.backup.override]
relay_email = "User@second.test"
""",
    )
    assert loaded.override == {
        "message_size_limit": 1000000,
        "rspamd_reject": 12,
        "rspamd_add_header": 4.5,
        "greylisting": True,
        "smtpd_data_restrictions": (),
        "smtpd_helo_restrictions": ("permit_mynetworks, reject",),
        "redis_maxmemory": "",
    }
    mail, backup = loaded.hosts.values()
    assert mail.override == {"message_size_limit": 2000000}
    assert backup.override == {"relay_email": "user@second.test"}
    assert defaults.values(loaded, mail)["message_size_limit"] == 2000000
    assert defaults.values(loaded, backup)["message_size_limit"] == 1000000
    assert "rspamd_reject" not in defaults.values(loaded, backup)


def test_nothing_is_overridden_by_default(tmp_path: Path) -> None:
    loaded = _load(tmp_path, GOOD)
    assert loaded.override == {}
    for host in loaded.hosts.values():
        assert host.override == {}
        assert defaults.values(loaded, host) == defaults.of(host.role)
        assert loaded.seen_by(host) is loaded


# --- What the overrides do


def rendered(loaded: Site, name: str, release: int, override: Mapping[str, Override] | None = None) -> dict[str, str]:
    host = loaded.hosts[name]
    if override:
        host = dataclasses.replace(host, override=override)
        loaded = dataclasses.replace(loaded, hosts={**loaded.hosts, name: host})
    facts = {"release": release, "mailhost_certificate": ""}
    made = manifest_for(loaded, host, facts, lambda reference: "hunter2")
    return {file.path: file.content.decode() for file in made.files}


def other_than(default: Override) -> Any:
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default + 3.5 if isinstance(default, float) else default + 3
    return ("mailops-test-a", "mailops-test-b") if isinstance(default, tuple) else "mailops-test"


@pytest.mark.parametrize(("role", "name"), KNOWN, ids=str)
def test_every_variable_reaches_a_file(tmp_path: Path, role: str, name: str) -> None:
    loaded = _load(tmp_path, GOOD)
    host = "mail"
    if role != "mailhost":
        host, loaded = "backup", _load(tmp_path, GOOD.replace('role = "mailnull"', f'role = "{role}"', 1))
    # What counts only beside another one.
    beside: dict[str, Override] = {"rspamd_greylist": True, "redis_maxmemory_policy": "1gb"}
    needed = {"rspamd_greylist": "greylisting", "redis_maxmemory_policy": "redis_maxmemory"}
    before: dict[str, Override] = {needed[name]: beside[name]} if name in needed else {}
    value = other_than(defaults.of(role)[name])
    for release in RELEASES:
        old = rendered(loaded, host, release, before)
        new = rendered(loaded, host, release, {**before, name: value})
        changed = {path for path in new if new[path] != old.get(path)}
        assert changed, f"{name} changes nothing on Debian {release}"
        assert old.keys() == new.keys()
        if not isinstance(value, bool):
            texts = value if isinstance(value, tuple) else (f"{value:g}" if isinstance(value, float) else str(value),)
            assert all(text in new[path] for path in changed for text in texts)


def test_the_tables_are_good_tables() -> None:
    fields = set(Site.__dataclass_fields__) | set(Host.__dataclass_fields__)
    kinds: dict[str, type] = {}
    for role in MADE:
        for name, value in defaults.of(role).items():
            assert kinds.setdefault(name, type(value)) is type(value), f"{name} is of two kinds"
            assert name not in fields, name
            assert name not in WORKED_OUT, name
    assert defaults.of("webmail") == {}


@pytest.mark.parametrize("release", RELEASES)
def test_a_list_becomes_what_its_daemon_reads(tmp_path: Path, release: int) -> None:
    files = rendered(
        _load(tmp_path, GOOD),
        "mail",
        release,
        {
            "smtpd_recipient_restrictions": ("reject_unknown_nonsense", "permit"),
            "submission_relay_restrictions": ("permit_sasl_authenticated", "reject"),
            "mynetworks": ("127.0.0.0/8",),
            "smtpd_data_restrictions": (),
            "mailboxes": ("Sent", "Sent Items"),
            "rspamd_reject": 12,
            "rspamd_add_header": 4.5,
            "greylisting": True,
            "redis_maxmemory": "256mb",
        },
    )
    main = files["/etc/postfix/main.cf"].splitlines()
    # What no list takes away stands in the line before, and at the start of this one.
    assert "smtpd_recipient_restrictions = check_recipient_access regexp:/etc/postfix/ascii_only," in main
    srs = "  check_recipient_access pipemap:{ regexp:/etc/postfix/srs_recipients, socketmap:unix:private/srs:check }"
    assert f"{srs}, permit_mynetworks, reject_unknown_nonsense, permit," in main
    assert "mynetworks = 127.0.0.0/8" in main
    assert "smtpd_data_restrictions = " in main
    assert "  -o { smtpd_relay_restrictions = permit_sasl_authenticated, reject }" in files["/etc/postfix/master.cf"]
    dovecot = files["/etc/dovecot/dovecot.conf"]
    assert "  mailbox Sent {\n    auto = subscribe\n    special_use = \\Sent\n  }\n" in dovecot
    assert '  mailbox "Sent Items" {\n    auto = subscribe\n  }\n' in dovecot
    actions = files["/etc/rspamd/local.d/actions.conf"].splitlines()
    assert actions[2:] == ["reject = 12;", "add_header = 4.5;", "greylist = 4;"]
    assert "enabled = true;" in files["/etc/rspamd/local.d/greylist.conf"]
    assert "maxmemory 256mb\nmaxmemory-policy volatile-ttl\n" in files["/etc/redis/redis.conf"]


def test_a_mailnull_may_have_its_own_administrator_and_account(tmp_path: Path) -> None:
    loaded = _load(
        tmp_path,
        f"""{GOOD}
[hosts.backup.override]
admin_email = "user@second.test"
relay_email = "user@second.test"
mail_server_hostname = "inside.example.test"
[hosts.other]
role = "mailnull"
""",
    )
    backup, other, mail = (rendered(loaded, name, 13) for name in ("backup", "other", "mail"))
    assert "@backup.example.test user@second.test\n" in backup["/etc/postfix/accounts"]
    assert "@other.example.test admin@example.test\n" in other["/etc/postfix/accounts"]
    assert backup["/etc/postfix/sasl_passwd"] == "[inside.example.test]:587 user@second.test:hunter2\n"
    assert "relayhost = [inside.example.test]:587\n" in backup["/etc/postfix/main.cf"]
    assert (
        "@backup.example.test user@second.test\n@other.example.test relay@example.test\n"
        in (mail["/etc/postfix/host_senders"])
    )


def test_the_site_s_relay_account_is_not_needed_where_all_have_their_own(tmp_path: Path) -> None:
    text = GOOD.replace("relay@example.test", "machine@example.test")
    (line,) = _problems(tmp_path, text)
    assert 'has no "relay@example.test"' in line
    assert _load(tmp_path, f'{text}[hosts.backup.override]\nrelay_email = "machine@example.test"\n').hosts["backup"]


# --- Those who write hosts.toml

WITH_OVERRIDES = f"""{GOOD}
[hosts.backup.override]  # the cellar
queue_run_delay = "30s"

[override]
# Our members send films.
message_size_limit = 104857600
"""


@pytest.mark.parametrize("text", [WITH_OVERRIDES, f"{TOP}override.message_size_limit = 0\n".join(GOOD.split(TOP))])
def test_values_of_the_site_are_written_beside_overrides(tmp_path: Path, text: str) -> None:
    """dkim rotation and `fab trust` write hosts.toml."""
    path = tmp_path / "hosts.toml"
    path.write_text(text)
    before = reader.load(path)
    edit.set_value(path, ("dkim_selector_next",), "202701")
    edit.set_value(path, ("hosts", "backup", "port"), 2222)
    after = reader.load(path)
    assert after.dkim_selector_next == "202701"
    assert after.hosts["backup"].port == 2222
    assert (after.override, after.hosts["backup"].override) == (before.override, before.hosts["backup"].override)
    edit.set_value(path, ("dkim_selector_next",), None)
    edit.set_value(path, ("hosts", "backup", "port"), None)
    assert path.read_text() == text


def test_the_lab_s_copy_has_the_overrides(tmp_path: Path) -> None:
    place = blueprint.Place("10.0.0.1", "ssh-ed25519 AAAA")
    copy = blueprint.copy(WITH_OVERRIDES, {"mail": place, "backup": place}, Path("/k"), "10.0.0.2", Path("/s"))
    data = tomllib.loads(copy)
    assert data["override"] == {"message_size_limit": 104857600}
    assert data["hosts"]["backup"]["override"] == {"queue_run_delay": "30s"}
    assert data["hosts"]["backup"]["address"] == "10.0.0.1"
