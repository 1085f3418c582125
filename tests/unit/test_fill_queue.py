"""What waits in the queue on the bare disk comes into the vault: each message once, whatever cuts the move off."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "mailops/templates/queue/any/usr/lib/mailops/fill-queue"
MESSAGES = {f"deferred/{n}/{n}1D37": f"message {n}" for n in "ABC"} | {"maildrop/9F": "from cron", "hold/7E": "held"}


class PowerCut(Exception):
    pass


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    names: dict[str, Any] = {}
    exec(SCRIPT.read_text().replace("\nmain(*sys.argv[1:])\n", "\n"), names)
    monkeypatch.setattr(subprocess, "call", lambda command: 3)  # no Postfix runs
    monkeypatch.setattr(os, "chown", lambda *_: None)
    return names["main"]  # type: ignore[no-any-return]


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    for name, text in MESSAGES.items():
        path = tmp_path / "spool" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (5, 7))
    (tmp_path / "spool/pid").mkdir()
    (tmp_path / "spool/pid/master.pid").write_text("1")
    (tmp_path / "queue").mkdir()
    return tmp_path / "spool"


def mail(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "pid"]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


def test_all_mail_is_moved_and_nothing_else(main: Callable[[str, str], None], spool: Path) -> None:
    queue = spool.parent / "queue"
    main(str(spool), str(queue))
    assert mail(queue) == MESSAGES
    assert mail(spool) == {}
    assert (spool / "pid/master.pid").exists()
    assert list((queue / "pid").iterdir()) == []
    assert (queue / "maildrop/9F").stat().st_mtime == 7
    main(str(spool), str(queue))
    assert mail(queue) == MESSAGES


@pytest.mark.parametrize("call", ["rename", "unlink", "fsync", "utime", "mkdir"])
def test_cut_off_anywhere_each_message_is_there_once(
    main: Callable[[str, str], None], spool: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    queue = spool.parent / "queue"
    real = getattr(os, call)
    for last in range(1, 12):  # the power goes before the last of so many calls, and then again
        with monkeypatch.context() as patch:
            left = iter(range(last))

            def cut(*args: Any, left: Any = left, **more: Any) -> Any:
                if next(left, None) is None:
                    raise PowerCut
                return real(*args, **more)

            patch.setattr(os, call, cut)
            try:
                main(str(spool), str(queue))
            except PowerCut:
                continue
        break
    main(str(spool), str(queue))
    (queue / ".mailops-moving").unlink(missing_ok=True)
    assert mail(queue) == MESSAGES
    assert mail(spool) == {}


def test_two_messages_of_one_name_both_stay(main: Callable[[str, str], None], spool: Path) -> None:
    queue = spool.parent / "queue"
    (queue / "hold").mkdir()
    (queue / "hold/7E").write_text("another")
    main(str(spool), str(queue))
    assert mail(queue) == MESSAGES | {"hold/7E": "another", "hold/7E0": "held"}


def test_no_folder_outside_gets_another_owner(main: Callable[[str, str], None], spool: Path) -> None:
    queue = spool.parent / "queue"
    (spool.parent / "outside").mkdir(mode=0o755)
    (queue / "deferred").mkdir(parents=True)
    (queue / "deferred/A").symlink_to(spool.parent / "outside")
    with pytest.raises(SystemExit, match="is a link"):
        main(str(spool), str(queue))
    assert list((spool.parent / "outside").iterdir()) == []
    assert mail(spool) | mail(queue) == MESSAGES
