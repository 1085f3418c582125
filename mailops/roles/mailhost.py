"""The mail server: Postfix, Dovecot, Rspamd and Redis around a vault that holds all that is private."""

from __future__ import annotations

import os
import shlex
from typing import Any

from mailops import render, roles
from mailops.manifest import (
    Accounts,
    Certificate,
    Directory,
    Dkim,
    File,
    Manifest,
    Probe,
    Service,
    Source,
    User,
    Vault,
)
from mailops.roles import apt
from mailops.site import Host, Site

PACKAGES = (
    "postfix",
    "postfix-sqlite",
    "dovecot-core",
    "dovecot-imapd",
    "dovecot-lmtpd",
    "dovecot-sieve",
    "dovecot-managesieved",
    "dovecot-sqlite",
    "rspamd",
    "redis-server",
    "gocryptfs",
    "bindfs",
    "fuse3",
    "openssl",
    "ca-certificates",
    "python3",
)
# Postfix's package leaves main.cf to us, now and when it is upgraded. (To write one of its own takes it seven seconds.)
POSTFIX_DEBCONF = ("postfix postfix/main_mailer_type select No configuration",)
TLS = "/etc/mailops/tls"
# Postfix's queue_directory, where bindfs shows what lies in the vault.
QUEUE = "/var/spool/postfix"
# Rspamd's milters, below the queue directory: for what strangers send, and for what the site itself sends.
MILTERS = {"incoming": "rspamd/incoming.sock", "outgoing": "rspamd/outgoing.sock"}
REDIS = "/run/redis/redis-server.sock"
# Where Dovecot hands over what sieve scripts send; on loopback alone.
RESEND_PORT = 10025
# Where Postfix sends once more to itself what an alias leads elsewhere; on loopback alone.
FORWARD_PORT = 10026
# The templates' place for what lies under the site's sieve_root.
SIEVE = "/vault/sieve/"
# Path -> mode, owner, group; everything else is 0644 root:root.
ATTRIBUTES: dict[str, tuple[int, str, str]] = {
    "/usr/bin/mailcfg": (0o755, "root", "root"),
    "/usr/sbin/mailboot": (0o755, "root", "root"),
    "/etc/redis/redis.conf": (0o640, "root", "redis"),
    # Rspamd reads it as _rspamd, also when it may not be everybody's any more (see `mailops.remote.local.mode`).
    "/etc/rspamd/additions.conf": (0o644, "root", "_rspamd"),
}
# What Rspamd's console writes to: ours, so that an edit there is one by hand, as any other.
CONSOLE = "/var/lib/rspamd"
# The administrator's own additions, in files that mailops never writes: path -> that file, how they are merged.
LOCAL = "/etc/mailops/local"
POSTFIX_LOCAL = {
    "/etc/postfix/main.cf": (f"{LOCAL}/postfix/main.cf", "main.cf"),
    "/etc/postfix/master.cf": (f"{LOCAL}/postfix/master.cf", "master.cf"),
}
LOCALS = POSTFIX_LOCAL | {
    "/etc/dovecot/dovecot.conf": (f"{LOCAL}/dovecot/dovecot.conf", "append"),
    "/etc/rspamd/additions.conf": (f"{LOCAL}/rspamd/rspamd.conf", "append"),
    "/etc/redis/redis.conf": (f"{LOCAL}/redis/redis.conf", "append"),
}


def manifest(site: Site, host: Host, facts: dict[str, Any]) -> Manifest:
    """The whole mailhost, for Debian `facts["release"]` (12 or 13)."""
    directories = _private_directories(site)
    return Manifest(
        role="mailhost",
        hostname=site.mail_server_hostname,
        release=facts["release"],
        packages=PACKAGES,
        sources=_sources(site, facts["release"]),
        debconf=POSTFIX_DEBCONF,
        users=_users(site),
        directories=(*(item for item in directories if not _in_vault(site, item.path)), *places_for(LOCALS)),
        vault=Vault(
            mountpoint=site.vault,
            cipherdir=site.vault_cipherdir,
            queue=QUEUE,
            directories=tuple(item for item in directories if _in_vault(site, item.path)),
        ),
        accounts=_accounts(site),
        dkim=_dkim(site),
        certificates=(Certificate((site.mail_server_hostname,), f"{TLS}/fullchain.pem", f"{TLS}/privkey.pem"),),
        files=(*_files(site, host, facts), *_source_files(site, facts["release"])),
        services=_services(site, facts["release"]),
        probes=_probes(site),
    )


