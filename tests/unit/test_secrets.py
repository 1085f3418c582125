"""Where passwords come from, and that they are never shown."""

from __future__ import annotations

import os
import pty
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from mailops import secrets
from mailops.errors import BAD_INPUT, MailopsError
from mailops.remote.vault import vault
from mailops.site.model import Secret

VALUE = "correct horse"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_memory", secrets._Memory())


def _refused(secret: Secret, words: str) -> MailopsError:
    with pytest.raises(MailopsError, match=words) as caught:
        secrets.resolve(secret)
    assert caught.value.message.startswith(f"{secret.where}: ")
    assert caught.value.code == BAD_INPUT
    return caught.value


def test_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_PW", VALUE)
    assert secrets.resolve(Secret("env", "VAULT_PW", "cryptdir_pw")) == VALUE


def test_env_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_PW", raising=False)
    _refused(Secret("env", "VAULT_PW", "cryptdir_pw"), "variable VAULT_PW is not set")


@pytest.mark.parametrize(
    ("value", "words"),
    [("", "is empty"), ("a\nb", "more than one line"), (os.fsdecode(b"\xff"), "not valid UTF-8")],
)
def test_unusable_passwords(monkeypatch: pytest.MonkeyPatch, value: str, words: str) -> None:
    monkeypatch.setattr(os, "environ", {"VAULT_PW": value})
    _refused(Secret("env", "VAULT_PW", "cryptdir_pw"), words)
    assert not secrets.known()


@pytest.mark.parametrize(
    ("command", "value"),
    [
        ("printf 'one\\ntwo\\n'", "one"),
        ("printf one", "one"),
        ("printf 'one\\r\\n'", "one"),
        ("printf ' a b \\n' | cat", " a b "),
        ("printf 'é\\n'", "é"),
    ],
)
def test_command_gives_its_first_line(command: str, value: str) -> None:
    assert secrets.resolve(Secret("command", command, "x.pw")) == value


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (f"echo '{VALUE}'; exit 3", "its command ended with status 3"),
        (f": '{VALUE}'; no-such-program-here", "status 127"),
        (f": '{VALUE}'", "the password is empty"),
        (f"echo; echo '{VALUE}'", "the password is empty"),
        (f"printf '{VALUE} \\377'", "not valid UTF-8"),
    ],
)
def test_command_that_fails_is_not_repeated(command: str, words: str) -> None:
    error = _refused(Secret("command", command, "x.pw"), words)
    assert VALUE not in str(error)


def test_command_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_COMMAND_SECONDS", 0.1)
    _refused(Secret("command", "sleep 20 & wait", "x.pw"), "took more than 0.1 s")


def test_command_may_talk_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    assert secrets.resolve(Secret("command", "echo 'Touch your key' >&2; echo pw", "x.pw")) == "pw"
    assert "Touch your key" in capfd.readouterr().err


