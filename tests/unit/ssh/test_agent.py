"""The agent before it meets a machine: the archive, the loader, the frames, the lock, what a person sees."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mailops import secrets
from mailops.remote.link import WITHHELD, Link, read_frame
from mailops.remote.shared.errors import AgentError
from mailops.remote.system import dpkg, installed, lock, packages
from mailops.screen import report
from mailops.ssh import agent, protocol
from mailops.ssh import machine as machines


def frame(payload: bytes) -> bytes:
    return b"MAILOPS %d\n" % len(payload) + payload


# The archive


def test_the_same_sources_give_the_same_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(agent.REMOTE, tmp_path / "remote", copy_function=shutil.copy)  # new times, new order on disk
    was = agent.archive(), agent.digest()
    for path in (tmp_path / "remote").rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o755)
    monkeypatch.setattr(agent, "REMOTE", tmp_path / "remote")
    monkeypatch.setattr(agent, "sources", agent.sources.__wrapped__)
    for same in (True, False):
        assert (agent.archive() == was[0], agent.digest.__wrapped__() == was[1]) == (same, same)
        (tmp_path / "remote" / "errors.py").write_text("")


def test_the_archive_runs_alone_on_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "agent.pyz").write_bytes(agent.archive())
    command = [sys.executable, "-IS", str(tmp_path / "agent.pyz"), "mailcfg", "help"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    assert "adduser <email> <pw>" in done.stdout


# The loader


def script(command: str) -> str:
    """What sh is given to do by a command line."""
    words = ["sh", "-c", 'printf %b "$@"', *shlex.split(command)[3:]]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@contextmanager
def loader(*places: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The loader as the machine runs it, with its caches in `places`."""
    text = agent.loader().replace(
        '["/var/cache/mailops/", "/run/mailops-agent/"]', json.dumps([f"{p}/" for p in places])
    )
    assert text != agent.loader()
    command = [sys.executable, "-IS", "-c", text, *script(agent.command("nothing", False)).split()[-4:]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        yield process


def call(process: subprocess.Popen[bytes], noise: bytes = b"") -> list[dict[str, Any]]:
    """A call of something that does not exist, which the agent answers all the same; the events that came."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(noise + frame(b"{}"))
    process.stdin.flush()
    events = []
    for line in process.stdout:  # stdin stays open, as the laptop keeps it
        events.append(json.loads(line))
        if events[-1] == {"t": "agent"}:
            process.stdin.write(frame(agent.archive()))
            process.stdin.flush()
    return events


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["t"] for event in events]


def test_the_archive_travels_once(tmp_path: Path) -> None:
    with loader(tmp_path / "cache") as first:
        assert kinds(call(first)) == ["hello", "agent", "error"]
    with loader(tmp_path / "cache") as second:
        assert kinds(call(second)) == ["hello", "error"]
    assert (first.returncode, second.returncode) == (0, 0)  # no complaint about the open stdin at the end


def test_the_rooms_of_the_package_travel_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is in them counts, when an agent that is there is looked at."""
    shutil.copytree(agent.REMOTE, tmp_path / "remote", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "remote/room").mkdir()
    (tmp_path / "remote/room/file.py").write_text("# inside")
    monkeypatch.setattr(agent, "REMOTE", tmp_path / "remote")
    for name in ("sources", "digest"):
        monkeypatch.setattr(agent, name, getattr(agent, name).__wrapped__)
    for seen in (["hello", "agent", "error"], ["hello", "error"]):
        with loader(tmp_path / "cache") as process:
            assert kinds(call(process)) == seen
    there = tmp_path / f"cache/agent-{agent.digest()[:16]}/remote/room/file.py"
    assert there.read_text() == "# inside"
    there.write_text("")
    with loader(tmp_path / "cache") as process:
        assert kinds(call(process)) == ["hello", "agent", "error"]


def test_an_older_archive_makes_room(tmp_path: Path) -> None:
    older, old, young = (tmp_path / f"agent-{name}" for name in ("0000.pyz", "0123456789abcdef", "fedcba9876543210"))
    older.touch()  # a file, as the first releases kept it
    for path in (old, young):
        shutil.copytree(agent.REMOTE, path / "remote")
    for path in (older, old):
        os.utime(path, (0, 0))
    with loader(tmp_path) as process:
        call(process)
    # The young one is another laptop's, whose call may be running from it.
    assert {path.name for path in tmp_path.iterdir()} == {f"agent-{agent.digest()[:16]}", young.name}


def test_an_agent_in_use_does_not_age(tmp_path: Path) -> None:
    for _ in range(2):
        with loader(tmp_path) as process:
            call(process)
        os.utime(tmp_path / f"agent-{agent.digest()[:16]}", (0, 0))
    with loader(tmp_path) as process:
        call(process)
    assert time.time() - (tmp_path / f"agent-{agent.digest()[:16]}").stat().st_mtime < 60


@pytest.mark.parametrize("damage", [lambda path: path.write_text(""), lambda path: path.unlink()])
def test_a_damaged_agent_is_fetched_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    with loader(tmp_path) as process:
        call(process)
    damage(tmp_path / f"agent-{agent.digest()[:16]}" / "remote" / "link.py")
    for expected in (["hello", "agent", "error"], ["hello", "error"]):
        with loader(tmp_path) as process:
            assert kinds(call(process)) == expected
    assert len(list(tmp_path.iterdir())) == 1


def test_the_agent_is_compiled_once(tmp_path: Path) -> None:
    with loader(tmp_path) as process:
        call(process)
    assert {path.name.partition(".")[0] for path in tmp_path.glob("*/remote/__pycache__/*.pyc")} >= {"__main__", "link"}


def test_the_unpacked_agent_has_the_archive_for_the_machines_own_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loader(tmp_path / "cache") as process:
        call(process)
    (unpacked,) = (tmp_path / "cache").iterdir()
    monkeypatch.setattr(sys, "path", [str(unpacked), *sys.path])
    monkeypatch.setattr(installed, "PLACE", str(tmp_path / "agent.pyz"))
    (tmp_path / "agent.pyz").write_bytes(agent.archive())
    assert installed.converge(dry_run=True) == []
    (tmp_path / "agent.pyz").write_bytes(b"of some other release")
    assert installed.converge(dry_run=True) == [f"agent {tmp_path / 'agent.pyz'}"]


def test_a_cache_that_cannot_be_written_is_replaced_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "full").touch()  # no directory can be made of that
    with loader(tmp_path / "full", tmp_path / "run") as process:
        assert kinds(call(process)) == ["hello", "agent", "error"]
    assert len(list((tmp_path / "run").iterdir())) == 1


