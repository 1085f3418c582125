"""A vault that does not answer, and one whose gocryptfs.conf is gone or damaged: said within seconds, nothing made."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from mailops.lab import replica
from tests.e2e.house import House
from tests.e2e.test_vault import assert_locked, assert_up

LOCKED = 5
SECONDS = 30  # generous for a busy computer; without a limit of its own each of these waits for ever
CIPHERDIR = "/var/lib/mailops/vault"


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
    assert time.monotonic() - began < SECONDS, task
    return done


def test_a_vault_that_does_not_answer_is_told_of_and_closed(hung: House) -> None:
    tasks = [("user.ls",), ("unlock",), *(("-H", "mail", task) for task in ("bootstrap", "plan", "drift"))]
    with ThreadPoolExecutor(len(tasks)) as pool:
        asked = {task: pool.submit(timed, hung, *task) for task in tasks}
    for task, answer in asked.items():
        done = answer.result()
        if "another run" not in done.stderr and "is running" not in done.stderr:
            assert "the vault /vault does not answer" in done.stderr, (task, done)
        assert done.returncode == LOCKED, (task, done)
    mailboot = replica.run(hung.lab, "mail", ["timeout", str(SECONDS), "mailboot"], "x\n", False)
    assert "does not answer" in mailboot.stderr
    assert mailboot.returncode == LOCKED
    status = timed(hung, "-H", "mail", "status").stdout
    assert "✗ degraded" in status
    assert "the vault does not answer; next: fab -H mail lock, then unlock" in status
    assert "the vault is locked" in timed(hung, "lock").stdout
    assert_locked(hung)
    hung.fab("unlock")
    assert_up(hung)


def test_a_queue_that_does_not_answer_is_told_of_and_closed(up: House) -> None:
    """The vault's own process is well; the one that shows the queue in it is not."""
    up.run("mail", "kill -STOP $(pidof bindfs)")
    status = timed(up, "-H", "mail", "status").stdout
    assert "✗ degraded" in status
    assert "the vault does not answer; next: fab -H mail lock, then unlock" in status
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
