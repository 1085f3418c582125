"""Runs that are cut short: by a kill at every step that changes anything, by the connection, by Ctrl-C, by the power.

Each is made again, as a person would, and what is on the machine then is compared with what an undisturbed run
leaves: the whole managed state, every time. See steps.py for how an agent is cut at a step.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import secrets
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mailops.errors import MailopsError
from mailops.lab import replica
from mailops.manifest import File, Manifest
from tests.e2e import steps
from tests.e2e.house import FAB, House
from tests.e2e.steps import A_HASH, HANG_UP, Laptop, Step, Stepped, differences, state

MAIN_CF = "/etc/postfix/main.cf"
SIEVE = "/vault/sieve/before.d/junk.sieve"
Change = Callable[[Manifest], Manifest]
# A sweep over all steps takes a quarter of an hour. A run takes a share of it, that of the next commit another.
SHARE = 20
ROTATION = os.environ.get("MAILOPS_TEST_ROTATION") or steps.rotation()


@pytest.fixture
def mended(up: House) -> Iterator[House]:
    """The house, which is as its site says again after the test, and takes mail."""
    up.fab("-H", "mail", "push", "--overwrite")
    yield up
    up.fab("unlock", check=False)  # which says what the next run mends
    up.fab("bootstrap", "--overwrite")
    plans = up.fab_json("plan")
    assert {name: (found["changes"], found["edited"]) for name, found in plans.items()} == {
        "mail": ({}, []),
        "backup": ({}, []),
        "web": ({}, []),
    }
    up.arrives("user1@example.test", up.stranger_sends("user1@example.test"))


# A change of files, of every kind, of which one lies in the vault


def edited(manifest: Manifest, path: str, edit: Callable[[bytes], bytes]) -> Manifest:
    files = {file.path: file for file in manifest.files}
    files[path] = files[path]._replace(content=edit(files[path].content))
    return manifest._replace(files=tuple(files.values()))


def limited(manifest: Manifest, limit: bytes) -> Manifest:
    wanted = b"message_size_limit = " + limit
    return edited(manifest, MAIN_CF, lambda text: re.sub(rb"(?m)^message_size_limit = .*", wanted, text))


def with_file(manifest: Manifest, file: File) -> Manifest:
    return manifest._replace(files=(*manifest.files, file))


class Tomorrow:
    """Two site revisions with contents that no machine has seen before: it would have kept them."""

    def __init__(self) -> None:
        self.salt = secrets.randbelow(10**6)

    def before(self, manifest: Manifest) -> Manifest:
        manifest = limited(manifest, b"%d" % (31_000_000 + self.salt))
        return with_file(manifest, File("/usr/lib/mailops/former", b"# was %d\n" % self.salt))

    def after(self, manifest: Manifest) -> Manifest:
        manifest = limited(manifest, b"%d" % (32_000_000 + self.salt))
        manifest = edited(manifest, SIEVE, lambda text: text + b"# again %d\n" % self.salt)
        file = File("/usr/lib/mailops/more.d/more", b"# is %d\n" % self.salt, 0o640, "root", "postfix")
        return with_file(manifest, file)


FILES_STATE = (
    "etc/postfix/main.cf usr/lib/mailops vault/sieve var/log/mailops var/lib/mailops/objects"
    " var/lib/mailops/generations var/lib/mailops/active var/lib/mailops/origins.json var/lib/mailops/manifest.json"
)
FILES_ABSENT = (
    "usr/lib/mailops vault/sieve var/log/mailops var/lib/mailops/objects var/lib/mailops/generations"
    " var/lib/mailops/*.json* var/lib/mailops/active*"
)


@dataclass
class Scene:
    """A change on a machine from one known state to another, that can be made again and again."""

    house: House
    machine: Stepped
    laptop: Laptop
    task: str
    change: Change
    kept: tuple[str, str, str]  # what to keep of the state before, what to remove to come back to it, what to do then
    steps: list[Step] = field(default_factory=list)
    wanted: dict[str, Any] = field(default_factory=dict)  # the state after it
    former: dict[str, Any] = field(default_factory=dict)  # and before

    def rehearse(self) -> None:
        """Make the change undisturbed, twice: what it leaves is what counts, and what it does is the same each time."""
        name = self.machine.name
        steps.keep(self.house, name, self.kept[0])
        self.former = self.state()
        found = []
        for _ in range(2):
            self.back()
            self.machine.watch()
            self.run()
            self.steps = self.machine.steps()
            found.append(self.state())
        assert not differences(*found)
        self.wanted = found[0]
        assert self.wanted["files"] != self.former["files"] or self.wanted["vault"] != self.former["vault"]

    def back(self) -> None:
        steps.come_back(self.house, self.machine.name, *self.kept[1:])

    def run(self) -> dict[str, Any]:
        return self.laptop.converge(self.task, self.change)

    def attempt(self) -> MailopsError | None:
        """A run that is not expected to come to its end; why it did not."""
        try:
            self.run()
        except MailopsError as error:
            return error
        return None

    def state(self) -> dict[str, Any]:
        found = state(self.house, self.machine.name)
        self.history = found.pop("history")
        return found

    def left(self) -> tuple[bool, bool]:
        """What a cut run has left: a journal, and whether its generation is the active one."""
        folder = replica.root_path(self.house.lab, self.machine.name) / "var/lib/mailops"
        path = folder / "generations" / f"{(folder / 'active').read_text()}.json"
        record = json.loads(path.read_text())
        del record["when"]
        digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
        wanted = [name for name in self.wanted["kept"] if re.search(r"generations/[1-9]\d*\.json$", name)]
        newest = max(wanted, key=lambda name: int(Path(name).stem))
        finished = newest.endswith(f"/{path.name}") and digest == self.wanted["kept"][newest][-1]
        return (folder / "journal.json").exists(), finished

    def outcomes(self, before: int) -> list[str]:
        """How the runs since the known state have ended, as the machine's history has it."""
        return [entry["outcome"] for entry in self.history[before:]]


