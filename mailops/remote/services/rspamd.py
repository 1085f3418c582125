"""Rspamd: what it says of its own configuration, and what it computes once in its life."""

from __future__ import annotations

import os

from ..system.lock import RUN
from ..system.shell import ENVIRONMENT, write_atomic
from .checks import Options, said, without_a_word

# Debian's own places of the list of all top-level domains: of 12, and of 13.
TOP_LEVEL_DOMAINS = tuple(f"/usr/share/{folder}/effective_tld_names.dat" for folder in ("publicsuffix", "rspamd"))
CACHE = "/var/lib/rspamd"
WARM = f"{RUN}/rspamd-warm.conf"


def _settings(_: Options) -> str:
    """It ends well with an element that it does not know; then "syntax OK" is not all it says."""
    done = said("rspamadm", "configtest")
    words = f"{done.out}{done.err}".strip()
    return "" if words == "syntax OK" else words or without_a_word(done.code)


CHECKS = (_settings,)


def warm() -> None:
    """Compiles the list of all top-level domains (43 MB, ten seconds), which Rspamd keeps under a name made of it.

    Its own configuration, which says where the list is, is not there yet when this runs: dpkg brings that last.
    """
    import subprocess

    lists = [path for path in TOP_LEVEL_DOMAINS if os.path.exists(path)]
    if not lists:
        return
    options = f'url_tld = "{lists[0]}"; hs_cache_dir = "{CACHE}";'
    write_atomic(WARM, f"options {{ {options} }} actions {{ reject = 15; }}\n".encode(), 0o600)
    null = subprocess.DEVNULL
    command = ("rspamadm", "mime", "--config", WARM, "urls", "/dev/null")
    # Whatever it makes _rspamd has to read.
    subprocess.run(command, stdin=null, stdout=null, stderr=null, env=ENVIRONMENT, umask=0o022, check=False)
    os.unlink(WARM)
