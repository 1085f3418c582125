"""Texts of a machine as they may reach a terminal: what would steer it, or hide or turn words, is spelt out."""

from __future__ import annotations

import re

# C0, DEL, C1; what is not seen; what turns the direction of writing (bidi) or ends a line elsewhere; language tags;
# and halves of a character (surrogates), which no terminal could be sent at all.
UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    r"\U000e0000-\U000e007f]"
)


def line(text: str) -> str:
    """For a place that has one line: `\\n` and tab are spelt out, too."""
    return UNSAFE.sub(_spelt, text)


def lines(text: str) -> str:
    """For a place that may have several; a tab stays."""
    return UNSAFE.sub(lambda found: found[0] if found[0] in "\n\t" else _spelt(found), text)


def _spelt(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
