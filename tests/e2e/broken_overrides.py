"""Additions that no administrator should make, and what each of them has to be answered with.

`REFUSED`: a daemon's own check objects, and nothing is touched. `ROLLED_BACK`: no check sees it; the daemons run with
it until a probe is not answered as it should be. All were tried by hand on Debian 12 and 13.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LOCAL = "/etc/mailops/local"
MAIN_CF, MASTER_CF = f"{LOCAL}/postfix/main.cf", f"{LOCAL}/postfix/master.cf"
DOVECOT, RSPAMD, REDIS = f"{LOCAL}/dovecot/dovecot.conf", f"{LOCAL}/rspamd/rspamd.conf", f"{LOCAL}/redis/redis.conf"
# Local file -> the file that mailops makes with it, and the unit that reads it.
TARGETS = {
    MAIN_CF: ("/etc/postfix/main.cf", "postfix.service"),
    MASTER_CF: ("/etc/postfix/master.cf", "postfix.service"),
    DOVECOT: ("/etc/dovecot/dovecot.conf", "dovecot.service"),
    RSPAMD: ("/etc/rspamd/additions.conf", "rspamd.service"),
    REDIS: ("/etc/redis/redis.conf", "redis-server.service"),
}


@dataclass(frozen=True)
class Broken:
    """One broken addition to the file `local` on the machine, or `override` in hosts.toml (then `local` is "")."""

    name: str
    local: str
    text: str | Mapping[int, str]  # the same on every release, or by release
    words: tuple[str, ...]  # that the report has to contain, beside what all reports have in common
    log: str = ""  # likewise, in the daemon's own log lines; "" where it has none
    override: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""  # that an override ends up in

    def on(self, release: int) -> str:
        return (self.text if isinstance(self.text, str) else self.text[release]) + "\n"

    @property
    def target(self) -> str:
        return self.file or TARGETS[self.local][0]

    @property
    def unit(self) -> str:
        folder = self.target.split("/")[2]
        return next(unit for file, unit in TARGETS.values() if file.split("/")[2] == folder)


def override(name: str, file: str, words: tuple[str, ...], log: str = "", **values: Any) -> Broken:
    return Broken(f"override-{name}", "", "", words, log, values, file)


REFUSED = (
    # Postfix
    Broken("main.cf-syntax", MAIN_CF, "just words", ("missing '=' after attribute name: \"just words\"",)),
    Broken("main.cf-unknown", MAIN_CF, "nonsense_parameter = 7", ("unused parameter: nonsense_parameter=7",)),
    Broken("main.cf-value", MAIN_CF, "message_size_limit = many", ("message_size_limit", "many")),
    Broken("main.cf-table", MAIN_CF, "body_checks = regexp:/nonexistent/table", ("/nonexistent/table",)),
    Broken("master.cf-syntax", MASTER_CF, "smtp  inet n - y", ("bad field count",)),
    Broken(
        "master.cf-unknown",
        MASTER_CF,
        "2525 inet n - y - - smtpd\n  -o smtpd_nonsense=1",
        ("unused parameter: smtpd_nonsense=1",),
    ),
    # Dovecot
    Broken("dovecot-syntax", DOVECOT, "service imap {", ("Missing '}'",)),
    Broken("dovecot-unknown", DOVECOT, "nonsense_setting = 1", ("nonsense_setting",)),
    Broken("dovecot-value", DOVECOT, "mail_max_userip_connections = many", ("Invalid number many",)),
    Broken(
        "dovecot-passdb-file",
        DOVECOT,
        {
            12: "passdb {\n  driver = passwd-file\n  args = /nonexistent/passwd\n}",
            13: "passdb passwd-file {\n  passwd_file_path = /nonexistent/passwd\n}",
        },
        ("/nonexistent/passwd, which a passdb or userdb names, does not exist",),
    ),
    Broken(
        "dovecot-certificate",
        DOVECOT,
        {12: "ssl_cert = </nonexistent.pem", 13: "ssl_server_cert_file = /nonexistent.pem"},
        ("/nonexistent.pem", "No such file or directory"),
    ),
    # Rspamd
    Broken("rspamd-syntax", RSPAMD, "actions {\n  reject = 12;", ("additions.conf",)),
    Broken("rspamd-unknown", RSPAMD, "actions {\n  rejekt = 3;\n}", ("unknown element in actions section: rejekt",)),
    Broken("rspamd-value", RSPAMD, 'worker "controller" {\n  bind_socket = "nonsense:::1";\n}', ("nonsense:::1",)),
    # Redis
    Broken("redis-syntax", REDIS, 'save "', ("save", "Unbalanced quotes in configuration line")),
    Broken("redis-unknown", REDIS, "nonsense 1", ("nonsense 1",)),
    Broken("redis-value", REDIS, "maxmemory lots", ("maxmemory", "argument must be a memory value")),
    # Variables of the templates
    override("main.cf", "/etc/postfix/main.cf", ("macro", "${nonsense"), smtpd_banner="${nonsense"),
    override("rspamd", "/etc/rspamd/local.d/options.inc", ("option timeout",), rspamd_dns_timeout="nonsense"),
    override("redis", "/etc/redis/redis.conf", ("argument must be a memory value",), redis_maxmemory="lots"),
)

DIRECTORY = Broken(
    "redis-directory", REDIS, "dir /root", ("redis-server.service did not restart",), "Permission denied"
)
MECHANISM = Broken(
    "dovecot-mechanism", DOVECOT, "auth_mechanisms = plain nonsense", (), "nknown authentication mechanism 'NONSENSE'"
)

ROLLED_BACK = (
    # Postfix
    Broken(  # a probe from 127.0.0.1 would be permitted before it comes to the mistake
        "main.cf-restriction-for-strangers",
        MAIN_CF,
        "smtpd_recipient_restrictions = permit_mynetworks, reject_nonsense",
        ("smtp 25", "451 4.3.5"),
        'unknown smtpd restriction: "reject_nonsense"',
    ),
    Broken(  # master(8) takes connections, and starts no smtpd for a minute
        "main.cf-throttled",
        MAIN_CF,
        "smtpd_recipient_limit = many",
        ("smtp 25: no answer",),
        "bad numerical configuration: smtpd_recipient_limit = many",
    ),
    Broken(  # 465 or 587, whichever hangs up first
        "main.cf-login", MAIN_CF, "smtpd_sasl_path = private/nonsense", ("submission",), "'private/nonsense' failed"
    ),
    Broken(
        "main.cf-milter", MAIN_CF, "smtpd_milters = inet:127.0.0.1:9", ("smtp 25",), "127.0.0.1:9: Connection refused"
    ),
    Broken(
        "master.cf-program", MASTER_CF, "smtp inet n - y - - nosuchprogram", ("smtp 25: no answer",), "nosuchprogram"
    ),
    # Dovecot
    Broken(
        "dovecot-port",
        DOVECOT,
        "service imap-login {\n  inet_listener imaps {\n    port = 25\n  }\n}",
        ("imaps 993: nobody answers",),
        "listen(*, 25) failed",
    ),
    Broken(
        "dovecot-plugin",
        DOVECOT,
        {
            12: "protocol lmtp {\n  mail_plugins = nonsense\n}",
            13: "protocol lmtp {\n  mail_plugins {\n    nonsense = yes\n  }\n}",
        },
        ("lmtp",),
        "nonsense",
    ),
    # Rspamd
    Broken(
        "rspamd-port-taken",
        RSPAMD,
        'worker "controller" {\n  bind_socket = "127.0.0.1:25";\n}',
        ("rspamd.service did not reload",),
        "cannot listen on normal socket 127.0.0.1:25",
    ),
    Broken(
        "rspamd-nobody-behind",
        RSPAMD,
        'worker "rspamd_proxy" {\n  bind_socket = "127.0.0.1:11399";\n}',
        ("milter: /var/spool/postfix/rspamd/", "takes connections and does not answer"),
    ),
    # Variables of the templates
    override(
        "restriction",
        "/etc/postfix/main.cf",
        ("smtp 25", "451 4.3.5"),
        'unknown smtpd restriction: "reject_nonsense"',
        smtpd_recipient_restrictions=["reject_nonsense"],
    ),
    override(
        "submission",
        "/etc/postfix/master.cf",
        ("submission",),
        "specify at least one working instance of",
        submission_relay_restrictions=["reject_nonsense"],
    ),
    override("mechanism", "/etc/dovecot/dovecot.conf", (), MECHANISM.log, auth_mechanisms=["plain", "nonsense"]),
)