def places_for(locals_: dict[str, tuple[str, str]]) -> tuple[Directory, ...]:
    """The folders in which an administrator puts additions; what is in them is theirs."""
    folders = dict.fromkeys(os.path.dirname(local) for local, _ in locals_.values())
    return tuple(Directory(folder, mend=False) for folder in (LOCAL, *folders))


def _users(site: Site) -> tuple[User, ...]:
    """vmail owns all mail; group mailauth reads the accounts; Rspamd may open Redis's socket;
    mailops-srs may read the secret of /usr/lib/mailops/srs."""
    return (
        User("vmail", home=f"{site.vault}/mail"),
        User("postfix", groups=("mailauth",)),
        User("dovecot", groups=("mailauth",)),
        User("_rspamd", groups=("redis",)),
        User("mailops-srs"),
    )


def _private_directories(site: Site) -> tuple[Directory, ...]:
    return (
        # gocryptfs shows the cipherdir's own mode here; the daemons must pass, and nobody needs to look around.
        Directory(site.vault, 0o711),
        Directory(f"{site.vault}/mail", 0o700, "vmail", "vmail"),
        Directory(f"{site.vault}/db", 0o750, "root", "mailauth"),
        Directory(f"{site.vault}/senders", 0o750, "root", "_rspamd"),
        Directory(f"{site.vault}/srs", 0o750, "root", "mailops-srs"),
        # What Redis makes here belongs to vmail (see mailops-vault.service) and, by the directory, to group redis.
        Directory(f"{site.vault}/redis", 0o2770, "redis", "redis"),
        # Dovecot's, for messages that are too large to be kept in memory while they come in.
        Directory(f"{site.vault}/temp", 0o700, "vmail", "vmail"),
        Directory(site.dkim_keyroot, 0o750, "root", "_rspamd"),
        Directory(site.sieve_root, 0o755, "vmail", "vmail"),
        Directory(f"{site.sieve_root}/before.d", 0o755, "vmail", "vmail"),
        Directory(f"{site.sieve_root}/after.d", 0o755, "vmail", "vmail"),
    )


def _in_vault(site: Site, path: str) -> bool:
    return f"{path}/".startswith(f"{site.vault}/")


def _accounts(site: Site) -> Accounts:
    aliases = (*site.mail_aliases, *site.system_aliases())
    return Accounts(
        database=f"{site.vault}/db/mail.sqlite",
        domains=site.mail_domains,
        users=tuple(user.email for user in site.mail_users),
        aliases=tuple((alias.src, alias.dst) for alias in aliases),
    )


def _dkim(site: Site) -> Dkim | None:
    """Keys for the selector that signs and the one being prepared; none where the site does not sign."""
    if not site.dkim_selector:
        return None
    selectors = (site.dkim_selector, site.dkim_selector_next)
    return Dkim(site.dkim_keyroot, tuple(dict.fromkeys(filter(None, selectors))), site.mail_domains)


