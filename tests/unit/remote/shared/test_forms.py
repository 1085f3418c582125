"""The forms are what is really kept and sent: manifests, what a machine keeps, results that the laptop takes."""

from __future__ import annotations

import json
import subprocess
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from mailops.remote import machine
from mailops.remote.changes import generations, history, transaction
from mailops.remote.shared import calls, forms
from mailops.ssh import protocol
from tests.unit.remote.shared.test_before import left
from tests.unit.test_golden import MACHINES
from tests.unit.test_roles import manifest

__all__ = ["left"]
HERE = Path(__file__).resolve().parents[4]
UNIONS = (types.UnionType, typing.Union)
# As JSON has them.
KINDS: dict[Any, Any] = {float: (int, float), int: int, str: str, bool: bool, list: list, tuple: list, dict: dict}
KINDS[types.NoneType] = types.NoneType


def keys(form: Any) -> tuple[dict[str, Any], set[str]]:
    """The keys of a form, and those of them that may not be there."""
    hints = get_type_hints(form, include_extras=True)
    may = {key for key, hint in hints.items() if get_origin(hint) is NotRequired} | form.__optional_keys__
    return {key: get_args(hint)[0] if get_origin(hint) is NotRequired else hint for key, hint in hints.items()}, may


def odd(value: Any, form: Any, where: str = "it") -> Iterator[str]:
    """How a value of JSON differs from its form. What an earlier mailops had besides is no matter."""
    origin, parts = get_origin(form), get_args(form)
    if origin in UNIONS:
        if all(any(odd(value, part)) for part in parts):
            yield from odd(value, parts[0], where)
    elif origin is Literal:
        if value not in parts:
            yield f"{where} is {value!r}"
    elif not isinstance(value, KINDS.get(form) or KINDS.get(origin) or dict) or (form is int and value is True):
        yield f"{where} is {value!r}, which is no {form}"
    elif is_typeddict(form):
        known, may = keys(form)
        yield from (f"{where} has no {key}" for key in known.keys() - may - value.keys())
        for key in known.keys() & value.keys():
            yield from odd(value[key], known[key], f"{where}.{key}")
    elif origin is tuple:
        yield from (line for item, part in zip(value, parts, strict=True) for line in odd(item, part, where))
    elif origin:
        items = value.values() if origin is dict else value
        yield from (line for item in items for line in odd(item, parts[-1], f"{where}[]"))


@pytest.mark.parametrize("name", MACHINES)
def test_a_manifest_has_its_form_and_nothing_else(name: str) -> None:
    host, release = MACHINES[name]
    made = json.loads(json.dumps(manifest(host, release, certificate="PEM\n").to_json()))
    assert list(odd(made, forms.Manifest)) == []
    assert made.keys() == keys(forms.Manifest)[0].keys()
    for part, form in (("files", forms.File), ("services", forms.Service), ("probes", forms.Probe)):
        assert all(item.keys() == keys(form)[0].keys() for item in made[part])


@pytest.mark.usefixtures("left")
def test_what_an_earlier_mailops_kept_is_lifted_to_the_forms() -> None:
    assert list(odd(machine.manifest(), forms.Manifest)) == []
    assert list(odd(generations.active(), forms.Generation)) == []
    assert [line for record in generations.every() for line in odd(record, forms.Generation)] == []
    assert list(odd(transaction.pending(), forms.Journal)) == []
    assert list(odd(generations.origins(), dict[str, forms.State])) == []
    assert [line for entry in history.entries(10) for line in odd(entry, forms.Entry)] == []


def sample(form: Any, key: str = "") -> Any:
    """A value of a form, with every key that it may have."""
    origin, parts = get_origin(form), get_args(form)
    if is_typeddict(form):
        return {name: sample(part, name) for name, part in keys(form)[0].items()}
    if origin in UNIONS:
        return None if types.NoneType in parts else sample(parts[0], key)
    if origin is list:
        return [sample(parts[0], key)]
    if origin is dict:
        return {"aa": sample(parts[1], key)}
    if origin is Literal:
        return parts[0]
    return {str: "" if key == "certificate" else "aa", int: 12, float: 1.5, bool: True}[form]


RESULTS: dict[str, Any] = {
    "plan": calls.Plan,
    "bootstrap": calls.Changed,
    "push": calls.Changed,
    "rollback": calls.Changed,
    "unlock": calls.Changed,
    "lock": calls.Changed,
    "status": calls.Status,
    "certificate": calls.Served,
    "history": calls.History,
    "generations": calls.Generations,
    "diff": calls.Diff,
    "drift": calls.Drift,
    "mailcfg": calls.Mailcfg,
    "dkim": calls.Keys,
    "queue": calls.Listed,
    "queue.flush": calls.Counts,
    "queue.show": calls.Shown,
    **dict.fromkeys(("queue.rm", "queue.hold", "queue.release"), calls.Done),
    "trace": calls.Stories,
    "tunnel": calls.Console,
}
# What no sample can be.
KEY = {"domain": "a.test", "selector": "s", "name": "s._domainkey.a.test", "value": f"v=DKIM1; k=rsa; p={'A' * 40}"}
SPECIAL: dict[str, Mapping[str, Any]] = {
    "rollback": {"generation": 12},
    "generations": {
        "generations": [sample(calls.Past) | {"when": 1.5} | dict.fromkeys(forms.By.__annotations__, "aa")]
    },
    "mailcfg": {"code": 1},
    "dkim": {"keys": [KEY | {"path": "aa"}]},
    "queue": {"messages": [sample(calls.Waiting) | {"id": "4bX0z"}]},
    **{task: {"missing": ["4bX0z"]} for task in ("queue.rm", "queue.hold", "queue.release")},
    "tunnel": {"password": "0" * 40},
}


@pytest.mark.parametrize("task", protocol.RESULT)
def test_the_laptop_takes_a_result_that_has_its_form(task: str) -> None:
    made = sample(RESULTS[task]) | SPECIAL.get(task, {})
    assert protocol.result(task, made) == made
    for key in protocol.result(task, made).keys() - keys(RESULTS[task])[1]:  # and misses what has to be there
        odd_one = {name: value for name, value in made.items() if name != key}
        assert list(odd(odd_one, RESULTS[task])) == [f"it has no {key}"]


def test_the_forms_are_loaded_by_nobody_as_a_program_runs() -> None:
    """They would cost every call its time."""
    program = (
        "import importlib, pkgutil, sys, mailops.remote as remote\n"
        "for each in pkgutil.walk_packages(remote.__path__, 'mailops.remote.'):\n"
        "    each.name.endswith(('.forms', '.calls')) or importlib.import_module(each.name)\n"
        "import mailops.bootstrap, mailops.ssh.machine\n"
        "print([name for name in sys.modules if name.endswith(('.shared.forms', '.shared.calls'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=HERE, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
