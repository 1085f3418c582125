"""What a stranger gets to see, and what they do not get to do; and mail of the site's own machines."""

from __future__ import annotations

import base64
import json
import re
import smtplib
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailops.lab import replica
from tests.e2e.house import House, token, until

GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
MEBIBYTE = 1024 * 1024
ADMIN, USER1, USER2 = "admin@example.test", "user1@example.test", "user2@second.test"
FOR_ALL = {22, 25, 465, 587, 993, 4190}  # ports
FOR_NOBODY = (110, 143, 995, 6379, 11332, 11333, 11334)

# Sends chunks of bytes from the outside machine to port 25, each after the reply to the one before, byte by byte
# as they are; prints the replies, and all that the server said after the last chunk as one more.
RAW_CLIENT = """
import base64, json, socket, sys
with socket.create_connection(("mail.example.test", 25), 30) as line:
    file = line.makefile("rb")
    def reply():
        said = b""
        while True:
            text = file.readline()
            said += text
            if text[3:4] != b"-":
                return said.decode()
    replies = [reply()]
    for chunk in json.load(sys.stdin):
        line.sendall(base64.b64decode(chunk))
        replies.append(reply())
    line.sendall(b"QUIT\\r\\n")
    replies.append(file.read().decode())
print(json.dumps(replies))
"""


def say(house: House, *chunks: bytes) -> list[str]:
    """What the mailhost answers to a stranger who sends exactly these bytes; the greeting comes first."""
    chosen = [base64.b64encode(chunk).decode() for chunk in chunks]
    done = replica.run(house.lab, "outside", ["python3", "-c", RAW_CLIENT], json.dumps(chosen))
    replies: list[str] = json.loads(done.stdout)
    return replies


def say_message(house: House, to: str, message: bytes, sender: str = "stranger@elsewhere.test") -> list[str]:
    """Hand over a message without touching a byte of it; the reply to it is the last but one."""
    envelope = [b"EHLO mx.elsewhere.test", f"MAIL FROM:<{sender}>".encode(), f"RCPT TO:<{to}>".encode(), b"DATA"]
    return say(house, *(line + b"\r\n" for line in envelope), message + b"\r\n.\r\n")


