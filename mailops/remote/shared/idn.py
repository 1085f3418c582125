"""Names of domains as people write them (müller.test) and as mail does (xn--mller-kva.test)."""

from __future__ import annotations

TOGETHER = {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}  # scripts that Japanese mixes


def to_ascii(name: str) -> str:
    """`name` in ASCII (RFC 3490); "" where that could be another domain than the one that was meant.

    That is so for letters that RFC 3490 replaces and RFC 5891 keeps (ß), for those that both take for other ones
    (fullwidth letters), for signs, and where letters of one script may pass for those of another.
    """
    if name.isascii():
        return name
    import unicodedata  # with the codec a few milliseconds, for whoever needs them

    plain = unicodedata.normalize("NFC", name.lower())
    if not all(map(_is_of_one_script, plain.split("."))):
        return ""
    try:
        coded = plain.encode("idna")
        return coded.decode() if coded.decode("idna") == plain else ""
    except UnicodeError:
        return ""


def to_unicode(name: str) -> tuple[str, str]:
    """`name` as people read it, composed and decomposed; a part of it that cannot be decoded stays as it is."""
    import unicodedata

    plain = ".".join(map(_decoded, name.split(".")))
    return plain, unicodedata.normalize("NFD", plain)


def _decoded(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return label[4:].encode().decode("punycode")
    except UnicodeError:
        return label


def _is_of_one_script(label: str) -> bool:
    """Whether it has letters of one script, their marks, digits and hyphens, and nothing else."""
    import unicodedata

    scripts = {unicodedata.name(each, "").split(" ")[0] for each in label if each.isalpha()}
    others = {unicodedata.category(each) for each in label if not each.isalnum() and each != "-"}
    well_formed = label == label.strip("-") and others <= {"Mn", "Mc"}
    return well_formed and (len(scripts) <= 1 or scripts <= TOGETHER)
