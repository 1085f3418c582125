"""What a machine was before: another mail server, a port that is taken, packages upgraded while it is locked."""

from __future__ import annotations

from mailops.lab import replica
from tests.e2e.house import House, token, until
from tests.e2e.test_vault import mail_processes

ADMIN, USER1 = "admin@example.test", "user1@example.test"
APT = "DEBIAN_FRONTEND=noninteractive apt-get -yq -o DPkg::Lock::Timeout=60"
LISTENER = 'import socket, time; s = socket.create_server(("127.0.0.1", 25)); time.sleep(300)'


def test_a_null_client_that_had_exim_sends_through_postfix(up: House) -> None:
    up.run("web", f"systemctl stop postfix; {APT} purge postfix; {APT} install exim4")
    up.run("web", "sendmail -odq someone@elsewhere.test; exim4 -Mf $(exim4 -bpr | awk 'NR==1 {print $3}')",
           stdin="Subject: old\n\nFrozen, and left.\n")  # fmt: skip
    planned = "\n".join(up.fab_json("-H", "web", "plan")["web"]["changes"]["ports"])
    assert "stop exim4.service, which has port 25" in planned
    assert "/var/spool/exim4/input" in planned
    said = up.fab("-H", "web", "bootstrap").stdout
    assert "in /var/spool/exim4/input is left what exim4 could not deliver (1 message)" in said
    assert "exim4" not in up.run("web", "ps ax -o comm")
    assert up.fab_json("-H", "web", "bootstrap")["web"]["changes"] == {}
    subject = token()
    up.run("web", "sendmail root; dpkg --audit; rm /var/spool/exim4/input/*", stdin=f"Subject: {subject}\n\nNew.\n")
    up.arrives(ADMIN, subject, sender="web")


def test_a_mailhost_that_had_exim_sends_its_queue_on_and_keeps_its_own(up: House) -> None:
    waits = token()
    up.run("mail", "systemctl stop dovecot")
    up.stranger_sends(USER1, waits)
    until(lambda: "queue is empty" not in up.run("mail", "mailq"), 30, "a message that waits in ours")
    up.fab("lock")
    try:
        up.run("mail", f"{APT} install exim4; systemctl stop exim4; rm -f /var/mail/mail")
        for to in ("someone@elsewhere.test; exim4 -Mf $(exim4 -bpr | awk 'NR==1 {print $3}')", "root"):
            up.run("mail", f"sendmail -odq {to}", stdin="Subject: old\n\nOf before.\n")
        up.run("mail", "systemctl start exim4")  # it sends at once, but what is frozen
        planned = "\n".join(up.fab_json("-H", "mail", "plan")["mail"]["changes"]["ports"])
        assert "send what waits in /var/spool/exim4/input" in planned
        assert "stop exim4.service, which has port 25" in planned
        said = up.fab("-H", "mail", "bootstrap").stdout
        assert "mail from before may be in /var/mail (mail)" in said  # where exim puts what is root's
        assert "in /var/spool/exim4/input is left what exim4 could not deliver (1 message)" in said
        up.arrives(USER1, waits, sender="mail")
        assert "exim4" not in up.run("mail", "ps ax -o comm")
        assert up.fab_json("-H", "mail", "bootstrap")["mail"]["changes"] == {}
        assert up.state() == "up"
    finally:
        up.run("mail", "systemctl stop exim4; rm -f /var/mail/mail /var/spool/exim4/input/*", check=False)
        up.fab("bootstrap")


def test_a_hand_made_postfix_is_told_of_and_kept(up: House) -> None:
    up.run("web", "rm /var/lib/mailops/active; postconf -e 'smtpd_banner = made by hand' home_mailbox=Maildir/")
    up.run("web", "cp -a /etc/aliases /root/ 2>/dev/null; echo 'shop: |/usr/bin/shop' >>/etc/aliases")
    try:
        done = up.fab("-H", "web", "plan")
        told = next(line for line in done.stdout.splitlines() if "/etc/postfix/main.cf was here before" in line)
        assert "mail from before may be in ~/Maildir/ of Unix users" in done.stdout
        assert "mail is sent on by /etc/aliases (shop): that ends" in done.stdout
        assert "-smtpd_banner = made by hand" in done.stdout
        assert told in up.fab("-H", "web", "bootstrap").stdout.splitlines()
        assert "smtpd_banner = made by hand" in up.run("web", f"cat {told.split()[-1]}")
        assert "was here before" not in up.fab("-H", "web", "plan").stdout
    finally:
        up.run("web", "rm /etc/aliases; mv /root/aliases /etc/ 2>/dev/null", check=False)
        up.fab("-H", "web", "bootstrap", "--overwrite")
    subject = token()
    up.run("web", "sendmail root", stdin=f"Subject: {subject}\n\nNew.\n")
    up.arrives(ADMIN, subject, sender="web")


