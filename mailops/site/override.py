"""[override] and [hosts.NAME.override]: values for the variables of the templates.

The templates' own tables (`defaults`) say which there are; a value must be of its default's kind.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Any

from mailops.roles import MADE
from mailops.site import defaults
from mailops.site.forms import kind_of
from mailops.site.model import HOST_KEYS, SITE_KEYS, Override
from mailops.site.problems import Problems
from mailops.site.values import Wrong, dotted, quoted

# What templates use besides, made from the rest of the file and what the machine tells.
WORKED_OUT = (
    *("fqdn", "host", "host_locals", "host_names", "hosts", "mailhost_certificate", "nicknames", "path", "relays"),
    "release",
)
LEAST = {name: least for role in MADE for name, least in defaults.least(role).items()}
EVERY: dict[str, Override] = {name: value for role in MADE for name, value in defaults.of(role).items()}


def read_site(table: Any, key: str, problems: Problems) -> dict[str, Override] | None:
    """[override]: what any role knows; each machine takes what is for it."""
    return _read(table, key, EVERY, lambda name: _site_reason(name, problems), problems)


def read_host(table: Any, key: str, host: str, role: str, problems: Problems) -> dict[str, Override] | None:
    """[hosts.NAME.override]: what its role knows; `role` is "" when it is wrong itself."""
    known = defaults.of(role) if role else EVERY
    return _read(table, key, known, lambda name: _host_reason(name, key, host, role, problems), problems)


def _read(
    table: Any, key: str, known: dict[str, Override], reason: Callable[[str], str], problems: Problems
) -> dict[str, Override] | None:
    if not isinstance(table, dict):
        problems.add(key, f"is {kind_of(table)}; write [{key}] with variables below it")
        return None
    found = {}
    for name, value in table.items():
        try:
            if name not in known:
                raise Wrong(reason(name))
            found[name] = _fitting(name, value, known[name])
        except Wrong as wrong:
            problems.add(dotted(key, name), str(wrong))
    return found


def _site_reason(name: str, problems: Problems) -> str:
    if name in SITE_KEYS and name != "hosts":
        # In TOML everything below a [header] belongs to it.
        problems.spoil(name)
        return "is a key of the whole site, not a variable; move it above the [override] line"
    if name in HOST_KEYS:
        problems.spoil("hosts")
        return "is a key of one machine, not a variable; move it below its [hosts.…] line"
    return _unheard_of(name, EVERY, MADE)


def _host_reason(name: str, key: str, host: str, role: str, problems: Problems) -> str:
    if name in HOST_KEYS:
        return f"is a key of the machine, not a variable; move it above the [{key}] line"
    if name in SITE_KEYS and name != "hosts":
        problems.spoil(name)
        return "is one for the whole site; move it above the first [hosts.…] line"
    if role not in ("", *MADE):
        return f"has nothing to change: there are no templates for the role {role}; remove it"
    if name in EVERY:
        others = " and ".join(other for other in MADE if name in defaults.of(other))
        return f"is a variable of the role {others}, and {host} is a {role}; remove it"
    return _unheard_of(name, defaults.of(role) if role else EVERY, (role,) if role else MADE)


def _unheard_of(name: str, known: dict[str, Override], roles: tuple[str, ...]) -> str:
    if name in WORKED_OUT:
        return "is worked out from the rest of this file and the machine; it cannot be overridden"
    if near := difflib.get_close_matches(name, known, 1):
        return f"is not a variable of the templates; did you mean {near[0]}?"
    files = ", ".join(dict.fromkeys(str(file) for role in roles for file in defaults.files_of(role)))
    elsewhere = "what has no variable goes into /etc/mailops/local/ on the machine"
    return f"is not a variable of the templates; all of them are in {files}; {elsewhere}"


def _fitting(name: str, value: Any, default: Override) -> Override:
    """The value, if it is of the same kind as the default; a list may be one text, a float a whole number."""
    if isinstance(default, tuple):
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise Wrong(f"is {_kind_in(value)}; write {_example(name, default)}")
        return tuple(_line(name, text, default) for text in texts)
    if isinstance(default, str) and isinstance(value, str):
        return _line(name, value, default) if value or default else ""
    if isinstance(default, bool) and isinstance(value, bool):
        return value
    if not isinstance(default, bool | str) and not isinstance(value, bool):
        if type(value) is int or (isinstance(default, float) and isinstance(value, float)):
            return _enough(value, LEAST.get(name, 0))
        if isinstance(value, float):
            raise Wrong(f"cannot be {value}; write a whole number, such as {_example(name, default)}")
    raise Wrong(f"is {kind_of(value)}; write {_example(name, default)}")


def _line(name: str, text: str, default: Override) -> str:
    """One line of a configuration file: a second one would be a setting of its own."""
    if not text.strip():
        raise Wrong(f"is empty; write {_example(name, default)}")
    if "\n" in text or "\r" in text:
        raise Wrong("has a line break, and what follows it would be another setting; write it on one line")
    if not text.isprintable():
        raise Wrong("has a character that cannot be seen; leave it out")
    return text


def _enough(value: float, least: float | list[float]) -> float:
    allowed = least if isinstance(least, list) else [least]
    if not math.isfinite(value) or (value < allowed[-1] and value not in allowed):
        endless = "0, for no limit, or " if allowed[1:] else ""
        why = "" if allowed == [0] else "; with less no mail gets through"
        raise Wrong(f"cannot be {value}; write {endless}{allowed[-1]} or more{why}")
    return value


def _kind_in(value: Any) -> str:
    odd = [item for item in value if not isinstance(item, str)] if isinstance(value, list) else []
    return f"a list with {kind_of(odd[0])} in it" if odd else kind_of(value)


def _example(name: str, default: Override) -> str:
    if isinstance(default, tuple):
        return f"{name} = [{', '.join(map(quoted, default))}]"
    if isinstance(default, bool):
        return f"{name} = {str(default).lower()}"
    return f"{name} = {quoted(default)}" if isinstance(default, str) else f"{name} = {default}"
