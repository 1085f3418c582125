"""Domains in other letters than ASCII: those that mean one thing, and those that could mean two."""

from __future__ import annotations

import unicodedata

import pytest

from mailops.remote.accounts import mailcfg
from mailops.remote.shared import address, idn
from mailops.remote.shared.errors import AgentError


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("example.test", "example.test"),
        ("müller.test", "xn--mller-kva.test"),
        ("MÜLLER.test", "xn--mller-kva.test"),
        ("mu\N{COMBINING DIAERESIS}ller.test", "xn--mller-kva.test"),
        ("почта.рф", "xn--80a1acny.xn--p1ai"),
        ("日本ドメイン.jp", "xn--eckwd4c7c5976acvb.jp"),
        ("भारत.test", "xn--h2brj9c.test"),
    ],
)
def test_one_meaning(written: str, kept: str) -> None:
    assert idn.to_ascii(written).lower() == kept
    assert idn.to_unicode(kept) == tuple(unicodedata.normalize(form, written.lower()) for form in ("NFC", "NFD"))
    assert address.domain(written) == kept
    assert address.address(f"Ann@{written}") == f"ann@{kept}"


@pytest.mark.parametrize(
    "written",
    [
        "straße.test",  # strasse.test for older programs
        "p\N{CYRILLIC SMALL LETTER A}ypal.test",
        "\N{FULLWIDTH LATIN SMALL LETTER A}bc.test",
        "ex\N{ZERO WIDTH JOINER}ample.test",
        "ex\N{SOFT HYPHEN}ample.test",
        "☃.test",
        "müller。test",
        "mü ller.test",
        "-ü.test",
        "ü..test",
        f"{'ü' * 63}.test",
    ],
)
def test_perhaps_another_one(written: str) -> None:
    for take in (address.domain, lambda text: address.address(f"ann@{text}")):
        with pytest.raises(AgentError):
            take(written)


def test_mailcfg_says_what_it_takes() -> None:
    command = mailcfg.parse(["adduser", "ann@müller.test", "pässword"])
    assert command.words == ("ann@xn--mller-kva.test",)
    assert command.notes == ("ann@müller.test is ann@xn--mller-kva.test in mail",)
    assert mailcfg.parse(["adduser", "ann@example.test"]).notes == ()
    with pytest.raises(AgentError):
        mailcfg.parse(["adduser", "änn@example.test"])
