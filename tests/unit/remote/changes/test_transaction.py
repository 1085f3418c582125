"""Many files changed as one: cut at every call that changes anything, and on a disk that fails at every one.

A run makes the change and dies just before or just after its n-th mutating call, for every n.
Then a next run does what it does on a machine: finish or undo, and make the change again. What there is then is
compared with what an undisturbed run leaves, all of it.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from mailops.remote import machine
from mailops.remote.changes import candidate, generations, history, run, transaction
from mailops.remote.changes.run import Run
from mailops.remote.shared.errors import AgentError
from mailops.remote.shared.forms import State
from mailops.remote.system import shell
from mailops.remote.system.files import Change, observe, same
from mailops.remote.vault import vault

# The calls by which the agent changes a disk. `open` counts when it may write.
MUTATING = ("replace", "rename", "unlink", "link", "symlink", "mkdir", "rmdir", "fchmod", "fchown", "fsync", "open")
NEEDS_SPACE = ("link", "symlink", "mkdir", "open", "fsync")  # fsync(2): where a delayed allocation fails
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
NOTHING: dict[str, Any] = {"services": [], "probes": [], "vault": None}


class Laptop:
    """A link to a laptop that has nothing to say."""

    origin = ""
    resolute = False

    def step(self, *_: object) -> None: ...

    def say(self, _: str) -> None: ...

    def ask(self, *_: Any) -> None: ...


class Disk:
    """A machine's managed files below a folder, and the run that changes them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.contents: dict[str, bytes] = {}

    def path(self, name: str) -> str:
        return str(self.root / "etc" / name)

    def there(self, name: str, content: bytes, mode: int = 0o644) -> None:
        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)

    def file(self, content: bytes, mode: int = 0o644, uid: int = -1) -> dict[str, Any]:
        """The state of a file, its content known to the run."""
        name = hashlib.sha256(content).hexdigest()
        self.contents[name] = content
        return {"sha256": name, "mode": mode, "uid": os.getuid() if uid < 0 else uid, "gid": os.getgid()}

    def change(self, **states: State) -> None:
        """One run, as `push` makes it: recover, compare, apply or amend."""
        done = Run("push", "me@here", Laptop())
        done.recover()
        wanted = {self.path(name.replace("__", "/")): state for name, state in states.items()}
        manifest = self.file(json.dumps(NOTHING | {"wanted": wanted}, sort_keys=True).encode(), 0o600)
        wanted[machine.MANIFEST] = manifest
        now = {path: observe(path) for path in wanted}
        after = {path: state for path, state in wanted.items() if not same(now[path], state)}
        change = Change({path: now[path] for path in after}, after, self._content)
        active = generations.active()
        files = {path: state for path, state in (active["files"] | wanted).items() if state}
        if set(after) - {machine.MANIFEST}:
            number = max(generations.numbers(), default=0) + 1
            record = {"number": number, "parent": active["number"], "files": files, "locals": {}}
            done.apply(NOTHING, change, record, True)
        else:
            done.amend(change, {"files": files})

    def refusal(self, states: dict[str, State]) -> Exception | None:
        try:
            self.change(**states)
        except (OSError, AgentError) as error:
            return error
        return None

    def recover(self) -> None:
        Run("push", "me@here", Laptop()).recover()

    def _content(self, state: State) -> bytes:
        assert state is not None
        return self.contents[state["sha256"]]

    def managed(self) -> dict[str, Any]:
        """What daemons see."""
        return _tree(self.root / "etc")

    def everything(self) -> dict[str, Any]:
        """What daemons see and what mailops keeps: store, records, number."""
        return _tree(self.root)


