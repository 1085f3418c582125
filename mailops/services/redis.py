"""Redis: what Rspamd has learnt and counts, kept in the vault."""

from __future__ import annotations

from mailops.manifest import Directory, Probe, Unit
from mailops.services.service import LOCAL, At, Service, Tie
from mailops.site.model import Site

UNIT = "redis-server.service"
SOCKET = "/run/redis/redis-server.sock"
CONF = "/etc/redis/redis.conf"

# A write that leaves nothing behind (redis.io/commands/setrange): refused while the disk fails, the memory is full, or
# this one only copies another.
WRITE = {"line": 'SETRANGE mailops-probe 0 ""', "answer": ":0"}


def service(at: At) -> Service:
    return Service(
        packages=("redis-server",),
        # What Redis makes here belongs to vmail (see mailops-vault.service) and, by the directory, to group redis.
        directories=(Directory(f"{at.site.vault}/redis", 0o2770, "redis", "redis"),),
        units=(Unit(UNIT, ("/etc/redis",), "restart", checks=(_check(at.site),)),),
        ties=(Tie(UNIT),),
        probes=(Probe("redis", options={"socket": SOCKET, "user": "_rspamd"} | WRITE, service=UNIT),),
        names={"redis_socket": SOCKET},
        attributes={CONF: (0o640, "root", "redis")},
        additions={CONF: (f"{LOCAL}/redis/redis.conf", "append")},
    )


def _check(site: Site) -> tuple[str, ...]:
    """Redis has no check of its own: it reads the file up to a last directive that it cannot know, and ends there.

    Nothing is opened by then but what `dir`, `include` and `loadmodule` name; the vault may be locked.
    """
    read = f"grep -vx 'dir {site.vault}/redis' {CONF} | redis-server - --pidfile '' --logfile ''"
    wrong = 'grep -v mailops-checked | grep -A1 -e ">>>" -e "atal error" -e "failed to load"'
    script = f'said=$({read} --mailops-checked 1 2>&1); wrong=$(echo "$said" | {wrong}); '
    plain = r"sed 's/^[0-9]*:[A-Z] .* [#*] //'"  # no process number, no time
    script += 'case "$said" in *mailops-checked*) [ "$wrong" ] || exit 0 ;; esac; '
    script += f'echo "${{wrong:-$said}}" | {plain} >&2; exit 1'
    return ("sh", "-c", script)