def test_a_password_that_sudo_did_not_ask_for_is_passed_over(tmp_path: Path) -> None:
    with loader(tmp_path) as process:
        assert kinds(call(process, noise=b"correct horse battery staple\n")) == ["hello", "agent", "error"]


def test_a_bug_in_the_agent_is_one_line(tmp_path: Path) -> None:
    with loader(tmp_path) as process:
        error = call(process)[-1]
    assert error["code"] == 1
    assert error["message"].startswith("KeyError in the agent at __main__.py:")


def test_the_loader_ends_when_nobody_calls(tmp_path: Path) -> None:
    with loader(tmp_path) as process:
        process.communicate(timeout=10)
    assert process.returncode == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("install", [True, False])
def test_the_command_line_is_sound_shell_and_the_same_for_every_call(install: bool) -> None:
    assert agent.command("status", install, "sudo -n") == agent.command("status", install, "sudo -n")
    for sudo in ("", "sudo -n"):
        said = script(agent.command("status", install, sudo))
        subprocess.run(["sh", "-n"], input=said, text=True, check=True)
        if sudo:
            inner = shlex.split(said.partition("\n")[2])[4]
            subprocess.run(["sh", "-n"], input=inner, text=True, check=True)


@pytest.mark.parametrize("shell", ["sh", "bash", "tcsh", "bsd-csh", "fish", "zsh"])
def test_every_login_shell_takes_the_command_line_for_the_same(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    odd = """echo "a!b" 'it'"'"'s' \\\\x\ncat\n# """ + "x" * 5000
    done = subprocess.run(
        [shell, "-c", agent.for_any_shell(odd)], input="in", capture_output=True, text=True, check=True
    )
    assert done.stdout == "a!b it's \\x\nin"


def test_no_login_shell_sees_what_it_would_change() -> None:
    """csh takes `!` and the end of a line within quotes for its own, fish `\\'`; the csh of BSD ends at 1024 bytes."""
    words = shlex.split(agent.command("status", True, "sudo -n"))
    assert agent.for_any_shell("a") == """sh -c 'eval "$(printf %b "$@")"' mailops 'a'"""
    assert max(map(len, words)) < 1024
    assert not {word for word in words[4:] if set("!\n'") & set(word) or "\\\\" in word}


@pytest.mark.parametrize("sudo", ["", "LC_ALL=C env -i"])
def test_the_loader_is_told_where_we_come_from_although_sudo_forgets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sudo: str
) -> None:
    monkeypatch.setattr(agent, "loader", lambda: "import sys; print(sys.argv[1:])")
    monkeypatch.setattr(agent, "HAVE_PYTHON", "true")
    for client, told in (("2001:db8::7 50000 22", "2001:db8::7"), ("$(id) `id` 1", "$(id)"), ("", "")):
        environment = {"SSH_CLIENT": client, "PATH": os.environ["PATH"]}
        command = ["sh", "-c", agent.command("status", False, sudo)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"[{told!r}, 'agent-")


