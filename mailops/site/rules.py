"""What must hold between the values of a site: nothing bounces, nothing is hidden, nothing overlaps.

Each rule gives (key, what is wrong; what would be right). `RULES` says which keys a rule builds on: when
one of them is wrong already, the rule is not asked, so that one mistake gives one line. Rows that could
not be read are empty texts here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mailops.roles import having, is_central, runs
from mailops.site.values import dotted, quoted

if TYPE_CHECKING:
    from mailops.site.model import Site

Found = Iterator[tuple[str, str]]


def _repeated(rows: Iterable[object]) -> Iterator[tuple[int, int]]:
    """The number of every row that was there before, and the number of the first like it."""
    first: dict[object, int] = {}
    for number, row in enumerate(rows, 1):
        if row and first.setdefault(row, number) != number:
            yield number, first[row]


def _domains_once(site: Site) -> Found:
    for number, first in _repeated(site.mail_domains):
        name = quoted(site.mail_domains[number - 1])
        yield f"mail_domains[{number}]", f"{name} is there already, as mail_domains[{first}]; keep one"


def _domain_listed(site: Site) -> Found:
    if site.domain not in site.mail_domains:
        yield "mail_domains", f"does not list {quoted(site.domain)}, the domain of the site; add it"


def _users_once(site: Site) -> Found:
    for number, first in _repeated(user.email for user in site.mail_users):
        email = quoted(site.mail_users[number - 1].email)
        yield f"mail_users[{number}].email", f"{email} is there already, as mail_users[{first}]; keep one"


def _aliases_once(site: Site) -> Found:
    for number, first in _repeated(alias for alias in site.mail_aliases):
        pair = site.mail_aliases[number - 1]
        if pair.src and pair.dst:
            text = f"{pair.src} -> {pair.dst} is there already, as mail_aliases[{first}]; keep one"
            yield f"mail_aliases[{number}]", text


def _local_parts_once(site: Site) -> Found:
    for number, first in _repeated(site.mail_local_admin_aliases):
        key = "mail_local_admin_aliases"
        name = quoted(site.mail_local_admin_aliases[number - 1])
        yield f"{key}[{number}]", f"{name} is there already, as {key}[{first}]; keep one"


def _addresses_in_our_domains(site: Site) -> Found:
    addresses = [(f"mail_users[{i}].email", user.email) for i, user in enumerate(site.mail_users, 1)]
    addresses += [(f"mail_aliases[{i}].src", alias.src) for i, alias in enumerate(site.mail_aliases, 1)]
    for key, email in addresses:
        domain = email.rpartition("@")[2]
        # When the site's own domain is not listed, `_domain_listed` says so, once.
        if domain and domain not in (site.domain, *site.mail_domains):
            text = f"{quoted(email)} is in a domain that mail_domains does not list; add {quoted(domain)}"
            yield key, text


def _admin_is_deliverable(site: Site) -> Found:
    """Wherever aliases lead from it. Mail for the machines' own names comes to it, so it must not be one of them."""
    for key, email in (("admin_email", site.admin_email), *_overridden(site, "admin_email")):
        for end in _ends(site, email):
            via = "" if end == email else f"leads to {end}, which "
            domain = end.rpartition("@")[2]
            if domain in site.mail_domains:
                yield key, f"{quoted(email)} {via}would bounce; add it to mail_users or to mail_aliases"
            elif domain in _own_names(site):
                text = f"{quoted(email)} {via}is at a machine, whose mail goes to admin_email in turn"
                yield key, f"{text}; name a mailbox of mail_users or an address elsewhere"


def _ends(site: Site, email: str) -> Iterator[str]:
    """Where mail to an address goes that is no mailbox; nothing of a loop, which has its own rule."""
    mailboxes = {user.email for user in site.mail_users}
    leads: dict[str, list[str]] = {}
    for alias in (*site.mail_aliases, *site.system_aliases()):
        leads.setdefault(alias.src, []).append(alias.dst)
    waiting, seen = [email], {""}  # a row that could not be read is an empty text
    while waiting:
        address = waiting.pop()
        if address not in seen:
            seen.add(address)
            known = _key(address, leads.keys() | mailboxes)
            waiting += leads.get(known, ())
            if known not in leads and known not in mailboxes:
                yield address


def _key(address: str, known: Set[str]) -> str:
    """What Postfix finds for an address: itself, without its +detail, or an alias for the whole domain; else itself."""
    whole = f"@{address.rpartition('@')[2]}"
    return next((key for key in (address, _without_detail(address), whole) if key in known), address)


def _own_names(site: Site) -> set[str]:
    """What the machines call themselves."""
    return {name for host in site.hosts.values() for name in site.own_names(host)}


