"""Generations of a machine's files: what is kept, what differs, and that going back really goes back.

What mailops says of itself is held against the files, and against what the daemons serve to an outsider.
"""

from __future__ import annotations

import hashlib
import imaplib
import json
import re
import shutil
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import PROJECT, House, token, unverified

Edit = Callable[[Any], None]
Site = Callable[[Edit], Path]
MAIN_CF = "/etc/postfix/main.cf"
DOVECOT = "/etc/mailops/local/dovecot/dovecot.conf"
STATE = "/var/lib/mailops"
FIRST, SECOND = 41_000_000, 42_000_000  # bytes; not the usual limit


@pytest.fixture
def mended(up: House) -> Iterator[House]:
    """The house, which is as its site says again after the test."""
    yield up
    up.run("mail", "rm -rf /etc/mailops/local/*/*")
    up.fab("unlock")
    up.fab("push", "--overwrite")
    assert {name: found["changes"] for name, found in up.fab_json("plan").items()} == {
        "mail": {},
        "backup": {},
        "web": {},
    }


def limit(size: int) -> Edit:
    """A site whose messages may have so many bytes."""

    def edit(doc: Any) -> None:
        doc["override"] = {"message_size_limit": size}

    return edit


def push(house: House, site: Site, size: int, name: str = "mail") -> int:
    """Push another limit; returns the number of the generation that this makes."""
    result = json.loads(house.fab("-H", name, "push", "--json", site=site(limit(size))).stdout)[name]
    assert MAIN_CF in result["changes"]["files"]
    assert result["generation"] == listed(house, name)["active"]
    return int(result["generation"])


def listed(house: House, name: str = "mail") -> dict[str, Any]:
    found: dict[str, Any] = house.fab_json("-H", name, "generations")[name]
    return found


def offered(house: House) -> int:
    """The limit that Postfix offers to a stranger (RFC 1870)."""
    with smtplib.SMTP(house.address("mail"), 25, "laptop.test", timeout=30) as client:
        client.ehlo()
        return int(client.esmtp_features["size"])


def greeting(house: House) -> str:
    client = imaplib.IMAP4_SSL(house.address("mail"), 993, ssl_context=unverified(), timeout=30)
    client.shutdown()
    return client.welcome.decode()


def fingerprint(house: House, name: str = "mail") -> dict[str, str]:
    """Every file that mailops could touch: content, mode and owner, but no times."""
    roots = "/etc /usr/bin/mailcfg /usr/sbin/mailboot /usr/lib/mailops" + (" /vault/sieve" if name == "mail" else "")
    every = f"find {roots} -xdev \\( -type f -o -type l \\)"
    script = f"{every} -printf '%p %m %u:%g %l\\n'; echo; {every} -exec sha256sum {{}} + 2>/dev/null; true"
    modes, _, sums = house.run(name, script).partition("\n\n")
    found = dict(line.split(" ", 1) for line in modes.splitlines())
    for line in sums.splitlines():
        digest, path = line.split(maxsplit=1)
        found[path] = f"{found.get(path, '')} {digest}"
    return {path: rest for path, rest in found.items() if path != "/etc/aliases.db" and not path.endswith(".svbin")}


# What is kept


def test_two_pushes_make_two_generations_with_all_that_was_promised(mended: House, site: Site) -> None:
    before, began = listed(mended), time.time()
    first, second = push(mended, site, FIRST), push(mended, site, SECOND)
    assert (first, second) == (max(each["number"] for each in before["generations"]) + 1, first + 1)
    after = listed(mended)
    assert after["active"] == second
    assert [each["number"] for each in after["generations"]] == sorted(each["number"] for each in after["generations"])
    for made in after["generations"][-2:]:
        assert made["changed"] == [MAIN_CF]
        assert (made["task"], made["proven"]) == ("push", True)
        assert re.fullmatch(r"\S+@\S+", made["who"])
        assert made["from"] == laptop(mended)
        assert began - 1 < made["when"] < time.time() + 1
    # The machine itself, asked without mailops: the content that is kept is the one that is in force.
    assert mended.run("mail", "postconf -h message_size_limit") == f"{SECOND}\n"
    assert offered(mended) == SECOND
    record = json.loads(mended.run("mail", f"cat {STATE}/generations/{second}.json"))
    content = mended.run("mail", f"cat {MAIN_CF}").encode()
    state = record["files"][MAIN_CF]
    assert state["sha256"] == hashlib.sha256(content).hexdigest()
    assert (state["mode"], state["uid"], state["gid"]) == (0o644, 0, 0)
    assert mended.run("mail", f"cat {STATE}/objects/{state['sha256']}").encode() == content
    assert mended.run("mail", f"cat {STATE}/active").strip() == str(second)