@pytest.mark.parametrize(
    ("status", "there"),
    [
        ("Package: python3\nStatus: install ok installed\n", True),
        ("Package: python3\nStatus: hold ok installed\n", True),
        ("Package: python3\nStatus: install ok unpacked\n", False),
        ("Package: python3\nStatus: deinstall ok config-files\n", False),
        ("Package: python3-minimal\nStatus: install ok installed\n", False),
    ],
)
def test_only_a_whole_python_counts(tmp_path: Path, status: str, there: bool) -> None:
    (tmp_path / "status").write_text(f"Package: apt\nStatus: install ok installed\n\n{status}Priority: optional\n")
    script = agent.HAVE_PYTHON.replace("/var/lib/dpkg/status", str(tmp_path / "status"))
    assert (subprocess.run(["sh", "-c", script], check=False).returncode == 0) is there


# The link


class Laptop:
    """The other end of a link."""

    def __init__(self) -> None:
        reading, self.writing = os.pipe()
        self.stdout = io.BytesIO()
        self.link = Link(os.fdopen(reading, "rb"), self.stdout)

    def answer(self, value: Any) -> None:
        os.write(self.writing, frame(json.dumps(value).encode()))

    def leave(self) -> None:
        os.close(self.writing)

    def heard(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.getvalue().splitlines()]


def test_a_question_is_asked_and_answered() -> None:
    laptop = Laptop()
    laptop.answer({"pfx": "ä\n"})
    assert laptop.link.ask("files", ["/etc/x"]) == {"pfx": "ä\n"}
    assert laptop.heard() == [{"t": "ask", "what": "files", "data": ["/etc/x"]}]


def test_a_question_that_the_laptop_cannot_answer_is_no_laptop_that_left() -> None:
    assert WITHHELD == machines.WITHHELD
    laptop = Laptop()
    for _ in range(2):
        laptop.answer(machines.WITHHELD)
    with pytest.raises(AgentError, match="the passphrase could not be had on the laptop"):
        laptop.link.ask("passphrase", {"new": False})
    with pytest.raises(AgentError, match="a user's password could not be had on the laptop"):
        laptop.link.ask("hashes", ["a@example.test"])


def test_a_question_to_a_laptop_that_left_is_an_error_however_often_it_is_asked() -> None:
    laptop = Laptop()
    laptop.leave()
    for _ in range(2):
        with pytest.raises(AgentError, match="the laptop went away before it answered"):
            laptop.link.ask("passphrase")


def test_a_question_to_a_laptop_that_is_there_and_does_not_answer_comes_to_an_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mailops.remote.link.ANSWER", 0.05)
    with pytest.raises(AgentError, match="the passphrase did not come from the laptop"):
        Laptop().link.ask("passphrase", {"new": False})


