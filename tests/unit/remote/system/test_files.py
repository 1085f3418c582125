"""Directories of a role, as they are made on a machine."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

from mailops.remote.system import files


def test_a_folder_of_the_administrators_own_is_made_and_then_left_alone(tmp_path: Path) -> None:
    owner = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}
    theirs = {"path": str(tmp_path / "local"), "mode": 0o755, "mend": False, **owner}
    ours = {"path": str(tmp_path / "ours"), "mode": 0o755, "mend": True, **owner}
    assert files.make_directories([theirs, ours]) == [f"directory {theirs['path']}", f"directory {ours['path']}"]
    for name in ("local", "ours"):
        (tmp_path / name).chmod(0o700)
    assert files.make_directories([theirs, ours]) == [f"permissions of {ours['path']}"]
    assert (tmp_path / "local").stat().st_mode & 0o777 == 0o700
