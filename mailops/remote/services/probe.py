"""Questions that a working machine answers, asked over its own ports and sockets as a client would ask them.

What asks them is imported when it is asked for the first time: most agent calls probe nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from ..shared.errors import AgentError
from ..system import units
from ..system.shell import run

if TYPE_CHECKING:
    from typing import TypeVar

    from ..shared.forms import Probe
    from .conversation import Unsatisfied

    T = TypeVar("T")

# Seconds in which a wrong answer may still become right: a reload ends before the last old process has gone.
BRIEF = 5.0
GRACE = 0.2  # seconds for a conversation to end that is no longer of interest
PAUSES = (0.1, 0.1, 0.2, 0.4)  # seconds between tries, the last one again and again


# A kind of question, which is a function, and the file of the service that it is asked of.
FILES = {
    "smtp": "postfix",
    "submission": "postfix",
    "submissions": "postfix",
    "relay": "nullclient",
    "lmtp": "dovecot",
    "imaps": "dovecot",
    "login": "dovecot",
    "managesieve": "dovecot",
    "milter": "rspamd",
    "redis": "redis",
    "queue": "queue",
}


@cache
def _kinds() -> dict[str, Callable[[int, dict[str, str]], None]]:
    return {kind: getattr(import_module(f".{file}", __package__), kind) for kind, file in FILES.items()}


class ProbesFailed(AgentError):
    """`failures`: each probe that was not satisfied, with the reason; its `service` is the unit that is accused.

    `fallen`: units that a reload with a better configuration will not bring back, but a restart.
    """

    def __init__(self, failures: list[tuple[Probe, str]], fallen: Sequence[str] = ()) -> None:
        super().__init__("; ".join(f"{name(probe)}: {reason}" for probe, reason in failures))
        self.failures = failures
        self.fallen = list(dict.fromkeys(fallen))


def await_all(probes: list[Probe], seconds: float = 60.0) -> None:
    """Ask all probes side by side until each is satisfied; ProbesFailed when one is not.

    A wrong answer that waiting cannot better ends it within a few seconds; a daemon that does not answer yet
    has `seconds`.
    """
    from .conversation import Fallen

    accused = [
        (probe | {"service": said.accused or probe.get("service", "")}, said)
        for probe, said in _Wait(probes, seconds).failed()
    ]
    if accused:
        fallen = [probe["service"] for probe, said in accused if isinstance(said, Fallen)]
        raise ProbesFailed([(probe, str(said)) for probe, said in accused], fallen)


def ask_all(probes: list[Probe]) -> dict[str, str]:
    """One question each, side by side: by the probes' names, "" or what was wrong."""
    answers: dict[str, str] = {name(probe): "" for probe in probes}

    def keep(probe: Probe) -> None:
        answers[name(probe)] = ask(probe)

    for thread in [_started(keep, probe) for probe in probes]:
        thread.join()
    return answers


def ask(probe: Probe) -> str:
    """One question; "" when the answer is right, else what was wrong."""
    return str(_once(probe) or "")


def name(probe: Probe) -> str:
    """What it is called in a report: "smtp 25", and "redis" where there is no port."""
    return f"{probe['kind']} {probe['port']}" if probe["port"] else probe["kind"]


