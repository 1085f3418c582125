"""The daemons' own judgement of files that are not there yet.

The candidate files are laid over /etc with overlayfs, in a mount namespace that only the checkers see
(mount_namespaces(7)), so each checker reads them at the paths that they will have. The live files are not touched.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..services import daemons
from ..services.checks import Objection, objections
from ..shared.errors import REFUSED, AgentError
from ..system.files import Change, write_whole
from ..system.lock import RUN
from ..system.units import touched

if TYPE_CHECKING:
    from ..shared.forms import Service

ROOT = "/etc"
STAGES = f"{RUN}/candidates"  # on /run, which is memory: a plan touches no disk
STAGE = f"{STAGES}/{os.getpid()}"
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000  # of the kernel


def check(services: list[Service], change: Change) -> None:
    """Have every daemon that `change` concerns judge it; AgentError carries the words of those that object."""
    concerned = [service for service in services if service["checks"] and touched(service, list(change.after))]
    if not concerned:
        return
    _clear()
    try:
        _lay_out(change)
        found = _beneath(lambda: objections(concerned))
    finally:
        _clear()
    if found:
        told = "refused by the daemons' own checks; nothing was touched"
        raise AgentError(told, outcome=REFUSED, more=_once(found))


def judge(services: list[Service]) -> None:
    """Have these daemons, of which the program is another, judge the files as they are; AgentError with their words."""
    for found in objections(services):
        raise AgentError(f"the new {found.unit} does not take this configuration: {found.words()}")


def _lay_out(change: Change) -> None:
    """The upper layer (overlayfs, in the kernel's Documentation): new files, and whiteouts for absent ones."""
    os.makedirs(RUN, mode=0o700, exist_ok=True)
    for folder in ("upper", "work"):
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


def _beneath(work: Callable[[], list[Objection]]) -> list[Objection]:
    """What `work` returns where the candidate files lie over /etc: in the mount namespace of a thread of its own.

    A thread has one as a process has (unshare(2)), and so have the threads and programs that it starts: no program is
    needed to make one, and the checks are functions of this program that see the candidate as well.
    """
    done: list[list[Objection]] = []
    failed: list[Exception] = []

    def inside() -> None:
        try:
            _lay_over()
            done.append(work())
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def _lay_over() -> None:
    """For this thread alone. AgentError when the kernel refuses it."""
    import ctypes  # here, for a run that changes nothing never comes so far

    layers = f"lowerdir={ROOT},upperdir={STAGE}/upper,workdir={STAGE}/work"
    system = ctypes.CDLL(None, use_errno=True)
    failed = system.unshare(CLONE_NEWNS) or system.mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
    if failed or system.mount(b"mailops", ROOT.encode(), b"overlay", 0, layers.encode()):
        raise AgentError(f"nothing can be laid over {ROOT}, to be checked: {os.strerror(ctypes.get_errno())}")


def _once(found: list[Objection]) -> list[str]:
    """The objections, a line each: what several programs of one daemon say alike is said once."""
    told: dict[tuple[str, str], str] = {}
    for unit, lines in found:
        for line in lines:
            told.setdefault((unit, daemons.of(unit).gist(line)), f"{unit}: {line}")
    return list(told.values())


def _clear() -> None:
    """Our own stage, and those of runs that were killed."""
    import shutil  # here, as above

    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(STAGES):
            if name == str(os.getpid()) or not os.path.exists(f"/proc/{name}"):
                shutil.rmtree(f"{STAGES}/{name}", ignore_errors=True)
