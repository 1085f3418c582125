"""A host of the site that can be asked: the agent call over its connection, and what is done with what it says."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import fabric
import paramiko

from mailops import printable, secrets
from mailops.errors import DISTRUSTED, UNREACHABLE, MailopsError, Untouched
from mailops.site.model import Host, Site
from mailops.ssh import agent, headstart, protocol, wire
from mailops.ssh.background import Background
from mailops.ssh.connection import PinnedConnection, reason
from mailops.ssh.patience import TooLong
from mailops.ssh.questions import Questions
from mailops.ssh.shapes import Odd

if TYPE_CHECKING:
    from typing import Literal, overload

    from mailops.remote.shared import calls

SILENCE = 60.0  # seconds; the agent says something at least every ten
SUDO_PATIENCE = 20.0  # seconds for sudo to take or refuse a password
SLOWEST = 1 << 10  # bytes per second that a machine takes, or it is given up
LAST_WORDS, FAREWELL = 1 << 14, 5.0  # bytes, and seconds, of the stderr of an agent that ended without a result
SUPPORTED = ("12", "13")  # releases of Debian

AGAIN = "what was under way there ends by itself; run this again and it is picked up"
ASK_FIRST = ("unlock", "mailcfg", "queue.rm")  # calls that change nothing before their question is answered
WITHHELD = {"withheld": True}  # in place of an answer, as in mailops/remote/link.py

Answers = dict[str, Callable[[Any], Any]]
Args = Mapping[str, Any] | Callable[[], Mapping[str, Any]]


class Listener(Protocol):
    """Who is told what the agent does, while it does it."""

    def step(self, name: str, state: str, lines: list[str]) -> None: ...
    def progress(self, name: str, percent: float, detail: str) -> None: ...
    def say(self, text: str) -> None: ...


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

    if TYPE_CHECKING:  # the forms of each call

        @overload
        def call(
            self, name: Literal["converge"], args: Callable[[], calls.PlanArgs], answers: Answers
        ) -> calls.Plan: ...
        @overload
        def call(
            self,
            name: Literal["converge"],
            args: Callable[[], calls.ConvergeArgs],
            answers: Answers,
            install_python: bool,
        ) -> calls.Changed: ...
        @overload
        def call(self, name: Literal["rollback"], args: calls.RollbackArgs, answers: Answers) -> calls.Changed: ...
        @overload
        def call(self, name: Literal["unlock"], args: calls.RunArgs, answers: Answers) -> calls.Changed: ...
        @overload
        def call(self, name: Literal["lock"], args: calls.RunArgs) -> calls.Changed: ...
        @overload
        def call(self, name: Literal["generations"], args: calls.Nothing) -> calls.Generations: ...
        @overload
        def call(self, name: Literal["diff"], args: calls.DiffArgs) -> calls.Diff: ...
        @overload
        def call(self, name: Literal["drift"], args: calls.Nothing) -> calls.Drift: ...
        @overload
        def call(self, name: Literal["history"], args: calls.HistoryArgs) -> calls.History: ...
        @overload
        def call(self, name: Literal["status"], args: calls.StatusArgs) -> calls.Status | calls.NotSetUp: ...
        @overload
        def call(self, name: Literal["certificate"], args: calls.Nothing) -> calls.Served: ...
        @overload
        def call(self, name: Literal["mailcfg"], args: calls.MailcfgArgs, answers: Answers) -> calls.Mailcfg: ...
        @overload
        def call(self, name: Literal["dkim"], args: calls.DkimArgs) -> calls.Keys: ...
        @overload
        def call(self, name: Literal["queue"], args: calls.QueueArgs) -> calls.Listed: ...
        @overload
        def call(self, name: Literal["queue"], args: calls.FlushArgs) -> calls.Counts: ...
        @overload
        def call(self, name: Literal["queue"], args: calls.ShowArgs) -> calls.Shown: ...
        @overload
        def call(self, name: Literal["queue"], args: calls.ChangeArgs, answers: Answers) -> calls.Done: ...
        @overload
        def call(self, name: Literal["trace"], args: calls.TraceArgs) -> calls.Stories: ...
        @overload
        def call(self, name: Literal["tunnel"], args: calls.TunnelArgs) -> calls.Console: ...
        @overload
        def call(self, name: str, args: dict[str, Any], answers: Answers | None = None) -> dict[str, Any]: ...

    def call(
        self, name: str, args: Args, answers: Answers | None = None, install_python: bool = False
    ) -> Mapping[str, Any]:
        """Run the agent call `name`; its questions are answered by `answers`, its events go to the listener.

        `args` may be a function that makes them, which works while the login is under way.
        MailopsError with the agent's own message, with code 4 when there is no talking to the machine, with code 6
        when it asks what this call does not answer (`mailops.ssh.questions`), or says what none of ours says.
        """
        self._untouched = not Machine.called
        self._sudo_password()  # before there is a connection that would wait for it
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
        except TooLong as error:
            told = f"this machine {error}, and is not waited for"
            raise MailopsError(told, AGAIN, UNREACHABLE, self.host.name) from None
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

    def _ask(self, name: str, args: Callable[[], Mapping[str, Any]], install_python: bool) -> paramiko.Channel:
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
                    raise MailopsError(secrets.mask(event["message"]), hint, event["code"], self.host.name)
                case "bare":
                    raise BareMachine(self.host.name, event["system"], event["release"])
                case "agent":
                    if not archives:
                        raise Odd("asked for the agent a second time")
                    _send(channel, archives.pop()())
                case "ask":
                    unanswered = self._answer(channel, event, questions, answers) or unanswered
                case "step":
                    self.listener.step(event["name"], event["state"], event["lines"])
                case "progress":
                    self.listener.progress(event["name"], event["percent"], event["detail"])
                case "say":
                    self.listener.say(event["text"])
                case "beat" if event["told"]:
                    self.listener.say(event["told"])
        raise unanswered or self._ended(channel)

    def _answer(
        self, channel: paramiko.Channel, event: calls.Ask, questions: Questions, answers: Answers
    ) -> MailopsError | None:
        """Answer a question of the machine, or tell it that there is no answer, and return why."""
        what, why = event["what"], None
        data = questions.check(what, event["data"])
        try:
            answer = answers[what](data)
        except MailopsError as error:
            answer = WITHHELD
            why = MailopsError(error.message, error.hint, error.code, self.host.name)
        except KeyboardInterrupt:
            if self._untouched and questions.task in ASK_FIRST:
                raise Untouched from None
            raise
        else:
            questions.answered(what, answer)
        try:
            _send(channel, json.dumps(answer).encode())
        except TimeoutError:
            raise
        except OSError:  # it has waited long enough for the answer, or for its vault, and gone: its last word says why
            if not channel.closed:
                raise
        return why

    def _distrusted(self, odd: Odd) -> MailopsError:
        hint = "look at it from its own console, and send nothing to it before you know why"
        told = f"this machine {secrets.mask(str(odd))}; it got no answer, and may be compromised"
        return MailopsError(told, hint, DISTRUSTED, self.host.name)

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
            return MailopsError(f"sudo wants a password for {self.connection.user}", hint, UNREACHABLE, name)
        if "sudo" in words and "not found" in words:
            told = f"there is no sudo for {self.connection.user}; log in as root or install it"
            return MailopsError(told, where=name)
        told = f"the agent ended without a result: {secrets.mask(words) or 'no reason given'}"
        hint = "" if words else f"perhaps another run took over: fab -H {name} history"
        return MailopsError(told, hint, where=name)

    def _lost(self, error: Exception) -> MailopsError:
        return MailopsError(f"the connection was lost: {reason(error)}", AGAIN, UNREACHABLE, self.host.name)


_begun: dict[tuple[Path, str], PinnedConnection] = {}


def begin(site: Site, host: Host, config: fabric.Config) -> None:
    """Begin to connect to `host`; the next Machine of that name takes the connection over."""
    _begun[site.path, host.name] = connection = PinnedConnection(site, host, config)
    connection.begin()
    if connection.beginning:
        headstart.remember(connection.place(), connection.known.files)


class BareMachine(MailopsError):
    """A machine without python3, so that no agent runs there yet. `release` is Debian's number, 0 if it is not ours."""

    def __init__(self, name: str, system: str, release: str) -> None:
        super().__init__("this machine has no python3 yet", f"fab -H {name} bootstrap installs it", where=name)
        self.release = int(release) if system == "debian" and release in SUPPORTED else 0


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
            raise MailopsError("sudo refuses the password", hint, UNREACHABLE, name)
        if channel.exit_status_ready() and not channel.recv_ready():
            said = printable.line(words.decode(errors="replace").strip())
            raise MailopsError(f"sudo does not let us in: {said}", code=UNREACHABLE, where=name)
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