@contextmanager
def scene(house: House, name: str, task: str, change: Change, kept: tuple[str, str, str]) -> Iterator[Scene]:
    with Stepped(house, name) as machine, Laptop(house, name) as laptop:
        yield Scene(house, machine, laptop, task, change, kept)


@pytest.fixture
def push(mended: House) -> Iterator[Scene]:
    notice = "systemctl reload postfix.service"
    tomorrow = Tomorrow()
    with scene(mended, "mail", "push", tomorrow.after, (FILES_STATE, FILES_ABSENT, notice)) as found:
        found.laptop.converge("push", tomorrow.before)
        found.rehearse()
        yield found


def again(scene: Scene, runs: int) -> list[str]:
    """The next run after a cut one, and all that is wrong with it or with what is there then."""
    journal, finished = scene.left()
    wrong: list[str] = []
    try:
        done = scene.run()
    except MailopsError as error:
        return [f"the next run failed: {error}"]
    undone = [text for text in scene.laptop.said if "were undone" in text]
    if bool(undone) != (journal and not finished):
        wrong.append(f"journal: {journal}, finished: {finished}, but it said {scene.laptop.said}")
    if finished and "files" in done["changes"]:
        wrong.append(f"it was finished, and changed {done['changes']}")
    wrong += [f"{place}: {values}" for place, values in differences(scene.state(), scene.wanted).items()]
    heads = [["undone"]] if journal else [["interrupted"], []]  # nothing, where it had not yet said who it is
    if finished:
        heads = [["done"]] if journal else [["interrupted"], ["done"]]
    noted = scene.outcomes(runs)
    if noted not in [head + ["done"] * bool(done["changes"]) for head in heads]:
        wrong.append(f"journal: {journal}, finished: {finished}, and history has {noted}")
    return wrong


LOOSE = "wait4", "exit_group"  # how often a program is waited for is chance; at the very end there is nothing to kill


