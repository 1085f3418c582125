"""The roles' manifests, judged as data: no machine is needed, and nothing is secret in what is remembered."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from mailops.errors import BAD_INPUT, MailopsError
from mailops.manifest import File, Manifest
from mailops.services import render
from mailops.services.compose import manifest_for
from mailops.site.model import LOCAL_ADMIN_ALIASES, Alias, Host, Secret, Site, Upstream, User

RELEASES = (12, 13)
HOSTS = {
    "mail": Host("mail", "mailhost"),
    "backup": Host("backup", "mailnull"),
    "far": Host("far.other.test", "mailnull"),
}
MAIL_UNITS = ("postfix.service", "dovecot.service", "dovecot.socket", "rspamd.service", "redis-server.service")


def secret(name: str) -> Secret:
    return Secret("env", name, f"mail_users {name}")


def password_of(reference: Secret) -> str:
    return f"hunter2-{reference.value}"


def a_site(**changes: Any) -> Site:
    people = ("admin@example.test", "relay@example.test", "user1@example.test", "user2@second.test")
    site = Site(
        path=Path("hosts.toml"),
        domain="example.test",
        admin_email="admin@example.test",
        mail_domains=("example.test", "second.test"),
        mail_users=tuple(User(email, secret(email)) for email in people),
        mail_aliases=(Alias("sales@example.test", "user1@example.test"),),
        mail_local_admin_aliases=LOCAL_ADMIN_ALIASES,
        mail_server_hostname="mail.example.test",
        relay_email="relay@example.test",
        cryptdir_pw=secret("vault"),
        dkim_selector="202611",
        dkim_selector_next="",
        dkim_keyroot="/vault/dkim",
        sieve_root="/vault/sieve",
        vault="/vault",
        vault_cipherdir="/var/lib/mailops/vault",
        resolver=None,
        hosts=HOSTS,
    )
    return dataclasses.replace(site, **changes)


def manifest(name: str = "mail", release: int = 13, certificate: str = "", **changes: Any) -> Manifest:
    facts = {"release": release, "mailhost_certificate": certificate}
    return manifest_for(a_site(**changes), HOSTS[name], facts, password_of)


def files(made: Manifest) -> dict[str, File]:
    return {file.path: file for file in made.files}


def text(made: Manifest, path: str) -> str:
    return files(made)[path].content.decode()


@pytest.fixture(params=[(name, release) for name in ("mail", "backup") for release in RELEASES], ids=str)
def every(request: pytest.FixtureRequest) -> tuple[str, int]:
    choice: tuple[str, int] = request.param
    return choice


def test_the_same_inputs_give_the_same_bytes(every: tuple[str, int]) -> None:
    assert manifest(*every) == manifest(*every)


def test_no_template_mark_is_left_in_any_file(every: tuple[str, int]) -> None:
    for file in manifest(*every).files:
        assert not re.search(rb"\{\{|\{%|= *None\b", file.content), file.path
        assert file.content.endswith(b"\n"), file.path


def test_a_name_that_a_template_does_not_know_is_an_error(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "role").mkdir()
    (tmp_path / "role/file.j2").write_text("{{ nobody }}")
    monkeypatch.setattr(render, "TEMPLATES", tmp_path)
    with pytest.raises(Exception, match="'nobody' is undefined"):
        render.tree(("role",), {})


def test_a_later_folder_replaces_files_of_an_earlier_one(tmp_path: Path, monkeypatch: Any) -> None:
    for folder, name, content in (("a", "one.j2", "{{ x }}\n"), ("a", "two", "{{ x }}"), ("b", "one", "b")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(content)
    monkeypatch.setattr(render, "TEMPLATES", tmp_path)
    assert render.tree(("a", "none"), {"x": "y"}) == {"/one": b"y\n", "/two": b"{{ x }}"}
    assert render.tree(("a", "b"), {"x": "y"}) == {"/one": b"b", "/two": b"{{ x }}"}


def test_paths_are_unique_and_absolute(every: tuple[str, int]) -> None:
    paths = [file.path for file in manifest(*every).files]
    assert len(paths) == len(set(paths))
    assert all(path.startswith("/") and ".j2" not in path for path in paths)


def test_no_password_is_in_what_a_machine_remembers(every: tuple[str, int]) -> None:
    made = manifest(*every)
    assert "hunter2" not in json.dumps(made.to_json())
    assert all(file.secret and file.mode == 0o600 for file in made.files if b"hunter2" in file.content)


def test_the_relay_password_is_in_one_secret_file() -> None:
    made = manifest("backup")
    password_file = files(made)["/etc/postfix/sasl_passwd"]
    assert password_file.content == b"[mail.example.test]:587 relay@example.test:hunter2-relay@example.test\n"
    assert (password_file.mode, password_file.owner, password_file.secret) == (0o600, "root", True)


def test_the_mailhost_asks_for_no_password() -> None:
    def refuse(reference: Secret) -> str:
        raise AssertionError(reference)

    assert manifest_for(a_site(), HOSTS["mail"], {"release": 13}, refuse).files


@pytest.mark.parametrize("password", ["", " hunter2", "hunter2 ", "hunter\n2", "hunter\t2", "hunter\x002"])
def test_a_password_that_postfix_would_misread_is_refused_without_being_shown(password: str) -> None:
    with pytest.raises(MailopsError) as caught:
        manifest_for(a_site(), HOSTS["backup"], {"release": 13}, lambda _: password)
    assert caught.value.code == BAD_INPUT
    assert "mail_users relay@example.test" in str(caught.value)
    assert "hunter" not in str(caught.value)


def test_a_relay_account_without_a_mailbox_is_refused() -> None:
    with pytest.raises(MailopsError, match=r"postman@example\.test is not among mail_users"):
        manifest("backup", relay_email="postman@example.test")


def test_a_role_that_is_not_there_yet_says_so() -> None:
    with pytest.raises(MailopsError, match="webmail is not made"):
        manifest_for(a_site(), Host("web", "webmail"), {"release": 13}, password_of)


@pytest.mark.parametrize("release", RELEASES)
def test_every_mail_unit_is_bound_to_the_vault(release: int) -> None:
    made = manifest(release=release)
    for unit in (*MAIL_UNITS, *(["postfix@.service"] if release == 12 else [])):
        lines = text(made, f"/etc/systemd/system/{unit}.d/mailops-vault.conf").splitlines()
        assert {"BindsTo=mailops-vault.service", "After=mailops-vault.service"} <= {*lines}, unit
        assert "AssertPathIsMountPoint=/vault" in lines, unit
        assert ("LimitCORE=0" in lines) == unit.endswith(".service"), unit
        # They have sockets in the queue directory; bound to its unit they would not come back with it.
        if unit in {"postfix.service", "postfix@.service", "dovecot.service", "rspamd.service"}:
            assert {"Requires=mailops-queue.service", "After=mailops-queue.service"} <= {*lines}, unit
            assert "AssertPathIsMountPoint=/var/spool/postfix" in lines, unit
    # What starts every few seconds asserts nothing: systemd itself would look into a vault that hangs, and hang.
    for unit in ("mailops-accounts.timer", "mailops-accounts.service"):
        lines = text(made, f"/etc/systemd/system/{unit}.d/mailops-vault.conf").splitlines()
        assert "BindsTo=mailops-vault.service" in lines
        assert not [line for line in lines if line.startswith("Assert")]
    # Whatever is tied to the vault stops when gocryptfs dies, and whatever has sockets in the queue with that.
    vault = text(made, "/etc/systemd/system/mailops-vault.service")
    (stop,) = re.findall(r"^ExecStopPost=\S*systemctl stop (.*)$", vault, re.MULTILINE)
    assert {unit for unit in MAIL_UNITS if unit.endswith(".service")} < {*stop.split()}
    queue = text(made, "/etc/systemd/system/mailops-queue.service")
    (kill,) = re.findall(r"^ExecStopPost=\S*systemctl kill --signal=KILL (.*)$", queue, re.MULTILINE)
    instances = {"postfix@*.service"} if release == 12 else set()
    assert {*kill.split()} == {"postfix.service", "dovecot.service", "rspamd.service"} | instances
    assert "[Install]" not in text(made, "/etc/systemd/system/mailops-vault.service").splitlines()
    assert all(service.mail for service in made.services if service.unit in MAIL_UNITS)


@pytest.mark.parametrize("release", RELEASES)
def test_the_vault_is_not_served_by_root(release: int) -> None:
    """As root, Debian's gocryptfs mixes up the owners of files made at the same time (its issue 893)."""
    made = manifest(release=release)
    unit = text(made, "/etc/systemd/system/mailops-vault.service").splitlines()
    assert "User=vmail" in unit
    start = next(line for line in unit if line.startswith("ExecStart="))
    script = "/usr/lib/mailops/open-vault"
    assert script in start
    compile(files(made)[script].content, script, "exec")


