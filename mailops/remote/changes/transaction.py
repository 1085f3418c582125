"""Many files changed as one: either all of them, or none, wherever it is cut short.

The steps, and what the next run makes of a cut after each:

1. contents go into store, the new record beside its place                                    forgotten
2. the journal: which path goes from which state to which                                      undone
3. the new files beside the old ones (.mailops-new), second names for these (.mailops-old)    undone
4. renames; then the daemons are told, and asked whether they work                             undone
5. the record, and the number of the active generation, get their names by rename              finished

From step 3 on nothing needs space on the disk any more: forward and back are renames. Undoing may itself be cut,
and begun again, any number of times.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from ..machine import STATE
from ..services import daemons
from ..shared.errors import AgentError
from ..shared.stored import lift, numbered
from ..system.files import Change, observe, read_json, remove, same, write_whole
from ..system.shell import sync_directory, write_atomic
from . import generations

if TYPE_CHECKING:
    from ..shared.forms import Found, Generation, Journal, Run, State

JOURNAL = f"{STATE}/journal.json"
NEW, OLD = ".mailops-new", ".mailops-old"
REMEDY = f"compare the files by hand with `fab drift`, then as root there: rm {JOURNAL}, and fab bootstrap"


def pending() -> Journal | None:
    """The journal of a run that is under way or was cut short."""
    journal: Journal | None = read_json(JOURNAL, REMEDY, None)
    return lift("journal", journal) if journal else None


def is_its_work(path: str, now: State) -> bool:
    """Whether a path is as it is because of a run that is under way or was cut short: no edit of anybody's."""
    journal = pending()
    states = journal["paths"].get(path) if journal else None
    return states is not None and same(now, states["after"])


def prepare(change: Change, record: Generation, run: Run, amend: bool = False) -> None:
    """Everything that needs space: the journal, and the new files beside the old ones. Nothing is live yet.

    `record` is to become the active generation; with `amend` it replaces the record of its number, and what is
    active stays. `run` is kept for whoever has to undo it. The contents of the states must be in store.
    OSError, with everything as it was, when the disk is full.
    """
    journal = numbered(run) | {
        "paths": {path: {"before": change.before[path], "after": after} for path, after in change.after.items()},
        "number": record["number"],
        "amend": amend,
        "listed": os.path.exists(generations.path(record["number"])),  # whether it was a generation before
        "folders": _missing_folders(change.after),
    }
    try:
        _prepare_names(record, amend)
        write_atomic(JOURNAL, json.dumps(journal).encode(), 0o600)
        for path, after in change.after.items():
            _lay_beside(path, after)
    except BaseException:
        undo()
        forget()
        raise


def put_in_place() -> None:
    """What was prepared becomes live; `finish`, or `undo` and `forget`, have to follow."""
    journal = pending()
    assert journal is not None  # noqa: S101 - `prepare` came before
    for path, states in journal["paths"].items():
        if not same(observe(path), states["before"]):
            raise AgentError(f"{path} was changed by somebody else in this moment; run it again")
        if states["after"] is None:
            os.unlink(path)
        else:
            os.replace(path + NEW, path)
        daemons.replaced(path)
    _sync(journal)


def finish() -> None:
    """The new generation is the active one from here on; what stood there before goes from beside it.

    The oldest generations go as well, if there are too many.
    """
    journal = pending()
    if journal is None:
        return
    for source, target in _renames(journal):
        if os.path.exists(source):
            os.replace(source, target)
            sync_directory(os.path.dirname(target))  # the number never names a record that is not there
    for path in journal["paths"]:
        remove(path + OLD)
        remove(path + NEW)
    if not journal["amend"]:
        generations.prune()
    _drop(JOURNAL)


def undo() -> list[str]:
    """Bring back the state before the cut or failed run; returns the paths that daemons must be told of.

    The journal stays until `forget`, so that they are told even if this run is cut as well. A file that
    somebody else has changed in the meantime is theirs, and left as it is.
    """
    journal = pending()
    if journal is None:
        return []
    for path, states in journal["paths"].items():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            remove(path + NEW)
        ours = same(observe(path), states["after"])
        if ours and os.path.lexists(path + OLD):
            os.replace(path + OLD, path)
        elif ours:
            _restore(path, states["before"])
        daemons.replaced(path)
        with contextlib.suppress(NotADirectoryError):
            remove(path + OLD)
    for folder in reversed(journal["folders"]):
        with contextlib.suppress(OSError):  # somebody else's file is in it
            os.rmdir(folder)
    _sync(journal)
    return list(journal["paths"])


def forget() -> None:
    """The end of an undone run: everybody has been told."""
    journal = pending()
    if journal and not journal["listed"]:
        remove(generations.path(journal["number"]))
    _drop(JOURNAL)
    for name in (f"{generations.ACTIVE}{NEW}", *_prepared()):
        remove(name)


def is_finished(journal: Journal) -> bool:
    """Whether the run was cut after its new generation had become the active one."""
    return not os.path.exists(_renames(journal)[-1][0])


def _prepare_names(record: Generation, amend: bool) -> None:
    """The record and the number of the active generation are written now; `finish` only gives them their names."""
    generations.write_record(generations.path(record["number"]) + NEW, record)
    if not amend:
        write_whole(generations.ACTIVE + NEW, str(record["number"]).encode(), 0o600)
    sync_directory(STATE)


def _renames(journal: Journal) -> list[tuple[str, str]]:
    record = generations.path(journal["number"])
    renames = [(record + NEW, record)]
    return renames if journal["amend"] else [*renames, (generations.ACTIVE + NEW, generations.ACTIVE)]


def _prepared() -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        names = os.listdir(generations.RECORDS)
        return [f"{generations.RECORDS}/{name}" for name in names if name.endswith(NEW)]
    return []


def _missing_folders(changes: dict[str, State]) -> list[str]:
    """The folders that the new files need and that are not there, outermost first."""
    missing: set[str] = set()
    for path, after in changes.items():
        folder = os.path.dirname(path)
        while after is not None and not os.path.isdir(folder):
            missing.add(folder)
            folder = os.path.dirname(folder)
    return sorted(missing)


def _lay_beside(path: str, after: State) -> None:
    """The new file under a name that nobody reads, and a second name for the old one."""
    if after is not None:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        _make(path + NEW, after)
    if os.path.lexists(path):
        remove(path + OLD)
        os.link(path, path + OLD, follow_symlinks=False)


def _make(path: str, state: Found) -> None:
    if "link" in state:
        remove(path)
        os.symlink(state["link"], path)
        return
    content = generations.content(state)
    if content is None:
        raise AgentError(f"the content that {path.removesuffix(NEW)} should have is not kept on this machine")
    write_whole(path, content, state["mode"], state["uid"], state["gid"])


def _restore(path: str, before: State) -> None:
    """Where the old file's second name is gone: from what is kept, or to nothing."""
    if before is None:
        remove(path)
    elif "link" in before or generations.content(before) is not None:
        _make(path + NEW, before)
        os.replace(path + NEW, path)


def _sync(journal: Journal) -> None:
    """A power cut from here on finds these names as they are now."""
    for folder in sorted({os.path.dirname(path) for path in (*journal["paths"], *journal["folders"])}):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            sync_directory(folder)


def _drop(path: str) -> None:
    remove(path)
    if os.path.isdir(STATE):
        sync_directory(STATE)
