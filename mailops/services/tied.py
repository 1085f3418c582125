"""What ties units to the vault: a drop-in for each (systemd.unit(5)), and the lists of those that stop with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mailops.manifest import File, Unit
from mailops.services.service import Tie

DROP_IN = """# What needs the vault runs only while that is open: never at boot, and it stops when the vault goes away.

[Unit]
BindsTo=mailops-vault.service
After=mailops-vault.service
"""
ASSERTION = "AssertPathIsMountPoint={vault}\n"
# Required, and not bound to: or else systemd would stop them for good when the queue's own unit has to come back.
QUEUE = """
[Unit]
Requires=mailops-queue.service
After=mailops-queue.service
AssertPathIsMountPoint={queue}
"""
MEMORY = """
[Service]
# Its memory must not be found on the disk: neither in a core dump nor in the swap space.
LimitCORE=0
MemorySwapMax=0
"""


def files(ties: Iterable[Tie], vault: str, queue: str) -> list[File]:
    """The drop-ins; `vault` and `queue` are where the two are shown."""
    made: dict[str, str] = {}
    for tie in ties:
        text = DROP_IN + ASSERTION * (not tie.timed) + QUEUE * tie.queue + MEMORY * tie.unit.endswith(".service")
        made[f"/etc/systemd/system/{tie.unit}.d/mailops-vault.conf"] = text.format(vault=vault, queue=queue)
    return [File(path, text.encode()) for path, text in made.items()]


def marked(units: Iterable[Unit], ties: Iterable[Tie]) -> Iterable[Unit]:
    """The units, and whether each waits for the vault."""
    waiting = {tie.unit for tie in ties}
    return [unit._replace(mail=unit.unit in waiting) for unit in units]


def names(ties: Iterable[Tie]) -> dict[str, Any]:
    """For the templates of the vault and of the queue: the units that stop with the one, and those with the other
    (`queue_processes`: by every name that their processes have). What was started last stops first.
    """
    services = [tie for tie in reversed(tuple(ties)) if tie.unit.endswith(".service")]
    queue = [tie.unit for tie in services if tie.queue]
    return {
        "vault_units": [tie.unit for tie in services if "@" not in tie.unit],
        "queue_units": [unit for unit in queue if "@" not in unit],
        "queue_processes": [unit.replace("@.", "@*.") for unit in queue],
    }