@pytest.mark.parametrize("release", RELEASES)
def test_each_release_gets_its_own_dovecot_language(release: int) -> None:
    made = manifest(release=release)
    assert ("dovecot_config_version" in text(made, "/etc/dovecot/dovecot.conf")) == (release == 13)
    assert ("/etc/dovecot/sql.conf" in files(made)) == (release == 12)


def test_a_moved_vault_moves_everything_in_it() -> None:
    made = manifest(
        vault="/srv/safe", dkim_keyroot="/srv/safe/dkim", sieve_root="/srv/safe/sieve", vault_cipherdir="/srv/c"
    )
    for file in made.files:
        assert b"/vault" not in file.content.replace(b"mailops-vault", b"").replace(b"open-vault", b""), file.path
        assert not file.path.startswith("/vault"), file.path
    assert made.vault is not None
    assert {Path(item.path).parts[1:4] for item in made.directories} == {("etc", "mailops", "local")}
    assert all(f"{item.path}/".startswith("/srv/safe/") for item in made.vault.directories)


def test_key_and_sieve_folders_may_lie_outside_of_the_vault() -> None:
    made = manifest(dkim_keyroot="/etc/dkim", sieve_root="/vaultage/sieve")
    assert made.vault is not None
    outside = {item.path for item in made.directories if not item.path.startswith("/etc/mailops/local")}
    assert outside == {"/etc/dkim", *(f"/vaultage/sieve{folder}" for folder in ("", "/before.d", "/after.d"))}
    assert files(made)["/vaultage/sieve/before.d/junk.sieve"].owner == "vmail"


