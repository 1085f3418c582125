"""A connection begun early: to where the same words led before, and to nowhere else."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailops import cache
from mailops.ssh import headstart
from mailops.ssh.headstart import Place

WORDS = ["fab", "-H", "mail", "bootstrap"]


def read_files(home: Path) -> list[str]:
    """Those that ssh_config was read from; one is included by the other."""
    return [str(home / ".ssh/config"), str(home / ".ssh/more")]


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)
        yield listening


@pytest.fixture
def place(server: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Where `WORDS` have led, from the site in tmp_path."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("MAILOPS_SITE", str(tmp_path / "hosts.toml"))
    monkeypatch.setattr(sys, "argv", WORDS)
    monkeypatch.setattr(headstart, "_begun", [])
    (tmp_path / "hosts.toml").write_text("")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text("")
    (tmp_path / ".ssh/more").write_text("")
    (tmp_path / "key").write_text("")
    found = Place(*server.getsockname(), "ssh-ed25519 AAAA", 5.0, str(tmp_path / "key"))
    headstart.remember(found, read_files(tmp_path))
    return found


def rings(server: socket.socket) -> bool:
    """Whether somebody has come in."""
    server.settimeout(0.2)
    try:
        server.accept()[0].close()
    except TimeoutError:
        return False
    return True


def test_the_same_words_lead_to_the_same_machine(place: Place, server: socket.socket) -> None:
    headstart.begin()
    with server.accept()[0] as client:
        assert client.recv(4) == b"SSH-"
        client.sendall(b"no SSH\n" * 200)  # which is the end of the handshake
        with pytest.raises(Exception, match="no SSH"):
            headstart.transport(place)
    assert not rings(server)  # it was that connection's result, and no second one was made


CHANGES: dict[str, Callable[[Path], object]] = {
    "hosts.toml says something else": lambda home: (home / "hosts.toml").write_text("# more"),
    "hosts.toml was replaced by one that looks the same": lambda home: os.replace(
        _twin(home / "hosts.toml"), home / "hosts.toml"
    ),
    "ssh_config says something else": lambda home: (home / ".ssh/config").write_text("Host mail"),
    "a file that it includes says something else": lambda home: (home / ".ssh/more").write_text("Host mail"),
    "ssh_config is gone": lambda home: (home / ".ssh/config").unlink(),
    "the site is gone": lambda home: (home / "hosts.toml").unlink(),
    "the key is gone": lambda home: (home / "key").unlink(),
    "the note is damaged": lambda home: [path.write_text("{") for path in _notes(home)],
    "the note is another program's": lambda home: [path.write_text('{"state": 1}') for path in _notes(home)],
    "somebody else can write notes": lambda home: (home / ".cache/mailops/begun").chmod(0o777),
    "other words": lambda home: sys.argv.append("--overwrite"),
}


def _twin(path: Path) -> Path:
    twin = path.with_suffix(".new")
    twin.write_bytes(path.read_bytes())
    return twin


def _notes(home: Path) -> list[Path]:
    found = list((home / ".cache/mailops/begun").iterdir())
    assert found
    return found


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_begun_after(change: str, place: Place, server: socket.socket, tmp_path: Path) -> None:
    sys.argv = list(WORDS)
    CHANGES[change](tmp_path)
    headstart.begin()
    assert not rings(server)
    assert not headstart._begun


def test_who_goes_elsewhere_gets_a_connection_of_his_own(place: Place, server: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(5)
        headstart.begin()
        headstart.transport(place._replace(port=other.getsockname()[1], timeout=0.2)).close()
        assert rings(other)


def test_nobody_there_is_told_when_it_is_asked_for(place: Place, server: socket.socket) -> None:
    server.close()
    headstart.begin()
    with pytest.raises(OSError, match="refused"):
        headstart.transport(place)


def test_a_note_is_written_once(place: Place, tmp_path: Path) -> None:
    (note,) = _notes(tmp_path)
    before = note.stat().st_ino
    headstart.remember(place, read_files(tmp_path))
    assert note.stat().st_ino == before
    headstart.remember(place._replace(port=1), read_files(tmp_path))
    assert note.stat().st_ino != before


def test_a_note_tells_nothing_of_the_words(place: Place, tmp_path: Path) -> None:
    (note,) = _notes(tmp_path)
    assert set(cache.recall("begun", note.stem) or {}) == {"state", "place", "files"}
    assert "bootstrap" not in note.name + note.read_text()