def killed_at_each(scene: Scene, chosen: list[Step]) -> None:
    scene.back()
    scene.state()
    runs = len(scene.history)
    wrong: dict[str, list[str]] = {}
    hits = []
    for step in chosen:
        scene.back()
        scene.machine.kill_at(step)
        if error := scene.attempt():
            assert "the agent ended without a result" in error.message
        else:
            assert step.call in LOOSE
        hits.append(scene.machine.hit())
        if found := again(scene, runs):
            wrong[str(step)] = found
    assert not wrong, f"MAILOPS_TEST_ROTATION={ROTATION}: {json.dumps(wrong, indent=1)}"
    # Not at any other call than was meant: the steps are the same each time, but for how often a program is waited for.
    # Of an open only the kind is the same: whichever thread needs a module first opens its file.
    counted = [(hit, step) for hit, step in zip(hits, chosen, strict=True) if step.call not in LOOSE]
    assert [(hit, step.shown) for hit, step in counted if step.call != "openat" and hit != step.shown] == []
    assert [hit for hit, step in counted if step.call == "openat" and not hit.startswith("openat(")] == []


def todays(scene: Scene, found: list[Step]) -> list[Step]:
    """Every twentieth step, on each release another, and at the next commit the next: all of them in ten runs."""
    return share(found, ROTATION, scene.house.release)


def share(found: list[Step], rotation: str, release: int) -> list[Step]:
    return found if rotation == "all" else found[(2 * int(rotation) + release) % SHARE :: SHARE]


def test_ten_runs_in_a_row_take_every_step() -> None:
    found = [Step("write", number, "") for number in range(97)]
    taken = [share(found, str(rotation), release) for rotation in range(1234, 1244) for release in (12, 13)]
    assert sorted(step.number for part in taken for step in part) == list(range(97))


def test_a_push_killed_at_any_step_and_made_again(push: Scene) -> None:
    assert len(push.steps) > 80
    killed_at_each(push, todays(push, push.steps))


# A bootstrap that has something to make in every room


LATE = "late@example.test"


def more(manifest: Manifest) -> Manifest:
    assert manifest.accounts
    assert manifest.dkim
    accounts = manifest.accounts._replace(
        users=(*manifest.accounts.users, LATE),
        aliases=(*manifest.accounts.aliases, ("later@example.test", LATE)),
    )
    dkim = manifest.dkim._replace(selectors=(*manifest.dkim.selectors, "202712"))
    return manifest._replace(accounts=accounts, dkim=dkim)


ROOMS_STATE = (
    "etc/group etc/gshadow vault/sieve vault/dkim vault/db/listed.json usr/lib/mailops var/log/mailops"
    " var/lib/mailops/objects var/lib/mailops/generations var/lib/mailops/active var/lib/mailops/origins.json"
    " var/lib/mailops/manifest.json"
)
ROOMS_ABSENT = f"vault/dkim {FILES_ABSENT}"
FORGET = f"""/usr/bin/python3 -IS -c "
import sqlite3
with sqlite3.connect('/vault/db/mail.sqlite') as db:
    db.execute('DELETE FROM users WHERE email = ?', ['{LATE}'])
    db.execute('DELETE FROM aliases WHERE dst = ?', ['{LATE}'])
"; chmod 640 /vault/db/mail.sqlite; chown root:mailauth /vault/db/mail.sqlite"""


@pytest.fixture
def bootstrap(mended: House) -> Iterator[Scene]:
    """An agent to keep there, a membership, a directory's mode, a user with an alias, two keys, and the manifest."""
    with scene(mended, "mail", "bootstrap", more, (ROOMS_STATE, ROOMS_ABSENT, FORGET)) as found:
        try:
            script = "gpasswd --delete postfix mailauth; chmod 700 /vault/sieve; echo >>/usr/lib/mailops/agent.pyz"
            found.machine.run(script)
            found.rehearse()
            yield found
        finally:
            found.back()


def test_a_bootstrap_killed_at_any_step_and_made_again(bootstrap: Scene) -> None:
    rows = bootstrap.wanted["rows"]
    assert [LATE, 1, len(A_HASH)] in rows[0]
    assert bootstrap.wanted["keys"]["example.test.202712.key"] is True
    assert set(bootstrap.wanted["keys"].values()) == {True}
    killed_at_each(bootstrap, todays(bootstrap, bootstrap.steps))


