"""The probes, asked on a machine whose daemons are broken in the ways they are for; all is mended afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.house import House, until
from tests.e2e.pace import pace

UNITS = ("redis-server", "rspamd", "dovecot", "postfix")
KEEP = """
set -e
rm -rf /root/kept; mkdir /root/kept
cp -a --parents /etc/postfix /etc/dovecot /etc/rspamd /etc/mailops/tls /root/kept
"""
MEND = """
systemctl stop impostor 2>/dev/null
rm -rf /run/systemd/system/rspamd.service.d
cp -a /root/kept/. /; rm -rf /root/kept
systemctl daemon-reload; systemctl reset-failed
"""
# What a run asks after it has changed something, and what it reports: by the machine's own agent.
AWAIT = """
import json, sys, time
sys.path.insert(0, "/usr/lib/mailops/agent.pyz")
from remote import machine
from remote.services import daemon_log, probe
began, start = time.time(), time.monotonic()
failures, fallen = [], []
try:
    probe.await_all([item for item in machine.manifest()["probes"] if item["kind"] in KINDS or not KINDS])
except probe.ProbesFailed as error:
    failures, fallen = error.failures, error.fallen
seconds = time.monotonic() - start
log = daemon_log.since(sorted({item["service"] for item, _ in failures}), began) if failures else []
failures = [[probe.name(item), item["service"], reason] for item, reason in failures]
print(json.dumps({"seconds": seconds, "failures": failures, "fallen": fallen, "log": log}))
"""
NEW_CERTIFICATE = """
cd /etc/mailops/tls
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=other.test -keyout privkey.pem -out fullchain.pem -days 3 2>&1
"""
# A web server where the milters should be.
IMPOSTOR = """
import http.server, os, socketserver, threading
for path in ("/var/spool/postfix/rspamd/incoming.sock", "/var/spool/postfix/rspamd/outgoing.sock"):
    if os.path.exists(path): os.unlink(path)
    server = socketserver.ThreadingUnixStreamServer(path, http.server.BaseHTTPRequestHandler)
    os.chmod(path, 0o660)
    threading.Thread(target=server.serve_forever).start()
