"""The tunnel's doorkeeper: which HTTP requests may pass to the rspamd console, and in which form.

What passes is given the console's password, which the browser never sees. So any web page in the administrator's
browser (by a cross-site request, or under a name that it makes point here) and any other user of the laptop could use
the console. A request passes that names this very door as its Host and, if it says so, its origin, and
that has the cookie for which the browser exchanged the one-time key of the link that this run opened or printed.

Each connection carries one request, whose end is known before it is passed on: nothing can hide behind it.

The mailhost may have been taken over, too. Of its answers the page itself passes and what the page needs: no cookie (it
would go to every port of this computer), nothing that a browser keeps for the next tunnel, no page that reaches for
other things on the laptop. Pure.
"""

from __future__ import annotations

import hmac
import re
import secrets

LONGEST_HEAD = 32 << 10  # bytes
COOKIE = "mailops_tunnel"
REQUEST = re.compile(r"([A-Z]{1,20}) (/[!-~]*) HTTP/1\.[01]")
HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)")  # blanks: one way to match them
OF_THIS_CONNECTION = {
    *("host", "connection", "proxy-connection", "keep-alive", "te", "trailer", "upgrade", "expect"),
    *("cookie", "http2-settings", "password"),
}
SAME = ("same-origin", "none")  # "none": typed by hand, or opened by another program
STATUS = re.compile(r"HTTP/1\.[01] ([2-5][0-9][0-9])( [ -~]{0,80})?")
OF_THE_PAGE = {"content-type", "content-length", "content-encoding", "transfer-encoding", "date", "last-modified"}
OWN_SCRIPTS = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data:"
KEEPS_TO_ITSELF = (
    f"Content-Security-Policy: {OWN_SCRIPTS}; form-action 'self'; base-uri 'self'; frame-ancestors 'none'",
    "Cache-Control: no-store",
    "Referrer-Policy: no-referrer",
    "Connection: close",
)

Headers = list[tuple[str, str]]


class Refused(Exception):
    """An answer of the door itself: nothing of the request has reached the console."""

    def __init__(self, status: str, text: str, *headers: str) -> None:
        super().__init__(text)
        fixed = ("Content-Type: text/plain; charset=utf-8", "Cache-Control: no-store", "Connection: close")
        body = f"{text}\n".encode()
        head = [f"HTTP/1.1 {status}", *headers, *fixed, f"Content-Length: {len(body)}", "", ""]
        self.answer = "\r\n".join(head).encode() + body


