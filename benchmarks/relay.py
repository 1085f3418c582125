"""The wire of the delay line: every frame between two TAP devices waits half a round trip.

A program of its own (`python relay.py BRIDGE_SIDE CLIENT_SIDE`), standard library only. It makes the first
device where it is started and the second in a network namespace that it makes for itself, so both devices and
the namespace are gone when it ends, however it ends. It says `ready`, and then takes round trips from stdin,
milliseconds on a line each, and answers each with `set`. After the end of stdin it hands on at once what still comes,
until nobody is left in its network: a connection that ends in silence would stay open on the machine for minutes.

Why packets and not a TCP proxy: a proxy ends the connection at both its sides, and hides what Nagle's algorithm,
delayed acknowledgements and slow start cost over a distance. The devices take part in all of that.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import os
import select
import struct
import sys
import time
from collections import deque

TUN = "/dev/net/tun"
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h
CLONE_NEWNET = 0x40000000  # sched.h; os.unshare comes with Python 3.12
LONGEST = 65536  # bytes in one frame
BURST = 64  # frames taken from one device before the other has its turn
CONTROL = 0  # stdin
LAST_WORDS, PATIENCE = 0.5, 60.0  # seconds that the line stays after its last user is gone, and at most
# Seconds before a frame is due from which we look at the clock instead of sleeping: a sleep ends that much too late.
WATCHFUL = 0.0004

Queue = deque[tuple[float, bytes]]  # when to hand on a frame (seconds of the monotonic clock), the frame


def main(bridge_side: str, client_side: str) -> int:
    bridge = tap(bridge_side)
    own_network()
    client = tap(client_side)
    be_punctual()
    print("ready", flush=True)
    carry(bridge, client)
    return 0


def tap(name: str) -> int:
    """A TAP device in the network namespace that we are in; it lives as long as the descriptor."""
    fd = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


def own_network() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace can be made")


def be_punctual() -> None:
    """Before every other process, for the few microseconds that a frame takes: late frames would be our own delay."""
    gc.disable()
    with contextlib.suppress(OSError):  # not in every container
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))


def carry(bridge: int, client: int) -> None:
    """Carry frames both ways until stdin ends and nobody is there any more."""
    way = 0.0  # seconds in one direction
    queues: dict[int, Queue] = {bridge: deque(), client: deque()}  # by the device that they are for
    while True:
        readable, _, _ = select.select([bridge, client, CONTROL], [], [], until_due(queues))
        move(readable, queues, bridge, client, way)
        if CONTROL in readable:
            line = os.read(CONTROL, 64)
            if not line:
                break
            way = float(line.split()[-1]) / 2000
            print("set", flush=True)
    latest = time.monotonic() + PATIENCE
    while time.monotonic() < latest:
        empty = not others_here()
        end = time.monotonic() + LAST_WORDS
        while (left := end - time.monotonic()) > 0:
            readable, _, _ = select.select([bridge, client], [], [], left)
            move(readable, queues, bridge, client, 0.0)
        if empty:
            return


def move(readable: list[int], queues: dict[int, Queue], bridge: int, client: int, way: float) -> None:
    """Take what has come in, and hand on what has waited long enough."""
    for source, target in ((bridge, client), (client, bridge)):
        if source in readable:
            queues[target].extend((time.monotonic() + way, frame) for frame in waiting(source))
    for target, queue in queues.items():
        deliver(queue, target)


def others_here() -> bool:
    """Whether any other process is in our network namespace."""
    here = os.stat("/proc/self/ns/net").st_ino
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if os.stat(f"/proc/{entry.name}/ns/net").st_ino == here:
                    return True
    return False


def until_due(queues: dict[int, Queue]) -> float | None:
    """Seconds until the next frame is due; select(2) keeps to microseconds. None: there is none."""
    due = min((queue[0][0] for queue in queues.values() if queue), default=None)
    return None if due is None else max(0.0, due - WATCHFUL - time.monotonic())


def waiting(source: int) -> list[bytes]:
    frames: list[bytes] = []
    with contextlib.suppress(BlockingIOError):
        while len(frames) < BURST:
            frames.append(os.read(source, LONGEST))
    return frames


def deliver(queue: Queue, target: int) -> None:
    while queue and queue[0][0] <= time.monotonic():
        with contextlib.suppress(OSError):  # a device that is down drops what it gets, as a cable does
            os.write(target, queue[0][1])
        queue.popleft()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
