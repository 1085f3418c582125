"""Who gets through the tunnel to the console: judged by what a fake console is sent."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mailops import tunnel
from mailops.console_door import COOKIE, LONGEST_HEAD, Door, Refused, answered
from mailops.errors import MailopsError
from mailops.remote import tunnel as remote
from mailops.remote.shared.errors import AgentError
from mailops.services import rspamd
from mailops.ssh import protocol
from mailops.tunnel import Forwarder

HOST = "127.0.0.1:4711"
OLD, NEW = "0" * 40, "1" * 40


@pytest.fixture
def door() -> Door:
    return Door(4711, "127.0.0.1:11334")


def refused(door: Door, head: str) -> str:
    with pytest.raises(Refused) as caught:
        door.admit(head.encode("latin-1"))
    return caught.value.answer.decode()


def key_of(door: Door) -> str:
    return door.link.removeprefix(door.address)


def cookie(door: Door) -> str:
    answer = refused(door, f"GET /{key_of(door)} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
    found = re.search(rf"Set-Cookie: ({COOKIE}=[^;]+); Path=/; HttpOnly; SameSite=Strict\r\n", answer)
    assert found, answer
    assert "303" in answer.splitlines()[0]
    assert "Location: /\r\n" in answer
    return found[1]


def request(door: Door, first: str = "GET / HTTP/1.1", *more: str, host: str = HOST) -> str:
    return "\r\n".join([first, f"Host: {host}", f"Cookie: theme=dark; {cookie(door)}", *more, "", ""])


def test_the_link_is_exchanged_for_a_cookie_once(door: Door) -> None:
    passed, length = door.admit(request(door).encode())
    assert length == 0
    assert passed == b"GET / HTTP/1.1\r\nHost: 127.0.0.1:11334\r\nCookie: theme=dark\r\nConnection: close\r\n\r\n"
    again = refused(door, f"GET /{key_of(door)} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
    assert again.startswith("HTTP/1.1 403")
    assert "Set-Cookie" not in again


def test_the_browser_that_has_the_cookie_may_open_the_link_again(door: Door) -> None:
    assert refused(door, request(door, f"GET /{key_of(door)} HTTP/1.1")).startswith("HTTP/1.1 303")


@pytest.mark.parametrize(
    "head",
    [
        f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
        f"GET /?key=guess HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
        f"POST /saveactions HTTP/1.1\r\nHost: {HOST}\r\nCookie: {COOKIE}=guess\r\n\r\n",
        f"POST /saveactions HTTP/1.1\r\nHost: {HOST}\r\nCookie: {COOKIE}=\r\n\r\n",
    ],
)
def test_nobody_gets_in_without_the_key_or_the_cookie(door: Door, head: str) -> None:
    assert refused(door, head).startswith("HTTP/1.1 403")


@pytest.mark.parametrize(
    "line",
    [
        "Origin: http://evil.test",
        "Origin: null",
        "Origin: http://127.0.0.1:4712",
        "Origin: https://127.0.0.1:4711",
        "Origin: http://localhost:4711",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "sec-fetch-site: CROSS-SITE",
    ],
)
def test_another_site_gets_nothing_even_with_the_cookie(door: Door, line: str) -> None:
    assert refused(door, request(door, "POST /saveactions HTTP/1.1", line)).startswith("HTTP/1.1 403")


@pytest.mark.parametrize(
    "host", ["evil.test:4711", "evil.test", "127.0.0.1", "127.0.0.1:80", "localhost.evil.test:4711", ""]
)
def test_a_name_that_was_made_to_point_here_is_refused(door: Door, host: str) -> None:
    assert refused(door, request(door, host=host)).startswith("HTTP/1.1 421")


def test_nothing_stays_in_the_browser_for_the_next_tunnel(door: Door) -> None:
    assert refused(door, request(door, "GET /sw.js HTTP/1.1", "Service-Worker: script")).startswith("HTTP/1.1 403")


def test_of_an_answer_the_page_passes_and_no_more() -> None:
    odd = "Set-Cookie: other=1\r\nClear-Site-Data: *\r\nService-Worker-Allowed: /\r\nCache-Control: max-age=99999\r\n"
    odd += "Content-Security-Policy: default-src *\r\nAccess-Control-Allow-Origin: *\r\nRefresh: 0; url=http://evil.test\r\n"
    page = "Content-Type: text/html\r\nContent-Length: 4\r\n"
    found = answered(f"HTTP/1.1 200 OK\r\nServer: rspamd\r\n{odd}{page}\r\n".encode()).decode()
    assert found.startswith(f"HTTP/1.1 200 OK\r\n{page}Content-Security-Policy: default-src 'self' ")
    assert found.endswith("\r\nCache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n")
    assert not [line for line in odd.split("\r\n") if line and line in found]


@pytest.mark.parametrize(
    "head", ["", "220 mail ESMTP", "HTTP/1.1 200 \x1b[2J", "HTTP/1.1 100 Continue", "HTTP/1.1 200 OK\r\nno header"]
)
def test_an_answer_that_is_none_is_said_to_be(head: str) -> None:
    with pytest.raises(Refused) as caught:
        answered(f"{head}\r\n\r\n".encode())
    assert caught.value.answer.startswith(b"HTTP/1.1 502 ")


def test_a_second_host_is_refused(door: Door) -> None:
    assert refused(door, request(door, "GET / HTTP/1.1", "Host: evil.test")).startswith("HTTP/1.1 421")


@pytest.mark.parametrize("host", [HOST, "localhost:4711", "LOCALHOST:4711"])
def test_its_own_pages_pass_under_both_of_its_names(door: Door, host: str) -> None:
    own = ("Sec-Fetch-Site: same-origin", f"Origin: http://{host.lower()}", "Content-Length: 2")
    passed, length = door.admit(request(door, "POST /saveactions HTTP/1.1", *own, host=host).encode())
    assert b"\r\nHost: 127.0.0.1:11334\r\n" in passed
    assert length == 2


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked",),
        ("transfer-encoding: identity",),
        ("Content-Length: 4", "Content-Length: 4"),
        ("Content-Length: 4, 4",),
        ("Content-Length: +4",),
        ("Content-Length: 0x4",),
        ("Content-Length: -1",),
        ("Content-Length: ",),
        ("Content-Length : 4",),
        ("X: 1\r\n folded: 2",),
        ("X: 1\nTransfer-Encoding: chunked",),
        ("X: 1\rTransfer-Encoding: chunked",),
        ("X: \x00",),
        ("no header",),
    ],
)
def test_a_request_whose_end_is_a_matter_of_opinion_is_refused(door: Door, lines: tuple[str, ...]) -> None:
    assert re.match(r"HTTP/1\.1 4(00|11) ", refused(door, request(door, "POST / HTTP/1.1", *lines)))


@pytest.mark.parametrize(
    "first",
    [
        "GET http://evil.test/ HTTP/1.1",
        "CONNECT evil.test:80 HTTP/1.1",
        "GET / HTTP/2.0",
        "GET  / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "get / HTTP/1.1",
        "GET /",
        "\x16\x03\x01",
    ],
)
def test_only_plain_requests_pass(door: Door, first: str) -> None:
    assert refused(door, request(door, first)).startswith("HTTP/1.1 400")


def test_what_belongs_to_the_connection_stays_behind(door: Door) -> None:
    lines = ("Connection: keep-alive", "Upgrade: websocket", "Expect: 100-continue", "pASSWORD: q1")
    passed, _ = door.admit(request(door, "GET / HTTP/1.1", *lines).encode())
    assert passed.count(b"Connection: ") == 1
    assert b"Upgrade" not in passed
    assert b"Expect" not in passed
    assert b"q1" not in passed


# --- Over real sockets


class Machine:
    """One whose console has a new password each time that it is asked for."""

    def __init__(self, *passwords: str) -> None:
        self.passwords = list(passwords)
        self.said: list[str] = []
        self.listener = SimpleNamespace(say=self.said.append)
        self.connection = SimpleNamespace(transport=SimpleNamespace(is_active=lambda: True))

    def call(self, name: str, args: dict[str, object]) -> dict[str, str]:
        assert (name, args) == ("tunnel", tunnel.OWNER)
        if not self.passwords:
            raise MailopsError("mail: the connection was lost")
        return {"password": self.passwords.pop(0)}


def console(channel: socket.socket, sent: bytearray, password: str) -> None:
    """Takes one request, and answers it when it comes with its password."""
    with channel:
        channel.settimeout(5)
        mine = bytearray()
        while data := channel.recv(1 << 16):
            mine.extend(data)
            sent.extend(data)
            head, _, body = bytes(mine).partition(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            if len(body) >= int(length[1] if length else 0):
                known = head.endswith(f"\r\nPassword: {password}".encode())
                channel.sendall(b"HTTP/1.1 200 OK\r\n\r\npong" if known else b"HTTP/1.1 401 Unauthorized\r\n\r\nno")
                return


def carried(door: Door, *pieces: bytes, machine: Machine | None = None, password: str = OLD) -> tuple[bytes, bytes]:
    """What the client is answered, and what the console, which has that `password`, has been sent."""
    client, inside = socket.socketpair()
    forwarder = Forwarder(machine or Machine(), door)  # type: ignore[arg-type]
    forwarder._password = OLD
    sent = bytearray()
    works = [threading.Thread(target=forwarder.carry, args=(inside,))]

    def channel(peer: tuple[str, int]) -> socket.socket:
        mine, its = socket.socketpair()
        works.append(threading.Thread(target=console, args=(its, sent, password)))
        works[-1].start()
        return mine

    forwarder._channel = channel  # type: ignore[assignment,method-assign]
    works[0].start()
    for piece in pieces:
        client.sendall(piece)
    client.settimeout(5)
    said = b"".join(iter(lambda: client.recv(1 << 16), b""))
    client.close()
    for work in works:
        work.join(5)
    assert not any(work.is_alive() for work in works)
    return said, bytes(sent)


def test_the_console_is_sent_its_password_and_the_browser_is_not(door: Door) -> None:
    said, sent = carried(door, request(door, "GET /auth HTTP/1.1", "Password: mine").encode())
    assert said.endswith(b"pong")
    assert OLD.encode() not in said
    assert sent.count(b"Password: ") == 1
    assert f"\r\nPassword: {OLD}\r\n\r\n".encode() in sent


def test_after_a_restart_of_the_console_its_new_password_is_asked_for(door: Door) -> None:
    """And the request goes there whole, once more."""
    head = request(door, "POST /saveactions HTTP/1.1", "Content-Length: 6").encode()
    said, sent = carried(door, head + b"abc", b"def", machine=Machine(NEW), password=NEW)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert sent.count(b"\r\n\r\nabcdef") == 2


@pytest.mark.parametrize("passwords", [(), (NEW,)])
def test_a_password_that_is_not_taken_is_asked_for_once(door: Door, passwords: tuple[str, ...]) -> None:
    """A 401 would have the page ask the person for one that nobody knows."""
    machine = Machine(*passwords)
    said, _ = carried(door, request(door).encode(), machine=machine, password="of-somebody-else")
    assert said.startswith(b"HTTP/1.1 502 ")
    assert not machine.passwords
    assert len(machine.said) == (not passwords)


def test_many_requests_find_out_together(door: Door) -> None:
    forwarder = Forwarder(Machine(NEW, "a third"), door)  # type: ignore[arg-type]
    forwarder._password = OLD
    assert [forwarder._renew(OLD) for _ in range(3)] == [NEW] * 3


def test_a_body_without_end_is_not_kept(door: Door) -> None:
    said, sent = carried(door, request(door, "POST /learnspam HTTP/1.1", f"Content-Length: {1 << 30}").encode())
    assert said.startswith(b"HTTP/1.1 413 ")
    assert sent == b""


SOCKET = "   0: 0100007F:{:04X} 00000000:0000 {} 00000000:00000000 00:00000000 00000000 {:5} 0 1 1 x 100 0 0 10 0\n"


@pytest.fixture
def handed_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], dict[str, str]]:
    """What the machine's half says when it has that file, and those sockets."""
    assert remote.FILE == rspamd.CONSOLE_KEY
    for name in ("FILE", "SOCKETS"):
        monkeypatch.setattr(remote, name, str(tmp_path / name))

    def ask(text: str, sockets: str) -> dict[str, str]:
        (tmp_path / "FILE").write_text(text)
        (tmp_path / "SOCKETS").write_text(
            f"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n{sockets}"
        )
        return protocol.result("tunnel", remote.call({"port": 11334, "user": "root"}, None))

    return ask