def test_without_a_selector_nothing_is_signed_and_no_key_is_made() -> None:
    made = manifest(dkim_selector="")
    assert made.dkim is None
    assert "enabled = false" in text(made, "/etc/rspamd/local.d/dkim_signing.conf")


def test_the_next_selector_gets_keys_but_does_not_sign() -> None:
    made = manifest(dkim_selector_next="202701")
    assert made.dkim is not None
    assert made.dkim.selectors == ("202611", "202701")
    assert "202701" not in text(made, "/etc/rspamd/local.d/dkim_signing.conf")


def test_accounts_come_with_the_system_aliases_of_each_domain() -> None:
    accounts = manifest().accounts
    assert accounts is not None
    assert ("sales@example.test", "user1@example.test") in accounts.aliases
    assert ("postmaster@second.test", "admin@example.test") in accounts.aliases
    assert "admin@example.test" not in {src for src, _ in accounts.aliases}


def test_the_relay_account_sends_for_the_null_clients_alone() -> None:
    """Nobody writes in the name of a machine that sends no mail, a role that is not made yet included."""
    hosts = HOSTS | {"gate": Host("gate", "bastion"), "roundcube": Host("roundcube", "webmail")}
    made = manifest(hosts=hosts)
    rows = [line.split() for line in text(made, "/etc/postfix/host_senders").splitlines() if line[0] == "@"]
    relay = "relay@example.test"
    assert rows == [["@backup.example.test", relay], ["@far.other.test", relay]]


def test_a_host_name_that_is_a_mail_domain_stays_one() -> None:
    made = manifest(mail_domains=("example.test", "mail.example.test"))
    line = next(line for line in text(made, "/etc/postfix/main.cf").splitlines() if "virtual_alias_domains" in line)
    names = line.split()[2:]
    assert "far.other.test" in names
    assert "mail.example.test" not in names


@pytest.mark.parametrize("name", ["backup", "far"])
def test_a_null_client_trusts_the_pinned_certificate_alone(name: str) -> None:
    pinned, unknown = manifest(name, certificate="PEM\n"), manifest(name)
    assert text(pinned, "/etc/mailops/mailhost.pem") == "PEM\n"
    assert "smtp_tls_CAfile = /etc/mailops/mailhost.pem" in text(pinned, "/etc/postfix/main.cf")
    assert "/etc/mailops/mailhost.pem" not in files(unknown)
    assert "smtp_tls_CAfile = /etc/ssl/certs/" in text(unknown, "/etc/postfix/main.cf")
    for made in (pinned, unknown):
        assert "smtp_tls_security_level = secure" in text(made, "/etc/postfix/main.cf").splitlines()


