"""Questions that a working machine answers, asked over its own ports and sockets as a client would ask them.

What asks them is imported when it is asked for the first time: most agent calls probe nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from .errors import AgentError
from .shell import run

if TYPE_CHECKING:
    from .conversation import Unsatisfied

# Seconds in which a wrong answer may still become right: a reload ends before the last old process has gone.
BRIEF = 5.0
PAUSES = (0.1, 0.1, 0.2, 0.4)  # seconds between tries, the last one again and again


@cache
def _kinds() -> dict[str, Callable[[int, dict[str, str]], None]]:
    from . import probe_filter, probe_imap, probe_smtp

    return {
        "smtp": probe_smtp.smtp,
        "submission": probe_smtp.submission,
        "submissions": probe_smtp.submissions,
        "relay": probe_smtp.relay,
        "lmtp": probe_smtp.lmtp,
        "imaps": probe_imap.imaps,
        "login": probe_imap.login,
        "managesieve": probe_imap.managesieve,
        "milter": probe_filter.milter,
        "redis": probe_filter.redis,
    }


class ProbesFailed(AgentError):
    """`failures`: each probe that was not satisfied, with the reason; its `service` is the unit that is accused."""

    def __init__(self, failures: list[tuple[dict[str, Any], str]]) -> None:
        super().__init__("; ".join(f"{name(probe)}: {reason}" for probe, reason in failures))
        self.failures = failures


def await_all(probes: list[dict[str, Any]], seconds: float = 60.0) -> None:
    """Ask all probes side by side until each is satisfied; ProbesFailed when one is not.

    A wrong answer that waiting cannot better ends it within a few seconds; a daemon that does not answer yet
    has `seconds`.
    """
    waits = _side_by_side(probes, _Wait(seconds))
    failures = [(probe | {"service": said.accused or probe.get("service", "")}, str(said)) for probe, said in waits]
    if failures:
        raise ProbesFailed(failures)


def ask_all(probes: list[dict[str, Any]]) -> dict[str, str]:
    """Each probe's name and, once asked, "" or what was wrong."""
    wrong = {name(probe): str(said) for probe, said in _side_by_side(probes, _once)}
    return {name(probe): wrong.get(name(probe), "") for probe in probes}


def ask(probe: dict[str, Any]) -> str:
    """One question; "" when the answer is right, else what was wrong."""
    return str(_once(probe) or "")


def name(probe: dict[str, Any]) -> str:
    """What it is called in a report: "smtp 25", and "redis" where there is no port."""
    return f"{probe['kind']} {probe['port']}" if probe["port"] else str(probe["kind"])


class _Wait:
    """One wait for a set of probes: over for all as soon as one of them is known to fail for good."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._over = threading.Event()

    def __call__(self, probe: dict[str, Any]) -> Unsatisfied | None:
        """None once it is satisfied, or no longer of interest; else why it is not."""
        pauses = list(PAUSES)
        wrong: Unsatisfied | None = None
        since = 0.0
        while said := _once(probe):
            now = time.monotonic()
            if _is_lasting(said, probe):
                since = since or now
                wrong = said
            if wrong and now - since >= BRIEF:
                self._over.set()
                return wrong
            if now >= self._deadline:
                return wrong or said
            if self._over.wait(pauses.pop(0) if len(pauses) > 1 else pauses[0]):
                return wrong  # one that only waits for its daemon to start is not to be blamed
        return None


def _once(probe: dict[str, Any]) -> Unsatisfied | None:
    from .conversation import NotYet, Unsatisfied, Wrong

    try:
        _kinds()[probe["kind"]](probe["port"], probe["options"])
    except Unsatisfied as said:
        return said
    except (ConnectionResetError, BrokenPipeError):
        return Wrong("it hangs up")
    except TimeoutError:
        return NotYet("no answer in time")
    except OSError as error:
        return NotYet(error.strerror or str(error) or type(error).__name__)
    except AgentError as error:
        return Wrong(error.message)
    return None


def _is_lasting(said: Unsatisfied, probe: dict[str, Any]) -> bool:
    """A wrong answer stays wrong; a missing one stays missing where the unit is not even starting."""
    from .conversation import Wrong

    unit = said.accused or probe.get("service", "")
    return isinstance(said, Wrong) or (bool(unit) and is_down(unit))


def is_down(unit: str) -> bool:
    """Neither running nor about to. On Debian 12 postfix.service only stands for its instance `-`, the daemon."""
    shown = run("systemctl", "show", "--property=ActiveState,SubState", unit, unit.replace(".", "@-."), check=False)
    own, instance = (dict(line.split("=", 1) for line in block.split()) for block in shown.stdout.split("\n\n"))
    daemon = instance if own["SubState"] == "exited" else own
    return daemon["ActiveState"] in ("inactive", "failed")


def _side_by_side(
    probes: list[dict[str, Any]], work: Callable[[dict[str, Any]], Unsatisfied | None]
) -> list[tuple[dict[str, Any], Unsatisfied]]:
    """The probes that were not satisfied, in their order. What is no answer at all is raised."""
    answers: list[Unsatisfied | None] = [None] * len(probes)
    errors: list[Exception] = []

    def keep(number: int) -> None:
        try:
            answers[number] = work(probes[number])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=keep, args=(number,), daemon=True) for number in range(len(probes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [(probe, answer) for probe, answer in zip(probes, answers, strict=True) if answer]
