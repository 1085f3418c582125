"""What is kept for the next command: of use when it is there and sound, and harmless when it is not."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mailops import cache
from mailops.services import render
from tests.unit.ssh.hostile import PEM

FACTS = {"release": 13, "mailhost_certificate": PEM}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "mailops"


def site(path: str = "hosts.toml") -> Any:
    return SimpleNamespace(path=Path(path))


def host(name: str = "mail") -> Any:
    return SimpleNamespace(name=name)


def test_facts_are_kept_for_each_machine_of_each_site(place: Path) -> None:
    assert cache.facts(site(), host()) is None
    cache.remember_facts(site(), host(), FACTS)
    assert cache.facts(site(), host()) == FACTS
    assert cache.facts(site(), host("backup")) is None
    assert cache.facts(site("other/hosts.toml"), host()) is None
    cache.remember_facts(site(), host(), FACTS | {"release": 12})
    assert cache.facts(site(), host()) == FACTS | {"release": 12}
    assert len(list((place / "facts").iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_damaged_facts_are_as_good_as_none(place: Path, content: bytes) -> None:
    cache.remember_facts(site(), host(), FACTS)
    (file,) = (place / "facts").iterdir()
    file.write_bytes(content)
    assert cache.facts(site(), host()) is None


def test_the_cache_is_for_its_owner_alone(place: Path) -> None:
    os.umask(os.umask(0))
    folder = cache.folder("templates")
    assert folder
    assert {stat.S_IMODE(path.stat().st_mode) for path in (place, folder)} <= {0o700, 0o755}


@pytest.mark.parametrize("which", ["mailops", "mailops/templates"])
def test_a_folder_that_others_can_write_to_is_not_trusted(place: Path, which: str) -> None:
    assert cache.folder("templates")
    (place.parent / which).chmod(0o777)
    assert cache.folder("templates") is None


def test_nor_is_a_link_or_a_file(place: Path, tmp_path: Path) -> None:
    place.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (place / "templates").symlink_to(tmp_path / "elsewhere")
    (place / "facts").touch()
    assert cache.folder("templates") is None
    assert cache.folder("facts") is None
    cache.remember_facts(site(), host(), FACTS)  # says nothing
    assert cache.facts(site(), host()) is None


def test_no_home_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: Path("/proc/nowhere"))
    assert cache.folder("facts") is None


# Compiled templates


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "sources"
    (folder / "role" / "etc").mkdir(parents=True)
    (folder / "role" / "etc" / "one.j2").write_text("{{ word }}\n")
    monkeypatch.setattr(render, "TEMPLATES", folder)
    return folder


def rendered(word: str = "a") -> bytes:
    render._environment.cache_clear()  # another command
    return render.tree(("role",), {"word": word})["/etc/one"]


def test_a_changed_template_is_compiled_anew(place: Path, templates: Path) -> None:
    assert rendered() == b"a\n"
    assert len(list((place / "templates").iterdir())) == 1
    (templates / "role" / "etc" / "one.j2").write_text("{{ word }}!\n")
    assert rendered() == b"a!\n"


@pytest.mark.parametrize("content", [b"", b"nonsense"])
@pytest.mark.parametrize("keep", [0, 16, 40])
def test_a_damaged_cache_of_templates_does_no_harm(place: Path, templates: Path, content: bytes, keep: int) -> None:
    rendered()
    (file,) = (place / "templates").iterdir()
    file.write_bytes(file.read_bytes()[:keep] + content)
    assert rendered("b") == b"b\n"


def test_templates_are_rendered_where_nothing_can_be_kept(place: Path, templates: Path) -> None:
    place.mkdir()
    (place / "templates").touch()
    assert rendered() == b"a\n"
