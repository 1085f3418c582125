"""What each key of hosts.toml is for, in a person's words; docs/reference.md is made of it."""

from __future__ import annotations

from typing import NamedTuple


class About(NamedTuple):
    what: str
    default: str  # in words, or as it would be written


REQUIRED = "required"

SITE = {
    "domain": About("the site's main domain", REQUIRED),
    "admin_email": About(
        "gets root's mail of all machines, and postmaster's, abuse's… of all domains",
        REQUIRED,
    ),
    "mail_domains": About("the domains whose mail is taken", "`domain` alone"),
    "mail_users": About(
        "mailboxes and their first passwords (`email`, `pw`); an account that exists keeps its password", "none"
    ),
    "mail_aliases": About(
        "pairs of `src` and `dst`; several pairs with one `src` deliver to all, a `src` of `@example.org` takes what "
        "no mailbox and no other alias of that domain has",
        "none",
    ),
    "mail_local_admin_aliases": About(
        "the local parts that go to `admin_email` in each domain", "postmaster, abuse, root and others (RFC 2142)"
    ),
    "mail_server_hostname": About("the name that clients and other servers connect to", "`mail.` + `domain`"),
    "relay_email": About("the account with which `mailnull` machines log in", "`relay@` + `domain`"),
    "cryptdir_pw": About("the passphrase of the vault", "required with a mailhost"),
    "dkim_selector": About("the selector that signs; a year and month make rotation predictable", "mail is not signed"),
    "dkim_selector_next": About("the one being prepared; `fab dkim.prepare` writes it", "none"),
    "dkim_keyroot": About("where the DKIM keys lie, in the vault", "`/vault/dkim`"),
    "sieve_root": About("where the site's sieve scripts lie, in the vault", "`/vault/sieve`"),
    "vault": About("the vault as the daemons see it", "`/vault`"),
    "vault_cipherdir": About("its encrypted form on the disk", "`/var/lib/mailops/vault`"),
    "rspamd": About('`"debian"`, or `"upstream"` for that of its makers: [rspamd.md](how-to/rspamd.md)', '`"debian"`'),
    "rspamd_upstream": About(
        "where that comes from: `url`, `key`, `fingerprint`, `suite`", 'required with `rspamd = "upstream"`'
    ),
    "resolver": About("the name server that this computer asks about the site's DNS", "its own"),
    "hosts": About("the machines, a table `[hosts.NAME]` for each", REQUIRED),
    "override": About("a table, `[override]`: other values for what the templates leave open", "none"),
}

HOST = {
    "role": About("`mailhost`, `mailnull`, or one that is not made yet: `webmail`, `bastion`", REQUIRED),
    "address": About("where the machine is reached by SSH", "what `~/.ssh/config` says for its name, or the name"),
    "port": About("of SSH", "what `~/.ssh/config` says, or 22"),
    "user": About("who logs in; with sudo, where it is not root", "what `~/.ssh/config` says, or root"),
    "host_key": About("the only key that this machine may show; `fab trust` writes it", "it is asked for first"),
    "identity": About("the path of a private key", "what `~/.ssh/config` says, an agent"),
    "sudo_pw": About("the password that sudo asks for", "none is sent"),
    "debian": About("12 or 13: the release that the lab's replica gets", "13"),
    "senders": About("of a `mailnull` machine: addresses of the site's domains that its programs may write as", "none"),
    "override": About("a table, `[hosts.NAME.override]`: the same as `[override]`, for this machine", "none"),
}
