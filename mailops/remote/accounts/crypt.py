"""Hashing mailbox passwords with the machine's own libcrypt, in the form that Dovecot stores.

Python 3.13 has no `crypt` module, and the agent has the standard library alone, so libxcrypt is called
through ctypes (crypt_gensalt_rn(3), crypt_rn(3)). The laptop hashes with passlib, in the same form.
"""

from __future__ import annotations

import ctypes
import os

from ..shared.errors import AgentError
from ..shared.passwords import ROUNDS, SCHEME, check

CRYPT_DATA_SIZE = 32768  # sizeof(struct crypt_data), <crypt.h>
CRYPT_GENSALT_OUTPUT_SIZE = 192  # <crypt.h>


def hash_password(pw: str) -> str:
    """`{BLF-CRYPT}$2b$10$…` of a new random salt; AgentError for a password that `check` refuses."""
    return SCHEME + _crypt(check(pw), _salt())


def _salt() -> bytes:
    output = ctypes.create_string_buffer(CRYPT_GENSALT_OUTPUT_SIZE)
    gensalt = _libcrypt().crypt_gensalt_rn
    gensalt.restype = ctypes.c_char_p
    gensalt.argtypes = [
        ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int
    ]  # fmt: skip
    salt = gensalt(b"$2b$", ROUNDS, os.urandom(16), 16, output, len(output))
    if not salt or not salt.startswith(b"$2b$"):
        raise AgentError("libcrypt makes no salt for bcrypt")
    return bytes(salt)


def _crypt(phrase: bytes, setting: bytes) -> str:
    """crypt_rn(3), which says NULL where crypt_r(3) would give a "*0" that looks like a hash."""
    data = ctypes.create_string_buffer(CRYPT_DATA_SIZE)
    crypt = _libcrypt().crypt_rn
    crypt.restype = ctypes.c_char_p
    crypt.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int]
    try:
        hashed = crypt(phrase, setting, data, len(data))
    finally:
        ctypes.memset(data, 0, len(data))
    # ctypes has copied the result by now, so wiping the buffer does not touch it.
    if not hashed or hashed.startswith(b"*") or len(hashed) != 60:
        raise AgentError("libcrypt does not hash with bcrypt")
    return str(hashed.decode("ascii"))


def _libcrypt() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcrypt.so.1", use_errno=True)
    except OSError:
        raise AgentError("libcrypt.so.1 is missing on this machine", hint="apt install libcrypt1") from None
