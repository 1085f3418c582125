"""The laws of the house: who may know whom. Those who do not keep to them yet are listed, and the lists only shrink."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mailops.remote.__main__ import CALLS
from mailops.remote.services import daemons, probe
from mailops.roles import ROLES

HERE = Path(__file__).resolve().parents[2]
PACKAGE = HERE / "mailops"
FILES = {".".join(path.relative_to(HERE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = {name.removesuffix(".__init__"): path for name, path in FILES.items()}
MODULES["tasks"] = HERE / "tasks.py"
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imports(name: str) -> Iterator[str]:
    """The modules that one imports, inside of functions too; of the project's own by their full names."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(filter(None, [above, node.module]))
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in MODULES else base


GRAPH = {name: {found for found in imports(name) if found in MODULES} - {name} for name in MODULES}
DAEMON = re.compile(
    r"postfix|dovecot|rspamd|redis|gocryptfs|bindfs|sieve|doveadm|post(conf|queue|super|map)", re.IGNORECASE
)


def circles() -> Iterator[list[str]]:
    """Groups of modules of which each imports each, by whatever way."""
    reach: dict[str, set[str]] = {}
    for name in GRAPH:
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            new = GRAPH[waiting.pop()] - seen
            seen |= new
            waiting += new
        reach[name] = seen
    for name in GRAPH:
        group = sorted(other for other in reach[name] if name in reach[other])
        if group and group[0] == name:
            yield group


def test_no_circle_of_imports() -> None:
    assert list(circles()) == []


def test_the_machines_half_imports_the_standard_library_and_itself() -> None:
    allowed = sys.stdlib_module_names | {"mailops"}
    assert {
        (name, found)
        for name in MODULES
        if name.startswith("mailops.remote")
        for found in imports(name)
        if found.partition(".")[0] not in allowed or (found in MODULES and not found.startswith("mailops.remote"))
    } == set()


def test_the_laptop_imports_nothing_of_the_machines_half() -> None:
    """But what both have to agree on, which has a room of its own."""
    assert {
        (name, found)
        for name in MODULES
        if not name.startswith("mailops.remote")
        for found in GRAPH[name]
        if found.startswith("mailops.remote") and not found.startswith("mailops.remote.shared")
    } == set()


def test_what_both_halves_share_knows_nothing_else() -> None:
    shared = {name: found for name, found in GRAPH.items() if name.startswith("mailops.remote.shared")}
    assert {each for found in shared.values() for each in found} <= {*shared}


# The floors of the house, from the ground up. A file imports what is of its own room, or lies on a lower floor.
LAPTOP = """
    roles printable remote __init__
    errors
    manifest
    site
    secrets cache
    screen ssh services needed welcome
    fleet
    accounts
    bootstrap
    changes health vault trust tunnel queue trace
    dkim
    lab
    cli
"""
MACHINE = """
    shared
    system link __init__
    machine
    accounts certificates dkim
    services
    health
    changes
    vault
    bootstrap status tunnel queue trace
    __main__
"""
SAME = {"tasks": "cli", "program": "cli", "console_door": "tunnel"}
HIGH = {
    ("mailops.accounts", "mailops.cli.words"),
    ("mailops.cache", "mailops.ssh.protocol"),
    ("mailops.cache", "mailops.ssh.shapes"),
    ("mailops.changes.generations", "mailops.cli.words"),
    ("mailops.changes.history", "mailops.cli.words"),
}


def steps_up(half: str, floors: str) -> set[tuple[str, str]]:
    """Who imports what is not below, and not of the same room."""
    on = {room: floor for floor, rooms in enumerate(floors.strip().splitlines()) for room in rooms.split()}

    def room(name: str) -> str:
        first = name.removeprefix(half).lstrip(".").partition(".")[0] or "__init__"
        return SAME.get(first, first)

    inside = [name for name in GRAPH if name.startswith(half) or (name == "tasks" and half == "mailops")]
    assert {room(name) for name in inside} == {*on}, "a new room: give it a floor"
    pairs = {(name, found) for name in inside for found in GRAPH[name] if found in inside}
    return {(a, b) for a, b in pairs if room(a) != room(b) and on[room(b)] >= on[room(a)]}


