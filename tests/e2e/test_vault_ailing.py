"""A vault that does not answer, and one whose gocryptfs.conf is gone or damaged: said within seconds, nothing made."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from mailops.lab import replica
from tests.e2e.house import FAB, House, until
from tests.e2e.pace import pace
from tests.e2e.test_vault import assert_locked, assert_up

LOCKED = 5
SECONDS = 30  # generous for a busy computer; without a limit of its own each of these waits for ever
CIPHERDIR = "/var/lib/mailops/vault"


AGENTS = "pgrep -f ' mailcfg$' || true"  # of a user.passwd
TASKS = ("plan", "bootstrap", "unlock")
DAMAGES = {
    "rm gocryptfs.conf": "gocryptfs.conf is missing",
    "truncate -s 100 gocryptfs.conf": "is damaged: it is not what gocryptfs writes",
    "truncate -s 0 gocryptfs.conf; truncate -s 400 gocryptfs.conf": "is damaged: there is nothing in it",
    'sed -i \'s/"Version": 2/"Version": 1/\' gocryptfs.conf': "is damaged: its version is 1, not 2",
    "rm gocryptfs.diriv": "gocryptfs.diriv is missing",
}


@pytest.fixture
def hung(up: House) -> Iterator[House]:
    """The process that serves the vault is there, and does not move any more."""
    pid = up.run("mail", "systemctl show -p MainPID --value mailops-vault").strip()
    up.run("mail", f"kill -STOP {pid}")
    yield up
    up.run("mail", f"kill -CONT {pid}", check=False)
    up.fab("lock")
    up.fab("unlock")


def timed(house: House, *task: str) -> subprocess.CompletedProcess[str]:
    began = time.monotonic()
    done = house.fab(*task, check=False)
    assert time.monotonic() - began < SECONDS * pace(), task
    return done


def typed(house: House, *words: str) -> subprocess.CompletedProcess[str]:
    """On the machine's own console."""
    return replica.run(house.lab, "mail", ["timeout", str(SECONDS * pace()), *words], "x\n", False)


def test_a_vault_that_does_not_answer_is_told_of_and_closed(hung: House) -> None:
    names = ("bootstrap", "push", "rollback", "plan", "drift")
    tasks = [("user.ls",), ("dkim.ls",), ("unlock",), *(("-H", "mail", name) for name in names)]
    with ThreadPoolExecutor(4) as pool:
        asked = {task: pool.submit(timed, hung, *task) for task in tasks}
        history = [pool.submit(timed, hung, "-H", "mail", task) for task in ("history", "generations", "diff")]
        client = pool.submit(timed, hung, "-H", "backup", "status")
        commands = [pool.submit(typed, hung, *words) for words in (("mailboot",), ("mailcfg", "lsuser"))]
    for task, answer in asked.items():
        done = answer.result()
        if "no earlier generation" in done.stderr:
            continue  # a fresh machine has nothing to roll back to
        if "another run" not in done.stderr and "is running" not in done.stderr:
            assert "the vault /vault does not answer" in done.stderr, (task, done)
        assert done.returncode == LOCKED, (task, done)
    for answer in history:  # of which a fresh machine has little
        assert answer.result().returncode == 0 or "no earlier generation" in answer.result().stderr
    assert "Debian" in client.result().stdout, "whoever sends through it is looked at as ever"
    for command in commands:
        assert "the vault /vault does not answer" in command.result().stderr
        assert command.result().returncode == LOCKED
    status = timed(hung, "-H", "mail", "status").stdout
    assert "✗ degraded" in status
    assert "the vault does not answer; next: fab -H mail lock, then unlock" in status
    assert "the vault is locked" in timed(hung, "lock").stdout
    assert_locked(hung)
    hung.fab("unlock")
    assert_up(hung)


def test_a_queue_that_does_not_answer_is_told_of_and_closed(up: House) -> None:
    """The vault's own process is well; the one that shows the queue in it is not. A call in the middle comes to an end,
    that of a person who is still typing as well."""
    command = [*FAB, "user.passwd", "user1@example.test"]
    typing = subprocess.Popen(
        command, env=up.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(lambda: up.run("mail", AGENTS), 30, "the call to begin")
    time.sleep(2 * pace())  # it asks for the password by then
    up.run("mail", "kill -STOP $(pidof bindfs)")
    status = timed(up, "-H", "mail", "status").stdout
    assert "✗ degraded" in status
    assert "the vault does not answer; next: fab -H mail lock, then unlock" in status
    until(lambda: not up.run("mail", AGENTS), 30, "the call to end")
    assert typing.poll() is None
    _, err = typing.communicate("a new password\n", timeout=30 * pace())
    assert "mail: the vault /vault does not answer" in err
    assert typing.returncode == LOCKED
    assert "the vault is locked" in timed(up, "lock").stdout
    assert_locked(up)
    up.fab("unlock")
    assert_up(up)


@contextmanager
def harmed(house: House, script: str) -> Iterator[None]:
    """The encrypted folder with something done to it, and as it was again."""
    house.run("mail", f"cd {CIPHERDIR}; mkdir ../was; cp -p gocryptfs.* ../was; {script}")
    try:
        yield
    finally:
        house.run("mail", f"cd {CIPHERDIR}; cp -p ../was/* .; rm -r ../was")


def test_a_damaged_gocryptfs_conf_stops_a_bootstrap_which_tells_the_way_back(up: House) -> None:
    up.fab("lock")
    for script, says in DAMAGES.items():
        with harmed(up, script):
            for task in TASKS if script == "rm gocryptfs.conf" else ("bootstrap",):
                done = up.fab("-H", "mail", task, check=False)
                assert done.returncode, (script, task)
                assert says in done.stderr, (script, task)
                assert "recovery key" not in done.stdout + done.stderr, (script, task)
            assert "gocryptfs" in up.fab("-H", "mail", "status").stdout
            way_back = done.stderr.partition("as root there: ")[2].splitlines()[0].strip()
            up.run("mail", way_back)
            assert up.run("mail", f"cd {CIPHERDIR}; for name in gocryptfs.*; do cmp $name ../was/$name; done") == "", (
                "the copy brings all of it back"
            )
    up.fab("unlock")
    assert_up(up)
