"""The encrypted vault (gocryptfs(1)): mail, accounts and keys are in it, and whoever needs them waits for it."""

from __future__ import annotations

from mailops.manifest import Directory, User, Vault
from mailops.services import queue
from mailops.services.service import At, Service


def service(at: At) -> Service:
    site = at.site
    return Service(
        packages=("gocryptfs", "fuse3", "python3"),
        # Owns all mail.
        users=(User("vmail", home=f"{site.vault}/mail"),),
        directories=(
            # gocryptfs shows the cipherdir's own mode here; the daemons must pass, and nobody needs to look around.
            Directory(site.vault, 0o711),
            Directory(f"{site.vault}/mail", 0o700, "vmail", "vmail"),
        ),
        attributes={"/usr/sbin/mailboot": (0o755, "root", "root")},
        vault=Vault(mountpoint=site.vault, cipherdir=site.vault_cipherdir, queue=queue.FOLDER),
    )
