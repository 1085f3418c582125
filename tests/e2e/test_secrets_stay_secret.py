"""The passwords of the site, and its recovery key, are looked for wherever they must not be.

Every search is shown to find what it looks for: something known is always planted where it looks.
"""

from __future__ import annotations

import base64
import json
import re
import stat
import subprocess
from pathlib import Path

import bcrypt
import pytest

from mailops.lab import replica
from tests.e2e.house import House, token
from tests.e2e.watch import Watch

MAILHOST, NULL_CLIENTS = "mail", ("backup", "web")
KEY = re.compile(r"\b(?:[0-9a-f]{8}-){7}[0-9a-f]{8}\b")
PASSWORD_FILE = "etc/postfix/sasl_passwd"  # a null client's login; Postfix reads it as root


def recovery_key(house: House) -> str:
    """As it was shown to the person at the first bootstrap: once."""
    keys = KEY.findall("".join(house.printed))
    assert len(keys) == 1
    return str(keys[0])


def known(house: House) -> dict[str, str]:
    """What nobody may see, by what it is."""
    return house.secrets() | {"recovery key": recovery_key(house), "master key": recovery_key(house).replace("-", "")}


def forms(secret: str) -> list[str]:
    """A secret as it is, and inside of anything in base64, wherever it begins in it."""
    found = [secret]
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + secret.encode()).decode()
        found.append(encoded[4 if before else 0 : -4])
    return found


def patterns(house: House, more: str) -> str:
    return "\n".join(form for secret in (*known(house).values(), more) for form in forms(secret))


def assert_unseen(house: House, text: str) -> None:
    """The names of the secrets that a text gives away: none."""
    assert [name for name, secret in known(house).items() if any(form in text for form in forms(secret))] == []


def assert_unwatched(house: House, watch: Watch) -> None:
    for name, secret in known(house).items():
        assert watch.shows(*forms(secret)) == [], f"{name} was in a process table"


# While mailops works


def test_no_process_of_either_side_shows_a_secret_during_bootstrap(house: House) -> None:
    """The watch that was kept then had to catch careless processes on both sides (see Watch.prove)."""
    assert house.bootstrap_watch.shows("bootstrap"), "the laptop's fab"
    assert house.bootstrap_watch.shows("MAILOPS"), "the machine's agent"
    assert_unwatched(house, house.bootstrap_watch)


def test_no_process_of_either_side_shows_a_secret_during_unlock_and_lock(up: House) -> None:
    with Watch(up) as watch:
        up.fab("lock")
        up.fab("unlock")
        up.fab("lock")
        replica.run(up.lab, MAILHOST, ["/usr/sbin/mailboot"], up.secret("cryptdir_pw") + "\n")
    assert watch.shows("gocryptfs"), "the vault's process"
    assert_unwatched(up, watch)


def test_nothing_that_mailops_printed_has_a_password_in_it(up: House) -> None:
    up.fab("plan")
    up.fab("plan", "--json")
    up.fab("status", "--json")
    printed = "".join(up.printed)
    assert "the mail system" in printed
    for name, secret in up.secrets().items():
        assert not any(form in printed for form in forms(secret)), name


# What stays behind


@pytest.mark.parametrize("machine", [MAILHOST, *NULL_CLIENTS])
def test_no_file_of_a_machine_has_a_secret_but_a_null_clients_own_login(up: House, machine: str) -> None:
    planted = token()
    up.run(machine, "tee /etc/planted /var/log/planted /var/lib/mailops/planted", stdin=planted)
    root = replica.root_path(up.lab, machine)
    command = ["grep", "--recursive", "--files-with-matches", "--fixed-strings", "--text", "--file=-", "--devices=skip"]
    done = subprocess.run([*command, root], input=patterns(up, planted), capture_output=True, text=True, check=False)
    up.run(machine, "rm /etc/planted /var/log/planted /var/lib/mailops/planted")
    found = {str(Path(line).relative_to(root)) for line in done.stdout.splitlines()}
    # What a rollback brings back: the very file, for root alone.
    kept = {path for path in found if path.startswith("var/lib/mailops/objects/")}
    for path in kept:
        assert stat.S_IMODE((root / path).stat().st_mode) == 0o600
        assert (root / path).read_text().count("\n") == 1
    assert bool(kept) == (machine in NULL_CLIENTS)
    assert stat.S_IMODE((root / "var/lib/mailops/objects").stat().st_mode) == 0o700
    expected = {"etc/planted", "var/log/planted", "var/lib/mailops/planted"}
    assert found - kept == expected | ({PASSWORD_FILE} if machine in NULL_CLIENTS else set())