def _tree(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        what: Any = None
        if stat.S_ISLNK(info.st_mode):
            what = os.readlink(path)
        elif stat.S_ISREG(info.st_mode):
            what = path.read_bytes(), info.st_nlink
        found[str(path.relative_to(root))] = (oct(info.st_mode), info.st_uid, info.st_gid, what)
    return found


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, where there is such a thing: thousands of disks are made and thrown away."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield Path(folder)


@pytest.fixture
def disk(memory: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Three managed files of generation 1, and two that are not ours yet."""
    state = memory / "disk" / "state"
    state.mkdir(parents=True)
    for module in (machine, transaction, generations, candidate):
        for name, value in vars(module).items():
            if isinstance(value, str) and value.startswith(machine.STATE) and name != "STATE":
                monkeypatch.setattr(module, name, value.replace(machine.STATE, str(state)))
    monkeypatch.setattr(transaction, "STATE", str(state))
    monkeypatch.setattr(history, "FOLDER", str(memory / "log"))
    monkeypatch.setattr(history, "PATH", str(memory / "log" / "history.jsonl"))
    monkeypatch.setattr(os, "fsync", lambda _: None)  # counted all the same; the disk's pace is not the question
    owned = functools.partial(os.chown, uid=os.getuid(), gid=os.getgid())
    for module in (shell, generations, transaction, run, vault):  # the agent's own files are root's on a machine
        if hasattr(module, "write_atomic"):
            monkeypatch.setattr(module, "write_atomic", _as_myself(module.write_atomic))
        if hasattr(module, "write_whole"):
            monkeypatch.setattr(module, "write_whole", _as_myself(module.write_whole))
    disk = Disk(memory / "disk")
    (memory / "disk" / "etc").mkdir()
    disk.there("debians", b"as Debian has it", 0o640)
    os.symlink("debians", disk.path("link"))
    owned(disk.path("debians"))
    disk.change(main=disk.file(b"one"), gone=disk.file(b"to go"), bits=disk.file(b"bits"))
    return disk


def _as_myself(write: Callable[..., None]) -> Callable[..., None]:
    """Root's files belong to whoever runs the tests."""

    def written(path: str, content: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        write(path, content, mode, uid or os.getuid(), gid or os.getgid())

    return written


def changes_of(disk: Disk) -> dict[str, dict[str, State]]:
    """Kinds of changes, by name."""
    several = {
        "main": disk.file(b"two"),
        "new__folder__file": disk.file(b"new", 0o600),
        "gone": None,
        "link": disk.file(b"no link any more"),
        "debians": disk.file(b"ours now"),
        "bits": disk.file(b"bits", 0o600),
    }
    return {
        "several at once": several,
        "a new file in new folders": {"new__folder__file": several["new__folder__file"]},
        "a file that goes": {"gone": None},
        "a link that becomes a file": {"link": several["link"]},
        "a file that becomes a link": {"main": {"link": "debians"}},
        "a mode": {"bits": several["bits"]},
        "nothing but the manifest": {},
        **({"an owner": {"bits": disk.file(b"bits", uid=1)}} if not os.getuid() else {}),
    }


KINDS = [
    "several at once",
    "a new file in new folders",
    "a file that goes",
    "a link that becomes a file",
    "a file that becomes a link",
    "a mode",
    "nothing but the manifest",
    pytest.param("an owner", marks=pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")),
]


# Deaths


class Counted:
    """Every mutating call of this process, counted; `at` is told its number before and after it is made."""

    def __init__(self, before: Callable[[int, str], None], after: Callable[[int, str], None]) -> None:
        self.count = 0
        self.before, self.after = before, after
        self.originals = {name: getattr(os, name) for name in MUTATING}

    def __enter__(self) -> Counted:
        for name in MUTATING:
            setattr(os, name, self._wrapped(name))
        return self

    def __exit__(self, *_: object) -> None:
        for name, original in self.originals.items():
            setattr(os, name, original)

    def _wrapped(self, name: str) -> Callable[..., Any]:
        original = self.originals[name]

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not (args[1] & WRITES):
                return original(*args, **kwargs)
            self.count += 1
            number = self.count
            self.before(number, name)
            result = None
            try:
                result = original(*args, **kwargs)
            finally:  # a call that fails (a folder that is there already) counts as well
                try:
                    self.after(number, name)
                except BaseException:
                    if name == "open" and result is not None:
                        os.close(result)  # nobody gets it
                    raise
            return result

        return call


def never(_: int, __: str) -> None:
    pass


class Death(BaseException):
    """The end of a run, which no `except` of it may hold up."""


def dies(work: Callable[[], None], at: int, after: bool) -> bool:
    """Whether `work` dies at its call number `at`; False when there are not so many.

    As by SIGKILL: no call after that one changes the disk, and what was written and not flushed yet is lost. (A forked
    child that really dies leaves the same. To fork a large process for each of a thousand deaths took half a minute.)
    """
    files: list[IO[Any]] = []
    dead = False

    def death(number: int, _: str) -> None:
        nonlocal dead
        if number == at and not dead:
            dead = True
            for file in files:
                if not file.closed:
                    os.dup2(nowhere.fileno(), file.fileno())
        if dead:
            raise Death

    def before(number: int, name: str) -> None:
        if dead or not after:
            death(number, name)

    def fdopen(*args: Any, **kwargs: Any) -> IO[Any]:
        files.append(file := original(*args, **kwargs))
        return file

    original = os.fdopen
    with open(os.devnull, "r+b") as nowhere, Counted(before, death if after else never):
        os.fdopen = fdopen  # type: ignore[assignment]
        try:
            work()
        except Death:
            pass
        finally:
            os.fdopen = original
    return dead


def copies(disk: Disk) -> Iterator[None]:
    """For ever: the disk as it was at the start."""
    aside = Path(tempfile.mkdtemp(dir=disk.root.parent)) / "aside"
    shutil.copytree(disk.root, aside, symlinks=True)
    if not os.getuid():
        _copy_owners(disk.root, aside)
    while True:
        yield
        shutil.rmtree(disk.root)
        shutil.copytree(aside, disk.root, symlinks=True)
        if not os.getuid():
            _copy_owners(aside, disk.root)


def _copy_owners(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        info = path.lstat()
        os.chown(target / path.relative_to(source), info.st_uid, info.st_gid, follow_symlinks=False)


def undisturbed(disk: Disk, change: Callable[[], None]) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """How many mutating calls a change makes, what daemons see after it, and everything after it."""
    with Counted(never, never) as calls:
        change()
    assert transaction.pending() is None
    return calls.count, disk.managed(), disk.everything()


@pytest.mark.parametrize("after", [False, True], ids=["just before", "just after"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_death_at_any_call_leaves_nothing_that_the_next_run_does_not_mend(disk: Disk, kind: str, after: bool) -> None:
    states = changes_of(disk)[kind]
    anew = copies(disk)
    next(anew)
    before = disk.managed()
    count, wanted, everything = undisturbed(disk, lambda: disk.change(**states))
    assert count > 10
    seen = set()
    for at in range(1, count + 1):
        next(anew)
        assert dies(lambda: disk.change(**states), at, after), f"there was no call {at}"
        journal = transaction.pending()
        finished = journal is not None and transaction.is_finished(journal)
        disk.recover()
        assert transaction.pending() is None
        assert _names_beside(disk.managed()) == []
        # Only the call of the commit itself is between the two.
        assert disk.managed() in ((wanted,) if finished else (before, wanted)), at
        seen.add(disk.managed() == wanted)
        disk.change(**states)
        assert disk.everything() == everything, f"after a death at call {at} of {count}"
    assert not dies(lambda: disk.change(**states), count + 1, after)
    assert seen == {False, True} if states else {True}


def _names_beside(tree: dict[str, Any]) -> list[str]:
    return [name for name in tree if ".mailops-" in name]


@pytest.mark.parametrize("after", [False, True], ids=["just before", "just after"])
def test_the_undoing_may_be_cut_at_any_call_too(disk: Disk, after: bool) -> None:
    states = changes_of(disk)["several at once"]
    anew = copies(disk)
    next(anew)
    before = disk.managed()
    count, _, everything = undisturbed(disk, lambda: disk.change(**states))
    everything_before: dict[str, Any] = {}
    undone = 0
    for at in _commit(disk, anew, states, count):
        next(anew)
        assert dies(lambda at=at: disk.change(**states), at, True)  # type: ignore[misc]
        as_left = copies(disk)
        for second in range(1, 1000):
            next(as_left)
            if not dies(disk.recover, second, after):
                break
            if second % 3 == 0:  # and once more
                dies(disk.recover, second // 2, after)
            disk.recover()
            assert disk.managed() == before, (at, second)
            everything_before = everything_before or disk.everything()
            undone += 1
            disk.change(**states)
            assert disk.everything() == everything, (at, second)
    assert undone > 30


def _commit(disk: Disk, anew: Iterator[None], states: dict[str, State], count: int) -> list[int]:
    """Some of the calls of a change after which there is something to undo: every ninth, and the last."""
    found = []
    for at in range(1, count + 1):
        next(anew)
        dies(lambda at=at: disk.change(**states), at, True)  # type: ignore[misc]
        journal = transaction.pending()
        if journal and not transaction.is_finished(journal):
            found.append(at)
    return found[::9] + found[-1:]


# A disk that fails


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_fails_leaves_everything_as_it_was_or_done(disk: Disk, kind: str) -> None:
    states = changes_of(disk)[kind]
    anew = copies(disk)
    next(anew)
    before = disk.managed()
    count, wanted, everything = undisturbed(disk, lambda: disk.change(**states))

    def fails(at: int) -> Callable[[int, str], None]:
        def failure(number: int, _: str) -> None:
            if number == at:
                raise OSError(errno.ENOSPC, "No space left on device")

        return failure

    for at in range(1, count + 1):
        next(anew)
        with Counted(fails(at), never):
            refused = disk.refusal(states)
        assert refused is None or "No space left" in str(refused)
        journal = transaction.pending()
        if journal is None:
            assert disk.managed() in ((before, wanted) if refused else (wanted,)), at
        disk.recover()
        assert disk.managed() in ((before, wanted) if refused else (wanted,)), at
        disk.change(**states)
        assert disk.everything() == everything, f"after a failure at call {at} of {count}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_is_full_from_any_call_on_is_enough_to_undo_or_to_finish(disk: Disk, kind: str) -> None:
    states = changes_of(disk)[kind]
    anew = copies(disk)
    next(anew)
    before = disk.managed()
    count, wanted, everything = undisturbed(disk, lambda: disk.change(**states))

    def full(at: int) -> Callable[[int, str], None]:
        def failure(number: int, name: str) -> None:
            if number >= at and name in NEEDS_SPACE:
                raise OSError(errno.ENOSPC, "No space left on device")

        return failure

    outcomes = set()
    for at in range(1, count + 1):
        next(anew)
        with Counted(full(at), never):
            refused = disk.refusal(states)
            assert refused is None or "No space left" in str(refused)
            journal = transaction.pending()
            if journal is None:
                assert disk.managed() in (before, wanted), at
            assert _names_beside(disk.managed()) == [] or journal, at
            outcomes.add(disk.managed() == wanted)
        disk.recover()
        disk.change(**states)
        assert disk.everything() == everything, f"after a disk that was full from call {at} of {count} on"
    assert outcomes == ({False, True} if states else {True})


# Other people


def test_an_edit_between_a_cut_and_the_next_run_is_not_lost(disk: Disk) -> None:
    """Editors write in place, or put another file in the place: both are somebody's work."""
    states = changes_of(disk)["several at once"]
    anew = copies(disk)
    next(anew)
    count, _, _ = undisturbed(disk, lambda: disk.change(**states))
    for at in _commit(disk, anew, states, count):
        next(anew)
        dies(lambda at=at: disk.change(**states), at, True)  # type: ignore[misc]
        as_left = copies(disk)
        for how in ("in place", "by rename"):
            next(as_left)
            main = Path(disk.path("main"))
            if how == "in place":
                with main.open("ab") as file:
                    file.write(b" and mine")
            else:
                text = main.read_bytes()
                Path(disk.path("swap")).write_bytes(text + b" and mine")
                os.replace(disk.path("swap"), main)
            mine = main.read_bytes()
            disk.recover()
            assert main.read_bytes() == mine, (how, at)
            assert _names_beside(disk.managed()) == []


# Records that lie


@pytest.mark.parametrize("rest", [b"", b'{"paths": {"/etc/x": ', b"\0" * 40], ids=["empty", "cut", "zeros"])
def test_a_damaged_journal_is_named(disk: Disk, rest: bytes) -> None:
    Path(transaction.JOURNAL).write_bytes(rest)
    with pytest.raises(AgentError) as caught:
        disk.recover()
    assert transaction.JOURNAL in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("rest", [b"", b"\0\0", b"{"], ids=["empty", "zeros", "cut"])
@pytest.mark.parametrize("name", ["ACTIVE", "ORIGINS", "record"])
def test_a_damaged_record_is_named(disk: Disk, name: str, rest: bytes) -> None:
    path = generations.path(1) if name == "record" else getattr(generations, name)
    Path(path).write_bytes(rest)
    with pytest.raises(AgentError) as caught:
        disk.change(**changes_of(disk)["several at once"])
    assert path in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("rest", [b"", b"two, cut"], ids=["empty", "cut"])
def test_a_damaged_content_is_brought_anew(disk: Disk, rest: bytes) -> None:
    states = changes_of(disk)["several at once"]
    state = states["main"]
    assert state is not None
    Path(generations.OBJECTS, state["sha256"]).write_bytes(rest)
    assert generations.content(state) is None
    disk.change(**states)
    assert Path(disk.path("main")).read_bytes() == b"two"
    assert generations.content(state) == b"two"
