"""`fab tunnel`: the rspamd console at a local port, through thick and thin."""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.house import FAB, House, until


@contextmanager
def tunnel(house: House, *args: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A running `fab tunnel`, and the address that it prints."""
    command = [*FAB, "tunnel", "--no-browser", *args]
    with subprocess.Popen(
        command, env=house.env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"(http://127\.0\.0\.1:\d+/)\?key=\S+", process.stdout.readline())
            assert found
            with BROWSER.open(found[0], timeout=20) as page:
                assert page.url == found[1]  # the key is gone from the address bar
            yield found[1], process
        finally:
            process.kill()


COOKIES = http.cookiejar.CookieJar()
BROWSER = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(COOKIES))
STRANGER = urllib.request.build_opener()  # anybody else: another user of the laptop


def get(address: str) -> str:
    with BROWSER.open(address, timeout=20) as answer:
        return str(answer.read().decode())


def post(browser: urllib.request.OpenerDirector, address: str, data: str, **headers: str) -> int:
    """The status that a POST is answered with."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with browser.open(urllib.request.Request(address, data.encode(), named), timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def whole(address: str, uid: int) -> bytes:
    """What a process of this user, with the browser's cookie, is answered."""
    port = address.rpartition(":")[2].strip("/")
    cookie = "; ".join(f"{each.name}={each.value}" for each in COOKIES)
    request = f"GET /actions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n"
    program = (
        f"import socket as s, sys; c = s.create_connection(('127.0.0.1', {port})); c.sendall({request.encode()!r})\n"
    )
    program += "for d in iter(lambda: c.recv(9999), b''): sys.stdout.buffer.write(d)"
    done = subprocess.run(["/usr/bin/python3", "-Ic", program], user=uid, capture_output=True, check=False, timeout=20)
    return done.stdout


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
            cookie = "; ".join(f"{each.name}={each.value}" for each in COOKIES)
            line.sendall(f"GET /ping HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n".encode())
        assert all(b"pong" in _all_of(line) for line in lines)


def test_after_a_restart_of_rspamd_the_page_goes_on(up: House) -> None:
    """With another password, which nobody sees: not the browser, not ps, not the log, not the screen."""
    ask = "sed -n 's/^password = \"\\(.*\\)\";$/\\1/p' /run/mailops-console/password.conf"
    with tunnel(up, "--port", "0") as (address, process):
        old = up.run("mail", ask).strip()
        assert "auth" in get(f"{address}auth")
        up.run("mail", "systemctl restart rspamd")
        until(lambda: up.run("mail", "ss -Hltn sport = :11334", check=False), 20, "the console")
        assert post(BROWSER, f"{address}saveactions", "[15,null,6,null]") == 200
        pages = [get(f"{address}{page}") for page in ("auth", "history", "actions", "maps", "")]
        new = up.run("mail", ask).strip()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    up.fab("-H", "mail", "push", "--overwrite")
    assert len(old) == len(new) == 40
    assert old != new
    seen = [*pages, out, err, up.run("mail", "ps axww; journalctl --boot -q -o cat")]
    assert not [text for text in seen if old in text or new in text]


def test_only_the_browser_that_it_opened_gets_in(up: House) -> None:
    with tunnel(up, "--port", "0") as (address, _):
        actions = get(f"{address}actions")
        own, other = address.rstrip("/"), "http://evil.test"
        for browser, headers in (
            (STRANGER, {}),  # another user of the laptop
            (BROWSER, {"Origin": other}),  # a page that posts here
            (BROWSER, {"Sec_Fetch_Site": "cross-site"}),
            (BROWSER, {"Host": f"evil.test:{own.rpartition(':')[2]}"}),  # a name that was made to point here
        ):
            assert post(browser, f"{address}saveactions", "[99,7,5,null]", **headers) in (403, 421)
        assert get(f"{address}actions") == actions
        assert whole(address, os.getuid())
        assert not whole(address, 65534), "another user of the laptop, who has even got the cookie"
        assert (
            post(BROWSER, f"{address}saveactions", "[15,null,6,null]", Origin=own, Sec_Fetch_Site="same-origin") == 200
        )


def test_what_the_console_writes_is_an_edit_by_hand(up: House) -> None:
    """It would survive a restart, and count for all mail."""
    up.fab("-H", "mail", "push", "--overwrite")
    with tunnel(up, "--port", "0") as (address, _):
        try:
            assert post(BROWSER, f"{address}saveactions", "[99,7,5,null]") == 200
            assert post(BROWSER, f"{address}savesymbols", '[{"name": "MISSING_MID", "value": 3.5}]') == 200
            named = {each["uri"]: each["map"] for each in json.loads(get(f"{address}maps")) if each["editable"]}
            written = "/var/lib/rspamd/spf_whitelist.inc.local"
            managed = json.loads(up.run("mail", "cat /var/lib/mailops/manifest.json"))["files"]
            assert set(named) <= {file["path"] for file in managed}
            assert post(BROWSER, f"{address}savemap", "evil.test\n", Map=str(named[written])) == 200
            shown = up.fab("drift", check=False)
            assert shown.returncode == 3
            assert re.search(r"\+ .*99", shown.stdout), shown.stdout
            assert "+evil.test" in shown.stdout
            assert up.fab("-H", "mail", "push", check=False).returncode != 0
        finally:
            up.fab("-H", "mail", "push", "--overwrite")
        until(lambda: '"reject","value":15.0' in get(f"{address}actions"), 20, "the score of hosts.toml")
    assert up.fab("drift").returncode == 0


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
