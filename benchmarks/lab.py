"""The machine that is measured: a replica of a small site with one mailhost, set up and ready, in a lab of its own."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from mailops.lab import replica
from mailops.lab.host import delete, last_words, plain_environment
from mailops.lab.layout import Lab, LabError, write

PROJECT = Path(__file__).parents[1]
FAB = PROJECT / ".venv/bin/fab"
BENCH = PROJECT / ".bench"  # what is made once and kept; git ignores it
HOME = BENCH / "home"  # nobody's ~/.ssh/config, ~/.ansible.cfg or cache but the benchmarks' own

NAME, FIRST = "bench", "bench-first"  # labs

SITE = """\
domain = "example.test"
admin_email = "admin@example.test"
mail_domains = ["example.test", "second.test"]
mail_users = [
    {{ email = "admin@example.test", pw = {{ env = "X" }} }},
    {{ email = "relay@example.test", pw = {{ env = "X" }} }},
    {{ email = "user1@example.test", pw = {{ env = "X" }} }},
    {{ email = "user2@second.test", pw = {{ env = "X" }} }},
]
mail_aliases = [
    {{ src = "sales@example.test", dst = "user1@example.test" }},
    {{ src = "info@second.test", dst = "user2@second.test" }},
]
cryptdir_pw = {{ env = "X" }}
dkim_selector = "202611"

[hosts.mail]
role = "mailhost"
debian = {release}
"""

# Of the two site files one says this, the other that, in bytes: the rendering differs in one file of Postfix.
LARGEST_MESSAGES = (52428800, 41943040)
CHANGED_FILE = "/etc/postfix/main.cf"


@dataclass(frozen=True)
class House:
    """The lab, and the two site files that differ in one file of the machine; the machine is set up as the first."""

    lab: Lab
    release: int
    sites: tuple[Path, Path]

    @property
    def hosts(self) -> Mapping[str, Mapping[str, Any]]:
        """The machines as the lab's hosts.toml has them: address, host_key, identity, user."""
        found: Mapping[str, Mapping[str, Any]] = tomllib.loads(self.lab.hosts_file.read_text())["hosts"]
        return found

    @property
    def host(self) -> Mapping[str, Any]:
        return self.hosts["mail"]

    @property
    def address(self) -> str:
        return str(self.host["address"])

    @property
    def known_hosts(self) -> Path:
        return self.lab.folder / "known_hosts"

    def fab(self, *words: str) -> None:
        """Run a task directly, not over a line; LabError with its last words if it fails."""
        done = subprocess.run(
            [FAB, *words],
            cwd=PROJECT,
            env=environment(self.sites[0]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,  # no terminal: the new vault's recovery key is nobody's
        )
        if done.returncode:
            raise LabError(f"`fab {' '.join(words)}` failed: {last_words(done.stderr or done.stdout)}")


def say(text: str) -> None:
    """Progress goes to stderr; stdout is for the figures."""
    print(f"bench  {text}", file=sys.stderr, flush=True)


def environment(site: Path) -> dict[str, str]:
    """What every contender runs with: no agent, no settings of the caller's."""
    HOME.mkdir(parents=True, exist_ok=True)
    return plain_environment() | {"HOME": str(HOME), "MAILOPS_SITE": str(site)}


@contextmanager
def house(options: argparse.Namespace) -> Iterator[House]:
    """The lab, up and its mailhost set up; taken down at the end, unless `options.keep`.

    What is there already, by --keep or from a killed run, is used again.
    """
    try:
        found = up(NAME, SITE, options.debian)
        say("fab -H mail bootstrap, in case there is something to do")
        found.fab("-H", "mail", "bootstrap")
        yield found
    finally:
        if not options.keep:
            say("taking the lab down")
            replica.down(NAME)


def up(name: str, site: str, release: int) -> House:
    """A lab with its machines on, as far as they are not; nothing is set up in them."""
    lab = Lab(name)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "hosts.toml"
        source.write_text(site.format(release=release))
        replica.up(source, name, say)
    found = House(lab, release, _two_sites(lab))
    keys = [f"{host['address']} {host['host_key']}\n" for host in found.hosts.values()]
    write(found.known_hosts, "".join(keys))
    return found


def clean() -> None:
    """Everything that benchmarks leave behind."""
    for name in (NAME, FIRST):
        if Lab(name).folder.exists():
            say(f'removing the lab "{name}"')
            replica.down(name)
    delete(BENCH)


def _two_sites(lab: Lab) -> tuple[Path, Path]:
    """The site, and the same with a one-line change."""
    made = []
    for number, limit in enumerate(LARGEST_MESSAGES, start=1):
        site: Any = tomlkit.parse(lab.hosts_file.read_text())
        site["override"] = {"message_size_limit": limit}
        path = lab.folder / f"site-{number}.toml"
        write(path, tomlkit.dumps(site))
        made.append(path)
    return made[0], made[1]
