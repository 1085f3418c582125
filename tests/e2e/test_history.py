"""What a machine remembers of those who changed it: who, from where, with what, how it went; and no secret."""

from __future__ import annotations

import re
import subprocess
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import House, token

Edit = Callable[[Any], None]
Site = Callable[[Edit], Path]
FOLDER = "/var/log/mailops"


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.test", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def entries(house: House, name: str, count: int = 1000) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = house.fab_json("-H", name, "history", "--count", str(count))[name]["entries"]
    return found


def limit(size: Any) -> Edit:
    def edit(doc: Any) -> None:
        doc["override"] = {"message_size_limit": size}

    return edit


@pytest.fixture
def repository(site: Site) -> Path:
    """A site with another limit, in a git repository of its own, committed."""
    path = site(limit(44_000_000))
    git(path.parent, "init", "--quiet")
    git(path.parent, "add", "hosts.toml")
    git(path.parent, "commit", "--quiet", "-m", "a limit")
    return path


def test_a_push_is_recorded_with_who_from_where_and_the_commit(up: House, repository: Path) -> None:
    count, began = len(entries(up, "mail")), time.time()
    commit = git(repository.parent, "rev-parse", "--short", "HEAD")
    up.fab("-H", "mail", "push", site=repository)
    repository.write_text(repository.read_text() + "\n# not committed\n")
    up.fab("-H", "mail", "push", site=repository)  # nothing to do, nothing to record
    repository.write_text(repository.read_text().replace("44000000", "45000000"))
    up.fab("-H", "mail", "push", site=repository)
    up.fab("-H", "mail", "push")
    found = entries(up, "mail")[count:]
    assert [entry["revision"] for entry in found] == [commit, f"{commit}+", ""]
    logins = up.run("mail", "journalctl -o cat -n 200 -u ssh.service").split("Accepted publickey for root from ")
    for entry in found:
        assert (entry["task"], entry["outcome"], entry["why"]) == ("push", "done", "")
        assert re.fullmatch(r"\S+@\S+", entry["who"])
        assert entry["from"] == logins[-1].split()[0]
        assert entry["changed"]["files"] == ["/etc/postfix/main.cf"]
        assert entry["changed"]["services"] == ["reload postfix.service"]
        assert 0 < entry["seconds"] < 60
        assert began - 1 < entry["when"] < time.time() + 1
    made = up.fab_json("-H", "mail", "generations")["mail"]["generations"][-3:]
    assert [each["revision"] for each in made] == [commit, f"{commit}+", ""]
    assert [each["number"] for each in made] == [entry["generation"] for entry in found]


def test_the_list_for_a_person(up: House, repository: Path) -> None:
    up.fab("-H", "mail", "push", site=repository)
    up.fab("-H", "mail", "rollback")
    commit = git(repository.parent, "rev-parse", "--short", "HEAD")
    head, columns, first, second = up.fab("-H", "mail", "history", "--count", "2").stdout.splitlines()
    assert head == "mail  the last runs that changed something, or tried to"
    assert columns.split() == ["WHEN", "WHO", "FROM", "TASK", "REVISION", "SECONDS", "OUTCOME", "CHANGED"]
    assert re.search(rf"  push +{commit} +\d+\.\d +done +files /etc/postfix/main.cf; services reload postfix", first)
    assert re.search(r"  rollback +\d+\.\d +done +files /etc/postfix/main.cf; services reload postfix.service", second)
    up.fab("-H", "mail", "push", "--overwrite")


def test_a_refused_run_is_recorded_with_the_reason(up: House, site: Site) -> None:
    count = len(entries(up, "mail"))
    done = up.fab("-H", "mail", "push", site=site(limit("lots")), check=False)
    assert done.returncode in (1, 2)
    found = entries(up, "mail")[count:]
    if done.returncode == 1:  # the machine's daemons have refused it, and not the laptop
        assert [entry["outcome"] for entry in found] in (["refused"], ["rolled back"])
        assert "message_size_limit" in found[0]["why"] or "postfix" in found[0]["why"]


def test_a_password_that_cannot_be_had_is_recorded_as_that(up: House, site: Site) -> None:
    def edit(doc: Any) -> None:
        doc["mail_users"].append({"email": "new@second.test", "pw": {"command": "exit 127"}})

    path = site(edit)
    number = len(tomllib.loads(path.read_text())["mail_users"])
    up.fab("-H", "mail", "plan", site=path)  # of a machine that is known a user's password is asked for by itself
    done = up.fab("-H", "mail", "bootstrap", site=path, check=False)
    assert done.returncode == 2
    told = f"the password of new@second.test (mail_users[{number}].pw): its command (exit 127) ended with status 127"
    assert done.stderr.splitlines()[0] == f"mailops: mail: {told}"
    (last,) = entries(up, "mail", 1)
    assert (last["outcome"], last["why"]) == ("failed", "a user's password could not be had on the laptop")


