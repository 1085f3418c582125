"""What a machine may say: the events of a call and what its result must look like, in bounds.

A machine may have been taken over. So nothing of what it says is used, shown or kept before it was looked at here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mailops import printable
from mailops.remote.shared.errors import BAD_INPUT, FAILED, OF_MACHINES
from mailops.ssh.patience import Patience, TooLong
from mailops.ssh.shapes import (
    Odd,
    Shape,
    advice,
    certificates,
    content,
    either,
    flag,
    line,
    lines,
    listing,
    matching,
    maybe,
    number,
    one_of,
    real,
    record,
    table,
)

if TYPE_CHECKING:
    from mailops.remote.shared.calls import Event

CHUNK = 1 << 16
# Bytes of a line: the result of a large site is some megabytes, an edit in the way of a run may be one.
LONG, SHORT = 1 << 24, 1 << 20
LARGE = (b'{"t":"result"', b'{"t":"ask"')
NOISE = 1 << 16  # bytes of login banners and shell profiles
TOTAL = 1 << 26  # bytes of a call
DROPS = 900.0  # seconds in which a line is said
EVENTS, SAYS = 50_000, 1_000  # a first bootstrap has some hundred, and says a few words
CELL = 512  # characters in a column of a table, all of whose rows are as wide as the widest
WIDEST = 1 << 26  # characters of a whole table
RUNS = 20_000  # entries of a history
MAXIMUM_TIME = 1 << 33  # seconds since 1970 that every calendar has a date for


def untouched(value: Any) -> Any:
    """Looked at by whoever knows which call or question it belongs to."""
    return value


CHANGED = listing(line(SHORT))
EVENT: dict[str, Shape] = {
    "hello": record({}),
    "agent": record({}),
    "beat": record({}),
    "bare": record({"system": line(64), "release": line(64)}),
    "step": record({"name": line(64), "state": one_of("start", "ok", "changed", "failed"), "lines": CHANGED}),
    "progress": record({"name": line(64), "percent": real(0, 1000), "detail": line()}),
    "say": record({"text": line()}),
    "ask": record({"what": line(64), "data": untouched}),
    "result": record({"data": untouched}),
    "error": record({"message": lines(), "hint": advice, "code": one_of(*OF_MACHINES)}),
}


# --- Results


def rows(value: Any) -> list[dict[str, Any]]:
    """Of a table: each with the same headings."""
    found: list[dict[str, Any]] = listing(table(either(number(), line(CELL)), 20))(value)
    if any(list(row) != list(found[0]) for row in found):
        raise Odd("is no table: its rows have different headings")
    width = sum(max(len(str(row[name])) for row in found) for name in (found or [{}])[0])
    if width * len(found) > WIDEST:
        raise Odd("is a table that nobody could read")
    return found


def dkim_key(value: Any) -> dict[str, str]:
    """A key and its record (RFC 6376, 3.6.1), which somebody is going to publish."""
    label = r"[A-Za-z0-9_-]{1,63}"
    name = matching(rf"{label}(\.{label})*", "domain name", 253)
    text = matching(r"v=DKIM1; k=(rsa|ed25519); p=[A-Za-z0-9+/]{40,2000}={0,2}", "DKIM record")
    key: dict[str, str] = record({"domain": name, "selector": name, "name": name, "value": text, "path": line()})(value)
    if key["name"] != f"{key['selector']}._domainkey.{key['domain']}":
        raise Odd("names a record that is not that of its domain and selector")
    return key


def dkim_keys(value: Any) -> list[dict[str, str]]:
    keys: list[dict[str, str]] = listing(dkim_key, 10_000)(value)
    if len({key["name"] for key in keys}) < len(keys):
        raise Odd("has two keys for one record")
    return keys


def status(value: Any) -> dict[str, Any]:
    bare = isinstance(value, dict) and value.get("state") == "bare"
    found: dict[str, Any] = (BARE if bare else STATUS)(value)
    return found


WHEN = real(0, MAXIMUM_TIME)
WORD = matching(r"[a-z-]+", "word", 32)
UNIT = matching(r"[A-Za-z0-9@:._\\-]+", "unit", 256)  # systemd.unit(5)
PACKAGE = matching(r"[a-z0-9][a-z0-9+.-]+", "package", 128)  # deb-control(5)
NAMES = listing(line())
CHANGES = table(CHANGED, 100)
TOLD = {"path": line(), "secret": flag, "was": line(), "now": line()}
STATE = {"state": one_of("new", "removed", "changed", "edited", "mode", "missing")}
ENTRY = record(TOLD | STATE | {"before": maybe(content), "after": maybe(content)})
ENTRIES = listing(ENTRY, 1000)  # files that differ, as `mailops.screen.diffs` has them
FACTS = record({"release": one_of(12, 13), "mailhost_certificate": certificates})
BY = {"who": line(CELL), "from": line(CELL), "task": line(CELL)}
RUN = {"changes": CHANGES, "generation": maybe(number())}
UNWELL = {"unwell": table(line(), 100)}  # what is wrong on the machine when the run is done
PLAN = record(
    {"changes": CHANGES, "files": ENTRIES, "edited": ENTRIES, "refused": lines()}
    | {"interrupted": flag, "locked": flag, "new_vault": flag}
)
BARE = record({"state": one_of("bare"), "release": number(0, 99)})
VAULT = {"open": flag, "mountpoint": line()}
DAMAGE = {"damage": record({"what": line(), "next": advice})}
OPEN = record(VAULT | {"free": number()}, DAMAGE)
SILENT = record(VAULT | {"answers": one_of(False)}, DAMAGE)  # mounted, and its process hangs
STATUS = record(
    {"state": one_of("up", "degraded", "locked"), "role": line(), "hostname": line()}
    | {"release": number(0, 99), "queue": maybe(number())}
    | {"vault": maybe(either(OPEN, either(SILENT, record(VAULT | {"open": one_of(False)}, DAMAGE))))}
    | {"services": table(WORD, name=UNIT), "probes": table(line()), "uptime": real(), "drift": NAMES}
    | {"busy": line(), "interrupted": flag, "unadvised": NAMES},
    {"generation": number(), "held": number(), "applied": maybe(WHEN), "now": WHEN, "certificate": certificates}
    | {
        "certificate_fault": listing(line(), 10),
        "packages": listing(line(), 20),
        "torn": listing(PACKAGE, 20),
        "swap": listing(line(), 10),
    }
    | {"sources": listing(line(), 20), "held_packages": listing(PACKAGE, 20)}
    | {"versions": table(line(CELL), 20, name=PACKAGE), "upgraded": line()}
    | {"able": listing(UNIT, 100), "oldest": maybe(record({"since": WHEN, "reason": line(SHORT)}))}
    | {"certificates": listing(record({"names": listing(line(CELL), 200), "ends": WHEN}), 10)}
    | {"reboot": listing(line(), 5), "accounts": listing(line(), 50)},
)
TOOK = real(-MAXIMUM_TIME)  # seconds; earlier versions took them from a clock that could be set back
PAST = record(
    BY | {"when": WHEN, "outcome": line(CELL), "changed": table(either(number(), NAMES), 100)},
    {"revision": line(CELL), "seconds": maybe(TOOK), "why": line(SHORT), "generation": maybe(number())},
)
GENERATION = record(BY | {"number": number(), "when": WHEN, "revision": line(CELL), "changed": NAMES, "proven": flag})
MESSAGE_ID = matching(r"[0-9A-Za-z]{5,30}", "ID of a message", 30)
WAITING = record(
    {"id": MESSAGE_ID, "queue": WORD, "since": WHEN, "size": number(), "sender": line(CELL), "count": number()}
    | {"recipients": listing(line(CELL), 10), "reason": line(), "reasons": number()}
)
COUNTS = {"count": number(), "held": number()}
DONE = record({"chosen": number(), "done": number(), "missing": listing(MESSAGE_ID, 1000), "agreed": flag})
POINTS = real(-100_000, 100_000)
CAME = record({"door": line(), "host": line(), "login": line()})
JUDGED = record(
    {"action": line(CELL), "score": maybe(POINTS), "limit": maybe(POINTS), "signed": line(), "forced": line()}
    | {"symbols": listing(record({"name": line(CELL), "score": POINTS, "words": line(CELL)}), 10)}
)
DELIVERY = record(
    {"to": line(), "orig": line(), "relay": line(), "status": WORD, "text": line(), "queued": line(CELL), "when": WHEN}
    | {"tries": number(1), "did": listing(line(), 50), "advice": advice}
)
STORY = record(
    {"id": line(30), "when": WHEN, "came": maybe(CAME), "message_id": line(), "sender": line(), "size": number()}
    | {"filter": maybe(JUDGED), "to": listing(DELIVERY, 50), "recipients": number(), "next": listing(line(30), 50)}
    | {"refused": listing(record({"to": line(), "text": line(), "advice": advice}), 50), "times": number(1)}
    | {"removed": one_of("", "done", "by hand"), "held": flag}
)
SAID = {"lines": listing(line(SHORT)), "error": lines(), "hint": advice}

RESULT: dict[str, Shape] = {
    "plan": PLAN,
    "bootstrap": record(RUN | {"locked": flag}, {"unknown": flag} | UNWELL),
    "push": record(RUN | {"locked": flag}, {"unknown": flag} | UNWELL),
    "rollback": record(RUN | {"locked": flag, "generation": number()}, UNWELL),
    "unlock": record(RUN | {"changed": flag}, UNWELL),
    "lock": record(RUN | {"changed": flag}),
    "status": status,
    "certificate": record({"certificate": certificates}),
    "history": record({"entries": listing(PAST, RUNS)}, {"unseen": flag}),
    "generations": record({"active": number(), "generations": listing(GENERATION, 1000)}),
    "diff": record({"from": number(), "to": number(), "files": ENTRIES}),
    "drift": record({"files": ENTRIES, "unpushed": NAMES, "locked": flag, "generation": number()}),
    "mailcfg": record(
        SAID | {"code": one_of(0, FAILED, BAD_INPUT), "rows": maybe(rows)}, {"removed": listing(listing(line(CELL), 2))}
    ),
    "dkim": record({"keys": dkim_keys, "made": NAMES}),
    "queue": record(COUNTS | {"now": WHEN, "messages": listing(WAITING, 10_000)}),
    "queue.flush": record(COUNTS),
    "queue.show": record(
        {"now": WHEN, "message": maybe(WAITING), "more": flag}
        | {"head": listing(line(), 1 << 14), "body": listing(line(), 1 << 13)}
    ),
    "queue.rm": DONE,
    "queue.hold": DONE,
    "queue.release": DONE,
    "trace": record(
        {"stories": listing(STORY, 100), "count": number(), "begins": WHEN, "looked_from": maybe(WHEN), "locked": flag}
    ),
    "tunnel": record({"password": matching(r"[0-9a-f]{40}", "password", 40)}),
}


def result(task: str, data: Any) -> dict[str, Any]:
    """The result of `task` (a call, or its task where it has one), made harmless; Odd when it cannot be one."""
    shape = RESULT.get(task, record({}))
    try:
        found: dict[str, Any] = shape(data)
    except Odd as odd:
        raise Odd(f"gave an answer to {task} that cannot be right ({_of(odd)})") from None
    return found


# --- Events


def events(channel: Any, task: str) -> Iterator[Event]:
    """Each event that comes over `channel` in a call of `task`, as it may be used, until the other side ends.

    Raises Odd for what is no event and for too much of everything, TimeoutError when nothing happens. A sign of life
    has what to tell a person who waits, as `told`.
    """
    count, says, noise = 0, 0, 0
    patience = Patience(task)
    for text in _lines(channel):
        event = _event(text)
        if event is None:
            noise += len(text) + 1
        else:
            count += 1
            says += event["t"] == "say"
        if noise > NOISE or count > EVENTS or says > SAYS:
            raise Odd("talks without end")
        patience.hear(event)
        if event:
            now = time.monotonic()
            yield event | {"told": patience.word()} if event["t"] == "beat" else event
            patience.pause(time.monotonic() - now)


def _lines(channel: Any) -> Iterator[bytes]:
    rest = bytearray()
    total, since = 0, time.monotonic()
    while chunk := channel.recv(CHUNK):
        total += len(chunk)
        *whole, last = chunk.split(b"\n")
        for piece in whole:
            rest += piece
            _bound(rest)
            yield bytes(rest)
            rest.clear()
            since = time.monotonic()
        rest += last
        _bound(rest)
        if total > TOTAL:
            raise Odd("talks without end")
        if time.monotonic() - since > DROPS:
            raise TooLong("says something drop by drop")
    if rest:
        yield bytes(rest)


def _bound(text: bytearray) -> None:
    if len(text) > (LONG if text.startswith(LARGE) else SHORT):
        raise Odd("sent a line without end")


def _event(text: bytes) -> Event | None:
    """None for what is not meant for us: a login banner, a shell profile that prints."""
    try:
        value = DECODER.decode(text.decode())
    except RecursionError:
        raise Odd("sent what is nested too deep") from None
    except ValueError:
        if text.startswith(b"{"):
            raise Odd("sent what is no event") from None
        return None
    if not isinstance(value, dict):
        return None
    kind = value.get("t")
    if not isinstance(kind, str) or kind not in EVENT:
        raise Odd("sent an event that nobody knows")
    try:
        event: Event = EVENT[kind](value)
    except Odd as odd:
        raise Odd(f"sent an event {kind!r} that cannot be right ({_of(odd)})") from None
    return event


def _of(odd: Odd) -> str:
    place = ""
    for part in odd.place:
        place += f"[{part}]" if isinstance(part, int) else "." * bool(place) + printable.line(part[:80])
    return f"{place or 'it'} {odd.what}"


def _refuse(name: str) -> None:
    raise ValueError(name)


DECODER = json.JSONDecoder(parse_constant=_refuse)  # JSON has no NaN and no Infinity
