"""The probes against daemons that are only pretended, and how long they are waited for."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailops.remote.services import conversation, dovecot, postfix, probe, redis, rspamd, smtp
from mailops.remote.services.conversation import NotYet, Silence, Wrong
from mailops.remote.system import shell

EHLO = "250-mail.example.test\r\n250 8BITMIME\r\n"


class Daemon:
    """Says its greeting, then an answer for each line (or, where `size` is set, as many bytes) that it is told."""

    def __init__(self, path: Path, greeting: bytes, *answers: bytes) -> None:
        self.path = str(path / "socket")
        self.heard: list[bytes] = []
        self._said = [greeting, *answers]
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, contextlib.suppress(OSError):  # the probe has heard enough
            for said in self._said:
                connection.sendall(said)
                self.heard.append(connection.recv(4096))


@pytest.fixture
def daemon(tmp_path: Path) -> Callable[..., Daemon]:
    return lambda *said: Daemon(tmp_path, *said)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units that systemd says are up, and less patience."""
    monkeypatch.setattr(probe, "BRIEF", 0.3)
    monkeypatch.setattr(probe, "PAUSES", (0.05,))
    monkeypatch.setattr(probe, "_state", lambda unit: {"ActiveState": "active", "Type": "simple"})
    monkeypatch.setattr("mailops.remote.services.daemon_log.death", lambda unit, when: "")


def kinds(monkeypatch: pytest.MonkeyPatch, **pretended: Callable[[int, dict[str, str]], None]) -> list[dict[str, Any]]:
    monkeypatch.setattr(probe, "_kinds", lambda: pretended)
    return [{"kind": kind, "port": 1, "options": {}, "service": f"{kind}.service"} for kind in pretended]


def says(*answers: Exception | None) -> Callable[[int, dict[str, str]], None]:
    """A probe with these outcomes, the last one again and again."""
    left = list(answers)

    def ask(port: int, options: dict[str, str]) -> None:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer:
            raise answer

    return ask


def failures(probes: list[dict[str, Any]], seconds: float = 60) -> tuple[float, list[tuple[str, str, str]]]:
    start = time.monotonic()
    try:
        probe.await_all(probes, seconds)
    except probe.ProbesFailed as error:
        found = [(item["kind"], item["service"], reason) for item, reason in error.failures]
    else:
        found = []
    return time.monotonic() - start, found


# Waiting


def test_all_are_asked_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(port: int, options: dict[str, str]) -> None:
        time.sleep(0.2)

    taken, found = failures(kinds(monkeypatch, a=slow, b=slow, c=slow, d=slow))
    assert found == []
    assert taken < 0.5
    assert failures([]) == (pytest.approx(0, abs=0.1), [])


def test_a_daemon_that_is_starting_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    starting = says(*[Silence("nobody answers")] * 9, None)
    taken, found = failures(kinds(monkeypatch, a=starting))
    assert found == []
    assert taken > 0.4


def test_a_wrong_answer_ends_the_wait_for_all_and_only_the_guilty_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, found = failures(kinds(monkeypatch, a=says(Wrong("no")), b=says(NotYet("later")), c=says(None)))
    assert found == [("a", "a.service", "no")]
    assert 0.3 <= taken < 3


def test_a_wrong_answer_may_become_right_within_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failures(kinds(monkeypatch, a=says(Wrong("of an old process"), None)))[1] == []


def test_a_wrong_answer_of_a_daemon_that_has_gone_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = kinds(monkeypatch, a=says(Wrong("hangs up"), *[Silence("nobody answers")] * 9, None))
    assert failures(probes)[1] == []


def test_the_deadline_names_all_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, found = failures(kinds(monkeypatch, a=says(NotYet("later")), b=says(NotYet("not now"))), 0.5)
    assert found == [("a", "a.service", "later"), ("b", "b.service", "not now")]
    assert taken < 3


