"""The way of each message through this machine, put together from what the daemons have written.

The queue ID holds it together: Postfix's lines begin with it, and Rspamd names it. Dovecot names the delivery, as it
tells Postfix. Short IDs are used again after a while, so a new client begins a new story.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..shared.address import without_detail
from . import dovecot, postfix_log, rspamd
from .mail_log import Line

if TYPE_CHECKING:
    from ..shared.calls import Delivery, Story

DELIVERY = re.compile(r" (\S+) Saved$")  # Dovecot's name for it, in its answer
LOCAL = "127.0.0.1["  # a relay of this machine: the message makes another round here
TRIED = "deferred"
# What to type next, by what was said; NAME is for the laptop to fill in. What another server has said is not for us to
# mend.
THEIRS = " said: "
NEXT = (
    (r"User unknown in virtual mailbox", "fab user.ls and fab alias.ls show who has mail here"),
    (r"Relay access denied", "a mail program has to log in, at port 465 or 587"),
    (r"not owned by user", "fab alias.ls shows which addresses a login may write as"),
    (r"Service unavailable - try again later|Server configuration (error|problem)", "fab -H NAME status"),
    (r"dovecot-lmtp|mail transport unavailable", "fab -H NAME status"),
    (r"[Gg]reylist", "nothing: a mail server tries again by itself, and is let in then"),
)


class Teller:
    """Reads lines in their order; `stories` has what came of it."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.stories: list[Story] = []
        self._open: dict[str, Story] = {}
        self._copies: dict[str, list[str]] = {}
        self._refusals: dict[tuple[str, str, str], Story] = {}
        self._tries: dict[tuple[int, str, str], Delivery] = {}
        for line in lines:
            self._read(line)
        for story in self.stories:
            self._finish(story)

    def _read(self, line: Line) -> None:
        if line.program.startswith("postfix"):
            if found := postfix_log.LINE.match(line.text):
                self._postfix(line.when, found[1], postfix_log.said(line.program, found[2]))
        elif line.program.startswith("rspamd"):
            if (judged := rspamd.verdict(line.text)) and (story := self._open.get(judged[0])):
                story["filter"] = judged[1]
        elif line.program.startswith("dovecot") and (copied := dovecot.copy(line.text)):
            self._copies.setdefault(copied[0], []).append(copied[1])

    def _postfix(self, when: float, name: str, said: postfix_log.Said | None) -> None:
        if said is None:
            return
        if name == postfix_log.NONE:
            if isinstance(said, postfix_log.Refusal):
                self._refused_at_once(when, said)
            return
        story = self._open.get(name)
        if not story or (_begins(story, said) and (story["came"] or story["message_id"] or story["removed"])):
            story = self._begin(when, name)
        self._note(story, when, said)

    def _begin(self, when: float, name: str) -> Story:
        story: Story = {
            "id": name,
            "when": when,
            "came": None,
            "message_id": "",
            "sender": "",
            "size": 0,
            "filter": None,
            "to": [],
            "recipients": 0,
            "refused": [],
            "next": [],
            "removed": "",
            "held": False,
            "times": 1,
        }
        self.stories.append(story)
        if name:
            self._open[name] = story
        return story

    def _refused_at_once(self, when: float, said: postfix_log.Refusal) -> None:
        """Before there was a message; the same again and again is one story, of the last time."""
        key = (said.sender, said.to, said.text)
        if story := self._refusals.get(key):
            story["times"] += 1
            story["when"] = when
            return
        story = self._refusals[key] = self._begin(when, "")
        story["came"] = {"door": said.door, "host": said.host, "login": said.login}
        self._note(story, when, said)

    def _note(self, story: Story, when: float, said: postfix_log.Said | None) -> None:
        match said:
            case postfix_log.Client(door, host, login):
                story["came"] = {"door": door, "host": host, "login": login}
            case postfix_log.MessageId(text):
                story["message_id"] = text
            case postfix_log.Taken(sender, size):
                story["sender"], story["size"] = sender, size
            case postfix_log.Attempt():
                self._try(story, when, said)
            case postfix_log.Refusal():
                story["sender"] = said.sender
                story["refused"].append({"to": said.to, "text": said.text, "advice": advice(said.text)})
            case postfix_log.Notice(name):
                story["next"].append(name)
            case _:
                _end(story, said)

    def _try(self, story: Story, when: float, said: postfix_log.Attempt) -> None:
        key = (id(story), said.to, said.orig)
        before = self._tries.get(key)
        one: Delivery = {
            "to": said.to,
            "orig": said.orig,
            "relay": said.relay,
            "status": said.status,
            "text": said.text,
            "queued": said.queued,
            "when": when,
            "tries": before["tries"] + 1 if before else 1,
            "did": [],
            "advice": advice(said.text) if said.status != "sent" else "",
        }
        if before:
            before.update(one)
        else:
            self._tries[key] = one
            story["to"].append(one)
        if said.relay.startswith(LOCAL) and said.queued:
            story["next"].append(said.queued)

    def _finish(self, story: Story) -> None:
        story["recipients"] = len(story["to"])
        for one in story["to"]:
            if found := DELIVERY.search(one["text"]):
                one["did"] = self._copies.get(found[1], [])[:20]


