"""One SSH connection to one host of the site: a Fabric connection that trusts pinned host keys alone,
and the agent call that goes over it.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import fabric
import paramiko

from mailops import secrets
from mailops.errors import BAD_INPUT, DISTRUSTED, UNREACHABLE, MailopsError, Untouched
from mailops.screen import printable
from mailops.site.model import Host, Site
from mailops.ssh import agent, headstart, protocol, wire
from mailops.ssh.background import Background
from mailops.ssh.questions import Questions
from mailops.ssh.shapes import Odd

SILENCE = 60.0  # seconds; the agent says something at least every ten
SUDO_PATIENCE = 20.0  # seconds for sudo to take or refuse a password
SLOWEST = 1 << 10  # bytes per second that a machine takes, or it is given up
LAST_WORDS, FAREWELL = 1 << 14, 5.0  # bytes, and seconds, of the stderr of an agent that ended without a result
REASON = 300  # characters of an error in which a server may have a say
PATIENCE = 10  # seconds for a TCP connection, where neither ssh_config nor `fab -t` says otherwise
TIMEOUTS = {"banner_timeout": wire.BANNER_TIMEOUT, "auth_timeout": 30, "channel_timeout": 15}
SUPPORTED = ("12", "13")  # releases of Debian
JUMP = "jump"  # the role of a ProxyJump hop that hosts.toml does not know

ASK_FIRST = ("unlock", "mailcfg")  # calls that change nothing before their question is answered
WITHHELD = {"withheld": True}  # in place of an answer, as in mailops/remote/link.py

Answers = dict[str, Callable[[Any], Any]]
Args = dict[str, Any] | Callable[[], dict[str, Any]]


class Listener(Protocol):
    """Who is told what the agent does, while it does it."""

    def step(self, name: str, state: str, detail: str) -> None: ...
    def progress(self, name: str, percent: float, detail: str) -> None: ...
    def say(self, text: str) -> None: ...


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
        self._set(site=site, machine=host, beginning=None)
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
        self.client.set_missing_host_key_policy(_Refuse(host))
        _pin(self.client, host, self.host, self.port)

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
                self.transport.forget_channels()
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
            self.client._auth(self.user, None, None, [], agent_too, look, None)
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
        if len(files) != 1 or {"pkey", "password", "passphrase"} & self.connect_kwargs.keys():
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
                return changed_key(self.machine, error.expected_key, error.key)
            case (
                paramiko.AuthenticationException()
                | paramiko.SSHException(args=("No authentication methods available",))
            ):
                where = f"{self.user}@{self.host}"
                hint = f"try `ssh {where}`; name the key with `identity` under [hosts.{name}], or load it with ssh-add"
                return MailopsError(f"{name}: {where} lets none of our keys in ({_reason(error)})", hint, UNREACHABLE)
        where = f"{self.host} port {self.port}"
        hint = f"is it running, and is its address right in {self.site.path.name}?"
        return MailopsError(f"{name}: no connection to {where}: {_reason(error)}", hint, UNREACHABLE)


class Machine:
    """A host of the site with a connection to it; `call` runs one thing on it and returns its result."""

    called = False  # whether anything has been started on any machine in this process

    def __init__(self, site: Site, host: Host, listener: Listener, config: fabric.Config | None = None) -> None:
        self.site = site
        self.host = host
        self.listener = listener
        self._untouched = True
        self.connection = (
            _begun.pop((site.path, host.name))
            if (site.path, host.name) in _begun
            else PinnedConnection(site, host, config)
        )

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.connection.close()

    def call(
        self, name: str, args: Args, answers: Answers | None = None, install_python: bool = False
    ) -> dict[str, Any]:
        """Run the agent call `name`; its questions are answered by `answers`, its events go to the listener.

        `args` may be a function that makes them, which works while the login is under way.
        MailopsError with the agent's own message, with code 4 when there is no talking to the machine, with code 6
        when it asks what this call does not answer (`mailops.ssh.questions`), or says what none of ours says.
        """
        self._untouched = not Machine.called
        self.connection.begin()
        made = Background(args).result if callable(args) else lambda: args
        channel = None
        try:
            channel = self._ask(name, made, install_python)
            if not self.connection.await_login():
                channel = self._ask(name, made, install_python)
            sent = made()
            questions = Questions(self.host.role, sent.get("task", name), sent)
            return self._converse(channel, questions, answers or {})
        except Odd as odd:
            raise self._distrusted(odd) from None
        except KeyboardInterrupt:
            if Machine.called:
                raise
            raise Untouched from None
        except (OSError, paramiko.SSHException, EOFError) as error:
            raise self._lost(error) from None
        finally:
            if channel:
                channel.close()

    def open(self) -> paramiko.Transport:
        """Connect and log in, unless that is done; MailopsError as PinnedConnection.open has it."""
        self.connection.open()
        transport: paramiko.Transport = self.connection.transport
        return transport

    def _ask(self, name: str, args: Callable[[], dict[str, Any]], install_python: bool) -> paramiko.Channel:
        """Start the agent and send it its call; the login may not have been answered yet."""
        self.connection.begin_login()
        password = self._sudo_password()
        if password:
            self.connection.await_login()
        Machine.called = True
        channel = wire.start(self.connection.transport, agent.command(name, install_python, self._sudo(password)))
        channel.settimeout(SILENCE)
        if password:
            _answer_sudo(channel, password, self.host.name)
        call = json.dumps(args()).encode()
        with contextlib.suppress(OSError):  # a machine without python3 has had its say by now, and gone
            _send(channel, call)
        return channel

    def _converse(self, channel: paramiko.Channel, questions: Questions, answers: Answers) -> dict[str, Any]:
        archives = [agent.archive]  # it travels once
        unanswered: MailopsError | None = None  # why a question had no answer: that is told, not what comes of it
        for event in protocol.events(channel, questions.task):
            match event["t"]:
                case "result" | "error" if unanswered:
                    raise unanswered
                case "result":
                    return protocol.result(questions.task, event["data"])
                case "error":
                    hint = event["hint"].replace("NAME", self.host.name)
                    raise MailopsError(f"{self.host.name}: {secrets.mask(event['message'])}", hint, event["code"])
                case "bare":
                    raise BareMachine(self.host.name, event["system"], event["release"])
                case "agent":
                    if not archives:
                        raise Odd("asked for the agent a second time")
                    _send(channel, archives.pop()())
                case "ask":
                    unanswered = self._answer(channel, event, questions, answers) or unanswered
                case "step":
                    self.listener.step(event["name"], event["state"], event["detail"])
                case "progress":
                    self.listener.progress(event["name"], event["percent"], event["detail"])
                case "say":
                    self.listener.say(event["text"])
        raise unanswered or self._ended(channel)

    def _answer(
        self, channel: paramiko.Channel, event: dict[str, Any], questions: Questions, answers: Answers
    ) -> MailopsError | None:
        """Answer a question of the machine, or tell it that there is no answer, and return why."""
        what, why = event["what"], None
        data = questions.check(what, event["data"])
        try:
            answer = answers[what](data)
        except MailopsError as error:
            answer = WITHHELD
            why = MailopsError(f"{self.host.name}: {error.message}", error.hint, error.code)
        except KeyboardInterrupt:
            if self._untouched and questions.task in ASK_FIRST:
                raise Untouched from None
            raise
        else:
            questions.answered(what, answer)
        _send(channel, json.dumps(answer).encode())
        return why

    def _distrusted(self, odd: Odd) -> MailopsError:
        hint = "look at it from its own console, and send nothing to it before you know why"
        told = f"{self.host.name}: this machine {secrets.mask(str(odd))}; it got no answer, and may be compromised"
        return MailopsError(told, hint, DISTRUSTED)

    def _sudo_password(self) -> str:
        if self.connection.user == "root" or self.host.sudo_pw is None:
            return ""
        return secrets.resolve(self.host.sudo_pw)

    def _sudo(self, password: str) -> str:
        if self.connection.user == "root":
            return ""
        return "LC_ALL=C sudo -S -k -p ''" if password else "LC_ALL=C sudo -n"

    def _ended(self, channel: paramiko.Channel) -> MailopsError:
        """The agent is gone and left no result: its stderr says why."""
        words = _last_words(channel)
        name = self.host.name
        transport: Any = channel.get_transport()
        error = transport.get_exception()
        if isinstance(error, paramiko.SSHException) or (not words and _is_down(transport)):
            return self._lost(error or EOFError())
        if "password is required" in words:
            hint = f'add sudo_pw = {{ prompt = "sudo password on {name}" }} under [hosts.{name}]'
            return MailopsError(f"{name}: sudo wants a password for {self.connection.user}", hint, UNREACHABLE)
        if "sudo" in words and "not found" in words:
            return MailopsError(f"{name}: there is no sudo for {self.connection.user}; log in as root or install it")
        if words.startswith("python3 could not"):
            return MailopsError(f"{name}: {' '.join(words.split())}", "see /run/mailops-python.log there")
        return MailopsError(f"{name}: the agent ended without a result: {secrets.mask(words) or 'no reason given'}")

    def _lost(self, error: Exception) -> MailopsError:
        hint = "what was under way there ends by itself; run this again and it is picked up"
        return MailopsError(f"{self.host.name}: the connection was lost: {_reason(error)}", hint, UNREACHABLE)


_begun: dict[tuple[Path, str], PinnedConnection] = {}


def begin(site: Site, host: Host, config: fabric.Config) -> None:
    """Begin to connect to `host`; the next Machine of that name takes the connection over."""
    _begun[site.path, host.name] = connection = PinnedConnection(site, host, config)
    connection.begin()
    if connection.beginning:
        headstart.remember(connection.place())


class BareMachine(MailopsError):
    """A machine without python3, so that no agent runs there yet. `release` is Debian's number, 0 if it is not ours."""

    def __init__(self, name: str, system: str, release: str) -> None:
        super().__init__(f"{name}: this machine has no python3 yet", f"fab -H {name} bootstrap installs it")
        self.release = int(release) if system == "debian" and release in SUPPORTED else 0