def _overridden(site: Site, name: str) -> Iterator[tuple[str, str]]:
    """Where machines override this key of the site, and with what."""
    for host in site.hosts.values():
        if name in host.override:
            yield f"{dotted('hosts', host.name)}.override.{name}", str(host.override[name])


def _aliases_hide_no_mailbox(site: Site) -> Found:
    """Aliases are looked for first: a mailbox gets nothing unless its alias names it, too."""
    users = {user.email for user in site.mail_users if user.email}
    kept = {alias.src for alias in site.mail_aliases if alias.src == alias.dst}
    told: set[str] = set()
    for number, alias in enumerate(site.mail_aliases, 1):
        if alias.src in users - kept - told:
            told.add(alias.src)
            text = f"{quoted(alias.src)} is a mailbox, which this alias would hide; "
            text += f"remove one of them, or add {{ src = {quoted(alias.src)}, dst = {quoted(alias.src)} }}"
            yield f"mail_aliases[{number}].src", text


def _aliases_end_somewhere(site: Site) -> Found:
    """No alias leads back to itself, system aliases included.

    A mailbox that keeps a copy (an alias to itself) ends the way: it is expanded once, no further.
    """
    import graphlib

    pairs = [(alias.src, alias.dst) for alias in (*site.mail_aliases, *site.system_aliases())]
    known = {src for src, _ in pairs} | {user.email for user in site.mail_users}
    keepers = {user.email for user in site.mail_users if (user.email, user.email) in set(pairs)}
    before: dict[str, dict[str, None]] = {}  # dicts for sets: the same loop is told the same way
    for src, dst in pairs:
        key = _key(dst, known)
        if src not in keepers and not src == key == f"@{dst.rpartition('@')[2]}":  # to nobody: see `to_nobody`
            before.setdefault(key, {})[src] = None
    while True:
        try:
            graphlib.TopologicalSorter(before).prepare()
        except graphlib.CycleError as error:
            cycle: list[str] = error.args[1]
            del before[cycle[1]][cycle[0]]
            yield "mail_aliases", f"{' -> '.join(cycle)} is a loop; let one of them end in a mailbox"
        else:
            return


def to_nobody(site: Site) -> Found:
    """Aliases to an address of ours that nobody has by this file. No fault: `user.add` may have made it a mailbox."""
    known = {user.email for user in site.mail_users}
    known |= {alias.src for alias in (*site.mail_aliases, *site.system_aliases())}
    known |= {email for host in site.hosts.values() for email in host.senders}
    for number, alias in enumerate(site.mail_aliases, 1):
        dst, domain = alias.dst, alias.dst.rpartition("@")[2]
        key = _key(dst, known)
        if domain in site.mail_domains and (key not in known or key == alias.src == f"@{domain}"):
            near = _nearest(dst, known)
            text = f"{quoted(dst)} is neither a mailbox nor an alias of this file, and its mail bounces unless "
            yield f"mail_aliases[{number}].dst", f"{text}`user.add` made it; {near}add it to mail_users"


