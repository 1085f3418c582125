"""The envelope sender of what an alias leads elsewhere (SRS), so that it passes SPF there and its bounces come back."""

from __future__ import annotations

from mailops.manifest import Directory, User
from mailops.services.service import At, Service


def service(at: At) -> Service:
    return Service(
        # It may read the secret of /usr/lib/mailops/srs.
        users=(User("mailops-srs"),),
        directories=(Directory(f"{at.site.vault}/srs", 0o750, "root", "mailops-srs"),),
    )