def test_who_has_our_port_and_is_no_mail_server_is_named_before_anything_is_made(up: House) -> None:
    up.run("web", "systemctl stop postfix.service 'postfix@*.service'")  # the first does not await the other
    try:
        up.run("web", f"systemd-run --quiet --unit=odd python3 -c '{LISTENER}'")
        until(lambda: "25" in up.run("web", "ss -ltn sport = :25 | grep -o ':25' || true"), 10, "the listener")
        for task in ("plan", "bootstrap"):
            done = up.fab("-H", "web", task, check=False)
            assert done.returncode == 1
            assert "port 25 is taken by /usr/bin/python3" in done.stdout + done.stderr
            assert "odd.service" in done.stdout + done.stderr
        up.run("web", "systemctl stop odd; systemctl reset-failed")
        up.run("web", "systemd-run --unit=odd --socket-property=ListenStream=127.0.0.1:25 cat")
        done = up.fab("-H", "web", "bootstrap", check=False)
        assert done.returncode == 1
        assert "port 25 is taken by systemd (odd.socket, process 1); nothing was made" in done.stderr
    finally:
        up.run("web", "systemctl stop odd.socket odd.service; systemctl reset-failed; systemctl start postfix")


def test_a_stale_source_of_packages_is_named_and_does_not_stop_a_bootstrap(up: House) -> None:
    stale = "/etc/apt/sources.list.d/stale.list"
    up.run("web", f"echo 'deb http://deb.debian.org/debian no-such-suite main' >{stale}; rm -rf /var/lib/apt/lists/*")
    up.run("web", "systemctl stop postfix; dpkg --force-depends --purge libsasl2-modules")
    try:
        said = up.fab("-H", "web", "bootstrap").stdout
        assert "no-such-suite" in said
        assert "install libsasl2-modules" in said
        subject = token()
        up.run("web", "sendmail root", stdin=f"Subject: {subject}\n\nNew.\n")
        up.arrives(ADMIN, subject, sender="web")
    finally:
        up.run("web", f"rm {stale}")


def test_packages_are_upgraded_while_the_vault_is_locked(up: House) -> None:
    up.fab("lock")
    again = f"{APT} install --reinstall dovecot-core dovecot-imapd postfix rspamd redis-server"
    done = replica.run(up.lab, "mail", again, None, False)
    assert done.returncode == 0, done.stdout[-1000:]
    assert up.run("mail", "dpkg --audit") == ""
    assert mail_processes(up) == set()
    up.run(
        "mail",
        "sed -i '/^Package: rspamd$/,/^$/s/^Status: .*/Status: install ok half-configured/' /var/lib/dpkg/status",
    )
    try:
        assert "rspamd is half-configured" in up.fab("-H", "mail", "status").stdout
    finally:
        up.run("mail", "dpkg --configure -a")
    up.fab("unlock")
    done = replica.run(up.lab, "mail", again, None, False)
    assert done.returncode == 0, done.stdout[-1000:]
    assert up.fab_json("-H", "mail", "bootstrap")["mail"]["changes"] == {}
    assert up.state() == "up"


def test_a_package_that_dpkg_was_killed_in_is_told_and_comes_anew(up: House) -> None:
    """Its state as dpkg leaves it: in a file beside its status, and of a kind that --configure refuses."""
    torn = "sed -n '/^Package: bindfs$/,/^$/p' status | sed 's/^Status: .*/Status: install reinstreq half-configured/'"
    up.run("mail", f"cd /var/lib/dpkg; {torn} >updates/0000")
    assert "bindfs is half-configured and must be reinstalled" in up.fab("-H", "mail", "status").stdout
    assert up.fab_json("-H", "mail", "bootstrap")["mail"]["changes"]["packages"] == ["install bindfs"]
    assert up.run("mail", "dpkg --audit") == ""
    up.run("mail", "apt-mark hold rspamd")
    try:
        assert "held, so without updates: rspamd" in up.fab("-H", "mail", "status").stdout
    finally:
        up.run("mail", "apt-mark unhold rspamd")


def test_no_run_over_a_machine_that_does_not_work_is_a_success(up: House) -> None:
    socket = "/var/spool/postfix/private/dovecot-lmtp"
    up.run("mail", f"rm $(postconf -hx queue_directory)/private/dovecot-lmtp {socket} 2>/dev/null; true")
    changes = up.fab_json("-H", "mail", "bootstrap")["mail"]["changes"]
    assert changes["services"] == ["restart dovecot.service"]
    up.arrives(USER1, up.stranger_sends(USER1))
    database = "/vault/db/mail.sqlite"
    up.run("mail", f"mv {database} {database}.away; systemctl reload postfix")
    try:
        done = up.fab("-H", "mail", "push", check=False)
        assert done.returncode
        assert "nothing changed" not in done.stdout
    finally:
        up.run("mail", f"mv {database}.away {database}")
    up.fab("-H", "mail", "bootstrap")
    assert up.state() == "up"
