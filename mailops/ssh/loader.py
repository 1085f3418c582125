"""What starts an agent call on a machine: the text below is a program for `python3 -IS -c`.

Its arguments: where the laptop comes from, the agent's name and size, the call's name. It finds the agent unpacked in
the cache, and loads what the call needs while the laptop still works out its arguments; or gets the archive from the
laptop. It skips what is not a frame: the line that answered sudo's question when sudo did not ask it. What Python has
compiled stays beside the sources for the next call. `/run` serves where /var is full or read-only. The size tells an
agent that a power cut or a sweeper has damaged; its length is all that a file can lose by that.
Another laptop's agent goes when nobody has used it for a day: sooner, a call may be running from it.
"""

import contextlib
import json
import os
import sys

PLACES = ["/var/cache/mailops/", "/run/mailops-agent/"]


def frame() -> bytes:
    line = sys.stdin.buffer.readline()
    while line and not line.startswith(b"MAILOPS "):
        line = sys.stdin.buffer.readline()
    return sys.stdin.buffer.read(int(line.split()[1])) if line else sys.exit(1)


def tell(kind: bytes) -> None:
    os.write(1, b'{"t":"%s"}\n' % kind)


def size(path: str) -> int:
    files = [f"{folder}/{name}" for folder, _, names in os.walk(f"{path}/remote") for name in names]
    try:
        return sum(os.stat(file).st_size for file in files if file.endswith(".py"))
    except OSError:
        return 0


def unpack(place: str, name: str, archive: bytes) -> str:
    import io
    import shutil
    import zipfile

    os.makedirs(place, mode=0o755, exist_ok=True)
    new, old = (f"{place}{name}.{os.getpid()}.{word}" for word in ("new", "old"))
    try:
        zipfile.ZipFile(io.BytesIO(archive)).extractall(new)
        with open(new + "/agent.pyz", "wb") as file:
            file.write(archive)
        if os.path.exists(place + name):
            os.rename(place + name, old)
        os.rename(new, place + name)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return place + name


def received(name: str) -> str:
    tell(b"agent")
    archive = frame()
    for place in PLACES:
        try:
            path = unpack(place, name, archive)
            break
        except OSError as error:
            reason = error
    else:
        sys.exit(f"no room for the agent: {reason}")
    with contextlib.suppress(OSError):
        sweep(os.path.dirname(path), name)
    return path


def sweep(place: str, name: str) -> None:
    import shutil
    import time

    for entry in os.scandir(place):
        if entry.name != name and time.time() - entry.stat().st_mtime > 86400:
            shutil.rmtree(entry.path) if entry.is_dir() else os.unlink(entry.path)


def load(path: str, call: str):  # type: ignore[no-untyped-def]
    sys.path.insert(0, path)
    import remote.__main__  # type: ignore[import-not-found]

    remote.__main__.load(call)
    return remote.__main__.serve


def main(name: str, expected: str, call: str) -> None:
    os.umask(0o022)
    tell(b"hello")
    path = next((place + name for place in PLACES if size(place + name) == int(expected)), None)
    serve = load(path, call) if path else None
    args = json.loads(frame())
    path = path or received(name)
    with contextlib.suppress(OSError):
        os.utime(path)  # in use
    serve = serve or load(path, call)
    serve(call, args)
    os._exit(0)  # a thread still reads stdin, which the interpreter's own end trips over


if __name__ == "__main__":
    main(*sys.argv[2:])
