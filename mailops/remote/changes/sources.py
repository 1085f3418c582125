"""Packages that come from a source of the site's own instead of Debian: which these are, and the way there and back.

The source's files are files of the generation like any others. They let apt take these packages from there, and nothing
else (apt_preferences(5)). What is installed follows them, within the same change: proven with it, or undone with it.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from .. import machine
from ..shared.errors import AgentError
from ..system import dpkg, packages
from ..system.files import read, read_json
from ..system.shell import run, write_atomic

if TYPE_CHECKING:
    from ..shared.calls import Link
    from ..shared.forms import Manifest, Source, Taken

NOTE = f"{machine.STATE}/sources.json"  # the sources that the installed packages were taken from
PLACES = ("/etc/apt/sources.list.d/mailops-", "/etc/apt/preferences.d/mailops-")
LISTS = ("/etc/apt/sources.list", "/etc/apt/sources.list.d")
SILENT = "does not answer, does not offer it, or is signed with another key"
# As if nothing were installed: apt then names what it would take, which it does not for a package that is newer.
AFRESH = ("-o", "Dir::State::status=/dev/null", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=")


def named(wanted: Manifest) -> list[Source]:
    """The sources of a manifest; one that an earlier version made has none."""
    return wanted.get("sources") or []


def waiting(wanted: Manifest) -> list[str]:
    """The packages that come from elsewhere than `wanted` has it, with where they are to come from."""
    note = _note()
    if note == {"from": named(wanted)}:
        return []
    names = {name: source["url"] for source in named(wanted) for name in source["packages"]}
    others = {name: "Debian" for source in note["from"] for name in source["packages"] if name not in names}
    return [f"{name} from {place}" for name, place in {**names, **others}.items()]


def lacking(wanted: Manifest) -> list[str]:
    """The packages of the sources that are not installed at all."""
    names = [name for source in named(wanted) for name in source["packages"]]
    return dpkg.missing(names) if names else []


def refuse_shared(wanted: Manifest) -> None:
    """AgentError where a source's host serves others, too: apt knows sources by their host, and would hide those."""
    paths = [LISTS[0], *(f"{LISTS[1]}/{name}" for name in sorted(os.listdir(LISTS[1])))]
    for source in named(wanted):
        host = source["url"].split("/")[2].partition(":")[0]
        for path in paths:
            text = read(path).decode(errors="replace") if not path.startswith(PLACES) and os.path.isfile(path) else ""
            if any(f"://{host}{end}" in text for end in "/: \n"):
                told = f"{path} has a source on {host}, too, and apt could not keep it apart from {source['url']}"
                raise AgentError(told, "in hosts.toml, write the address of another mirror")


def require(wanted: Manifest, link: Link) -> None:
    """Before packages of the sources are installed for the first time, when apt takes what the preferences say.

    AgentError where a source does not offer one: Debian's is never taken instead in silence.
    """
    names = lacking(wanted)
    if names:
        packages.update(link)
    for source in named(wanted):
        for name in source["packages"]:
            if name in names and not _offered(name, source["url"]):
                told = f"{name} is to come from {source['url']} {source['suite']}, which {SILENT}"
                raise AgentError(
                    f"{told}; Debian's was not taken instead", "mend the source in hosts.toml, or choose Debian's there"
                )


class Move:
    """From the packages as they are to those of the sources that `wanted` names, and back."""

    def __init__(self, wanted: Manifest, link: Link) -> None:
        self.wanted, self.link, self.past = wanted, link, _note()
        sources = [*named(wanted), *self.past["from"]]
        self.before = {name: dpkg.version(name) for source in sources for name in source["packages"]}
        self.changed: list[str] = []
        self.reached = False  # whether everything comes from where it is to come

    def targets(self) -> dict[str, str]:
        """Package -> the version to take; none where one of them cannot be had now, which is told."""
        packages.update(self.link)
        urls = {name: source["url"] for source in named(self.wanted) for name in source["packages"]}
        found = {name: _offered(name, urls[name]) if name in urls else _candidate(name) for name in self.before}
        for name in [name for name, version in found.items() if not version]:
            self._stays(name, urls.get(name, "Debian"), SILENT)
        return found if all(found.values()) else {}

    def go(self) -> list[str]:
        """Take them; a line for each. A source that fails changes nothing and stops nobody: it is tried again."""
        targets = self.targets()
        news = {name: version for name, version in targets.items() if version != self.before[name]}
        if targets:
            _write({"from": [*self.past["from"], *named(self.wanted)], "underway": True})
        if news:
            self.changed = list(news)
            try:
                packages.take(news, self.link)
            except packages.Unfetched:
                self.changed, targets = [], {}
                _write(self.past)
                for name in news:
                    self._stays(name, "the place where it is to come from", "does not answer")
                return []
        self.reached = bool(targets)
        return [f"{name} {self.before[name]} → {version}" for name, version in news.items()]

    def settle(self) -> None:
        """What was taken works."""
        if self.reached:
            _write({"from": named(self.wanted)})

    def back(self) -> None:
        """Undo `go`. Where the version of before is not to be had any more it is that which apt would take."""
        if self.changed:
            there = {name: [version for version, _ in _rows(name)] for name in self.changed}
            past = {name: self.before[name] if self.before[name] in there[name] else _candidate(name) for name in there}
            packages.take(past, self.link)
        if self.reached or self.changed:
            _write(self.past)

    def _stays(self, name: str, place: str, why: str) -> None:
        self.link.say(f"{name} stays {self.before[name]}: {place} {why}; next: fab bootstrap, when it does")


def _note() -> Taken:
    nothing: Taken = {"from": []}
    return read_json(NOTE, f"as root there: rm {NOTE}; then fab -H NAME bootstrap", nothing) or nothing


def _write(note: Taken) -> None:
    write_atomic(NOTE, json.dumps(note).encode(), 0o600)


def _rows(name: str) -> list[tuple[str, str]]:
    """Version and address of each place that has the package, the newest first (apt-cache(8), madison)."""
    lines = run("apt-cache", "madison", name, check=False).stdout.splitlines()
    rows = [[part.strip() for part in line.split("|")] for line in lines if line.endswith(" Packages")]
    return [(row[1], row[2].split()[0]) for row in rows if len(row) == 3]


def _offered(name: str, url: str) -> str:
    """The newest version that a source has, "" for none."""
    return next((version for version, place in _rows(name) if place.rstrip("/") == url.rstrip("/")), "")


def _candidate(name: str) -> str:
    """The version that apt would take if the package were not there, "" for none."""
    said = run("apt-cache", *AFRESH, "policy", name, check=False).stdout
    found = next((line.split()[-1] for line in said.splitlines() if line.startswith("  Candidate: ")), "")
    return "" if found == "(none)" else found