def test_runs_that_change_nothing_are_not_recorded(up: House) -> None:
    before = entries(up, "mail")
    up.fab("-H", "mail", "push")
    up.fab("-H", "mail", "bootstrap")
    up.fab("-H", "mail", "plan")
    up.fab("-H", "mail", "drift")
    assert entries(up, "mail") == before


def test_the_first_bootstrap_is_recorded(house: House) -> None:
    for name in ("mail", "backup", "web"):
        runs = [entry for entry in entries(house, name) if entry["task"] == "bootstrap"]
        assert {"packages", "files", "services"} <= {room for entry in runs for room in entry["changed"]}
        assert any(entry["outcome"] == "done" for entry in runs)


def test_only_administrators_read_it(up: House) -> None:
    for name in ("mail", "backup"):
        assert up.run(name, f"stat -c '%a %U:%G' {FOLDER} {FOLDER}/history.jsonl") == "750 root:adm\n640 root:adm\n"


@pytest.mark.parametrize("name", ["mail", "backup", "web"])
def test_no_secret_and_no_address_is_in_it(up: House, name: str) -> None:
    planted = token()
    up.run(name, f"echo {planted} >{FOLDER}/planted")
    text = up.run(name, f"cat {FOLDER}/*; rm {FOLDER}/planted")
    assert planted in text
    assert [where for where, secret in up.secrets().items() if secret in text] == []
    addresses = [user for user in ("user1@example.test", "user2@second.test", "sales@example.test") if user in text]
    assert addresses == []


def test_the_count_limits_the_list(up: House) -> None:
    everything = entries(up, "mail")
    assert entries(up, "mail", 1) == everything[-1:]
    done = up.fab("history", "--count", "none", check=False)
    assert (done.returncode, done.stdout) == (2, "")


def test_accounts_and_passwords_are_in_it_whoever_typed_and_never_a_password(up: House) -> None:
    email, first, second = f"{token()}@example.test", token(), token()
    up.fab("user.add", email, stdin=f"{first}\n")
    up.run("mail", f"mailcfg passwd {email}", stdin=f"{second}\n")
    up.run("mail", f"SUDO_USER=ann mailcfg rmuser {email}; mailcfg rmuser {email}", check=False)
    added, changed, removed, refused = entries(up, "mail", 4)
    assert (added["task"], added["changed"], added["outcome"]) == (
        "mailcfg adduser",
        {"accounts": [f"added {email}"]},
        "done",
    )
    assert "@" in added["who"]
    assert re.fullmatch(r"[\d.]+", added["from"])
    assert (changed["who"], changed["from"]) == ("root on the machine", "its console")
    assert changed["changed"] == {"accounts": [f"changed the password of {email}"]}
    assert removed["who"] == "ann on the machine"
    assert (refused["outcome"], refused["why"]) == ("refused", f"there is no user {email}")
    table = up.fab("-H", "mail", "history", "--count", "4").stdout
    assert re.search(rf"root on the machine  its console +mailcfg passwd .* changed the password of {email}", table)
    assert email not in up.run("mail", f"cat {FOLDER}/*")
    diary = "/vault/db/history.jsonl"
    assert up.run("mail", f"stat -c '%a %U' {diary}") == "600 root\n"
    assert [text for text in (first, second, "$2b$") if text in up.run("mail", f"cat {diary}")] == []
    up.fab("lock")
    try:
        assert "the vault is closed" in (said := up.fab("-H", "mail", "history").stdout)
        assert email not in said
    finally:
        up.fab("unlock")


def test_a_run_that_a_daemon_refused_has_its_words(up: House) -> None:
    """An addition that Dovecot does not understand."""
    addition = "/etc/mailops/local/dovecot/dovecot.conf"
    up.run("mail", f"mkdir -p $(dirname {addition}); echo 'no_such_setting = yes' >{addition}")
    try:
        assert up.fab("-H", "mail", "push", check=False).returncode == 1
    finally:
        up.run("mail", f"rm {addition}")
    (last,) = entries(up, "mail", 1)
    assert last["outcome"] == "refused"
    assert "no_such_setting" in last["why"]