def test_commands_can_be_run_and_nothing_else_can() -> None:
    runnable = {file.path for file in manifest().files if file.mode & 0o111}
    assert runnable == {"/usr/bin/mailcfg", "/usr/sbin/mailboot"}


@pytest.mark.parametrize("release", RELEASES)
def test_every_daemon_has_a_place_for_additions(release: int) -> None:
    """And mailops never writes there: no managed file lies in that folder."""
    local = "/etc/mailops/local"
    postfix = {
        "/etc/postfix/main.cf": (f"{local}/postfix/main.cf", "main.cf"),
        "/etc/postfix/master.cf": (f"{local}/postfix/master.cf", "master.cf"),
    }
    others = {
        "/etc/dovecot/dovecot.conf": (f"{local}/dovecot/dovecot.conf", "append"),
        "/etc/rspamd/additions.conf": (f"{local}/rspamd/rspamd.conf", "append"),
        "/etc/redis/redis.conf": (f"{local}/redis/redis.conf", "append"),
    }
    for name, wanted in (("mail", postfix | others), ("backup", postfix)):
        made = manifest(name, release)
        assert {file.path: (file.local, file.merge) for file in made.files if file.local} == wanted
        assert not any(file.path.startswith(local) for file in made.files)
        assert not any(file.secret for file in made.files if file.local)


@pytest.mark.parametrize("release", RELEASES)
def test_additions_to_rspamd_come_last_and_are_merged(release: int) -> None:
    made = manifest(release=release)
    lines = text(made, "/etc/rspamd/rspamd.conf").splitlines()
    assert lines[-1] == '.include(priority=11; duplicate=merge) "$CONFDIR/additions.conf"'
    assert ("lang_detection {" in lines) == (release == 13)
    additions = files(made)["/etc/rspamd/additions.conf"]
    assert all(line.startswith("#") for line in additions.content.decode().splitlines())
    assert (additions.mode, additions.group) == (0o644, "_rspamd")


def test_every_daemon_judges_its_configuration(every: tuple[str, int]) -> None:
    for service in manifest(*every).services:
        assert service.checks, service.unit


def test_a_moved_vault_moves_in_the_checks() -> None:
    """What lies in the vault is not there while it is locked, and must not be missed then."""
    made = manifest(
        vault="/srv/safe", dkim_keyroot="/srv/safe/dkim", sieve_root="/srv/safe/sieve", vault_cipherdir="/srv/c"
    )
    checks = {check.daemon: check.options for service in made.services for check in service.checks}
    assert checks["dovecot"] == checks["redis"] == {"vault": "/srv/safe"}
    assert "\ndir /srv/safe/redis\n" in text(made, "/etc/redis/redis.conf")


@pytest.mark.parametrize(("release", "suite"), [(12, "bookworm"), (13, "trixie")])
def test_a_source_gives_its_package_alone_and_is_believed_by_one_key(release: int, suite: str) -> None:
    upstream = Upstream("http://apt.elsewhere.test:8000/x/", None, "-----BEGIN KEY-----\n\nabc\n-----END KEY-----\n")
    facts = {"release": release, "mailhost_certificate": ""}

    def made(kind: str) -> Manifest:
        site = a_site(rspamd=kind, rspamd_upstream=upstream)
        return manifest_for(site, HOSTS["mail"], facts, password_of)

    files = {file.path: file.content.decode() for file in made("upstream").files}
    source = files["/etc/apt/sources.list.d/mailops-rspamd.sources"]
    assert f"URIs: {upstream.url}\nSuites: {suite}\nComponents: main\n" in source
    assert source.endswith("Signed-By:\n -----BEGIN KEY-----\n .\n abc\n -----END KEY-----\n")
    rules = files["/etc/apt/preferences.d/mailops-rspamd"].split("\n\n")
    assert 'Package: *\nPin: origin "apt.elsewhere.test"\nPin-Priority: -1' in rules[0]
    assert rules[1] == 'Package: rspamd\nPin: origin "apt.elsewhere.test"\nPin-Priority: 990\n'
    assert made("upstream").to_json()["sources"] == [
        {"name": "rspamd", "url": upstream.url, "suite": suite, "packages": ["rspamd"]}
    ]
    assert not made("debian").sources
    assert not [file.path for file in made("debian").files if file.path.startswith("/etc/apt")]
