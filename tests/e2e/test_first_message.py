"""The main job: a stranger's message through port 25, read over IMAPS."""

from __future__ import annotations

from tests.e2e.house import House


def test_a_strangers_message_is_read_over_imaps(up: House) -> None:
    subject = up.stranger_sends("user1@example.test")
    message = up.arrives("user1@example.test", subject)
    assert message["From"] == "stranger@elsewhere.test"


def test_a_detail_address_is_delivered_to_its_user(up: House) -> None:
    subject = up.stranger_sends("user1+shop@example.test")
    up.arrives("user1@example.test", subject)


def test_roots_mail_on_a_null_client_reaches_the_administrator(up: House) -> None:
    for client in ("backup", "web"):
        up.run(client, "sendmail root", stdin=f"Subject: root-on-{client}\n\nThe backup is done.\n")
        message = up.arrives("admin@example.test", f"root-on-{client}")
        assert f"root@{client}.example.test" in message["From"]