@pytest.mark.parametrize("rest", [b"MAILOPS 10\nshort", b"hello\n", b"MAILOPS ten\n", b"MAILOPS 3\n{x}"])
def test_half_a_frame_or_none_counts_as_the_end(rest: bytes) -> None:
    laptop = Laptop()
    os.write(laptop.writing, rest)
    laptop.leave()
    with pytest.raises(AgentError, match="went away"):
        laptop.link.ask("passphrase")


def test_an_abandoned_call_ends_at_the_next_step() -> None:
    laptop = Laptop()
    laptop.link.step("packages", "start")
    laptop.leave()
    with pytest.raises(AgentError, match="went away"):
        laptop.link.ask("anything")  # which waits until the end is noticed
    with pytest.raises(AgentError, match="stopped between two steps"):
        laptop.link.step("users", "start")


def test_lines_of_several_threads_are_never_torn() -> None:
    laptop = Laptop()
    threads = [
        threading.Thread(target=lambda: [laptop.link.say("x" * 500) for _ in range(50)])  # type: ignore[func-returns-value]
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert laptop.heard() == [{"t": "say", "text": "x" * 500}] * 200


def test_a_frame_is_read_by_its_length() -> None:
    stream = io.BytesIO(frame(b"a\nMAILOPS 1\nb") + frame(b""))
    assert [read_frame(stream), read_frame(stream), read_frame(stream)] == [b"a\nMAILOPS 1\nb", b"", None]


# The lock


def test_the_second_run_gives_way_and_says_to_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RUN", str(tmp_path))
    monkeypatch.setattr(lock, "PATH", str(tmp_path / "lock"))
    with lock.held("ann@laptop", "bootstrap"):
        with pytest.raises(AgentError) as refused, lock.held("bob@desk", "push"):
            pass
        with pytest.raises(AgentError), lock.held("bob@desk", "push"):
            pass
    assert refused.value.message.startswith("ann@laptop is running bootstrap on this machine since ")
    assert refused.value.code == 5
    with lock.held("bob@desk", "push"):
        pass


DEAD = 2**22 + 1  # no process has this number (proc_sys_kernel(5): pid_max is at most 2^22)


@pytest.mark.parametrize(
    "text", ["", "{", json.dumps({"who": "late@grave", "doing": "push", "since": 1.0, "pid": DEAD})]
)
def test_a_holder_that_has_not_yet_said_who_it_is_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """It has the lock, and the file is still empty, or half written, or names one who was killed."""
    monkeypatch.setattr(lock, "RUN", str(tmp_path))
    path = tmp_path / "lock"
    monkeypatch.setattr(lock, "PATH", str(path))
    path.write_text(text)
    tries: list[float] = []

    def sleep(seconds: float) -> None:
        tries.append(seconds)
        if len(tries) == 3:
            path.write_text(json.dumps({"who": "ann@laptop", "doing": "push", "since": 1.0, "pid": os.getpid()}))

    monkeypatch.setattr(time, "sleep", sleep)
    with path.open() as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(AgentError, match="ann@laptop is running push"), lock.held("bob@desk", "bootstrap"):
            pass
        assert len(tries) == 3
        path.write_text(text)
        monkeypatch.setattr(lock, "A_MOMENT", 0.0)
        with pytest.raises(AgentError, match=r"process \d+\) holds this machine"), lock.held("bob@desk", "bootstrap"):
            pass
    with lock.held("bob@desk", "bootstrap"):
        pass


# Packages


def test_questions_are_answered_before_they_are_asked_and_only_of_new_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "status").write_text("Package: there\nStatus: install ok installed\n")
    said: list[tuple[object, ...]] = []
    monkeypatch.setattr(dpkg, "STATUS", str(tmp_path / "status"))
    monkeypatch.setattr(packages, "POLICY", str(tmp_path / "policy-rc.d"))
    monkeypatch.setattr(packages, "_lists_age", lambda: 0.0)
    monkeypatch.setattr(packages, "_patiently", lambda *command, stdin="": said.append((*command, stdin)))
    monkeypatch.setattr(packages, "_install", lambda names, *_: said.append((*names,)))
    answers = ["new new/kind select none", "there there/kind select none"]
    packages.converge(["there", "new"], answers, None)
    assert said == [("debconf-set-selections", "new new/kind select none"), ("new",)]
    packages.converge(["there"], answers, None)
    assert len(said) == 2


