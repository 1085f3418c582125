"""What was killed, or was away for a while, is there again without anybody's hand; and never beside a locked vault."""

from __future__ import annotations

import smtplib

from tests.e2e.house import House, token, until
from tests.e2e.test_vault import drop_in, mail_processes, open_ports

ADMIN, USER1 = "admin@example.test", "user1@example.test"
DATABASE = "/vault/db/mail.sqlite"
MASTERS = {
    "dovecot": "cat /run/dovecot/master.pid",
    "redis-server": "pidof -s redis-server",
    "rspamd": "systemctl show -p MainPID --value rspamd",
    "postfix": "cat /var/spool/postfix/pid/master.pid",
}


def kill(house: House, machine: str, daemon: str) -> None:
    """kill -9 of the first process; returns when there is another one."""
    find = MASTERS[daemon]
    old = house.run(machine, f"pid=$({find}); kill -9 $pid; echo $pid").strip()

    def afresh() -> bool:
        new = house.run(machine, f"systemctl is-active --quiet {daemon} && {find}", check=False).strip()
        return bool(new) and new != old

    until(afresh, 60, f"another {daemon} on {machine}")


def kill_bindfs(house: House) -> None:
    """kill -9 of what shows the queue; returns when there is another one."""
    old = house.run("mail", "pid=$(pidof bindfs); kill -9 $pid; echo $pid")
    until(lambda: house.run("mail", "pidof bindfs", check=False).strip() not in ("", old.strip()), 20, "another bindfs")


def answer(house: House, recipient: str = USER1) -> int:
    """What port 25 says of a recipient; 0 for no answer at all."""
    try:
        with smtplib.SMTP(house.address("mail"), 25, local_hostname="mx.elsewhere.test", timeout=5) as client:
            client.ehlo()
            client.mail("stranger@elsewhere.test")
            return client.rcpt(recipient)[0]
    except OSError:
        return 0


def test_daemons_that_are_killed_come_back_and_mail_goes_on(up: House) -> None:
    with up.submission():  # its process outlives the master, if it may, and keeps the ports
        for daemon in MASTERS:
            kill(up, "mail", daemon)
    for machine in ("backup", "web"):
        kill(up, machine, "postfix")
    until(lambda: up.state() == "up", 30, "all that answers")
    up.arrives(USER1, up.stranger_sends(USER1))
    subject = token()
    up.run("web", "sendmail root", stdin=f"Subject: {subject}\n\nFrom a null client.\n")
    up.arrives(ADMIN, subject, sender="web")


def test_a_queue_whose_process_is_killed_comes_back_with_the_daemons(up: House) -> None:
    up.run("mail", "systemctl stop dovecot")
    try:
        subject = up.stranger_sends(USER1)
        until(lambda: "queue is empty" not in up.run("mail", "mailq"), 30, "a message that waits")
        for _ in range(2):
            kill_bindfs(up)
        until(lambda: answer(up) == 250, 30, "Postfix")
        assert up.run("mail", "pidof dovecot", check=False) == "", "a stop is a stop"
        assert up.run("mail", "mount").count(" on /var/spool/postfix ") == 1, "no dead mount stays below it"
        assert "queue is empty" not in up.run("mail", "mailq")
    finally:
        up.run("mail", "systemctl start dovecot")
    up.arrives(USER1, subject, sender="mail")
    assert up.state() == "up"


def test_a_queue_that_comes_back_late_brings_the_daemons_along_and_a_stop_is_a_stop(up: House) -> None:
    late = "[Service]\nExecStartPre=sh -c 'echo >>/run/tries; [ $(wc -l </run/tries) -gt 2 ]'"
    up.run("mail", "rm -f /run/tries; systemctl stop dovecot")
    try:
        with drop_in(up, "mailops-queue.service", late):
            kill_bindfs(up)
            until(lambda: answer(up) == 250, 60, "Postfix")
        assert up.run("mail", "wc -l </run/tries").strip() == "3"
        until(lambda: up.run("mail", "systemctl is-active rspamd", check=False) == "active\n", 20, "Rspamd")
        assert up.run("mail", "pidof dovecot", check=False) == "", "a stop is a stop"
    finally:
        up.run("mail", "rm -f /run/tries; systemctl start dovecot")
    up.arrives(USER1, up.stranger_sends(USER1), sender="mail")
    assert up.state() == "up"


def test_a_queue_that_comes_back_after_the_vault_has_gone_brings_nothing(up: House) -> None:
    with drop_in(up, "mailops-queue.service", "[Service]\nExecStartPre=false"):
        up.run("mail", "kill -9 $(pidof bindfs)")
        until(lambda: open_ports(up) == [], 20, "the end of the daemons")
        up.fab("lock")
    up.run("mail", "sleep 4")  # more than a queue waits before it tries again
    assert mail_processes(up) == set()
    assert open_ports(up) == []
    up.fab("unlock")
    assert up.state() == "up"


def test_a_queue_that_fails_for_good_leaves_no_daemon_on_the_bare_disk_and_unlock_brings_it_back(up: House) -> None:
    with drop_in(
        up,
        "mailops-queue.service",
        "[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=3\n[Service]\nExecStartPre=false",
    ):
        up.run("mail", "kill -9 $(pidof bindfs)")
        until(lambda: up.run("mail", "systemctl is-failed mailops-queue", check=False) == "failed\n", 30, "its end")
        until(lambda: open_ports(up) == [], 10, "the end of the daemons")
        assert up.state() == "degraded"
    assert "start postfix.service" in up.fab("-H", "mail", "unlock").stdout
    assert up.state() == "up"


