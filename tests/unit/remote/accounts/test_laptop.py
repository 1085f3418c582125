"""mailcfg's door on the laptop: what is typed there, and what travels."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from mailops import accounts as laptop
from mailops.errors import MailopsError
from mailops.remote.accounts import crypt
from mailops.remote.accounts import mailcfg as accounts
from mailops.remote.accounts.commands import Place
from mailops.remote.shared import passwords
from mailops.remote.shared.errors import AgentError
from mailops.site.model import Secret, User
from tests.unit.remote.accounts.pretend import SECRET, Link, rows

pytestmark = pytest.mark.usefixtures("me", "doveadm")


class Machine:
    """ssh.machine.Machine, with the agent called directly; every byte of JSON that travels is kept."""

    def __init__(self) -> None:
        self.travelled = ""

    def call(self, name: str, args: dict[str, Any], answers: dict[str, Any]) -> dict[str, Any]:
        assert name == "mailcfg"
        link = Link(**answers)
        answer = accounts.call(json.loads(json.dumps(args)), link)
        self.travelled += json.dumps([args, link.asked, answer])
        return answer


def test_the_laptop_hashes_and_the_password_does_not_travel(
    here: dict[str, Any], place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    far: Any = Machine()
    monkeypatch.setattr(sys, "stdin", io.StringIO(SECRET + "\n"))
    laptop.mailcfg(far, laptop.parse(["adduser", "a@example.test"]))
    assert capsys.readouterr().out == "added a@example.test\n"
    assert SECRET not in far.travelled
    hashed = rows(place, "SELECT password FROM users WHERE email = 'a@example.test'")[0][0]
    setting = hashed.removeprefix(passwords.SCHEME)
    assert crypt._crypt(SECRET.encode(), setting.encode()) == setting


@pytest.mark.parametrize("command", ["adduser", "passwd"])
@pytest.mark.parametrize("words", [(SECRET,), (SECRET, "again")])
def test_the_laptop_takes_no_password_as_a_word(command: str, words: tuple[str, ...]) -> None:
    with pytest.raises(MailopsError) as caught:
        laptop.parse([command, "a@example.test", *words])
    assert caught.value.code == 2
    assert SECRET not in f"{caught.value}{caught.value.hint}"
    assert "asks for it" in caught.value.hint


def test_the_laptop_asks_only_when_the_machine_needs_it(
    here: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    far: Any = Machine()
    typed = iter([SECRET, SECRET])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
    laptop.mailcfg(far, laptop.parse(["adduser", "user1@example.test"]))
    with pytest.raises(MailopsError) as caught:
        laptop.mailcfg(far, laptop.parse(["passwd", "nobody@example.test"]))
    assert caught.value.code == 1
    laptop.mailcfg(far, laptop.parse(["passwd", "user1@example.test"]))
    assert SECRET not in far.travelled + capsys.readouterr().out
    assert next(typed, None) is None


def test_json_has_rows_codes_and_no_hash(here: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    far: Any = Machine()
    laptop.mailcfg(far, laptop.parse(["lsuser", "second.test"]), as_json=True)
    output = capsys.readouterr().out
    assert json.loads(output)["rows"] == [{"email": "user2@second.test", "state": "active", "aliases": 1}]
    assert "$2b$" not in output
    with pytest.raises(MailopsError):
        laptop.mailcfg(far, laptop.parse(["rmdom", "fourth.test"]), as_json=True)
    assert json.loads(capsys.readouterr().out)["code"] == 1


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["addalias", "a@third.test", "a@example.test"], "fab domain.add third.test"),
        (["addalias", "user1@example.test", "a@b.test"], "first: fab alias.add user1@example.test user1@example.test"),
        (["rmuser", "nobody@example.test"], "fab user.ls"),
        (["rmalias", "nobody@example.test"], "fab alias.ls"),
        (["rmdom", "third.test"], "fab domain.ls"),
    ],
)
def test_what_to_type_next_is_a_task_on_the_laptop(here: dict[str, Any], argv: list[str], hint: str) -> None:
    far: Any = Machine()
    with pytest.raises(MailopsError) as caught:
        laptop.mailcfg(far, laptop.parse(argv))
    assert caught.value.hint.endswith(hint)


def test_a_remark_names_the_task_too(here: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    far: Any = Machine()
    for end in ("a@b.test", "c@d.test"):
        laptop.mailcfg(far, laptop.parse(["addalias", "all@example.test", end]))
    laptop.mailcfg(far, laptop.parse(["rmalias", "all@example.test"]))
    assert "`fab alias.rm <num>` removes one" in capsys.readouterr().out


def test_what_comes_from_the_laptop_is_checked(here: dict[str, Any]) -> None:
    answer = accounts.call({"argv": ["adduser", "a@example.test", SECRET], "who": "me@here", "sure": False}, Link())
    assert answer["code"] == 2
    assert SECRET not in json.dumps(answer)
    answer = accounts.call(
        {"argv": ["adduser", "a@example.test"], "who": "me@here", "sure": False}, Link(hash=lambda email: SECRET)
    )
    assert answer["code"] == 1
    assert SECRET not in json.dumps(answer)
    here["open"] = False
    with pytest.raises(AgentError) as caught:
        accounts.call({"argv": ["lsdom"], "who": "me@here", "sure": False}, Link())
    assert caught.value.code == 5


def test_hashes_fetches_the_wanted_secrets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW_A", SECRET)
    users = (
        User("a@example.test", Secret("env", "PW_A", "mail_users[1].pw")),
        User("b@example.test", Secret("env", "PW_THAT_IS_NOT_SET", "mail_users[2].pw")),
    )
    site: Any = SimpleNamespace(mail_users=users)
    assert passwords.is_hash(laptop.hashes(site, ["a@example.test"])["a@example.test"])
    with pytest.raises(MailopsError, match=r"mail_users\[2\]"):
        laptop.hashes(site, ["b@example.test"])
