"""Redis: what Rspamd has learnt and counts, kept in the vault."""

from __future__ import annotations

from mailops.manifest import Check, Directory, Probe, Unit
from mailops.services.service import LOCAL, At, Service, Tie

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
        units=(Unit(UNIT, ("/etc/redis",), "restart", checks=(Check("redis", {"vault": at.site.vault}),)),),
        ties=(Tie(UNIT),),
        probes=(Probe("redis", options={"socket": SOCKET, "user": "_rspamd"} | WRITE, service=UNIT),),
        names={"redis_socket": SOCKET},
        attributes={CONF: (0o640, "root", "redis")},
        additions={CONF: (f"{LOCAL}/redis/redis.conf", "append")},
    )
