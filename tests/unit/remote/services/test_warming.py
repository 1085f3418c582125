"""What a daemon computes ahead, while other packages are being installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailops.remote.services import daemons, rspamd, warming
from mailops.remote.system import shell

UNITS = [{"unit": "postfix.service"}, {"unit": "rspamd.service"}]


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What rspamadm was told, and the mode of what it made."""
    lists = tuple(str(tmp_path / name) for name in ("own", "other"))
    monkeypatch.setattr(rspamd, "TOP_LEVEL_DOMAINS", lists)
    monkeypatch.setattr(rspamd, "WARM", str(tmp_path / "warm.conf"))
    monkeypatch.setitem(shell.ENVIRONMENT, "PATH", f"{tmp_path}:/usr/bin:/bin")
    program = tmp_path / "rspamadm"
    program.write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/seen; cat "$3" >>{tmp_path}/seen; exit 1\n')
    program.chmod(0o755)
    return tmp_path / "seen"


def warm(package: str) -> None:
    work = warming.Warming(UNITS)
    work.begin(package)
    work.begin(package)
    work.end()


@pytest.mark.parametrize("there", [("own", "other"), ("own",), ("other",)])
def test_rspamd_compiles_the_list_that_it_is_going_to_read(seen: Path, there: tuple[str, ...]) -> None:
    for name in there:
        (seen.parent / name).touch()
    before = os.umask(0o077)
    try:
        warm("rspamd:amd64")
    finally:
        os.umask(before)
    command, conf = seen.read_text().splitlines()
    assert command == f"mime --config {rspamd.WARM} urls /dev/null"
    assert f'url_tld = "{seen.parent}/{there[0]}"; hs_cache_dir = "/var/lib/rspamd";' in conf
    assert seen.stat().st_mode & 0o777 == 0o644, "_rspamd reads what comes of it"
    assert not os.path.exists(rspamd.WARM)


def test_nothing_is_done_where_there_is_nothing_to_do(seen: Path) -> None:
    warm("rspamd")
    warm("postfix")
    assert not seen.exists()


def test_a_failure_is_none(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(daemons, "of", lambda unit: daemons.Daemon(warm=full))
    warm("rspamd")
    assert capfd.readouterr().err == ""