def _files(site: Site, host: Host, facts: dict[str, Any]) -> tuple[File, ...]:
    others = [other for other in site.hosts.values() if other.role != "mailhost"]
    accounts = {site.name_of(other): site.seen_by(other).relay_email for other in others}
    relays = {name: account for name, account in accounts.items() if name not in site.mail_domains}
    names = roles.variables(site, host, facts) | {
        "queue_directory": QUEUE,
        "resend_port": RESEND_PORT,
        "forward_port": FORWARD_PORT,
        "milters": MILTERS,
        "milter_directory": f"/usr/bin/install -d -m 2750 -o _rspamd -g postfix {QUEUE}/rspamd",
        # Postfix 3.7 lacks later mendings of BDAT.
        "not_offered": ["chunking"] if facts["release"] == 12 else [],
        "relays": relays,  # other machine -> the account that it logs in with
        "senders": _senders(site, others),
        "host_names": [name for name in (site.mail_server_hostname,) if name not in site.mail_domains] + [*relays],
        # RFC 5321 wants a postmaster, and what a machine sends comes from root and bounces to it.
        "host_locals": sorted({"root", "postmaster", *site.mail_local_admin_aliases}),
    }
    tree = render.tree(("postfix", "mailhost", f"mailhost-debian{facts['release']}"), names)
    return tuple(_file(site, path, content) for path, content in tree.items())


def _sources(site: Site, release: int) -> tuple[Source, ...]:
    upstream = site.rspamd_upstream
    if site.rspamd != "upstream" or upstream is None:
        return ()
    return (Source("rspamd", upstream.url, upstream.suite or apt.CODE_NAMES[release], ("rspamd",)),)


def _source_files(site: Site, release: int) -> tuple[File, ...]:
    key = site.rspamd_upstream.key if site.rspamd_upstream else ""
    return tuple(file for source in _sources(site, release) for file in apt.files(source, key))


def _senders(site: Site, others: list[Host]) -> dict[str, str]:
    """What the machines' programs may write as, in the site's own domains -> the accounts that they log in with."""
    accounts: dict[str, dict[str, None]] = {}
    for other in others:
        for email in other.senders:
            accounts.setdefault(email, {})[site.seen_by(other).relay_email] = None
    return {email: ",".join(logins) for email, logins in sorted(accounts.items())}


def _file(site: Site, path: str, content: bytes) -> File:
    if path.startswith(SIEVE):  # Dovecot compiles the scripts as vmail and puts the result beside them
        return File(f"{site.sieve_root}/{path.removeprefix(SIEVE)}", content, 0o644, "vmail", "vmail")
    owned = "_rspamd" if path.startswith(f"{CONSOLE}/") else "root"
    mode, owner, group = ATTRIBUTES.get(path, (0o644, owned, owned))
    local, merge = LOCALS.get(path, ("", "append"))
    return File(path, content, mode, owner, group, local=local, merge=merge)


def _services(site: Site, release: int) -> tuple[Service, ...]:
    """In the order of their start. Postfix comes last: mail is taken when everything else is there."""
    return (
        Service("redis-server.service", ("/etc/redis",), "restart", checks=(_redis_check(site),)),
        Service(
            "rspamd.service", ("/etc/rspamd", CONSOLE), "reload", checks=(RSPAMD_CHECK,), warm=_rspamd_warm(release)
        ),
        Service("dovecot.service", ("/etc/dovecot", TLS), "reload", checks=_dovecot_checks(site)),
        Service("postfix.service", ("/etc/postfix", TLS), "reload", checks=POSTFIX_CHECKS),
    )


def quiet(command: str) -> tuple[str, ...]:
    """A check that `command` says nothing on stderr, where daemons put what they only warn of."""
    script = f'said=$({command} 2>&1 >/dev/null) && [ -z "$said" ] || {{ echo "$said" | uniq >&2; exit 1; }}'
    return ("sh", "-c", script)


# postconf(1) warns of what it does not know; any other command reads the numbers, and says what is wrong with them
# where Debian 12's `postfix check` ends without a word; that one looks at files and their owners.
POSTFIX_CHECKS = (
    quiet("postconf"),
    quiet("postconf -M"),
    quiet("postmap -q mailops inline:{mailops=x}"),
    quiet("postfix check"),
)

# It ends well with an element that it does not know; then that is not all it says.
RSPAMD_CHECK = (
    "sh",
    "-c",
    'said=$(rspamadm configtest 2>&1); [ "$said" = "syntax OK" ] || { echo "$said" >&2; exit 1; }',
)


