"""Rspamd, the only milter: spam, the policies of domains, and DKIM signatures."""

from __future__ import annotations

from mailops.manifest import Check, Probe, Source, Unit, User
from mailops.services import apt, queue
from mailops.services.service import LOCAL, At, Service, Tie

UNIT = "rspamd.service"
# Its milters, below the queue directory: for what strangers send, and for what the site itself sends.
MILTERS = {"incoming": "rspamd/incoming.sock", "outgoing": "rspamd/outgoing.sock"}
# What its console writes to: ours, so that an edit there is one by hand, as any other.
CONSOLE = "/var/lib/rspamd"
ADDITIONS = "/etc/rspamd/additions.conf"
# Of the console; what is in it, mailops/remote/tunnel.py reads.
CONSOLE_KEY = "/run/mailops-console/password.conf"


def service(at: At) -> Service:
    sources = _sources(at)
    key = at.site.rspamd_upstream.key if at.site.rspamd_upstream else ""
    sockets = {way: f"{queue.FOLDER}/{socket}" for way, socket in MILTERS.items()}
    return Service(
        packages=("rspamd",),
        sources=sources,
        # It may open Redis's socket.
        users=(User("_rspamd", groups=("redis",)),),
        units=(Unit(UNIT, ("/etc/rspamd", CONSOLE), "reload", checks=(Check("rspamd"),)),),
        ties=(Tie(UNIT, queue=True),),
        probes=(Probe("milter", options=sockets, service=UNIT),),
        files=tuple(file for source in sources for file in apt.files(source, key)),
        attributes={
            # It is read as _rspamd, also when it may not be everybody's any more (see `remote.changes.additions.mode`).
            ADDITIONS: (0o644, "root", "_rspamd"),
            f"{CONSOLE}/": (0o644, "_rspamd", "_rspamd"),
        },
        additions={ADDITIONS: (f"{LOCAL}/rspamd/rspamd.conf", "append")},
        names={
            "milters": MILTERS,
            "console_password": CONSOLE_KEY,
            "milter_directory": f"/usr/bin/install -d -m 2750 -o _rspamd -g postfix {queue.FOLDER}/rspamd",
        },
    )


def _sources(at: At) -> tuple[Source, ...]:
    upstream = at.site.rspamd_upstream
    if at.site.rspamd != "upstream" or upstream is None:
        return ()
    return (Source("rspamd", upstream.url, upstream.suite or apt.CODE_NAMES[at.release], ("rspamd",)),)