@pytest.mark.parametrize("machine", [MAILHOST, *NULL_CLIENTS])
def test_nothing_in_the_memory_file_systems_or_the_vault_has_a_secret(up: House, machine: str) -> None:
    planted = token()
    up.run(machine, "mkdir -p /run/mailops; tee /run/mailops/planted /tmp/planted", stdin=planted)
    places = "/run /tmp /dev/shm" + (" /vault" if machine == MAILHOST else "")
    script = f"grep -rlaF --devices=skip --file=- {places}; rm /run/mailops/planted /tmp/planted"
    found = up.run(machine, script, stdin=patterns(up, planted))
    assert set(found.split()) == {"/run/mailops/planted", "/tmp/planted"}


@pytest.mark.parametrize("machine", [MAILHOST, *NULL_CLIENTS])
def test_the_journal_has_no_secret(up: House, machine: str) -> None:
    planted = token()
    up.run(machine, f"logger {planted}")
    journal = up.run(machine, "journalctl --sync; journalctl --no-pager --all --output=verbose")
    assert planted in journal
    assert_unseen(up, journal)


@pytest.mark.parametrize("machine", NULL_CLIENTS)
def test_a_null_clients_login_is_for_root_alone(up: House, machine: str) -> None:
    assert up.run(machine, f"stat --format='%a %U:%G' /{PASSWORD_FILE}") == "600 root:root\n"
    assert up.password("relay@example.test") in up.run(machine, f"cat /{PASSWORD_FILE}")


def test_passwords_are_kept_as_bcrypt_hashes(up: House) -> None:
    query = (
        "import json, sqlite3; db = sqlite3.connect('/vault/db/mail.sqlite');"
        "print(json.dumps(db.execute('SELECT email, password FROM users').fetchall()))"
    )
    stored = dict(json.loads(up.run(MAILHOST, f'python3 -c "{query}"')))
    for address in ("admin@example.test", "relay@example.test", "user1@example.test", "user2@second.test"):
        scheme, digest = re.fullmatch(r"(\{[A-Z-]+\})(\S+)", stored[address]).groups()  # type: ignore[union-attr]
        assert scheme == "{BLF-CRYPT}"
        assert bcrypt.checkpw(up.password(address).encode(), digest.encode())


def test_private_keys_are_not_for_everybody(up: House) -> None:
    places = "/etc /var/lib/mailops /vault"
    keys = up.run(MAILHOST, f"grep -rlF --devices=skip 'PRIVATE KEY-----' {places}").split()
    assert "/etc/mailops/tls/privkey.pem" in keys
    assert any(path.startswith("/vault/dkim/") for path in keys)
    assert up.run(MAILHOST, f"find {' '.join(keys)} -perm /o=rwx") == ""


# What was made so that nothing is lost


def test_the_recovery_key_opens_the_vault_without_the_passphrase(up: House) -> None:
    subject = up.stranger_sends("user1@example.test")
    up.arrives("user1@example.test", subject)
    up.run(MAILHOST, "mkdir -p /run/rescue")
    mount = ["gocryptfs", "-ro", "-masterkey=stdin", "/var/lib/mailops/vault", "/run/rescue"]
    replica.run(up.lab, MAILHOST, mount, recovery_key(up) + "\n")
    try:
        assert up.run(MAILHOST, f"grep -rlF {subject} /run/rescue/mail")
    finally:
        up.run(MAILHOST, "umount /run/rescue; rmdir /run/rescue")
