"""bootstrap, plan and push on machines that are set up already, that somebody has edited, or that a cut run left."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import wheel
from tests.e2e.house import FAB, House, token, until
from tests.e2e.pace import pace

Edit = Callable[[Any], None]
DAEMONS = "postfix.service dovecot.service rspamd.service redis-server.service mailops-vault.service"


def snapshot(house: House, name: str) -> str:
    """Every file that mailops could touch: content, owner, mode, times."""
    roots = "/etc /usr/bin /usr/sbin /usr/lib/mailops /var/lib/mailops /var/lib/dpkg/status"
    if name == "mail":
        roots += " /vault/db /vault/dkim /vault/sieve"
    return house.run(
        name,
        # Behind the vault's own files is mail on its way as well; what mailops keeps there is looked at above.
        # overlayfs notes things of its own with a folder when that is first looked at, and changes the folder's ctime.
        f"find {roots} -xdev -path '/var/lib/mailops/vault/*' -prune -o -type d -printf '%p %m %u %g %T@\\n'"
        " -o -printf '%p %m %u %g %T@ %C@\\n'"
        " | grep -v '^/etc/aliases.db' | sort; "
        f"find /etc /vault/db -xdev -type f -exec sha256sum {{}} + 2>/dev/null | sort",
    )


def lives(house: House, name: str, units: str) -> str:
    """What changes when a daemon is started, restarted or reloaded. (Its children bear its name for a moment, too.)"""
    properties = "Id,InvocationID,ExecMainPID,ActiveEnterTimestampMonotonic,StateChangeTimestampMonotonic"
    return house.run(name, f"systemctl show -p {properties} {units}; pgrep -P 1 -x master; pgrep -P 1 -x dovecot; true")


def plan(house: House, *args: str, site: Path) -> dict[str, Any]:
    done = house.fab(*args, "plan", "--json", site=site)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# What is as it should be


def test_the_first_bootstrap_ended_well(house: House) -> None:
    assert house.failures == []


def test_a_second_bootstrap_changes_nothing_and_no_daemon_notices(up: House) -> None:
    before = snapshot(up, "mail"), lives(up, "mail", DAEMONS), lives(up, "web", "postfix.service")
    cursor = up.run("mail", "journalctl --sync; journalctl -n 0 --show-cursor").partition("cursor: ")[2].strip()
    done = up.fab("bootstrap")
    assert re.findall(r"^(\w+)    nothing changed, ", done.stdout, re.MULTILINE) == ["mail", "backup", "web"]
    assert len(done.stdout.splitlines()) == 3
    results = up.fab_json("bootstrap")
    assert {name: result["changes"] for name, result in results.items()} == {"mail": {}, "backup": {}, "web": {}}
    after = snapshot(up, "mail"), lives(up, "mail", DAEMONS), lives(up, "web", "postfix.service")
    differ = [line for was, now in zip(before, after, strict=True) for line in {*was.split("\n")} ^ {*now.split("\n")}]
    assert sorted(differ) == []
    log = up.run("mail", f"journalctl --sync; journalctl -o cat --after-cursor='{cursor}'")
    assert not re.search(r"reload|refresh|restart|SIGHUP|Started|Stopp", log), log


def test_json_is_all_that_stands_on_stdout(up: House) -> None:
    for task in ("bootstrap", "plan", "status"):
        done = up.fab("-H", "backup", task, "--json")
        assert list(json.loads(done.stdout)) == ["backup"]


OF_OTHER_VERSIONS = """
import sys, invoke, paramiko
invoke.__version__ = paramiko.__version__ = "9.9.9"
from mailops.cli.program import fab
sys.argv[0] = "fab"
fab()
"""


def test_versions_of_paramiko_and_invoke_that_nobody_tested_work_as_well(up: House) -> None:
    """What these keep private is left alone then: a login is awaited, and a channel, and words are flags."""
    words = [sys.executable, "-c", OF_OTHER_VERSIONS, *FAB[1:], "bootstrap"]
    done = subprocess.run(words, env=up.env(), capture_output=True, text=True, check=False, timeout=300 * pace())
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^(\w+)    nothing changed, ", done.stdout, re.MULTILINE) == ["mail", "backup", "web"]


# plan


def test_plan_shows_what_would_change_and_touches_nothing(up: House, site: Callable[[Edit], Path]) -> None:
    def edit(doc: Any) -> None:
        doc["mail_aliases"].append({"src": "planned@example.test", "dst": "user1@example.test"})
        doc["dkim_selector"], doc["dkim_selector_next"] = "202701", "202611"
        doc["mail_domains"].append("planned.test")

    copy = site(edit)
    before = snapshot(up, "mail"), lives(up, "mail", DAEMONS)
    found = plan(up, "-H", "mail", site=copy)["mail"]
    assert "alias planned@example.test -> user1@example.test" in found["changes"]["accounts"]
    assert "domain planned.test" in found["changes"]["accounts"]
    assert any("planned.test" in line and "202701" in line for line in found["changes"]["dkim"])
    (path,) = [path for path in found["changes"]["files"] if "dkim_signing.conf" in path]
    rest = [path for path in found["changes"]["files"] if not path.startswith("/etc/rspamd/")]
    assert rest == ["/etc/postfix/own_senders", "/etc/postfix/verdict_checks"]
    lines = found["diffs"][path].splitlines()
    assert any(line.startswith("-") and "202611" in line for line in lines)
    assert any(line.startswith("+") and "202701" in line for line in lines)
    assert found["changes"]["services"] == ["reload rspamd.service", "reload postfix.service"]
    said = up.fab("-H", "mail", "plan", site=copy).stdout
    assert found["diffs"][path] in said
    assert (snapshot(up, "mail"), lives(up, "mail", DAEMONS)) == before
    assert plan(up, "-H", "mail", site=up.hosts_toml)["mail"]["changes"] == {}


def test_plan_never_shows_a_password(up: House, site: Callable[[Edit], Path]) -> None:
    new, old = token(), up.password("relay@example.test")

    def edit(doc: Any) -> None:
        next(user for user in doc["mail_users"] if user["email"] == "relay@example.test")["pw"] = {"env": "NEW_PW"}

    copy = site(edit)
    before = snapshot(up, "backup")
    for args in (["plan"], ["plan", "--json"]):
        done = up.fab("-H", "backup", *args, site=copy, env={"NEW_PW": new})
        assert "/etc/postfix/sasl_passwd" in done.stdout
        assert new not in done.stdout + done.stderr
        assert old not in done.stdout + done.stderr
    assert snapshot(up, "backup") == before


# push


def test_push_puts_a_missing_file_back_and_its_daemon_notices(up: House) -> None:
    before = lives(up, "backup", "postfix.service")
    up.run("backup", "rm /etc/postfix/sasl_passwd")
    changes = up.fab_json("-H", "backup", "push")["backup"]["changes"]
    assert changes["files"] == ["/etc/postfix/sasl_passwd"]
    assert changes["services"][0].endswith(" postfix.service")
    assert up.run("backup", "stat -c '%a %U' /etc/postfix/sasl_passwd").strip() == "600 root"
    assert lives(up, "backup", "postfix.service") != before


# Two at once


def test_the_second_of_two_runs_gives_way_and_says_to_whom(
    up: House, site: Callable[[Edit], Path], tmp_path: Path
) -> None:
    asked, gate = tmp_path / "asked", tmp_path / "gate"
    wait = f"touch {asked}; while [ ! -e {gate} ]; do sleep 0.05; done; echo a-long-password"
    copy = site(lambda doc: doc["mail_users"].append({"email": "late@example.test", "pw": {"command": wait}}))
    up.fab("-H", "mail", "plan", site=copy)  # of a machine that is known a user's password is asked for by itself
    first = subprocess.Popen([*FAB, "-H", "mail", "bootstrap"], env=up.env(copy), stdout=subprocess.PIPE, text=True)
    try:
        until(asked.exists, 30, "the first run to ask for the new user's password")
        for task in ("bootstrap", "push", "unlock", "lock"):
            done = up.fab("-H", "mail", task, check=False)
            assert done.returncode == 5, task
            assert re.search(r"mail: \S+@\S+ \(from \S+\) is running bootstrap on this machine since", done.stderr)
        assert up.fab("-H", "mail", "status").returncode == 0  # who only looks need not wait
    finally:
        gate.touch()
        out, _ = first.communicate(timeout=60)
        up.run("mail", "mailcfg rmuser late@example.test")
    assert first.returncode == 0
    assert "user late@example.test" in out
    changes = up.fab_json("-H", "mail", "bootstrap")["mail"]["changes"]  # with the house's own site again
    assert changes == {"accounts": ["note which accounts hosts.toml lists"]}


def test_a_plan_for_a_locked_machine_says_that_the_vault_would_be_opened(up: House) -> None:
    up.fab("lock")
    found = up.fab_json("-H", "mail", "plan")["mail"]
    assert found["changes"]["vault"] == ["open the vault /vault"]
    assert up.run("mail", "find /vault -mindepth 1") == ""
    up.fab("unlock")


def test_a_machine_that_was_never_set_up_gets_no_configuration(up: House) -> None:
    up.run("web", "mv /var/lib/mailops/manifest.json /root/ && echo '# odd' >> /etc/postfix/main.cf")
    try:
        done = up.fab("-H", "web", "push", check=False)
        assert (done.returncode, done.stderr) == (
            1,
            "mailops: web: this machine is not set up yet\n  fab -H web bootstrap\n",
        )
        assert up.run("web", "tail -n 1 /etc/postfix/main.cf") == "# odd\n"
    finally:
        up.run("web", "mv /root/manifest.json /var/lib/mailops/ && sed -i '$d' /etc/postfix/main.cf")
    assert up.fab_json("-H", "web", "plan")["web"]["changes"] == {}


# Runs that were cut


@pytest.mark.parametrize(
    ("cut", "code", "words"),
    [
        ("pkill -9 -f '^python3 -IS -c'", 1, "the agent ended without a result"),
        ("pkill -9 -f '^sshd(-session)?: ops'", 4, "the connection was lost"),
    ],
    ids=["agent killed", "connection cut"],
)
def test_a_bootstrap_cut_while_packages_install_is_finished_by_the_next(
    up: House, cut: str, code: int, words: str
) -> None:
    up.run("web", "apt-get -yq -o DPkg::Lock::Timeout=60 purge postfix libsasl2-modules")
    first = subprocess.Popen([*FAB, "-H", "web", "bootstrap"], env=up.env(), stderr=subprocess.PIPE, text=True)
    up.run("web", f"timeout 60 sh -c 'until pgrep -x dpkg >/dev/null; do sleep 0.02; done' && {cut}")
    _, err = first.communicate(timeout=90)
    assert first.returncode == code
    assert words in err
    assert "Traceback" not in err
    until(lambda: up.fab("-H", "web", "bootstrap", check=False).returncode == 0, 60, "the next bootstrap to finish")
    assert up.run("web", "dpkg-query -Wf '${db:Status-Abbrev}' postfix libsasl2-modules").split() == ["ii", "ii"]
    assert up.run("web", "dpkg --audit; ls /usr/sbin/policy-rc.d 2>&1; true").count("No such file") == 1
    assert up.fab_json("-H", "web", "bootstrap")["web"]["changes"] == {}
    subject = token()
    up.run("web", "sendmail root", stdin=f"Subject: {subject}\n\nStill here.\n")
    up.arrives("admin@example.test", subject)


def test_a_machine_without_python_gets_it(up: House) -> None:
    up.run("web", "apt-get -yq -o DPkg::Lock::Timeout=60 purge python3 python3-minimal")
    up.run("web", "! command -v python3")  # the premise
    assert up.fab_json("-H", "web", "status")["web"] == {"state": "bare", "release": 25 - up.release}
    assert "install postfix" in up.fab("-H", "web", "plan").stdout
    done = up.fab("-H", "web", "bootstrap")
    assert "web    installing python3" in done.stdout
    assert up.fab_json("-H", "web", "status")["web"]["state"] == "up"


def test_debians_package_does_not_touch_main_cf(up: House) -> None:
    """As it would when it is upgraded, or reconfigured by somebody who has not heard of mailops."""
    for name in ("mail", "web"):
        assert "main_mailer_type: No configuration" in up.run(name, "debconf-show postfix")
        before = up.run(name, "sha256sum /etc/postfix/main.cf /etc/postfix/master.cf")
        up.run(name, "DEBIAN_FRONTEND=noninteractive dpkg-reconfigure postfix")
        assert up.run(name, "sha256sum /etc/postfix/main.cf /etc/postfix/master.cf") == before


# The installed package


def test_the_installed_command_plans_the_same_site(up: House, tmp_path: Path) -> None:
    mailops = wheel.install(wheel.build(tmp_path), tmp_path / "venv")
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "hosts.toml").write_text(up.hosts_toml.read_text())
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAILOPS_")}
    done = subprocess.run([mailops, "plan", "--json"], cwd=folder, env=env, capture_output=True, text=True, check=True)
    plans = json.loads(done.stdout)
    assert list(plans) == ["mail", "backup", "web"]
    assert [found["changes"] for found in plans.values()] == [{}] * 3  # the same templates, the same agent


def test_a_push_of_files_that_need_more_says_what_and_changes_nothing(up: House, site: Callable[[Edit], Path]) -> None:
    """As after an upgrade of mailops on the laptop."""
    bigger = site(lambda document: document.setdefault("override", {}).update(message_size_limit=11_000_000))
    up.run("mail", "mv /vault/sieve/after.d /vault/sieve/gone")
    try:
        done = up.fab("-H", "mail", "push", "--overwrite", site=bigger, check=False)
        assert done.returncode == 1
        assert "/vault/sieve/after.d" in done.stderr
        assert "fab -H mail bootstrap" in done.stderr
        assert "11000000" not in up.run("mail", "postconf -h message_size_limit")
    finally:
        up.run("mail", "mv /vault/sieve/gone /vault/sieve/after.d")
