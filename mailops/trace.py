"""The way of a message, from the port that it came in at to the mailbox, as the machines' journals tell it."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mailops import fleet
from mailops.errors import BAD_INPUT, FAILED, MailopsError
from mailops.roles import MADE
from mailops.screen import paint, tables
from mailops.ssh.machine import Machine

if TYPE_CHECKING:
    from mailops.remote.shared.calls import Delivery, Judged, Stories, Story

USUAL = "2d"
SPANS = {"min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
WAYS = "like 2h, 3d, 2w, today, yesterday, 2026-11-28 or '2026-11-28 09:30'"
FORMS = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M")
FEW = 10  # messages that are shown, of a great many; --json has all that the machine tells of
MEANT = 0.15  # points of a score that are worth a word
INDENT = 8
STORED = "in "  # how a machine's words begin for a copy that is in a folder
# What the filter wants done, in words.
ACTIONS = {
    "no action": "taken",
    "add header": "taken as spam, for Junk",
    "rewrite subject": "taken as spam, for Junk",
    "soft reject": "put off",
    "greylist": "put off",
    "reject": "refused",
}


def trace(c: Any, what: str, since: str = "", as_json: bool = False) -> None:
    """Tell of the messages of an address, or of one by its ID; MailopsError (1) when no machine knows of any."""
    wanted = what.strip()
    if len(wanted) < 4 or len(wanted) > 998 or any(sign.isspace() for sign in wanted):
        hint = "fab trace ann@example.org, or an ID of the queue, or a Message-ID"
        raise MailopsError(f"{what!r} is neither an address nor an ID", hint, BAD_INPUT)
    began = moment(since or USUAL)
    found: list[int] = []

    def work(machine: Machine) -> Stories:
        result = machine.call("trace", {"what": wanted, "since": began})
        found.append(result["count"])
        return result

    def tell(name: str, result: Stories) -> None:
        for line in _lines(name, result, began):
            print(line)

    fleet.each(c, MADE, work, as_json, tell)
    if not any(found):
        hint = "look further back: --since 2w; or for the other address, or the sender's server never came here"
        raise MailopsError(f"nothing of {wanted} since {tables.when(began)}", hint, FAILED)


def moment(text: str) -> float:
    """A moment of the past by this computer's clock (s since 1970); MailopsError (2) when it is none."""
    now = time.time()
    if span := re.fullmatch(r"-?(\d{1,4}) ?(min|h|d|w)", text):
        return now - int(span[1]) * SPANS[span[2]]
    if text in ("today", "yesterday"):
        year, month, day = time.localtime(now)[:3]
        return time.mktime((year, month, day - (text == "yesterday"), 0, 0, 0, 0, 0, -1))
    for form in FORMS:
        try:
            return time.mktime(time.strptime(text, form))
        except (ValueError, OverflowError):
            continue
    raise MailopsError(f"{text!r} is no moment", f"write one {WAYS}", BAD_INPUT)


def _lines(name: str, result: Stories, began: float) -> Iterator[str]:
    known = result["looked_from"] or result["begins"]
    if known > began:
        why = "there is too much since then" if result["looked_from"] else "its journal begins then"
        yield f"{name}  what it knows begins at {tables.when(known)}: {why}"
    if result["locked"]:
        yield f"{name}  its vault is locked: mail is off, and what was in the queue waits; next: fab -H {name} unlock"
    stories = result["stories"]
    if (left := result["count"] - len(stories[-FEW:])) > 0:
        yield f"{name}  the latest {FEW} of {result['count']} messages; {left} more, see --since and --json"
    for story in stories[-FEW:]:
        yield from _story(name, story)


def _story(name: str, story: Story) -> Iterator[str]:
    mark, words = _outcome(story)
    yield f"{name}  {mark} {_clock(story['when'])}  {story['id'] or '(no ID)'}  {words}"
    for label, text in _parts(name, story):
        width = paint.columns() - INDENT - 9
        fitted = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) if width > 0 else [text]
        first, *others = fitted or [""]
        yield f"{'':{INDENT}}{label:<7}  {first}"
        yield from (f"{'':{INDENT + 9}}{line}" for line in others)


