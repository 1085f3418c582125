"""docs/reference.md is made of the tables that the program itself reads, and says the same as they.

Made anew, after a change in one of them, by

    .venv/bin/python -m tests.unit.test_reference
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mailops import errors, tasks
from mailops.remote.shared.errors import OF_MACHINES, OUTCOMES
from mailops.roles import MADE, ROLES
from mailops.site import about, defaults, model
from mailops.site.reader import HOST_FORMS, SITE_FORMS

PROJECT = Path(__file__).parents[2]
REFERENCE = PROJECT / "docs" / "reference.md"

HEAD = """# Reference

Made of the tables that mailops itself reads; a test fails where this page differs from them.

Contents: [hosts.toml](#hoststoml) · [override](#override) · [tasks](#tasks) · [exit codes](#exit-codes).
"""


def made() -> str:
    parts = (HEAD, "## hosts.toml\n", *_keys(), "## override\n", *_overrides(), "## Tasks\n", *_tasks(), *_exit_codes())
    return "\n".join(parts)


def _keys() -> Iterator[str]:
    yield from ("Above the first `[table]`:\n", _table_of_keys(about.SITE, SITE_FORMS))
    yield from ("In each `[hosts.NAME]`:\n", _table_of_keys(about.HOST, HOST_FORMS))
    yield "A secret is a reference: `{ prompt = … }`, `{ env = … }`, `{ command = … }` or `{ keyring = … }`.\n"


def _table_of_keys(texts: Mapping[str, about.About], forms: Mapping[str, Any]) -> str:
    rows = [(f"`{key}`", text.what, text.default, _code(forms[key].example)) for key, text in texts.items()]
    return _table(("key", "what it is", "if left out", "for example"), rows)


def _overrides() -> Iterator[str]:
    yield "Names, and what they are without an override. A list may also be written as one text.\n"
    for role in MADE:
        for file in defaults.files_of(role):
            yield f"### {file.parent.name} (a {role})\n"
            yield _table(("name", "default", "what it is"), list(_variables(file)))


def _variables(file: Path) -> Iterator[tuple[str, str, str]]:
    """Name, default and the comment above it; a comment that ends with no stop goes on at the next."""
    values = tomllib.loads(file.read_text("utf-8"))
    comment: list[str] = []
    for line in file.read_text("utf-8").partition(f"[{defaults.LEAST}]")[0].split("\n\n", 1)[1].splitlines():
        name = re.match(r"(\w+) = (.*)", line)
        if line.startswith("#"):
            comment.append(line.removeprefix("#").strip())
        elif name:
            assert name[1] in values
            yield f"`{name[1]}`", _code(name[2]), " ".join(comment)
            comment = []
        else:
            comment = []


def _tasks() -> Iterator[str]:
    yield "`fab NAME --help` says more, with an example. `-H` names hosts; else it is for all that it suits.\n"
    rows = []
    for name in sorted(tasks.namespace.task_names):
        task = tasks.namespace[name]
        names = [argument.name for argument in task.get_arguments()]
        words = [f"`{word}`" for word in names if word in task.positional]
        options = [f"`--{word.replace('_', '-')}`" for word in names if word not in task.positional]
        rows.append((f"`fab {name}`", (task.__doc__ or "").splitlines()[0], ", ".join(words), ", ".join(options)))
    yield _table(("task", "what it does", "words", "options"), rows)


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes\n"
    yield _table(("code", "what it means"), [(str(code), text) for code, text in errors.CODES.items()])
    yield "`fab history` says how a run ended, and why:\n"
    yield _table(("word", "what it means"), [(f"`{word}`", text) for word, text in OUTCOMES.items()])


def _code(text: str) -> str:
    return f"`{text}`"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def test_the_page_says_what_the_program_does() -> None:
    assert REFERENCE.read_text("utf-8") == made(), "docs/reference.md: .venv/bin/python -m tests.unit.test_reference"


@pytest.mark.parametrize(
    ("texts", "forms", "fields"),
    [(about.SITE, SITE_FORMS, model.SITE_KEYS), (about.HOST, HOST_FORMS, model.HOST_KEYS)],
    ids=["site", "host"],
)
def test_every_key_is_explained(texts: Mapping[str, Any], forms: Mapping[str, Any], fields: tuple[str, ...]) -> None:
    assert set(texts) == set(forms) == set(fields)


def test_every_exit_code_is_explained() -> None:
    codes = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    assert set(errors.CODES) == codes | {0}
    assert set(OF_MACHINES) < codes


def test_codes_and_words_of_errors_come_from_the_table() -> None:
    """No number and no word of its own where an error is raised, on either side."""
    for path in (PROJECT / "mailops").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
            if isinstance(call, ast.Call) and name in {"AgentError", "MailopsError", "Exit"}:
                given = [*call.args[2:], *(word.value for word in call.keywords if word.arg in {"code", "outcome"})]
                assert not any(isinstance(value, ast.Constant) for value in given), f"{path}:{call.lineno}"


def test_every_role_is_told_of() -> None:
    assert set(re.findall(r"`(\w+)`", about.HOST["role"].what)) == set(ROLES)


if __name__ == "__main__":
    REFERENCE.write_text(made(), "utf-8")