def test_a_python3_that_cannot_be_installed_is_an_error_of_the_machine(tmp_path: Path) -> None:
    for name, script in {"apt-get": """printf 'E: no "x\\\\y"\nE: at all\n'; exit 100""", "dpkg": ""}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    log = tmp_path / "log"
    script = "have_python() { false; }\n" + agent.INSTALL_PYTHON.replace("/run/mailops-python.log", str(log))
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env={"PATH": path}, check=False)
    *_, last = done.stdout.splitlines()
    told = protocol._event(last.encode())
    assert told
    assert (told["t"], told["code"], done.returncode) == ("error", 1, 1)
    assert told["message"] == "python3 could not be installed: E: at all E: no xy E: at all"
    assert "log there" in told["hint"]


# What a person sees


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_is_as_it_should_be_needs_no_line_and_progress_is_told_in_strides() -> None:
    stream = io.StringIO()
    listener = report.Report("mail", stream)
    listener.step("packages", "start", [])
    for percent in range(0, 101, 5):
        listener.progress("packages", percent, "unpacking")
    listener.step("packages", "changed", ["install postfix"])
    listener.step("users", "start", [])
    listener.step("users", "ok", [])
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["…"] * 5 + ["●"]
    assert "users" not in stream.getvalue()


def test_no_secret_is_printed_and_no_passing_line_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    secrets.remember("pw-that-is-known")
    stream = Terminal()
    listener = report.Report("mail", stream)
    listener.progress("packages", 50, "pw-that-is-known " + "x" * 200)
    listener.say("pw-that-is-known")
    listener.step("checks", "failed", ["pw-that-is-known"])
    assert "pw-that-is-known" not in stream.getvalue()
    passing = stream.getvalue().split("\r\x1b[K")[1]
    assert len(passing) < 60


def test_a_long_list_of_changes_is_cut_to_its_number() -> None:
    stream = io.StringIO()
    report.Report("mail", stream).step("packages", "changed", [f"install package{n}" for n in range(20)])
    assert stream.getvalue().rstrip().endswith("install package2 and 17 more")


def test_a_change_with_commas_in_it_is_one() -> None:
    stream = io.StringIO()
    lines = [f"stop exim{n}.service, which has ports 25, 587 and 465, as nobody else may" for n in range(4)]
    report.Report("mail", stream).step("ports", "changed", lines)
    assert stream.getvalue().rstrip().endswith(f"{lines[1]}, {lines[2]} and 1 more")


def test_a_package_is_told_of_when_it_is_unpacked_and_before_it_is_set_up() -> None:
    said: list[str] = []

    class Told:
        def progress(self, _: str, percent: float, text: str) -> None:
            said.append(f"{percent:.0f} {text}")

    lines = """\
dlstatus:1:50:Retrieving file 1 of 2
pmstatus:isa-support:10:Unpacking isa-support (amd64)
pmstatus:isa-support:12:Preparing to configure isa-support (amd64)
pmstatus:rspamd:20:Preparing rspamd (amd64)
pmstatus:rspamd:22:Unpacking rspamd (amd64)
pmstatus:libhyperscan5:24:Unpacking libhyperscan5 (amd64)
pmerror:x:1:odd
pmstatus:libhyperscan5:26:Preparing to configure libhyperscan5 (amd64)
pmstatus:rspamd:40:Preparing to configure rspamd (amd64)
pmstatus:rspamd:60:Installed rspamd (amd64)
"""
    fresh: list[str] = []
    for line in lines.splitlines():
        packages._report(line, Told(), fresh, lambda name: said.append(f"unpacked {name}"))
    told = [line for line in said if not line[0].isdigit()]
    assert said[:2] == ["25 Retrieving file 1 of 2", "55 Unpacking isa-support (amd64)"]
    assert told == ["unpacked isa-support", "unpacked libhyperscan5", "unpacked rspamd"]
    assert said.index("unpacked rspamd") < said.index("70 Preparing to configure rspamd (amd64)")