def _outcome(story: Story) -> tuple[str, str]:
    """A mark, and what became of the whole message in a word."""
    states = {one["status"] for one in story["to"]}
    if story["removed"] == "by hand":
        return "●", "was deleted from the queue by hand"
    if states - {"sent", "deferred"}:
        return "✗", "could not be delivered, and its sender was told"
    if story["held"]:
        return "●", f"is on hold; fab queue.release {story['id']} lets it go"
    if "deferred" in states:
        return ("✗", "was given up") if story["removed"] else ("●", "waits in the queue, and is tried again by itself")
    return _delivery(story) if states else _ended_early(story)


def _delivery(story: Story) -> tuple[str, str]:
    """The same of one that all recipients' servers have taken."""
    copies = [did for one in story["to"] for did in one["did"]]
    if copies and not any(did.startswith(STORED) for did in copies):
        return "●", "is in no mailbox here, by its user's own script"
    return "✓", "delivered" if copies else "handed on"


def _ended_early(story: Story) -> tuple[str, str]:
    """The same of one that nobody tried to deliver."""
    if story["refused"]:
        times = f", {story['times']} times, this is the last" if story["times"] > 1 else ""
        off = all(one["text"].startswith("4") for one in story["refused"])
        return "✗", ("put off, its server tries again" if off else "refused, and its server was told") + times
    return "●", "was given up by its sender" if story["removed"] else "on its way; nothing more is in the journal yet"


def _parts(name: str, story: Story) -> Iterator[tuple[str, str]]:
    came = story["came"] or {"door": "this machine itself", "host": "", "login": ""}
    by = f"{came['host']} at {came['door']}" if came["door"].startswith("port") else came["door"] or came["host"]
    login = f"logged in as {came['login']}" if came["login"] else ""
    yield "from", ", ".join(filter(None, [story["sender"] or "nobody (a notice, or an answer)", by, login]))
    if judged := story["filter"]:
        yield "filter", _judged(judged)
        if judged["signed"]:
            yield "signed", judged["signed"].replace(":s=", ", selector ")
    for one in story["to"]:
        orig = f"{one['orig']}, that is " if one["orig"] else ""
        yield "to", f"{orig}{one['to']}: {_delivered(name, story, one)}"
    if (more := story["recipients"] - len(story["to"])) > 0:
        yield "to", f"and {more} more"
    for no in story["refused"]:
        to = f"for {no['to']}: " if no["to"] else ""
        yield "refused", f"{to}{no['text']}{_next(name, no['advice'])}"
    if notices := [name for name in story["next"] if name not in [one["queued"] for one in story["to"]]]:
        yield "notice", f"to the sender, as {', '.join(notices)}"


def _judged(judged: Judged) -> str:
    head: str = ACTIONS.get(judged["action"], judged["action"])
    if judged["forced"]:
        return f"{head}: {judged['forced']}"
    if judged["score"] is None or judged["limit"] is None:
        return head
    said = [
        f"{symbol['words'] or symbol['name']} {symbol['score']:+.1f}"
        for symbol in judged["symbols"]
        if abs(symbol["score"]) >= MEANT
    ]
    points = f"{head}, {judged['score']:.1f} of {judged['limit']:.1f}"
    return f"{points}: {', '.join(said)}" if said else points


def _delivered(name: str, story: Story, one: Delivery) -> str:
    at = _clock(one["when"], story["when"])
    if one["did"]:
        return f"{', '.join(one['did'])}, {at}"
    if one["queued"] and one["queued"] in story["next"]:
        return f"goes on here as {one['queued']}, {at}"
    if one["status"] == "sent":
        return f"handed to {one['relay']}" + (f" as {one['queued']}" if one["queued"] else "") + f", {at}"
    tries = f" (tried {one['tries']} times, the last {at})" if one["tries"] > 1 else f" ({at})"
    advice = one["advice"]
    if one["status"] == "deferred" and not story["removed"]:
        advice = advice or "fab -H NAME queue.flush tries now"
    return f"{one['text']}{tries}{_next(name, advice)}"


def _next(name: str, advice: str) -> str:
    return f"; next: {fleet.told(name, advice)}" if advice else ""


def _clock(seconds: float, beside: float = 0) -> str:
    """To the second; of a moment of the same day as the one `beside` it, without that day."""
    day, clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)).split()
    return clock if day == time.strftime("%Y-%m-%d", time.localtime(beside)) else f"{day} {clock}"