def test_the_laptops_rooms_know_what_lies_below_them() -> None:
    assert {pair for pair in steps_up("mailops", LAPTOP) if not pair[0].startswith("mailops.remote")} == HIGH


def test_the_machines_rooms_know_what_lies_below_them() -> None:
    assert steps_up("mailops.remote", MACHINE) == set()


# Rooms that are about a daemon: services/ says all of it; lab/ builds what it likes.
OWN_ROOMS = (
    "mailops.roles",
    "mailops.services.",
    "mailops.lab",
    "mailops.remote.services.",
    "mailops.tunnel",
    "mailops.console_door",
)
# What these do is done to or for a daemon, and nothing else: a vault of gocryptfs, passwords as Dovecot reads them,
# keys that Rspamd signs with. A daemon in the place of that one would be another vault, other accounts.
ABOUT = "accounts dkim vault"
# Keys of hosts.toml that are about a daemon bear its name, and what an address is depends on who has to take it.
KNOW_A_DAEMON = """
    site.about site.model site.reader site.rules site.values tasks
"""


def test_the_engine_does_not_know_a_daemon_by_its_name() -> None:
    about = tuple(f"mailops.remote.{room}" for room in ABOUT.split())
    knows = {name for name in MODULES if DAEMON.search(MODULES[name].read_text())}
    others = {name for name in knows if not name.startswith((*OWN_ROOMS, *about))}
    assert others - {"tasks"} == {f"mailops.{name}" for name in KNOW_A_DAEMON.split()}


# What a report, an answer, an error is called here; and how a text is taken apart or searched.
WORDS = {"line", "lines", "detail", "words", "said", "told", "amount", "answer", "error", "fault", "objection"}
WORDS |= {"message", "hint", "reason", "reasons", "why"}
READING = {"split", "rsplit", "splitlines", "partition", "rpartition", "startswith", "endswith", "find", "index"}
READING |= {"removeprefix", "removesuffix"}
PATTERNS = {"search", "match", "fullmatch", "findall", "split"}
# Rooms that do little else than read what others have written: daemons, Debian's programs, OpenSSH, a person.
READERS = ("mailops.remote.services.", "mailops.remote.system.", "mailops.site.", "mailops.lab.")
READERS += tuple(f"mailops.ssh.{room}" for room in ("connection", "loader", "login_keys", "ssh_config"))
# And functions that do so elsewhere. Whoever comes here to be added: are the words ours? Then what is decided on has
# to stand beside them, as a field.
READ_OTHERS = """
    cli.words._error  console_door._parsed console_door.answered  screen.diffs._ended
    ssh.machine._answer_sudo ssh.machine._ended
    remote.accounts.sessions._end_submissions remote.accounts.sessions._sent_by
    remote.changes.before._redirects  remote.changes.sources._candidate remote.changes.sources._rows
    remote.dkim._useless  remote.health.look._accounts  remote.health.resolver.servers  remote.health.swap._areas
    remote.machine._os_release  remote.tunnel._listener  remote.vault.vault.break_off remote.vault.vault.make
"""
# What is seen is at stake, and nothing else: a room's name that a line begins with is left out, a long line is wrapped.
SEEN = {"changes.history._named", "screen.paint.wrapped", "screen.paint._wrapped"}


def names_in(node: ast.AST) -> Iterator[object]:
    for part in ast.walk(node):
        match part:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=name)):
                yield name


def is_read(node: ast.AST) -> bool:
    """Whether something is looked for in a text, as far as its name says that it is one."""
    read: list[ast.expr] = []
    match node:
        case ast.Call(func=ast.Attribute(value=text, attr=how), args=arguments):
            read = [text] * (how in READING) + arguments * (how in PATTERNS)
        case ast.Compare(left=ast.Constant() | ast.JoinedStr(), ops=[ast.In() | ast.NotIn()]):
            read = node.comparators
    return any(not WORDS.isdisjoint(names_in(text)) for text in read)


