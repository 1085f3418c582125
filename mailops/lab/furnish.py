"""What a provider's machine has when you get it: a name, an address, a resolver, apt, a login."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mailops.lab.cache import PROXY
from mailops.lab.host import sh
from mailops.lab.layout import Lab
from mailops.lab.machine import Machine, chroot, put


@dataclass(frozen=True)
class Login:
    """Who may log in with the lab's key. With a `password`, sudo asks for it."""

    user: str = "root"
    password: str | None = None


def furnish(machine: Machine, login: Login) -> None:
    """Write it all into a machine that has never been on."""
    put(machine, "/etc/hostname", f"{machine.hostname}\n")
    put(machine, "/etc/apt/apt.conf.d/00lab-proxy", f'Acquire::http::Proxy "{PROXY}";\n')
    _give_place(machine)
    give_host_key(machine)
    give_login(machine, login)


def _give_place(machine: Machine) -> None:
    put(machine, "/etc/hosts", hosts_file(machine.hostname, machine.address))
    put(machine, "/etc/resolv.conf", f"nameserver {machine.lab.name_server}\n")
    put(machine, "/etc/systemd/network/10-lab.network", network_file(machine.address))


def refurnish(machine: Machine) -> None:
    """Into a copy of a machine of another lab, while it is off: an address, ssh keys and a machine id of its own."""
    for key in (machine.root / "etc/ssh").glob("ssh_host_*_key*"):
        key.unlink()
    _give_place(machine)
    give_host_key(machine)
    put(machine, "/etc/machine-id", "")  # systemd makes one at the first boot (machine-id(5))
    public = machine.lab.identity.with_suffix(".pub").read_text()
    for keys in (machine.root / "root/.ssh/authorized_keys", *machine.root.glob("home/*/.ssh/authorized_keys")):
        keys.write_text(public)  # its owner and mode stay


def hosts_file(hostname: str, address: str) -> str:
    """minbase has no localhost, and a daemon told to bind it would then ask DNS."""
    short, _, _ = hostname.partition(".")
    return f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{address} {hostname} {short}\n"


def network_file(address: str) -> str:
    """No gateway: a lab reaches itself and this computer's package cache, and nothing else, at once."""
    return f"[Match]\nName=host0\n\n[Network]\nAddress={address}/16\nIPv6AcceptRA=no\n"


def give_host_key(machine: Machine) -> None:
    """Made here, so that the replica's hosts.toml pins it before the first connection."""
    make_key(machine.root / "etc/ssh/ssh_host_ed25519_key", f"root@{machine.hostname}")


def host_key(machine: Machine) -> str:
    """The machine's public key as hosts.toml pins it: type and key, no comment."""
    return " ".join((machine.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])


def make_identity(lab: Lab) -> None:
    """The key pair that logs in to every machine of the lab; kept when it exists."""
    if not lab.identity.with_suffix(".pub").exists():
        lab.identity.parent.mkdir(mode=0o700, exist_ok=True)
        lab.identity.unlink(missing_ok=True)  # a run killed between the two halves
        make_key(lab.identity, f"mailops lab {lab.name}")


def make_key(path: Path, comment: str) -> None:
    """An ed25519 key pair without a passphrase."""
    sh(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path])


def give_login(machine: Machine, login: Login) -> None:
    """root always gets the key, as at most providers; another user gets it too, and sudo."""
    public = machine.lab.identity.with_suffix(".pub").read_text()
    put(machine, "/root/.ssh/authorized_keys", public, 0o600)
    if login.user == "root":
        return
    chroot(machine, ["useradd", "--create-home", "--shell", "/bin/bash", "--groups", "sudo", login.user])
    put(machine, f"/home/{login.user}/.ssh/authorized_keys", public, 0o600)
    chroot(machine, ["chown", "-R", f"{login.user}:", f"/home/{login.user}/.ssh"])
    if login.password is None:
        put(machine, "/etc/sudoers.d/lab", f"{login.user} ALL=(ALL) NOPASSWD: ALL\n", 0o440)
    else:
        chroot(machine, ["chpasswd"], f"{login.user}:{login.password}\n")
