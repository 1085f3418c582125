"""The vault: nothing runs and nothing is written without it, whatever ends it, and nothing is lost meanwhile."""

from __future__ import annotations

import fcntl
import imaplib
import os
import re
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailops.lab import replica
from tests.e2e.house import FAB, House, token, until, unverified
from tests.e2e.pace import pace
from tests.e2e.stream import assert_nothing_bounced, subjects

ADMIN, USER1 = "admin@example.test", "user1@example.test"
PORTS = (25, 465, 587, 993, 4190)
LOCKED = 5  # the exit code for a vault that stays locked, or a machine that another run holds
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL = 0x80086601, 0x40086602, 0x10  # linux/fs.h


@pytest.fixture
def locked(house: House) -> Iterator[House]:
    house.fab("lock")
    yield house
    house.fab("unlock")


def open_ports(house: House) -> list[int]:
    """Those of a mail server's ports that take a connection from outside."""
    found = []
    for port in PORTS:
        try:
            socket.create_connection((house.address("mail"), port), 5).close()
        except ConnectionRefusedError:
            continue
        found.append(port)
    return found


def mail_processes(house: House) -> set[str]:
    """The programs of the mail system, and of the vault, that run now."""
    programs = house.run("mail", "readlink /proc/[0-9]*/exe || true").split()
    return {path for path in programs if re.search("postfix|dovecot|rspamd|redis|gocryptfs|bindfs", path)}


def assert_ends(house: House) -> None:
    """No program of the mail system is left after a few seconds; or which are, and what they wait for."""
    shown = "systemctl list-jobs; ps -eo pid,ppid,stat,wchan:20,unit,etimes,args"
    deadline = time.monotonic() + 10 * pace()
    while left := mail_processes(house):
        assert time.monotonic() < deadline, f"{left} do not end:\n" + house.run("mail", shown)


def bare(house: House) -> Path:
    """The mountpoint as it is on the disk, whether or not something is mounted there in the machine."""
    return replica.root_path(house.lab, "mail") / "vault"


def assert_locked(house: House) -> None:
    """Locked, once the vault's unit has ended: it takes a dead mount away after every daemon is gone."""
    ended = "systemctl is-active mailops-vault || true"
    until(lambda: house.run("mail", ended).strip() in ("inactive", "failed"), 30, "the end of the vault's unit")
    assert open_ports(house) == []
    assert mail_processes(house) == set()
    assert house.run("mail", "find /vault -mindepth 1") == ""
    assert list(bare(house).iterdir()) == []
    status = house.fab_json("-H", "mail", "status")["mail"]
    assert (status["state"], status["vault"]["open"]) == ("locked", False)


def assert_up(house: House) -> None:
    """Right now, with no time to get ready: mail is taken, and read."""
    assert house.swaks("--to", USER1, "--quit-after", "RCPT").returncode == 0
    with house.submission() as client:
        client.login(USER1, house.password(USER1))
    assert house.can_log_in(USER1, house.password(USER1))
    assert house.state() == "up"


def kill_gocryptfs(house: House) -> None:
    house.run("mail", "kill -9 $(pidof gocryptfs)")


@contextmanager
def drop_in(house: House, unit: str, lines: str) -> Iterator[None]:
    """Change how a unit behaves, for now."""
    folder = f"/run/systemd/system/{unit}.d"
    house.run("mail", f"mkdir -p {folder}; cat >{folder}/test.conf; systemctl daemon-reload", stdin=lines)
    try:
        yield
    finally:
        house.run("mail", f"rm {folder}/test.conf; systemctl daemon-reload")


@contextmanager
def unlocking(house: House) -> Iterator[subprocess.Popen[str]]:
    """A `fab unlock` that is under way."""
    output = subprocess.PIPE
    with subprocess.Popen([*FAB, "unlock"], env=house.env(), text=True, stdout=output, stderr=output) as laptop:
        try:
            yield laptop
        finally:
            laptop.kill()


def agents(house: House) -> list[str]:
    """The process ids of the agent calls that run in the machine."""
    return house.run("mail", "grep -ls 'MAILOP[S]' /proc/[0-9]*/cmdline | cut -d/ -f3; true").split()


# A reboot


