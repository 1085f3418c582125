"""One SSH connection to one host of the site: a Fabric connection that trusts pinned host keys alone."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import socket
from pathlib import Path
from typing import Any

import fabric
import paramiko

from mailops import printable
from mailops.errors import BAD_INPUT, UNREACHABLE, MailopsError
from mailops.site.model import Host, Site
from mailops.ssh import eager, headstart, hostkeys, login_keys, ssh_config, wire
from mailops.ssh.background import Background

HOP = re.compile(r"(ssh://)?((?P<user>.+)@)?(\[(?P<bracketed>[^]]+)\]|(?P<name>[^:@/]+))(:(?P<port>\d{1,5}))?/?")
REASON = 300  # characters of an error in which a server may have a say
PATIENCE = 10  # seconds for a TCP connection, where neither ssh_config nor `fab -t` says otherwise
TIMEOUTS = {"banner_timeout": wire.BANNER_TIMEOUT, "auth_timeout": 30, "channel_timeout": 15}


class PinnedConnection(fabric.Connection):  # type: ignore[misc]
    """A Fabric connection that sends nothing to a machine whose key is not the pinned one.

    Stock Fabric adds unknown keys and accepts changed ones, for jump hosts too; this one refuses both.
    `~/.ssh/config` is honoured under the host's name in hosts.toml; what hosts.toml says wins.
    """

    site: Site
    machine: Host
    known: ssh_config.Answer
    connect_timeout: Any
    connect_kwargs: Any
    beginning: Background[wire.Transport] | None

    def __init__(self, site: Site, host: Host, config: fabric.Config | None = None, **kwargs: Any) -> None:
        config = (config or fabric.Config(lazy=True)).clone()
        known = _lookup(host, config)
        for name, value in (("site", site), ("machine", host), ("beginning", None), ("known", known)):
            object.__setattr__(self, name, value)  # ours, and not Fabric's, which would file it under its settings
        object.__setattr__(config, "base_ssh_config", _Found(known))
        # A dictionary of its own: through a shared one, Fabric lets the keys of one host leak to the next.
        options: dict[str, Any] = dict(config.connect_kwargs) | TIMEOUTS | {"transport_factory": wire.Transport}
        options.pop("key_filename", None)  # those of `fab -i`, which Fabric adds itself
        timeout = options.pop("timeout", None)  # that of `fab -t`
        if host.identity:
            options |= {"key_filename": [_identity(site, host)], "look_for_keys": False}
        user = host.user or known.user or "root"
        super().__init__(host.name, user=user, port=known.port or 22, config=config, connect_kwargs=options, **kwargs)
        self.connect_timeout = timeout or known.timeout or self.connect_timeout or PATIENCE
        keys = [Path(name).expanduser() for name in self.connect_kwargs.get("key_filename", [])]
        self.connect_kwargs["key_filename"] = [str(key) for key in keys if key.exists()]  # as OpenSSH has it
        self.host = known.hostname
        self.client.set_missing_host_key_policy(hostkeys.Refuse(host))
        hostkeys.pin(self.client, host, self.host, self.port)

    def get_gateway(self) -> Any:
        """ProxyJump hops as pinned connections; Fabric's own would accept any key on the way."""
        if self.known.proxy:  # for the person's shell, as with OpenSSH; Fabric would run it without one
            return shlex.join([os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {self.known.proxy}"])
        gateway: PinnedConnection | None = None
        for hop in self.known.jumps:
            host = _hop(self.site, hop.strip())
            if host.name == self.machine.name:  # `Host *` sends the hop itself through the hop
                return None
            gateway = PinnedConnection(self.site, host, self.config, gateway=gateway or False)
        return gateway or (None if self.known.jumps else super().get_gateway())

    def open_gateway(self) -> Any:
        """A command is run as it stands; Fabric would read it once more as a line of ssh_config."""
        return paramiko.ProxyCommand(self.gateway) if isinstance(self.gateway, str) else super().open_gateway()

    def begin(self) -> None:
        """Begin with what needs nobody's attention: the TCP connection and the SSH handshake. It goes on meanwhile."""
        if not (self.gateway or self.beginning or self.is_connected):
            place = self.place()
            self.beginning = Background(lambda: headstart.transport(place))

    def open(self) -> None:
        """Connect and log in, unless that is done; MailopsError (code 4) says what stood in the way, and where."""
        self.begin_login()
        self.await_login()

    def begin_login(self) -> None:
        """Connect, check the host key, and ask to be let in; errors as with `open`.

        Whoever has one key only need not await the answer to say what comes next; then `await_login` has it.
        """
        if self.is_connected:
            return
        self.begin()
        given = self.connect_kwargs
        try:
            if self.beginning:
                transport, self.beginning = self.beginning.result(), None
                self.connect_kwargs = given | {"sock": transport.sock, "transport_factory": lambda *_, **__: transport}
                if key := self._only_key():
                    self.connect_kwargs["auth_strategy"] = wire.OnlyKey(self.user, key)
            if "auth_strategy" not in self.connect_kwargs:
                self.connect_kwargs = self.connect_kwargs | self._usable_keys()
            super().open()
        except (MailopsError, OSError, paramiko.SSHException, EOFError) as error:
            self.client.close()  # after a refusal, Paramiko leaves its end open
            self.connect_kwargs = given
            raise self._explained(error) from None
        finally:
            self.connect_kwargs, self.beginning = given, None

    def await_login(self) -> bool:
        """Whether that login has let us in. If not, another key has, and what was said is to be said again.

        MailopsError as with `open` when no key does.
        """
        if not isinstance(self.transport, wire.Transport):
            return True
        try:
            try:
                self.transport.await_login()
                return True
            except paramiko.AuthenticationException as refused:
                eager.forget_channels(self.transport)
                self._try_other_keys(refused)
                return False
        except (OSError, paramiko.SSHException, EOFError) as error:
            self.client.close()
            raise self._explained(error) from None

    def _try_other_keys(self, refused: Exception) -> None:
        """Those of ssh-agent and, where hosts.toml names none, of ~/.ssh. On the same connection: OpenSSH 9.8 and later
        shut out for a while who comes too often and does not get in (PerSourcePenalties).
        """
        agent_too, others = bool(self.connect_kwargs.get("allow_agent", True)), self._usable_keys()
        files = [path for path in others["key_filename"] if path not in self.connect_kwargs["key_filename"]]
        try:
            eager.try_keys(self.client, self.user, files, agent_too, others["look_for_keys"])
        except paramiko.SSHException as error:
            raise refused if "No authentication methods" in str(error) else error from None

    def place(self) -> headstart.Place:
        """Where the handshake goes."""
        host, timeout = self.machine, float(self.connect_timeout)
        identity = _identity(self.site, host) if host.identity else ""
        return headstart.Place(self.host, int(self.port), host.host_key or "", timeout, identity)

    def _only_key(self) -> paramiko.PKey | None:
        """The key to try first, where there is one file and nothing else was asked for."""
        files = self.connect_kwargs["key_filename"]
        if not eager.known() or len(files) != 1 or {"pkey", "password", "passphrase"} & self.connect_kwargs.keys():
            return None
        return login_keys.load(files[0])

    def _usable_keys(self) -> dict[str, Any]:
        """Options without the files that Paramiko would trip over, here or among those of ~/.ssh."""
        passphrase = self.connect_kwargs.get("passphrase")
        look, files = bool(self.connect_kwargs.get("look_for_keys", True)), self.connect_kwargs["key_filename"]
        own = login_keys.own(login_keys.LOOKED_FOR) if look else []
        if login_keys.refused(own, passphrase):
            look, files = False, [*files, *own]
        unusable = login_keys.refused(files, passphrase)
        return {"look_for_keys": look, "key_filename": [path for path in files if path not in unusable]}

    def _unusable(self) -> list[str]:
        """A line for each key that was not even shown to the machine."""
        files = list(self.connect_kwargs["key_filename"])
        if self.connect_kwargs.get("look_for_keys", True):
            files += login_keys.own(login_keys.LOOKED_FOR + login_keys.NOT_LOOKED_FOR)
        why = login_keys.refused(dict.fromkeys(files), self.connect_kwargs.get("passphrase"))
        return [f"{path}: {reason}" for path, reason in why.items()]

    def read_key(self) -> paramiko.PKey:
        """The host key that the machine shows now. The key exchange alone: nobody logs in, nothing is sent."""
        try:
            place = (self.host, int(self.port))
            sock: Any = self.open_gateway() if self.gateway else socket.create_connection(place, self.connect_timeout)
            with contextlib.closing(wire.Transport(sock)) as transport:
                transport.start_client(timeout=TIMEOUTS["banner_timeout"])
                return transport.get_remote_server_key()
        except (MailopsError, OSError, paramiko.SSHException, EOFError) as error:
            raise self._explained(error) from None

    def _explained(self, error: Exception) -> MailopsError:
        name = self.machine.name
        match error:
            case MailopsError():  # ours already, of this machine or of a hop on the way to it
                return error
            case paramiko.BadHostKeyException():
                return hostkeys.changed_key(self.machine, error.expected_key, error.key)
            case (
                paramiko.AuthenticationException()
                | paramiko.SSHException(args=("No authentication methods available",))
            ):
                where = f"{self.user}@{self.host}"
                hint = f"try `ssh {where}`; name the key with `identity` under [hosts.{name}], or load it with ssh-add"
                hint = "\n  ".join([*(f"not used: {line}" for line in self._unusable()), hint])
                return MailopsError(f"{where} lets none of our keys in ({reason(error)})", hint, UNREACHABLE, name)
        where = f"{self.host} port {self.port}"
        hint = f"is it running, and is its address right in {self.site.path.name}?"
        return MailopsError(f"no connection to {where}: {reason(error)}", hint, UNREACHABLE, name)


class _Found(paramiko.SSHConfig):
    """What was found of a host, for Fabric, which asks for it under that host's name."""

    def __init__(self, known: ssh_config.Answer) -> None:
        super().__init__()
        self.known = known

    def lookup(self, hostname: str) -> Any:
        found: Any = paramiko.SSHConfigDict()
        found.update({"identityfile": list(self.known.identities)})
        return found


def login(host: Host, config: Any) -> str:
    """Who logs in on a machine, by hosts.toml or else by ssh_config."""
    return host.user or _lookup(host, config).user or "root"


def _lookup(host: Host, config: Any) -> ssh_config.Answer:
    return ssh_config.lookup(host.name, host.user or "", host.address or "", host.port or 0, _files(config))


def _files(config: Any) -> tuple[str, ...]:
    """That of `fab -S`, or else a person's own and the system's, as with `ssh`."""
    asked = config.get("mailops_ssh_config") or config.get("ssh_config_path")
    if asked:
        return (asked,) if asked != "none" else ()
    return ssh_config.DEFAULTS if config.get("load_ssh_configs", True) else ()


def _hop(site: Site, text: str) -> Host:
    """A ProxyJump hop: a host of hosts.toml with its pin, else one that ~/.ssh/known_hosts vouches for."""
    found = HOP.fullmatch(text)
    if not found:
        raise MailopsError(f"ssh_config: ProxyJump: {text!r} is not [user@]host[:port]", code=BAD_INPUT)
    user, name, port = found["user"], found["bracketed"] or found["name"], found["port"]
    given: dict[str, Any] = {"user": user} if user else {}
    if port:
        given["port"] = int(port)
    for host in site.hosts.values():
        if name in (host.name, host.address):
            return dataclasses.replace(host, **given)
    return Host(name, hostkeys.JUMP, **given)


def _identity(site: Site, host: Host) -> str:
    path = Path(str(host.identity)).expanduser()
    if not path.is_file():
        raise MailopsError(f"{site.path.name}: hosts.{host.name}.identity: there is no {path}", code=BAD_INPUT)
    return str(path)


def reason(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the other side has closed it"
    text = str(error) or type(error).__name__
    if isinstance(error, TimeoutError) or text == "No existing session":  # Paramiko's words for a silent peer
        return "no answer in time"
    return printable.line(text.partition("] ")[2] or text)[:REASON]
