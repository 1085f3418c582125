"""One run at a time, and what the next one says of a holder that will not end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailops.remote.shared.errors import LOCKED, AgentError
from mailops.remote.system import lock

ROOT = Path(__file__).parents[4]
HOLDER = """
import sys, time
from mailops.remote.system import lock
lock.RUN, lock.PATH = sys.argv[1], sys.argv[1] + "/lock"
with lock.held("me@laptop", "push", "192.0.2.1", float(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lock, "RUN", str(tmp_path))
    monkeypatch.setattr(lock, "PATH", f"{tmp_path}/lock")
    return tmp_path


@pytest.fixture(params=[0.0])
def holder(place: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    since = str(time.time() - request.param)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(place), since], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def refused() -> AgentError:
    with pytest.raises(AgentError) as caught, lock.held("you", "push"):
        pass
    assert caught.value.code == LOCKED
    return caught.value


def wait_for_state(process: subprocess.Popen[str], state: str) -> None:
    while f") {state} " not in Path(f"/proc/{process.pid}/stat").read_text():
        time.sleep(0.01)


def test_whoever_works_is_waited_for(holder: subprocess.Popen[str]) -> None:
    error = refused()
    assert "me@laptop (from 192.0.2.1) is running push on this machine since" in error.message
    assert error.hint == lock.WAIT
    assert "next" not in lock.holder()


@pytest.mark.parametrize("holder", [lock.LONG + 60], indirect=True)
def test_one_that_takes_very_long_may_be_ended(holder: subprocess.Popen[str]) -> None:
    error = refused()
    assert error.hint == (
        f"if it hangs, as root there: kill -KILL {holder.pid} ends it, and the next run undoes what it had begun"
    )
    assert lock.holder() == f"{error.message}; next, {error.hint}"


def test_one_that_is_stopped_is_told_of_and_what_is_typed_then_lets_the_next_one_in(
    holder: subprocess.Popen[str],
) -> None:
    os.kill(holder.pid, signal.SIGSTOP)
    wait_for_state(holder, "T")
    error = refused()
    assert error.message.endswith(", and somebody has stopped it")
    typed = error.hint.partition("as root there: ")[2]
    assert typed.startswith(f"kill -CONT {holder.pid} ")
    subprocess.run(typed.partition("; ")[2].partition(" ends it")[0].split(), check=True)
    holder.wait(10)
    with lock.held("you", "push") as before:
        assert before["who"] == "me@laptop"
    assert lock.holder() == ""