def test_a_secret_is_fetched_once(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    secret = Secret("command", f"echo x >> {counter}; sleep 0.05; echo pw", "x.pw")
    threads = [threading.Thread(target=secrets.resolve, args=(secret,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    secrets.resolve(Secret("command", secret.value, "another.pw"))
    assert counter.read_text() == "x\n"
    secrets.forget(secret)
    secrets.resolve(secret)
    assert counter.read_text() == "x\nx\n"


def test_two_prompts_with_the_same_words_are_two_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(secrets._SOURCES, "prompt", lambda secret: f"for {secret.where}")
    assert secrets.resolve(Secret("prompt", "Password", "a.pw")) == "for a.pw"
    assert secrets.resolve(Secret("prompt", "Password", "b.pw")) == "for b.pw"


def _in_a_child(work: Callable[[], object], typed: bytes | None) -> str:
    """What `work` shows on a terminal of its own, where `typed` is typed; without a terminal for None."""
    shown, showing = os.pipe()
    child, terminal = pty.fork() if typed is not None else (os.fork(), -1)
    if child == 0:
        try:
            if typed is None:
                os.setsid()  # away from the terminal of whoever runs the tests
            work_result = ""
            try:
                work()
            except MailopsError as error:
                work_result = str(error)
            os.write(showing, work_result.encode())
        finally:
            os._exit(0)
    os.close(showing)
    screen = b""
    if typed is not None:
        while b": " not in screen:
            screen += os.read(terminal, 1000)
        time.sleep(0.05)  # getpass flushes what was typed before it turned the echo off
        os.write(terminal, typed)
    with os.fdopen(shown, "rb") as pipe:
        result = pipe.read()
    if typed is not None:
        try:
            while more := os.read(terminal, 1000):
                screen += more
        except OSError:  # how a pty says that nobody is left
            pass
        os.close(terminal)
    os.waitpid(child, 0)
    return (screen + result).decode()


def test_prompt_asks_on_the_terminal_without_echo(tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    secret = Secret("prompt", "Passphrase of the vault", "cryptdir_pw")
    screen = _in_a_child(lambda: answer.write_text(secrets.resolve(secret)), VALUE.encode() + b"\n")
    assert answer.read_text() == VALUE
    assert "Passphrase of the vault (cryptdir_pw): " in screen
    assert VALUE not in screen


@pytest.mark.parametrize(("typed", "words"), [(b"\n", "the password is empty"), (b"\x04", "nothing was typed")])
def test_prompt_refuses_nothing(typed: bytes, words: str) -> None:
    secret = Secret("prompt", "Passphrase of the vault", "cryptdir_pw")
    assert f"cryptdir_pw: {words}" in _in_a_child(lambda: secrets.resolve(secret), typed)


def test_prompt_without_a_terminal_says_what_to_do() -> None:
    secret = Secret("prompt", "Passphrase of the vault", "cryptdir_pw")
    shown = _in_a_child(lambda: secrets.resolve(secret), None)
    assert "cryptdir_pw: is to be asked for, and there is no terminal" in shown
    assert "env" in shown
    assert "command" in shown


def _keyring(monkeypatch: pytest.MonkeyPatch, get_password: Callable[[str, str], str | None]) -> None:
    module, errors = types.ModuleType("keyring"), types.ModuleType("keyring.errors")
    errors.KeyringError = type("KeyringError", (Exception,), {})  # type: ignore[attr-defined]
    module.errors, module.get_password = errors, get_password  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", module)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)


def test_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    _keyring(monkeypatch, lambda service, user: VALUE if (service, user) == ("a/b", "me") else None)
    assert secrets.resolve(Secret("keyring", "a/b/me", "x.pw")) == VALUE
    error = _refused(Secret("keyring", "mail/you", "x.pw"), "has nothing under mail/you")
    assert error.hint == "keyring set 'mail' 'you'"


def test_keyring_that_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(_service: str, _user: str) -> str:
        raise sys.modules["keyring.errors"].KeyringError("locked")

    _keyring(monkeypatch, locked)
    _refused(Secret("keyring", "mail/me", "x.pw"), "did not answer: locked")


def test_keyring_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    error = _refused(Secret("keyring", "mail/me", "x.pw"), "not installed")
    assert error.hint == "pip install 'mailops[keyring]'"


@pytest.mark.parametrize("typed", ["wrong", "passphrase", "again", "stays locked"])
def test_our_own_sentence_does_not_tell_which_of_its_words_was_typed(typed: str) -> None:
    secrets.remember(typed)
    told = f"mail: {vault.WRONG}\n  {vault.AGAIN}"
    assert secrets.mask(told) == told
    assert secrets.mask(f"{typed}! {told}{typed}") == f"********! {told}********"
    assert typed not in secrets.mask(f"{vault.WRONG[:-1]}; {vault.AGAIN[:-1]}")  # a part of it is somebody else's


def test_a_secret_that_goes_beyond_our_sentence_is_masked() -> None:
    for secret in (vault.WRONG, f"{vault.WRONG}, said she"):
        secrets.remember(secret)
        assert secrets.mask(secret) == "*" * 8


def test_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "pass")
    monkeypatch.setenv("LONGER", 'pass"wörd')
    monkeypatch.setenv("SHORT", "abc")
    for name in ("PW", "LONGER", "SHORT"):
        secrets.resolve(Secret("env", name, name))
    secrets.remember("typed elsewhere")
    assert secrets.known() == {"pass", 'pass"wörd', "abc", "typed elsewhere"}
    assert secrets.mask('a pass, pass"wörd; typed elsewhere') == "a ********, ********; ********"
    assert secrets.mask(r'{"pw": "pass\"w\u00f6rd"}') == '{"pw": "********"}'
    assert secrets.mask("abc") == "abc"


def test_repr_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", VALUE)
    secret = Secret("env", "PW", "x.pw")
    secrets.resolve(secret)
    assert VALUE not in repr(secret) + repr(secrets._memory) + repr(vars(secrets))
    assert VALUE not in repr(Secret("command", f"echo {VALUE}", "x.pw"))