def test_a_reboot_shuts_down_in_order_and_comes_back_locked(up: House) -> None:
    subject = up.stranger_sends(USER1)
    up.arrives(USER1, subject)
    assert {path.rsplit("/", 1)[-1] for path in mail_processes(up)} >= {"master", "dovecot", "rspamd", "gocryptfs"}
    cursor = up.run("mail", "journalctl --quiet --lines=0 --show-cursor").strip().removeprefix("-- cursor: ")
    replica.reboot(up.lab, "mail")
    assert_locked(up)
    said = up.fab("status", "--quiet", check=False)
    assert (said.returncode, "the vault is locked" in said.stdout, "backup" in said.stdout) == (5, True, False)
    journal = up.run("mail", f"journalctl --output=cat --after-cursor='{cursor}'")
    assert not re.search("timed out|Failed unmounting", journal)
    postfix = re.search(r"^Stopped postfix\S*\.service", journal, re.MULTILINE)
    vault = re.search(r"^Stopped mailops-vault\.service", journal, re.MULTILINE)
    assert postfix
    assert vault
    assert postfix.end() < vault.start(), "mail stops first, the vault closes last"
    up.fab("unlock")
    assert_up(up)
    up.arrives(USER1, subject)


def test_not_even_root_can_write_below_the_bare_mountpoint(locked: House) -> None:
    done = replica.run(locked.lab, "mail", "touch /vault/mail; mkdir /vault/db; cp /etc/hostname /vault", None, False)
    assert done.returncode
    assert list(bare(locked).iterdir()) == []


def test_no_mail_daemon_can_be_started_while_locked(locked: House) -> None:
    for unit in ("postfix", "postfix@-", "dovecot", "dovecot.socket", "rspamd", "redis-server"):
        assert replica.run(locked.lab, "mail", ["systemctl", "start", unit], None, False).returncode, unit
        assert mail_processes(locked) == set(), unit
    assert open_ports(locked) == []


def test_mail_sent_while_locked_arrives_after_the_unlock_and_nothing_bounces(locked: House) -> None:
    mark = token()
    locked.stranger_sends(USER1, f"{mark}-stranger")
    locked.run("backup", "sendmail root", stdin=f"Subject: {mark}-backup\n\nThe backup is done.\n")
    for machine in ("outside", "backup"):  # they have knocked, and now they wait
        until(lambda m=machine: "refused" in locked.run(m, "mailq"), 30, f"{machine} to find the door closed")  # type: ignore[misc]
    locked.fab("unlock")
    locked.arrives(USER1, f"{mark}-stranger")
    locked.arrives(ADMIN, f"{mark}-backup", sender="backup")  # it would knock within a minute or two by itself
    assert_nothing_bounced(locked, mark)


# Unlock and lock


def test_unlock_returns_when_mail_is_really_taken_and_read(locked: House) -> None:
    slow = "[Service]\nExecStart=\nExecStart=/bin/sh -c 'sleep 3; exec /usr/bin/rspamd -c /etc/rspamd/rspamd.conf -f'\n"
    with drop_in(locked, "rspamd.service", slow):
        said = locked.fab("unlock").stdout
        assert_up(locked)
    assert "the mail system is up" in said


def test_lock_ends_all_mail_and_unlock_brings_it_back(up: House) -> None:
    before = up.stranger_sends(USER1)
    up.arrives(USER1, before)
    assert "locked" in up.fab("lock").stdout
    assert_locked(up)
    assert "already" in up.fab("lock").stdout
    queue = up.fab("-H", "mail", "queue", check=False)  # which lies in the vault
    assert (queue.returncode, queue.stdout) == (LOCKED, "")
    assert "the vault, with the queue, is locked\n  fab -H mail unlock\n" in queue.stderr
    up.fab("unlock")
    assert_up(up)
    assert "already" in up.fab("unlock").stdout
    up.arrives(USER1, before)
    up.arrives(USER1, up.stranger_sends(USER1))


def test_what_waits_on_the_mailhost_itself_goes_on_right_after_the_unlock(up: House) -> None:
    up.run("mail", "systemctl stop dovecot")
    subject = up.stranger_sends(USER1)
    until(
        lambda: "deferred" in up.run("mail", "mailq; postqueue -j | grep -o deferred || true"), 30, "a queued message"
    )
    up.fab("lock")
    up.fab("unlock")
    up.arrives(USER1, subject, seconds=20)  # by itself Postfix would leave it for five minutes