class _Refuse(paramiko.MissingHostKeyPolicy):
    """No pinned key, or a key of another type than the pinned one: the connection ends here."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        if self.host.host_key:
            raise changed_key(self.host, parse_key(self.host.host_key), key)
        hint = f"look at its fingerprint and pin it: fab trust {self.host.name}"
        if self.host.role == JUMP:
            hint = "it is a hop of ssh_config: log in there once with ssh, or give it a [hosts] entry of its own"
        raise MailopsError(f"{self.host.name}: its host key is not pinned, so nothing was sent", hint, UNREACHABLE)


def changed_key(host: Host, pinned: paramiko.PKey, found: paramiko.PKey) -> MailopsError:
    hint = (
        f"a reinstalled machine? Check the fingerprint on its own console with\n"
        f"  ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub\n"
        f"  and if it is the one found: {_repin(host)}. If not, somebody stands in between: do not go on."
    )
    message = (
        f"{host.name}: the host key has changed, so nothing was sent\n"
        f"  pinned  {fingerprint(pinned)}\n"
        f"  found   {fingerprint(found)}"
    )
    return MailopsError(message, hint, UNREACHABLE)


def _repin(host: Host) -> str:
    return f"fab trust {host.name}" if host.role != JUMP else f"ssh-keygen -R {host.name}, and log in with ssh"


def fingerprint(key: paramiko.PKey) -> str:
    """As `ssh-keygen -l` shows it: SHA256:, base64 without padding, and the type."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"SHA256:{digest} ({key.get_name()})"


