"""A message's way, out of what the daemons of both releases have really written."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from mailops import trace
from mailops.errors import BAD_INPUT, FAILED, MailopsError
from mailops.remote import trace as there
from mailops.remote.services import mail_log, story
from mailops.remote.services.mail_log import Line
from mailops.ssh import protocol
from tests.unit import pretend
from tests.unit.ssh.hostile import STORY

LOGS = Path(__file__).parent / "remote/services"
USER, STRANGER = "user1@example.test", "stranger@elsewhere.test"


@pytest.fixture(params=[12, 13], ids=["debian12", "debian13"])
def log(request: pytest.FixtureRequest) -> list[Line]:
    lines = (line.split(" ", 2) for line in (LOGS / f"mail_log_{request.param}.txt").read_text().splitlines())
    return [Line(float(when), program, text) for when, program, text in lines]


def found(log: list[Line], what: str) -> list[dict[str, Any]]:
    """As the laptop gets it."""
    told = [there._bounded(one) for one in story.about(story.Teller(log).stories, what)]
    result = {"stories": told, "count": len(told), "begins": 0.0, "looked_from": None, "locked": False}
    stories: list[dict[str, Any]] = protocol.result("trace", json.loads(json.dumps(result)))["stories"]
    return stories


def shown(log: list[Line], what: str) -> str:
    return "\n".join(line for one in found(log, what) for line in trace._story("mail", one))


def squeezed(text: str) -> str:
    return " ".join(text.split())


def test_a_message_to_an_alias_ends_in_a_folder(log: list[Line]) -> None:
    (one,) = found(log, "sales@example.test")
    assert (one["came"]["host"], one["came"]["door"]) == ("mx.elsewhere.test[10.213.2.2]", "port 25")
    assert (one["sender"], one["removed"]) == (STRANGER, "done")
    assert one["filter"]["score"] in (-0.8, -0.6)
    assert {"name": "R_SPF_ALLOW", "score": -0.2, "words": "SPF passes"} in one["filter"]["symbols"]
    (delivery,) = one["to"]
    assert (delivery["to"], delivery["orig"], delivery["did"]) == (USER, "sales@example.test", ["in INBOX"])
    for what in (one["id"], one["message_id"], one["message_id"].strip("<>"), "SALES@example.test"):
        assert found(log, what) == [one]
    text = squeezed(shown(log, one["id"]))
    assert text.startswith(f"mail ✓ {time.strftime('%Y-%m-%d', time.localtime(one['when']))}")
    assert f"{one['id']} delivered from {STRANGER}, mx.elsewhere.test[10.213.2.2] at port 25 filter taken" in text
    assert f" to sales@example.test, that is {USER}: in INBOX, " in text


def test_what_the_filter_refuses_is_told_with_its_reason(log: list[Line]) -> None:
    one = next(one for one in found(log, "admin@example.test") if one["refused"])
    assert one["filter"]["action"] == "reject"
    assert one["refused"][0]["to"] == USER
    text = squeezed(shown(log, one["id"]))
    assert "refused, and its server was told" in text
    assert "filter refused: mail from example.test needs SPF, a DKIM signature or a login of example.test" in text


@pytest.mark.parametrize(
    ("who", "words", "advice"),
    [
        ("foreign@elsewhere.test", "554 5.7.1 <foreign@elsewhere.test>: Relay access denied", "has to log in"),
        ("user1@second.test", "User unknown in virtual mailbox table", "fab user.ls and fab alias.ls"),
    ],
)
def test_what_never_had_an_id_is_found_by_its_addresses(log: list[Line], who: str, words: str, advice: str) -> None:
    (one,) = found(log, who)
    assert (one["id"], one["sender"], one["came"]["door"]) == ("", STRANGER, "port 25")
    text = squeezed(shown(log, who))
    assert "(no ID) refused, and its server was told" in text
    assert words in text
    assert advice in text


def test_the_same_refusal_again_and_again_is_one_story(log: list[Line]) -> None:
    (one,) = [one for one in found(log, STRANGER) if one["times"] > 1]
    assert one["refused"][0]["text"].startswith("451 4.7.1 Service unavailable")
    assert f"put off, its server tries again, {one['times']} times" in "\n".join(trace._story("mail", one))
    assert "next: fab -H mail status" in squeezed("\n".join(trace._story("mail", one)))


def test_a_bounce_belongs_to_what_could_not_be_delivered(log: list[Line]) -> None:
    sent, notice = found(log, "bob@nowhere.invalid")
    assert (sent["came"]["login"], sent["came"]["door"], sent["to"][0]["status"]) == (USER, "port 587", "bounced")
    assert sent["next"] == [notice["id"]]
    assert sent["filter"]["signed"] == "example.test:s=202611"
    assert (notice["sender"], notice["to"][0]["to"], notice["to"][0]["did"]) == ("", USER, ["in INBOX"])
    assert found(log, notice["id"]) == [sent, notice]
    text = squeezed(shown(log, sent["id"]))
    assert "✗" in text
    assert "signed example.test, selector 202611" in text
    assert f"notice to the sender, as {notice['id']}" in text


def test_what_an_alias_sends_on_makes_another_round(log: list[Line]) -> None:
    first, second = found(log, "fwd@example.test")
    assert first["next"] == [second["id"]]
    assert second["to"][0]["status"] == "sent"
    text = squeezed(shown(log, "fwd@example.test"))
    assert f"goes on here as {second['id']}" in text
    assert "an alias that leads to another server" in text
    assert "handed to mx.elsewhere.test[10.213.2.2]:25 as" in text


def test_what_a_script_does_is_told(log: list[Line]) -> None:
    texts = [did for one in found(log, USER) for delivery in one["to"] for did in delivery["did"]]
    assert f"sent on to {STRANGER} by the user's sieve script" in texts
    dropped = next(one for one in found(log, USER) if "discarded" in str(one["to"]))
    assert "is in no mailbox here, by its user's own script" in shown(log, dropped["id"])
    sent_on = next(one for one in found(log, USER) if any("sent on" in str(to["did"]) for to in one["to"]))
    _, again = found(log, sent_on["id"])  # a queue ID of its own, the same Message-ID
    assert again["came"]["door"] == "a user's sieve script"
    assert "discarded" not in shown(log, again["id"]).splitlines()[0]


def test_what_waits_says_why_and_what_to_type(log: list[Line]) -> None:
    later = next(at for at, line in enumerate(log) if "milter-reject: MAIL" in line.text)
    away = [one for one in found(log[:later], STRANGER) if [to["status"] for to in one["to"]] == ["deferred"]]
    text = squeezed("\n".join(line for one in away for line in trace._story("mail", one)))
    assert "waits in the queue, and is tried again by itself" in text
    assert "connect to mx.elsewhere.test[10.213.2.2]:25: Connection refused (" in text
    assert "next: fab -H mail queue.flush tries now" in text
    assert "[private/dovecot-lmtp]: Connection refused" in text
    assert "next: fab -H mail status" in text
    assert max(to["tries"] for one in found(log, STRANGER) for to in one["to"]) > 1


def line(when: float, text: str, program: str = "postfix/smtpd") -> Line:
    return Line(when, program, text)


def test_an_id_that_is_used_again_is_another_message() -> None:
    log = [
        line(1, "ABCDEF12: client=one[192.0.2.1]"),
        line(2, "ABCDEF12: from=<a@x.test>, size=1, nrcpt=1 (queue active)", "postfix/qmgr"),
        line(3, "ABCDEF12: removed", "postfix/qmgr"),
        line(4, "ABCDEF12: client=two[192.0.2.2]"),
        line(5, "ABCDEF12: from=<b@x.test>, size=1, nrcpt=1 (queue active)", "postfix/qmgr"),
        line(6, "ABCDEF12: removed", "postfix/postsuper"),
    ]
    first, second = story.about(story.Teller(log).stories, "ABCDEF12")
    assert (first["came"]["host"], first["sender"], first["removed"]) == ("one[192.0.2.1]", "a@x.test", "done")
    assert (second["came"]["host"], second["sender"], second["removed"]) == ("two[192.0.2.2]", "b@x.test", "by hand")
    assert story.about(story.Teller(log).stories, "a@x.test") == [first]


def test_what_another_server_says_is_not_ours_to_mend() -> None:
    said = "550 5.1.1 <b@y.test>: Recipient address rejected: User unknown in virtual mailbox table"
    bounced = f"to=<b@y.test>, relay=mx.y, delay=9, delays=1/1/1/6, dsn=5.1.1, status=bounced (host mx.y said: {said})"
    assert "next: " not in shown([line(1, f"ABCDEF12: {bounced}", "postfix/smtp")], "b@y.test")


def test_thousands_of_messages_with_one_message_id_are_no_trouble() -> None:
    log = [line(n, f"{n:08X}: message-id=<same@x.test>", "postfix/cleanup") for n in range(20_000)]
    assert len(story.about(story.Teller(log).stories, "<same@x.test>")) == 20_000


def test_what_was_tried_long_enough_is_not_called_handed_on() -> None:
    refused = "to=<b@y.test>, relay=none, delay=9, delays=1/1/1/6, dsn=4.4.1, status=deferred (connect to y: refused)"
    log = [
        line(1, "ABCDEF12: from=<a@x.test>, size=1, nrcpt=1 (queue active)", "postfix/qmgr"),
        *(line(2 + n, f"ABCDEF12: {refused}", "postfix/smtp") for n in range(3)),
        line(6, "ABCDEF12: from=<a@x.test>, status=expired, returned to sender", "postfix/qmgr"),
        line(7, "ABCDEF12: removed", "postfix/qmgr"),
    ]
    assert "could not be delivered, and its sender was told" in shown(log, "b@y.test")
    assert "(tried 3 times, the last " in squeezed(shown(log, "b@y.test"))
    assert "✗" in shown([*log[:4], log[5]], "b@y.test")


@pytest.mark.parametrize(
    ("what", "is_about"),
    [
        ("ann@x.test", True),
        ("ANN@X.test", True),
        ("ann+shop@x.test", True),
        ("@x.test", True),
        ("nn@x.test", False),
        ("@test", False),
        ("x.test", False),
        ("", False),
        ("<>", False),
    ],
)
def test_who_is_asked_for(what: str, is_about: bool) -> None:
    text = "NOQUEUE: reject: RCPT from h[192.0.2.1]: 550 5.1.1 no; from=<q@y.test> to=<ann+shop@x.test> proto=ESMTP"
    assert bool(story.about(story.Teller([line(1, text)]).stories, what)) == is_about


def test_only_lines_of_the_daemons_own_units_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    entry = b'{"MESSAGE":[255,104,105],"SYSLOG_IDENTIFIER":"postfix/qmgr","__REALTIME_TIMESTAMP":"2500000"}'
    monkeypatch.setattr(mail_log, "_read", lambda command: asked.extend(command) or [mail_log.parsed(entry)])
    assert mail_log.lines(1.0) == ([Line(2.5, "postfix/qmgr", "\ufffdhi")], False)
    matches = [word for word in asked if "=" in word and not word.startswith("-")]
    assert all(word.startswith(("_SYSTEMD_UNIT=", "_UID=0", "SYSLOG_IDENTIFIER=postfix/postsuper")) for word in matches)
    assert mail_log.parsed(b"no JSON") is None


# The laptop's half


def test_a_span_and_a_day_are_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    noon = time.mktime((2026, 11, 28, 12, 0, 0, 0, 0, -1))
    monkeypatch.setattr(trace.time, "time", lambda: noon)
    assert trace.moment("2h") == noon - 7200
    assert trace.moment("1w") == noon - 7 * 86400
    assert trace.moment("today") == noon - 12 * 3600
    assert trace.moment("yesterday") == noon - 36 * 3600
    assert trace.moment("2026-11-28 11:30") == noon - 1800
    for wrong in ("soon", "28.11.2026", "-1", "2026-13-01", "9" * 30):
        with pytest.raises(MailopsError) as error:
            trace.moment(wrong)
        assert error.value.code == BAD_INPUT


@pytest.mark.parametrize("what", ["", "a b@x.test", "x\ny", "ab"])
def test_what_is_neither_an_address_nor_an_id_is_refused_at_once(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MailopsError, match="neither an address nor an ID") as error:
        trace.trace(pretend.site(monkeypatch, tmp_path, pytest.fail), what)
    assert error.value.code == BAD_INPUT


def test_what_the_journal_does_not_know_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    nothing = {"stories": [], "count": 0, "begins": now - 3600, "looked_from": None, "locked": True}
    c = pretend.site(monkeypatch, tmp_path, lambda *_: nothing, "mail")
    with pytest.raises(MailopsError, match=r"nothing of ann@example.test since") as error:
        trace.trace(c, "ann@example.test")
    assert error.value.code == FAILED
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("mail  what it knows begins at ")
    assert first.endswith(": its journal begins then")
    assert "its vault is locked: mail is off" in second
    many = {"stories": [STORY] * 30, "count": 30, "begins": 0.0, "looked_from": None, "locked": False}
    trace.trace(pretend.site(monkeypatch, tmp_path, lambda *_: many, "mail"), "ann@example.test")
    out = capsys.readouterr().out
    assert "mail  the latest 10 of 30 messages; 20 more, see --since and --json\n" in out
    assert out.count("ABCDE1") == 10
