"""Postfix: what it says of its own configuration."""

from __future__ import annotations

import re

from .checks import Options, quiet, said

TABLE = re.compile(r"(?:regexp|pcre|cidr|texthash):/[^ ,}\n]+")


def _settings(_: Options) -> str:
    """postconf(1) warns of what it does not know."""
    return quiet("postconf")


def _services(_: Options) -> str:
    return quiet("postconf", "-M")


def _numbers(_: Options) -> str:
    """Any other command reads the numbers, and says what is wrong with them where Debian 12's `postfix check` ends
    without a word."""
    return quiet("postmap", "-q", "mailops", "inline:{mailops=x}")


def _tables(_: Options) -> str:
    """A line of a table that makes no sense is left out with a warning when a daemon opens it, and no other check
    opens any. (To find nothing is no failure.)"""
    named = {table for option in ("-n", "-P") for table in TABLE.findall(said("postconf", option).out)}
    return "\n".join(filter(None, (said("postmap", "-q", "mailops", table).err.strip() for table in sorted(named))))


def _files(_: Options) -> str:
    """`postfix check` looks at files and their owners.

    A file that a killed cleanup(8) left behind is no fault of the configuration, and stays there for days.
    """
    return quiet("postfix", "check", but="postsuper: warning: bogus file name: ")


CHECKS = (_settings, _services, _numbers, _tables, _files)
