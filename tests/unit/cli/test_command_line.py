"""What a person meets first: the list of tasks, their help, and one clear line for each mistake."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fabric import Config

import tasks
from mailops import __version__
from mailops.cli import listing
from mailops.cli.executor import Executor
from mailops.cli.words import SEEN
from tests import wheel
from tests.unit.site.test_site import GOOD, HOST_KEY, WRONG

PROJECT = Path(__file__).parents[3]
FAB = str(Path(sys.executable).with_name("fab"))
NAMES = sorted(tasks.namespace.task_names)
HELP = {name: dict(tasks.namespace[name].help) for name in NAMES}


def fab(*args: str, cwd: Path = PROJECT, **env: str) -> subprocess.CompletedProcess[str]:
    """`fab` as somebody types it, without a terminal, without our MAILOPS_SITE."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAILOPS_")}
    command = [FAB, *([] if cwd == PROJECT else ["--search-root", str(PROJECT)]), *args]
    return subprocess.run(
        command, cwd=cwd, env=kept | env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def in_process(*args: str) -> int:
    """The same program and executor without the price of a process; returns the exit code."""
    program = listing.Program(namespace=tasks.namespace, executor_class=Executor, config_class=Config)
    for name, texts in HELP.items():  # invoke takes a task's texts out of it as it reads them
        tasks.namespace[name].help = dict(texts)
    try:
        program.run(["fab", *args])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@contextmanager
def machine() -> Iterator[tuple[int, list[str]]]:
    """A port that stands for a machine, and who has connected to it by the end."""
    visitors: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server.getsockname()[1], visitors
        try:
            while True:
                visitors.append(str(server.accept()[1]))
        except BlockingIOError:
            pass


def at(port: int, text: str = GOOD) -> str:
    """The site with its mailhost, and whoever is given the same address, at a port of this computer."""
    text = text.replace("192.0.2.25", "127.0.0.1").replace("\nport = 22\nuser", f"\nport = {port}\nuser")
    backup = '[hosts.backup]\naddress = "127.0.0.1"'
    return text.replace(backup, f"{backup}\nport = {port}")


# The table of contents


def test_the_list_shows_every_task_in_one_line_of_80_columns() -> None:
    done = fab("--list")
    lines = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert sorted(line.split()[0] for line in lines) == sorted({*NAMES, "queue"} - {"queue.ls"})
    assert all(re.fullmatch(r"  \S+ +[A-Z].*\.", line) for line in lines), lines
    headings = [line for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert headings == list(listing.HEADINGS)  # nothing is among the others
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_task_has_an_example_that_names_it(
    name: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process(flag, name) == 0
    before = capsys.readouterr().out
    assert in_process(name, flag) == 0  # also where the task waits for a word
    after = capsys.readouterr().out
    assert after == before
    example = re.search(r"Example: fab (.*)", after)
    assert example is not None
    assert name in example[1].split()


def test_the_shell_can_complete_half_a_word() -> None:
    done = fab("--complete", "--", "fab push --over")
    assert (done.returncode, "--overwrite" in done.stdout.split()) == (0, True)


def test_fab_needs_no_flag_in_the_projects_folder() -> None:
    done = fab("mailcfg", "help")
    assert done.returncode == 0
    assert "adduser <email> <pw>" in done.stdout


# Mistakes


@pytest.mark.parametrize(
    ("words", "line", "hint"),
    [
        (["nosuch"], "no idea what 'nosuch' is!", "fab --list shows the tasks"),
        (["push", "--nosuch"], "no idea what '--nosuch' is!", "fab push --help"),
        (["rollback", "--nosuch"], "no idea what '--nosuch' is!", "fab rollback --help"),
        (["rollback", "-H", "mail"], "-H goes before the name of the task", "fab rollback --help"),
        (["user.add", "-x"], "no idea what '-x' is!", "fab user.add --help"),
        (["user.add", "a@b.test", "Pw"], SEEN, "choose another one; fab user.add <email> asks for it"),
        (["user.passwd", "a@b.test", "Pw"], SEEN, "choose another one; fab user.passwd <email> asks for it"),
        (["trust"], "'trust' did not receive required positional arguments: 'name'", "fab trust --help"),
        (["-H", "mail", "--", "true"], "there are tasks here, and no commands of your own", "ssh HOST COMMAND"),
        (["--dry", "-H", "mail", "push"], "there is no --dry here", "fab plan shows what would change"),
    ],
)
def test_a_wrong_line_is_told_with_code_2_and_no_connection(
    tmp_path: Path, words: list[str], line: str, hint: str
) -> None:
    with machine() as (port, visitors):
        (tmp_path / "hosts.toml").write_text(at(port))
        done = fab(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"mailops: {line}\n  {hint}\n"
    assert not visitors


@pytest.mark.parametrize(("old", "new", "line"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_site_gets_its_line_and_code_2_and_no_connection(  # noqa: PLR0917
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    line: str,
) -> None:
    path = tmp_path / "hosts.toml"
    monkeypatch.setenv("MAILOPS_SITE", str(path))
    with machine() as (port, visitors):
        path.write_text(at(port, GOOD.replace(old, new)))
        assert in_process("status") == 2
    said = capsys.readouterr()
    assert re.fullmatch(f"mailops: \\S*hosts\\.toml: {line}\n", said.err), said.err
    assert said.out == ""
    assert not visitors


def test_the_table_of_wrong_sites_is_long_enough() -> None:
    assert len(WRONG) >= 25


def test_the_listening_machine_would_be_called_if_the_site_were_right(tmp_path: Path) -> None:
    """The judge of the tests above: with a good site it does see a visitor."""
    path = tmp_path / "hosts.toml"
    with machine() as (port, visitors):
        path.write_text(at(port))
        done = fab("-t", "1", "-H", "mail", "status", MAILOPS_SITE=str(path))
    assert done.returncode == 4
    assert done.stderr.startswith(f"mailops: mail: no connection to 127.0.0.1 port {port}: no answer in time\n")
    assert visitors


@pytest.mark.parametrize("key", ["misspelt", "syntax", "number for text", "ciphertext inside"])
def test_a_wrong_site_ends_the_real_process_the_same_way(tmp_path: Path, key: str) -> None:
    old, new, line = WRONG[key]
    (tmp_path / "hosts.toml").write_text(GOOD.replace(old, new))
    for task in ("status", "bootstrap", "unlock"):
        done = fab(task, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(f"mailops: hosts\\.toml: {line}\n", done.stderr), done.stderr


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("port = 22", "port = 99999").replace('"202611"', '"a b"').replace("cryptdir_pw", "cryptdir_pwd")
    (tmp_path / "hosts.toml").write_text(text)
    done = fab("status", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3
    assert all(word in done.stderr for word in ("hosts.mail.port", "dkim_selector", "cryptdir_pwd"))


def test_a_missing_site_says_where_it_was_looked_for(tmp_path: Path) -> None:
    done = fab("status", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mailops: there is no hosts.toml in this folder\n")
    done = fab("status", MAILOPS_SITE=f"{tmp_path}/nowhere.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mailops: MAILOPS_SITE names {tmp_path}/nowhere.toml, and there is no such file\n")


def test_an_unknown_host_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with machine() as (port, visitors):
        (tmp_path / "hosts.toml").write_text(at(port))
        done = fab("-H", "mail,mial", "status", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "mailops: hosts.toml has no host 'mial'\n  it has: mail, backup\n"
    assert not visitors


def test_a_task_is_refused_for_a_machine_of_another_role(tmp_path: Path) -> None:
    with machine() as (port, visitors):
        (tmp_path / "hosts.toml").write_text(at(port))
        done = fab("-H", "backup", "unlock", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "mailops: backup is a mailnull; this task is for a mailhost\n"
    assert not visitors


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["mailcfg", "addusr ann@example.test"], "mailcfg has no command 'addusr'"),
        (["mailcfg", "adduser ann"], "the first word after adduser is not an address"),
        (["user.add", "ann"], "'ann' is not an address"),
        (["alias.add", "sales", "user@second.test"], "sales"),
        (["domain.add", "not_a_domain"], "not_a_domain"),
        (["trust", "nobody"], "hosts.toml has no host 'nobody'"),
        (["tunnel", "--port", "99999"], "99999 is not a port"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_wrong_with_a_command_is_told_before_any_connection(
    tmp_path: Path, words: list[str], line: str
) -> None:
    with machine() as (port, visitors):
        (tmp_path / "hosts.toml").write_text(at(port))
        done = fab(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("mailops: ")
    assert line in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr
    assert not visitors


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--list"], ["bootstrap", "--help"], ["--version"], ["mailcfg", "help"]])
def test_a_reader_that_leaves_early_is_no_mistake(words: list[str], unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run([FAB, *words], cwd=PROJECT, env=env, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_version_is_that_of_mailops_first() -> None:
    assert fab("--version").stdout.splitlines()[0] == f"mailops {__version__}"


# Machines that are not what they should be


def test_a_machine_that_is_off_is_one_line_and_code_4(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (tmp_path / "hosts.toml").write_text(at(port))
    done = fab("-H", "mail", "status", cwd=tmp_path)
    assert done.returncode == 4
    first, hint = done.stderr.splitlines()
    assert first.startswith(f"mailops: mail: no connection to 127.0.0.1 port {port}: ")
    assert "hosts.toml" in hint


def test_a_name_that_nobody_knows_is_one_line_and_code_4(tmp_path: Path) -> None:
    (tmp_path / "hosts.toml").write_text(GOOD.replace("192.0.2.25", "no-such-machine.invalid"))
    done = fab("-H", "mail", "status", cwd=tmp_path)
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 2
    assert "no-such-machine.invalid" in done.stderr


def test_a_port_that_does_not_speak_ssh_is_one_line_and_code_4(tmp_path: Path) -> None:
    script = "import socket,sys\ns=socket.create_server(('127.0.0.1',0));print(s.getsockname()[1],flush=True)\n"
    script += "while 1: c,_=s.accept();c.sendall(b'220 mail ESMTP\\r\\n'*200);c.close()\n"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        (tmp_path / "hosts.toml").write_text(at(int(server.stdout.readline())))
        done = fab("-H", "mail", "status", cwd=tmp_path)
        server.kill()
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 2, done.stderr
    assert "mail: no connection to 127.0.0.1" in done.stderr


def test_a_missing_identity_is_told_by_its_key_in_the_site(tmp_path: Path) -> None:
    with machine() as (port, visitors):
        text = at(port).replace("debian = 13", 'identity = "~/.ssh/not-here"')
        (tmp_path / "hosts.toml").write_text(text)
        done = fab("-H", "mail", "status", cwd=tmp_path)
    assert done.returncode == 2
    assert "hosts.mail.identity: there is no " in done.stderr
    assert not visitors


def test_ctrl_c_ends_with_130_and_without_a_traceback(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        (tmp_path / "hosts.toml").write_text(at(server.getsockname()[1]))
        server.settimeout(30)
        command = [FAB, "--search-root", str(PROJECT), "-H", "mail", "status"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        visitor, _ = server.accept()  # it is at work now: waiting for our greeting
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        visitor.close()
    assert (process.returncode, out) == (130, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("interrupted")


# The installed package


@pytest.fixture(scope="session")
def mailops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    return wheel.install(wheel.build(folder), folder / "venv")


def test_the_wheel_has_the_agent_and_every_template(tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel.build(tmp_path)) as packed:
        names = set(packed.namelist())
    sources = [path for path in (PROJECT / "mailops").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {str(path.relative_to(PROJECT)) for path in sources} <= names


def test_the_installed_command_has_the_same_tasks_in_any_folder(tmp_path: Path, mailops: Path) -> None:
    (tmp_path / "hosts.toml").write_text(GOOD)
    done = subprocess.run([mailops, "--list"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("  ")] == [
        line for line in fab("--list").stdout.splitlines() if line.startswith("  ")
    ]


def test_the_installed_command_reads_the_site_of_its_folder(tmp_path: Path, mailops: Path) -> None:
    old, new, line = WRONG["misspelt"]
    (tmp_path / "hosts.toml").write_text(GOOD.replace(old, new))
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAILOPS_")}
    done = subprocess.run([mailops, "status"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(f"mailops: hosts\\.toml: {line}\n", done.stderr), done.stderr


def test_the_pin_of_the_good_site_is_a_key() -> None:
    """The tests above lean on it: a pin that cannot be read would end a run before the connection."""
    from mailops.ssh.hostkeys import parse_key

    assert parse_key(HOST_KEY).get_name() == "ssh-ed25519"


# What OpenSSH takes, and Paramiko's own reader of ssh_config does not.
ODD_SSH_CONFIG = {
    "canonicalize": b"Host *\n  CanonicalizeHostname yes\n",
    "latin-1": b"# Gr\xfc\xdfe\nHost foo\n  User x\n",
    "match final all": b"Match final all\n  ServerAliveInterval 30\n",
    "an agent to forward": b"Host *\n  ForwardAgent $SSH_AUTH_SOCK\n  ConnectTimeout 1m\n",
    "a tag": b"Match tagged x\n  User x\n",
}


@pytest.mark.parametrize("name", ODD_SSH_CONFIG)
def test_an_odd_ssh_config_is_no_traceback(name: str, tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_bytes(ODD_SSH_CONFIG[name])
    with machine() as (port, _):
        (tmp_path / "hosts.toml").write_text(at(port))
        done = fab("-t", "1", "-H", "mail", "status", MAILOPS_SITE=str(tmp_path), HOME=str(tmp_path))
    assert done.returncode == 4, done.stderr
    assert "mailops: mail: no connection to 127.0.0.1" in done.stderr
    assert done.stderr.count("\n") == 2 + (name == "a tag")
    assert ("'tagged'" in done.stderr) is (name == "a tag")


@pytest.mark.parametrize("words", [[], ["--help"], ["--list"]])
def test_both_commands_show_the_same_list_and_no_options_of_fabrics(words: list[str]) -> None:
    ours = subprocess.run(
        [Path(sys.executable).with_name("mailops"), *words], capture_output=True, text=True, check=False
    )
    stock = fab(*words)
    assert ours.stdout.replace("mailops", "fab") == stock.stdout.replace("mailops", "fab")
    assert "--prompt-for-login-password" not in stock.stdout
    assert stock.stdout.index("Every day") < stock.stdout.index("Change the machines")
