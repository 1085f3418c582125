"""What each kind of machine is made to be, byte for byte: a change that only moves code leaves it as it was.

tests/unit/golden/ has a line for each part of a manifest and each file; one that changes it on purpose makes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailops.manifest import Manifest
from tests.unit.test_roles import RELEASES, manifest

GOLDEN = Path(__file__).parent / "golden"
ANEW = ".venv/bin/python -m tests.unit.test_golden"
MACHINES = {
    f"{role}-{release}": (host, release)
    for role, host in (("mailhost", "mail"), ("mailnull", "backup"))
    for release in RELEASES
}


def lines(made: Manifest) -> Iterator[str]:
    """Everything in a manifest's JSON, in its order: a line for a value, for an item of a list, for a file."""
    for field, value in made.to_json().items():
        for item in value if isinstance(value, list) else [value]:
            if field == "files":
                yield f"file {item.pop('path')} {item.pop('mode'):04o} {item.pop('sha256')} {json.dumps(item)}"
            elif isinstance(item, dict):
                yield from (f"{field} {line}" for line in _of(item))
            else:
                yield f"{field} {json.dumps(item)}"


def _of(item: dict[str, object]) -> Iterator[str]:
    """One that has lists of its own (the vault's directories) is told in several lines."""
    lists = {key: value for key, value in item.items() if isinstance(value, list) and len(value) > 3}
    yield json.dumps({key: value for key, value in item.items() if key not in lists})
    for key, value in lists.items():
        yield from (f"{key} {json.dumps(part)}" for part in value)


def text(machine: str) -> str:
    host, release = MACHINES[machine]
    return "".join(f"{line}\n" for line in lines(manifest(host, release, certificate="PEM\n")))


@pytest.mark.parametrize("machine", MACHINES)
def test_a_manifest_is_what_it_was(machine: str) -> None:
    before, now = (GOLDEN / machine).read_text().splitlines(), text(machine).splitlines()
    differ = [f"- {line}" for line in before if line not in now] + [f"+ {line}" for line in now if line not in before]
    assert now == before, "\n".join([f"{machine} has changed. If that is on purpose: {ANEW}", *differ])


if __name__ == "__main__":
    for machine in MACHINES:
        (GOLDEN / machine).write_text(text(machine))
