"""Texts of a machine as they may reach a terminal: what would steer it, or hide or turn words, is spelt out."""

from __future__ import annotations

import re

ODD = re.compile(r"[^ -~]")
# What Unicode calls printable, and nobody sees: joiners, fillers, selectors of a variant, a pattern without dots.
UNSEEN = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def line(text: str) -> str:
    """For a place that has one line: `\\n` and tab are spelt out, too."""
    return ODD.sub(_harmless, text)


def lines(text: str) -> str:
    """For a place that may have several; a tab stays."""
    return ODD.sub(lambda found: found[0] if found[0] in "\n\t" else _harmless(found), text)


def _harmless(found: re.Match[str]) -> str:
    """A letter as it is. Else: C0, DEL, C1; what turns the direction of writing or ends a line elsewhere; other blanks;
    language tags; private and unknown ones; halves of a character (surrogates), which cannot be sent at all.
    """
    char = found[0]
    return char if char.isprintable() and not UNSEEN.match(char) else char.encode("unicode_escape").decode()
