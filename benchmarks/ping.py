"""`python ping.py ADDRESS COUNT`: round trips in milliseconds, a line each (ICMP echo, RFC 792).

A program of its own, because it runs at the far end of a delay line; and not ping(8), which few servers have.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time

ECHO, ECHO_REPLY = 8, 0
PATIENCE = 3.0  # seconds


def main(address: str, count: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((address, 0))
        for number in range(int(count)):
            print(f"{round_trip(sock, number) * 1000:.3f}", flush=True)
            time.sleep(0.05)
    return 0


def round_trip(sock: socket.socket, number: int) -> float:
    """Seconds until the answer. TimeoutError when there is none."""
    packet = echo(os.getpid() & 0xFFFF, number)
    began = time.perf_counter()
    sock.send(packet)
    while True:
        answer = sock.recv(2048)
        seconds = time.perf_counter() - began
        body = answer[(answer[0] & 15) * 4 :]  # what follows the IP header
        if body[0] == ECHO_REPLY and body[4:] == packet[4:]:
            return seconds


def echo(identifier: int, number: int) -> bytes:
    body = struct.pack("!HH", identifier, number) + b"mailops."
    return struct.pack("!BBH", ECHO, 0, checksum(struct.pack("!BBH", ECHO, 0, 0) + body)) + body


def checksum(data: bytes) -> int:
    """RFC 1071; `data` has an even length."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except OSError as error:
        sys.exit(f"no answer from {sys.argv[1]}: {error}")
