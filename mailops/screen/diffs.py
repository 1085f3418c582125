"""What a person is shown of a file that differs: a unified diff with the secrets masked, or a line that names it.

An entry is what the agent tells of one file: path, contents before and after in base64 (None: absent, or secret),
`was` and `now` ("0644 root:root" or "absent"), whether it is secret, and its state in a word: "new", "removed", "mode"
(content as before), "changed"; of a hand edit "edited", "mode", "missing".
"""

from __future__ import annotations

import base64
import difflib
import math
import re
import sys
from typing import TYPE_CHECKING, Any, cast

from mailops import printable, secrets
from mailops.screen import paint

if TYPE_CHECKING:
    from typing import TypedDict

    from mailops.remote.shared.calls import Edit

    class Shown(TypedDict):
        """An entry as it may be printed: a diff, with the secrets masked, in the place of the contents."""

        path: str
        state: str
        secret: bool
        was: str
        now: str
        diff: str  # "" for none


EDIT = ("as mailops wrote it", "now")  # the two times of a hand edit
NULL = "/dev/null"  # as diff(1) and git name a file that is not there
MOST_LINES = 5000  # of a file that is compared; to find what differs takes the square of the time
MOST_WORK = MOST_LINES**2  # of all files of a machine: lines before by lines after
NO_NEWLINE = "\\ No newline at end of file"


def unified(path: str, before: bytes | None, after: bytes | None, labels: tuple[str, str]) -> str:
    """A unified diff, every known secret masked; None is a file that is not there, "" says that nothing differs.

    `labels` tell of which time the two are. What somebody wrote into a file on a machine must not steer the terminal
    that shows it.
    """
    old, new = (NULL if it is None else f"{path} ({label})" for it, label in zip((before, after), labels, strict=True))
    was, now = _lines(before), _lines(after)
    if max(len(was), len(now)) > MOST_LINES and was != now:
        return f"--- {old}\n+++ {new}\n(more than {MOST_LINES} lines, not compared)\n"
    lines = difflib.unified_diff(was, now, old, new)
    # The masking comes first: a secret with a control character in it is known as it is, not as it is spelt out.
    return printable.lines(secrets.mask("".join(map(_ended, lines))))


def all_shown(entries: list[Edit], labels: tuple[str, str]) -> list[Shown]:
    """As `shown`, as far as the work goes: a machine that was taken over can make it hours."""
    done: list[Shown] = []
    work = 0
    for entry in entries:
        sides = (entry["before"], entry["after"])
        work += math.prod(1 + (_bytes(side) or b"").count(b"\n") for side in sides)
        done.append(shown(entry, labels, compared=work <= MOST_WORK))
    return done


def shown(entry: Edit, labels: tuple[str, str], compared: bool = True) -> Shown:
    """The entry as it may be printed, JSON included: a masked diff in place of the contents."""
    plain = {key: value for key, value in entry.items() if key not in ("before", "after")}
    plain["diff"] = _diff(entry, labels) if compared else f"{entry['path']}: (too much differs, not compared)\n"
    return cast("Shown", plain)


def line(entry: Shown) -> str:
    """One line of an entry: its state, its path, and what a diff does not tell."""
    text = f"{entry['state']:<8} {entry['path']}"
    if entry["was"] != entry["now"] and entry["state"] not in ("new", "removed", "missing"):
        text += f"  {entry['was']} → {entry['now']}"
    if entry["secret"] and entry["state"] in ("changed", "edited", "new"):
        text += "  (its content is secret and not shown)"
    return text


def edits(entries: list[Edit]) -> list[Shown]:
    """Hand edits, as the agent's `drift` tells of them, as they may be printed."""
    return all_shown(entries, EDIT)


def text(name: str, shown_entries: list[Shown]) -> str:
    """Entries for a person: a line for each, with the machine's name, then the diffs."""
    lines = "".join(f"{name}  {line(entry)}\n" for entry in shown_entries)
    return lines + "".join(f"\n{entry['diff']}" for entry in shown_entries if entry["diff"])


def show_edits(name: str, listener: Any, entries: list[Edit]) -> None:
    """The answer to the agent's "edited": show a person what stands in a run's way, beside its progress."""
    listener.say("somebody has changed files on this machine:")
    stream = getattr(listener, "stream", sys.stderr)
    print(paint.page(text(name, edits(entries)), stream), file=stream, flush=True)


def _diff(entry: Edit, labels: tuple[str, str]) -> str:
    """Empty where there is nothing to compare: a secret, a link, or a file that somebody has deleted by hand."""
    before, after = _bytes(entry["before"]), _bytes(entry["after"])
    known = (before is not None or entry["state"] == "new") and (after is not None or entry["state"] == "removed")
    if entry["secret"] or not known or entry["state"] == "missing":
        return ""
    return unified(entry["path"], before, after, labels)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def _lines(content: bytes | None) -> list[str]:
    """Lines as an editor has them: `splitlines` would also end one at a form feed or a carriage return."""
    return re.findall(r"[^\n]*\n|[^\n]+", (content or b"").decode(errors="replace"))


def _ended(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n{NO_NEWLINE}\n"