class Door:
    """What one run of the tunnel lets through at its `port`, to a console that is called `upstream`."""

    def __init__(self, port: int, upstream: str) -> None:
        self.names = (f"127.0.0.1:{port}", f"localhost:{port}")
        self.upstream = upstream
        self._key = secrets.token_urlsafe(24)
        self._used = False
        self._cookie = secrets.token_urlsafe(24)

    @property
    def address(self) -> str:
        return f"http://{self.names[0]}/"

    @property
    def link(self) -> str:
        """The address with the key, which the first browser that opens it keeps as a cookie."""
        return f"{self.address}?key={self._key}"

    def admit(self, head: bytes) -> tuple[bytes, int]:
        """The head to pass on, and how many bytes of a body follow; Refused when it may not pass."""
        method, target, headers = _parsed(head)
        self._check_site(headers)
        length = _body_length(headers)
        if not self._has_cookie(headers):
            raise self._unknown(method, target)
        if target.startswith("/?key="):
            raise Refused("303 See Other", "The console is at /.", "Location: /")
        return self._passed_on(method, target, headers), length

    def _check_site(self, headers: Headers) -> None:
        """That the request is for this door, and that no other site has sent it."""
        hosts = _all(headers, "host")
        if len(hosts) != 1 or hosts[0].lower() not in self.names:
            raise Refused("421 Misdirected Request", "This is not the name of the tunnel.")
        own = f"http://{hosts[0].lower()}"
        others = [site for site in _all(headers, "sec-fetch-site") if site not in SAME]
        if others or any(origin != own for origin in _all(headers, "origin")):
            raise Refused("403 Forbidden", "This request comes from another site.")
        if _all(headers, "service-worker"):
            raise Refused("403 Forbidden", "Nothing of the console stays in the browser.")

    def _has_cookie(self, headers: Headers) -> bool:
        values = [value for name, value in _cookies(headers) if name == COOKIE]
        return len(values) == 1 and hmac.compare_digest(values[0].encode(), self._cookie.encode())

    def _unknown(self, method: str, target: str) -> Refused:
        """What a request without the cookie gets: the cookie, for the key; that is good once."""
        if method != "GET" or not hmac.compare_digest(target.encode(), f"/?key={self._key}".encode()):
            return Refused("403 Forbidden", "Open the console by the link of `fab tunnel`.")
        if self._used:
            text = "This link was opened before. If that was not you, end the tunnel with Ctrl-C."
            return Refused("403 Forbidden", text)
        self._used = True
        cookie = f"Set-Cookie: {COOKIE}={self._cookie}; Path=/; HttpOnly; SameSite=Strict"
        return Refused("303 See Other", "The console is at /.", "Location: /", cookie, "Referrer-Policy: no-referrer")

    def _passed_on(self, method: str, target: str, headers: Headers) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.upstream}"]
        lines += [f"{name}: {value}" for name, value in headers if name.lower() not in OF_THIS_CONNECTION]
        others = "; ".join(f"{name}={value}" for name, value in _cookies(headers) if name != COOKIE)
        lines += [f"Cookie: {others}"] * bool(others)
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")


def with_password(head: bytes, password: str) -> bytes:
    """A head that was admitted, as the console takes it."""
    return head.removesuffix(b"\r\n") + f"Password: {password}\r\n\r\n".encode()


def wants_another(head: bytes) -> bool:
    """Whether the console's answer says that the password is not right (401; 403 in earlier versions of Rspamd)."""
    found = STATUS.match(head.decode("latin-1"))
    return found is not None and found[1] in ("401", "403")


def answered(head: bytes) -> bytes:
    """The head of the console's answer, as the browser gets it; Refused when it is none."""
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    found = [HEADER.fullmatch(line) for line in lines]
    if not STATUS.fullmatch(first) or not all(found):
        raise Refused("502 Bad Gateway", "The console's answer is not plain HTTP.")
    kept = [each[0] for each in found if each and each[1].lower() in OF_THE_PAGE]
    return "\r\n".join([first, *kept, *KEEPS_TO_ITSELF, "", ""]).encode("latin-1")


def _parsed(head: bytes) -> tuple[str, str, Headers]:
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    request = REQUEST.fullmatch(first)
    found = [HEADER.fullmatch(line) for line in lines]
    if request is None or not all(found):
        raise Refused("400 Bad Request", "This is not a plain HTTP request.")
    return request[1], request[2], [(each[1], each[2].strip(" \t")) for each in found if each]


def _body_length(headers: Headers) -> int:
    """Two ways to tell where a request ends would be two opinions."""
    lengths = _all(headers, "content-length")
    if _all(headers, "transfer-encoding"):
        raise Refused("411 Length Required", "Send the body with its length.")
    if len(lengths) > 1 or not all(re.fullmatch("[0-9]{1,12}", length) for length in lengths):
        raise Refused("400 Bad Request", "The length of the body is not clear.")
    return int(lengths[0]) if lengths else 0


def _all(headers: Headers, name: str) -> list[str]:
    return [value for other, value in headers if other.lower() == name]


def _cookies(headers: Headers) -> list[tuple[str, str]]:
    pairs = [pair.strip().partition("=") for value in _all(headers, "cookie") for pair in value.split(";")]
    return [(name.strip(), value.strip()) for name, _, value in pairs if name.strip()]
