"""One run at a time, and what the next one says of a holder that will not end."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailops.remote.shared.errors import LOCKED, AgentError
from mailops.remote.system import holder as holders
from mailops.remote.system import lock
from mailops.ssh.shapes import advice

ROOT = Path(__file__).parents[4]
DEAD = 2**22 + 1  # no process has this number (proc_sys_kernel(5): pid_max is at most 2^22)
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
    monkeypatch.setattr(lock, "A_MOMENT", 0.1)
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


@pytest.mark.parametrize("holder", [holders.LONG + 60], indirect=True)
def test_one_that_takes_very_long_may_be_ended(holder: subprocess.Popen[str]) -> None:
    error = refused()
    assert error.hint == ("if it hangs, type the same with --take-over: that run ends, and what it had begun is undone")
    assert lock.holder() == f"{error.message}; next, {error.hint.replace('type the same', 'a task')}"


def test_one_that_is_stopped_is_told_of_with_both_ways_out(holder: subprocess.Popen[str]) -> None:
    os.kill(holder.pid, signal.SIGSTOP)
    wait_for_state(holder, "T")
    error = refused()
    assert error.message.endswith(", and somebody has stopped it")
    assert error.hint.startswith("type the same with --take-over: ")
    assert error.hint.endswith(f"as root there: kill -CONT {holder.pid}")
    assert advice(error.hint) == error.hint, "the laptop shows it"


@pytest.mark.parametrize("stopped", [False, True])
def test_whoever_takes_over_ends_the_holder_and_learns_what_it_was(
    holder: subprocess.Popen[str], stopped: bool
) -> None:
    if stopped:
        os.kill(holder.pid, signal.SIGSTOP)
        wait_for_state(holder, "T")
    with lock.held("you", "push", take_over=True) as before:
        assert (before["who"], before["by"]) == ("me@laptop", "you")
        assert holder.wait(10) == -signal.SIGKILL
        assert "you is running push" in lock.holder()
    assert lock.holder() == ""


def test_nobody_else_is_ended_who_has_the_number_of_a_holder(holder: subprocess.Popen[str], place: Path) -> None:
    """The process of that number began at another time: the lock, which is held, is somebody's without a name."""
    file = place / "lock"
    named = json.loads(file.read_text())
    with subprocess.Popen(["sleep", "60"]) as other:
        file.write_text(json.dumps(named | {"pid": other.pid}))
        with pytest.raises(AgentError) as caught, lock.held("you", "push", take_over=True):
            pass
        assert "me@laptop's push has ended, and python" in caught.value.message
        assert caught.value.hint == f"as root there: kill -KILL {holder.pid} ends that"
        assert (other.poll(), holder.poll()) == (None, None)
        other.kill()


def test_of_a_holder_of_an_older_mailops_is_only_said_how_to_end_it(holder: subprocess.Popen[str], place: Path) -> None:
    file = place / "lock"
    named = json.loads(file.read_text())
    del named["started"]
    file.write_text(json.dumps(named))
    with pytest.raises(AgentError, match="is running push") as caught, lock.held("you", "push", take_over=True):
        pass
    assert caught.value.hint.endswith(f"as root there: kill -KILL {holder.pid} ends it")
    assert holder.poll() is None


def test_what_a_dead_holder_has_left_running_is_named(place: Path) -> None:
    file = place / "lock"
    gone = {"who": "me@laptop", "from": "", "doing": "push", "since": 1.0, "pid": DEAD, "started": 1}
    file.write_text(json.dumps(gone))
    with file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        child = subprocess.Popen(["sleep", "60"], pass_fds=[held.fileno()])
    with child:
        error = refused()
        assert error.message == f"me@laptop's push has ended, and sleep (process {child.pid}) holds this machine"
        assert error.hint == f"as root there: kill -KILL {child.pid} ends that"
        file.write_text("")
        assert refused().message == f"sleep (process {child.pid}) holds this machine for nobody knows whom"
        child.kill()
    with lock.held("you", "push"):
        pass
