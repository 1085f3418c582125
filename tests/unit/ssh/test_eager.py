"""What Paramiko and Invoke keep private: it is touched in one file each, and only where it is as we know it."""

from __future__ import annotations

import ast
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from invoke.parser.parser import ParseMachine

from mailops.cli import words
from mailops.errors import BAD_INPUT
from mailops.ssh import eager

MAILOPS = Path(eager.__file__).parents[1]
PYTHONS = {"_exit", "_fields", "_replace", "_asdict"}  # of os, and of named tuples
DEMO = Path("lab/demo_screen.py")  # Rich's picture of a terminal, which only our README needs


def test_the_installed_versions_are_known() -> None:
    assert eager.known()
    assert words.KNOWN


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in eager.PRIVATE.items() for name in names])
def test_each_private_part_is_there(kind: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(getattr(kind, name))
    monkeypatch.delattr(kind, name)
    assert not eager.known(), "without it the public way is taken"


@pytest.mark.parametrize("name", words.PRIVATE)
def test_each_private_part_of_the_parser_is_there(name: str) -> None:
    assert callable(getattr(ParseMachine, name))


def test_a_transport_has_what_no_class_shows() -> None:
    transport = paramiko.Transport(socket.socketpair()[0])
    assert all(hasattr(transport, name) for name in eager.OF_TRANSPORTS)


def test_another_version_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paramiko, "__version__", "5.10.0")
    assert not eager.known()


def test_with_another_invoke_the_words_that_may_be_left_out_are_flags(tmp_path: Path) -> None:
    program = "import sys, invoke; invoke.__version__ = '2.99.0'\n"
    program += "from mailops.cli.program import main; sys.argv[0] = 'mailops'; main()"
    for words_typed in (["rollback"], ["rollback", "--to", "5"]):
        command = [sys.executable, "-c", program, *words_typed]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == BAD_INPUT, done.stderr
        assert "hosts.toml" in done.stderr, "the words were understood, and the site is what is missing"


def _foreign(path: Path) -> Iterator[str]:
    """Private names of others that a file uses: those that it does not define itself."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = list(ast.walk(tree))
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name)} | PYTHONS
    for node in nodes:
        if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr):
            of_super = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "super"
            if node.attr not in own or of_super:
                yield node.attr


def test_nothing_private_is_touched_elsewhere() -> None:
    found = {path.relative_to(MAILOPS): set(_foreign(path)) for path in MAILOPS.rglob("*.py")}
    used = {path: names for path, names in found.items() if names and path != DEMO}
    named = {name for names in eager.PRIVATE.values() for name in names} | set(eager.OF_TRANSPORTS)
    assert used == {Path("ssh/eager.py"): named}