def readers(name: str) -> Iterator[str]:
    """The functions and methods of a module that read."""
    classes = [part for part in TREES[name].body if isinstance(part, ast.ClassDef)]
    for part in [*TREES[name].body, *(method for each in classes for method in each.body)]:
        if isinstance(part, ast.FunctionDef) and any(map(is_read, ast.walk(part))):
            yield f"{name}.{part.name}".removeprefix("mailops.")


def test_nothing_is_decided_on_the_words_of_a_report() -> None:
    """What is decided on stands beside the words, as data: these are for people, and may be said otherwise any day.

    It sees what is taken apart or looked for in what is called a line, said, a message…; not a comparison of a whole
    text, nor a text by another name.
    """
    found = {function for name in MODULES if not name.startswith(READERS) for function in readers(name)}
    assert found == {*READ_OTHERS.split(), *SEEN}


# A bootstrap of null clients asks the mailhost for its certificate: a call of its own, which loads next to nothing.
ELSEWHERE = {("certificate", "bootstrap")}


def test_each_call_is_answered_by_the_machines_room_of_that_name() -> None:
    calls = {
        (call, name)
        for name in MODULES
        if not name.startswith("mailops.remote")
        for call in re.findall(r'machine\.call\(\s*"(\w+)"', MODULES[name].read_text())
    }
    assert {call for call, _ in calls} == {*CALLS}
    strange = {(call, name) for call, name in calls if CALLS[call].split(".")[0] not in name.split(".")}
    assert strange == {(call, f"mailops.{room}") for call, room in ELSEWHERE}


def test_what_a_machine_is_for_is_asked_of_the_table_of_roles() -> None:
    """A role's name is compared with nothing: what is meant (a vault, accounts, being central) stands in its line."""
    compared = {
        name
        for name in MODULES
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Compare)
        for side in ast.walk(node)
        if isinstance(side, ast.Constant) and side.value in ROLES
    }
    assert compared == set()


NAMED = {service for role in ROLES.values() for service in role.services}
# A folder or a unit that is of one service by its name.
OWNED = re.compile(r"/(?:systemd/system|var/lib|etc(?!/systemd))/(\w+)[-@./]")


def test_what_a_role_is_made_of_has_a_file_and_templates_of_its_own() -> None:
    files = {name.removeprefix("mailops.services.") for name in MODULES if name.startswith("mailops.services.")}
    templates = PACKAGE / "templates"
    assert files >= NAMED
    assert {folder.name for folder in templates.iterdir()} <= NAMED
    strangers = {
        (service, owner)
        for service in NAMED
        for path in templates.glob(f"{service}/*/**/*")
        for owner in OWNED.findall(path.relative_to(templates / service).as_posix())
        if owner in NAMED - {service}
    }
    # What every Postfix needs; and a null client is a Postfix.
    assert strangers == {("resolver", "postfix"), ("nullclient", "postfix")}


def test_a_kind_of_probe_lives_with_its_service() -> None:
    assert set(probe.FILES.values()) <= NAMED
    assert all(callable(kind) for kind in probe._kinds().values())


def test_what_the_engine_asks_of_a_daemon_lies_with_its_service() -> None:
    assert set(daemons.FILES.values()) <= NAMED
    for file in daemons.FILES.values():
        assert daemons.named(file) != daemons.Daemon(), file


def test_an_init_has_a_docstring_and_nothing_else() -> None:
    speaks = {
        name for name, path in FILES.items() if name.endswith("__init__") and len(ast.parse(path.read_text()).body) > 1
    }
    assert speaks == {"mailops.__init__"}


def test_the_commands_door_loads_nothing_heavy() -> None:
    """Without a clock: what costs start-up is not there (Python 3.11's dataclasses brings inspect along)."""
    heavy = "{'dataclasses', 'inspect', 'fabric', 'paramiko', 'jinja2'}"
    program = f"import sys, mailops.cli.program; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=HERE, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