class _Wait:
    """One wait for a set of probes: over as soon as all are satisfied, or one is known to fail for good."""

    def __init__(self, probes: list[Probe], seconds: float) -> None:
        self._probes = probes
        self._start = time.time()  # as the journal counts
        self._deadline = time.monotonic() + seconds
        self._open = set(range(len(probes)))  # by number; those that are still being asked
        self._failed: dict[int, Unsatisfied] = {}
        self._over = threading.Event()

    def failed(self) -> list[tuple[Probe, Unsatisfied]]:
        """Ask, and name those that failed, in their order.

        One that may still be waiting for its daemon to start is not blamed for another's failure.
        """
        from .conversation import NotYet

        threads = [_started(self._ask, number) for number in range(len(self._probes))]
        pause = BRIEF
        while threads and not self._over.wait(pause):
            pause = 1.0
            self._look_for_the_dead()
            if time.monotonic() > self._deadline + pause:  # in the middle of a long conversation
                self._failed |= {number: NotYet("no answer in time") for number in tuple(self._open)}
                break
        for thread in threads:
            thread.join(GRACE)
        return [(self._probes[number], said) for number, said in sorted(self._failed.items())]

    def _ask(self, number: int) -> None:
        """Until it is satisfied, fails, or is no longer of interest."""
        from .conversation import Wrong

        pauses = list(PAUSES)
        wrong: Unsatisfied | None = None
        since = 0.0
        while said := _once(self._probes[number]):
            now = time.monotonic()
            if self._answers(said.accused):
                wrong, since = Wrong(str(said)), since or now
            elif _is_lasting(said, self._probes[number]):
                wrong, since = said, since or now
            else:  # what was wrong before was said by a process that has gone
                wrong, since = None, 0.0
            if wrong and now - since >= BRIEF:
                self._failed[number] = wrong
                self._over.set()
            elif now >= self._deadline:
                self._failed[number] = said
                break
            if self._over.wait(pauses.pop(0) if len(pauses) > 1 else pauses[0]):
                self._failed |= {number: wrong} if wrong else {}
                return
        self._open.discard(number)
        if not self._open:
            self._over.set()

    def _answers(self, unit: str) -> bool:
        """Whether a unit's own probes are satisfied: whoever accuses it is wrong, and does not wait for it."""
        own = {number for number, probe in enumerate(self._probes) if unit and probe.get("service") == unit}
        return bool(own) and not own & self._open

    def _look_for_the_dead(self) -> None:
        """A service whose processes die at their start keeps its port and lets everybody wait: its log tells."""
        from . import daemon_log
        from .conversation import Fallen

        for number in tuple(self._open):
            unit = self._probes[number].get("service", "")
            if death := daemon_log.death(unit, self._start):
                self._failed[number] = Fallen(f"no answer: {death}")
                self._over.set()


def _started(work: Callable[[T], None], argument: T) -> threading.Thread:
    thread = threading.Thread(target=work, args=(argument,), daemon=True)
    thread.start()
    return thread


def _once(probe: Probe) -> Unsatisfied | None:
    from .conversation import NotYet, Unsatisfied, Wrong

    try:
        _kinds()[probe["kind"]](probe["port"], probe["options"])
    except Unsatisfied as said:
        return said
    except (ConnectionResetError, BrokenPipeError):
        return Wrong("it hangs up")
    except OSError as error:
        slow = isinstance(error, TimeoutError)
        return NotYet("no answer in time" if slow else error.strerror or str(error))
    except Exception as error:  # no daemon of ours talks like this
        return Wrong(f"an answer that makes no sense ({type(error).__name__}: {error})")
    return None


def _is_lasting(said: Unsatisfied, probe: Probe) -> bool:
    """A wrong answer stays wrong; a missing one stays missing where the unit does not run, or says that it is
    ready and does not listen."""
    from .conversation import Silence, Wrong

    unit = said.accused or probe.get("service", "")
    if isinstance(said, Wrong) or not unit:
        return isinstance(said, Wrong)
    state = _state(unit)
    ready = state["ActiveState"] == "active" and state["Type"] in ("notify", "forking")
    return state["ActiveState"] in ("inactive", "failed") or (ready and isinstance(said, Silence))


def _state(unit: str) -> dict[str, str]:
    """ActiveState and Type; of the instance, where the unit only stands for that."""
    properties = "--property=ActiveState,SubState,Type"
    shown = run("systemctl", "show", properties, unit, units.instance(unit), check=False).stdout
    own, instance = (dict(line.split("=", 1) for line in block.split()) for block in shown.split("\n\n"))
    return instance if own["SubState"] == "exited" else own
