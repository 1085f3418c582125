"""Where the site is. Loads nothing: every command asks, before it does anything else."""

from __future__ import annotations

import os
from pathlib import Path

from mailops.errors import BAD_INPUT, MailopsError


def find() -> Path:
    """The site's file: $MAILOPS_SITE, or else hosts.toml in the current folder.

    Raises `MailopsError` when there is no such file.
    """
    named = os.environ.get("MAILOPS_SITE")
    path = Path(named or "hosts.toml").expanduser()
    if path.is_dir():
        path /= "hosts.toml"
    if path.is_file():
        return path
    if named:
        raise MailopsError(
            f"MAILOPS_SITE names {named}, and there is no such file",
            "Correct it, or unset it to use the hosts.toml of the current folder.",
            BAD_INPUT,
        )
    raise MailopsError(
        "there is no hosts.toml in this folder",
        "Go to the folder of your site, or name the file: export MAILOPS_SITE=path/to/hosts.toml",
        BAD_INPUT,
    )