def test_a_wrong_passphrase_says_so_and_changes_nothing(locked: House, tmp_path: Path) -> None:
    wrong = tmp_path / "hosts.toml"
    wrong.write_text(re.sub("(?m)^cryptdir_pw = .*$", 'cryptdir_pw = { env = "WRONG" }', locked.hosts_toml.read_text()))
    began = time.monotonic()
    for _ in range(6):  # systemd would hold back a unit that fails five times
        done = locked.fab("unlock", site=wrong, env={"WRONG": "a-slip-of-the-fingers"}, check=False)
        assert done.returncode == LOCKED
        assert done.stderr.splitlines()[0] == "mailops: mail: wrong passphrase; the vault stays locked"
        assert "slip" not in done.stdout + done.stderr
    assert time.monotonic() - began < 60
    done = locked.fab("unlock", site=wrong, env={"WRONG": "wrong"}, check=False)  # a word of ours is not masked
    assert done.stderr.splitlines()[0] == "mailops: mail: wrong passphrase; the vault stays locked"
    assert_locked(locked)
    assert locked.run("mail", "systemctl --failed --no-legend; ls -I candidates /run/mailops") == "lock\n"
    locked.fab("unlock")
    assert_up(locked)


def test_a_vault_is_not_mounted_over_files(locked: House) -> None:
    stray = bare(locked) / "stray"
    set_immutable(bare(locked), False)
    stray.write_text("precious")
    done = locked.fab("unlock", check=False)
    assert done.returncode
    assert "/vault is not empty" in done.stderr
    assert mail_processes(locked) == set()
    assert stray.read_text() == "precious"
    stray.unlink()
    locked.fab("unlock")
    locked.fab("lock")
    assert locked.run("mail", "touch /vault/x 2>&1 || true").endswith("Operation not permitted\n")


def set_immutable(folder: Path, wanted: bool) -> None:
    """As chattr(1), which a bare Debian 13 does not have."""
    descriptor = os.open(folder, os.O_RDONLY)
    flags = struct.unpack("l", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, struct.pack("l", 0)))[0]
    flags = flags | FS_IMMUTABLE_FL if wanted else flags & ~FS_IMMUTABLE_FL
    fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("l", flags))
    os.close(descriptor)


def test_lock_closes_a_vault_that_somebody_stands_in(up: House) -> None:
    up.run("mail", "systemd-run --quiet --unit=guest --working-directory=/vault sleep 600")
    try:
        up.fab("lock")
        assert_locked(up)
    finally:
        up.run("mail", "systemctl stop guest")
    up.fab("unlock")
    assert_up(up)


def test_mail_waits_when_somebody_unmounts_the_vault_under_it(up: House) -> None:
    up.run("mail", "umount --lazy /vault")  # by hand, with no word to systemd; the daemons keep what they have open
    subject = up.stranger_sends(USER1)
    until(lambda: "451 4." in up.run("mail", "mailq") + up.run("outside", "mailq"), 30, "the message to be put off")
    assert up.state() == "locked"
    assert list(bare(up).iterdir()) == []
    up.fab("unlock")
    assert_up(up)
    up.arrives(USER1, subject, seconds=30)
    assert_nothing_bounced(up, subject)


# Several hands, and hands that let go


def test_of_two_unlocks_at_once_the_second_is_told_who_is_at_it(locked: House) -> None:
    with drop_in(locked, "dovecot.service", "[Service]\nExecStartPre=/bin/sleep 6\n"), unlocking(locked) as first:
        until(lambda: locked.run("mail", "systemctl is-active dovecot || true") == "activating\n", 20, "the first")
        second = locked.fab("unlock", check=False)
        assert second.returncode == LOCKED
        assert re.search(r"mail: \S+@\S+ \(from \S+\) is running unlock on this machine since [\d:]{8}", second.stderr)
        assert first.wait(60) == 0
    assert_up(locked)


def test_unlocks_at_the_same_instant_end_with_mail_up(locked: House) -> None:
    with unlocking(locked) as first, unlocking(locked) as second, unlocking(locked) as third:
        ends = [one.wait(60) for one in (first, second, third)]
    assert 0 in ends
    assert set(ends) <= {0, LOCKED}
    assert_up(locked)


def test_an_unlock_killed_while_it_mounts_is_no_obstacle_to_the_next(locked: House) -> None:
    with (
        drop_in(locked, "mailops-vault.service", "[Service]\nExecStartPre=/bin/sleep 50\n"),
        unlocking(locked) as laptop,
    ):
        until(
            lambda: locked.run("mail", "test -p /run/mailops/passphrase && echo y || true"), 20, "the passphrase's way"
        )
        locked.run("mail", f"kill -9 {' '.join(agents(locked))}")
        assert laptop.wait(30) not in (0, LOCKED)
    began = time.monotonic()
    locked.fab("unlock")
    assert time.monotonic() - began < 30
    assert_up(locked)
    assert locked.run("mail", "ls /run/mailops") == "lock\n"