def head(subject: str, *more: bytes) -> bytes:
    """The header of an honest stranger, and `more` lines."""
    lines = [
        b"From: stranger@elsewhere.test",
        b"To: " + USER1.encode(),
        b"Subject: " + subject.encode(),
        b"Date: Mon, 23 Nov 2026 10:00:00 +0000",
        f"Message-ID: <{token()}@elsewhere.test>".encode(),
        *more,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def sources(house: House, user: str, subject: str, folder: str = "INBOX") -> list[bytes]:
    """The messages with this subject, byte by byte as the mail client gets them."""
    with house.imap(user) as client:
        client.select(folder, readonly=True)
        numbers = client.search(None, "HEADER", "Subject", f'"{subject}"')[1][0].split()
        return [client.fetch(number, "(BODY.PEEK[])")[1][0][1] for number in numbers]  # type: ignore[index,misc]


def client_of(house: House, port: int = 25) -> smtplib.SMTP:
    """A connection from this computer, a stranger like any other."""
    client = smtplib.SMTP(house.address("mail"), port, local_hostname="mx.elsewhere.test", timeout=30)
    client.ehlo()
    return client


def reply_to_recipient(house: House, to: str, sender: str = "stranger@elsewhere.test") -> str:
    """The server's words on RCPT TO; that MAIL FROM was taken is made sure of."""
    with client_of(house) as client:
        code, said = client.mail(sender)
        assert code == 250, said
        code, said = client.rcpt(to)
    return f"{code} {said.decode()}"


def queue(house: House, machine: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in house.run(machine, "postqueue -j").splitlines()]


# Who is let through


@pytest.mark.parametrize("sender", ["stranger@elsewhere.test", ADMIN, "root@backup.example.test"])
def test_relaying_without_login_is_refused(up: House, sender: str) -> None:
    for to in ("stranger@elsewhere.test", "somebody@nowhere.test", '"user1@example.test"@elsewhere.test'):
        assert reply_to_recipient(up, to, sender).startswith("554 5.7.1"), to


def test_an_unknown_recipient_gets_550_at_rcpt(up: House) -> None:
    for to in ("ghost@example.test", "ghost+detail@second.test", "user2@example.test", "vmail@mail.example.test"):
        assert reply_to_recipient(up, to).startswith("550 5.1.1"), to
    for trick in ("user1%elsewhere.test@example.test", "'OR'1'='1@example.test"):
        assert reply_to_recipient(up, trick)[:3] in ("550", "554"), trick


def test_port_25_offers_starttls_and_no_login(up: House) -> None:
    with client_of(up) as client:
        assert client.has_extn("starttls")
        assert not client.has_extn("auth")
        client.starttls()
        client.ehlo()
        assert not client.has_extn("auth")
        code, _ = client.docmd("AUTH PLAIN", base64.b64encode(b"\0a\0b").decode())
        assert code == 503


def test_port_25_serves_the_certificate_of_its_name(up: House) -> None:
    """A stranger's MTA that saw this certificate before finds it again, for the right name."""
    pem = up.run("mail", "cat /etc/mailops/tls/fullchain.pem")
    up.run("outside", "cat > /tmp/mailhost.pem", stdin=pem)
    try:
        said = up.run(
            "outside",
            "echo QUIT | openssl s_client -starttls smtp -connect mail.example.test:25 -CAfile /tmp/mailhost.pem"
            " -verify_hostname mail.example.test -verify_return_error -brief 2>&1",
        )
    finally:
        up.run("outside", "rm /tmp/mailhost.pem")
    assert "Verification: OK" in said


def test_addresses_cannot_be_fished_for(up: House) -> None:
    with client_of(up) as client:
        assert client.verify(USER1)[0] == 502
        assert client.expn(USER1)[0] in (500, 502)


def test_from_outside_only_mail_ports_answer(up: House) -> None:
    address = up.address("mail")
    for port in FOR_ALL:
        socket.create_connection((address, port), 10).close()
    for port in FOR_NOBODY:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, port), 10)
    local = re.compile(r"127\.0\.0\.\d+|\[::1\]")
    listening = [line.split()[3].rpartition(":") for line in up.run("mail", "ss -Htln").splitlines()]
    assert {int(port) for host, _, port in listening if not local.fullmatch(host)} == FOR_ALL


def test_the_console_answers_on_the_machines_own_loopback(up: House) -> None:
    fetch = "import urllib.request as r; print(r.urlopen('http://{}:11334/ping', timeout=10).read().decode())"
    for host in ("127.0.0.1", "[::1]"):
        assert replica.run(up.lab, "mail", ["python3", "-c", fetch.format(host)]).stdout.strip() == "pong"
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{up.address('mail')}:11334/ping", timeout=10)


# What is let in


def test_gtube_is_rejected_during_smtp_and_is_in_no_mailbox(up: House) -> None:
    bad, good = token(), token()
    replies = say_message(up, USER1, head(bad) + GTUBE.encode())
    assert [reply[:3] for reply in replies[:-1]] == ["220", "250", "250", "250", "354", "554"]
    assert say_message(up, USER1, head(good) + b"Hello.")[-2].startswith("250")
    up.arrives(USER1, good)  # the mailbox has had its time
    assert up.run("mail", f"grep -rl {good} /vault/mail"), "this is how one would find it"
    assert not up.run("mail", f"grep -rl {bad} /vault/mail", check=False)