def test_a_daemon_that_a_signal_has_stopped_is_told_of_and_started_afresh(up: House) -> None:
    for machine, unit, process in (("mail", "postfix", "qmgr"), ("mail", "dovecot", "log"), ("web", "postfix", "qmgr")):
        pid = up.run(machine, f"pid=$(pgrep -x {process}); kill -STOP $pid; echo $pid").strip()
        try:
            said = up.fab("-H", machine, "status").stdout
            assert "✗ degraded" in said
            assert f"{unit}.service: a signal has stopped {process} (process {pid}), and mail waits; next: fab" in said
            assert f"restart {unit}.service" in up.fab("-H", machine, "bootstrap").stdout
        finally:
            up.run(machine, f"kill -CONT {pid}", check=False)
        assert up.state(machine) == "up"
    up.arrives(USER1, up.stranger_sends(USER1))


def test_a_stop_is_a_stop_and_nothing_comes_back_beside_a_locked_vault(up: House) -> None:
    up.run("mail", "systemctl stop dovecot")
    up.run("mail", f"kill -9 $({MASTERS['rspamd']}) $({MASTERS['postfix']}); kill -9 $(pidof bindfs gocryptfs)")
    until(lambda: up.state() == "locked", 30, "a locked machine")
    up.run("mail", "sleep 3")  # three times as long as a daemon waits before it is started again
    assert open_ports(up) == []
    assert mail_processes(up) == set()
    up.fab("unlock")
    assert up.state() == "up"


def test_accounts_that_were_away_are_seen_again(up: House) -> None:
    with smtplib.SMTP(up.address("mail"), 25, local_hostname="mx.elsewhere.test", timeout=30) as busy:
        try:
            up.run("mail", f"mv {DATABASE} {DATABASE}.away; systemctl reload postfix")
            until(lambda: answer(up) in (0, 451), 60, "no answer to who exists")
            assert answer(up, "no-such-user@example.test") in (0, 451), "a stranger is told to wait"
        finally:
            up.run("mail", f"mv {DATABASE}.away {DATABASE}")
        busy.ehlo()  # somebody holds on to a process all the time
        until(lambda: answer(up) == 250, 60, "the accounts")
    assert answer(up, "no-such-user@example.test") == 550


def test_a_database_that_took_the_place_of_another_counts(up: House) -> None:
    """A backup is moved there while mail runs, and somebody keeps Postfix's processes busy with the old one."""
    alias = f"{token()}@example.test"
    until(lambda: up.run("mail", "cat /run/mailops-accounts", check=False).strip(), 60, "the database of now noticed")
    assert answer(up, alias) == 550
    up.run("mail", f"cp -p {DATABASE} {DATABASE}.was; cp -p {DATABASE} {DATABASE}.new")
    try:
        add = f"INSERT INTO aliases(src, dst) VALUES ('{alias}', '{USER1}')"
        up.run(
            "mail",
            "python3",
            stdin=f"import sqlite3\nwith sqlite3.connect('{DATABASE}.new') as db: db.execute({add!r})",
        )
        up.run("mail", f"mv {DATABASE}.new {DATABASE}")
        until(lambda: answer(up, alias) == 250, 60, "the alias of the new database")
        assert answer(up, "no-such-user@example.test") == 550
    finally:
        up.run("mail", f"mv {DATABASE}.was {DATABASE}")
        until(lambda: answer(up, alias) == 550, 60, "the database of before")


def test_a_null_client_whose_resolver_comes_late_sends_what_waited(up: House) -> None:
    subject = token()
    late = "/run/systemd/resolve"  # the place that a link leads to, where it is not a file
    up.run("web", "cp /etc/resolv.conf /root/resolv.conf; rm /etc/resolv.conf /var/spool/postfix/etc/resolv.conf")
    try:
        up.run("web", f"ln -s ..{late}/stub-resolv.conf /etc/resolv.conf; systemctl restart postfix; sendmail root",
               stdin=f"Subject: {subject}\n\nLate.\n")  # fmt: skip
        until(lambda: "try again" in up.run("web", "mailq"), 30, "a message that waits for a resolver")
        up.run("web", f"mkdir -p {late}; cp /root/resolv.conf {late}/stub-resolv.conf")
        up.arrives(ADMIN, subject, seconds=120)  # nobody told it to
    finally:
        up.run("web", f"rm -f /etc/resolv.conf; mv /root/resolv.conf /etc/resolv.conf; rm -rf {late}")


def test_a_reload_for_a_resolver_has_the_next_queue_manager_send_what_waits(up: House) -> None:
    """The one that the reload sends away takes its time here."""
    subject = token()
    up.run("mail", "systemctl stop postfix")
    try:
        up.run("web", "sendmail root", stdin=f"Subject: {subject}\n\nWaits.\n")
        until(lambda: "mail.example.test[" in up.run("web", "mailq"), 30, "a message that waits")
    finally:
        up.fab("unlock")
    slow = "kill -STOP $(pidof qmgr); (sleep 2; kill -CONT $(pidof qmgr)) & sh /usr/lib/mailops/reload-postfix; wait"
    up.run("web", slow)
    up.arrives(ADMIN, subject, seconds=60)
