"""Which swap a thief of the disk could read: a machine's own files, made in a folder."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from mailops.health import status
from mailops.remote.health import swap

HEAD = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
NUMBERS = {"/dev/sda2": 2, "/dev/dm-0": 10, "/dev/dm-1": 11, "/dev/dm-2": 12, "/swap": 2, "/crypt/swap file": 10}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """sda2 is a partition; dm-0 is dm-crypt, dm-1 a logical volume on it, dm-2 one on sda2."""
    for number, uuid, parts in ((2, "", None), (10, "CRYPT-LUKS2-x", [2]), (11, "LVM-x", [10]), (12, "LVM-y", [2])):
        device = tmp_path / f"dev/block/254:{number}"
        device.mkdir(parents=True)
        if parts is None:
            continue
        (device / "dm").mkdir()
        (device / "dm/uuid").write_text(f"{uuid}\n")
        (device / "slaves").mkdir()
        for part in parts:
            (device / f"slaves/{part}").symlink_to(tmp_path / f"dev/block/254:{part}")

    def stat(name: str) -> SimpleNamespace:
        if name not in NUMBERS:
            raise FileNotFoundError(name)
        device = os.makedev(254, NUMBERS[name])
        return SimpleNamespace(st_dev=device if "swap" in name else 0, st_rdev=0 if "swap" in name else device)

    monkeypatch.setattr(swap, "SYS", str(tmp_path))
    monkeypatch.setattr(swap, "SWAPS", str(tmp_path / "swaps"))
    monkeypatch.setattr(swap, "os", SimpleNamespace(**{**vars(os), "stat": stat}))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind", "clear"),
    [
        ("/dev/sda2", "partition", True),
        ("/dev/dm-0", "partition", False),
        ("/dev/dm-1", "partition", False),
        ("/dev/dm-2", "partition", True),
        ("/swap", "file", True),
        (r"/crypt/swap\040file", "file", False),
        (r"/gone\040(deleted)", "file", True),
        ("/dev/zram0", "partition", False),
    ],
)
def test_swap_in_clear(machine: Path, name: str, kind: str, clear: bool) -> None:
    (machine / "swaps").write_text(f"{HEAD}{name}    {kind}\t100\t0\t-2\n")
    assert swap.in_clear() == [name.replace(r"\040", " ")] * clear


def test_no_swap(machine: Path) -> None:
    assert swap.in_clear() == []
    (machine / "swaps").write_text(HEAD)
    assert swap.in_clear() == []


def test_status_says_it_beside_what_is_up() -> None:
    result = {"state": "up", "drift": [], "vault": None, "interrupted": False, "busy": ""}
    assert status._odd("mail", result) == []
    (line,) = status._odd("mail", result | {"swap": ["/dev/sda2"]})
    assert line.startswith("swap is in clear (/dev/sda2)")
    assert "swapoff -a" in line