WRITTEN = f'password = "{NEW}";\nenable_password = "{NEW}";\n'
ITS, A_SQUATTERS = SOCKET.format(11334, "0A", 0), SOCKET.format(11334, "0A", 33)


def test_the_machine_hands_out_what_its_service_writes(handed_out: Callable[[str, str], dict[str, str]]) -> None:
    beside = SOCKET.format(11335, "0A", 33) + SOCKET.format(11334, "01", 33)
    assert handed_out(WRITTEN, beside + ITS) == {"password": NEW}


@pytest.mark.parametrize(
    ("text", "sockets", "told"),
    [(WRITTEN, A_SQUATTERS, "held by uid 33"), (WRITTEN, "", "not up yet"), ("", ITS, "has no password")],
)
def test_nobody_else_is_brought_the_password(
    text: str, sockets: str, told: str, handed_out: Callable[[str, str], dict[str, str]]
) -> None:
    """Whoever has taken the console's port while it was down."""
    with pytest.raises(AgentError, match=told):
        handed_out(text, sockets)


def test_a_request_in_pieces_arrives_whole(door: Door) -> None:
    head = request(door, "POST /saveactions HTTP/1.1", "Content-Length: 6").encode()
    said, sent = carried(door, head[:20], head[20:] + b"abc", b"def")
    assert said.endswith(b"pong")
    assert sent.endswith(b"\r\n\r\nabcdef")
    assert COOKIE.encode() not in sent