@pytest.mark.parametrize("state", ["failed", "inactive"])
def test_silence_of_a_unit_that_does_not_run_is_not_waited_out(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.setattr(probe, "_state", lambda unit: {"ActiveState": state, "Type": "simple"})
    assert failures(kinds(monkeypatch, a=says(Silence("nobody answers"))))[0] < 3


def test_silence_of_a_unit_that_said_it_is_ready_is_not_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_state", lambda unit: {"ActiveState": "active", "Type": "notify"})
    assert failures(kinds(monkeypatch, a=says(Silence("nobody answers"))))[0] < 3
    monkeypatch.setattr(probe, "_state", lambda unit: {"ActiveState": "activating", "Type": "notify"})
    assert failures(kinds(monkeypatch, a=says(*[Silence("nobody answers")] * 9, None)))[1] == []


def test_another_unit_may_be_accused(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = kinds(monkeypatch, a=says(Wrong("no logins", accused="dovecot.service")))
    assert failures(probes)[1] == [("a", "dovecot.service", "no logins")]
    assert probes[0]["service"] == "a.service"


def test_who_accuses_a_unit_that_answers_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = kinds(monkeypatch, a=says(NotYet("no milter", accused="b.service")), b=says(None))
    taken, found = failures(probes)
    assert found[0][2] == "no milter"
    assert taken < 3
    probes = kinds(monkeypatch, a=says(*[NotYet("no milter", accused="b.service")] * 9, None), b=says(None))
    probes[1]["service"] = "c.service"
    assert failures(probes)[1] == []


def test_a_daemon_that_dies_at_every_start_has_fallen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailops.remote.services.daemon_log.death", lambda unit, when: f"{unit}: fatal: bad number")

    def hang(port: int, options: dict[str, str]) -> None:
        time.sleep(20)

    start = time.monotonic()
    with pytest.raises(probe.ProbesFailed, match=r"^a 1: no answer: a\.service: fatal: bad number$") as caught:
        probe.await_all(kinds(monkeypatch, a=hang))
    assert caught.value.fallen == ["a.service"]
    assert time.monotonic() - start < 5


def test_whatever_a_probe_stumbles_over_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = kinds(
        monkeypatch,
        refused=says(ConnectionRefusedError(111, "Connection refused")),
        reset=says(ConnectionResetError()),
        slow=says(TimeoutError("timed out")),
        odd=says(ValueError("x")),
        fine=says(None),
    )
    assert probe.ask_all(probes) == {
        "refused 1": "Connection refused",
        "reset 1": "it hangs up",
        "slow 1": "no answer in time",
        "odd 1": "an answer that makes no sense (ValueError: x)",
        "fine 1": "",
    }


# Kinds


def test_a_milter_negotiates(daemon: Callable[..., Daemon]) -> None:
    there = daemon(b"", struct.pack("!IcIII", 13, b"O", 6, 0, 0))
    rspamd.milter(0, {"incoming": there.path})
    assert there.heard[0] == struct.pack("!IcIII", 13, b"O", 6, 0x1FF, 0x1FFFFF)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (struct.pack("!IcIII", 13, b"O", 9, 0, 0), "version 9"),
        (b"HTTP/1.0 400 Bad request\r\n", "not as a milter"),
        (b"", "it hangs up"),
    ],
)
def test_what_is_no_milter(daemon: Callable[..., Daemon], answer: bytes, reason: str) -> None:
    there = daemon(answer)
    with pytest.raises(Wrong, match=reason):
        rspamd.milter(0, {"incoming": there.path})


def test_each_milter_is_asked(daemon: Callable[..., Daemon]) -> None:
    there = daemon(b"", struct.pack("!IcIII", 13, b"O", 6, 0, 0))
    with pytest.raises(Silence, match="nobody answers at /nothere"):
        rspamd.milter(0, {"incoming": there.path, "outgoing": "/nothere"})


@pytest.mark.parametrize(
    ("answer", "kind"), [(b"-NOAUTH Authentication required.\r\n", Wrong), (b"-LOADING Redis is\r\n", NotYet)]
)
def test_redis(daemon: Callable[..., Daemon], answer: bytes, kind: type[Exception]) -> None:
    there = daemon(b"", answer)
    with pytest.raises(kind, match=answer.decode().strip()):
        redis.redis(0, {"socket": there.path})
    assert there.heard[0] == b"PING\r\n"


def test_a_socket_that_is_not_there_is_silence() -> None:
    with pytest.raises(Silence, match="nobody answers at /nothere"):
        redis.redis(0, {"socket": "/nothere"})


def lmtp(there: Daemon, database: str = "") -> None:
    options = {"socket": there.path, "recipient": "a@example.test", "database": database}
    dovecot.lmtp(0, options)


HELLO = (b"220 mail LMTP\r\n", b"250-mail\r\n250 8BITMIME\r\n", b"250 2.1.0 Ok\r\n")