def _rspamd_warm(release: int) -> tuple[str, ...]:
    """Compiles the list of all top-level domains (43 MB, ten seconds), which Rspamd keeps under a name made of it.

    Its own configuration, which says where the list is, is not there yet when this runs: dpkg brings that last.
    """
    folder = {12: "/usr/share/rspamd", 13: "/usr/share/publicsuffix"}[release]
    options = f'url_tld = "{folder}/effective_tld_names.dat"; hs_cache_dir = "/var/lib/rspamd";'
    conf = f"options {{ {options} }} actions {{ reject = 15; }}"
    compile_ = "rspamadm mime --config $conf urls /dev/null"
    script = f"umask 022; conf=/run/mailops/rspamd-warm.conf; echo {shlex.quote(conf)} >$conf; {compile_}; rm -f $conf"
    return ("sh", "-c", script)


def _dovecot_checks(site: Site) -> tuple[tuple[str, ...], ...]:
    """doveconf(1) -x opens the files behind settings, but not those of passdb and userdb.

    Those in the vault are not there while it is locked.
    """
    named = r"sed -n 's,^ *\(args\|passwd_file_path\|sqlite_path\) = \(.* \)\?,,p'"
    present = '[ -e "$file" ] || echo "$file, which a passdb or userdb names, does not exist" >&2'
    files = f'while read -r file; do case "$file" in *%*|{site.vault}/*) ;; /*) {present} ;; esac; done'
    return quiet("doveconf -nx"), quiet(f"{{ doveconf -n | {named} | {files}; }}")


def _redis_check(site: Site) -> tuple[str, ...]:
    """Redis has no check of its own: it reads the file up to a last directive that it cannot know, and ends there.

    Nothing is opened by then but what `dir`, `include` and `loadmodule` name; the vault may be locked.
    """
    read = f"grep -vx 'dir {site.vault}/redis' /etc/redis/redis.conf | redis-server - --pidfile '' --logfile ''"
    wrong = 'grep -v mailops-checked | grep -A1 -e ">>>" -e "atal error" -e "failed to load"'
    script = f'said=$({read} --mailops-checked 1 2>&1); wrong=$(echo "$said" | {wrong}); '
    plain = r"sed 's/^[0-9]*:[A-Z] .* [#*] //'"  # no process number, no time
    script += 'case "$said" in *mailops-checked*) [ "$wrong" ] || exit 0 ;; esac; '
    script += f'echo "${{wrong:-$said}}" | {plain} >&2; exit 1'
    return ("sh", "-c", script)


def _probes(site: Site) -> tuple[Probe, ...]:
    postfix, dovecot = "postfix.service", "dovecot.service"
    private = f"{QUEUE}/private"
    tls = {"certificate": f"{TLS}/fullchain.pem"}
    login = tls | {"login": f"{private}/auth"}
    local = {"database": f"{site.vault}/db/mail.sqlite"}
    users = [user.email for user in site.mail_users]
    if users:  # the administrator, whose address stands outside the vault anyway (host_aliases)
        local["recipient"] = site.admin_email if site.admin_email in users else users[0]
    return (
        Probe("redis", options={"socket": REDIS}, service="redis-server.service"),
        Probe(
            "milter", options={way: f"{QUEUE}/{socket}" for way, socket in MILTERS.items()}, service="rspamd.service"
        ),
        Probe("imaps", 993, tls, dovecot),
        Probe("login", 993, tls, dovecot, when=dovecot),  # takes 2 s
        Probe("managesieve", 4190, tls, dovecot),
        Probe("lmtp", options=local | {"socket": f"{private}/dovecot-lmtp"}, service=dovecot),
        Probe("smtp", 25, tls | local | {"srs": site.domain}, postfix),
        Probe("submission", 587, login, postfix),
        Probe("submissions", 465, login, postfix),
    )
