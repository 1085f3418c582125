"""The lab's small parts: names, numbers, locks, and who holds them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mailops.errors import BAD_INPUT, MailopsError
from mailops.lab import commands, furnish, host, image, layout, power, replica
from mailops.lab.layout import Lab, LabError

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
input()
"""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(layout, "BASE", tmp_path)
    monkeypatch.setattr(image, "BASE", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["", "Lab", "a/b", "..", "-a", "a-", "a" * 21])
def test_a_name_that_is_no_name_for_a_lab_is_refused(name: str) -> None:
    with pytest.raises(LabError):
        Lab(name)


def test_labs_get_different_numbers_and_keep_them(base: Path) -> None:
    for lab in (Lab("one"), Lab("two"), Lab("one")):
        layout.give_slot(lab)
    assert (Lab("one").slot, Lab("two").slot) == (1, 2)
    assert Lab("two").address(10) == "10.213.2.10"


def test_a_lab_that_is_not_there_says_so(base: Path) -> None:
    with pytest.raises(LabError, match="no lab called one"):
        _ = Lab("one").slot


def test_writing_replaces_the_whole_file_and_sets_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old and longer")
    layout.write(path, "new", 0o600)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_living_keeper_is_found_by_its_lock_and_a_dead_one_is_not(tmp_path: Path) -> None:
    assert power.keeper_pid(tmp_path) is None
    argv = [sys.executable, "-c", HOLD, str(tmp_path / power.LOCK)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert power.keeper_pid(tmp_path) == process.pid
        process.kill()
    assert power.keeper_pid(tmp_path) is None


def test_an_image_that_is_still_being_built_is_not_used(base: Path) -> None:
    recipe = image.RECIPES["debian12"]
    (base / "images" / f".{recipe.key}-20261101T000000").mkdir(parents=True)
    assert image.newest(recipe) is None
    done = base / "images" / f"{recipe.key}-20261102T000000"
    done.mkdir()
    assert image.newest(recipe) == done


def test_an_image_under_a_machine_is_not_deleted(base: Path) -> None:
    recipe = image.RECIPES["debian12"]
    used, old, new = (base / "images" / f"{recipe.name}-{key}" for key in ("used", "old", "new"))
    for path in (used, old, new):
        path.mkdir(parents=True)
    machine = Lab("one").machines / "mail"
    machine.mkdir(parents=True)
    (machine / "image").symlink_to(used)
    image.forget_old(recipe, keep=new)
    assert used.exists()
    assert new.exists()
    assert not old.exists()


def test_bare_images_have_no_python() -> None:
    bare = [recipe for recipe in image.RECIPES.values() if recipe.name != "world"]
    assert bare
    assert not [package for recipe in bare for package in recipe.packages if "python" in package]


def test_localhost_is_in_the_hosts_file() -> None:
    lines = furnish.hosts_file("mail.example.test", "10.213.1.10").splitlines()
    assert lines[0].split() == ["127.0.0.1", "localhost"]
    assert lines[1].split()[:2] == ["::1", "localhost"]
    assert lines[2] == "10.213.1.10 mail.example.test mail"


def test_the_last_words_of_a_command_are_its_last_lines_that_say_something() -> None:
    assert host.last_words("one\n\ntwo\n  three  \n\n", lines=2) == "two / three"


def test_down_says_what_is_gone_or_that_there_is_no_such_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layout, "BASE", tmp_path)
    monkeypatch.setattr(commands, "_as_root", lambda: None)
    monkeypatch.setattr(replica, "down", lambda name: ["mail", "web"])
    monkeypatch.setenv("MAILOPS_LAB", "one")
    with pytest.raises(MailopsError, match="there is no lab one") as caught:
        commands.down()
    assert caught.value.code == BAD_INPUT
    (tmp_path / "labs/one").mkdir(parents=True)
    commands.down()
    assert capsys.readouterr().out == "lab  one is gone: mail, web\n"
