"""One failure is one failure: a house in which a test failed is put back for the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailops.errors import MailopsError
from mailops.lab import replica
from tests.e2e.house import House
from tests.e2e.steps import Laptop, Stepped
from tests.e2e.test_bootstrap import snapshot
from tests.e2e.test_interrupted import limited

KNOWN_BY = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub; hostname -I; hostname -f"


def identity(lab: str) -> list[str]:
    """What machines are known by: their machine ids, host keys, addresses, names."""
    machines = ("mail", "backup", "web", "outside")
    return [line for name in machines for line in replica.run(lab, name, KNOWN_BY).stdout.splitlines()]


def test_a_house_is_put_back_whatever_a_failed_test_has_left(up: House) -> None:
    """A stopped agent that holds the machine, a stopped daemon, a file that is gone, a record in the DNS."""
    if not replica.is_kept(up.lab):
        pytest.skip("this lab was made before there were snapshots")
    before = identity(up.lab)
    machine = Stepped(up, "mail").__enter__()
    machine.watch()
    with Laptop(up, "mail") as laptop:
        laptop.converge("push", lambda manifest: limited(manifest, b"31000001"))
        step = next(step for step in machine.steps() if "main.cf.mailops-new" in step.shown)
        machine.stop_at(step)
        runner = threading.Thread(target=_attempt, args=(laptop,), daemon=True)
        runner.start()
        machine.stopped()
        up.run("mail", "pkill -STOP -x dovecot; rm /etc/postfix/master.cf")
        replica.publish(up.lab, [("left.elsewhere.test", "A", "192.0.2.1")])
        up.restore()
        runner.join(60)
    assert identity(up.lab) == before
    assert up.state() == "up"
    assert up.run("mail", "ls /var/lib/mailops/journal.json /usr/local/bin/python3 2>/dev/null; true") == ""
    assert up.run("outside", "dig +short left.elsewhere.test @127.0.0.1") == ""
    assert {name: found["changes"] for name, found in up.fab_json("plan").items()} == {
        "mail": {},
        "backup": {},
        "web": {},
    }
    up.arrives("user1@example.test", up.stranger_sends("user1@example.test"))
    assert snapshot(up, "mail").count("31000001") == 0


def test_a_machine_of_another_release_is_not_deleted_unasked(
    up: House, site: Callable[[Callable[[Any], None]], Path]
) -> None:
    def change(document: Any) -> None:
        document["hosts"]["web"]["debian"] = up.release

    since = up.run("web", "cat /proc/sys/kernel/random/boot_id; stat -c %W /etc/machine-id")
    done = up.fab("lab.up", check=False, site=site(change))
    assert (done.returncode, "mail on it would be deleted" in done.stderr) == (2, True)
    assert up.run("web", "cat /proc/sys/kernel/random/boot_id; stat -c %W /etc/machine-id") == since


def _attempt(laptop: Laptop) -> None:
    with pytest.raises(MailopsError):
        laptop.converge("push", lambda manifest: limited(manifest, b"31000002"))


def test_a_lab_made_from_another_is_one_of_its_own(up: House) -> None:
    other = f"{up.lab}-copy"
    site = replica.copy(up.lab, other, print)
    try:
        old, new = identity(up.lab), identity(other)
        names = [line for line in old if line.endswith(".test") and " " not in line]
        assert [line for line in new if line in old] == names
        assert up.run("mail", "find /usr/lib/mailops -type f -links +1") == "", "its files are not also the other's"
        assert replica.run(other, "mail", "ls -A /vault; doveadm user '*' 2>/dev/null; true").stdout == "", "locked"
        before = up.run("mail", "ls /var/lib/mailops/generations")
        up.fab("unlock", site=site)
        up.fab("bootstrap", site=site)
        assert up.run("mail", "ls /var/lib/mailops/generations") == before
        assert up.state() == "up"
    finally:
        replica.down(other)