def laptop(house: House) -> str:
    """This computer's address as the machine's sshd has seen it."""
    log = house.run("mail", "journalctl -o cat -n 200 -u ssh.service")
    return log.split("Accepted publickey for root from ")[-1].split()[0]


def test_what_is_kept_is_for_root_alone(up: House) -> None:
    for name in ("mail", "backup"):
        found = up.run(name, f"find {STATE}/objects {STATE}/generations -printf '%m %U:%G %y\\n' | sort -u")
        assert found == "600 0:0 f\n700 0:0 d\n"


def test_the_list_for_a_person_names_the_active_one(up: House) -> None:
    number = listed(up, "backup")["active"]
    said = up.fab("-H", "backup", "generations").stdout
    assert said.startswith(f"backup  generation {number} is active\n")
    assert re.search(rf"^ +{number}  active  20\d\d-\d\d-\d\d \d\d:\d\d ", said, re.MULTILINE)


# The way back


def test_a_rollback_brings_the_value_back_that_the_daemon_serves(mended: House, site: Site) -> None:
    first = push(mended, site, FIRST)
    before = fingerprint(mended)
    second = push(mended, site, SECOND)
    after = fingerprint(mended)
    assert offered(mended) == SECOND
    done = mended.fab("-H", "mail", "rollback")
    assert "hosts.toml is as it was" in done.stdout
    assert f"generation {first} is active again" in done.stdout
    assert (offered(mended), mended.run("mail", "postconf -h message_size_limit")) == (FIRST, f"{FIRST}\n")
    assert fingerprint(mended) == before
    assert listed(mended)["active"] == first
    # And the other way, by its number: a rollback of the rollback.
    mended.fab("-H", "mail", "rollback", str(second))
    assert offered(mended) == SECOND
    assert fingerprint(mended) == after
    assert listed(mended)["active"] == second
    # The file that says what is wanted has the last word.
    plan = json.loads(mended.fab("-H", "mail", "plan", "--json", site=site(limit(FIRST))).stdout)["mail"]
    assert plan["changes"]["files"] == [MAIN_CF]


def test_a_rollback_of_another_daemon_is_noticed_by_that_daemon(mended: House) -> None:
    words = token()
    before = listed(mended)["active"]
    mended.run("mail", f"mkdir -p $(dirname {DOVECOT}); echo 'login_greeting = {words}' >{DOVECOT}")
    mended.fab("-H", "mail", "push")
    assert words in greeting(mended)
    assert mended.run("mail", "doveconf -h login_greeting") == f"{words}\n"
    mended.fab("-H", "mail", "rollback", str(before))
    assert words not in greeting(mended)
    assert mended.run("mail", "doveconf -h login_greeting") != f"{words}\n"
    assert words in mended.run("mail", f"cat {DOVECOT}")  # the administrator's own file stays theirs


