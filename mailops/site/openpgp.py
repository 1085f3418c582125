"""A public key as its owner publishes it (RFC 9580): armour taken off, looked at, and put on again.

apt believes every key that it finds in a keyring. So a pinned fingerprint means something only where there is one key,
and where the machine gets the very bytes that were looked at.
"""

from __future__ import annotations

import base64
import hashlib
import re
import textwrap

_BLOCK = re.compile(r"-----BEGIN PGP ([A-Z ]+)-----[ \t]*\r?\n(.*?)-----END PGP \1-----", re.DOTALL)
_PUBLIC_KEY, _SECRET_KEYS = 6, (5, 7)  # types of packets


class BadKey(ValueError):
    """What is wrong with a key, in words that follow its name."""


def public_key(text: str) -> tuple[str, str]:
    """The fingerprint of the one key in `text`, 40 hexadecimal digits, and its armour made anew. Raises `BadKey`."""
    blocks = _BLOCK.findall(text)
    if any("PRIVATE" in kind for kind, _ in blocks):
        raise BadKey("holds a private key")
    if len(blocks) != 1 or blocks[0][0] != "PUBLIC KEY BLOCK":
        raise BadKey("does not hold one ASCII-armoured public key")
    binary = _bare(blocks[0][1])
    packets = _packets(binary)
    if any(kind in _SECRET_KEYS for kind, _ in packets):
        raise BadKey("holds a private key")
    keys = [body for kind, body in packets if kind == _PUBLIC_KEY]
    if len(keys) != 1 or packets[0][0] != _PUBLIC_KEY:
        raise BadKey(f"holds {len(keys)} public keys, and apt would believe each of them")
    if keys[0][:1] != b"\x04":
        raise BadKey("holds a key that is not of version 4, as apt wants it")
    hashed = b"\x99" + len(keys[0]).to_bytes(2, "big") + keys[0]
    return hashlib.sha1(hashed, usedforsecurity=False).hexdigest().upper(), _armour(binary)


def _bare(inside: str) -> bytes:
    """Without the headers of the armour, which an empty line ends, and its checksum."""
    _, _, body = "\n".join(["", *map(str.strip, inside.splitlines())]).partition("\n\n")
    try:
        return base64.b64decode("".join(line for line in body.splitlines() if line[:1] != "="), validate=True)
    except ValueError:
        raise BadKey("is damaged") from None


def _packets(data: bytes) -> list[tuple[int, bytes]]:
    """The type and the body of each packet."""
    found = []
    try:
        while data:
            kind, start, size = _head(data)
            if len(data) < start + size:
                raise BadKey("is damaged")
            found.append((kind, data[start : start + size]))
            data = data[start + size :]
    except IndexError:
        raise BadKey("is damaged") from None
    if not found:
        raise BadKey("is damaged")
    return found


def _head(data: bytes) -> tuple[int, int, int]:
    """Of the first packet: its type, where its body begins, and the length of that (RFC 9580, 4.2)."""
    tag, first = data[0], data[1]
    if tag & 0xC0 == 0x80 and tag & 3 < 3:
        octets = 1 << (tag & 3)
        return (tag & 0x3C) >> 2, 1 + octets, int.from_bytes(data[1 : 1 + octets], "big")
    if tag & 0xC0 == 0xC0 and first < 192:
        return tag & 0x3F, 2, first
    if tag & 0xC0 == 0xC0 and first < 224:
        return tag & 0x3F, 3, ((first - 192) << 8) + data[2] + 192
    if tag & 0xC0 == 0xC0 and first == 255:
        return tag & 0x3F, 6, int.from_bytes(data[2:6], "big")
    raise BadKey("is damaged")


def _armour(binary: bytes) -> str:
    body = textwrap.fill(base64.b64encode(binary).decode(), 64)
    return f"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{body}\n-----END PGP PUBLIC KEY BLOCK-----\n"
