"""Passwords of mailboxes: which ones are taken, and the form in which both halves hash them."""

from __future__ import annotations

import re

from .errors import BAD_INPUT, AgentError

SCHEME = "{BLF-CRYPT}"  # bcrypt, as the accounts have it
ROUNDS = 10  # 2^10 iterations: about 80 ms for each login
SHORTEST = 8  # characters of a new one; one that is in use already may be shorter
LONGEST = 72  # bytes; bcrypt silently ignores whatever follows, so more is refused
FORM = re.compile(r"\{BLF-CRYPT\}\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")


def check(pw: str) -> bytes:
    """`pw` in the bytes that are hashed; AgentError when bcrypt would cut it short. Never says what it is."""
    try:
        data = pw.encode()
    except UnicodeEncodeError:  # bytes that the terminal's encoding does not have
        raise AgentError("the password is not valid UTF-8", code=BAD_INPUT) from None
    if not data:
        raise AgentError("the password is empty", code=BAD_INPUT)
    if b"\0" in data:
        raise AgentError("the password has a NUL character, where bcrypt would end it", code=BAD_INPUT)
    if len(data) > LONGEST:
        raise AgentError(
            f"the password has {len(data)} bytes, and bcrypt would ignore all but the first {LONGEST}", code=BAD_INPUT
        )
    return data


def check_new(pw: str) -> None:
    """As `check`, and AgentError when somebody would guess it before long."""
    check(pw)
    if len(pw) < SHORTEST:
        raise AgentError(f"the password has {len(pw)} characters, and {SHORTEST} are the least", code=BAD_INPUT)


def is_hash(text: str) -> bool:
    return bool(FORM.fullmatch(text))
