"""A site's hosts.toml becomes the replica's: the same site, other machines, other passwords."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from mailops.lab import blueprint
from mailops.lab.blueprint import Place
from mailops.lab.layout import LabError
from mailops.site.reader import load

SITE = """# Our site
domain = "example.test"  # the first one
admin_email = "admin@example.test"
mail_domains = ["example.test", "second.test"]
mail_users = [
    { email = "admin@example.test", pw = { command = "pass show admin" } }, # the boss
    { email = "relay@example.test", pw = { env = "RELAY" } },
]
cryptdir_pw = { prompt = "Passphrase" }
dkim_selector = "202611"

[hosts.mail]
role = "mailhost"
debian = 12
address = "192.0.2.1"
port = 2222

[hosts.backup]
role = "mailnull"
user = "ops"
sudo_pw = { keyring = "backup/ops" }
"""

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
PLACES = {"mail": Place("10.213.1.10", KEY), "backup": Place("10.213.1.11", KEY)}


def copy(text: str = SITE) -> str:
    return blueprint.copy(text, PLACES, Path("/lab/key"), "10.213.1.2", Path("/lab/secrets"))


def test_every_host_is_planned_with_its_debian_user_and_name(tmp_path: Path) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text(SITE)
    mail, backup = blueprint.plans(load(path))
    assert (mail.image, mail.user, mail.hostname) == ("debian12", "root", "mail.example.test")
    assert (backup.image, backup.user, backup.hostname) == ("debian13", "ops", "backup.example.test")


def test_the_name_of_the_outside_machine_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text(SITE.replace("[hosts.backup]", "[hosts.outside]"))
    with pytest.raises(LabError, match="outside"):
        blueprint.plans(load(path))


def test_each_secret_has_a_name() -> None:
    assert blueprint.secret_names(SITE) == [
        "mail_users.admin@example.test.pw",
        "mail_users.relay@example.test.pw",
        "cryptdir_pw",
        "hosts.backup.sudo_pw",
    ]


def test_the_copy_leads_to_the_lab_alone() -> None:
    replica = tomllib.loads(copy())
    mail, backup = replica["hosts"]["mail"], replica["hosts"]["backup"]
    assert (mail["address"], mail["port"], mail["user"]) == ("10.213.1.10", 22, "root")
    assert (mail["host_key"], mail["identity"]) == (KEY, "/lab/key")
    assert backup["user"] == "ops"
    assert backup["sudo_pw"] == {"command": "cat /lab/secrets/hosts.backup.sudo_pw"}
    assert replica["cryptdir_pw"] == {"command": "cat /lab/secrets/cryptdir_pw"}
    assert replica["resolver"] == "10.213.1.2"


def test_no_reference_to_a_real_secret_is_left() -> None:
    assert not [word for word in ("pass show", "RELAY", "Passphrase", "keyring") if word in copy()]


def test_comments_survive() -> None:
    assert all(comment in copy() for comment in ("# Our site", "# the first one", "# the boss"))


def test_the_copy_is_a_site_that_loads(tmp_path: Path) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text(copy())
    assert load(path).resolver == "10.213.1.2"


def test_what_mailops_wrote_into_the_replica_survives() -> None:
    rotating = copy().replace('"202611"', '"202611"\ndkim_selector_next = "202701"')
    again = tomllib.loads(blueprint.keep_own_values(copy(), rotating, SITE, SITE))
    assert (again["dkim_selector"], again["dkim_selector_next"]) == ("202611", "202701")


def test_a_finished_rotation_is_not_set_back() -> None:
    source = SITE.replace('"202611"', '"202611"\ndkim_selector_next = "202701"')
    rotated = copy().replace('"202611"', '"202701"')
    again = tomllib.loads(blueprint.keep_own_values(copy(source), rotated, source, source))
    assert again["dkim_selector"] == "202701"
    assert "dkim_selector_next" not in again


def test_a_change_of_the_site_itself_wins() -> None:
    now = SITE.replace('"202611"', '"202705"')
    again = tomllib.loads(blueprint.keep_own_values(copy(now), copy(), SITE, now))
    assert again["dkim_selector"] == "202705"


def test_a_key_beside_the_site_is_found_from_the_replica() -> None:
    text = 'rspamd_upstream = { url = "https://x.test/", key = "its.asc" } # why\n' + SITE
    found = blueprint.with_whole_paths(text, Path("/home/me/site"))
    assert tomllib.loads(found)["rspamd_upstream"]["key"] == "/home/me/site/its.asc"
    assert "# why" in found
    assert blueprint.with_whole_paths(SITE, Path("/home/me/site")) == SITE