def _begins(story: Story, said: postfix_log.Said | None) -> bool:
    """Whether the line is of another message, which has the same ID."""
    return isinstance(said, postfix_log.Client) or (
        isinstance(said, postfix_log.MessageId) and bool(story["message_id"] or story["removed"])
    )


def _end(story: Story, said: postfix_log.Said | None) -> None:
    match said:
        case postfix_log.Hold(held):
            story["held"] = held
        case postfix_log.Removed(by_hand):
            story["removed"] = "by hand" if by_hand else "done"
        case postfix_log.Expired():
            for one in story["to"]:
                one["status"] = "expired" if one["status"] == TRIED else one["status"]


def advice(text: str) -> str:
    if THEIRS in text:
        return ""
    return next((words for pattern, words in NEXT if re.search(pattern, text)), "")


def about(stories: list[Story], what: str) -> list[Story]:
    """Those that are about an address, a domain (`@domain`), a queue ID or a Message-ID; with those that came of them,
    and those that they came of, in the order in which they began."""
    found = [story for story in stories if _is_about(story, what)]
    seen = {id(story) for story in found}
    names: dict[str, list[Story]] = {}
    messages: dict[str, list[Story]] = {}
    for story in stories:
        names.setdefault(story["id"], []).append(story)
        messages.setdefault(story["message_id"], []).append(story)
    before = {id(_after(names.get(name, []), story["when"])): story for story in stories for name in story["next"]}
    for story in found:  # which grows meanwhile
        others = [_after(names.get(name, []), story["when"]) for name in story["next"]] + [before.get(id(story))]
        others += messages.pop(story["message_id"], []) if story["message_id"].strip("<>") else []
        for other in filter(None, others):
            if id(other) not in seen:
                seen.add(id(other))
                found.append(other)
    return sorted(found, key=lambda story: float(story["when"]))


def _after(stories: list[Story], when: float) -> Story | None:
    """Of several that had the same ID, the first that began then or later; a log is not in order to the last second."""
    return next((story for story in stories if story["when"] > when - 1), None)


def _is_about(story: Story, what: str) -> bool:
    if "@" not in what.strip("<>") or what.startswith("<"):
        return bool(what) and what in (story["id"], story["message_id"], story["message_id"].strip("<>"))
    wanted = what.lower()
    people = [story["sender"], story["came"]["login"] if story["came"] else ""]
    people += [who for one in story["to"] for who in (one["to"], one["orig"])] + [one["to"] for one in story["refused"]]
    for person in map(str.lower, people):
        if person in (wanted, f"<{wanted}>") or without_detail(person) == wanted:
            return True
        if wanted.startswith("@") and person.endswith(wanted):
            return True
    return bool(what == story["message_id"].strip("<>"))