"""
DOVECOT = "/etc/dovecot/*.conf"
MAIL_PORTS = {"smtp 25", "submission 587", "submissions 465"}


@dataclass(frozen=True)
class Case:
    """A way to break a machine, the probes that notice, and what one of them says."""

    script: str
    noticed: set[str]
    words: str = ""


CASES = {
    "an unknown restriction": Case(
        "postconf -e smtpd_recipient_restrictions=no_such_restriction; systemctl reload postfix",
        {"smtp 25"},
        "451 4.3.5 Server configuration error",
    ),
    "what an alias sends on gets no sender": Case(
        "postconf -M 'srs/unix=srs unix - n n - 20 spawn user=mailops-srs argv=/bin/false'; systemctl reload postfix",
        {"smtp 25"},
        "whether there is a SRS0=mailops-probe@example.test is not known: 451",
    ),
    "an open relay": Case(
        "postconf -e mynetworks=0.0.0.0/0; systemctl reload postfix", {"smtp 25"}, "it is an open relay"
    ),
    "strangers put off for good": Case(
        "postconf -e smtpd_relay_restrictions=permit_mynetworks,defer_unauth_destination; systemctl reload postfix",
        {"smtp 25"},
        "is not refused for good: 454",
    ),
    "no STARTTLS": Case(
        "postconf -e smtpd_tls_security_level=none; systemctl reload postfix", {"smtp 25"}, "STARTTLS is not offered"
    ),
    "no table of mailboxes": Case(
        "postconf -e virtual_mailbox_maps=proxy:sqlite:/etc/postfix/sqlite/nothere.cf; systemctl reload postfix",
        {"smtp 25"},
        "mailops-probe@example.test is not known: 451",
    ),
    "a key that is not there": Case(
        "postconf -e smtpd_tls_key_file=/etc/mailops/tls/nothere.pem; systemctl reload postfix", MAIL_PORTS, "454 4.7.0"
    ),
    "Postfix for this machine alone": Case(
        "postconf -e inet_interfaces=loopback-only; systemctl restart postfix", MAIL_PORTS, "the loopback address alone"
    ),
    "logins in clear": Case(
        "postconf -e smtpd_tls_auth_only=no; postconf -P submission/inet/smtpd_tls_security_level=may;"
        "systemctl reload postfix",
        {"submission 587"},
        "a login is offered without TLS",
    ),
    "an unknown restriction for users": Case(
        "postconf -P 'submission/inet/smtpd_relay_restrictions=no_such_restriction,reject'; systemctl reload postfix",
        {"submission 587"},
        "451 4.3.5",
    ),
    "submission without a login": Case(
        "postconf -P submissions/inet/smtpd_relay_restrictions=check_client_access,static:ok,reject;"
        "systemctl reload postfix",
        {"submissions 465"},
        "mail is taken without a login",
    ),
    "no milter": Case("systemctl stop rspamd", MAIL_PORTS | {"milter"}, "451 4.7.1"),
    "a milter that is none": Case(
        f"systemctl stop rspamd; systemd-run --quiet --unit=impostor --uid=_rspamd python3 -c '{IMPOSTOR}';"
        "timeout 10 sh -c 'until [ -S /var/spool/postfix/rspamd/outgoing.sock ]; do sleep 0.1; done'",
        MAIL_PORTS | {"milter"},
    ),
    "no way in for this machine's programs": Case(
        "postconf -MX cleanup-local/unix; systemctl reload postfix", {"queue"}, "public/cleanup-local"
    ),
    "nobody who hands mail to Dovecot": Case(
        "postconf -MX lmtp/unix 2>&1; systemctl reload postfix", {"queue"}, "private/lmtp"
    ),
    "Dovecot lets Postfix in no more": Case(
        "chown root /var/spool/postfix/private/dovecot-lmtp # dovecot", {"lmtp"}, "postfix may not use"
    ),
    "Redis only copies another": Case(
        "redis-cli -s /run/redis/redis-server.sock replicaof 127.0.0.1 1 # redis-server", {"redis"}, "READONLY"
    ),
    "Redis refuses": Case(
        "redis-cli -s /run/redis/redis-server.sock config set requirepass x # redis-server", {"redis"}, "NOAUTH"
    ),
    "a userdb without its table": Case(
        f"sed -i 's/postmaster_address FROM users/postmaster_address FROM persons/' {DOVECOT};"
        "systemctl restart dovecot",
        {"lmtp"},
        "451 4.3.0",
    ),
    "a userdb that finds nobody": Case(
        f"sed -i -E \"/postmaster_address FROM/{{n;s/WHERE email/WHERE 'x' || email/}}\" {DOVECOT};"
        "systemctl restart dovecot",
        {"lmtp"},
        "550 5.1.1",
    ),
    "no PLAIN": Case(
        f"sed -i -E 's/^auth_mechanisms.*/auth_mechanisms = scram-sha-256/' {DOVECOT}; systemctl restart dovecot",
        {"imaps 993", "managesieve 4190", "submission 587", "submissions 465"},
        "no PLAIN login",
    ),
    "a certificate that Dovecot has not noticed": Case(
        NEW_CERTIFICATE, {"imaps 993", "managesieve 4190"}, "it serves another certificate (CN=mail.example.test"
    ),
    # And what only looks broken:
    "our own network trusted": Case(
        "postconf -e 'mynetworks = 127.0.0.0/8 [::1]/128 10.0.0.0/8'; systemctl reload postfix", set()
    ),
    "greylisting": Case(
        "postconf -e 'smtpd_recipient_restrictions = permit_mynetworks, reject_unlisted_recipient,"
        " check_client_access inline:{{ADDRESS = 450 4.2.0 Greylisted}}'; systemctl reload postfix",
        set(),
    ),
    "a mailbox that was removed on the machine": Case(
        "python3 -c \"import sqlite3; db = sqlite3.connect('/vault/db/mail.sqlite');"
        " db.execute('UPDATE users SET email = ? WHERE email = ?', ('away@example.test', 'admin@example.test'));"
        ' db.commit()"',
        {"senders"},
        "does not say what the accounts do",
    ),
}
PUT_BACK = """
import sqlite3
db = sqlite3.connect('/vault/db/mail.sqlite')
db.execute("UPDATE users SET email = 'admin@example.test' WHERE email = 'away@example.test'")
db.commit()
"""


def wrong(house: House, name: str = "mail") -> dict[str, str]:
    """What `fab status` says is wrong, by probe."""
    probes = house.fab_json("-H", name, "status")[name]["probes"]
    return {probe: reason for probe, reason in probes.items() if reason}


def awaited(house: House, *kinds: str) -> Any:
    return json.loads(house.run("mail", "python3 -I -", stdin=f"KINDS = {kinds!r}\n{AWAIT}"))


class Broken:
    """A house whose mailhost is broken on purpose, and as before afterwards."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.touched: set[str] = set()
        house.run("mail", KEEP)

    def by(self, script: str, stdin: str | None = None) -> None:
        self.touched |= {unit for unit in UNITS if unit in script}
        self.house.run("mail", script, stdin=stdin)

    def mend(self) -> None:
        self.house.run("mail", MEND + "".join(f"systemctl restart {unit}\n" for unit in UNITS if unit in self.touched))
        self.house.run("mail", "python3 -", stdin=PUT_BACK)
        until(lambda: not wrong(self.house), 60, "everything to answer again")


