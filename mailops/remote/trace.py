"""The way of a message through this machine, as its journal tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from . import machine
from .services import mail_log, story

if TYPE_CHECKING:
    from .shared.calls import Link, Stories, Story, TraceArgs

MOST = 100  # messages that are told of: the latest
MANY = 50  # recipients of one that are
LONG = 500  # characters


def call(args: TraceArgs, link: Link) -> Stories:
    """The agent call behind `fab trace`. What is asked for is compared, and never part of a command."""
    vault = machine.manifest()["vault"]
    lines, cut = mail_log.lines(float(args["since"]))
    found = story.about(story.Teller(lines).stories, args["what"])
    return {
        "stories": [_bounded(one) for one in found[-MOST:]],
        "count": len(found),
        "begins": mail_log.begins(),
        "looked_from": lines[0].when if cut else None,
        "locked": bool(vault and machine.answers([vault["mountpoint"]]) is False),
    }


def _bounded(one: Story) -> Story:
    """As the laptop takes it: what others have said may be of any length, and there may be any number of it."""
    short = {"message_id": one["message_id"][:LONG], "sender": one["sender"][:LONG]}
    lists = {"to": one["to"][:MANY], "refused": one["refused"][:MANY], "next": one["next"][:MANY]}
    return cast("Story", {**one, **short, **lists})
