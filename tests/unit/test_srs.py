"""Envelope senders for what is sent on, and the way back (templates/srs/any/usr/lib/mailops/srs)."""

from __future__ import annotations

import grp
import io
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mailops.remote.services import srs

SCRIPT = Path(__file__).parents[2] / "mailops/templates/srs/any/usr/lib/mailops/srs"
NAMES: dict[str, Any] = {"__name__": "srs"}
exec(SCRIPT.read_text(), NAMES)
KEY, TODAY = b"k" * 32, 20_784


def scheme(domain: str = "example.test", key: bytes = KEY, today: int = TODAY) -> Any:
    return NAMES["Scheme"](domain, key, today)


@pytest.mark.parametrize(
    "address",
    [
        "stranger@elsewhere.test",
        "A.User+detail=x@Elsewhere.Test",
        '"john doe"@elsewhere.test',
        r'"a\"b\\c@d"@elsewhere.test',
        "user@[192.0.2.1]",
        "SRS0=HHHH=TT=far.test=far@forwarder.test",
        "srs0+HHHH=TT=far.test=far@forwarder.test",
        "SRS1=HHHH=first.test==GGGG=TT=far.test=far@second.test",
        "a@b",
        '""@elsewhere.test',
    ],
)
def test_an_address_comes_back_as_it_was(address: str) -> None:
    made = scheme().encode(address)
    assert made.endswith("@example.test")
    back = scheme().decode(made)
    if "SRS1" in address:  # straight to the first forwarder
        assert back == "SRS0=GGGG=TT=far.test=far@first.test"
    else:
        assert back.lower() == address.lower()
    assert scheme().decode(made.lower()).lower() == back.lower(), "servers change the case"
    assert scheme().encode(made) is None, "Postfix asks again with the answer"


def test_no_other_address_leads_anywhere() -> None:
    made = scheme().encode("stranger@elsewhere.test")
    assert made.startswith("SRS0=")
    assert scheme(key=b"x" * 32).decode(made) is None
    assert scheme().decode(made.replace("stranger", "victim")) is None
    assert scheme().decode(made.replace("elsewhere", "another")) is None
    assert scheme().decode(made.replace("example.test", "other.test")) is None
    chained = scheme().encode("SRS0=HHHH=TT=far.test=far@forwarder.test")
    assert scheme().decode(chained.replace("forwarder", "another")) is None
    assert scheme().decode("SRS1" + made[4:]) is None
    for odd in ("SRS0=@example.test", "SRS0=a=b=c=d@example.test", "SRS1==@example.test", "x@example.test", "", "@"):
        assert scheme().decode(odd) is None


def test_an_address_is_good_for_three_weeks() -> None:
    made = scheme().encode("stranger@elsewhere.test")
    for days, good in ((0, True), (21, True), (22, False), (1000, False), (-1, False)):
        assert bool(scheme(today=TODAY + days).decode(made)) == good, days
    late = scheme(today=1023).encode("a@b.test")
    assert scheme(today=1024 + 5).decode(late) == "a@b.test", "the days begin anew"


def test_it_answers_as_postfix_asks(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(KEY)

    def ask(*requests: str) -> bytes:
        text = b"".join(b"%d:%s," % (len(request), request.encode()) for request in requests)
        command = [sys.executable, "-IS", str(SCRIPT), "Example.test", str(secret)]
        return subprocess.run(command, input=text, capture_output=True, check=False).stdout

    first = ask("encode stranger@elsewhere.test", "decode SRS0=x@example.test")
    assert first.endswith(b",9:NOTFOUND ,")
    made = first.split(b",")[0].split(b" ")[1].decode()
    assert ask(f"decode {made}") == b"26:OK stranger@elsewhere.test,"
    assert ask(f"check {made}", "check SRS0=x@example.test").startswith(b"9:NOTFOUND ,64:OK 550 5.1.1 nobody here")
    secret.write_bytes(b"")
    assert ask(f"decode {made}") == b"", "no answer is a temporary error for Postfix"


def test_nonsense_ends_the_conversation() -> None:
    for text in (b"", b"x", b"9999999999:", b"3:abc;", b":"):
        assert NAMES["question"](io.BytesIO(text)) is None


def test_the_secret_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(srs, "OWNER", pwd.getpwuid(os.getuid()).pw_name)
    monkeypatch.setattr(srs, "GROUP", grp.getgrgid(os.getgid()).gr_name)
    (tmp_path / "srs").mkdir()
    accounts, secret = f"{tmp_path}/db/mail.sqlite", tmp_path / "srs/secret"
    assert srs.converge(accounts, dry_run=True) == [f"secret {secret}"]
    assert not secret.exists()
    assert srs.converge(accounts) == [f"secret {secret}"]
    made = secret.read_bytes()
    assert len(made) == 32
    assert secret.stat().st_mode & 0o777 == 0o640
    assert srs.converge(accounts) == []
    assert secret.read_bytes() == made
