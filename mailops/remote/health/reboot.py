"""Whether a machine runs something else than what its next start would: a kernel, or what Debian's packages ask for.

Sources: reboot-required as unattended-upgrades and the kernel's packages write it; /vmlinuz is the
link to the kernel that starts next (kernel-img.conf(5)). A container runs its host's.
"""

from __future__ import annotations

import os

ASKED = "/run/reboot-required"
NEXT = "/vmlinuz"
BOOT = "/boot"


def needed() -> list[str]:
    """Why it has to start again; nothing when it need not."""
    told = []
    if os.path.exists(ASKED):
        told.append("an update asks for a reboot")
    elif os.path.islink(NEXT):
        kernel = os.path.basename(os.readlink(NEXT)).removeprefix("vmlinuz-")
        if kernel != os.uname().release and os.path.exists(f"{BOOT}/vmlinuz-{os.uname().release}"):
            told.append(f"the kernel {kernel} is installed, and {os.uname().release} runs")
    return told
