"""DKIM's keys (RFC 6376): for the selector that signs, and for the one that is being prepared."""

from __future__ import annotations

from mailops.manifest import Directory, Dkim
from mailops.services.service import At, Service
from mailops.site.model import Site


def service(at: At) -> Service:
    return Service(directories=(Directory(at.site.dkim_keyroot, 0o750, "root", "_rspamd"),), dkim=_keys(at.site))


def _keys(site: Site) -> Dkim | None:
    """None where the site does not sign."""
    if not site.dkim_selector:
        return None
    selectors = (site.dkim_selector, site.dkim_selector_next)
    return Dkim(site.dkim_keyroot, tuple(dict.fromkeys(filter(None, selectors))), site.mail_domains)
