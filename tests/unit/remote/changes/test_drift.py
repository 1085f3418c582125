"""How a file differs from another time of it, in a word."""

from __future__ import annotations

import pytest

from mailops.remote.changes import drift
from mailops.remote.shared.forms import State

PLAIN: State = {"sha256": "a", "mode": 0o644, "uid": 0, "gid": 0}
LINK: State = {"link": "/etc/x"}


@pytest.mark.parametrize(
    ("was", "now", "word"),
    [
        (None, PLAIN, "new"),
        (PLAIN, None, "removed"),
        (PLAIN, {**PLAIN, "mode": 0o600}, "mode"),
        (PLAIN, {**PLAIN, "sha256": "b"}, "changed"),
        (PLAIN, LINK, "changed"),
        (LINK, {"link": "/etc/y"}, "changed"),
    ],
)
@pytest.mark.parametrize("secret", [True, False])
def test_a_difference_has_its_word_whatever_may_be_shown_of_it(was: State, now: State, word: str, secret: bool) -> None:
    found = drift.difference("/etc/x", was, now, secret, [b"then", b"now"])
    assert found["state"] == word
    assert (found["before"], found["after"]) == ((None, None) if secret else ("dGhlbg==", "bm93"))
