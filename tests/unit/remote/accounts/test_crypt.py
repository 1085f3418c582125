"""libcrypt on the machine and passlib on the laptop make and accept the same hashes."""

from __future__ import annotations

import pytest

from mailops import accounts as laptop
from mailops.errors import MailopsError
from mailops.remote.accounts import crypt
from mailops.remote.shared import passwords
from mailops.remote.shared.errors import AgentError

PASSWORDS = ["x", "correct horse", "Übergröße €", "p" * 72, "ä" * 36, " spaces at both ends ", '"\\{}$%']
REFUSED = {"empty": "", "NUL": "a\0b", "72": "p" * 73, "bytes": "ä" * 37, "UTF-8": "\udcff"}


def libcrypt_verify(pw: str, hashed: str) -> bool:
    setting = hashed.removeprefix(passwords.SCHEME)
    return crypt._crypt(passwords.check(pw), setting.encode()) == setting


def passlib_verify(pw: str, hashed: str) -> bool:
    from passlib.hash import bcrypt

    return bool(bcrypt.verify(pw, hashed.removeprefix(passwords.SCHEME)))


@pytest.mark.parametrize("pw", PASSWORDS)
def test_each_side_accepts_the_others_hash(pw: str) -> None:
    on_machine, on_laptop = crypt.hash_password(pw), laptop.hash_password(pw)
    for hashed in (on_machine, on_laptop):
        assert hashed.startswith("{BLF-CRYPT}$2b$10$")
        assert passwords.is_hash(hashed)
        assert libcrypt_verify(pw, hashed)
        assert not libcrypt_verify(pw[1:] + "!", hashed)
    assert passlib_verify(pw, on_machine)
    assert not passlib_verify(pw[1:] + "!", on_machine)
    assert on_machine != crypt.hash_password(pw), "every hash has its own salt"


@pytest.mark.parametrize(("word", "pw"), REFUSED.items())
def test_a_password_that_bcrypt_would_cut_is_refused_on_both_sides(word: str, pw: str) -> None:
    with pytest.raises(AgentError, match=word) as machine:
        crypt.hash_password(pw)
    with pytest.raises(MailopsError, match=word) as here:
        laptop.hash_password(pw, where="mail_users[1].pw")
    assert machine.value.code == here.value.code == 2
    assert "mail_users[1].pw" in str(here.value)
    if len(pw) > 3:
        assert pw not in str(machine.value)


def test_a_failure_of_libcrypt_is_an_error_and_never_a_hash() -> None:
    with pytest.raises(AgentError):
        crypt._crypt(b"secret", b"*0")
    with pytest.raises(AgentError):
        crypt._crypt(b"secret", b"$2b$99$")


@pytest.mark.parametrize("text", ["", "*0", "{PLAIN}secret", "{BLF-CRYPT}*0", "{BLF-CRYPT}$2b$10$short"])
def test_other_things_are_not_hashes(text: str) -> None:
    assert not passwords.is_hash(text)