def test_a_message_over_the_size_limit_is_refused(up: House) -> None:
    with client_of(up) as client:
        limit = int(client.esmtp_features["size"])
        assert limit >= 25 * MEBIBYTE, "large enough for what people send"
        code, _ = client.docmd(f"MAIL FROM:<stranger@elsewhere.test> SIZE={limit + 1}")
        assert code == 552
        client.rset()
        client.mail("stranger@elsewhere.test")  # without saying how large
        assert client.rcpt(USER1)[0] == 250
        line = b"x" * 76 + b"\r\n"
        code, _ = client.data(head(token()) + line * (limit // len(line) + 1))
        assert code == 552


@pytest.mark.parametrize("domain", ["example.test", "second.test"])
def test_system_addresses_of_each_domain_reach_the_administrator(up: House, domain: str) -> None:
    subjects = {up.stranger_sends(f"{local}@{domain}"): local for local in ("postmaster", "abuse", "root")}
    for subject, local in subjects.items():
        assert up.arrives(ADMIN, subject)["To"] == f"{local}@{domain}"


def test_an_alias_with_two_destinations_reaches_both(up: House) -> None:
    subject = up.stranger_sends("both@second.test")
    for user in (USER1, USER2):
        up.arrives(user, subject)
        assert len(up.messages(user, subject)) == 1


def test_an_address_is_known_in_capitals_too(up: House) -> None:
    up.arrives(USER1, up.stranger_sends("User1@EXAMPLE.test"))
    up.arrives(USER1, up.stranger_sends("SALES@example.test"))


# Hostile messages


ENDS = (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\r.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n")


def test_a_message_that_ends_in_an_unusual_way_does_not_become_two(up: House) -> None:
    """SMTP smuggling (CVE-2023-51764): what follows a bare line feed and a dot is no command."""
    hidden = token()
    second = b"MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nDATA\r\nSubject: %s\r\n\r\nSmuggled." % (
        ADMIN.encode(),
        USER2.encode(),
        hidden.encode(),
    )
    subjects = {token(): end for end in ENDS}
    taken = []
    for subject, end in subjects.items():
        replies = say_message(up, USER1, head(subject) + b"Hello." + end + second)
        # One reply to the message, one to QUIT: a smuggled command would have had one as well.
        assert [line[:3] for line in "".join(replies[5:]).splitlines()] in (["250", "221"], ["521"], ["550", "221"]), (
            end
        )
        taken += [subject] if replies[5].startswith("250") else []
    for subject in taken:
        assert "RCPT TO:" in up.arrives(USER1, subject).get_content(), "it is text, of the one message"
    up.arrives(USER2, up.stranger_sends(USER2))  # mail for user2 has had its time
    assert not up.messages(USER2, hidden)
    assert not up.messages(USER2, hidden, "Junk")


def test_a_stranger_cannot_add_header_lines_with_stray_line_ends(up: House) -> None:
    subject = token()
    tricks = head(f"{subject} a\rX-Injected: 1", b"X-Trick: a\r\r\rX-Spam: Yes", b"X-Other: a\0X-Spam: Yes")
    assert say_message(up, USER1, tricks + b"Hello.")[-2].startswith("250")
    up.arrives(USER1, subject)
    source = sources(up, USER1, subject)[0]
    assert b"\r" not in source.replace(b"\r\n", b"")
    assert not re.search(rb"(?im)^x-(injected|spam):", source)
    with up.imap(USER1) as client:
        client.select(readonly=True)
        assert client.search(None, "HEADER", "X-Injected", '"1"')[1] == [b""]


def test_line_ends_in_an_envelope_address_are_refused(up: House) -> None:
    for address in (b"a@elsewhere.test\rX-Injected: 1", b"a@elsewhere.test>\rRCPT TO:<user1@example.test"):
        replies = say(up, b"EHLO mx.elsewhere.test\r\n", b"MAIL FROM:<" + address + b">\r\n")
        assert replies[2].startswith(("501", "555")), address


def test_very_long_lines_and_nul_bytes_arrive_and_harm_nobody(up: House) -> None:
    subject = token()
    line = b"".join(b"%06d," % number for number in range(20_000))  # 140 kB without a line end
    long_header = b"X-Long: " + b"y" * 20_000
    assert say_message(up, USER1, head(subject, long_header) + line + b"\r\nbe\0fore.\r\nThe end.")[-2].startswith(
        "250"
    )
    up.arrives(USER1, subject)
    source = sources(up, USER1, subject)[0]
    assert line in re.sub(rb"\r\n ?", b"", source)
    assert max(map(len, source.split(b"\r\n"))) <= 998, "a mail client may rely on it (RFC 5322, 2.1.1)"
    assert source.rstrip().endswith(b"The end.")
    up.arrives(USER1, up.stranger_sends(USER1))  # the mailbox still works


def test_a_strangers_verdicts_on_their_own_mail_do_not_survive(up: House) -> None:
    subject = token()
    forged = (
        b"Authentication-Results: mail.example.test; dkim=pass header.d=bank.test; forged=yes",
        b"authentication-RESULTS:\r\n (x) MAIL.example.test (y) ; spf=pass forged=yes",
        b"Authentication-Results : mail.example.test; spf=pass forged=yes",
        b'Authentication-Results: "mail.example.test" 1; spf=pass forged=yes',
        b"ARC-Authentication-Results: i=1; mail.example.test; dkim=pass forged=yes",
        b'arc-authentication-results :\r\n i=1; (x)\r\n "MAIL.example.test" 1; dkim=pass forged=yes',
        b"Received-SPF: pass (mail.example.test: domain of bank.test forged) receiver=x",
        b"received-spf: pass client-ip=192.0.2.1;\r\n receiver=mail.example.test; forged",
        b"X-Spam: Yes",
        b"x-SPAM : Yes",
        b"X-Spam-Flag: YES",
        b"X-Spam-Status: Yes, score=99",
        b"X-Spam-Level: *****",
        b"X-Spamd-Result: default: True",
        b"X-Spamd-Bar: ++++++++++",
    )
    assert say_message(up, USER1, head(subject, *forged) + b"Hello.")[-2].startswith("250")
    message = up.arrives(USER1, subject)  # in the inbox, not in Junk
    assert [name for name in message.keys() if name.lower().startswith("x-spam")] == ["X-Spamd-Bar"]  # noqa: SIM118
    assert "++++++++++" not in message.get_all("X-Spamd-Bar", [])
    verdicts = [str(value) for value in message.get_all("Authentication-Results", [])]
    assert len(verdicts) == 1, verdicts
    assert "spf=pass" in verdicts[0]
    assert not [value for value in message.values() if "forged" in value]


def test_verdicts_in_a_part_do_not_survive_and_others_do(up: House) -> None:
    """Those of other servers on the way, and what a message that is attached says of itself."""
    subject = token()
    passed = (
        b"ARC-Authentication-Results: i=1; mx.elsewhere.test; spf=pass smtp.helo=mail.example.test",
        b"Received-SPF: pass (mx.elsewhere.test: ok) receiver=mx.elsewhere.test; helo=mail.example.test",
    )
    verdict = b"Authentication-Results: mail.example.test; dkim=pass\r\n"
    part = b"--b\r\nContent-Type: text/plain\r\n" + verdict + b"X-Spam-Status: No\r\n\r\nHello.\r\n"
    attached = b"--b\r\nContent-Type: message/rfc822\r\n\r\n" + verdict + b"From: a@b.test\r\n\r\nHello.\r\n--b--"
    raw = head(subject, *passed, b"MIME-Version: 1.0", b"Content-Type: multipart/mixed; boundary=b") + part + attached
    assert say_message(up, USER1, raw)[-2].startswith("250")
    message = up.arrives(USER1, subject)
    assert message["ARC-Authentication-Results"]
    assert message["Received-SPF"]
    first, second = message.iter_parts()
    assert first.keys() == ["Content-Type"]
    assert second.get_content()["Authentication-Results"] == "mail.example.test; dkim=pass"


def test_a_stranger_cannot_have_us_report_to_a_forged_sender(up: House) -> None:
    with client_of(up) as client:
        assert not client.has_extn("dsn")
        client.mail("stranger@elsewhere.test")
        assert client.rcpt(USER1, ["NOTIFY=SUCCESS"])[0] // 100 == 5
    with up.submission() as client:
        assert client.has_extn("dsn"), "our users may"


# The site's own machines


def test_mail_from_the_mailhosts_own_root_reaches_the_administrator(up: House) -> None:
    subject = token()
    up.run("mail", "sendmail root", stdin=f"Subject: {subject}\n\nThe disk is nearly full.\n")
    assert "root@mail.example.test" in up.arrives(ADMIN, subject)["From"]


def send_from(house: House, machine: str, to: str = "root") -> str:
    subject = token()
    house.run(machine, f"sendmail {to}", stdin=f"Subject: {subject}\n\nThe backup is done.\n")
    return subject


@pytest.mark.parametrize("machine", ["backup", "web"])
def test_a_null_client_relays_over_tls_and_with_login(up: House, machine: str) -> None:
    message = up.arrives(ADMIN, send_from(up, machine))
    relayed = next(line for line in message.get_all("Received", []) if f"from {machine}.example.test" in line)
    assert "with ESMTPSA" in relayed  # RFC 3848: S for TLS, A for login
    assert re.search(r"TLSv1\.[23]", relayed)


@pytest.mark.parametrize("machine", ["backup", "web"])
def test_a_null_client_listens_on_its_loopback_only(up: House, machine: str) -> None:
    listening = [line.split()[3].rpartition(":") for line in up.run(machine, "ss -Htln").splitlines()]
    assert {host for host, _, port in listening if port == "25"} == {"127.0.0.1", "[::1]"}
    assert {port for host, _, port in listening if host not in ("127.0.0.1", "[::1]")} == {"22"}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((up.address(machine), 25), 10)


@pytest.fixture
def impostor(up: House, tmp_path: Path) -> Iterator[House]:
    """The null client `backup` trusts another certificate for the mailhost's name than the one it serves."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"),
            *("-subj", "/CN=mail.example.test", "-addext", "subjectAltName=DNS:mail.example.test"),
            *("-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    up.run("backup", "cp -p /etc/mailops/mailhost.pem /root/kept.pem")
    up.run("backup", "cat >/etc/mailops/mailhost.pem && postfix reload", stdin=(tmp_path / "cert.pem").read_text())
    yield up
    up.run("backup", "mv /root/kept.pem /etc/mailops/mailhost.pem && postfix reload && postqueue -f")


def test_a_null_client_keeps_its_mail_from_a_server_that_it_cannot_verify(impostor: House) -> None:
    subject = send_from(impostor, "backup")
    reason = until(lambda: deferred(impostor, "backup"), 30, "the message to be deferred")
    assert "not verified" in reason
    assert not impostor.messages(ADMIN, subject)
    impostor.run("backup", "cp -p /root/kept.pem /etc/mailops/mailhost.pem && postfix reload")
    impostor.arrives(ADMIN, subject, sender="backup")  # it was this, and nothing else, that held it up


def deferred(house: House, machine: str) -> str:
    """Why a message waits in a machine's queue; "" while none does."""
    reasons = [
        str(recipient.get("delay_reason", ""))
        for message in queue(house, machine)
        for recipient in message["recipients"]  # type: ignore[attr-defined]
    ]
    return next(filter(None, reasons), "")


def test_a_null_clients_mail_waits_while_the_mailhost_is_away(up: House) -> None:
    up.run("mail", "systemctl stop postfix")
    try:  # on Debian 12 that unit only stands for the one whose end is to be awaited
        up.run("mail", "timeout 30 sh -c 'while pgrep -P 1 -x master; do sleep 0.05; done'")
        subject = send_from(up, "backup")
        assert "refused" in until(lambda: deferred(up, "backup"), 30, "the message to be deferred")
    finally:
        up.run("mail", "systemctl start postfix")
    up.arrives(ADMIN, subject, sender="backup")


def test_the_null_clients_password_is_for_root_alone(up: House) -> None:
    """Whoever has it can send as any of the site's machines."""
    for machine in ("backup", "web"):
        secret = up.password("relay@example.test")
        holders = up.run(machine, "grep -rlF -f - /etc", stdin=f"{secret}\n").split()
        assert holders == ["/etc/postfix/sasl_passwd"]
        assert up.run(machine, "stat -c '%a %U' /etc/postfix/sasl_passwd").strip() == "600 root"


def test_a_wrong_password_opens_no_mailbox(up: House) -> None:
    for user, password in ((USER1, up.password(USER2)), ("' OR 1=1 --", "x")):
        assert not up.can_log_in(user, password)
        # It was the password; and Dovecot makes an address that fails wait ever longer, until it succeeds.
        assert up.can_log_in(USER1, up.password(USER1))
