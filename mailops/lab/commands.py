"""`fab lab.*`: the replica's tasks, run as root whoever types them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from mailops.errors import BAD_INPUT, MailopsError
from mailops.lab.layout import BASE
from mailops.site import reader

KEPT = "MAILOPS_LAB,MAILOPS_LAB_DIR,MAILOPS_SITE"


def up(remove: bool = False) -> None:
    """MailopsError (2) where mail would go with its machine, and neither `remove` nor a person says that it may."""
    _as_root()
    from mailops.lab import replica

    source = _source()
    reader.load(source)  # a site that is wrong is told of before a machine is made
    hosts_file = replica.up(source, replica.default_name(), _say, _silent if remove else _ask)
    status(as_json=False)
    print(f"\nThe replica's site file, for the tasks that follow:\n  export MAILOPS_SITE={hosts_file}")


def _silent(_: list[str]) -> None: ...


def _ask(names: list[str]) -> None:
    """Of machines that the site does not have any more, or not like this."""
    told = f"{', '.join(names)}: hosts.toml does not have it like this any more, and the mail on it would be deleted"
    hint = "fab lab.up --remove deletes it; MAILOPS_LAB=NAME fab lab.up makes another lab beside this one"
    if not sys.stdin.isatty():
        raise MailopsError(told, hint, BAD_INPUT)
    if input(f"{told}. Delete? [y/N] ").strip().lower() not in ("y", "yes"):
        raise MailopsError("nothing was changed", hint)


def down() -> None:
    _as_root()
    from mailops.lab import replica
    from mailops.lab.layout import Lab

    lab = Lab(replica.default_name())
    if not lab.folder.exists():
        raise MailopsError(f"there is no lab {lab.name}", "MAILOPS_LAB=NAME fab lab.down removes another", BAD_INPUT)
    machines = replica.down(lab.name)
    _say(f"{lab.name} is gone: {', '.join(machines) or 'it had no machine'}")


def status(as_json: bool) -> None:
    _as_root()
    from mailops.lab import replica

    machines = replica.status(replica.default_name())
    if as_json:
        print(json.dumps(machines, indent=2))
        return
    if not machines:
        print("no machines; `fab lab.up` makes them")
    for machine in machines:
        print("{name:<10} {role:<9} Debian {debian}  {address:<15} {state}".format(**machine))


def shell(name: str) -> None:
    _as_root()
    from mailops.lab import replica

    replica.shell(replica.default_name(), name)


def reboot(name: str) -> None:
    _as_root()
    from mailops.lab import replica

    replica.reboot(replica.default_name(), name)
    print(f"{name} is back")


def publish(c: Any) -> None:
    """The mailhost's DKIM records, as an administrator would put them into the domains' zones."""
    _as_root()
    from mailops.dkim import keys
    from mailops.lab import replica

    records = [(record["name"], "TXT", record["value"]) for record in keys.records(c)]
    replica.publish(replica.default_name(), records)
    for name, _, _ in records:
        print(f"published {name}")


def _source() -> Path:
    """The site to replicate: never a replica, which MAILOPS_SITE names once there is one."""
    named = Path(os.environ.get("MAILOPS_SITE", "hosts.toml")).resolve()
    source = Path("hosts.toml").resolve() if named.is_relative_to(BASE) else named
    if not source.is_file():
        raise MailopsError(f"there is no {source}", "run this in the folder of a site", BAD_INPUT)
    return source


def _as_root() -> None:
    """Machines need root: start this very command again through sudo, which asks if it must."""
    if os.geteuid() != 0:
        sys.stdout.flush()
        os.execvp("sudo", ["sudo", f"--preserve-env={KEPT}", sys.executable, *sys.argv])  # noqa: S606


def _say(text: str) -> None:
    print(f"lab  {text}", flush=True)
