"""Which commit of the site's folder a run comes from, for the machine's record."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

PATIENCE = 2.0  # seconds for all of it: no record is worth a wait
QUIET = ("-c", "core.fsmonitor=false")  # else a `git status` may leave a daemon behind that keeps our pipe open


def of(hosts_toml: Path) -> str:
    """The commit, short, of the repository that `hosts_toml` lies in; "+" after it when the folder differs from it.

    What is untracked does not count, except hosts.toml itself. "" without git, without a repository, without a
    commit, and when git does not answer in time. Never asks anything, writes nothing.
    """
    path = hosts_toml.resolve()
    deadline = time.monotonic() + PATIENCE
    if not any((folder / ".git").exists() for folder in path.parents):
        return ""
    try:
        commit = _git(deadline, path.parent, "rev-parse", "--short", "--verify", "HEAD").strip()
        changed = _git(deadline, path.parent, "status", "--porcelain", "--untracked-files=no", "--", ".")
        tracked = _git(deadline, path.parent, "ls-files", "--", path.name)
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit if tracked and not changed else f"{commit}+"


def _git(deadline: float, folder: Path, *words: str) -> str:
    # A hook that runs fab has the repository of its own commit in the environment; ours is that of the folder.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(
        ["git", *QUIET, "-C", str(folder), *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=max(0.0, deadline - time.monotonic()),
        check=True,
    )
    return done.stdout.decode(errors="replace")
