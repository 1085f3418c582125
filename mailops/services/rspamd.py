"""Rspamd, the only milter: spam, the policies of domains, and DKIM signatures."""

from __future__ import annotations

import shlex

from mailops.manifest import Probe, Source, Unit, User
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

# It ends well with an element that it does not know; then that is not all it says.
CHECK = (
    "sh",
    "-c",
    'said=$(rspamadm configtest 2>&1); [ "$said" = "syntax OK" ] || { echo "$said" >&2; exit 1; }',
)


def service(at: At) -> Service:
    sources = _sources(at)
    key = at.site.rspamd_upstream.key if at.site.rspamd_upstream else ""
    sockets = {way: f"{queue.FOLDER}/{socket}" for way, socket in MILTERS.items()}
    return Service(
        packages=("rspamd",),
        sources=sources,
        # It may open Redis's socket.
        users=(User("_rspamd", groups=("redis",)),),
        units=(Unit(UNIT, ("/etc/rspamd", CONSOLE), "reload", checks=(CHECK,), warm=_warm(at.release)),),
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


def _warm(release: int) -> tuple[str, ...]:
    """Compiles the list of all top-level domains (43 MB, ten seconds), which Rspamd keeps under a name made of it.

    Its own configuration, which says where the list is, is not there yet when this runs: dpkg brings that last.
    """
    folder = {12: "/usr/share/rspamd", 13: "/usr/share/publicsuffix"}[release]
    options = f'url_tld = "{folder}/effective_tld_names.dat"; hs_cache_dir = "/var/lib/rspamd";'
    conf = f"options {{ {options} }} actions {{ reject = 15; }}"
    compile_ = "rspamadm mime --config $conf urls /dev/null"
    script = f"umask 022; conf=/run/mailops/rspamd-warm.conf; echo {shlex.quote(conf)} >$conf; {compile_}; rm -f $conf"
    return ("sh", "-c", script)
