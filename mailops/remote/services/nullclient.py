"""Postfix on a machine that only sends, as its programs ask it."""

from __future__ import annotations

from . import conversation
from .smtp import Client, must_welcome


def relay(port: int, options: dict[str, str]) -> None:
    """What a program of the machine itself asks: mail for its own people is taken."""
    with conversation.local(port) as connection:
        client = Client(connection)
        client.greet()
        client.must("MAIL FROM:<>")
        must_welcome(client, options)
        client.leave()
