"""mailcfg's door on the machine: /usr/bin/mailcfg, the console, exit codes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mailops
from mailops.remote.accounts import crypt
from mailops.remote.accounts import mailcfg as accounts
from mailops.remote.accounts.commands import Place
from mailops.remote.shared import passwords
from tests.unit.remote.accounts.pretend import SECRET, rows

pytestmark = pytest.mark.usefixtures("me", "doveadm")


def test_main_prints_and_returns_exit_codes(here: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert accounts.main([]) == 0
    assert " rmalias -id <num>" in capsys.readouterr().out
    assert accounts.main(["lsuser"]) == 0
    assert capsys.readouterr().out.startswith("EMAIL ")
    assert accounts.main(["rmuser", "nobody@example.test"]) == 1
    assert "no user nobody@example.test" in capsys.readouterr().err
    assert accounts.main(["adduser", "a@example.test", SECRET, SECRET]) == 2
    assert accounts.main(["adduser", "a@example.test", SECRET]) == 0
    assert accounts.main(["passwd", "a@example.test", SECRET + "2"]) == 0
    output = capsys.readouterr()
    assert SECRET not in output.out + output.err


def test_main_reads_one_line_when_there_is_no_terminal(
    here: dict[str, Any], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("pass word \nmore\n"))
    assert accounts.main(["adduser", "a@example.test"]) == 0
    hashed = rows(place, "SELECT password FROM users WHERE email = 'a@example.test'")[0][0]
    setting = hashed.removeprefix(passwords.SCHEME)
    assert crypt._crypt(b"pass word ", setting.encode()) == setting
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert accounts.main(["passwd", "a@example.test"]) == 2


def test_main_asks_twice_and_only_when_it_is_worth_it(
    here: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = iter(["number one", "number two", "number three", "number three"])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
    assert accounts.main(["passwd", "nobody@example.test"]) == 1
    assert accounts.main(["adduser", "user1@example.test"]) == 0
    assert accounts.main(["adduser", "a@example.test"]) == 1
    assert "differ" in capsys.readouterr().err
    assert accounts.main(["adduser", "a@example.test"]) == 0
    assert next(typed, None) is None


def test_main_when_locked_not_set_up_or_not_root(
    here: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here["open"] = False
    assert accounts.main(["lsuser"]) == 5
    assert "mailboot" in capsys.readouterr().err
    here["open"] = True
    os.unlink(here["accounts"]["database"])
    assert accounts.main(["lsuser"]) == 1
    assert "no mail database" in capsys.readouterr().err
    assert not os.path.exists(here["accounts"]["database"])
    here["accounts"] = None
    assert accounts.main(["lsuser"]) == 1
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert accounts.main(["lsuser"]) == 1
    assert "root only" in capsys.readouterr().err
    assert accounts.main(["help"]) == 0


@pytest.mark.parametrize("pw", ["plain", "q'u\"o`t$e\\n", "Áñßü", "end-of-password", "--json", " blanks "])
def test_a_password_in_the_command_line_goes_on_whole(tmp_path: Path, pw: str) -> None:
    done = _command_line(tmp_path, pw)
    assert done.stdout == f"mailcfg passwd ann@example.test\n{pw}\n"


@pytest.mark.parametrize("pw", ["one\ntwo", "one\n", "one\r", "a\nend-of-password\nb"])
def test_a_password_that_a_pipe_would_cut_is_refused(tmp_path: Path, pw: str) -> None:
    done = _command_line(tmp_path, pw)
    assert (done.returncode, done.stdout) == (2, "")
    assert "one" not in done.stderr


def _command_line(folder: Path, pw: str) -> subprocess.CompletedProcess[str]:
    """/usr/bin/mailcfg, with an agent that shows what reaches it."""
    (folder / "agent").write_text("import sys; print(*sys.argv[1:]); print(sys.stdin.read(), end='')")
    script = Path(mailops.__file__).parent / "templates/accounts/any/usr/bin/mailcfg"
    text = script.read_text().replace("/usr/lib/mailops/agent.pyz", f"{folder}/agent")
    return subprocess.run(
        ["sh", "-c", text, "mailcfg", "passwd", "ann@example.test", pw], capture_output=True, text=True, check=False
    )
