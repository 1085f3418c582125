"""What the templates can be told: names and defaults, which hosts.toml may override.

templates/<service>/defaults.toml has them, with a comment for the administrator.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from mailops.roles import ROLES
from mailops.site.model import Host, Override, Site

TEMPLATES = Path(__file__).parents[1] / "templates"
LEAST = "at_least"  # the table that is no variable


def files_of(role: str) -> list[Path]:
    """The tables of names, defaults and comments of its services."""
    files = [TEMPLATES / service / "defaults.toml" for service in ROLES[role].services]
    return sorted(file for file in files if file.exists())


@cache
def of(role: str) -> dict[str, Override]:
    """Name -> default, whose type is the type that an override must have; empty for a role without templates."""
    return {name: _frozen(value) for name, value in _table(role).items() if name != LEAST}


def least(role: str) -> dict[str, float | list[float]]:
    """Name -> the least that does not stop the mail; [0, N] is 0, which is no limit, or at least N."""
    found: dict[str, float | list[float]] = _table(role).get(LEAST, {})
    return found


@cache
def _table(role: str) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    at_least: dict[str, Any] = {}
    for file in files_of(role):
        table = tomllib.loads(file.read_text("utf-8"))
        at_least |= table.pop(LEAST, {})
        whole |= table
    return whole | {LEAST: at_least}


def values(site: Site, host: Host) -> dict[str, Override]:
    """The variables of `host`: its own, or else the site's, or else the default."""
    table = of(host.role)
    return table | {name: value for name, value in {**site.override, **host.override}.items() if name in table}


def _frozen(value: Override | list[str]) -> Override:
    return tuple(value) if isinstance(value, list) else value
