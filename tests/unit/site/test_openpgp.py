"""A pinned key: its fingerprint as gpg names it, and nothing but that key on the machine."""

from __future__ import annotations

import base64
import re

import pytest

from mailops.site import openpgp

# Made by gpg --quick-gen-key for these tests; nobody has its other half any more.
KEY = """\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawoUCRYJKwYBBAHaRw8BAQdANUGYr2D/wahs4cb60QNjUPth2JXDJ5Qf5Kcd
+jxuCcS0K0Vsc2V3aGVyZSAodGhyb3ctYXdheSkgPGFwdEBlbHNld2hlcmUudGVz
dD6IkAQTFggAOBYhBBqcmp6U0qnHGRaXJCapk8meShbVBQJrChQJAhsDBQsJCAcC
BhUKCQgLAgQWAgMBAh4BAheAAAoJECapk8meShbVY8AA/Atp8JjJwTqEKLjYPjfY
e1RRgkpTD/PDhJLSGG8VFrR7AP4rLnWo2wH3BOpbm96GilB8XmPBNPsMjoTXf2Eu
n9o6AQ==
=QPuC
-----END PGP PUBLIC KEY BLOCK-----
"""
FINGERPRINT = "1A9C9A9E94D2A9C71916972426A993C99E4A16D5"
HEAD, TAIL = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n", "-----END PGP PUBLIC KEY BLOCK-----\n"
BINARY = base64.b64decode("".join(line for line in KEY.splitlines()[2:-1] if line[0] != "="))
SIZE = BINARY[1]  # of the body of the first packet, which has an old head of two octets


def armour(binary: bytes) -> str:
    return f"{HEAD}{base64.b64encode(binary).decode()}\n{TAIL}"


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        KEY.replace("\n", "\r\n"),
        f"A key of ours:\n{KEY}\nand good-bye",
        KEY.replace("-----\n\n", "-----\nVersion: 2\nComment: x\n\n"),
        armour(BINARY),
        armour(bytes([0xC6, SIZE]) + BINARY[2:]),
        armour(bytes([0xC6, 0xFF, 0, 0, 0, SIZE]) + BINARY[2:]),
        armour(bytes([0x99, 0, SIZE]) + BINARY[2:]),
    ],
    ids=["plain", "CRLF", "words around it", "headers", "no checksum", "new head", "long new head", "long old head"],
)
def test_the_fingerprint_is_that_of_gpg_however_the_key_is_wrapped(text: str) -> None:
    fingerprint, armoured = openpgp.public_key(text)
    assert fingerprint == FINGERPRINT
    assert openpgp.public_key(armoured) == (fingerprint, armoured)
    assert len(re.findall("BEGIN", armoured)) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "does not hold one ASCII-armoured public key"),
        (KEY + KEY, "does not hold one ASCII-armoured public key"),
        (armour(BINARY * 2), "holds 2 public keys, and apt would believe each of them"),
        (KEY.replace("PUBLIC", "PRIVATE"), "holds a private key"),
        (armour(bytes([0xC5, SIZE]) + BINARY[2:]), "holds a private key"),
        (armour(BINARY[SIZE + 2 :]), "holds 0 public keys, and apt would believe each of them"),
        (armour(BINARY[:2] + b"\x06" + BINARY[3:]), "holds a key that is not of version 4, as apt wants it"),
        (armour(b""), "is damaged"),
        (armour(BINARY[:-5]), "is damaged"),
        (armour(b"\x98"), "is damaged"),
        (armour(b"\x9b\x01" + BINARY), "is damaged"),
        (KEY.replace("mDME", "m?ME"), "is damaged"),
        (HEAD + "gibberish" + TAIL, "is damaged"),
    ],
)
def test_what_is_no_public_key_alone_is_refused(text: str, told: str) -> None:
    with pytest.raises(openpgp.BadKey, match=f"^{re.escape(told)}$"):
        openpgp.public_key(text)