# The connection is cut


def hung_up_at(scene: Scene, step: Step) -> list[str]:
    """The machine ends our login just after this step. The agent stops at the next boundary, or goes on to its end."""
    scene.machine.stop_at(step, HANG_UP)
    error = scene.attempt()
    scene.machine.ended()
    if error is None:  # it had come to its end before it came to this step
        assert step.call in LOOSE, step
    wrong = [] if error is None or "the connection was lost" in error.message else [error.message]
    journal, finished = scene.left()
    found = differences(scene.state(), scene.wanted if finished else scene.former)
    # What has been stored in vain goes with the next change.
    odd = {place: values for place, values in found.items() if finished or not place.startswith("kept ")}
    return wrong + ["it left a journal"] * journal + [f"{place}: {values}" for place, values in odd.items()]


def cut_at(scene: Scene, chosen: list[Step]) -> None:
    wrong: dict[str, list[str]] = {}
    ends = []
    for step in chosen:
        scene.back()
        found = hung_up_at(scene, step)
        if step.call not in LOOSE:
            ends.append(scene.left()[1])
        scene.run()
        found += [f"{place}: {values}" for place, values in differences(scene.state(), scene.wanted).items()]
        if found:
            wrong[str(step)] = found
    assert not wrong, f"MAILOPS_TEST_ROTATION={ROTATION}: {json.dumps(wrong, indent=1)}"
    assert ends == sorted(ends)  # once it goes on to its end, it does so from every later step, too
    assert ROTATION != "all" or set(ends) == {False, True}


def test_a_push_whose_connection_is_cut_at_any_step(push: Scene) -> None:
    """Without the last one, which is its own end."""
    cut_at(push, todays(push, push.steps[:-1]))


# Ctrl-C on the laptop


