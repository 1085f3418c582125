"""`script/demo`: says what it will do to this computer, makes that ready, and hands over to `demo_play`.

It runs with the system's own python3, before there is a virtual environment: standard library only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from mailops.errors import MailopsError
from mailops.lab import demo_packages
from mailops.lab.host import INOTIFY_ENOUGH
from mailops.lab.layout import BASE, BRIDGE, NETWORK, labs

PROJECT = Path(__file__).parents[2]
VENV = PROJECT / ".venv"
LAB = "demo"
KEPT = "MAILOPS_LAB_DIR,PIP_NO_CACHE_DIR,PYTHONDONTWRITEBYTECODE,TERM,http_proxy,https_proxy,no_proxy"

# Nothing but the places that are announced: no byte code of root's in the checkout, no cache in a home.
QUIET = {"PIP_NO_CACHE_DIR": "1", "PYTHONDONTWRITEBYTECODE": "1"}

ANNOUNCEMENT = """\
mailops demo: a bare Debian becomes a mail server, on throwaway machines inside this computer.

What it does to this computer:
  packages  {packages}
  network   a bridge {bridge} with {network}.0.0/16, without a way out
  disk      {base}, about 2 GB: the machines, their images, Debian's packages
  here      .venv, the Python packages that requirements.lock names
  kernel    the limit of inotify instances becomes {inotify} until the next boot
It boots machines, so it needs root{sudo}. The first run takes about five minutes, later ones two.
`script/demo --remove` takes all of it away again.
"""


def main(argv: list[str]) -> int:
    options = arguments().parse_args(argv)
    os.environ.update(QUIET)
    os.chdir(PROJECT)
    try:
        return remove(argv) if options.remove else run(argv)
    except MailopsError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("\ndemo: interrupted; run it again, or script/demo --remove", file=sys.stderr)
        return 130


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("script/demo", description="The main job of mailops, shown on throwaway machines.")
    parser.add_argument("--debian", type=int, choices=(12, 13), default=13, help="the mail server's release (13)")
    parser.add_argument("--record", type=Path, metavar="FILE.svg", help="save a picture of the run; needs a terminal")
    parser.add_argument(
        "--remove", action="store_true", help="take away all that the demo brought, and do nothing else"
    )
    parser.add_argument("--all", action="store_true", help="with --remove: the labs that are not the demo's, too")
    return parser


def run(argv: list[str]) -> int:
    missing = demo_packages.missing()
    print(announcement(missing), flush=True)
    if missing and (code := privileged("mailops.lab.demo_packages", [])):
        return code
    setup()
    return privileged("mailops.lab.demo_play", argv)


def announcement(missing: list[str]) -> str:
    packages = f"installs {', '.join(missing)} and what they need" if missing else "all it needs are there"
    sudo = "" if os.geteuid() == 0 else " (sudo may ask for your password)"
    return ANNOUNCEMENT.format(
        packages=packages, bridge=BRIDGE, network=NETWORK, base=BASE, inotify=INOTIFY_ENOUGH, sudo=sudo
    )


def remove(argv: list[str]) -> int:
    """Everything that a demo leaves behind, in whatever state it was left."""
    if BASE.exists() or Path("/sys/class/net", BRIDGE).exists():
        if labs() and not ready():
            setup()
        code = privileged("mailops.lab.demo_remove", argv)
        if code or BASE.exists():  # a lab that is not the demo's stays, and with it what it needs
            return code
    else:
        print(f"there is no {BASE} and no {BRIDGE} here")
    if VENV.exists():
        shutil.rmtree(VENV)
        print("removed .venv")
    return 0


def ready() -> bool:
    return (VENV / "bin/fab").exists()


def setup() -> None:
    """The virtual environment, made as the user whose checkout this is, also under sudo."""
    owner = PROJECT.stat()
    command = ["script/setup"]
    if os.geteuid() == 0 and owner.st_uid != 0:
        ids = [f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups"]
        command = ["env", f"HOME={PROJECT}", "setpriv", *ids, *command]
    if subprocess.run(command, check=False).returncode:
        raise MailopsError("the virtual environment could not be made", "the reason is above; then run it again")


def privileged(module: str, argv: list[str]) -> int:
    """Run a module of ours as root, with the virtual environment if there is one; returns its exit code."""
    python = VENV / "bin/python" if ready() else sys.executable
    process = subprocess.Popen([*as_root(), str(python), "-B", "-m", module, *argv])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # it had the same Ctrl-C, and ends by itself
            continue


def as_root() -> list[str]:
    if os.geteuid() == 0:
        return []
    if not shutil.which("sudo"):
        raise MailopsError("this needs root, and there is no sudo here", "become root, then run it again")
    return ["sudo", f"--preserve-env={KEPT}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
