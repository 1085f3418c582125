"""The password of the filter's console, which is another one after each of its starts: for `fab tunnel`."""

from __future__ import annotations

import pwd
import re
from typing import TYPE_CHECKING

from .shared.errors import AgentError

if TYPE_CHECKING:
    from .shared.calls import Console, Link, TunnelArgs

# In memory, for root and the filter to read: /usr/lib/mailops/console-password writes it.
FILE = "/run/mailops-console/password.conf"
LINE = re.compile(r'^password = "([0-9a-f]{40})";$', re.MULTILINE)
SOCKETS = "/proc/net/tcp"  # proc_net(5)
LISTENS = "0A"


def call(args: TunnelArgs, link: Link) -> Console:
    """The agent call behind `fab tunnel`: {"password"}. args: the console's `port` on 127.0.0.1, and its `user`.

    While the filter is down anybody may listen there, and would be sent what the tunnel brings.
    """
    if (uid := _listener(args["port"])) not in (None, pwd.getpwnam(args["user"]).pw_uid):
        told = f"127.0.0.1 port {args['port']} is held by uid {uid}, and not by the console"
        raise AgentError(told, f"as root there: ss -ltnp 'sport = :{args['port']}'")
    try:
        with open(FILE, encoding="utf-8") as file:
            found = LINE.search(file.read())
    except FileNotFoundError:
        found = None
    if not found or uid is None:
        raise AgentError("the console has no password, or is not up yet", "fab -H NAME push")
    return {"password": found[1]}


def _listener(port: int) -> int | None:
    """The uid of who listens at 127.0.0.1."""
    with open(SOCKETS, encoding="ascii") as file:
        rows = [line.split() for line in file]
    here = f"{bytes([127, 0, 0, 1])[::-1].hex()}:{port:04X}".upper()
    return next((int(row[7]) for row in rows if row[1] == here and row[3] == LISTENS), None)
