"""What a user would pick instead, with an equivalent role (benchmarks/ansible, benchmarks/pyinfra) on the same machine.

Each has a virtual environment of its own in .bench, with the versions of its requirements file.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.lab import BENCH, House, environment, say
from benchmarks.rounds import Contender
from mailops.lab.host import delete, last_words
from mailops.lab.layout import LabError

HERE = Path(__file__).parent
EVERY = 5  # their runs take long: a turn in every fifth round
LEAST_TASKS, LEAST_OPERATIONS = 15, 50  # a role that did less than that has not asked everything


class Rival:
    """One of them; `name` and `version` are those of its Python package."""

    def __init__(self, tool: str, package: str) -> None:
        self.venv = _venv(tool)
        self.name = package
        self.version = _version(self.venv, package)
        self.folder = HERE / tool


def _venv(tool: str) -> Path:
    """The folder of the virtual environment, made for each requirements file once."""
    requirements = HERE / f"requirements-{tool}.txt"
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    venv = BENCH / f"{tool}-{key}"
    if not (venv / "installed").exists():
        say(f"installing {tool} into .bench")
        delete(venv)
        _run(sys.executable, "-m", "venv", str(venv))
        _run(str(venv / "bin/pip"), "install", "-q", "--disable-pip-version-check", "-r", str(requirements))
        (venv / "installed").touch()
    return venv


def _run(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"`{' '.join(command)}` failed: {last_words(done.stderr or done.stdout)}")
    return done.stdout


def _version(venv: Path, package: str) -> str:
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    return _run(str(venv / "bin/python"), "-c", ask).strip()


class Ansible(Rival):
    """ansible-core with pipelining, and a shared connection that is made anew for each run."""

    def __init__(self) -> None:
        super().__init__("ansible", "ansible-core")
        self.sockets = Path("/run/mailops-bench")  # short: a socket's path has an end

    def contender(self, house: House, desired: Path) -> Contender:
        """`desired` is the folder that desired.write_down has made."""
        inventory = desired / "inventory.json"
        inventory.write_text(json.dumps({"all": {"hosts": {"mail": _ansible_login(house)}}}))
        program = self.venv / "bin/ansible-playbook"
        playbook, values = self.folder / "site.yml", f"@{desired / 'desired.json'}"
        return Contender(
            "ansible_noop",
            lambda: [program, "-i", inventory, "-e", values, playbook],
            lambda: environment(house.sites[0]) | self._environment(),
            nothing_changed_by_ansible,
            ready=self._cold,
            after=self._hang_up,
            every=EVERY,
        )

    def _environment(self) -> dict[str, str]:
        return {
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.sockets),
            "ANSIBLE_NOCOLOR": "1",
        }

    def _cold(self) -> None:
        self._hang_up()
        self.sockets.mkdir()

    def _hang_up(self) -> None:
        """End the connections that ssh keeps open for the next run (ControlPersist in ssh_config(5))."""
        if self.sockets.is_dir():
            for socket in self.sockets.iterdir():
                close = ["ssh", "-F", "none", "-o", f"ControlPath={socket}", "-O", "exit", "mail"]
                subprocess.run(close, capture_output=True, check=False)
            shutil.rmtree(self.sockets)


def _ansible_login(house: House) -> dict[str, str]:
    host = house.host
    known = f"-o UserKnownHostsFile={house.known_hosts} -o IdentitiesOnly=yes -F none"
    return {
        "ansible_host": str(host["address"]),
        "ansible_user": str(host["user"]),
        "ansible_ssh_private_key_file": str(host["identity"]),
        "ansible_ssh_common_args": known,
    }


def nothing_changed_by_ansible(said: str) -> None:
    """The recap: `mail : ok=24 changed=0 unreachable=0 failed=0 skipped=…`."""
    recap = re.search(r"^mail\s+: ok=(\d+) +changed=(\d+) +unreachable=0 +failed=0", said, re.MULTILINE)
    if not recap or int(recap[1]) < LEAST_TASKS or recap[2] != "0":
        told = re.findall(r"^changed: .*|^mail\s+: .*", said, re.MULTILINE)
        raise LabError(f"Ansible was to change nothing, and it said: {' / '.join(told) or last_words(said)}")


class Pyinfra(Rival):
    def __init__(self) -> None:
        super().__init__("pyinfra", "pyinfra")

    def contender(self, house: House, desired: Path) -> Contender:
        """`desired` is the folder that desired.write_down has made."""
        values = str(desired / "desired.json")
        program = self.venv / "bin/pyinfra"
        return Contender(
            "pyinfra_noop",
            lambda: [program, "-y", "inventory.py", "deploy.py"],
            lambda: environment(house.sites[0]) | {"BENCH_DESIRED": values},
            nothing_changed_by_pyinfra,
            every=EVERY,
            folder=self.folder,
        )


def nothing_changed_by_pyinfra(said: str) -> None:
    """The last line of its table: operations, those that changed something, those that failed, those that did not."""
    total = re.search(r"^ +Grand total +(\d+) +- +- +(\d+) *$", said, re.MULTILINE)
    if not total or total[1] != total[2] or int(total[1]) < LEAST_OPERATIONS:
        raise LabError(f"pyinfra was to change nothing, and it said: {last_words(said, 6)}")
