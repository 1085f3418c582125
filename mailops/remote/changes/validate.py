"""The daemons' own judgement of files that are not there yet.

The candidate files are laid over /etc with overlayfs, in a mount namespace that only the checkers see
(mount_namespaces(7)), so each checker reads them at the paths that they will have. The live files are not touched.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from typing import Any

from ..shared.errors import AgentError
from ..system.files import Change, write_whole
from ..system.lock import RUN
from ..system.shell import run, tail
from ..system.units import touched

ROOT = "/etc"
STAGES = f"{RUN}/candidates"  # on /run, which is memory: a plan touches no disk
STAGE = f"{STAGES}/{os.getpid()}"
WORDS = 8  # lines of a checker's objection


def check(services: list[dict[str, Any]], change: Change) -> None:
    """Have every daemon that `change` concerns judge it; AgentError carries the words of those that object."""
    commands = [
        (service["unit"], command)
        for service in services
        if touched(service, list(change.after))
        for command in service["checks"]
    ]
    if not commands:
        return
    _clear()
    try:
        _lay_out(change)
        run("unshare", "--mount", "--propagation", "private", "sh", "-euc", _script([line for _, line in commands]))
        refusals = _once([(unit, _answer(number)) for number, (unit, _) in enumerate(commands)])
    finally:
        _clear()
    if refusals:
        told = "\n  ".join(["refused by the daemons' own checks; nothing was touched", *refusals])
        raise AgentError(told, outcome="refused")


def judge(services: list[dict[str, Any]]) -> None:
    """Have these daemons, of which the program is another, judge the files as they are; AgentError with their words."""
    for service in services:
        for command in service["checks"]:
            done = run(*command, check=False)
            if done.returncode:
                words = tail(done.stderr or done.stdout, WORDS) or f"ended with {done.returncode} without a word"
                raise AgentError(f"the new {service['unit']} does not take this configuration: {words}")


def _lay_out(change: Change) -> None:
    """The upper layer (overlayfs, in the kernel's Documentation): new files, and whiteouts for absent ones."""
    os.makedirs(RUN, mode=0o700, exist_ok=True)
    for folder in ("upper", "work", "answers"):
        os.makedirs(f"{STAGE}/{folder}", mode=0o700)
    _like(ROOT, f"{STAGE}/upper")
    for path, state in change.after.items():
        if not path.startswith(f"{ROOT}/"):
            continue
        target = f"{STAGE}/upper{path.removeprefix(ROOT)}"
        _make_folders(os.path.dirname(path))
        if state is None:
            os.mknod(target, stat.S_IFCHR, os.makedev(0, 0))
        elif "link" in state:
            os.symlink(state["link"], target)
        else:
            write_whole(target, change.content(state), state["mode"], state["uid"], state["gid"])


def _make_folders(folder: str) -> None:
    """The folders above a file, as they are on the machine: in the merged tree the upper one's mode counts."""
    parts = folder.removeprefix(ROOT).strip("/").split("/")
    for depth in range(1, len(parts) + 1):
        below = "/" + "/".join(parts[:depth])
        if not os.path.isdir(f"{STAGE}/upper{below}"):
            os.mkdir(f"{STAGE}/upper{below}", 0o755)
            _like(f"{ROOT}{below}", f"{STAGE}/upper{below}")


def _like(model: str, folder: str) -> None:
    if os.path.isdir(model):
        state = os.stat(model)
        os.chown(folder, state.st_uid, state.st_gid)
        os.chmod(folder, stat.S_IMODE(state.st_mode))


def _script(commands: list[list[str]]) -> str:
    """Mount, then all checks side by side; each leaves its words, and its exit status on the last line."""
    lines = [f"mount -t overlay mailops -o lowerdir={ROOT},upperdir={STAGE}/upper,workdir={STAGE}/work {ROOT}"]
    for number, command in enumerate(commands):
        answer = f"{STAGE}/answers/{number}"
        judged = f"{shlex.join(command)} </dev/null >{answer} 2>&1"
        lines.append(f"{{ code=0; {judged} || code=$?; echo $code >{answer}.code; }} &")
    return "\n".join([*lines, "wait"])


def _answer(number: int) -> str:
    """What a check that failed has said; "" for one that has nothing to say against the candidate."""
    with open(f"{STAGE}/answers/{number}", encoding="utf-8", errors="replace") as file:
        words = file.read()
    with open(f"{STAGE}/answers/{number}.code", encoding="ascii") as file:
        code = int(file.read())
    return (tail(words, WORDS) or f"ended with {code} without a word") if code else ""


def _once(answers: list[tuple[str, str]]) -> list[str]:
    """The objections, a line each: what several programs of one daemon say alike is said once."""
    found: dict[tuple[str, str], str] = {}
    for unit, words in answers:
        for line in words.split(" | ") if words else []:
            found.setdefault((unit, line.partition(": ")[2] or line), f"{unit}: {line}")
    return list(found.values())


def _clear() -> None:
    """Our own stage, and those of runs that were killed."""
    import shutil  # here, for a run that changes nothing never comes so far

    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(STAGES):
            if name == str(os.getpid()) or not os.path.exists(f"/proc/{name}"):
                shutil.rmtree(f"{STAGES}/{name}", ignore_errors=True)
