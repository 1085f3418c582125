"""Passwords are there before the first machine is spoken to, or all that are missing are told of at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mailops import accounts, bootstrap, cache, fleet, needed, secrets, vault, welcome
from mailops.errors import BAD_INPUT, MailopsError, Untouched
from mailops.health import status
from mailops.remote.shared import passwords
from mailops.site.model import Secret
from mailops.ssh import machine as machines
from tests.unit import pretend

SITE = """\
domain = "example.test"
admin_email = "admin@example.test"
mail_domains = ["example.test"]
mail_users = [
    { email = "admin@example.test", pw = { command = "pass-of-nobody show mail/admin" } },
    { email = "relay@example.test", pw = { env = "NEEDED_RELAY" } },
    { email = "ann@example.test", pw = { command = "echo 'short'" } },
    { email = "bob@example.test", pw = { command = "printf hunter2hunter2 && false" } },
]
cryptdir_pw = { env = "NEEDED_VAULT" }
[hosts.mail]
role = "mailhost"
[hosts.backup]
role = "mailnull"
user = "ops"
sudo_pw = { env = "NEEDED_SUDO" }
"""


@pytest.fixture
def spoken_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The machines that somebody has spoken to."""
    (tmp_path / "hosts.toml").write_text(SITE)
    for name in ("HOME", "MAILOPS_SITE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("NEEDED_RELAY", "NEEDED_VAULT", "NEEDED_SUDO"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(secrets, "_memory", secrets._Memory())
    found: list[str] = []

    def connection(site: Any, host: Any, config: Any) -> Any:
        found.append(host.name)
        raise MailopsError(f"{host.name}: is not there")

    monkeypatch.setattr(machines, "PinnedConnection", connection)
    fleet._load.cache_clear()
    return found


def context(hosts: str = "") -> Any:
    return type("Context", (), {"config": {"mailops_hosts": hosts}})


def test_all_that_is_missing_for_a_first_bootstrap_is_told_at_once_and_by_person(spoken_to: list[str]) -> None:
    with pytest.raises(MailopsError) as caught:
        bootstrap.bootstrap(context())
    assert (caught.value.code, spoken_to) == (BAD_INPUT, [])
    assert caught.value.message == "6 passwords are not to be had, so no machine was spoken to"
    told = caught.value.hint.replace("\n    ", " ").split("\n  ")
    for line, words in zip(
        told,
        (
            r"sudo on backup \(hosts.backup.sudo_pw\): the environment variable NEEDED_SUDO is not set",
            r"the passphrase of the vault \(cryptdir_pw\): .* NEEDED_VAULT is not set",
            r"admin@example.test \(mail_users\[1\].pw\): its command \(pass-of-nobody show mail/admin\) ended .* 127",
            r"relay@example.test \(mail_users\[2\].pw\): .* NEEDED_RELAY is not set",
            r"ann@example.test \(mail_users\[3\].pw\): the password has 5 characters, and 8 are the least",
            r"bob@example.test \(mail_users\[4\].pw\): its command ended with status 1",
        ),
        strict=True,
    ):
        assert re.match(words, line), line
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "hosts", "missing"),
    [
        (status.show, "mail", ""),  # it needs none
        (status.show, "", "sudo on backup"),
        (bootstrap.push, "mail", ""),
        (bootstrap.plan, "backup", "2 passwords"),  # sudo, and what the null client logs in with
        (vault.unlock, "", "the passphrase of the vault"),
        (vault.lock, "", ""),
    ],
)
def test_a_task_asks_for_what_it_needs_alone(task: Any, hosts: str, missing: str, spoken_to: list[str]) -> None:
    with pytest.raises(MailopsError, match=missing or "is not there") as caught:
        task(context(hosts))
    assert bool(spoken_to) is not bool(missing), caught.value


def test_a_machine_that_is_known_is_asked_what_it_lacks(spoken_to: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "facts", lambda site, host: {"release": 13})
    with pytest.raises(MailopsError, match="is not there"):
        bootstrap.bootstrap(context("mail"))
    assert spoken_to == ["mail"]


