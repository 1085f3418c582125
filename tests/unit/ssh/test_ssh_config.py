"""ssh_config as it is read for a host: OpenSSH itself is asked what it makes of the same file."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fabric
import pytest

from mailops.errors import BAD_INPUT, MailopsError
from mailops.site.model import Host
from mailops.ssh import ssh_config, ssh_match
from mailops.ssh.connection import PinnedConnection

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEGndHo9mQZxhpYYJIDBcQqJ5TANU+hYdKa1pVVoXqPZ"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ssh").mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ssh_match, "_named", set())


def ask(tmp_path: Path, text: str | bytes, name: str = "mail", **given: str) -> ssh_config.Answer:
    (tmp_path / "config").write_bytes(text if isinstance(text, bytes) else text.encode())
    return ssh_config.lookup(name, files=(str(tmp_path / "config"),), **given)


USUAL = "  HostName mail.example.test\n  Port 2222\n  User ann\n  IdentityFile ~/.ssh/own\n"
# What each file says of the host `mail`; OpenSSH is asked as well, where it is there.
SAME = {
    "nothing": "",
    "a host": f"Host mail\n{USUAL}",
    "another host": f"Host other\n{USUAL}",
    "patterns": f"Host *.test m?il !web\n{USUAL}",
    "a pattern that is not for it": f"Host * !mail\n{USUAL}",
    "the first value counts": "Host mail\n  Port 1\n  IdentityFile ~/.ssh/a\nHost *\n  Port 2\n  IdentityFile ~/b\n",
    "equals signs, tabs, quotes": 'Host="mail"\n\tPort=2222\n  User = "ann"\n  HostName  "a.test"\n',
    "a comment behind": "Host mail # mine\n  Port 2222  # the second one\n",
    "ends of lines as Windows has them": f"Host mail\n{USUAL}".replace("\n", "\r\n"),
    "letters as Windows had them": f"# Gr\xfc\xdfe\nHost mail\n{USUAL}".encode("latin-1"),
    "before any host": "Port 2222\nHost web\n  Port 1\n",
    "%h": "Host mail\n  HostName %h.example.test\n  IdentityFile ~/.ssh/%h_%p_%%\n",
    "canonicalize without a domain": f"Host *\n  CanonicalizeHostname yes\nHost mail\n{USUAL}",
    "canonicalize with domains that nobody knows": "Host mail\n  CanonicalizeHostname always\n"
    f"  CanonicalDomains nowhere.invalid\n{USUAL}",
    "match all": f"Match all\n{USUAL}",
    "match final all": "Match final all\n  ServerAliveInterval 30\n  Port 2222\n",
    "match final, of what is found before": "Match final host a.test\n  Port 2222\nHost mail\n  HostName a.test\n",
    "match canonical": f"Match canonical\n{USUAL}",
    "match canonical, asked for": f"Match canonical\n{USUAL}Host *\n  CanonicalizeHostname yes\n",
    "match canonical, in vain": f"Match canonical\n{USUAL}Host *\n  CanonicalizeHostname always\n"
    "  CanonicalDomains nowhere.invalid\n",
    "match host": f"Match host web,m*\n{USUAL}",
    "match originalhost": f"Host mail\n  HostName a.test\nMatch originalhost mail\n{USUAL}",
    "match a name that was replaced": f"Host mail\n  HostName a.test\nMatch host mail\n{USUAL}",
    "match not": f"Match !host web\n{USUAL}",
    "match not it": f"Match !host mail\n{USUAL}",
    "match in capitals": f"MATCH Host mail\n{USUAL}",
    "match localuser": f"Match localuser {getpass.getuser()}\n{USUAL}",
    "match user": f"Host mail\n  User ann\nMatch user ann\n{USUAL}",
    "match a program": f'Match host mail exec "test %h = mail"\n{USUAL}',
    "match a program that fails": f"Match exec false\n{USUAL}",
    "match not a program": f'Match !exec "false"\n{USUAL}',
    "include": "Include more\nHost mail\n  Port 1\n",
    "include by a pattern, in a host": "Host mail\n  Include more*\nHost *\n  Port 1\n",
    "include in another host": "Host web\n  Include more\nHost *\n  Port 1\n",
    "include nothing": f"Include absent/*\nHost mail\n{USUAL}",
    "a jump, and no command behind it": "Host mail\n  ProxyJump ann@hop:2200,next\nHost *\n  ProxyCommand nc %h %p\n",
    "a command, and no jump behind it": "Host mail\n  ProxyCommand nc -x 'a b' %h %p\nHost *\n  ProxyJump hop\n",
    "no jump": "Host mail\n  ProxyJump none\nHost *\n  ProxyJump hop\n",
    "no command": "Host mail\n  ProxyCommand none\n",
    "an agent to forward": f"Host mail\n  ForwardAgent $SSH_AUTH_SOCK\n{USUAL}",
    "a patience in minutes": f"Host mail\n  ConnectTimeout 1m30s\n{USUAL}",
    "a patience without an end": f"Host mail\n  ConnectTimeout none\n{USUAL}",
    "a port by its name": "Host mail\n  Port imaps\n",
}


def openssh(tmp_path: Path) -> dict[str, list[str]]:
    """What `ssh -G` says of the same file."""
    command = ["ssh", "-F", str(tmp_path / "config"), "-G", "mail"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, errors="replace")
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("case", SAME)
def test_a_file_says_what_it_says_to_openssh(case: str, tmp_path: Path) -> None:
    (tmp_path / ".ssh/more").write_text(f"Host mail\n{USUAL}")
    ours = ask(tmp_path, SAME[case])
    if not shutil.which("ssh"):
        pytest.skip("there is no ssh to compare with")
    theirs = openssh(tmp_path)
    assert ours.hostname == theirs["hostname"][0]
    assert str(ours.port or 22) == theirs["port"][0]
    assert (ours.user or getpass.getuser()) == theirs["user"][0]
    assert ",".join(ours.jumps) == theirs.get("proxyjump", [""])[0]
    assert ours.proxy.partition(" ")[0] == theirs.get("proxycommand", [""])[0].partition(" ")[0]
    assert str(ours.timeout) == theirs["connecttimeout"][0].replace("none", "0")
    if ours.identities:
        expanded = {str(Path(path).expanduser()) for path in theirs["identityfile"] if "%" not in path}
        assert expanded <= {str(Path(path).expanduser()) for path in ours.identities}


UNKNOWN = [
    "localnetwork 10.0.0.0/8",
    "tagged work",
    "!tagged work",
    "version OpenSSH_9*",
    "sessiontype exec",
    "",
    "host",
]


@pytest.mark.parametrize("criterion", UNKNOWN)
def test_a_match_that_we_do_not_understand_does_not_apply_and_is_named(
    criterion: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"# mine\nMatch {criterion}\n{USUAL}Host mail\n  Port 25\n"
    for _ in range(2):
        assert ask(tmp_path, text).port == 25
    told = capsys.readouterr().err
    if criterion not in ("", "host"):  # of these two, the first is no line with a value, and the second has no pattern
        assert told.startswith(f"mailops: {tmp_path / 'config'} line 2: the lines below this Match are left out")
        assert told.count("\n") == 1


def test_a_match_that_is_not_for_this_host_anyway_is_not_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(tmp_path, f"Match host web localnetwork 10.0.0.0/8\n{USUAL}").port == 0
    assert capsys.readouterr().err == ""


def test_a_program_of_a_match_that_does_not_apply_is_not_run(tmp_path: Path) -> None:
    ask(tmp_path, f'Match exec "touch {tmp_path}/ran" tagged x\n{USUAL}')
    ask(tmp_path, f'Match exec "touch {tmp_path}/ran" host web\n{USUAL}')
    assert not (tmp_path / "ran").exists()


def test_a_name_gets_its_domain_where_the_resolver_knows_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: str, port: Any) -> list[Any]:
        if name != "mail.b.test":
            raise socket.gaierror
        return []

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    text = "CanonicalizeHostname yes\nCanonicalDomains a.test b.test\nHost *.b.test\n  User ann\n"
    assert ask(tmp_path, text)[:2] == ("mail.b.test", "ann")
    assert ask(tmp_path, text, address="192.0.2.7")[:2] == ("192.0.2.7", "")  # hosts.toml knows better
    with pytest.raises(MailopsError, match=r"line 3: no domain of a\.test knows mail"):
        ask(tmp_path, "CanonicalizeHostname yes\nCanonicalDomains a.test\nCanonicalizeFallbackLocal no\n")


@pytest.mark.parametrize("line", ["Port no-such-port", "Port 70000", "Port 0", "ConnectTimeout soon"])
def test_a_value_that_cannot_be_names_its_line(line: str, tmp_path: Path) -> None:
    with pytest.raises(MailopsError, match="config line 2: ") as caught:
        ask(tmp_path, f"Host mail\n  {line}\n")
    assert caught.value.code == BAD_INPUT


def test_a_file_that_was_asked_for_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(MailopsError, match="there is no ssh_config"):
        ssh_config.lookup("mail", files=(str(tmp_path / "absent"),))


def test_every_file_that_was_read_is_known(tmp_path: Path) -> None:
    (tmp_path / ".ssh/more").write_text("")
    found = ask(tmp_path, "Host web\n  Include mo*\n")
    assert found.files == [str(tmp_path / "config"), str(tmp_path / ".ssh/more")]


def connection(tmp_path: Path, text: str, **of_host: Any) -> PinnedConnection:
    (tmp_path / ".ssh/config").write_text(text)
    site: Any = SimpleNamespace(path=tmp_path / "hosts.toml", hosts={})
    host = Host("mail", "mailhost", host_key=HOST_KEY, **of_host)
    site.hosts["mail"] = host
    config = fabric.Config(lazy=True)
    return PinnedConnection(site, host, config)


def test_what_hosts_toml_says_wins(tmp_path: Path) -> None:
    made = connection(
        tmp_path, f"Host mail\n{USUAL}  ProxyCommand nc %h %p\n", address="192.0.2.7", port=22, user="ops"
    )
    assert (made.host, made.port, made.user) == ("192.0.2.7", 22, "ops")
    assert made.gateway.endswith(" -c 'exec nc 192.0.2.7 22'")


def test_root_on_port_22_is_who_logs_in_where_nobody_says_otherwise(tmp_path: Path) -> None:
    made = connection(tmp_path, "Match user root\n  ConnectTimeout 3\n")
    assert (made.host, made.port, made.user, made.connect_timeout) == ("mail", 22, "root", 3)


@pytest.mark.parametrize(
    ("hop", "name", "user", "port"),
    [
        ("hop", "hop", "root", 22),
        ("ann@hop:2200", "hop", "ann", 2200),
        ("ssh://ann@hop:2200", "hop", "ann", 2200),
        ("ssh://hop/", "hop", "root", 22),
        ("[2001:db8::7]:2200", "2001:db8::7", "root", 2200),
        ("a@corp@hop", "hop", "a@corp", 22),
    ],
)
def test_a_jump_as_openssh_takes_it(hop: str, name: str, user: str, port: int, tmp_path: Path) -> None:
    gateway = connection(tmp_path, f"Host mail\n  ProxyJump {hop}\n").gateway
    assert (gateway.host, gateway.user, gateway.port) == (name, user, port)


def test_a_command_on_the_way_is_for_the_shell(tmp_path: Path) -> None:
    sock = connection(tmp_path, "Host mail\n  ProxyCommand printf '%%s' \"$HOME ~ %n\" 2>/dev/null\n").open_gateway()
    sock.settimeout(10)
    expected = f"{tmp_path} ~ mail"
    assert sock.recv(len(expected)).decode() == expected
    sock.close()
