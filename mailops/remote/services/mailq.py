"""Messages that wait in Postfix's queue: listed, looked into, tried again, held, deleted; by its own programs.

An ID reaches them only when it was listed a moment before: a word such as ALL, which to postsuper(1) means every
message, never does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..system import shell
from .queue import messages

if TYPE_CHECKING:
    from ..shared.calls import Waiting
    from .queue import Queued

ID = re.compile(r"[0-9A-Za-z]{5,30}")  # short ones are hexadecimal; `enable_long_queue_ids` makes others
DELETE, HOLD, RELEASE = "-d", "-h", "-H"  # of postsuper(1)
DONE = re.compile(r": (?:Deleted|Placed on hold|Released from hold): (\d+) message")
FEW = 20  # messages
RECIPIENTS = 10  # of a message that are named
LONG = 320  # characters of an address (RFC 5321, 4.5.3.1)
REASON = 1000  # characters
HEAD, BODY = 1 << 14, 1 << 12  # bytes of a message that are shown
WIDE = 998  # characters of a line (RFC 5322, 2.1.1)


def listed() -> list[Waiting]:
    """Each message, oldest first. Of many recipients the first, and of several reasons the first that is given."""
    return sorted(map(_message, messages()), key=lambda message: float(message["since"]))


def _message(said: Queued) -> Waiting:
    recipients = said.get("recipients", [])
    reasons = [str(recipient["delay_reason"]) for recipient in recipients if recipient.get("delay_reason")]
    return {
        "id": str(said.get("queue_id", "")),
        "queue": str(said.get("queue_name", "")),
        "since": float(said.get("arrival_time", 0)),
        "size": int(said.get("message_size", 0)),
        "sender": str(said.get("sender", ""))[:LONG],
        "recipients": [str(recipient.get("address", ""))[:LONG] for recipient in recipients[:RECIPIENTS]],
        "count": len(recipients),
        "reason": reasons[0][:REASON] if reasons else "",
        "reasons": len(set(reasons)),
    }


def change(option: str, ids: Iterable[str]) -> int:
    """Do to these messages what `option` means; how many there still were to do it to."""
    chosen = [name for name in ids if ID.fullmatch(name)]
    if not chosen:
        return 0
    done = shell.run("postsuper", option, "-", stdin="".join(f"{name}\n" for name in chosen), timeout=600)
    if option == RELEASE:
        _try_now(chosen)
    return sum(map(int, DONE.findall(done.stderr)))


def _try_now(names: list[str]) -> None:
    """What was on hold would else wait for the next turn of what is deferred. One by one while they are few."""
    for words in [("-i", name) for name in names] if len(names) <= FEW else [("-f",)]:
        shell.run("postqueue", *words, check=False)


def flush() -> None:
    """AgentError while Postfix is down."""
    shell.run("postqueue", "-f")


def content(name: str) -> tuple[list[str], list[str], bool]:
    """Header lines and the first lines of the body of a message that was `listed`; whether there is more of it."""
    head, more_head = shell.beginning(HEAD, "postcat", "-hq", name)
    body, more_body = shell.beginning(BODY, "postcat", "-bq", name)
    return _lines(head), _lines(body), more_head or more_body


def _lines(text: bytes) -> list[str]:
    return [line.rstrip("\r").expandtabs()[:WIDE] for line in text.decode(errors="replace").strip("\n").split("\n")]
