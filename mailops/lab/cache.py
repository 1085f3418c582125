"""apt-cacher-ng for all labs: machines get Debian's packages without a route to anywhere.

It runs out of the `world` image, on this computer's network, so nothing is installed here. It listens
on the bridge alone.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from mailops.lab import power
from mailops.lab.layout import BASE, THIS_COMPUTER

PORT = 3142
PROXY = f"http://{THIS_COMPUTER}:{PORT}"
FOLDER = BASE / "cache"

# $1 is the image, $2 the cache's folder. The mounts live in a namespace that dies with the process.
# setpriv comes once more at the end, because a change of user forgets the first one's request.
INSIDE = """
mount --bind "$2/packages" "$1/var/cache/apt-cacher-ng"
mount --bind "$2/log" "$1/var/log/apt-cacher-ng"
for file in resolv.conf hosts; do mount --bind /etc/$file "$1/etc/$file"; done
chroot "$1" chown apt-cacher-ng: /var/cache/apt-cacher-ng /var/log/apt-cacher-ng
image=$1; shift 2
exec chroot --userspec=apt-cacher-ng:apt-cacher-ng "$image" setpriv --pdeathsig KILL apt-cacher-ng "$@"
"""


def start(image: Path) -> None:
    """Start it unless it runs, and wait until it answers. Call it with the lock "computer" held."""
    if answers():
        return
    stop()
    for part in ("packages", "log"):
        (FOLDER / part).mkdir(parents=True, exist_ok=True)
    link = FOLDER / "image"
    link.unlink(missing_ok=True)
    link.symlink_to(image)
    power.turn_on("mailops-lab-cache", FOLDER, _command(image))
    power.wait(answers, 20, f"the package cache does not start (see {FOLDER}/console.log)")


def _command(image: Path) -> list[str]:
    settings = ["ForeGround=1", f"BindAddress={THIS_COMPUTER}", f"Port={PORT}", "SocketPath=", "ReportPage="]
    upstream = os.environ.get("http_proxy")
    if upstream:
        settings.append(f"Proxy={upstream}")
    private = ["unshare", "--mount", "--propagation=private"]
    script = ["sh", "-euc", INSIDE, "cache", str(image), str(FOLDER)]
    return [*private, *script, "-c", "/etc/apt-cacher-ng", *settings]


def answers() -> bool:
    try:
        socket.create_connection((THIS_COMPUTER, PORT), timeout=1).close()
    except OSError:
        return False
    return True


def stop() -> None:
    power.cut(FOLDER)
