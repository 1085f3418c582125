"""Dovecot: what it says of its own configuration."""

from __future__ import annotations

import os
import re

from .checks import Options, quiet, said

# The last word of the setting: `args = scheme=… /etc/dovecot/users` on 2.3.
NAMED = re.compile(r"^ *(?:args|passwd_file_path|sqlite_path) = (?:.* )?(.*)$", re.MULTILINE)


def _settings(_: Options) -> str:
    """doveconf(1) -x opens the files behind settings, but not those of passdb and userdb."""
    return quiet("doveconf", "-nx")


def _databases(options: Options) -> str:
    """Those in the vault are not there while it is locked."""
    done = said("doveconf", "-n")
    named = [path for path in NAMED.findall(done.out) if path.startswith("/") and "%" not in path]
    missing = [path for path in named if not path.startswith(f"{options['vault']}/") and not os.path.exists(path)]
    lines = [f"{path}, which a passdb or userdb names, does not exist" for path in missing]
    return "\n".join(filter(None, [done.err.strip(), *lines]))


CHECKS = (_settings, _databases)
