"""DKIM from the laptop: what the keys are, preparing the next ones, and switching when the DNS has them."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mailops.errors import BAD_INPUT, MailopsError
from mailops.remote.shared.records import SELECTOR, zone_lines
from mailops.remote.shared.tables import table
from mailops.roles import having
from mailops.site import edit, reader
from mailops.site.model import Site

if TYPE_CHECKING:
    from mailops.remote.shared.calls import Key, Keys
    from mailops.ssh.machine import Machine

YEAR_MONTH = re.compile(r"\d{4}(0[1-9]|1[0-2])")


def ls(c: Any, as_json: bool = False) -> None:
    """Show the keys on the mailhost and the records to publish."""
    from mailops import fleet

    site = fleet.load()
    host = fleet.select(c, site, having("dkim"))[0]
    with fleet.machine(c, site, host, quiet=as_json) as machine:
        show(machine, as_json)


def prepare(c: Any, selector: str | None = None) -> None:
    """Make the keys that come next and write their selector into hosts.toml."""
    from mailops import fleet

    site = fleet.load()
    chosen, why = next_selector(site, selector, datetime.date.today())
    with fleet.mailhost(c, site) as machine:
        prepare_on(machine, chosen, why)


def rotate(c: Any, force: bool = False) -> None:
    """Sign with the keys of dkim_selector_next once the DNS has them."""
    from mailops import bootstrap, fleet

    site = fleet.load()
    _need_next(site)
    with fleet.mailhost(c, site) as machine:
        rotate_on(machine, lambda changed: bootstrap.push_site(c, changed), force)


def records(c: Any) -> list[Key]:
    """All keys on the mailhost with the names and values of their records, for a DNS to publish."""
    from mailops import fleet

    with fleet.mailhost(c, fleet.load()) as machine:
        found: Keys = machine.call("dkim", {})
    return found["keys"]


def show(machine: Machine, as_json: bool = False) -> None:
    """Print the keys of `machine`, what each is for, and the records of those in use or about to be."""
    found: Keys = machine.call("dkim", {})
    keys = [{**key, "state": _state(machine.site, key)} for key in found["keys"]]
    if as_json:
        print(json.dumps(keys, indent=2))
        return
    if not keys:
        print("no DKIM keys; `fab bootstrap` makes those of dkim_selector")
        return
    columns = ("domain", "selector", "state", "path")
    for line in table([{column: key[column] for column in columns} for key in keys]):
        print(line)
    _print_records([key for key in found["keys"] if _state(machine.site, key) in ("signs now", "next")])


def next_selector(site: Site, wanted: str | None, today: datetime.date) -> tuple[str, str]:
    """The selector to prepare, and how it was chosen. MailopsError (2) when it cannot be that one.

    The default is the one that hosts.toml has as next already, or else the month after the current selector's
    or after today's, whichever is later.
    """
    current = site.dkim_selector
    if not current:
        hint = 'set dkim_selector = "' + f'{today:%Y%m}" in {site.path.name}, then: fab bootstrap'
        raise MailopsError("nothing is signed yet, so there is nothing to follow it", hint, BAD_INPUT)
    if wanted:
        if not SELECTOR.fullmatch(wanted):
            raise MailopsError(f"{wanted!r} is not a selector", "write it like 202701", BAD_INPUT)
        if wanted == current:
            raise MailopsError(f"{wanted} is the selector that signs now", "choose another", BAD_INPUT)
        return wanted, "as you asked"
    if site.dkim_selector_next:
        return site.dkim_selector_next, f"as {site.path.name} says"
    latest = max(f"{today:%Y%m}", current if YEAR_MONTH.fullmatch(current) else "")
    year, month = divmod(int(latest[:4]) * 12 + int(latest[4:]), 12)
    after = "the current one" if latest == current else "this month"
    return f"{year}{month + 1:02}", f"the month after {after}"


def prepare_on(machine: Machine, selector: str, why: str) -> None:
    """Make the keys of `selector` on `machine`, then write it into hosts.toml, and show what to publish."""
    site = machine.site
    answer: Keys = machine.call("dkim", {"make": selector})
    if site.dkim_selector_next != selector:
        edit.set_value(site.path, ("dkim_selector_next",), selector)
    print(f"the next selector is {selector}, {why}; {site.path.name} has it as dkim_selector_next")
    if not answer["made"]:
        print("its keys were there already and are kept")
    print("Publish these records; when all name servers have them: fab dkim.rotate")
    _print_records(_of(site, selector, answer["keys"]))


def rotate_on(machine: Machine, push: Callable[[Site], object], force: bool = False) -> None:
    """Switch hosts.toml to dkim_selector_next and `push` it.

    MailopsError, and nothing changed, when an authoritative name server of a domain does not serve its key
    (`force` warns instead), or when `push` fails.
    """
    from mailops.dkim.dns import unpublished

    site = machine.site
    old, new = site.dkim_selector, _need_next(site)
    found: Keys = machine.call("dkim", {})
    keys = _of(site, new, found["keys"])
    absent = sorted(set(site.mail_domains) - {key["domain"] for key in keys})
    if absent:
        hint = f"fab bootstrap, then: fab dkim.prepare --selector {new}"
        raise MailopsError(f"there is no {new} key yet for {', '.join(absent)}", hint)
    missing = unpublished(site, keys, new)
    if missing:
        _refuse_or_warn(missing, new, force)
    else:
        print(f"every name server of {', '.join(site.mail_domains)} serves the {new} key")
    _switch(site, push)
    print(f"{', '.join(site.mail_domains)}: signed with {new} from now on")
    if old:
        print(f"Leave the {old} records in the DNS for a week or so: mail on its way still needs them.")
        print(f"The {old} keys stay on the machine.")


def _of(site: Site, selector: str, keys: Sequence[Key]) -> list[Key]:
    """The keys of `selector` for the domains that the site has now."""
    return [key for key in keys if key["selector"] == selector and key["domain"] in site.mail_domains]


def _need_next(site: Site) -> str:
    if not site.dkim_selector_next:
        said = f"{site.path.name} has no dkim_selector_next to switch to"
        raise MailopsError(said, "fab dkim.prepare", BAD_INPUT)
    return site.dkim_selector_next


def _refuse_or_warn(missing: Sequence[object], selector: str, force: bool) -> None:
    listed = "".join(f"\n  {line}" for line in missing)
    if not force:
        hint = "publish what `fab dkim.ls` shows, or wait for your secondaries; --force switches regardless"
        raise MailopsError(f"the {selector} keys are not published; nothing was changed{listed}", hint)
    print(f"warning: the {selector} keys are not published, and receivers may distrust your mail{listed}")


def _switch(site: Site, push: Callable[[Site], object]) -> None:
    """Change the two selectors in hosts.toml and push; hosts.toml is as before when that fails.

    The two values alone are put back: somebody may be editing the rest of the file meanwhile.
    """
    old, new = site.dkim_selector, site.dkim_selector_next
    try:
        _write(site, new, "")
        push(reader.load(site.path))
    except BaseException:
        _write(site, old, new)
        print(f"{site.path.name} says {old or 'no selector'} again, as before")
        raise


def _write(site: Site, current: str, following: str) -> None:
    edit.set_value(site.path, ("dkim_selector",), current)
    edit.set_value(site.path, ("dkim_selector_next",), following)


def _state(site: Site, key: Key) -> str:
    if key["domain"] not in site.mail_domains:
        return "unused"
    if key["selector"] == site.dkim_selector:
        return "signs now"
    return "next" if key["selector"] == site.dkim_selector_next else "kept"


def _print_records(keys: Sequence[Key]) -> None:
    for key in keys:
        print(f"\n{zone_lines(key['name'], key['value'])}", end="")
