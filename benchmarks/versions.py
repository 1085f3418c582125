"""Which versions were measured, and on what."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata

from benchmarks.lab import PROJECT, House
from mailops.lab import replica


def of(house: House, rivals: Sequence[tuple[str, str]] = ()) -> dict[str, str]:
    """Name -> version, in the order in which they are told; `rivals` come as such pairs."""
    query = "dpkg-query --show --showformat '${Version}\\n' openssh-server; cat /etc/debian_version"
    server, debian = replica.run(house.lab.name, "mail", query).stdout.split()
    on_machine = {"OpenSSH on the machine": server, "Debian on the machine": debian}
    return {**dict(rivals), **of_laptop(), **on_machine}


def of_laptop() -> dict[str, str]:
    return {
        "mailops": _mailops(),
        "Fabric": metadata.version("fabric"),
        "paramiko": metadata.version("paramiko"),
        "Python": platform.python_version(),
        "OpenSSH": _openssh(),
        "Linux": platform.release(),
    }


def sentence(used: Mapping[str, str]) -> str:
    told = ", ".join(f"{name} {version}" for name, version in used.items())
    return f"Measured on {time.strftime('%Y-%m-%d')} on {os.cpu_count()} cores: {told}."


def _mailops() -> str:
    """The version, and the commit where there is git; a plus sign for what is not committed."""
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty=+"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        commit = ""
    return metadata.version("mailops") + (f" ({commit})" if commit else "")


def _openssh() -> str:
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr
    found = re.match(r"OpenSSH_(\S+)", said)
    return found.group(1) if found else said.strip()
