"""The outside machine: the rest of the world, as far as a mail server can tell.

It answers DNS for everybody and is the mail server of elsewhere.test, where `stranger` has a mailbox
(/home/stranger/Maildir). It delivers by MX record, speaks TLS if the other side does, and retries within
seconds what was deferred.
"""

from __future__ import annotations

from mailops.lab.machine import Machine, chroot, put
from mailops.lab.running import run
from mailops.lab.zones import STRANGER_DOMAIN, STRANGER_MX

STRANGER = "stranger"
SERVICES = ("knot.service", "postfix.service")

MAIN_CF = f"""# Written by mailops' lab.
compatibility_level = 3.6
myhostname = {STRANGER_MX}
myorigin = {STRANGER_DOMAIN}
mydestination = {STRANGER_DOMAIN}, {STRANGER_MX}, localhost
mynetworks = 127.0.0.0/8 [::1]/128
inet_protocols = ipv4
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
home_mailbox = Maildir/
alias_maps =
local_recipient_maps = proxy:unix:passwd.byname
smtp_tls_security_level = may
smtpd_tls_security_level = may
smtpd_tls_cert_file = /etc/postfix/cert.pem
smtpd_tls_key_file = /etc/postfix/key.pem
# Deferred mail is tried again at once: tests wait for it.
queue_run_delay = 5s
minimal_backoff_time = 5s
maximal_backoff_time = 10s
smtp_connect_timeout = 5s
"""

CERTIFICATE = (
    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
    *("-days", "3650", "-subj", f"/CN={STRANGER_MX}", "-addext", f"subjectAltName=DNS:{STRANGER_MX}"),
    *("-keyout", "/etc/postfix/key.pem", "-out", "/etc/postfix/cert.pem"),
)


def furnish_world(machine: Machine) -> None:
    """Make a machine that has never been on the outside machine."""
    put(machine, "/etc/postfix/main.cf", MAIN_CF)
    put(machine, "/etc/mailname", f"{STRANGER_DOMAIN}\n")
    chroot(machine, CERTIFICATE)
    chroot(machine, ["useradd", "--create-home", "--uid", "1000", "--shell", "/bin/bash", STRANGER])
    chroot(machine, ["systemctl", "--quiet", "enable", *SERVICES])


def wait_for_services(machine: Machine) -> None:
    """Come back when names are answered and mail is taken."""
    run(machine, ["systemctl", "start", *SERVICES])
