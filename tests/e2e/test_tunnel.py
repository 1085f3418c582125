"""`fab tunnel`: the rspamd console at a local port, through thick and thin."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.house import FAB, House


@contextmanager
def tunnel(house: House, *args: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A running `fab tunnel`, and the address that it prints."""
    command = [*FAB, "tunnel", "--no-browser", *args]
    with subprocess.Popen(
        command, env=house.env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
            assert found
            yield found[0], process
        finally:
            process.kill()


def get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=20) as answer:
        return str(answer.read().decode())


def test_the_console_answers_at_the_printed_address(up: House) -> None:
    with tunnel(up, "--port", "0") as (address, _):
        assert get(f"{address}ping").strip() == "pong"
        assert "rspamd" in get(address).lower()


def test_another_port_is_picked_when_the_usual_one_is_taken(up: House) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 11334))
            other.listen()
        except OSError:
            pass  # somebody else has it, which is all that is wanted
        with tunnel(up) as (address, _):
            assert not address.endswith(":11334/")
            assert get(f"{address}ping").strip() == "pong"


def test_a_dropped_connection_is_opened_again_for_the_next_request(up: House) -> None:
    with tunnel(up, "--port", "0") as (address, process):
        assert get(f"{address}ping").strip() == "pong"
        up.run("mail", "pkill -9 -f '^sshd(-session)?: root'")
        assert get(f"{address}ping").strip() == "pong"
        assert process.poll() is None


def test_several_requests_are_carried_side_by_side(up: House) -> None:
    with tunnel(up, "--port", "0") as (address, _):
        port = int(address.rpartition(":")[2].strip("/"))
        lines = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(6)]
        for line in lines:
            line.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
        assert all(b"pong" in _all_of(line) for line in lines)


def test_ctrl_c_ends_it_cleanly(up: House) -> None:
    with tunnel(up, "--port", "0") as (address, process):
        get(f"{address}ping")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert time.monotonic() - began < 5
    assert process.returncode == 0
    assert err == ""
    assert "tunnel closed" in out


def test_a_console_that_is_not_there_is_said_at_once(up: House) -> None:
    up.fab("lock")
    try:
        done = up.fab("tunnel", "--no-browser", "--port", "0", check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert "mail: the rspamd console does not answer" in done.stderr
        assert "locked" in done.stderr
    finally:
        up.fab("unlock")


def _all_of(line: socket.socket) -> bytes:
    with line:
        return b"".join(iter(lambda: line.recv(4096), b""))