def _nearest(email: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(email, known, 1, 0.85)
    return f"did you mean {quoted(near[0])}? else " if near else ""


def _without_detail(email: str) -> str:
    """The address that is tried next when user+detail@domain is not known itself."""
    local, at, domain = email.rpartition("@")
    return local.partition("+")[0] + at + domain


def _one_mailhost(site: Site) -> Found:
    names = [host.name for host in site.hosts.values() if is_central(host.role)]
    if len(names) > 1:
        text = f"{' and '.join(names)} are all mailhosts; a site has one, give the others another role"
        yield "hosts", text.replace("are all", "are both") if len(names) == 2 else text


def _relay_account_exists(site: Site) -> Found:
    users = {user.email for user in site.mail_users}
    for key, email in _overridden(site, "relay_email"):
        if email not in users:
            yield key, f"{quoted(email)} is not among mail_users, and the machine logs in with it; add it there"
    relaying = [host for host in site.hosts.values() if runs(host.role, "nullclient")]
    names = [host.name for host in relaying if "relay_email" not in host.override]
    if names and site.relay_email not in users:
        email = quoted(site.relay_email)
        yield "mail_users", f"has no {email}, as whom {', '.join(names)} will log in; add it"


def _senders_are_ours(site: Site) -> Found:
    """What a null client may write as is an address of ours, or somebody else would get its bounces."""
    for host in site.hosts.values():
        key = f"{dotted('hosts', host.name)}.senders"
        if host.senders and not runs(host.role, "nullclient"):
            yield key, f"is for a {' or a '.join(having('nullclient'))}, and {host.name} is a {host.role}; leave it out"
        for number, email in enumerate(host.senders, 1):
            domain = email.rpartition("@")[2]
            if domain and domain not in site.mail_domains:
                text = f"{quoted(email)} is in a domain that mail_domains does not list; add {quoted(domain)} there"
                yield f"{key}[{number}]", text


def _machines_are_no_domains(site: Site) -> Found:
    """A machine that only sends writes as whoever it likes at its own name; a domain's addresses belong to people."""
    for host in site.hosts.values():
        if not is_central(host.role) and (name := site.name_of(host)) in site.mail_domains:
            text = f"{quoted(name)} is among mail_domains: its programs would write in the name of mailboxes"
            yield dotted("hosts", host.name), f"{text}; call it [hosts.web], say, with address = {quoted(name)}"


def _hosts_apart(site: Site) -> Found:
    """No two machines are one; behind a NAT they may share an address, not a port."""
    first: dict[tuple[str, int], str] = {}
    # Explicit addresses last: of two that meet, the written one is to be changed.
    for host in sorted(site.hosts.values(), key=lambda host: host.address is not None):
        place = (host.address or host.name, host.port or 22)
        other = first.setdefault(place, host.name)
        if other != host.name:
            text = f"{quoted(place[0])} is also the address of {other}; give each its own, or another port"
            yield f"{dotted('hosts', host.name)}.address", text


def _selectors_differ(site: Site) -> Found:
    if site.dkim_selector_next and site.dkim_selector_next.lower() == site.dkim_selector.lower():
        name = quoted(site.dkim_selector_next)
        yield "dkim_selector_next", f"{name} is dkim_selector already; choose another, or leave it out"


def _upstream_is_known(site: Site) -> Found:
    """There is no default for whom to believe."""
    if site.rspamd == "upstream" and site.rspamd_upstream is None:
        example = '{ url = "https://rspamd.com/apt-stable/", key = "rspamd.asc", fingerprint = "…" }'
        yield "rspamd_upstream", f"is missing, and rspamd is upstream's; write rspamd_upstream = {example}"


def _vault_is_apart(site: Site) -> Found:
    vault, cipherdir = PurePosixPath(site.vault), PurePosixPath(site.vault_cipherdir)
    if cipherdir.is_relative_to(vault):
        text = f"{quoted(site.vault_cipherdir)} lies in the vault that it holds; choose a place outside"
        yield "vault_cipherdir", f"{text} {site.vault}"
    elif vault.is_relative_to(cipherdir):
        yield "vault", f"{quoted(site.vault)} lies in vault_cipherdir; choose a place outside {cipherdir}"


def _roots_in_vault(site: Site) -> Found:
    """DKIM keys and sieve scripts are private, and neither share a folder nor take another's."""
    vault = PurePosixPath(site.vault)
    roots = {"dkim_keyroot": PurePosixPath(site.dkim_keyroot), "sieve_root": PurePosixPath(site.sieve_root)}
    others = {f"the folder of {name}": vault / name for name in ("mail", "db", "redis")}
    for key, root in roots.items():
        if root == vault or not root.is_relative_to(vault):
            yield key, f"{quoted(str(root))} is not inside the vault; choose a folder below {vault}"
            continue
        for name, other in others.items():
            if root.is_relative_to(other) or other.is_relative_to(root):
                text = f"{quoted(str(root))} overlaps {name} ({other}); choose one of its own below {vault}"
                yield key, text
        others[key] = root


ADMIN = ("domain", "admin_email", "mail_domains", "mail_users.email", "mail_aliases", "hosts", "mail_server_hostname")

RULES: tuple[tuple[tuple[str, ...], Callable[[Site], Found]], ...] = (
    ((), _domains_once),
    (("domain", "mail_domains"), _domain_listed),
    ((), _users_once),
    (("domain", "mail_domains"), _addresses_in_our_domains),
    (ADMIN, _admin_is_deliverable),
    ((), _aliases_once),
    (("mail_aliases",), _aliases_hide_no_mailbox),
    (("domain", "admin_email", "mail_domains", "mail_aliases", "mail_users.email"), _aliases_end_somewhere),
    ((), _local_parts_once),
    ((), _one_mailhost),
    (("domain", "relay_email", "mail_users.email"), _relay_account_exists),
    (("domain", "mail_domains", "hosts"), _senders_are_ours),
    (("domain", "mail_domains", "hosts"), _machines_are_no_domains),
    (("hosts.address", "hosts.port"), _hosts_apart),
    (("dkim_selector", "dkim_selector_next"), _selectors_differ),
    (("rspamd", "rspamd_upstream"), _upstream_is_known),
    (("vault", "vault_cipherdir"), _vault_is_apart),
    (("vault", "dkim_keyroot", "sieve_root"), _roots_in_vault),
)