def the(among: list[Step], pattern: str) -> Step:
    """The one step that looks like this."""
    found = [step for step in among if re.search(pattern, step.shown)]
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("live", [False, True], ids=["before anything is live", "when the first file is live"])
def test_ctrl_c_is_a_line_and_the_next_run_goes_on(mended: House, live: bool) -> None:
    edit = f"echo '# by hand' >>{MAIN_CF}"
    with Stepped(mended, "mail") as machine:
        machine.run(edit)
        machine.watch()
        mended.fab("-H", "mail", "push", "--overwrite")
        step = the(machine.steps(), "rename.*/main.cf.mailops-new" if live else "mkdir.*/candidates/N/work")
        machine.run(edit)
        machine.stop_at(step)
        command = [*FAB, "-H", "mail", "push", "--overwrite"]
        process = subprocess.Popen(
            command,
            env=mended.env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        machine.stopped()
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert err == "interrupted; run it again and it is picked up where it was\n"
        assert "Traceback" not in out
        machine.go_on()
        machine.ended()
    lines = mended.run("mail", f"tail -n 1 {MAIN_CF}; ls /var/lib/mailops; cat /etc/postfix/*.mailops-* 2>&1; true")
    assert ("# by hand" in lines) != live  # stopped before the commit, or gone on to the end
    assert "journal" not in lines
    assert "No such file" in lines
    changes = mended.fab_json("-H", "mail", "push", "--overwrite")["mail"]["changes"]
    assert changes.get("files", []) == ([] if live else [MAIN_CF])
    assert mended.fab_json("-H", "mail", "push")["mail"]["changes"] == {}


# The next one takes over


def test_a_run_that_is_stopped_is_taken_over_and_what_it_had_begun_is_undone(mended: House) -> None:
    with Stepped(mended, "mail") as machine:
        edit = f"echo '# by hand' >>{MAIN_CF}"
        machine.run(edit)
        machine.watch()
        mended.fab("-H", "mail", "push", "--overwrite")
        step = the(machine.steps(), "rename.*/main.cf.mailops-new")
        machine.run(edit)
        machine.stop_at(step)
        command = [*FAB, "-H", "mail", "push", "--overwrite"]
        process = subprocess.Popen(
            command, env=mended.env(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        machine.stopped()
        status = mended.fab("-H", "mail", "status").stdout
        refused = mended.fab("-H", "mail", "push", check=False)
        assert refused.returncode == 5
        for said in (status, refused.stderr):
            assert "is running push on this machine since" in said
            assert "and somebody has stopped it" in said
            assert "with --take-over: that run ends, and what it had begun is undone" in said
        done = mended.fab("-H", "mail", "push", "--take-over", check=False)
        assert "the push of" in done.stdout
        assert "were undone" in done.stdout
        assert done.returncode == 3, "the hand edit is back, and asked about"
        _, err = process.communicate(timeout=30)
        assert process.returncode == 1
        assert "perhaps another run took over: fab -H mail history" in err
        machine.ended()
    assert "took over" in mended.fab("-H", "mail", "history", "--count", "2").stdout
    assert "# by hand" in mended.run("mail", f"tail -n 1 {MAIN_CF}")


# The power goes


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        (r"rename.*/junk\.sieve\.mailops-new", False),
        (r"rename.*/active\.mailops-new", True),
    ],
    ids=["in the middle of the commit", "when all is decided"],
)
def test_a_power_cut_in_a_commit_is_undone_or_finished_by_the_unlock(push: Scene, pattern: str, kept: bool) -> None:
    house = push.house
    push.back()
    push.machine.stop_at(the(push.steps, pattern))
    runner = threading.Thread(target=push.attempt, daemon=True)
    runner.start()
    push.machine.stopped()
    replica.kill(house.lab, "mail")
    push.laptop.hang_up()
    runner.join(90)
    replica.start(house.lab, "mail")
    journal, finished = push.left()
    assert (journal, finished) == (True, kept)
    assert house.state() == "locked"
    if not kept:  # a part of it lies in the vault, which nobody sees now
        done = house.fab("-H", "mail", "push", check=False)
        assert done.returncode == 5
        assert "an interrupted run has to be undone first, and part of it lies in the vault" in done.stderr
        assert "fab -H mail unlock" in done.stderr
        assert push.left() == (journal, finished)
    done = house.fab("unlock")
    assert ("were undone" in done.stdout) != kept
    found = differences(push.state(), push.wanted if kept else push.former)
    assert {place: values for place, values in found.items() if not place.startswith("kept ") or kept} == {}
    assert push.outcomes(0)[-2:] == (["done"] * 2 if kept else ["undone", "done"])
    push.run()
    assert differences(push.state(), push.wanted) == {}


# A full disk


SMALL = "/etc/postfix", "/var/lib/mailops/objects", "/var/lib/mailops/generations"
ON_SMALL = """
mount -t tmpfs -o size=8m,mode=$(stat -c %a {0}) small /mnt
cp -a {0}/. /mnt
mount --bind /mnt {0}
umount /mnt
"""
OFF_SMALL = """
rm -f {0}/filler
mount --bind {0} /mnt
umount {0}
rm -rf {0}/*
cp -a /mnt/. {0}
umount /mnt
"""
FILL = "dd if=/dev/zero of={0}/filler bs=4096 status=none 2>/dev/null || true; "


@pytest.fixture
def small(push: Scene) -> Iterator[Scene]:
    """Three small filesystems, each with what was there before, and full."""
    push.back()
    push.machine.run("set -e\n" + "".join(ON_SMALL.format(place) for place in SMALL))
    try:
        yield push
    finally:
        push.machine.run("set -e\n" + "".join(OFF_SMALL.format(place) for place in SMALL))


@pytest.mark.parametrize("place", SMALL)
def test_a_disk_with_any_little_room_left_is_a_line_and_no_change(small: Scene, place: str) -> None:
    """Room for nothing, for a page, for another, until it is enough."""
    pages = 0
    while True:
        small.machine.run(f"rm -f {place}/filler; " + FILL.format(place))
        small.machine.run(f"truncate -s -{4096 * pages} {place}/filler")
        error = small.attempt()
        if not error:
            break
        assert re.match(r"mail: No space left on device: /", error.message), error.message
        assert "\n" not in error.message
        assert small.left() == (False, False)
        odd = differences(small.state(), small.former)
        assert [key for key in odd if not key.startswith("kept ") and "filler" not in key] == []
        assert small.outcomes(0)[-1] == "failed"
        pages += 1
        assert pages < 50
    assert pages
    small.machine.run(f"rm -f {place}/filler")
    assert differences(small.state(), small.wanted) == {}


def test_a_disk_that_fills_up_in_the_commit_does_not_stop_it(small: Scene) -> None:
    step = the(small.steps, r"rename.*/journal\.json\.mailops-new")
    last = the(small.steps, r"linkat.*former\.mailops-old")
    assert small.steps.index(last) > small.steps.index(step)
    proof = "".join(f"{{ echo more >>{place}/more; rm {place}/more; }} 2>>{steps.FOLDER}/proof; " for place in SMALL)
    small.machine.stop_at(last, "".join(map(FILL.format, SMALL)) + proof + "kill -CONT $1")
    small.run()
    assert small.machine.run(f"cat {steps.FOLDER}/proof").count("I/O error") == len(SMALL)  # the premise
    odd = differences(small.state(), small.wanted)
    assert [key for key in odd if "filler" not in key] == []
    small.machine.run("rm -f " + " ".join(f"{place}/filler" for place in SMALL))
    assert differences(small.state(), small.wanted) == {}


# Two at once


def test_of_two_that_start_at_once_one_runs_and_the_other_is_told(push: Scene) -> None:
    """Each wants another limit: what is there in the end is what the one that ran had wanted."""
    with Laptop(push.house, "mail") as other:
        other.converge("push", push.change)
        for number in range(6):
            limits = [b"%d" % (33_000_000 + 2 * number + each) for each in (0, 1)]
            results = at_once([push.laptop, other], limits)
            (told,) = [result for result in results if isinstance(result, MailopsError)]
            (won,) = [limit for limit, result in zip(limits, results, strict=True) if isinstance(result, dict)]
            assert told.code == 5
            whom = (
                r"mail: tester@laptop \(from [\d.]+\) is running push on this machine since \d\d:\d\d:\d\d, \d+ s ago"
            )
            assert re.fullmatch(whom, told.message), told.message
            assert any(won.decode() in line for line in push.state()["offered"])
            assert push.left()[0] is False
            assert push.laptop.converge("push", functools.partial(limited, limit=won))["changes"] == {}


def at_once(laptops: list[Laptop], limits: list[bytes]) -> list[dict[str, Any] | MailopsError]:
    results: dict[bytes, dict[str, Any] | MailopsError] = {}
    start = threading.Barrier(len(laptops))

    def run(laptop: Laptop, limit: bytes) -> None:
        start.wait()
        try:
            results[limit] = laptop.converge("push", functools.partial(limited, limit=limit))
        except MailopsError as error:
            results[limit] = error

    threads = [threading.Thread(target=run, args=pair) for pair in zip(laptops, limits, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return [results[limit] for limit in limits]


def test_a_stopped_holder_is_told_of_and_its_lock_is_free_as_soon_as_it_is_killed(push: Scene) -> None:
    push.back()
    push.machine.stop_at(the(push.steps, r"rename.*/main\.cf\.mailops-new"), "sleep 60")
    runner = threading.Thread(target=push.attempt, daemon=True)
    runner.start()
    push.machine.stopped()
    with Laptop(push.house, "mail") as other:
        with pytest.raises(
            MailopsError, match=r"is running push on this machine.*, and somebody has stopped it"
        ) as caught:
            other.converge("push", push.change)
        assert caught.value.code == 5
        process = re.search(r"with --take-over: .*as root there: kill -CONT (\d+)", caught.value.hint)
        assert process
        assert "with --take-over" in push.house.fab_json("-H", "mail", "status")["mail"]["busy"]
        push.machine.run(f"kill -KILL {process[1]}")
        other.converge("push", push.change)
        assert any("were undone" in text for text in other.said)
    runner.join(60)
    assert differences(push.state(), push.wanted) == {}
