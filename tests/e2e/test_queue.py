"""Mail that waits, as the administrator sees it and deals with it from the laptop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.house import House, token, until
from tests.e2e.terminal import typed

USER = "user1@example.test"
AWAY = "stranger@elsewhere.test"  # whose server is down in these tests


@pytest.fixture
def waiting(up: House) -> Iterator[list[str]]:
    """The subjects of three messages that wait on the mailhost, for a server that is away."""
    up.run("mail", "postsuper -d ALL")
    up.run("outside", "systemctl stop postfix")
    try:
        subjects = [up.submit(USER, AWAY) for _ in range(3)]
        until(lambda: len(queue(up)) == 3 and all("delay_reason" in str(m) for m in queue(up)), 30, "three to wait")
        yield subjects
    finally:
        up.run("outside", "systemctl start postfix")
        up.run("mail", "postsuper -d ALL")


def queue(house: House, name: str = "mail") -> list[dict[str, str]]:
    """As Postfix itself tells of it."""
    return [json.loads(line) for line in house.run(name, "postqueue -j").splitlines()]


def held(house: House) -> list[str]:
    return [message["queue_id"] for message in queue(house) if message["queue_name"] == "hold"]


def test_what_waits_is_listed_shown_held_released_and_deleted(up: House, waiting: list[str]) -> None:
    ids = [message["queue_id"] for message in queue(up)]
    listed = up.fab("-H", "mail", "queue").stdout
    assert listed.startswith("mail  3 messages in the queue\n")
    for name in ids:
        line = next(line for line in listed.splitlines() if name in line)
        assert f"{USER}  {AWAY}  " in line
        assert "refused" in line
    told = up.fab_json("-H", "mail", "queue")["mail"]
    assert {message["id"] for message in told["messages"]} == {*ids}
    shown = up.fab("-H", "mail", "queue.show", ids[0]).stdout
    assert any(f"    Subject: {subject}\n" in shown for subject in waiting)
    assert f"  to {AWAY}\n" in shown
    assert "\n    Hello." in shown

    assert up.fab("queue.hold", ids[0], ids[1]).stdout == "mail  put on hold: 2 messages\n"
    assert sorted(held(up)) == sorted(ids[:2])
    up.run("outside", "systemctl start postfix")
    said = up.fab("-H", "mail", "queue.flush").stdout
    assert "1 message tried again now (2 on hold, which stay)" in said
    until(lambda: sorted(m["queue_id"] for m in queue(up)) == sorted(ids[:2]), 30, "the third to be delivered")
    up.fab("-H", "mail", "queue.release", ids[0])
    assert held(up) == [ids[1]]
    gone = up.fab("queue.rm", ids[1], "ABCDEF", check=False)
    assert (gone.returncode, gone.stdout) == (1, "mail  deleted: 1 message\n")
    assert "not in the queue (any more): ABCDEF" in gone.stderr
    assert ids[1] not in [message["queue_id"] for message in queue(up)]
    arrived = [subject for subject in waiting if up.run("outside", grep(subject), check=False)]
    until(lambda: len([s for s in waiting if up.run("outside", grep(s), check=False)]) == 2, 30, f"one more: {arrived}")


def grep(subject: str) -> str:
    return f"grep -rlF 'Subject: {subject}' /home/stranger/Maildir/new /home/stranger/Maildir/cur"


def test_deleting_many_is_asked_for_and_touches_nothing_else(up: House, waiting: list[str]) -> None:
    assert len(waiting) == 3
    up.run("mail", f"postsuper -h {queue(up)[0]['queue_id']}")
    refused = up.fab("-H", "mail", "queue.rm", "--all", check=False)
    assert (refused.returncode, len(queue(up))) == (2, 3)
    assert "nobody is at the terminal" in refused.stderr
    code, screen = typed(up, "-H", "mail", "queue.rm", "--deferred", answers=[("[y/N] ", "n")])
    assert (code, len(queue(up))) == (1, 3)
    assert "delete 2 messages, the oldest from" in screen
    code, screen = typed(up, "-H", "mail", "queue.rm", "--deferred", answers=[("[y/N] ", "y")])
    assert "mail  deleted: 2 messages" in screen
    assert [message["queue_name"] for message in queue(up)] == ["hold"]
    assert "deleted: 1 message" in up.fab("-H", "mail,backup", "queue.rm", "--all", "--yes").stdout
    assert queue(up) == []
    last = up.fab_json("-H", "mail", "history", "--count", "1")["mail"]["entries"][0]
    assert (last["task"], last["changed"]) == ("queue.rm", {"queue": ["1 message deleted"]})


def test_a_null_client_has_a_queue_of_its_own(up: House) -> None:
    subject = token()
    up.run("backup", "systemctl stop postfix")
    try:
        up.run("backup", "sendmail root", stdin=f"Subject: {subject}\n\nHi.\n")
        listed = up.fab("-H", "mail,backup", "queue").stdout
        assert "mail  nothing waits in the queue\n" in listed
        assert "backup  1 message in the queue\n" in listed
    finally:
        up.run("backup", "systemctl start postfix")
    up.arrives("admin@example.test", subject)


# The way of a message


def test_a_message_is_followed_from_port_25_to_its_folder(up: House) -> None:
    subject = up.stranger_sends("sales@example.test", sender=AWAY)
    message = up.arrives(USER, subject)
    told = until(lambda: done(up, str(message["Message-ID"])), 30, "the story's end")
    assert (told["came"]["door"], told["sender"]) == ("port 25", AWAY)
    assert told["came"]["host"].startswith("mx.elsewhere.test[")
    assert told["filter"]["action"] == "no action"
    assert [(one["to"], one["orig"], one["did"]) for one in told["to"]] == [(USER, "sales@example.test", ["in INBOX"])]
    assert f" id {told['id']}" in message["Received"] or told["id"] in str(message.items())
    seen = up.fab("-H", "mail", "trace", told["id"], "--since", "1h").stdout
    assert f"{told['id']}  delivered\n" in seen
    assert f"to       sales@example.test, that is {USER}: in INBOX, " in seen


def done(house: House, what: str) -> dict[str, Any] | None:
    """The one story of that message, once it is at its end; a hop later the journal has it."""
    asked = house.fab("-H", "mail", "trace", what, "--since", "1h", "--json", check=False)
    stories = json.loads(asked.stdout)["mail"]["stories"]
    return stories[0] if stories and stories[0]["removed"] else None


def test_what_was_refused_is_found_and_what_never_came_is_not(up: House) -> None:
    to = f"{token()}@second.test"
    refused = up.swaks("--from", AWAY, "--to", to)
    assert "550 5.1.1" in refused.stdout
    (told,) = up.fab_json("-H", "mail", "trace", to, "--since", "1h")["mail"]["stories"]
    assert told["refused"][0]["text"].startswith("550 5.1.1")
    seen = up.fab("-H", "mail", "trace", to, "--since", "1h").stdout
    assert "(no ID)  refused, and its server was told" in seen
    nothing = up.fab("trace", f"x{to}", check=False)
    assert nothing.returncode == 1
    assert f"nothing of x{to} since" in nothing.stderr


def test_a_null_client_knows_its_part(up: House) -> None:
    subject = token()
    up.run("backup", "sendmail root", stdin=f"Subject: {subject}\n\nHi.\n")
    message = up.arrives("admin@example.test", subject, sender="backup")
    both = up.fab_json("-H", "mail,backup", "trace", str(message["Message-ID"]), "--since", "1h")
    (here,), (there,) = both["mail"]["stories"], both["backup"]["stories"]
    assert there["to"][0]["queued"] == here["id"]
    assert there["to"][0]["orig"] == "root"
    assert here["came"]["login"] == "relay@example.test"
