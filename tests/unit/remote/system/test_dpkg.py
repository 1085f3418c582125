"""What dpkg's own files say of the packages, after a dpkg that was cut, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mailops.remote.shared.errors import AgentError
from mailops.remote.system import dpkg, packages

STATES = {
    "there": "install ok installed",
    "held": "hold ok installed",
    "removed": "deinstall ok config-files",
    "half": "install ok half-configured",
}
HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def entry(name: str, state: str) -> str:
    return f"Package: {name}\nStatus: {state}\nVersion: 1\n"


@pytest.fixture(autouse=True)
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "updates").mkdir()
    (tmp_path / "status").write_text("\n".join(entry(name, state) for name, state in STATES.items()))
    (tmp_path / "lock").touch()
    monkeypatch.setattr(dpkg, "STATUS", str(tmp_path / "status"))
    monkeypatch.setattr(dpkg, "UPDATES", str(tmp_path / "updates"))
    monkeypatch.setattr(dpkg, "LOCKS", (str(tmp_path / "lock"), str(tmp_path / "none")))
    return tmp_path


def test_a_held_package_is_installed_and_a_removed_one_is_not() -> None:
    assert dpkg.missing([*STATES, "unheard-of"]) == ["removed", "half", "unheard-of"]
    assert dpkg.held([*STATES, "unheard-of"]) == ["held"]
    assert dpkg.broken() == ["half is half-configured"]


def test_what_a_cut_dpkg_noted_holds_before_its_status(var: Path) -> None:
    (var / "updates" / "0000").write_text(entry("there", "install ok unpacked"))
    (var / "updates" / "0001").write_text(entry("there", "install ok half-configured"))
    (var / "updates" / "0002").write_text(entry("half", "install ok installed"))
    (var / "updates" / "tmp.i").write_text(entry("held", "install ok unpacked"))  # not finished: it never happened
    assert dpkg.missing(["there", "half", "held"]) == ["there"]
    assert dpkg.broken() == ["there is half-configured"]
    assert dpkg.version("half") == "1"


def test_a_dpkg_that_was_cut_after_its_last_package_is_told(var: Path) -> None:
    (var / "updates" / "0000").write_text(entry("half", "install ok installed"))
    assert dpkg.broken() == ["dpkg was interrupted"]


def test_a_package_that_was_cut_among_its_files_comes_anew(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (var / "status").write_text(
        entry("there", "install reinstreq half-configured") + "\n" + entry("new", STATES["there"])
    )
    assert dpkg.broken() == ["there is half-configured and must be reinstalled"]
    did: list[tuple[object, ...]] = []
    refused = subprocess.CompletedProcess((), 1, "", "package is in a very bad inconsistent state")
    monkeypatch.setattr(packages, "run", lambda *command, **_: did.append(command) or refused)
    monkeypatch.setattr(packages, "_install", lambda names, _, __, *options: did.append((*options, *names)))
    packages._finish_others(None)
    assert did == [("dpkg", "--configure", "-a", "--force-confold"), ("--reinstall", "there")]
    (var / "status").write_text(entry("there", "install ok half-configured"))
    with pytest.raises(AgentError, match="very bad"):
        packages._finish_others(None)


def test_what_an_apt_is_at_is_not_called_broken(var: Path) -> None:
    command = [sys.executable, "-c", HOLDER, var / "lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert dpkg.broken() == []
        holder.communicate("")
    assert dpkg.broken() == ["half is half-configured"]


@pytest.mark.parametrize(
    ("said", "tries"),
    [
        ("E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)", 3),
        ("dpkg: error: dpkg frontend lock was locked by another process with pid 7", 3),
        ('debconf: DbDriver "config": /var/cache/debconf/config.dat is locked by another process', 3),
        ("E: Could not open lock file /var/lib/apt/lists/lock - open (30: Read-only file system)", 1),
        ("E: write: No space left on device; the block device is full", 1),
    ],
)
def test_only_a_lock_that_somebody_has_is_waited_for(said: str, tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [100, 100, 0] if tries == 3 else [100]
    run = lambda *command, **_: subprocess.CompletedProcess(command, codes.pop(0), "", said)  # noqa: E731
    monkeypatch.setattr(packages, "run", run)
    monkeypatch.setattr(packages.time, "sleep", lambda _: None)
    if tries == 3:
        packages._patiently("apt-get", "update")
    else:
        with pytest.raises(AgentError, match="apt-get update failed"):
            packages._patiently("apt-get", "update")
    assert codes == []


def test_one_line_that_apt_cannot_read_is_no_source_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes all sources with it."""
    wrong = "Malformed entry 1 in list file /etc/apt/sources.list.d/zz.list (Suite)"
    said = f"E: {wrong}\nE: The list of sources could not be read.\n"
    monkeypatch.setattr(packages, "run", lambda *command, **_: subprocess.CompletedProcess(command, 100, "", said))
    with pytest.raises(AgentError, match=r"apt cannot read its list of sources: Malformed entry 1 in .*zz\.list"):
        packages.update(SimpleNamespace(progress=lambda *_: None))