def parse_key(pin: str) -> paramiko.PKey:
    kind, data = pin.split()[:2]
    return paramiko.PKey.from_type_string(kind, base64.b64decode(data))


def _pin(client: paramiko.SSHClient, host: Host, address: str, port: int) -> None:
    """Put the pinned key where Paramiko looks for it: under `[host]:port`, the bare host for port 22."""
    if host.host_key:
        key = parse_key(host.host_key)
        name = address if port == 22 else f"[{address}]:{port}"
        client.get_host_keys().add(name, key.get_name(), key)
    elif host.role == JUMP:
        client.load_system_host_keys()


def _hop(site: Site, wanted: dict[str, Any]) -> Host:
    """A ProxyJump hop: a host of hosts.toml with its pin, else one that ~/.ssh/known_hosts vouches for."""
    given = {key: wanted[key] for key in ("user", "port") if wanted[key]}
    for host in site.hosts.values():
        if wanted["host"] in (host.name, host.address):
            return dataclasses.replace(host, **given)
    return Host(wanted["host"], JUMP, **given)


def _identity(site: Site, host: Host) -> str:
    path = Path(str(host.identity)).expanduser()
    if not path.is_file():
        raise MailopsError(f"{site.path.name}: hosts.{host.name}.identity: there is no {path}", code=BAD_INPUT)
    return str(path)


