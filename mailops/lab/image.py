"""Debian roots to lay machines over, built by mmdebstrap once and kept.

`debian12` and `debian13` are bare, as a provider hands them out: not even Python is there, because
installing what it needs is mailops' own work. `world` is what the rest of the world runs on.
"""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mailops.lab.host import delete, last_words, plain_environment
from mailops.lab.layout import BASE, LabError, labs, locked

Say = Callable[[str], None]

MIRROR = "http://deb.debian.org"
FRESH_SECONDS = 14 * 24 * 3600  # after that a machine would start with two weeks of updates to install

BARE = ("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "iproute2")
WORLD = (
    *("python3", "procps", "openssl", "curl", "gnutls-bin", "ca-certificates"),
    *("postfix", "swaks", "libnet-ssleay-perl", "libio-socket-ssl-perl"),
    *("knot", "knot-dnssecutils", "bind9-dnsutils", "apt-cacher-ng"),
)

# The apt timers could hold dpkg's lock at a moment of their own choosing; host keys belong to a machine.
SETTLE = """
systemctl --quiet enable systemd-networkd.service
systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer
rm -f /etc/ssh/ssh_host_* /etc/hostname
: > /etc/machine-id
: > /etc/resolv.conf
: > /etc/hosts
"""
SETTLE_WORLD = "systemctl --quiet disable postfix.service knot.service apt-cacher-ng.service\n"


@dataclass(frozen=True)
class Recipe:
    """All that decides what is in an image."""

    name: str
    suite: str
    packages: tuple[str, ...]
    settle: str  # a shell script, run inside when the packages are there

    @property
    def key(self) -> str:
        return f"{self.name}-{hashlib.sha256(repr(self).encode()).hexdigest()[:12]}"

    @property
    def sources(self) -> list[str]:
        return [
            f"deb {MIRROR}/debian {self.suite} main",
            f"deb {MIRROR}/debian {self.suite}-updates main",
            f"deb {MIRROR}/debian-security {self.suite}-security main",
        ]


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("world", "trixie", BARE + WORLD, SETTLE + SETTLE_WORLD),
        Recipe("debian13", "trixie", BARE, SETTLE),
        Recipe("debian12", "bookworm", BARE, SETTLE),
    )
}


def images(names: Iterable[str], say: Say) -> dict[str, Path]:
    """The newest image of each name, built side by side where there is none or only an old one."""
    wanted = [recipe for recipe in RECIPES.values() if recipe.name in set(names)]
    with ThreadPoolExecutor(max_workers=2) as pool:
        paths = list(pool.map(lambda recipe: image(recipe, say), wanted))
    return {recipe.name: path for recipe, path in zip(wanted, paths, strict=True)}


def image(recipe: Recipe, say: Say) -> Path:
    """The image of `recipe`. A second caller waits for the first, then finds it done."""
    folder = BASE / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(f"image-{recipe.name}") as lock:
        fresh = newest(recipe)
        if fresh:
            return fresh
        # We hold the lock, so whoever began these is gone.
        for abandoned in folder.glob(f".{recipe.name}-*"):
            delete(abandoned)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        half_built = folder / f".{recipe.key}-{stamp}"
        _build(recipe, half_built, lock, say)
        done = half_built.rename(folder / f"{recipe.key}-{stamp}")
        forget_old(recipe, keep=done)
        return done


def newest(recipe: Recipe) -> Path | None:
    """The newest finished image of exactly this recipe, unless it is too old."""
    built = sorted((BASE / "images").glob(f"{recipe.key}-*"))
    if built and time.time() - built[-1].stat().st_ctime < FRESH_SECONDS:
        return built[-1]
    return None


def forget_old(recipe: Recipe, keep: Path) -> None:
    """Delete the images of this name that no machine stands on."""
    used = {link.resolve() for lab in labs() for link in lab.machines.glob("*/image")}
    used.add((BASE / "cache" / "image").resolve())
    for old in (BASE / "images").glob(f"{recipe.name}-*"):
        if old != keep and old.resolve() not in used:
            delete(old)


def _build(recipe: Recipe, target: Path, lock: int, say: Say) -> None:
    say(f"building the image {recipe.name} (Debian {recipe.suite}): once, a minute or two")
    began = time.monotonic()
    # What it mounts, this computer never sees, and what it starts inherits the lock: if we are killed, all of
    # it goes too, and the next caller waits until it has.
    private = ["setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "--propagation=private"]
    done = subprocess.run(
        [*private, *_mmdebstrap(recipe, target)],
        env=plain_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        pass_fds=(lock,),
    )
    if done.returncode != 0:
        delete(target)
        raise LabError(
            f"building the image {recipe.name} failed: {last_words(done.stderr)}",
            f"can this computer reach {MIRROR}? then try again",
        )
    say(f"built the image {recipe.name} in {time.monotonic() - began:.0f} s")


def _mmdebstrap(recipe: Recipe, target: Path) -> list[str]:
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        '--aptopt=Acquire::Retries "3"',
        f"--include={','.join(recipe.packages)}",
        f"--customize-hook=chroot $1 sh -euc '{recipe.settle}'",
        recipe.suite,
        str(target),
        *recipe.sources,
    ]
