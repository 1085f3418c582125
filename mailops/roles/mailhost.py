"""The mail server: Postfix, Dovecot, Rspamd and Redis around a vault that holds all that is private."""

from __future__ import annotations

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
    User,
    Vault,
)
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
    "fuse3",
    "openssl",
    "ca-certificates",
    "python3",
)
TLS = "/etc/mailops/tls"
REDIS = "/run/redis/redis-server.sock"
# The templates' place for what lies under the site's sieve_root.
SIEVE = "/vault/sieve/"
# Path -> mode, owner, group; everything else is 0644 root:root.
ATTRIBUTES: dict[str, tuple[int, str, str]] = {
    "/usr/bin/mailcfg": (0o755, "root", "root"),
    "/usr/sbin/mailboot": (0o755, "root", "root"),
    "/etc/redis/redis.conf": (0o640, "root", "redis"),
}


def manifest(site: Site, host: Host, facts: dict[str, Any]) -> Manifest:
    """The whole mailhost, for Debian `facts["release"]` (12 or 13)."""
    directories = _private_directories(site)
    return Manifest(
        role="mailhost",
        hostname=site.mail_server_hostname,
        packages=PACKAGES,
        users=_users(site),
        directories=tuple(item for item in directories if not _in_vault(site, item.path)),
        vault=Vault(
            mountpoint=site.vault,
            cipherdir=site.vault_cipherdir,
            directories=tuple(item for item in directories if _in_vault(site, item.path)),
        ),
        accounts=_accounts(site),
        dkim=_dkim(site),
        certificates=(Certificate((site.mail_server_hostname,), f"{TLS}/fullchain.pem", f"{TLS}/privkey.pem"),),
        files=_files(site, host, facts),
        services=_services(facts["release"]),
        probes=_probes(site),
    )


def _users(site: Site) -> tuple[User, ...]:
    """vmail owns all mail; group mailauth reads the accounts; Rspamd may open Redis's socket."""
    return (
        User("vmail", home=f"{site.vault}/mail"),
        User("postfix", groups=("mailauth",)),
        User("dovecot", groups=("mailauth",)),
        User("_rspamd", groups=("redis",)),
    )


def _private_directories(site: Site) -> tuple[Directory, ...]:
    return (
        # gocryptfs shows the cipherdir's own mode here; the daemons must pass, and nobody needs to look around.
        Directory(site.vault, 0o711),
        Directory(f"{site.vault}/mail", 0o700, "vmail", "vmail"),
        Directory(f"{site.vault}/db", 0o750, "root", "mailauth"),
        # What Redis makes here belongs to vmail (see mailops-vault.service) and, by the directory, to group redis.
        Directory(f"{site.vault}/redis", 0o2770, "redis", "redis"),
        Directory(site.dkim_keyroot, 0o750, "root", "_rspamd"),
        Directory(site.sieve_root, 0o755, "vmail", "vmail"),
        Directory(f"{site.sieve_root}/before.d", 0o755, "vmail", "vmail"),
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
    others = [site.hosts[name] for name in site.hosts if site.hosts[name].role != "mailhost"]
    accounts = {roles.host_name(site, other): site.seen_by(other).relay_email for other in others}
    relays = {name: account for name, account in accounts.items() if name not in site.mail_domains}
    null_clients = list(relays)
    names = roles.variables(site, host, facts) | {
        "relays": relays,  # other machine -> the account that it logs in with
        "host_names": [name for name in (site.mail_server_hostname,) if name not in site.mail_domains] + null_clients,
        # RFC 5321 wants a postmaster, and what a machine sends comes from root and bounces to it.
        "host_locals": sorted({"root", "postmaster", *site.mail_local_admin_aliases}),
    }
    tree = render.tree(("mailhost", f"mailhost-debian{facts['release']}"), names)
    return tuple(_file(site, path, content) for path, content in tree.items())


def _file(site: Site, path: str, content: bytes) -> File:
    if path.startswith(SIEVE):  # Dovecot compiles the scripts as vmail and puts the result beside them
        return File(f"{site.sieve_root}/{path.removeprefix(SIEVE)}", content, 0o644, "vmail", "vmail")
    mode, owner, group = ATTRIBUTES.get(path, (0o644, "root", "root"))
    return File(path, content, mode, owner, group)


def _services(release: int) -> tuple[Service, ...]:
    """In the order of their start. Postfix comes last: mail is taken when everything else is there."""
    units = "/etc/systemd/system"
    postfix_roots: tuple[str, ...] = ("/etc/postfix", TLS)
    if release == 12:  # its daemons run in an instance of this unit
        postfix_roots += (f"{units}/postfix@.service.d",)
    return (
        Service("redis-server.service", ("/etc/redis",), "restart"),
        Service("rspamd.service", ("/etc/rspamd",), "reload", checks=(("rspamadm", "configtest"),)),
        Service("dovecot.service", ("/etc/dovecot", TLS), "reload", checks=(quiet("doveconf -n"),)),
        Service("postfix.service", postfix_roots, "reload", checks=POSTFIX_CHECKS),
    )


def quiet(command: str) -> tuple[str, ...]:
    """A check that `command` says nothing on stderr, where daemons put what they only warn of."""
    script = f'said=$({command} 2>&1 >/dev/null) && [ -z "$said" ] || {{ echo "$said" >&2; exit 1; }}'
    return ("sh", "-c", script)


# postconf(1) warns of what it does not know; `postfix check` looks at files and their owners.
POSTFIX_CHECKS = (quiet("postconf"), quiet("postconf -M"), quiet("postfix check"))


def _probes(site: Site) -> tuple[Probe, ...]:
    postfix, dovecot = "postfix.service", "dovecot.service"
    queue = "/var/spool/postfix/private"
    tls = {"certificate": f"{TLS}/fullchain.pem"}
    login = tls | {"login": f"{queue}/auth"}
    local = {"database": f"{site.vault}/db/mail.sqlite"}
    if site.mail_users:
        local["recipient"] = site.mail_users[0].email
    return (
        Probe("redis", options={"socket": REDIS}, service="redis-server.service"),
        Probe("milter", 11332, service="rspamd.service"),
        Probe("imaps", 993, tls, dovecot),
        Probe("login", 993, tls, dovecot, when=dovecot),  # takes 2 s
        Probe("managesieve", 4190, tls, dovecot),
        Probe("lmtp", options=local | {"socket": f"{queue}/dovecot-lmtp"}, service=dovecot),
        Probe("smtp", 25, tls | local, postfix),
        Probe("submission", 587, login, postfix),
        Probe("submissions", 465, login, postfix),
    )
