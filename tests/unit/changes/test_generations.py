"""fab generations, rollback and diff as a person meets them, with agents on paper."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mailops import secrets
from mailops.changes import generations
from mailops.errors import BAD_INPUT, DIFFERENT, FAILED, MailopsError
from tests.unit import pretend
from tests.unit.cli.test_command_line import at, fab, in_process, machine

LISTED = {
    "active": 4,
    "generations": [
        {
            "number": number,
            "when": 1_790_000_000 + number * 3600,
            "who": "ann@laptop",
            "from": "192.0.2.7",
            "revision": "a1b2c3d+",
            "task": "push",
            "changed": [f"/etc/postfix/file{index}" for index in range(number)],
            "proven": number != 2,
        }
        for number in range(1, 5)
    ],
}
BACK = {"changes": {"files": ["/etc/x"]}, "locked": False, "generation": 3}


def never(*_: Any) -> Any:
    raise AssertionError("nobody may be asked")


# The list


def test_the_list_has_a_line_for_each_and_marks_the_active_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    c = pretend.site(monkeypatch, tmp_path, lambda *_: LISTED, "mail")
    generations.show(c)
    head, columns, *rows = capsys.readouterr().out.splitlines()
    assert head == "mail  generation 4 is active"
    assert columns.split() == ["NUMBER", "WHEN", "WHO", "FROM", "TASK", "REVISION", "CHANGED"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3", "4"]
    assert [(" active " in row, " not proven " in row) for row in rows] == [
        (False, False),
        (False, True),
        (False, False),
        (True, False),
    ]
    assert all(re.search(r"2026-09-\d\d \d\d:\d\d  ann@laptop  192.0.2.7  push  a1b2c3d\+  ", row) for row in rows)
    assert rows[1].endswith("  /etc/postfix/file0, /etc/postfix/file1")
    assert rows[3].endswith("  4 files")


def test_the_list_is_of_every_machine_and_json_is_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generations.show(pretend.site(monkeypatch, tmp_path, lambda *_: LISTED), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"mail": LISTED, "backup": LISTED}


def test_a_machine_without_generations_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generations.show(pretend.site(monkeypatch, tmp_path, lambda *_: {"active": None, "generations": []}, "mail"))
    assert capsys.readouterr().out == "mail  no generation yet\n"


# The way back


@pytest.mark.parametrize(("word", "number"), [(None, None), ("3", 3)])
def test_a_rollback_asks_for_the_generation_and_says_what_it_does_not_do(
    word: str | None,
    number: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[Any] = []

    def agent(host: str, name: str, args: dict[str, Any], _: Any) -> Any:
        asked.append((host, name, args["to"], args["overwrite"], "@" in args["who"]))
        return BACK

    generations.rollback(pretend.site(monkeypatch, tmp_path, agent, "mail"), word)
    assert asked == [("mail", "rollback", number, False, True)]
    said = capsys.readouterr().out
    assert re.search(r"1 change, generation 3, \d", said)
    assert "hosts.toml is as it was" in said
    assert "fab -H mail plan" in said
    assert "packages, system users, accounts and keys stayed" in said


@pytest.mark.parametrize("word", [None, "3"])
def test_a_rollback_of_several_machines_is_refused(
    word: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for hosts in ("", "mail,backup"):
        with pytest.raises(MailopsError) as caught:
            generations.rollback(pretend.site(monkeypatch, tmp_path, never, hosts), word)
        assert caught.value.code == BAD_INPUT
        assert caught.value.hint == f"name it: fab -H mail rollback {word or ''}".rstrip()


@pytest.mark.parametrize("word", ["five", "0", "-1", "3.0", "", "٣", "last"])
def test_what_is_no_number_is_refused(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    c = pretend.site(monkeypatch, tmp_path, never, "mail")
    for task in (generations.rollback, generations.diff):
        with pytest.raises(MailopsError, match=f"{word!r} is not a generation") as caught:
            task(c, word)
        assert caught.value.code == BAD_INPUT


def test_hand_edits_in_the_way_of_a_rollback_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def agent(host: str, name: str, args: dict[str, Any], answers: Any) -> Any:
        assert answers["edited"]([pretend.entry("/etc/x", "a\n", "b\n", state="edited")]) is None
        return MailopsError("edited", code=DIFFERENT)

    with pytest.raises(MailopsError) as caught:
        generations.rollback(pretend.site(monkeypatch, tmp_path, agent, "mail"))
    assert caught.value.code == DIFFERENT
    assert "\n-a\n+b\n" in capsys.readouterr().out


def test_a_rollback_in_json_keeps_words_off_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generations.rollback(pretend.site(monkeypatch, tmp_path, lambda *_: BACK, "mail"), "3", as_json=True)
    said = capsys.readouterr()
    assert json.loads(said.out)["mail"]["generation"] == 3
    assert "hosts.toml is as it was" in said.err


def test_a_generation_that_the_machine_does_not_know_is_its_own_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = MailopsError("mail: there is no generation 99 here", "there are: 1, 2", FAILED)
    with pytest.raises(MailopsError, match="no generation 99") as caught:
        generations.rollback(pretend.site(monkeypatch, tmp_path, lambda *_: unknown, "mail"), "99")
    assert caught.value.code == FAILED
    assert capsys.readouterr().out == ""


# What differs


def test_a_diff_shows_changed_lines_and_modes_but_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(secrets, "_memory", secrets._Memory())
    secrets.remember("correct horse")
    files = [
        pretend.entry("/etc/a", "one\n", "correct horse\n"),
        pretend.entry("/etc/b", "one\n", "one\n", state="mode", now="0600 root:root"),
        pretend.entry("/etc/c", None, None, secret=True),
    ]
    c = pretend.site(monkeypatch, tmp_path, lambda *_: {"from": 3, "to": 5, "files": files}, "mail")
    generations.diff(c, "3")
    said = capsys.readouterr().out
    assert said.splitlines()[:4] == [
        "mail  generation 3 to 5: 3 files",
        "mail  changed  /etc/a",
        "mail  mode     /etc/b  0644 root:root → 0600 root:root",
        "mail  changed  /etc/c  (its content is secret and not shown)",
    ]
    assert said.endswith("\n--- /etc/a (generation 3)\n+++ /etc/a (generation 5)\n@@ -1 +1 @@\n-one\n+********\n")
    generations.diff(c, "3", as_json=True)
    found = json.loads(capsys.readouterr().out)["mail"]
    assert (found["from"], found["to"]) == (3, 5)
    assert [(file["path"], file["state"]) for file in found["files"]] == [
        ("/etc/a", "changed"),
        ("/etc/b", "mode"),
        ("/etc/c", "changed"),
    ]
    assert "correct" not in str(found)
    assert not any({"before", "after"} & set(file) for file in found["files"])


def test_a_diff_since_a_number_is_for_one_machine_and_without_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MailopsError) as caught:
        generations.diff(pretend.site(monkeypatch, tmp_path, never), "3")
    assert (caught.value.code, caught.value.hint) == (BAD_INPUT, "name it: fab -H mail diff 3")
    generations.diff(pretend.site(monkeypatch, tmp_path, lambda *_: {"from": 3, "to": 4, "files": []}))
    assert capsys.readouterr().out.splitlines() == [
        "mail  generation 3 to 4: nothing differs",
        "backup  generation 3 to 4: nothing differs",
    ]


# The words of the command line


@pytest.mark.parametrize(
    "words", [["rollback"], ["rollback", "5"], ["rollback", "--to", "5"], ["rollback", "--to=5"], ["diff", "5"]]
)
def test_a_number_may_be_a_word_or_a_flag_or_left_out(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def agent(host: str, name: str, args: dict[str, Any], _: Any) -> Any:
        asked.append((host, name, args.get("to", args.get("since"))))
        return BACK | {"from": 1, "to": 2, "files": []}

    pretend.site(monkeypatch, tmp_path, agent)
    assert in_process("-H", "mail", *words) == 0
    assert asked == [("mail", words[0], 5 if "5" in words[-1] else None)]
    assert in_process("-H", "mail", *words, "diff", "7", "generations", "--json") == 0  # tasks may still follow
    assert [name for _, name, _ in asked[1:]] == [words[0], "diff", "generations"]


def test_a_word_too_many_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "hosts.toml").write_text(at(1))
    done = fab("-H", "mail", "rollback", "5", "6", cwd=tmp_path)
    assert done.returncode == BAD_INPUT
    assert done.stderr == "mailops: no idea what '6' is!\n  fab rollback --help\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["rollback"], "a rollback is for one machine at a time, and this means 2"),
        (["rollback", "5"], "a rollback is for one machine at a time, and this means 2"),
        (["diff", "5"], "a generation's number is that of one machine, and this means 2"),
        (["-H", "mail", "rollback", "five"], "'five' is not a generation"),
        (["history", "--count", "all"], "'all' is not a count of runs"),
        (["tunnel", "--port", "http"], "'http' is not a port"),
    ],
)
def test_wrong_words_are_told_before_any_connection(tmp_path: Path, words: list[str], line: str) -> None:
    with machine() as (port, visitors):
        (tmp_path / "hosts.toml").write_text(at(port))
        done = fab(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (BAD_INPUT, "")
    assert done.stderr.startswith(f"mailops: {line}")
    assert len(done.stderr.splitlines()) == 2
    assert not visitors


def test_a_required_word_is_still_required(tmp_path: Path) -> None:
    (tmp_path / "hosts.toml").write_text(at(1))
    done = fab("user.add", cwd=tmp_path)
    assert done.returncode == BAD_INPUT
    assert "did not receive required positional arguments: 'email'" in done.stderr


def test_the_installed_program_knows_the_same_words(tmp_path: Path) -> None:
    (tmp_path / "hosts.toml").write_text(at(1))
    program = "from mailops.cli.program import main; main()"
    command = [sys.executable, "-c", program, "rollback", "5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == BAD_INPUT
    assert "name it: fab -H mail rollback 5" in done.stderr
