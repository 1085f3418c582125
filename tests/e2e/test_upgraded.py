"""A machine whose Debian was upgraded in place: its daemons are other ones now, and the old files are not for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import House

RELEASE_FILE = "/usr/lib/os-release"


@pytest.fixture
def upgraded(up: House, site: Callable[[Callable[[Any], None]], Path]) -> Iterator[House]:
    """Locked, with an earlier generation, and with a system that says it is the other release."""
    other = site(lambda document: document.update({"override": {"message_size_limit": 31_000_001}}))
    up.fab("-H", "mail", "push", site=other)
    up.fab("-H", "mail", "push")
    up.fab("lock")
    up.run("mail", f"cp -p {RELEASE_FILE} {RELEASE_FILE}.kept")
    try:
        up.run("mail", f"sed -i 's/^VERSION_ID=.*/VERSION_ID=\"{25 - up.release}\"/' {RELEASE_FILE}")
        yield up
    finally:
        up.run("mail", f"mv {RELEASE_FILE}.kept {RELEASE_FILE}")
        up.fab("unlock")


def test_nothing_starts_with_the_files_of_another_release_and_none_of_them_come_back(upgraded: House) -> None:
    now, then = 25 - upgraded.release, upgraded.release
    for task in ("unlock", "rollback"):
        done = upgraded.fab("-H", "mail", task, check=False)
        assert done.returncode == 1
        assert f"this machine runs Debian {now}, and the configuration is for Debian {then}" in done.stderr
    console = upgraded.run("mail", "mailboot 2>&1; true", stdin=f"{upgraded.secret('cryptdir_pw')}\n")
    assert f"is for Debian {then}" in console
    assert not upgraded.run("mail", "pgrep -x master; pgrep -x dovecot; mountpoint /vault >&2; true").strip()
    status = upgraded.fab("-H", "mail", "status", check=False).stdout
    assert "next: fab -H mail bootstrap" in status
    assert "next: fab -H mail unlock" not in status
