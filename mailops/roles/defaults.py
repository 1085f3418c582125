"""What the templates of a role can be told: names and defaults, which hosts.toml may override.

templates/<role>.toml, beside the role's folder, has them all, with a comment for the administrator.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from mailops import render
from mailops.site import Host, Override, Site

ROLES = ("mailhost", "mailnull")
LEAST = "at_least"  # the table that is no variable


def file_of(role: str) -> Path:
    """The table of names, defaults and comments."""
    return render.TEMPLATES / f"{role}.toml"


@cache
def of(role: str) -> dict[str, Override]:
    """Name -> default, whose type is the type that an override must have; empty for a role without templates."""
    if role not in ROLES:
        return {}
    return {name: _frozen(value) for name, value in _table(role).items() if name != LEAST}


def least(role: str) -> dict[str, float | list[float]]:
    """Name -> the least that does not stop the mail; [0, N] is 0, which is no limit, or at least N."""
    found: dict[str, float | list[float]] = _table(role).get(LEAST, {})
    return found


@cache
def _table(role: str) -> dict[str, Any]:
    return tomllib.loads(file_of(role).read_text("utf-8"))


def values(site: Site, host: Host) -> dict[str, Override]:
    """The variables of `host`: its own, or else the site's, or else the default."""
    table = of(host.role)
    return table | {name: value for name, value in {**site.override, **host.override}.items() if name in table}


def _frozen(value: Override | list[str]) -> Override:
    return tuple(value) if isinstance(value, list) else value
