"""/usr/sbin/mailboot: the vault opened on the machine's own console, by a person with a keyboard."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator

import pytest

from mailops.lab import replica
from tests.e2e.house import FAB, House

LOCKED = 5  # the exit code for a vault that stays locked
PROMPT = "Passphrase of the vault: "


class Console:
    """A root shell on a terminal of the mailhost (`fab lab.shell mail`), and all that it showed."""

    def __init__(self, house: House) -> None:
        self.screen = ""
        self._keyboard, terminal = pty.openpty()
        self._shell = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *FAB, "lab.shell", "mail"],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=house.env() | {"TERM": "dumb"},
        )
        os.close(terminal)

    def types(self, line: str) -> None:
        self.presses(f"{line}\n")

    def shows(self, words: str, seconds: float = 60) -> str:
        """All that came up to these words, once they are on the screen; the next look starts behind them."""
        deadline = time.monotonic() + seconds
        while words not in self.screen:
            assert select.select([self._keyboard], [], [], deadline - time.monotonic())[0], self.screen
            self.screen += os.read(self._keyboard, 4096).decode()
        before, _, self.screen = self.screen.partition(words)
        return before

    def presses(self, key: str) -> None:
        os.write(self._keyboard, key.encode())

    def close(self) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._keyboard)


@pytest.fixture
def console(house: House) -> Iterator[Console]:
    """The console of the mailhost, its vault locked."""
    house.fab("lock")
    console = Console(house)
    console.types("stty -echo; PS1=; echo re''ady")
    console.shows("ready")
    console.types("stty echo")
    yield console
    console.close()
    house.fab("unlock")


def test_it_asks_without_echo_refuses_a_wrong_passphrase_and_takes_the_right_one(
    house: House, console: Console
) -> None:
    console.types("/usr/sbin/mailboot; echo ended=$?=")
    console.shows(PROMPT)
    console.types("a-slip-of-the-fingers")
    shown = console.shows("ended=")
    assert "mailboot: wrong passphrase; the vault stays locked" in shown
    assert "slip" not in shown, "what is typed must not be seen"
    assert int(console.shows("=")) == LOCKED
    assert house.state() == "locked"

    console.types("/usr/sbin/mailboot; echo ended=$?=")
    console.shows(PROMPT)
    console.types(house.secret("cryptdir_pw"))
    shown = console.shows("ended=")
    assert house.secret("cryptdir_pw") not in shown
    assert "the mail system is up" in shown
    assert int(console.shows("=")) == 0
    assert house.can_log_in("user1@example.test", house.password("user1@example.test"))
    assert house.swaks("--to", "user1@example.test", "--quit-after", "RCPT").returncode == 0

    console.types("/usr/sbin/mailboot; echo ended=$?=")
    assert "the mail system was up already" in console.shows("ended=0="), "and nothing was asked"


def test_leaving_it_at_the_prompt_changes_nothing_and_keeps_nobody_out(house: House, console: Console) -> None:
    console.types("/usr/sbin/mailboot; echo ended=$?=")
    console.shows(PROMPT)
    house.fab("unlock")
    console.types(house.secret("cryptdir_pw"))
    console.shows("the mail system was up already")
    console.shows("ended=0=")
    house.fab("lock")
    for key in ("\x03", "\x04"):  # Ctrl-C, Ctrl-D
        console.types("/usr/sbin/mailboot; echo ended=$?=")
        console.shows(PROMPT)
        console.presses(key)
        shown = console.shows("ended=")
        assert int(console.shows("=")) != 0
        assert "Traceback" not in shown
    assert house.state() == "locked"


def test_a_pipe_may_give_it_the_passphrase(house: House, console: Console) -> None:
    done = replica.run(house.lab, "mail", ["/usr/sbin/mailboot"], house.secret("cryptdir_pw") + "\n", False)
    assert done.returncode == 0, done.stderr
    assert house.state() == "up"


def test_its_help_says_what_it_does(house: House) -> None:
    assert house.run("mail", "/usr/sbin/mailboot --help").startswith("Usage: mailboot [--take-over]\n")
    assert replica.run(house.lab, "mail", ["/usr/sbin/mailboot", "secret"], None, False).returncode == 2


def test_only_root_may_use_it(house: House) -> None:
    done = replica.run(house.lab, "mail", ["setpriv", "--reuid=nobody", "/usr/sbin/mailboot"], None, False)
    assert done.returncode
    assert done.stderr.startswith("mailboot: only root can open the vault")
