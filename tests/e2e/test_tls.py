"""TLS as others see it: openssl(1) is the judge."""

from __future__ import annotations

import subprocess

import pytest

from tests.e2e.house import House
from tests.e2e.test_from_outside import send_from

ADMIN = "admin@example.test"
STARTTLS = {25: "smtp", 465: "", 587: "smtp", 993: "", 4190: "sieve"}
TLS = "/etc/mailops/tls"
# A certificate as mailops made them once: by openssl's defaults an authority, for ten years, without a purpose.
OLD_FORM = f"""
cd {TLS}; cp -p fullchain.pem /root/kept.pem
openssl req -x509 -key privkey.pem -days 3650 -subj /CN=mail.example.test \
    -addext subjectAltName=DNS:mail.example.test -out fullchain.pem
systemctl reload postfix dovecot
"""


def client(house: House, port: int, *args: str) -> subprocess.CompletedProcess[str]:
    command = ["openssl", "s_client", "-connect", f"{house.address('mail')}:{port}", *args]
    command += ["-starttls", STARTTLS[port]] if STARTTLS[port] else []
    return subprocess.run(command, input="", capture_output=True, text=True, check=False, timeout=30)


def served(house: House, port: int) -> str:
    """The certificate that a port shows, as PEM."""
    said = client(house, port).stdout
    return said[said.index("-----BEGIN") : said.index("-----END")]


@pytest.mark.parametrize("port", STARTTLS)
def test_nobody_gets_a_cipher_without_a_certificate(up: House, port: int) -> None:
    """Whoever stands between could read along, passwords included."""
    assert "Cipher is (NONE)" in client(up, port, "-tls1_2", "-cipher", "aNULL:@SECLEVEL=0").stdout
    assert "BEGIN CERTIFICATE" in client(up, port, "-tls1_2", "-cipher", "ALL:@SECLEVEL=0").stdout


def test_an_older_server_that_verifies_nothing_is_let_in(up: House) -> None:
    for cipher in ("AES128-SHA", "ECDHE-RSA-AES128-SHA", "AES256-GCM-SHA384"):
        assert f"Cipher is {cipher}" in client(up, 25, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0").stdout


def test_the_certificate_is_one_that_telephones_accept(up: House) -> None:
    """https://support.apple.com/103769; and it is good for nothing else."""
    said = up.run("mail", f"openssl x509 -in {TLS}/fullchain.pem -noout -text -checkend $((700 * 86400))")
    for line in ("CA:FALSE", "TLS Web Server Authentication", "DNS:mail.example.test", "will not expire"):
        assert line in said
    longer = up.run("mail", f"openssl x509 -in {TLS}/fullchain.pem -noout -checkend $((825 * 86400))", check=False)
    assert "will expire" in longer
    strict = f"openssl verify -x509_strict -purpose sslserver -CAfile {TLS}/fullchain.pem {TLS}/fullchain.pem"
    assert "OK" in up.run("mail", strict)


def test_one_of_the_old_form_is_made_anew_and_null_clients_follow(up: House) -> None:
    up.run("mail", OLD_FORM)
    old = served(up, 25)
    try:
        up.fab("-H", "backup,web", "push")
        assert "telephones refuse" in up.fab("-H", "mail", "status").stdout
        assert "made anew" in up.fab("-H", "mail", "plan").stdout
        assert "made anew" in up.fab("-H", "mail", "bootstrap", "--json").stdout
        assert old not in [served(up, port) for port in STARTTLS]
        subject = send_from(up, "backup")  # it does not know the new one yet: its mail waits
        up.fab("-H", "backup,web", "push")
        up.arrives(ADMIN, subject, sender="backup")
        assert up.fab_json("-H", "mail", "bootstrap")["mail"]["changes"] == {}
    finally:
        up.run("mail", "rm -f /root/kept.pem")


def test_one_that_somebody_puts_in_its_place_is_served_after_a_push(up: House) -> None:
    new = "-newkey rsa:2048 -nodes -keyout new.key -days 90 -subj /O=CA -addext subjectAltName=DNS:mail.example.test"
    up.run(
        "mail",
        f"cd {TLS}; cp -p fullchain.pem old.pem; cp -p privkey.pem old.key; openssl req -x509 {new} -out new.pem",
    )
    old = served(up, 993)
    try:
        up.run("mail", f"cd {TLS}; cat new.pem >fullchain.pem")
        refused = up.fab("-H", "mail", "push", check=False)
        assert (refused.returncode, "cannot be served with" in refused.stderr) == (1, True)
        assert served(up, 993) == old
        up.run("mail", f"cd {TLS}; cat new.key >privkey.pem")
        assert "is new, and the old one is served; next: fab -H mail push" in up.fab("-H", "mail", "status").stdout
        assert "reload postfix.service" in up.fab("-H", "mail", "plan").stdout
        up.fab("-H", "mail", "push")
        new = up.run("mail", f"cat {TLS}/new.pem")
        assert all(served(up, port) in new for port in STARTTLS)
        assert up.fab_json("-H", "mail", "push")["mail"]["changes"] == {}
    finally:
        up.run("mail", f"cd {TLS}; cat old.pem >fullchain.pem; cat old.key >privkey.pem; rm old.* new.*")
        up.fab("-H", "mail", "push")
