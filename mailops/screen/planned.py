"""What a run would change, or has changed, as a person counts it: with verbs, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Changes = Mapping[str, Sequence[str]]

# The part of a machine -> what is done, to one of what, to several. A part without a line is counted among the others.
VERBS = {
    "packages": ("install", "package", "packages"),
    "users": ("make", "system user", "system users"),
    "directories": ("make", "directory", "directories"),
    "files": ("change", "file", "files"),
    "certificates": ("make", "certificate", "certificates"),
    "accounts": ("add", "account or alias", "accounts and aliases"),
    "dkim": ("make", "DKIM key", "DKIM keys"),
    "services": ("start or tell", "service", "services"),
}


def count(changes: Changes) -> str:
    """`12 changes: install 3 packages, change 9 files`; "" for none."""
    numbers = {part: len(lines) for part, lines in changes.items() if lines}
    total = sum(numbers.values())
    if not total:
        return ""
    told = [
        f"{verb} {numbers[part]} {several if numbers[part] > 1 else one}"
        for part, (verb, one, several) in VERBS.items()
        if part in numbers
    ]
    others = sum(number for part, number in numbers.items() if part not in VERBS)
    if others:
        told.append(f"{others} more" if told else "of the machine itself")
    return f"{total} change{'s' if total > 1 else ''}: {', '.join(told)}"


def next_steps(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What to type after a bootstrap of these machines; nothing where nothing has changed and nothing waits."""
    steps = [
        (f"fab -H {name} unlock", "opens the vault, and starts mail") for name, it in results.items() if it["locked"]
    ]
    changes: list[str] = [part for result in results.values() for part in result["changes"]]
    if "dkim" in changes:
        steps.append(("fab dkim.ls", "shows the DKIM records to publish in the DNS"))
    if "vault" in changes:
        steps.append(("fab user.add ADDRESS --generate", "adds a person, and says what to send to them"))
    if changes:
        steps.append(("fab status", "says how the machines are"))
    wide = max((len(command) for command, _ in steps), default=0)
    return [f"{'next:' if not number else '':<6}{step[0]:<{wide}}  {step[1]}" for number, step in enumerate(steps)]