@pytest.mark.parametrize("hosts", ["mail", "backup"])
def test_a_prompt_without_a_terminal_fails_at_once(
    hosts: str, spoken_to: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SITE.replace('{ env = "NEEDED_VAULT" }', '{ prompt = "Vault" }').replace(
        '{ env = "NEEDED_SUDO" }', '{ prompt = "sudo" }'
    )
    (tmp_path / "hosts.toml").write_text(text)

    def none(*_: Any) -> int:
        raise OSError

    monkeypatch.setattr("mailops.secrets.os.open", none)
    with pytest.raises(MailopsError, match="there is no terminal to ask on"):
        vault.unlock(context()) if hosts == "mail" else status.show(context(hosts))
    assert spoken_to == []


def test_ctrl_c_at_a_password_has_changed_nothing() -> None:
    def pressed(_: Secret) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Untouched):
        needed.fetch([needed.Need("ann", Secret("env", "X", "a.pw"), pressed)])


def typed(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """What a person types, one after the other; what is left at the end."""
    rest = list(words)
    monkeypatch.setattr(secrets, "_memory", secrets._Memory())
    monkeypatch.setattr(secrets, "_terminal", lambda _: None)
    monkeypatch.setattr("getpass.getpass", lambda _: rest.pop(0))
    return rest


PROMPT = Secret("prompt", "Password", "mail_users[1].pw")


def test_a_new_password_is_typed_twice_and_once_only(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = typed(monkeypatch, "long enough", "long enough", "more")
    assert needed.new_password(PROMPT) == needed.new_password(PROMPT) == "long enough"
    assert rest == ["more"]


@pytest.mark.parametrize("fetch", [needed.new_password, needed.new_passphrase])
def test_a_slip_or_a_short_one_is_refused(fetch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "long enough", "long enougj")
    with pytest.raises(MailopsError, match="the two that were typed differ"):
        fetch(PROMPT)
    typed(monkeypatch, "shorter", "shorter")
    with pytest.raises(MailopsError, match="has 7 characters, and 8 are the least"):
        fetch(PROMPT)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("pass show mail/admin@example.org", True),
        ("op read op://Private/mail/password", True),
        ("secret-tool lookup service mail user ann", True),
        ("echo hunter2", False),
        ("curl -u ann:hunter2 vault.example.test", False),
        ("curl -u hunter2 vault.example.test", False),
        ("curl https://ann:hunter2@vault.example.test/pw", False),
        ("printf '%s' hunter2", False),
        ("PW=hunter2 sh -c 'echo $PW'", False),
        ("tool --password hunter2", False),
        ("tool -p hunter2", False),
    ],
)
def test_a_command_is_shown_unless_it_may_hold_the_password(command: str, shown: bool) -> None:
    assert secrets.shown_command(command) == (command if shown else "")


# --generate


def test_a_generated_password_is_good_and_shown_with_what_to_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []
    monkeypatch.setattr("mailops.screen.terminal.show", shown.append)

    def agent(host: str, name: str, args: Any, answers: Any) -> Any:
        if args["argv"][0] == "adduser":
            assert passwords.is_hash(answers["hash"](args["argv"][1]))
        return {"lines": ["ok"], "rows": None, "hint": "", "code": 0, "error": ""}

    site = pretend.site(monkeypatch, tmp_path, agent)
    accounts.run(site, ["adduser", "ann@example.test"], generate=True)
    (text,) = shown
    password = re.findall(r"Password +(\S+)\n", text)[0]
    assert re.fullmatch(r"([a-z2-9]{4}-){3}[a-z2-9]{4}", password)
    assert "ann@example.test" in text
    assert "port 993" in text
    assert password not in capsys.readouterr().out
    accounts.run(site, ["passwd", "ann@example.test"], generate=True)  # the machine has not asked: it has refused
    assert len(shown) == 1


def test_no_password_is_made_twice() -> None:
    assert len({welcome.password() for _ in range(100)}) == 100
