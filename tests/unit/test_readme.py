"""The documents, checked against what there is: tasks and flags, links, exit codes, modules."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke.parser import ParserContext

from tasks import namespace

PROJECT = Path(__file__).parents[2]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
DOCUMENTS += sorted(path.relative_to(PROJECT).as_posix() for path in (PROJECT / "docs").rglob("*.md"))
PAGES = [name.removeprefix("docs/") for name in DOCUMENTS if name.startswith("docs/") and name != "docs/README.md"]
GUIDES = ["README.md", *(name for name in DOCUMENTS if name.startswith("docs/how-to/"))]
INDEX = (PROJECT / "docs/README.md").read_text(encoding="utf-8")
ARCHITECTURE = (PROJECT / "docs/architecture.md").read_text(encoding="utf-8")

# `fab …` or `mailops …` in backticks, or in an indented line, where several may stand side by side.
INLINE = re.compile(r"`(?:[A-Z_]+=\S+ )*((?:fab|mailops) [^`]+)`")
BLOCK_LINE = re.compile(r"^    (.*)$", re.MULTILINE)
IN_BLOCK = re.compile(r"(?:^|(?<=\s{2}))((?:fab|mailops) .*?)(?=\s{2,}|$)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
SCRIPT = re.compile(r"\bscript/[a-z]+\b")
TASKS: dict[str, ParserContext] = {context.name: context for context in namespace.to_contexts()}
SHORT = {alias: context for context in TASKS.values() for alias in context.aliases}


def commands(text: str) -> Iterator[str]:
    for found in INLINE.findall(text):
        yield " ".join(found.split())
    for line in BLOCK_LINE.findall(text):
        bare = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line.split("  #")[0].rstrip())
        yield from IN_BLOCK.findall(bare)


COMMANDS = sorted({command for name in DOCUMENTS for command in commands((PROJECT / name).read_text(encoding="utf-8"))})


def is_about_fab_itself(words: list[str]) -> bool:
    """`fab --list`, `fab NAME --help`, stock Fabric's `fab -- COMMAND`, and `fab lab.*` as a way of speaking."""
    return not words or words[0] in ("--list", "--help", "NAME", "--", "-i", "-t") or words[0].endswith(("*", "…"))


def test_commands_were_found() -> None:
    assert "fab -H mail bootstrap" in COMMANDS
    assert "fab user.add ann@example.org" in COMMANDS
    assert "fab alias.add sales@example.org ann@example.org" in COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_in_the_documents_exists(command: str) -> None:
    words = shlex.split(command)[1:]
    if words[:1] == ["-H"]:
        words = words[2:]
    if is_about_fab_itself(words):
        return
    name, *rest = words
    known = SHORT | TASKS
    assert name in known, f"there is no task {name}"
    flags = {*known[name].flags, *known[name].inverse_flags, "--help"}
    for word in rest:
        assert not word.startswith("-") or word.partition("=")[0] in flags, f"{name} has no {word}"
    given = [word for word in rest if not word.startswith("-")]
    several = any(getattr(argument, "takes_more", False) for argument in known[name].positional_args)
    takes = (
        len(given) if several else len(known[name].positional_args) + sum(1 for word in rest if word.startswith("-"))
    )
    assert len(given) <= takes, f"{name} does not take {len(given)} words"


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_readme_or_a_how_to_page_tells_of_every_task(name: str) -> None:
    told = "".join((PROJECT / guide).read_text(encoding="utf-8") for guide in GUIDES)
    assert re.search(rf"\b(fab|mailops) {re.escape(name)}\b", told)


@pytest.mark.parametrize("page", PAGES)
def test_the_index_leads_to_every_page(page: str) -> None:
    assert f"]({page})" in INDEX


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    path = PROJECT / document
    text = path.read_text(encoding="utf-8")
    for target in LINK.findall(text):
        if target.startswith("#"):
            assert target[1:] in anchors(text), f"{document} has no heading for {target}"
        elif "://" not in target:
            file, _, heading = target.partition("#")
            assert (path.parent / file).exists(), f"{document} links to {target}"
            known = anchors((path.parent / file).read_text(encoding="utf-8")) if heading else {heading}
            assert heading in known, f"{document}: {file} has no heading for #{heading}"
    for script in SCRIPT.findall(text):
        assert (PROJECT / script).exists(), f"{document} names {script}"


def anchors(text: str) -> set[str]:
    """The anchors that a forge gives to the headings: small letters, hyphens, no other signs."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", sorted((PROJECT / "mailops").rglob("*.py")), ids=lambda path: path.name)
def test_the_architecture_has_a_line_for_every_module(path: Path) -> None:
    if path.name == "__init__.py":
        return
    inside = path.relative_to(PROJECT).as_posix()
    assert f"`{inside}`" in ARCHITECTURE or f"`{path.name}`" in section(inside), f"{inside} is not described"


def section(inside: str) -> str:
    """The part of the document about the folder of a module; there its bare name will do."""
    parts = dict(re.findall(r"\(`(mailops/[\w/]+)/`.*?\):?(.*?)(?=\n\n[A-Z`])", ARCHITECTURE, re.DOTALL))
    return parts.get(inside.rpartition("/")[0], "")


def test_the_picture_is_small_and_asks_nothing_of_other_sites() -> None:
    picture = (PROJECT / "docs/demo.svg").read_text(encoding="utf-8")
    assert len(picture) < 150_000
    assert "@font-face" not in picture
    assert "url(http" not in picture