@pytest.fixture
def broken(house: House) -> Iterator[Broken]:
    until(lambda: not wrong(house), 60, "everything to answer")
    broken = Broken(house)
    yield broken
    broken.mend()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_broken_is_noticed_and_by_whom_it_concerns(broken: Broken, case: Case) -> None:
    broken.by(case.script.replace("ADDRESS", broken.house.address("mail")))
    found: dict[str, str] = {}

    def settled() -> bool:  # a reload takes a moment
        found.clear()
        found.update(wrong(broken.house))
        return set(found) == case.noticed and (not found or any(case.words in reason for reason in found.values()))

    try:
        until(settled, 10, "the probes to notice")
    except AssertionError:
        pytest.fail(f"{found}")


def test_a_null_clients_own_programs_are_asked_for(up: House) -> None:
    assert up.fab_json("-H", "backup", "status")["backup"]["state"] == "up"
    up.run(
        "backup", "cp -a /etc/postfix/main.cf /root/; postconf -e smtpd_relay_restrictions=no_such_restriction,reject"
    )
    try:
        up.run("backup", "systemctl restart postfix")
        until(lambda: "451 4.3.5" in wrong(up, "backup").get("relay 25", ""), 10, "the probe to notice")
    finally:
        up.run("backup", "cp -a /root/main.cf /etc/postfix/; systemctl restart postfix")
    until(lambda: not wrong(up, "backup"), 10, "Postfix to answer again")


# As a run awaits them


def test_a_healthy_machine_is_asked_everything_at_once(up: House) -> None:
    assert len(wrong(up)) == 0
    kinds = ("redis", "milter", "imaps", "managesieve", "lmtp", "smtp", "submission", "submissions")
    found = [awaited(up, *kinds) for _ in range(3)]
    assert [one["failures"] for one in found] == [[], [], []]
    assert min(one["seconds"] for one in found) < 0.5 * pace()


def test_a_wrong_answer_ends_the_wait_in_seconds_and_the_log_has_the_reason(broken: Broken) -> None:
    broken.by(CASES["an unknown restriction"].script)
    found = awaited(broken.house)
    assert [(name, unit) for name, unit, _ in found["failures"]] == [("smtp 25", "postfix.service")]
    assert 4 < found["seconds"] < 15
    assert 'postfix/smtpd: warning: unknown smtpd restriction: "no_such_restriction"' in found["log"]
    assert not [line for line in found["log"] if "foreign.invalid" in line or "connect from" in line]


