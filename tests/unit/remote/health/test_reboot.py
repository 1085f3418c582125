"""Whether a machine has to start again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailops.remote.health import reboot


@pytest.mark.parametrize(
    ("link", "asked", "told"),
    [
        ("boot/vmlinuz-{0}", False, ""),
        ("boot/vmlinuz-99.1-amd64", False, "the kernel 99.1-amd64 is installed"),
        ("", False, ""),
        ("boot/vmlinuz-{0}", True, "asks for a reboot"),
    ],
)
def test_a_newer_kernel_or_an_update_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str, asked: bool, told: str
) -> None:
    monkeypatch.setattr(reboot, "NEXT", str(tmp_path / "vmlinuz"))
    monkeypatch.setattr(reboot, "ASKED", str(tmp_path / "required"))
    monkeypatch.setattr(reboot, "BOOT", str(tmp_path))
    (tmp_path / f"vmlinuz-{os.uname().release}").touch()
    if link:
        (tmp_path / "vmlinuz").symlink_to(link.format(os.uname().release))
    if asked:
        (tmp_path / "required").touch()
    assert told in "".join(reboot.needed())
    assert bool(reboot.needed()) == bool(told)


def test_a_container_that_has_no_kernel_of_its_own_asks_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reboot, "NEXT", str(tmp_path / "vmlinuz"))
    monkeypatch.setattr(reboot, "ASKED", str(tmp_path / "required"))
    monkeypatch.setattr(reboot, "BOOT", str(tmp_path))
    (tmp_path / "vmlinuz").symlink_to("boot/vmlinuz-99.1-amd64")
    assert reboot.needed() == []
