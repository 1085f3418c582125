"""Who we talk to and how we get in: pinned keys, jumps, identities, sudo. sshd's own log is the judge."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from tests.e2e.house import House, token, until
from tests.e2e.terminal import typed

Edit = Callable[[Any], None]
TASKS = [
    ["-H", "mail", "bootstrap"],
    ["-H", "mail", "plan"],
    ["-H", "mail", "push"],
    ["-H", "mail", "status"],
    ["unlock"],
    ["lock"],
    ["user.ls"],
    ["mailcfg", "lsdom"],
    ["dkim.ls"],
    ["tunnel", "--no-browser"],
]


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """A person with an empty home: no ssh_config, no keys, no agent."""
    (tmp_path / "home" / ".ssh").mkdir(mode=0o700, parents=True)
    return {"HOME": str(tmp_path / "home"), "SSH_AUTH_SOCK": ""}


def new_key(folder: Path) -> tuple[str, str]:
    """An ed25519 public key that no machine has, as it is pinned, and its fingerprint."""
    path = folder / "wrong"
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2]), fingerprint_of(path.with_suffix(".pub"))


def fingerprint_of(path: Path) -> str:
    said = subprocess.run(["ssh-keygen", "-lf", path], check=True, capture_output=True, text=True).stdout
    return said.split()[1]


def real_fingerprint(house: House, name: str) -> str:
    return house.run(name, "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1]


def _holding(mark: str, text: str) -> str:
    return text if mark in text else ""


class SshdLog:
    """What the sshd of a machine writes into its journal from now on, found between marks of our own.

    (Not by --after-cursor: with a filter, Debian 12's journalctl leaves out the first line after the cursor.)
    """

    def __init__(self, house: House, name: str) -> None:
        self.house, self.name = house, name
        self.start = self._mark()

    def _mark(self) -> str:
        mark = token()
        self.house.run(self.name, f"logger -t sshd {mark}")
        return mark

    def lines(self) -> list[str]:
        """The lines so far; once the journal has our mark, it has what came before it, too."""
        end = self._mark()
        read = "journalctl --sync; journalctl -o cat -t sshd -t sshd-session --since=-5min"
        text = until(lambda: _holding(end, self.house.run(self.name, read)), 10, "the journal")
        return text.partition(self.start)[2].partition(end)[0].splitlines()

    def logins(self) -> list[str]:
        """Every line of somebody who got as far as to prove who they are."""
        return [line for line in self.lines() if line.startswith(("Accepted", "Failed", "Invalid user"))]


# Pinned keys


def test_a_changed_host_key_stops_every_task_before_anything_is_sent(
    house: House, site: Callable[[Edit], Path], tmp_path: Path
) -> None:
    pin, pinned = new_key(tmp_path)
    copy = site(lambda doc: doc["hosts"]["mail"].__setitem__("host_key", pin))
    found = real_fingerprint(house, "mail")
    before = copy.read_bytes()
    log = SshdLog(house, "mail")
    for task in TASKS:
        done = house.fab(*task, check=False, site=copy)
        assert done.returncode == 4, task
        assert done.stdout == "", task
        assert "mail: the host key has changed, so nothing was sent" in done.stderr
        assert pinned in done.stderr
        assert found in done.stderr
        assert "fab trust mail" in done.stderr
    until(lambda: sum("[preauth]" in line for line in log.lines()) >= len(TASKS), 10, "sshd to see them all leave")
    assert log.logins() == []
    assert copy.read_bytes() == before
    house.fab("-H", "mail", "status")
    assert len(log.logins()) == 1, "the judge must see a real login"


def test_a_machine_without_a_pin_is_not_talked_to(house: House, site: Callable[[Edit], Path]) -> None:
    copy = site(lambda doc: doc["hosts"]["mail"].pop("host_key"))
    log = SshdLog(house, "mail")
    done = house.fab("-H", "mail", "status", check=False, site=copy)
    assert done.returncode == 4
    assert done.stderr == (
        "mailops: mail: its host key is not pinned, so nothing was sent\n"
        "  look at its fingerprint and pin it: fab trust mail\n"
    )
    assert log.logins() == []


def test_a_new_key_on_the_machine_itself_is_noticed_and_can_be_trusted(
    house: House, site: Callable[[Edit], Path]
) -> None:
    copy = site(lambda doc: None)
    keys = "/etc/ssh/ssh_host_ed25519_key"
    regenerate = f"""
        mkdir /etc/ssh/kept && mv {keys} {keys}.pub /etc/ssh/kept/
        ssh-keygen -q -t ed25519 -N '' -f {keys} && systemctl restart ssh"""
    restore = f"mv /etc/ssh/kept/* /etc/ssh/ && rmdir /etc/ssh/kept && systemctl restart ssh && test -e {keys}"
    was = real_fingerprint(house, "web")
    house.run("web", regenerate)
    try:
        now = real_fingerprint(house, "web")
        done = house.fab("-H", "web", "status", check=False, site=copy)
        assert done.returncode == 4
        assert f"pinned  {was} (ssh-ed25519)\n  found   {now} (ssh-ed25519)\n" in done.stderr
        house.fab("trust", "web", "--fingerprint", now, site=copy)
        house.fab("-H", "web", "status", site=copy)
    finally:
        house.run("web", restore)
    house.fab("-H", "web", "status")


def test_trust_with_the_right_fingerprint_pins_and_keeps_comments(house: House, site: Callable[[Edit], Path]) -> None:
    copy = site(lambda doc: doc["hosts"]["mail"].pop("host_key"))
    done = house.fab("trust", "mail", "--fingerprint", real_fingerprint(house, "mail"), site=copy)
    assert real_fingerprint(house, "mail") in done.stdout
    text = copy.read_text()
    key = " ".join(house.run("mail", "cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2])
    assert tomlkit.parse(text)["hosts"]["mail"]["host_key"] == key  # type: ignore[index]
    assert "# the one that signs" in text
    house.fab("-H", "mail", "status", site=copy)


@pytest.mark.parametrize("pinned", [False, True], ids=["unpinned", "pinned"])
def test_trust_with_a_wrong_fingerprint_pins_nothing(
    house: House, site: Callable[[Edit], Path], tmp_path: Path, pinned: bool
) -> None:
    copy = site(lambda doc: None if pinned else doc["hosts"]["mail"].pop("host_key"))
    before = copy.read_bytes()
    done = house.fab("trust", "mail", "--fingerprint", new_key(tmp_path)[1], check=False, site=copy)
    assert done.returncode == 4
    assert "that is not the fingerprint expected; nothing was pinned" in done.stderr
    assert copy.read_bytes() == before


def test_trust_asks_the_person_at_the_terminal(house: House, site: Callable[[Edit], Path]) -> None:
    copy = site(lambda doc: doc["hosts"]["mail"].pop("host_key"))
    before = copy.read_bytes()
    log = SshdLog(house, "mail")
    for answer in ("n", ""):
        code, screen = typed(house, "trust", "mail", answers=[("[y/N] ", answer)], site=copy)
        assert code == 1
        assert real_fingerprint(house, "mail") in screen
        assert copy.read_bytes() == before
    code, _ = typed(house, "trust", "mail", answers=[("[y/N] ", "y")], site=copy)
    assert code == 0
    assert log.logins() == []
    house.fab("-H", "mail", "status", site=copy)


def test_trust_without_a_terminal_pins_nothing(house: House, site: Callable[[Edit], Path]) -> None:
    copy = site(lambda doc: doc["hosts"]["mail"].pop("host_key"))
    before = copy.read_bytes()
    done = house.fab("trust", "mail", check=False, site=copy, stdin="y\n")
    assert done.returncode == 2
    assert "--fingerprint SHA256:" in done.stderr
    assert copy.read_bytes() == before


# sudo


def test_root_and_sudo_with_and_without_a_password_all_get_in(house: House) -> None:
    states = house.fab_json("status")
    assert {name: state["state"] for name, state in states.items()} == {"mail": "up", "backup": "up", "web": "up"}
    assert house.run("backup", "id -nG admin").split() == ["admin", "sudo"]  # the lab is what this test believes


def test_a_sudo_password_that_sudo_does_not_ask_for_does_no_harm(house: House, site: Callable[[Edit], Path]) -> None:
    copy = site(lambda doc: doc["hosts"]["web"].__setitem__("sudo_pw", {"command": "echo not-needed"}))
    assert "web" in house.fab("-H", "web", "status", site=copy).stdout


def test_a_wrong_sudo_password_is_one_quick_line(house: House, site: Callable[[Edit], Path]) -> None:
    copy = site(lambda doc: doc["hosts"]["backup"].__setitem__("sudo_pw", {"command": "echo not-the-password"}))
    began = time.monotonic()
    done = house.fab("-H", "backup", "status", check=False, site=copy)
    assert time.monotonic() - began < 10
    assert done.returncode == 4
    assert done.stderr == "mailops: backup: sudo refuses the password\n  check sudo_pw under [hosts.backup]\n"
    assert "not-the-password" not in house.run("backup", "journalctl --sync; journalctl --since=-2min")


def test_a_sudo_that_wants_a_password_nobody_gave_says_what_to_write(
    house: House, site: Callable[[Edit], Path]
) -> None:
    copy = site(lambda doc: doc["hosts"]["backup"].pop("sudo_pw"))
    done = house.fab("-H", "backup", "status", check=False, site=copy)
    assert done.returncode == 4
    assert done.stderr.startswith("mailops: backup: sudo wants a password for admin\n  add sudo_pw = ")


# ssh_config and the agent


def test_a_jump_host_carries_the_connection(house: House, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host mail\n  ProxyJump backup\n")
    log = SshdLog(house, "mail")
    house.fab("-S", str(tmp_path / "config"), "-H", "mail", "status")
    (login,) = log.logins()
    assert f"from {house.address('backup')} " in login


def test_a_jump_host_with_a_changed_key_is_refused_by_its_name(
    house: House, site: Callable[[Edit], Path], home: dict[str, str], tmp_path: Path
) -> None:
    (Path(home["HOME"]) / ".ssh" / "config").write_text("Host mail\n  ProxyJump admin@backup:22\n")
    copy = site(lambda doc: doc["hosts"]["backup"].__setitem__("host_key", new_key(tmp_path)[0]))
    logs = [SshdLog(house, "mail"), SshdLog(house, "backup")]
    done = house.fab("-H", "mail", "status", check=False, site=copy, env=home)
    assert done.returncode == 4
    assert "backup: the host key has changed, so nothing was sent" in done.stderr
    assert real_fingerprint(house, "backup") in done.stderr
    assert "fab trust backup" in done.stderr
    assert [log.logins() for log in logs] == [[], []]


def test_behind_a_good_jump_host_the_machines_own_key_still_counts(
    house: House, site: Callable[[Edit], Path], tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("Host mail\n  ProxyJump backup\n")
    copy = site(lambda doc: doc["hosts"]["mail"].__setitem__("host_key", new_key(tmp_path)[0]))
    log = SshdLog(house, "mail")
    done = house.fab("-S", str(tmp_path / "config"), "-H", "mail", "status", check=False, site=copy)
    assert done.returncode == 4
    assert "mail: the host key has changed" in done.stderr
    assert log.logins() == []


def test_a_jump_host_outside_the_site_must_be_in_known_hosts(house: House, home: dict[str, str]) -> None:
    address = house.address("outside")
    ssh = Path(home["HOME"]) / ".ssh"
    ssh.joinpath("config").write_text(f"Host mail\n  ProxyJump hop\nHost hop\n  HostName {address}\n  User root\n")
    log = SshdLog(house, "outside")
    done = house.fab("-H", "mail", "status", check=False, env=home)
    assert done.returncode == 4
    assert "hop: its host key is not pinned, so nothing was sent" in done.stderr
    assert "fab trust" not in done.stderr
    assert log.logins() == []
    key = " ".join(house.run("outside", "cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2])
    ssh.joinpath("known_hosts").write_text(f"{address} {key}\n")
    identity = house.hosts_toml.parent / "ssh" / "id_ed25519"
    ssh.joinpath("config").open("a").write(f"  IdentityFile {identity}\n")
    house.fab("-H", "mail", "status", env=home)
    assert len(log.logins()) == 1


def test_a_wildcard_jump_does_not_send_the_hop_through_itself(house: House, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host *\n  ProxyJump backup\n")
    house.fab("-S", str(tmp_path / "config"), "status")


def test_an_identity_of_ssh_config_is_used_when_the_site_names_none(
    house: House, site: Callable[[Edit], Path], home: dict[str, str]
) -> None:
    copy = site(lambda doc: doc["hosts"]["mail"].pop("identity"))
    done = house.fab("-H", "mail", "status", check=False, site=copy, env=home)
    assert done.returncode == 4
    assert "lets none of our keys in" in done.stderr
    identity = house.hosts_toml.parent / "ssh" / "id_ed25519"
    config = Path(home["HOME"]) / ".ssh" / "config"
    config.write_text(f"Host mail\n  IdentityFile ~/.ssh/not-there\n  IdentityFile {identity}\n")
    house.fab("-H", "mail", "status", site=copy, env=home)


def test_the_name_the_port_and_the_user_of_ssh_config_are_used_when_the_site_names_none(
    house: House, site: Callable[[Edit], Path], tmp_path: Path
) -> None:
    def forget(doc: Any) -> None:
        for key in ("address", "port", "user"):
            doc["hosts"]["web"].pop(key)

    (tmp_path / "config").write_text(f"Host web\n  HostName {house.address('web')}\n  User ops\n  ConnectTimeout 5\n")
    log = SshdLog(house, "web")
    house.fab("-S", str(tmp_path / "config"), "-H", "web", "status", site=site(forget))
    (login,) = log.logins()
    assert " for ops from " in login


@contextmanager
def ssh_agent(folder: Path, identity: Path) -> Iterator[str]:
    """A private ssh-agent that holds one key."""
    socket = str(folder / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as process:
        try:
            while not os.path.exists(socket):
                assert process.poll() is None
                time.sleep(0.02)
            subprocess.run(["ssh-add", "-q", identity], env=os.environ | {"SSH_AUTH_SOCK": socket}, check=True)
            yield socket
        finally:
            process.kill()


def test_a_key_in_the_ssh_agent_is_enough(
    house: House, site: Callable[[Edit], Path], home: dict[str, str], tmp_path: Path
) -> None:
    copy = site(lambda doc: doc["hosts"]["mail"].pop("identity"))
    with ssh_agent(tmp_path, house.hosts_toml.parent / "ssh" / "id_ed25519") as socket:
        house.fab("-H", "mail", "status", site=copy, env=home | {"SSH_AUTH_SOCK": socket})


# Machines that are away


def test_an_unreachable_machine_is_one_line_within_15_seconds(house: House, site: Callable[[Edit], Path]) -> None:
    nobody = house.address("mail").rpartition(".")[0] + ".250"
    copy = site(lambda doc: doc["hosts"]["mail"].__setitem__("address", nobody))
    began = time.monotonic()
    done = house.fab("-H", "mail", "status", check=False, site=copy)
    assert time.monotonic() - began < 15
    assert done.returncode == 4
    assert done.stderr.startswith(f"mailops: mail: no connection to {nobody} port 22: ")
    assert len(done.stderr.splitlines()) == 2


def test_one_machine_that_fails_does_not_stop_the_others(
    house: House, site: Callable[[Edit], Path], tmp_path: Path
) -> None:
    copy = site(lambda doc: doc["hosts"]["mail"].__setitem__("host_key", new_key(tmp_path)[0]))
    done = house.fab("status", check=False, site=copy)
    assert done.returncode == 4
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["backup", "web"]
    assert "mail: the host key has changed" in done.stderr
    assert done.stderr.splitlines()[-1] == "mailops: 1 of 3 machines failed"
