"""What a thief of the disk reads: nothing of the mail that passed, in no free block, though it was all there once.

The folders of a mail server's machine that are written to are put on a disk of their own, a file of this computer.
The search is shown to find what it looks for: a file that was deleted long ago.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.house import House, token, until
from tests.e2e.test_secrets_stay_secret import forms, known

ADMIN, USER1 = "admin@example.test", "user1@example.test"
WRITTEN = "/var/spool /var/tmp /tmp /var/lib/rspamd /var/lib/redis /var/lib/postfix /var/lib/dovecot /var/lib/mailops"
DISK, NODE = "/run/raw-disk", "/dev/raw-disk"


@pytest.fixture
def disk(house: House, tmp_path: Path) -> Iterator[Path]:
    """A raw disk below what the machine writes to; the machine as it was afterwards."""
    image = tmp_path / "disk"
    with image.open("wb") as file:
        os.truncate(file.fileno(), 1 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-E", "nodiscard", image], check=True)
    loop = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True).stdout.strip()
    minor = os.minor(os.stat(loop).st_rdev)
    house.fab("lock")
    lay = f'mkdir -p "{DISK}$there"; cp -a "$there/." "{DISK}$there"; mount --bind "{DISK}$there" "$there"'
    try:
        house.run("mail", f"set -e; mkdir {DISK}; mknod {NODE} b 7 {minor}; mount {NODE} {DISK}; rm {NODE}")
        house.run("mail", f"set -e; for there in {WRITTEN}; do {lay}; done")
        yield image
    finally:
        house.fab("lock", check=False)
        house.run("mail", f"sync; for there in {WRITTEN} {DISK}; do umount $there; done; rmdir {DISK}", check=False)
        subprocess.run(["losetup", "-d", loop], check=True)
        house.fab("unlock")


def found(image: Path, words: list[str]) -> list[str]:
    """Those of the words that stand anywhere on the disk."""
    patterns = "\n".join(words)
    said = subprocess.run(
        ["grep", "-aoF", "-f", "-", image], input=patterns, capture_output=True, text=True, check=False
    )
    return sorted(set(said.stdout.split("\n")) - {""})


def test_no_message_and_no_secret_is_on_the_raw_disk_of_a_locked_machine(house: House, disk: Path) -> None:
    marks = {name: token() for name in ("deleted", "stranger", "large", "submitted", "program", "queued")}
    house.fab("unlock")
    subjects = {name: token() for name in marks}
    house.stranger_sends(USER1, subjects["stranger"], marks["stranger"])
    house.stranger_sends(USER1, subjects["large"], f"{marks['large']}\n" * 20_000)
    letter = f"Subject: {subjects['program']}\n\n{marks['program']}\n"
    house.run("mail", "su -s /bin/sh nobody -c 'sendmail root'", stdin=letter)
    with house.submission() as client:
        client.login(USER1, house.password(USER1))
        text = f"From: {USER1}\nTo: {ADMIN}\nSubject: {subjects['submitted']}\n\n{marks['submitted']}\n"
        client.sendmail(USER1, [ADMIN], text)
    for name, who in (("stranger", USER1), ("large", USER1), ("program", ADMIN), ("submitted", ADMIN)):
        house.arrives(who, subjects[name])
    house.run("mail", "systemctl stop dovecot")  # what waits in the queue when the machine is taken away
    house.stranger_sends(USER1, subjects["queued"], marks["queued"])
    until(lambda: "queue is empty" not in house.run("mail", "mailq"), 30, "a message that waits")
    house.run("mail", f"yes {marks['deleted']} | head -c 1M >/var/spool/x; sync; rm /var/spool/x")
    house.fab("lock")
    house.run("mail", "sync")
    secrets = [form for secret in known(house).values() for form in forms(secret)]
    assert found(disk, [*marks.values(), *secrets]) == [marks["deleted"]]


def test_a_program_of_the_locked_machine_may_send_and_it_arrives_after_the_unlock(house: House) -> None:
    house.fab("lock")
    subject = token()
    house.run("mail", "su -s /bin/sh nobody -c 'sendmail root'", stdin=f"Subject: {subject}\n\nFrom cron.\n")
    house.fab("unlock")
    received = house.arrives(ADMIN, subject)
    assert any("userid" in line for line in received.get_all("Received")), "Postfix still knows who sent it"


def test_status_tells_of_swap_that_a_thief_can_read(house: House) -> None:
    areas = "Filename Type Size Used Priority\\n/dev/zram0 partition 9 0 5\\n/var/swapfile file 100 0 -2\\n"
    house.run("mail", f"printf '{areas}' >/run/swaps; mount --bind /run/swaps /proc/swaps")
    try:
        said = house.fab("-H", "mail", "status").stdout
    finally:
        house.run("mail", "umount /proc/swaps")
    assert "swap is in clear (/var/swapfile)" in said
    assert "swapoff -a" in said