@pytest.mark.parametrize(
    ("script", "noticed", "words"),
    [
        ("postconf -e smtpd_recipient_limit=many", MAIL_PORTS, "fatal: bad numerical configuration"),
        ("sed -i 's/FROM users/FROM persons/' /etc/postfix/sqlite/mailboxes.cf", {"smtp 25"}, "no such table: persons"),
    ],
    ids=["smtpd", "proxymap"],
)
def test_a_daemon_whose_processes_die_is_told_from_a_slow_one(
    broken: Broken, script: str, noticed: set[str], words: str
) -> None:
    broken.by(f"{script}; systemctl reload postfix")
    found = awaited(broken.house)
    reasons = {name: reason for name, _, reason in found["failures"]}
    assert noticed <= reasons.keys() <= MAIL_PORTS  # proxymap serves every port: another one may ask as it dies
    assert all(words in reasons[name] for name in noticed)
    assert found["fallen"] == ["postfix.service"]
    assert found["seconds"] < 25
    assert len(found["log"]) == len({line.partition(": ")[2] for line in found["log"]})


def test_a_slow_start_is_waited_for(broken: Broken) -> None:
    slow = "/run/systemd/system/rspamd.service.d"
    broken.by(f"mkdir {slow}; printf '[Service]\\nExecStartPre=sleep 8\\n' > {slow}/slow.conf")
    broken.by("systemctl daemon-reload; systemctl --no-block restart rspamd; sleep 1")
    found = awaited(broken.house)
    assert found["failures"] == []
    assert 5 < found["seconds"] < 40


def test_who_cannot_log_in_is_dovecots_fault(broken: Broken) -> None:
    began = broken.house.run("mail", "date +%s").strip()
    broken.by(f"sed -i s,private/auth,private/elsewhere, {DOVECOT}; systemctl restart dovecot")
    found = awaited(broken.house, "submission", "submissions")
    assert [unit for _, unit, _ in found["failures"]] == ["dovecot.service"] * 2
    assert found["seconds"] < 15
    log = broken.house.run("mail", f"journalctl --sync; journalctl --since=@{began} -o cat -t postfix/submission/smtpd")
    assert "fatal" not in log  # Postfix was not asked: its process would have died of it


MISSING = {
    12: "passdb {\n driver = passwd-file\n args = /etc/nothere\n}\n",
    13: "passdb passwd-file {\n passwd_file_path = /etc/nothere\n}\n",
}


@pytest.mark.parametrize("first", [False, True], ids=["after the accounts", "alone"])
def test_a_login_tells_that_passwords_cannot_be_read(broken: Broken, first: bool) -> None:
    name = r"^passdb sql" if broken.house.release == 13 else r"^passdb \{$"
    cut = f"sed -i '/{name}/,/^}}/d' /etc/dovecot/dovecot.conf; " if first else ""
    broken.by(f"{cut}cat >> /etc/dovecot/dovecot.conf; systemctl reload dovecot", stdin=MISSING[broken.house.release])
    found = awaited(broken.house)
    assert [(name, unit) for name, unit, _ in found["failures"]] == [("login 993", "dovecot.service")]
    assert found["seconds"] < 20
    assert [line for line in found["log"] if "/etc/nothere" in line]


def test_a_reload_that_dovecot_did_not_accept_is_noticed(broken: Broken) -> None:
    login = "service imap-login {\n executable = /usr/lib/dovecot/nothere\n}\n"
    broken.by("cat >> /etc/dovecot/dovecot.conf; systemctl reload dovecot", stdin=login)
    found = awaited(broken.house)
    assert [name for name, _, _ in found["failures"]] == ["login 993"]
    assert "Config reload failed" in found["failures"][0][2]


def test_the_login_that_must_fail_slows_nobody_down(up: House) -> None:
    """Dovecot answers an address later and later from which wrong passwords came."""
    for _ in range(3):
        assert awaited(up, "login")["failures"] == []
    login = """
import imaplib, ssl, sys, time
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
client = imaplib.IMAP4_SSL(sys.argv[1], 993, ssl_context=context)
start = time.monotonic()
client.login("user1@example.test", sys.stdin.readline().strip())
print(time.monotonic() - start)
"""
    up.run("mail", "cat > /root/login.py", stdin=login)
    for address in ("127.0.0.1", up.address("mail")):
        taken = up.run("mail", f"python3 -I /root/login.py {address}", stdin=up.password("user1@example.test"))
        assert float(taken) < 1.5