def _answer_sudo(channel: paramiko.Channel, password: str, name: str) -> None:
    """Feed sudo its password and wait until it lets the loader start.

    A second question means that the password was wrong; Invoke's own answer to it would hang for ever.
    """
    channel.sendall(password.encode() + b"\n")
    words = b""
    deadline = time.monotonic() + SUDO_PATIENCE
    while not channel.recv_ready():
        if channel.recv_stderr_ready():
            words = (words + channel.recv_stderr(4096))[:LAST_WORDS]
        if b"try again" in words or b"incorrect" in words or time.monotonic() > deadline:
            hint = f"check sudo_pw under [hosts.{name}]"
            raise MailopsError(f"{name}: sudo refuses the password", hint, UNREACHABLE)
        if channel.exit_status_ready() and not channel.recv_ready():
            said = printable.line(words.decode(errors="replace").strip())
            raise MailopsError(f"{name}: sudo does not let us in: {said}", code=UNREACHABLE)
        time.sleep(0.02)


def _is_down(transport: paramiko.Transport) -> bool:
    """Whether the whole connection has ended, or the channel alone: its thread, if it is to end, ends now."""
    transport.join(1.0)
    return not transport.is_active()


def _last_words(channel: paramiko.Channel) -> str:
    """What is on the stderr of an agent that has ended, in a line or a few."""
    words, deadline = b"", time.monotonic() + FAREWELL
    channel.settimeout(FAREWELL)
    with contextlib.suppress(OSError):
        while len(words) < LAST_WORDS and time.monotonic() < deadline and (more := channel.recv_stderr(LAST_WORDS)):
            words += more
    text = printable.lines(words[:LAST_WORDS].decode(errors="replace").strip())
    return text.replace("\n", "\n    ")


def _send(channel: paramiko.Channel, payload: bytes) -> None:
    """A frame, to a machine that takes it; TimeoutError for one that takes it drop by drop."""
    rest = b"MAILOPS %d\n" % len(payload) + payload
    deadline = time.monotonic() + SILENCE + len(rest) / SLOWEST
    while rest:
        if time.monotonic() > deadline:
            raise TimeoutError
        rest = rest[channel.send(rest) :]


def _reason(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the other side has closed it"
    text = str(error) or type(error).__name__
    if isinstance(error, TimeoutError) or text == "No existing session":  # Paramiko's words for a silent peer
        return "no answer in time"
    return printable.line(text.partition("] ")[2] or text)[:REASON]
