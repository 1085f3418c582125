"""The git commit of a site: quick, silent, and never in the way."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from mailops.site import revision


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.test", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A hosts.toml in a folder of a repository, committed."""
    folder = tmp_path / "repository" / "site"
    folder.mkdir(parents=True)
    (folder / "hosts.toml").write_text("domain = 1\n")
    (folder / "notes").write_text("one\n")
    git(folder.parent, "init", "--quiet")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "--quiet", "-m", "one")
    return folder / "hosts.toml"


def head(site: Path) -> str:
    return git(site.parent, "rev-parse", "--short", "HEAD")


def test_a_clean_site_is_its_commit(site: Path) -> None:
    assert revision.of(site) == head(site)


@pytest.mark.parametrize("name", ["hosts.toml", "notes"])
def test_an_uncommitted_change_in_the_folder_is_a_plus(site: Path, name: str) -> None:
    with (site.parent / name).open("a") as file:
        file.write("# more\n")
    assert revision.of(site) == head(site) + "+"
    git(site.parent, "add", name)  # staged is not committed
    assert revision.of(site) == head(site) + "+"


def test_what_lies_outside_the_folder_or_is_untracked_does_not_count(site: Path) -> None:
    (site.parent / "scratch").write_text("")
    outside = site.parents[1] / "other"
    outside.write_text("one\n")
    git(outside.parent, "add", "other")
    assert revision.of(site) == head(site)


def test_a_site_that_is_not_tracked_is_a_plus(site: Path) -> None:
    other = site.parent / "other.toml"
    other.write_text("")
    assert revision.of(other) == head(site) + "+"
    (site.parent / ".gitignore").write_text("other.toml\n")
    assert revision.of(other) == head(site) + "+"


def test_no_repository_is_nothing(tmp_path: Path) -> None:
    assert revision.of(tmp_path / "hosts.toml") == ""
    (tmp_path / ".git").mkdir()  # an empty folder of that name is none either
    assert revision.of(tmp_path / "hosts.toml") == ""


def test_no_commit_is_nothing(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert revision.of(tmp_path / "hosts.toml") == ""


def test_no_git_is_nothing(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert revision.of(site) == ""


def test_a_git_that_hangs_costs_two_seconds_at_most(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin" / "git"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    started = time.monotonic()
    assert revision.of(site) == ""
    assert time.monotonic() - started < 2.5


def test_a_hook_of_another_repository_does_not_lead_astray(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "--quiet", "other")
    git(tmp_path / "other", "commit", "--quiet", "--allow-empty", "-m", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    found = revision.of(site)
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_WORK_TREE")
    assert found == head(site)


def test_a_link_to_a_tracked_file_is_the_commit_of_that_file(site: Path, tmp_path: Path) -> None:
    link = tmp_path / "hosts.toml"
    link.symlink_to(site)
    assert revision.of(link) == head(site)
