"""The machine half, packed: a deterministic zip archive of mailops/remote, and the command line that starts it.

The machine keeps the archive under its own hash, so it travels once. The loader (loader.py) is all that ever shows in
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
LOADER = Path(__file__).with_name("loader.py")
ENTRY = "import sys\nfrom remote.__main__ import command\nsys.exit(command(sys.argv[1], sys.argv[2:]))\n"

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
        kill $!
        said=$(tail -n 3 /run/mailops-python.log | tr '\\n' ' ' | tr -dc '[:print:]' | tr -d '"\\\\')
        said="python3 could not be installed: ${said% }"
        echo '{"t":"error","message":"'"$said"'","hint":"see /run/mailops-python.log there","code":1}'; exit 1
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


CODED = "\n\\'!"  # what one shell or another sees in single quotes


@cache
def sources() -> dict[str, bytes]:
    """The files of the package and of its rooms, by their names in the archive."""
    files = {path.relative_to(REMOTE.parent).as_posix(): path for path in REMOTE.rglob("*.py")}
    return {name: files[name].read_bytes() for name in sorted(files)}


@cache
def loader() -> str:
    """The program that is sent with each call: loader.py without what it says about itself."""
    return LOADER.read_text(encoding="utf-8").partition('\n"""\n\n')[2]


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
    script += f'exec python3 -IS -c {shlex.quote(loader())} "$1" {name} {size} {call}'
    if sudo:
        script = f'{sudo} sh -c {shlex.quote(script)} mailops "$1"'
    return for_any_shell(CLIENT + script)


def for_any_shell(script: str) -> str:
    """A command line that every login shell takes for the same: sh runs the script.

    Within single quotes csh wants no line to end and no `!`, fish no `\\'`, and the csh of BSD no word of more than a
    kilobyte. So each line goes as a word that has none of them, and sh's own printf(1) puts them together again.
    """
    lines = (
        "".join(f"\\0{ord(char):03o}" if char in CODED else char for char in line) for line in script.splitlines(True)
    )
    return f"""sh -c 'eval "$(printf %b "$@")"' mailops {" ".join(f"'{line}'" for line in lines)}"""
