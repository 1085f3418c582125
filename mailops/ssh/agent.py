"""The machine half, packed: a deterministic zip archive of mailops/remote, and the loader that starts it.

The machine keeps the archive under its own hash, so it travels once. The loader is all that ever shows in
the machine's process table; everything else goes over stdin, in frames.
"""

from __future__ import annotations

import hashlib
import io
import shlex
from functools import cache
from pathlib import Path

REMOTE = Path(__file__).parents[1] / "remote"
EPOCH = (1980, 1, 1, 0, 0, 0)  # same sources, same bytes
ENTRY = "import sys\nfrom remote.__main__ import command\nsys.exit(command(sys.argv[1], sys.argv[2:]))\n"

# Its arguments: where the laptop comes from, the agent's name and size, the call's name. It finds the agent unpacked in
# the cache, and loads what the call needs while the laptop still works out its arguments; or gets the archive from the
# laptop. It skips what is not a frame: the line that answered sudo's question when sudo did not ask it. What Python has
# compiled stays beside the sources for the next call. `/run` serves where /var is full or read-only. The size tells an
# agent that a power cut or a sweeper has damaged; its length is all that a file can lose by that.
# Another laptop's agent goes when nobody has used it for a day: sooner, a call may be running from it.
LOADER = """
import json, os, sys
def frame():
    line = sys.stdin.buffer.readline()
    while line and not line.startswith(b"MAILOPS "):
        line = sys.stdin.buffer.readline()
    return sys.stdin.buffer.read(int(line.split()[1])) if line else sys.exit(1)
def tell(kind):
    os.write(1, b'{"t":"%s"}\\n' % kind)
def size(path):
    try:
        return sum(entry.stat().st_size for entry in os.scandir(path + "/remote") if entry.name.endswith(".py"))
    except OSError:
        return 0
def unpack(place, archive):
    import io, shutil, zipfile
    os.makedirs(place, mode=0o755, exist_ok=True)
    new, old = ("%s%s.%d.%s" % (place, name, os.getpid(), word) for word in ("new", "old"))
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
def sweep(place):
    import shutil, time
    for entry in os.scandir(place):
        if entry.name != name and time.time() - entry.stat().st_mtime > 86400:
            shutil.rmtree(entry.path) if entry.is_dir() else os.unlink(entry.path)
os.umask(0o022)
tell(b"hello")
name, expected, call = sys.argv[2], int(sys.argv[3]), sys.argv[4]
places = ["/var/cache/mailops/", "/run/mailops-agent/"]
def load(path):
    sys.path.insert(0, path)
    import remote.__main__
    remote.__main__.load(call)
    return remote.__main__.serve
path = next((place + name for place in places if size(place + name) == expected), None)
serve = load(path) if path else None
args = json.loads(frame())
if not path:
    tell(b"agent")
    archive = frame()
    for place in places:
        try:
            path = unpack(place, archive)
            break
        except OSError as error:
            reason = error
    else:
        sys.exit("no room for the agent: %s" % reason)
    try:
        sweep(os.path.dirname(path))
    except OSError:
        pass
try:
    os.utime(path)  # in use
except OSError:
    pass
serve = serve or load(path)
serve(call, args)
os._exit(0)  # a thread still reads stdin, which the interpreter's own end trips over
"""

# Its package brings the whole standard library (-minimal does not); one that a cut run left half installed
# does not count. Read from dpkg's own file, which is quicker than asking dpkg.
HAVE_PYTHON = "grep -x -A1 'Package: python3' /var/lib/dpkg/status | grep -q 'ok installed$'"
# Quicker still, for it runs no program: this agent has run here before, and python3 has not been removed since.
RAN_BEFORE = "[ -e /var/cache/mailops/{name} ] && [ -e /var/lib/dpkg/info/python3.md5sums ]"

CLIENT = 'set -- "${SSH_CLIENT%% *}"\n'
# A machine without python3 gets it first, with a sign of life every few seconds.
# Debian's own daily timer may hold the lists just now, at a first boot above all: that passes. A source that
# does not work is told of, and does without: python3 may be in another one.
INSTALL_PYTHON = """
install_python() {
    export DEBIAN_FRONTEND=noninteractive
    tries=0
    dpkg --configure -a --force-confold
    brief="-o Acquire::Retries=1 -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10"
    until said=$(apt-get -q $brief update 2>&1); do
        case $said in *" lock"*) tries=$((tries + 1)) ;; *) break ;; esac
        [ $tries -lt 60 ] || break; sleep 1
    done
    echo "$said"
    echo "$said" | sed -n 's/^[EW]: //p' | tr -dc '[:print:]\\n' | tr -d '"\\\\' | while read -r line; do
        echo '{"t":"say","text":"a source of packages is left out: '"$line"'"}' >&3
    done
    apt-get -yq -o DPkg::Lock::Timeout=300 install --no-install-recommends python3
}
if ! have_python; then
    echo '{"t":"say","text":"installing python3"}'
    while sleep 1 >/dev/null; do echo '{"t":"beat"}'; done &
    install_python </dev/null 3>&1 >/run/mailops-python.log 2>&1 || {
        kill $!; echo "python3 could not be installed:" >&2; tail -n 3 /run/mailops-python.log >&2; exit 1
    }
    kill $!
fi
"""
# Only a bootstrap may install it; whoever merely looks is told what kind of machine this is (os-release(5)).
NEED_PYTHON = """
if ! have_python; then
    . /etc/os-release
    echo '{"t":"bare","system":"'"$ID"'","release":"'"$VERSION_ID"'"}'; exit 1
fi
"""


@cache
def sources() -> dict[str, bytes]:
    return {f"remote/{path.name}": path.read_bytes() for path in sorted(REMOTE.glob("*.py"))}


def archive() -> bytes:
    """The zip archive: package `remote` and an entry point for the machine's own commands."""
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in {"__main__.py": ENTRY.encode(), **sources()}.items():
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, content)
    return buffer.getvalue()


@cache
def digest() -> str:
    """SHA-256 of all that the archive is made of; packing it is only worth while when a machine asks for it."""
    digest = hashlib.sha256(ENTRY.encode())
    for name, content in sources().items():
        digest.update(b"%s %d\n%s" % (name.encode(), len(content), content))
    return digest.hexdigest()


def command(call: str, install_python: bool, sudo: str = "") -> str:
    """The one command line of a call: no argument of it, and no secret, is in it, but its name for who looks at ps(1).

    The loader is told the address that sshd has seen us come from, which sudo would drop.
    """
    name, size = f"agent-{digest()[:16]}", sum(map(len, sources().values()))
    script = f"have_python() {{ {RAN_BEFORE.format(name=name)} || {HAVE_PYTHON}; }}\n"
    script += INSTALL_PYTHON if install_python else NEED_PYTHON
    script += f'exec python3 -IS -c {shlex.quote(LOADER)} "$1" {name} {size} {call}'
    # Whatever the login shell is, sh is the one that takes the address apart.
    if not sudo:
        return f"sh -c {shlex.quote(CLIENT + script)}"
    outer = f'{CLIENT}{sudo} sh -c "$0" mailops "$1"'
    return f"sh -c {shlex.quote(outer)} {shlex.quote(script)}"
