"""The installed package as a user has it: a wheel of this checkout in a virtual environment of its own."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def build(folder: Path) -> Path:
    """A wheel of the project; the build tools are those of the environment that runs the tests."""
    command = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(PROJECT)], check=True)
    return next(folder.glob("mailops-*.whl"))


def install(wheel: Path, folder: Path) -> Path:
    """The `mailops` command of the wheel. Its libraries are borrowed from the tests' environment; mailops is not."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True)
    # A path that comes from a .pth file has its own .pth files ignored, so the editable mailops stays away.
    (package,) = folder.glob("lib/python3*/site-packages/mailops")
    (package.parent / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "mailops"
