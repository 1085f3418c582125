"""What one mailops keeps and a later one reads."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from mailops.remote.shared.errors import AgentError
from mailops.remote.shared.stored import FORMAT, STEPS, lift, numbered

REMOTE = Path(__file__).parents[4] / "mailops" / "remote"
# As they were before forms had a number.
OLD = {
    "manifest": {
        "role": "mailhost",
        "packages": ["postfix"],
        "vault": {"mountpoint": "/vault", "cipherdir": "/var/lib/mailops/vault", "directories": []},
        "files": [],
        "services": [
            {"unit": "postfix.service", "roots": [], "on_change": "reload", "mail": True, "checks": [["true"]]}
        ],
        "probes": [{"kind": "smtp", "port": 25, "options": {}}],
    },
    "generation": {"number": 3, "files": {}, "proven": True},
    "journal": {"number": 4, "paths": {}, "amend": False, "listed": False, "folders": []},
    "entry": {"when": 1.0, "who": "me"},
    "origins": {"/etc/mailname": None},
    "certificates": {},
}


@pytest.mark.parametrize("kind", STEPS)
def test_what_has_no_number_is_lifted_once(kind: str) -> None:
    lifted = lift(kind, OLD[kind])
    assert lifted["format"] == FORMAT
    assert lift(kind, lifted) == lifted
    assert all(
        lifted.get(key) == value for key, value in OLD[kind].items() if key in ("number", "paths", "when", "role")
    )


def test_a_manifest_of_before_has_all_that_is_asked_of_it() -> None:
    lifted = lift("manifest", OLD["manifest"])
    assert lifted["vault"]["queue"] == ""
    assert lifted["services"][0]["checks"] == [["true"]], "its checks are run as they stand"
    assert lifted["probes"][0]["when"] == ""
    assert lifted["release"] is None


def test_origins_of_before_were_the_paths_alone() -> None:
    assert lift("origins", OLD["origins"]) == {"format": FORMAT, "paths": {"/etc/mailname": None}}


@pytest.mark.parametrize("kind", STEPS)
def test_what_a_newer_mailops_wrote_is_refused_in_one_line(kind: str) -> None:
    with pytest.raises(AgentError, match=rf"newer mailops.*{kind}.*{FORMAT + 1}.*{FORMAT}") as refused:
        lift(kind, {"format": FORMAT + 1})
    assert refused.value.hint


def test_each_form_has_a_step_from_each_format_to_the_next() -> None:
    assert {len(steps) for steps in STEPS.values()} == {FORMAT}


def test_whoever_keeps_a_form_gives_it_its_number() -> None:
    """Law 10: each module that writes one of the forms names `numbered`, and each that reads one `lift`."""
    names = {
        path.stem: {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        for path in REMOTE.rglob("*.py")
    }
    for module in ("generations", "transaction", "history"):
        assert {"numbered", "lift"} <= names[module], module
    assert "lift" in names["machine"]


def test_a_number_is_the_first_that_one_reads() -> None:
    assert next(iter(numbered({"a": 1}))) == "format"
