"""The Debian packages that the demo and the tests bring to this computer, written down so that `--remove` can take
them away.

Runs as root with the system's own python3: standard library only.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from typing import Any

from mailops.errors import MailopsError
from mailops.lab.host import COMMANDS, INOTIFY, KEYRING, PATH, plain_environment
from mailops.lab.layout import BASE, write

RECORD = BASE / "before.json"
INSTALL = ("apt-get", "install", "-y", "-q", "--no-install-recommends")
OPTIONS = ("-o", "DPkg::Lock::Timeout=300", "-o", "APT::Keep-Downloaded-Packages=false")
# `Inst name (version …)` is new here; `Inst name [old] (version …)` would only be upgraded.
NEW = re.compile(r"^Inst (\S+) \(", re.MULTILINE)


def missing() -> list[str]:
    """The packages that the lab and its virtual environment need, and this computer does not have."""
    absent = {package for command, package in COMMANDS.items() if not shutil.which(command, path=PATH)}
    if not KEYRING.exists():
        absent.add("debian-archive-keyring")
    if not importlib.util.find_spec("ensurepip"):
        absent.add("python3-venv")
    return sorted(absent)


def install() -> None:
    """Install what is missing. What will be new is written down first: a killed run leaves no doubt."""
    if not shutil.which("apt-get", path=PATH):
        raise MailopsError(f"this is not Debian; install {', '.join(missing())} in your system's own way")
    record = remember()
    if record["packages"]:
        _run("dpkg", "--configure", "-a")  # an interrupted run's
    print("installing packages", flush=True)
    _run("apt-get", "update", "-q", *OPTIONS[:2])
    new = NEW.findall(_run(*INSTALL, "--simulate", *missing()))
    record["packages"] = sorted({*record["packages"], *new})
    write(RECORD, json.dumps(record, indent=1) + "\n")
    _run(*INSTALL, *OPTIONS, *missing())


def remember() -> dict[str, Any]:
    """How this computer was before the first demo; written at its first call, read at the later ones."""
    if not RECORD.exists():
        BASE.mkdir(parents=True, exist_ok=True)
        write(RECORD, json.dumps({"packages": [], "inotify": int(INOTIFY.read_text())}) + "\n")
    record: dict[str, Any] = json.loads(RECORD.read_text())
    return record


def remove() -> list[str]:
    """Purge what `install` brought, and put the inotify limit back.

    Returns the packages that stay, because something else has come to need them.
    """
    if not RECORD.exists():
        return []
    record = remember()
    INOTIFY.write_text(str(record["inotify"]))
    brought = _installed(record["packages"])
    if brought:
        print(f"removing {len(brought)} packages", flush=True)
        # dpkg, not apt: it refuses to take what others need, where apt would take those others along.
        subprocess.run(["dpkg", "--purge", *brought], env=plain_environment(), capture_output=True, check=False)
    return _installed(brought)


def _installed(names: list[str]) -> list[str]:
    if not names:
        return []
    query = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\\n", *names]
    found = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return [line.split()[0] for line in found.splitlines() if not line.endswith("not-installed")]


def _run(*command: str) -> str:
    done = subprocess.run(
        command, env=plain_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MailopsError(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


if __name__ == "__main__":
    try:
        if missing():
            install()
    except MailopsError as problem:
        sys.exit(f"lab: {problem}")
