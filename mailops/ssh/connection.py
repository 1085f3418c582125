"""One SSH connection to one host of the site: a Fabric connection that trusts pinned host keys alone."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from pathlib import Path
from typing import Any

import fabric
import paramiko

from mailops import printable
from mailops.errors import BAD_INPUT, UNREACHABLE, MailopsError
from mailops.site.model import Host, Site
from mailops.ssh import eager, headstart, hostkeys, wire
from mailops.ssh.background import Background

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
    connect_timeout: Any
    connect_kwargs: Any
    beginning: Background[wire.Transport] | None

    def __init__(self, site: Site, host: Host, config: fabric.Config | None = None, **kwargs: Any) -> None:
        config = (config or fabric.Config()).clone()
        for name, value in (("site", site), ("machine", host), ("beginning", None)):
            object.__setattr__(self, name, value)  # ours, and not Fabric's, which would file it under its settings
        known = config.base_ssh_config.lookup(host.name)
        # A dictionary of its own: through a shared one, Fabric lets the keys of one host leak to the next.
        options: dict[str, Any] = dict(config.connect_kwargs) | TIMEOUTS | {"transport_factory": wire.Transport}
        options.pop("key_filename", None)  # those of `fab -i`, which Fabric adds itself
        timeout = options.pop("timeout", None)  # that of `fab -t`
        if host.identity:
            options |= {"key_filename": [_identity(site, host)], "look_for_keys": False}
        user = host.user or known.get("user") or "root"
        super().__init__(host.name, user=user, port=host.port, config=config, connect_kwargs=options, **kwargs)
        self.connect_timeout = timeout or self.connect_timeout or PATIENCE
        keys = [Path(name).expanduser() for name in self.connect_kwargs.get("key_filename", [])]
        self.connect_kwargs["key_filename"] = [str(key) for key in keys if key.exists()]  # as OpenSSH has it
        if host.address:
            self.host = host.address
        self.client.set_missing_host_key_policy(hostkeys.Refuse(host))
        hostkeys.pin(self.client, host, self.host, self.port)

    def get_gateway(self) -> Any:
        """ProxyJump hops as pinned connections; Fabric's own would accept any key on the way."""
        if "proxyjump" not in self.ssh_config:
            return super().get_gateway()
        gateway: PinnedConnection | None = None
        for hop in self.ssh_config["proxyjump"].split(","):
            host = _hop(self.site, self.derive_shorthand(hop.strip()))
            if host.name in (self.machine.name, "none"):  # `Host *` sends the hop itself through the hop
                return None
            gateway = PinnedConnection(self.site, host, self.config, gateway=gateway or False)
        return gateway

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
            super().open()
        except (MailopsError, OSError, paramiko.SSHException, EOFError) as error:
            self.client.close()  # after a refusal, Paramiko leaves its end open
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
        agent_too, look = (bool(self.connect_kwargs.get(name, True)) for name in ("allow_agent", "look_for_keys"))
        try:
            eager.try_keys(self.client, self.user, agent_too, look)
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
        try:
            return paramiko.PKey.from_path(files[0])
        except Exception:  # with a passphrase, of an unknown kind, …: the usual way has words for it
            return None

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
                return MailopsError(f"{where} lets none of our keys in ({reason(error)})", hint, UNREACHABLE, name)
        where = f"{self.host} port {self.port}"
        hint = f"is it running, and is its address right in {self.site.path.name}?"
        return MailopsError(f"no connection to {where}: {reason(error)}", hint, UNREACHABLE, name)


def _hop(site: Site, wanted: dict[str, Any]) -> Host:
    """A ProxyJump hop: a host of hosts.toml with its pin, else one that ~/.ssh/known_hosts vouches for."""
    given = {key: wanted[key] for key in ("user", "port") if wanted[key]}
    for host in site.hosts.values():
        if wanted["host"] in (host.name, host.address):
            return dataclasses.replace(host, **given)
    return Host(wanted["host"], hostkeys.JUMP, **given)


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
