"""Who waits for a reload is told of by the queue manager that comes, not by the one that goes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "mailops/templates/resolver/any/usr/lib/mailops/reload-postfix"


def test_the_queue_manager_of_before_has_gone_when_what_waits_is_sent(tmp_path: Path) -> None:
    commands = {
        "postconf": f"echo {tmp_path}",
        "systemctl": "[ -z $FAILS ] || exit 1; (sleep 0.3; kill $QMGR) >/dev/null 2>&1 &",
        "postqueue": "grep -qx qmgr /proc/$QMGR/comm 2>/dev/null && echo the old one || echo the new one",
    }
    for name, script in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    shutil.copy("/bin/sleep", tmp_path / "qmgr")
    (tmp_path / "pid").mkdir()
    (tmp_path / "pid/master.pid").write_text(f"{os.getpid():>33}\n")

    def reload(fails: str = "") -> tuple[int, str]:
        with subprocess.Popen([tmp_path / "qmgr", "30"]) as old:
            names = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "QMGR": str(old.pid), "FAILS": fails}
            with subprocess.Popen(["sh", SCRIPT], env=names, text=True, stdout=subprocess.PIPE) as script:
                old.wait() if not fails else script.wait()  # a zombie is still in proc(5)
                said = script.communicate(timeout=30)[0]
            old.kill()
        return script.returncode, said

    assert reload() == (0, "the new one\n")
    assert reload("yes") == (1, "")
