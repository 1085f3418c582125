"""user.*, alias.* and domain.* offer to have hosts.toml say the same, and ask where something depends on an account."""

from __future__ import annotations

import io
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mailops import accounts
from mailops.errors import BAD_INPUT, MailopsError
from mailops.site import reader
from tests.unit import pretend

RELAY, ADMIN, USER = "relay@example.test", "admin@example.test", "user@second.test"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Desk:
    """A site, an agent that does what it is told, and a person who answers `says` (None: nobody is there)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.done: list[list[str]] = []
        self.sure: list[bool] = []
        self.removed: list[list[str]] = []
        self.patch = monkeypatch
        self.c = pretend.site(monkeypatch, folder, self.agent)
        self.path = folder / "hosts.toml"
        self.before = self.path.read_text()

    def agent(self, host: str, name: str, args: dict[str, Any], _: Any) -> dict[str, Any]:
        self.done.append(args["argv"])
        self.sure.append(args["sure"])
        return {"code": 0, "lines": ["done"], "rows": None, "error": "", "hint": "", "removed": self.removed}

    def do(self, *argv: str, says: str | None = None, **more: bool) -> dict[str, Any]:
        self.patch.setattr("sys.stdin", io.StringIO() if says is None else Terminal(says))
        accounts.run(self.c, argv, **more)
        assert not reader.read(self.path)[1]
        return tomllib.loads(self.path.read_text())


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Desk:
    return Desk(monkeypatch, tmp_path)


def test_whoever_agrees_has_it_in_hosts_toml_too(desk: Desk) -> None:
    assert desk.do("adduser", "ann@second.test", says="\n")["mail_users"][-1] == {
        "email": "ann@second.test",
        "pw": {"prompt": "First password of ann@second.test"},
    }
    alias = {"src": "@second.test", "dst": "ann@second.test"}
    assert desk.do("addalias", *alias.values(), says="y\n")["mail_aliases"][-1] == alias
    assert alias not in desk.do("rmalias", "@second.test", write=True)["mail_aliases"]
    assert "ann@second.test" not in str(desk.do("rmuser", "ann@second.test", says="yes\n"))
    assert desk.do("adddom", "third.test", write=True)["mail_domains"][-1] == "third.test"
    assert "third.test" not in desk.do("rmdom", "third.test", says="\n")["mail_domains"]


def test_whoever_says_no_or_is_not_there_has_it_on_the_machine_alone(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    for says in ("n\n", "", None):
        desk.do("adduser", "ann@second.test", says=says)
        desk.do("rmuser", USER, says=says)
        assert desk.path.read_text() == desk.before
    assert len(desk.done) == 6
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "note: hosts.toml does not list it; --write changes that, too"
    assert said[1] == "note: hosts.toml still lists it; --write changes that, too"
    desk.do("passwd", USER, says=None)
    desk.do("adduser", USER, says=None)
    assert capsys.readouterr().err == ""


def test_an_alias_by_its_number_goes_from_hosts_toml_by_what_the_machine_removed(desk: Desk) -> None:
    desk.removed = [["sales@example.test", USER]]
    rows = tomllib.loads(desk.before)["mail_aliases"]
    gone = [row for row in rows if (row["src"], row["dst"]) == tuple(desk.removed[0])]
    assert len(gone) == 1, rows
    assert desk.do("rmalias", "-id", "7", write=True)["mail_aliases"] == [row for row in rows if row not in gone]


def test_what_would_make_hosts_toml_wrong_is_not_written(desk: Desk) -> None:
    """There are users in that domain."""
    with pytest.raises(MailopsError, match=r"hosts\.toml was not changed, as it would be wrong") as caught:
        desk.do("rmdom", "second.test", write=True)
    assert "hosts.toml: mail_users[" in str(caught.value)
    assert desk.path.read_text() == desk.before


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("rmuser", RELAY), "relay@example.test is what backup logs in with: mail from there waits without it"),
        (("disable", RELAY), "relay@example.test is what backup logs in with"),
        (("passwd", RELAY), "until they have the new one: pw in mail_users, then a push"),
        (("rmuser", ADMIN), "admin@example.test gets root's mail of all machines"),
        (("disable", ADMIN), "admin@example.test gets root's mail of all machines"),
        (("rmdom", "example.test"), "admin@example.test gets root's mail"),
        (("rmdom", "example.test"), "relay@example.test is what backup logs in with"),
    ],
)
def test_what_depends_on_it_is_said_and_asked_before_a_machine_is(
    desk: Desk, argv: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MailopsError, match="nothing was changed") as alone:
        desk.do(*argv)
    assert told in str(alone.value)
    assert (alone.value.code, alone.value.hint) == (BAD_INPUT, "--yes does it all the same")
    with pytest.raises(MailopsError, match="nothing was changed"):
        desk.do(*argv, says="\n")
    assert told in capsys.readouterr().out
    assert desk.done == []
    desk.do(*argv, says="y\nn\n")
    desk.do(*argv, yes=True)
    assert len(desk.done) == 2
    assert desk.sure == [True, True]


def test_others_are_not_asked_about(desk: Desk) -> None:
    for argv in (("rmuser", USER), ("disable", USER), ("enable", RELAY), ("passwd", ADMIN), ("adduser", RELAY)):
        desk.do(*argv)
    assert len(desk.done) == 5


def test_which_alias_must_be_said() -> None:
    assert accounts.aliases("a@b.test", "c@b.test", False) == ["rmalias", "a@b.test", "c@b.test"]
    assert accounts.aliases("7", None, False) == ["rmalias", "-id", "7"]
    assert accounts.aliases(None, None, True) == ["rmalias", "-left"]
    for src, left in ((None, False), ("a@b.test", True)):
        with pytest.raises(MailopsError, match="which alias"):
            accounts.aliases(src, None, left)