def test_what_hides_behind_a_request_never_reaches_the_console(door: Door) -> None:
    head = request(door, "POST /ping HTTP/1.1", "Content-Length: 3").encode()
    second = b"POST /saveactions HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 1\r\n\r\nx"
    said, sent = carried(door, head + b"abc" + second)
    assert said.count(b"HTTP/1.1 ") == 1
    assert sent.endswith(b"abc")
    assert b"saveactions" not in sent


def test_a_refused_request_reaches_nobody(door: Door) -> None:
    said, sent = carried(door, b"POST /saveactions HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 9\r\n\r\nabc")
    assert said.startswith(b"HTTP/1.1 421 ")
    assert sent == b""


def test_an_endless_head_is_cut(door: Door) -> None:
    said, sent = carried(door, b"GET / HTTP/1.1\r\nX: ", b"x" * (LONGEST_HEAD + 1))
    assert said.startswith(b"HTTP/1.1 431 ")
    assert sent == b""


@pytest.mark.parametrize("value", [" " * 30_000 + "\x01", "a" + " \t" * 15_000 + "b", " " * 30_000])
def test_a_long_header_takes_no_time(door: Door, value: str) -> None:
    began = time.process_time()
    with contextlib.suppress(Refused):
        door.admit(request(door, "GET / HTTP/1.1", f"X: {value}").encode("latin-1"))
    assert time.process_time() - began < 1


def test_blanks_around_a_value_are_no_part_of_it(door: Door) -> None:
    passed, _ = door.admit(request(door, "GET / HTTP/1.1", "X: \t a  b \t").encode())
    assert b"\r\nX: a  b\r\n" in passed


def test_a_head_that_comes_drop_by_drop_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "PATIENCE", 0.2)
    mine, its = socket.socketpair()
    with mine, its:
        drops = threading.Thread(target=lambda: [mine.send(b"G") and time.sleep(0.05) for _ in range(20)])
        drops.start()
        with pytest.raises(TimeoutError):
            tunnel._read_head(its, time.monotonic() + tunnel.PATIENCE)
        drops.join()