def test_lmtp_looks_up_the_recipient_and_a_stray(daemon: Callable[..., Daemon]) -> None:
    stray = b"550 5.1.1 no such user\r\n"
    there = daemon(*HELLO, b"250 2.1.5 Ok\r\n", stray, b"250 Ok\r\n", b"221 Bye\r\n")
    lmtp(there)
    said = [b"LHLO [127.0.0.1]\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<a@example.test>\r\n"]
    assert there.heard[:6] == [*said, b"RCPT TO:<mailops-probe@example.test>\r\n", b"RSET\r\n", b"QUIT\r\n"]


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([b"451 4.3.0 Temporary internal error\r\n"], "mail for a@example.test is refused: 451 4.3.0"),
        ([b"550 5.1.1 no such user\r\n"], "mail for a@example.test is refused: 550"),
        (
            [b"250 Ok\r\n", b"451 4.3.0 lookup failure\r\n"],
            "whether there is a mailops-probe@example.test is not known",
        ),
        ([b"what?\r\n"], "no reply of SMTP: what"),
    ],
)
def test_lmtp_that_cannot_deliver(daemon: Callable[..., Daemon], answers: list[bytes], reason: str) -> None:
    with pytest.raises(Wrong, match=reason):
        lmtp(daemon(*HELLO, *answers))


@pytest.mark.parametrize(
    ("code", "text", "kind", "accused"),
    [
        (451, "4.7.1 Service unavailable - try again later", NotYet, "rspamd.service"),
        (454, "4.3.0 Try again later", NotYet, "rspamd.service"),
        (421, "4.3.2 All server ports are busy", NotYet, ""),
        (450, "4.3.2 Service currently unavailable", NotYet, ""),
        (451, "4.3.5 Server configuration error", Wrong, ""),
        (451, "4.3.0 Temporary lookup failure", Wrong, ""),
        (454, "4.7.0 TLS not available due to local problem", Wrong, ""),
        (454, "4.7.1 <x@y>: Relay access denied", Wrong, ""),
    ],
)
def test_which_replies_pass_with_time(code: int, text: str, kind: type[Exception], accused: str) -> None:
    refusal = smtp.refusal("RCPT", code, text)
    assert type(refusal) is kind
    assert refusal.accused == accused


@pytest.mark.parametrize(
    ("networks", "trusted"),
    [
        ("127.0.0.0/8 [::1]/128", False),
        ("127.0.0.0/8, 10.0.0.0/8", True),
        ("10.1.2.3", True),
        ("0.0.0.0/0", False),
        ("0.0.0.0/1 128.0.0.0/1", False),
        ("hash:/etc/postfix/networks", False),
    ],
)
def test_only_a_network_of_ones_own_makes_one_trusted(
    monkeypatch: pytest.MonkeyPatch, networks: str, trusted: bool
) -> None:
    class Said:
        stdout = f"{networks}\n"

    monkeypatch.setattr(shell, "run", lambda *command, check: Said)
    assert postfix._is_trusted("10.1.2.3") is trusted


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch, daemon: Callable[..., Daemon]) -> Callable[..., None]:
    """An IMAP server in clear whose answer to LOGIN, and whose log, are given."""

    def ask(answer: bytes, *log: str) -> None:
        there = daemon(b"* OK ready\r\n", answer, b"* BYE\r\na OK\r\n")
        monkeypatch.setattr(conversation, "nobody", lambda port: conversation.unix(there.path))
        monkeypatch.setattr(conversation.Conversation, "start_tls", lambda self: None)
        monkeypatch.setattr("mailops.remote.services.daemon_log.since_reload", lambda unit: list(log))
        dovecot.login(993, {})

    return ask


def test_a_login_that_fails_as_it_should(login: Callable[..., None]) -> None:
    login(b"a NO [AUTHENTICATIONFAILED] Authentication failed.\r\n", "dovecot: auth: Error: client went away")


@pytest.mark.parametrize(
    ("answer", "log", "reason"),
    [
        (b"a NO [UNAVAILABLE] Temporary authentication failure.\r\n", "", "UNAVAILABLE"),
        (b"a OK Logged in\r\n", "", "answered by: OK"),
        (
            b"a NO [AUTHENTICATIONFAILED] no\r\n",
            "dovecot: auth: Error: passwd-file /etc/nothere:open(/etc/nothere) failed: No such file or directory",
            "open",
        ),
        (
            b"a NO [AUTHENTICATIONFAILED] no\r\n",
            "dovecot: master: Error: Config reload failed: x",
            "Config reload failed",
        ),
    ],
)
def test_a_login_that_fails_for_another_reason(
    login: Callable[..., None], answer: bytes, log: str, reason: str
) -> None:
    with pytest.raises(Wrong, match=reason):
        login(answer, log)
