"""`fab`, as a child of a process that has loaded Fabric and us already: most of a short task's cost is to load them.

It is the same program with the same words in a process group of its own, and it ends the same way. What a process looks
like from outside (its argv, its start, a terminal) is judged where the real command is started.

    nursery ── SEQPACKET: words, environment, folder; stdin, stdout, stderr, reply ──► fork ──► fab
            ◄── reply: process id, exit code ──
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import IO, Any

PROJECT = Path(__file__).parents[2]
LARGEST = 1 << 20  # bytes of a request
LOADED = (
    *("fabric.main", "paramiko", "jinja2", "tomlkit", "tasks", "mailops.cli.program", "mailops.cli.executor"),
    *("mailops.fleet", "mailops.bootstrap", "mailops.accounts", "mailops.vault", "mailops.health.status"),
    *("mailops.services.compose", "mailops.ssh.machine", "mailops.ssh.wire", "mailops.site.reader"),
)


class Nursery:
    """The mother of all tasks of one worker; it ends with the worker."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST)
        self._lock = threading.Lock()
        command = [sys.executable, "-m", "tests.e2e.nursery", str(theirs.fileno())]
        with theirs:
            self._mother = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=PROJECT)

    def run(
        self, words: list[str], env: dict[str, str], stdin: str, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` with `capture_output`; TimeoutExpired after `timeout` seconds."""
        with contextlib.ExitStack() as stack:
            files: list[IO[str]] = [
                stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")) for _ in range(3)
            ]
            files[0].write(stdin)
            files[0].seek(0)
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            with theirs:
                request = json.dumps({"words": words, "env": env, "folder": os.getcwd()}).encode()
                with self._lock:
                    socket.send_fds(self._control, [request], [*(file.fileno() for file in files), theirs.fileno()])
            code = _awaited(ours, timeout, words)
            for file in files[1:]:
                file.seek(0)
            return subprocess.CompletedProcess(words, code, files[1].read(), files[2].read())


def _awaited(reply: socket.socket, timeout: float, words: list[str]) -> int:
    reply.settimeout(timeout)
    lines = reply.makefile("r")
    child = int(lines.readline())
    try:
        return int(lines.readline())
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if isinstance(error, TimeoutError):
            raise subprocess.TimeoutExpired(words, timeout) from None
        raise


def main(control: socket.socket) -> None:
    """Until whoever asks has gone."""
    for name in LOADED:
        __import__(name)
    children: dict[int, socket.socket] = {}
    wake, woken = socket.socketpair()
    woken.setblocking(False)
    signal.set_wakeup_fd(woken.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is wake:
                wake.recv(4096)
                _reap(children)
                continue
            request, fds, _, _ = socket.recv_fds(control, LARGEST, 4)
            if not request:
                return
            child = os.fork()
            if not child:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _become(json.loads(request), fds[:3])
            for fd in fds[:3]:
                os.close(fd)
            children[child] = socket.socket(fileno=fds[3])
            children[child].sendall(f"{child}\n".encode())


def _reap(children: dict[int, socket.socket]) -> None:
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        with children.pop(child) as reply, contextlib.suppress(OSError):
            reply.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become(request: dict[str, Any], fds: list[int]) -> None:
    """`fab`, to its end."""
    code = 1
    try:
        os.setsid()
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        os.closerange(3, 64)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["folder"])
        sys.argv = request["words"]
        sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8")
        sys.stdout = sys.__stdout__ = _writer(1, "strict")
        sys.stderr = sys.__stderr__ = _writer(2, "backslashreplace")
        from mailops.cli.program import fab

        fab()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
        if end.code and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _writer(fd: int, errors: str) -> io.TextIOWrapper:
    binary = io.BufferedWriter(io.FileIO(fd, "w", closefd=False))
    return io.TextIOWrapper(binary, encoding="utf-8", errors=errors, line_buffering=fd == 2)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
