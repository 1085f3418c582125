"""The files of an apt source that gives a few packages and nothing else (sources.list(5), apt_preferences(5))."""

from __future__ import annotations

from mailops.manifest import File, Source

CODE_NAMES = {12: "bookworm", 13: "trixie"}

# Its key counts for this source alone, and no other key for this source.
SOURCE = """# Written by mailops.
Types: deb
URIs: {url}
Suites: {suite}
Components: main
Signed-By:
{key}
"""
# The names come before what holds for all: the first sentence forbids the host everything that they do not allow.
PREFERENCES = """# Written by mailops: from {host} come these packages alone, whatever else it offers.
Package: *
Pin: origin "{host}"
Pin-Priority: -1

Package: {packages}
Pin: origin "{host}"
Pin-Priority: 990
"""


def files(source: Source, key: str) -> tuple[File, ...]:
    """For the source signed by `key`, a public key in ASCII armour."""
    host = source.url.split("/")[2].partition(":")[0]
    lines = "\n".join(f" {line or '.'}" for line in key.splitlines())
    text = SOURCE.format(url=source.url, suite=source.suite, key=lines)
    preferences = PREFERENCES.format(host=host, packages=" ".join(source.packages))
    return (
        File(f"/etc/apt/preferences.d/mailops-{source.name}", preferences.encode()),
        File(f"/etc/apt/sources.list.d/mailops-{source.name}.sources", text.encode()),
    )
