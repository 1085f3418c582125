"""The conversation with the laptop: events go out as JSON lines, questions are answered in frames.

A frame is `MAILOPS <length in bytes>\\n` and that many bytes of JSON. The laptop keeps our stdin open for
as long as it is there, so the end of stdin means that it is gone: the next step boundary then stops.
"""

from __future__ import annotations

import contextlib
import json
import queue
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO, cast

from .shared.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from .shared.calls import Said

    T = TypeVar("T")

HEARTBEAT = 10.0  # seconds; the laptop gives us up after a minute of silence
ANSWER = 1800.0  # seconds that a person has; whoever has left the prompt alone holds the machine no longer
GONE = object()
WITHHELD = {"withheld": True}  # the laptop has no answer; it awaits how this ends, and knows more to tell than we
NEEDED = {"passphrase": "the passphrase", "hashes": "a user's password", "hash": "the password"}


class Link:
    """What an agent call says and asks. `ask` raises AgentError when the laptop has gone.

    `origin` is the laptop's address as this machine sees it; `watch` is called with each sign of life. A call that is
    `resolute` goes on to its end although the laptop has gone: between two states of the machine there is no good
    place to stop.
    """

    origin = ""
    resolute = False
    watch: Callable[[], None] | None = None

    def __init__(self, stdin: BinaryIO, stdout: BinaryIO) -> None:
        self._stdout = stdout
        self._writing = threading.Lock()
        self._answers: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._gone = threading.Event()
        self._done = threading.Event()
        threading.Thread(target=self._listen, args=(stdin,), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def step(self, name: str, state: str, lines: Sequence[str] = ()) -> None:
        """Say where we are, and what was done there; between two steps is also where an abandoned call ends."""
        self._send({"t": "step", "name": name, "state": state, "lines": list(lines)})
        self.check()

    def progress(self, name: str, percent: float, detail: str = "") -> None:
        self._send({"t": "progress", "name": name, "percent": round(percent, 1), "detail": detail})

    def say(self, text: str) -> None:
        self._send({"t": "say", "text": text})

    def ask(self, what: str, data: object = None) -> T:  # type: ignore[type-var]  # what comes goes by the question
        self._send({"t": "ask", "what": what, "data": data})
        try:
            answer = self._answers.get(timeout=ANSWER)
        except queue.Empty:
            text = f"{NEEDED.get(what, 'the answer')} did not come from the laptop within {ANSWER / 60:.0f} min"
            raise AgentError(text, "run it again") from None
        if answer is GONE:
            self._answers.put(GONE)  # nor will the next question be answered
            raise AgentError("the laptop went away before it answered")
        if answer == WITHHELD:
            raise AgentError(f"{NEEDED.get(what, 'what this machine should be')} could not be had on the laptop")
        return cast("T", answer)

    def finish(self, data: Mapping[str, object]) -> None:
        self._done.set()
        self._send({"t": "result", "data": data})

    def fail(self, error: AgentError) -> None:
        self._done.set()
        self._send({"t": "error", "message": error.message, "hint": error.hint, "code": error.code})

    def check(self) -> None:
        if self._gone.is_set() and not self._done.is_set() and not self.resolute:
            raise AgentError("the laptop went away; stopped between two steps")

    def _send(self, event: Said) -> None:
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        try:
            with self._writing:
                self._stdout.write(line)
                self._stdout.flush()
        except (OSError, ValueError):  # a closed pipe: nobody listens any more
            self._gone.set()

    def _listen(self, stdin: BinaryIO) -> None:
        with contextlib.suppress(ValueError, OSError):  # what is no frame is no laptop of ours
            while (frame := read_frame(stdin)) is not None:
                self._answers.put(json.loads(frame))
        self._gone.set()
        self._answers.put(GONE)

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT):
            self._send({"t": "beat"})
            if self.watch:
                self.watch()


class Console:
    """The same interface for the machine's own console: a person reads along and types the answers."""

    origin = ""
    resolute = True

    def __init__(self, answers: Mapping[str, Callable[[object], object]]) -> None:
        self._answers = answers

    def step(self, name: str, state: str, lines: Sequence[str] = ()) -> None:
        if state in ("changed", "failed") and lines:
            print(f"{name}: {', '.join(lines)}", flush=True)

    def progress(self, name: str, percent: float, detail: str = "") -> None:
        pass

    def say(self, text: str) -> None:
        print(text, flush=True)

    def ask(self, what: str, data: object = None) -> T:  # type: ignore[type-var]  # as above
        return cast("T", self._answers[what](data))

    def check(self) -> None:
        pass


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame's payload; None at the end of the stream, a cut frame included."""
    head = stream.readline()
    if not head.startswith(b"MAILOPS "):
        return None
    length = int(head.split()[1])
    payload = stream.read(length)
    return payload if len(payload) == length else None


def stdio() -> Link:
    """The link over this process's stdin and stdout; nothing else may write to stdout from here on."""
    stdout = sys.stdout.buffer
    sys.stdout = sys.stderr
    return Link(sys.stdin.buffer, stdout)
