"""Mail that waits: how the laptop tells of it, what it lets through to a machine, and what the machine makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mailops import queue
from mailops.errors import BAD_INPUT, FAILED, MailopsError
from mailops.remote import queue as there
from mailops.remote.changes import history
from mailops.remote.services import mailq
from mailops.remote.shared.errors import AgentError
from mailops.remote.system import shell
from tests.unit import pretend
from tests.unit.cli.test_command_line import in_process
from tests.unit.ssh.hostile import CHANGED, WAITING

# As postqueue(1) of Postfix 3.10 has it; 3.7 says the same.
SAID = (
    '{"queue_name": "deferred", "queue_id": "ECF9862AB99", "arrival_time": 1795863249, "message_size": 310, '
    '"forced_expire": false, "sender": "user1@example.test", "recipients": [{"address": "bob@elsewhere.test", '
    '"delay_reason": "connect to mx.elsewhere.test[10.213.2.2]:25: Connection refused"}, '
    '{"address": "eve@elsewhere.test"}]}\n'
    '{"queue_name": "hold", "queue_id": "A1B2C3D4E5", "arrival_time": 1795863000, "message_size": 99, '
    '"forced_expire": false, "sender": "MAILER-DAEMON", "recipients": [{"address": "x@nowhere.test"}]}\n'
)


NOTED: list[Any] = []  # in the history
LINK: Any = SimpleNamespace(origin="192.0.2.1")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[str, ...], str]]:
    """What was run on a machine with SAID in its queue, and what it got on stdin."""
    ran: list[tuple[tuple[str, ...], str]] = []

    def run(*command: str, stdin: str = "", **_: Any) -> subprocess.CompletedProcess[str]:
        ran.append((command, stdin))
        words = {"-d": "Deleted", "-h": "Placed on hold", "-H": "Released from hold"}
        said = f"postsuper: {words[command[1]]}: {len(stdin.split())} messages\n" if command[0] == "postsuper" else ""
        return subprocess.CompletedProcess(command, 0, SAID, said)

    monkeypatch.setattr(shell, "run", run)
    monkeypatch.setattr("mailops.remote.services.queue.run", run)
    monkeypatch.setattr(there, "_must_be_there", lambda: None)
    monkeypatch.setattr(history, "append", lambda entry, changes: NOTED.append((entry["who"], entry["task"], changes)))
    NOTED.clear()
    return ran


def ask(task: str, **args: Any) -> dict[str, Any]:
    return there.call({"task": task, "ids": [], "which": "", "sure": False, "who": "ann@laptop"} | args, LINK)


def test_the_oldest_comes_first_with_the_reason_that_is_given(programs: Any) -> None:
    first, second = ask("queue")["messages"]
    assert (first["id"], first["queue"], first["reason"]) == ("A1B2C3D4E5", "hold", "")
    assert second["recipients"] == ["bob@elsewhere.test", "eve@elsewhere.test"]
    assert second["reason"] == "connect to mx.elsewhere.test[10.213.2.2]:25: Connection refused"


@pytest.mark.parametrize(
    ("task", "args", "told"),
    [
        ("queue.rm", {"ids": ["ECF9862AB99", "ABCDEF"]}, "ECF9862AB99\n"),
        ("queue.rm", {"which": "deferred", "sure": True}, "ECF9862AB99\n"),
        ("queue.rm", {"which": "all", "sure": True}, "A1B2C3D4E5\nECF9862AB99\n"),
        ("queue.hold", {"which": "all"}, "A1B2C3D4E5\nECF9862AB99\n"),
        ("queue.release", {"which": "all"}, "A1B2C3D4E5\n"),
        ("queue.rm", {"ids": ["ABCDEF"]}, ""),
    ],
)
def test_what_was_listed_and_chosen_is_changed(programs: Any, task: str, args: dict[str, Any], told: str) -> None:
    result = ask(task, **args)
    changed = [stdin for command, stdin in programs if command[0] == "postsuper"]
    tried = [command[2] for command, _ in programs if command[:2] == ("postqueue", "-i")]
    assert tried == (told.split() if task == "queue.release" else [])
    assert changed == ([told] if told else [])
    assert result["done"] == len(told.split())
    assert [(who, noted) for who, noted, _ in NOTED] == ([("ann@laptop", task)] if told else [])
    assert all(changes["queue"][0].startswith(f"{len(told.split())} message") for _, _, changes in NOTED)
    assert result["missing"] == [name for name in args.get("ids", []) if name == "ABCDEF"]


@pytest.mark.parametrize("name", ["ALL", "-d", "", "A B", "ABCDEF\nALL", "../../x"])
def test_what_is_no_id_reaches_no_program(programs: Any, name: str) -> None:
    for task in ("queue.rm", "queue.show"):
        with pytest.raises(AgentError):
            ask(task, ids=[name], id=name)
    assert not [command for command, _ in programs if command[0] != "postqueue"]
    assert mailq.change(mailq.DELETE, [name]) == 0
    assert not [command for command, _ in programs if command[0] != "postqueue"]


def test_a_no_deletes_nothing(programs: Any) -> None:
    class Link:
        def ask(self, what: str, data: Any) -> bool:
            assert (what, data["count"]) == ("delete", 2)
            return False

    args = {"task": "queue.rm", "ids": [], "which": "all", "sure": False}
    assert there.call(args, Link())["agreed"] is False
    assert not [command for command, _ in programs if command[0] == "postsuper"]


def test_only_the_beginning_of_what_a_program_says_is_read() -> None:
    assert shell.beginning(4, "printf", "123") == (b"123", False)
    assert shell.beginning(4, "yes") == (b"y\ny\n", True)


# The laptop's half


def test_many_messages_are_told_by_their_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons = [f"host mx[10.0.0.{n}] said: 450 4.2.1 <u{n}@x.test> is over quota" for n in range(20)]
    reasons += ["connect to y: Connection refused"] * 3
    messages = [WAITING | {"id": f"ABCDE{n}", "reason": reason} for n, reason in enumerate(reasons)]
    result = {"count": 23, "held": 0, "now": 7201.0, "messages": messages}
    c = pretend.site(monkeypatch, tmp_path, lambda *_: result, "mail")
    queue.show(c)
    head, _, quota, refused, more = capsys.readouterr().out.splitlines()
    assert head == "mail  23 messages in the queue"
    assert quota.split(maxsplit=4) == ["20", "2", "h", "ABCDE0", reasons[0]]
    assert refused.split(maxsplit=4) == ["3", "2", "h", "ABCDE20", reasons[20]]
    assert more == "  fab -H mail queue --each lists every message"
    queue.show(c, each=True)
    assert len(capsys.readouterr().out.splitlines()) == 25


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "say which messages: their IDs, or --deferred or --all"),
        (["--all", "ABCDEF"], "say which messages: their IDs, or --deferred or --all"),
        (["ALL"], "ALL is no ID of a message\n  fab queue.rm --all"),
        (["x;y"], "'x;y' is no ID of a message"),
        (["ABCDEF", "x/y"], "'x/y' is no ID of a message"),
        (["--all"], "nobody is at the terminal to say yes\n  fab queue.rm --all --yes deletes without a question"),
    ],
)
def test_a_choice_that_is_none_is_refused_at_once(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend.site(monkeypatch, tmp_path, pytest.fail)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    assert in_process("queue.rm", *words) == BAD_INPUT
    assert f"mailops: {told}" in capsys.readouterr().err


def test_several_ids_go_to_the_machines_that_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def agent(host: str, name: str, args: dict[str, Any], _: Any) -> dict[str, Any]:
        assert (name, args["task"], args["ids"]) == ("queue", "queue.rm", ["ABCDE1", "ABCDE2", "ABCDE3"])
        mine = {"mail": "ABCDE1", "backup": "ABCDE2"}[host]
        return CHANGED | {"missing": [each for each in args["ids"] if each != mine]}

    c = pretend.site(monkeypatch, tmp_path, agent)
    with pytest.raises(MailopsError, match=r"not in the queue \(any more\): ABCDE3") as error:
        queue.change(c, "queue.rm", "ABCDE1 ABCDE2 ABCDE3")
    assert error.value.code == FAILED
    assert capsys.readouterr().out == "mail  deleted: 1 message\nbackup  deleted: 1 message\n"


def test_words_after_the_first_are_ids_until_a_task_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(queue, "change", lambda c, task, ids, *rest: calls.append((task, ids, *rest)))
    in_process("queue.hold", "ABCDE1", "ABCDE2", "queue.rm", "ABCDE3", "--yes", "ABCDE4")
    assert calls == [("queue.hold", "ABCDE1 ABCDE2", ""), ("queue.rm", "ABCDE3 ABCDE4", "", True)]