def test_a_vault_that_waits_for_its_passphrase_keeps_nobody_else_waiting(locked: House) -> None:
    """What an unlock leaves that is killed in its first instant."""
    locked.run("mail", "mkfifo -m 600 /run/mailops/passphrase; systemctl start --no-block mailops-vault")
    until(
        lambda: "activating" in locked.run("mail", "systemctl is-active mailops-vault || true"), 10, "the vault's unit"
    )
    began = time.monotonic()
    assert locked.state() == "locked"
    locked.fab("unlock")
    assert time.monotonic() - began < 30
    assert_up(locked)


def test_an_unlock_whose_laptop_went_away_is_taken_up_by_the_next(locked: House) -> None:
    with (
        drop_in(locked, "dovecot.service", "[Service]\nExecStartPre=/bin/sleep 3\n"),
        unlocking(locked) as laptop,
    ):
        until(lambda: locked.run("mail", "mountpoint -q /vault && echo y || true"), 20, "the mount")
        laptop.send_signal(signal.SIGKILL)
        laptop.wait()
        until(lambda: not agents(locked), 30, "the abandoned call to end by itself")
    locked.fab("unlock")
    assert_up(locked)


# Under load


def test_a_burst_of_mail_is_delivered_at_once_and_belongs_to_its_owner(up: House) -> None:
    """Debian's gocryptfs, left to itself, mixes up who makes a file when several do so at the same time."""
    mark, many = token(), 200
    send = f'printf "Subject: {mark}-$i\n\nHello.\n" | sendmail -f stranger@elsewhere.test {USER1}'
    up.run("outside", f"for i in $(seq {many}); do {send}; done")
    until(lambda: len(subjects(up, USER1, mark)) == many, 45, "every message, none of them put off for minutes")
    assert up.run("mail", "find /vault/mail ! -user vmail") == ""
    up.run("mail", "systemctl restart redis-server", check=True)  # it writes its own files here, and reads them again
    assert up.state() == "up"


# The vault's process dies


def test_no_message_of_a_stream_is_lost_when_gocryptfs_is_killed(up: House) -> None:
    mark, words = token(), token()
    send = (
        f'printf "From: stranger@elsewhere.test\\nTo: {USER1}\\nSubject: {mark}-$i\\n\\n{words}\\n"'
        f" | sendmail -f stranger@elsewhere.test {USER1}"
    )
    enough = f"/tmp/{mark}"
    with ThreadPoolExecutor() as pool:
        flow = f"i=0; until [ -e {enough} ] || [ $i = 300 ]; do i=$((i + 1)); {send}; sleep 0.1; done; echo $i"
        stream = pool.submit(up.run, "outside", flow)
        until(lambda: len(subjects(up, USER1, mark)) >= 5, 60, "the first messages")
        kill_gocryptfs(up)
        assert_ends(up)
        assert_locked(up)
        assert not stream.done(), "the stream goes on while mail is down"
        up.run("outside", f"touch {enough}")
        many = int(stream.result())
    assert_locked(up)
    up.fab("unlock")
    expected = {f"{mark}-{number}" for number in range(1, many + 1)}
    until(lambda: set(subjects(up, USER1, mark)) == expected, 90, "every message")
    assert_nothing_bounced(up, mark)
    root = replica.root_path(up.lab, "mail")
    places = [root / name for name in ("etc", "home", "root", "tmp", "var", "vault")]
    found = subprocess.run(["grep", "-rlF", words, *places], capture_output=True, text=True, check=False).stdout
    assert found == "", "nothing of it stays outside the vault"
    assert up.run("mail", f"grep -rlF {words} /vault/mail | wc -l").strip() >= str(many), "where the search finds it"


def test_an_open_imap_session_ends_when_gocryptfs_is_killed(up: House) -> None:
    subject = up.stranger_sends(USER1)
    up.arrives(USER1, subject)
    client = imaplib.IMAP4_SSL(up.address("mail"), 993, ssl_context=unverified(), timeout=20)
    client.login(USER1, up.password(USER1))
    client.select()
    kill_gocryptfs(up)
    with pytest.raises((imaplib.IMAP4.abort, OSError)):
        until(lambda: client.noop()[0] != "OK", 10, "the end of the session")
    assert_ends(up)
    assert_locked(up)
    up.fab("unlock")
    up.arrives(USER1, subject)
