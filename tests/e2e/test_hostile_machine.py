"""A null client that somebody has taken over, and what it gets out of the laptop that looks after it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from tests.e2e.house import House

BAD, OTHERS = "backup", ("mail", "web")
DISTRUSTED = 6
PLACE = "/usr/local/bin/python3"  # before Debian's, for sudo and for the shell
# Speaks as our agent does, says what stands in /root/says, and keeps whatever it is sent.
FALSE_AGENT = """#!/usr/bin/python3
import sys
out = sys.stdout.buffer
out.write(b'{"t":"hello"}\\n')
out.flush()
sys.stdin.buffer.readline()
try:
    for line in open("/root/says", "rb"):
        out.write(line)
        out.flush()
except BrokenPipeError:
    pass
with open("/root/got", "ab") as got:
    got.write(b"called\\n")
    got.write(sys.stdin.buffer.read())
"""
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b1A\u202e"
PASSPHRASE = {"t": "ask", "what": "passphrase", "data": {"new": False}}
HASHES = {"t": "ask", "what": "hashes", "data": ["admin@example.test", "user1@example.test"]}
SHADOW = {"t": "ask", "what": "files", "data": ["/etc/shadow", "/etc/postfix/main.cf"]}
POISON = {"t": "ask", "what": "manifest", "data": {"release": "../../../../etc", "mailhost_certificate": ESCAPES}}
FLOOD = {"t": "say", "text": f"all is well {ESCAPES}"}
NO_ERROR = {"t": "error", "message": f"done {ESCAPES}", "hint": "", "code": 0}


@pytest.fixture
def taken(up: House) -> Iterator[House]:
    """The house, with a false agent on one of its null clients."""
    up.run(BAD, f"cat > {PLACE}; chmod 755 {PLACE}; rm -f /root/got", stdin=FALSE_AGENT)
    try:
        yield up
    finally:
        up.run(BAD, f"rm -f {PLACE} /root/got /root/says")
    assert up.fab("-H", BAD, "plan").stdout == f"{BAD}  nothing would change\n"  # nothing of it was kept


def say(house: House, event: dict[str, object], times: int = 1) -> None:
    house.run(BAD, "cat > /root/says", stdin=f"{json.dumps(event)}\n" * times)


def assert_got_nothing(house: House) -> None:
    got = house.run(BAD, "cat /root/got")
    assert got.startswith("called\n")
    for name, secret in house.secrets().items():
        if name != f"hosts.{BAD}.sudo_pw":  # its own, which its own sudo asked for before
            forms = [base64.b64encode(b"\0" * n + secret.encode()).decode()[4 if n else 0 : -4] for n in range(3)]
            assert not [form for form in (secret, *forms) if form in got], name
    assert "BLF-CRYPT" not in got


@pytest.mark.parametrize(
    ("task", "event", "told"),
    [
        ("plan", PASSPHRASE, "asked in plan for the passphrase of the vault ('passphrase')"),
        ("bootstrap", PASSPHRASE, "asked in bootstrap for the passphrase of the vault ('passphrase')"),
        ("plan", HASHES, "asked in plan for hashes of users' passwords ('hashes')"),
        ("bootstrap", HASHES, "asked in bootstrap for hashes of users' passwords ('hashes')"),
        ("push", SHADOW, "asked in push for contents of files ('files')"),
        ("plan", POISON, "asked in plan for what it should be ('manifest')"),
        ("status", NO_ERROR, "sent an event 'error' that cannot be right"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_a_null_client_that_was_taken_over_gets_nothing(
    taken: House, task: str, event: dict[str, object], told: str
) -> None:
    say(taken, event)
    done = taken.fab("-H", BAD, task, check=False)
    assert done.returncode == DISTRUSTED
    first, hint = done.stderr.splitlines()
    assert first.startswith(f"mailops: {BAD}: this machine {told}")
    assert "may be compromised" in first
    assert hint.startswith("  ")
    assert done.stdout + done.stderr == "".join(filter(str.isprintable, done.stdout + first)) + f"\n{hint}\n"
    assert_got_nothing(taken)


def test_a_flood_ends_and_the_other_machines_are_still_done(taken: House) -> None:
    say(taken, FLOOD, times=5000)
    done = taken.fab("bootstrap", check=False)
    assert done.returncode == DISTRUSTED
    assert f"{BAD}  ✗ {BAD}: this machine talks without end; it got no answer, and may be compromised\n" in done.stderr
    for name in OTHERS:
        assert f"{name}    nothing changed, " in done.stdout
    assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(done.stdout + done.stderr)
    assert_got_nothing(taken)