@pytest.fixture
def tomorrow(tmp_path: Path) -> Callable[..., str]:
    """`fab` of a later mailops: a file more, a file less, and other modes and owners."""
    copy = tmp_path / "tomorrow"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "mailops", copy / "mailops", symlinks=False, ignore=ignored)
    for name in ("tasks.py", "fabfile.py", "fabric.yaml"):
        shutil.copy(PROJECT / name, copy / name)
    for service, before, line in (
        ("postfix", "        additions=", 'attributes={"/etc/postfix/more.cf": (0o640, "root", "postfix")},'),
        ("rspamd", "            ADDITIONS:", '"/etc/rspamd/local.d/arc.conf": (0o640, "root", "_rspamd"),'),
    ):
        source = copy / f"mailops/services/{service}.py"
        assert source.read_text().count(before) == 1
        source.write_text(source.read_text().replace(before, f"{line}\n{before}"))
    (copy / "mailops/templates/postfix/any/etc/postfix/more.cf").write_text("# more\n")
    (copy / "mailops/templates/rspamd/any/etc/rspamd/local.d/neural.conf").unlink()

    def fab(house: House, *args: str) -> str:
        command = [str(Path(sys.executable).with_name("fab")), "--search-root", str(copy), *args]
        env = house.env() | {"PYTHONPATH": str(copy)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return fab


def test_a_rollback_brings_back_modes_owners_absence_and_presence(mended: House, tomorrow: Callable[..., str]) -> None:
    before, number = fingerprint(mended), listed(mended)["active"]
    tomorrow(mended, "-H", "mail", "push")
    after = fingerprint(mended)
    assert after["/etc/postfix/more.cf"].startswith("640 root:postfix ")
    assert after["/etc/rspamd/local.d/arc.conf"].startswith("640 root:_rspamd ")
    assert set(before) - set(after) == {"/etc/rspamd/local.d/neural.conf"}
    said = tomorrow(mended, "-H", "mail", "diff")
    assert "mail  new      /etc/postfix/more.cf\n" in said
    assert "mail  mode     /etc/rspamd/local.d/arc.conf  0644 root:root → 0640 root:_rspamd\n" in said
    assert "mail  removed  /etc/rspamd/local.d/neural.conf\n" in said
    made = listed(mended)["active"]
    mended.fab("-H", "mail", "rollback")
    assert fingerprint(mended) == before
    assert listed(mended)["active"] == number
    mended.fab("-H", "mail", "rollback", str(made))
    assert fingerprint(mended) == after


def test_without_a_number_it_is_the_last_change_that_is_shown_and_undone(mended: House, site: Site) -> None:
    """Also where that came after a rollback, so that the generation of the next lower number was abandoned."""
    first = push(mended, site, FIRST)
    push(mended, site, SECOND)
    mended.fab("-H", "mail", "rollback", str(first))
    push(mended, site, SECOND + 1)
    shown = mended.fab_json("-H", "mail", "diff")["mail"]
    assert shown["from"] == first
    assert f"\n-message_size_limit = {FIRST}\n+message_size_limit = {SECOND + 1}\n" in shown["files"][0]["diff"]
    mended.fab("-H", "mail", "rollback")
    assert (offered(mended), listed(mended)["active"]) == (FIRST, first)


def test_a_rollback_while_the_vault_is_locked_serves_the_old_value_after_the_unlock(mended: House, site: Site) -> None:
    push(mended, site, FIRST)
    push(mended, site, SECOND)
    mended.fab("lock")
    mended.fab("-H", "mail", "rollback")
    assert mended.run("mail", "postconf -h message_size_limit") == f"{FIRST}\n"
    assert mended.run("mail", "systemctl is-active postfix.service dovecot.service; true").split() == ["inactive"] * 2
    mended.fab("unlock")
    assert offered(mended) == FIRST
    assert next(each for each in listed(mended)["generations"] if each["number"] == listed(mended)["active"])["proven"]


def test_a_generation_that_is_not_there_is_a_line_and_nothing_happens(up: House) -> None:
    active = listed(up, "backup")["active"]
    before = fingerprint(up, "backup")
    for number, words in ((9999, "there is no generation 9999"), (active, f"generation {active} is the active one")):
        for task in ("rollback", "diff"):
            done = up.fab("-H", "backup", task, str(number), check=False)
            assert (done.returncode, done.stdout) == (2, "")
            assert words in done.stderr.splitlines()[0]
            assert len(done.stderr.splitlines()) == 2
    done = up.fab("rollback", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("mailops: a rollback is for one machine at a time, and this means 3\n")
    assert fingerprint(up, "backup") == before
    assert listed(up, "backup")["active"] == active


def test_a_rollback_stops_at_a_hand_edit_and_keeps_it_when_told_to_go_on(mended: House, site: Site) -> None:
    mark = f"# {token()}"
    first = push(mended, site, FIRST)
    second = push(mended, site, SECOND)
    mended.run("mail", f"echo '{mark}' >>{MAIN_CF}")
    before = fingerprint(mended)
    done = mended.fab("-H", "mail", "rollback", check=False)
    assert done.returncode == 3
    assert f"\n+{mark}\n" in done.stdout
    assert "--overwrite" in done.stderr
    assert (fingerprint(mended), offered(mended), listed(mended)["active"]) == (before, SECOND, second)
    mended.fab("-H", "mail", "rollback", "--overwrite")
    assert (offered(mended), listed(mended)["active"]) == (FIRST, first)
    kept = mended.run("mail", f"grep -lxF '{mark}' {STATE}/objects/*").split()
    assert len(kept) == 1
    record = mended.run("mail", f"cat {STATE}/generations/{first}.json")
    assert Path(kept[0]).name in record  # so pruning does not take it away


# What differs


def test_a_diff_goes_both_ways(mended: House, site: Site) -> None:
    first, second = push(mended, site, FIRST), push(mended, site, SECOND)
    said = mended.fab("-H", "mail", "diff").stdout
    assert f"-message_size_limit = {FIRST}\n+message_size_limit = {SECOND}\n" in said
    assert f"--- {MAIN_CF} (generation {first})\n+++ {MAIN_CF} (generation {second})\n" in said
    assert mended.fab("-H", "mail", "diff", str(first)).stdout == said
    mended.fab("-H", "mail", "rollback")
    back = mended.fab_json("-H", "mail", "diff", str(second))["mail"]
    assert (back["from"], back["to"]) == (second, first)
    (file,) = back["files"]
    assert (file["path"], file["state"], file["was"], file["now"]) == (MAIN_CF, "changed", *["0644 root:root"] * 2)
    assert f"-message_size_limit = {SECOND}\n+message_size_limit = {FIRST}\n" in file["diff"]


def test_a_diff_never_shows_a_secret(mended: House, site: Site) -> None:
    old, new = mended.password("relay@example.test"), token()

    def edit(doc: Any) -> None:
        next(user for user in doc["mail_users"] if user["email"] == "relay@example.test")["pw"] = {"env": "NEW_PW"}

    copy = site(edit)
    mended.fab("-H", "backup", "push", site=copy, env={"NEW_PW": new})
    for args in (["diff"], ["diff", "--json"]):
        done = mended.fab("-H", "backup", *args)
        assert "/etc/postfix/sasl_passwd" in done.stdout
        assert old not in done.stdout + done.stderr
        assert new not in done.stdout + done.stderr
    assert "(its content is secret and not shown)" in mended.fab("-H", "backup", "diff").stdout


# Pruning

LAY = """
import json, os, sys
folder, count = "/var/lib/mailops/generations", int(sys.argv[1])
active = int(open("/var/lib/mailops/active").read())
record = json.load(open(f"{folder}/{active}.json"))
for number in range(active + 1, active + count + 1):
    with open(f"{folder}/{number}.json", "w") as file:
        json.dump(record | {"number": number, "who": "laid@hand"}, file)
"""


def test_old_generations_go_and_the_active_one_never(mended: House) -> None:
    from mailops.remote.changes.generations import KEPT

    name = "backup"
    first = listed(mended, name)["active"]
    before = fingerprint(mended, name)
    stray = hashlib.sha256(b"stray").hexdigest()
    mended.run(name, f"printf stray >{STATE}/objects/{stray}")
    lay(mended, name, KEPT + 10)
    last = push_an_edit_away(mended, name)
    assert numbers(mended, name) == list(range(last - KEPT + 1, last + 1))
    assert first < last - KEPT
    assert mended.run(name, f"ls {STATE}/objects | grep -c {stray}; true") == "0\n"
    # Made active again, an old one outlives younger ones.
    oldest = numbers(mended, name)[0]
    mended.fab("-H", name, "rollback", str(oldest))
    lay(mended, name, KEPT + 10)
    mended.fab("-H", name, "rollback", str(oldest + 1))
    assert numbers(mended, name) == [oldest + 1, *range(oldest + 11, oldest + KEPT + 11)]
    assert listed(mended, name)["active"] == oldest + 1
    assert fingerprint(mended, name) == before
    for number in numbers(mended, name)[1:3]:  # what is listed is whole: a comparison reads its contents
        mended.fab("-H", name, "diff", str(number))
    last = push_an_edit_away(mended, name)
    assert numbers(mended, name) == list(range(last - KEPT + 1, last + 1))
    mended.run(name, f"cd {STATE}/generations && grep -l laid@hand *.json | xargs rm")


def lay(house: House, name: str, count: int) -> None:
    """More generations after the active one, just like it."""
    house.run(name, f"python3 - {count}", stdin=LAY)


def numbers(house: House, name: str) -> list[int]:
    return [each["number"] for each in listed(house, name)["generations"]]


def push_an_edit_away(house: House, name: str) -> int:
    """The quickest way to a new generation; returns its number."""
    house.run(name, f"echo '# by hand' >>{MAIN_CF}")
    return int(house.fab_json("-H", name, "push", "--overwrite")[name]["generation"])
