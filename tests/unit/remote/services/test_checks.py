"""What daemons object to, told by programs that say what the daemons' own would."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailops.remote.changes import validate
from mailops.remote.services import checks, redis
from mailops.remote.shared.errors import AgentError
from mailops.remote.system import shell

Program = Callable[[str, str], None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Makes a program of this name, a shell script."""
    monkeypatch.setitem(shell.ENVIRONMENT, "PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(name: str, script: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    return make


def said(daemon: str, **options: str) -> list[str]:
    unit = {"unit": f"{daemon}.service", "checks": [{"daemon": daemon, "options": options}]}
    return [found.words() for found in checks.objections([unit])]


@pytest.fixture
def postfix(program: Program) -> Program:
    for name in ("postfix", "postconf", "postmap"):
        program(name, "")
    return program


BOGUS = "postsuper: warning: bogus file name: incoming/867455.7334"


@pytest.mark.parametrize(
    ("says", "ends", "told"),
    [
        ("", 0, []),
        (BOGUS, 0, []),
        ("", 1, ["ended with 1 without a word"]),
        (f"{BOGUS}\npostfix: fatal: no", 1, ["postfix: fatal: no"]),
        ("warning: x\nwarning: x\n\nwarning: y", 0, ["warning: x | warning: y"]),
    ],
)
def test_what_a_killed_daemon_left_in_the_queue_is_no_fault_of_a_change(
    postfix: Program, says: str, ends: int, told: list[str]
) -> None:
    postfix("postfix", f"[ -z '{says}' ] || echo '{says}' >&2\nexit {ends}")
    assert said("postfix") == told


def test_every_table_that_a_setting_or_a_service_names_is_opened_once(postfix: Program) -> None:
    settings = "echo 'header_checks = regexp:/etc/a, pcre:/etc/b cidr:$x'"
    postfix(
        "postconf", f"case $1 in -n) {settings} ;; -P) echo 'x/inet/y = {{regexp:/etc/a}}, texthash:/etc/c' ;; esac"
    )
    postfix("postmap", 'echo "$*" >&2; exit 1')
    numbers, tables = said("postfix")
    assert numbers == "-q mailops inline:{mailops=x}"
    assert tables == "-q mailops pcre:/etc/b | -q mailops regexp:/etc/a | -q mailops texthash:/etc/c"


def test_nothing_found_in_a_table_is_no_objection(postfix: Program) -> None:
    postfix("postconf", "echo 'header_checks = regexp:/etc/a'")
    postfix("postmap", 'case "$3" in inline*) ;; *) exit 1 ;; esac')
    assert said("postfix") == []


def test_a_file_of_a_passdb_must_be_there_but_for_those_in_the_vault(program: Program, tmp_path: Path) -> None:
    here = tmp_path / "users"
    here.write_text("")
    lines = [
        f"args = scheme=CRYPT {here}",
        "  passwd_file_path = /gone/users",
        "sqlite_path = /vault/db/x",
        "args = /%d",
    ]
    program("doveconf", "\n".join(f"echo '{line}'" for line in [*lines, "other = /gone/too"]))
    assert said("dovecot", vault="/vault") == ["/gone/users, which a passdb or userdb names, does not exist"]
    assert len(said("dovecot", vault="/other")[0].split(" | ")) == 2


def test_rspamd_says_ok_and_nothing_else(program: Program) -> None:
    program("rspamadm", "echo syntax OK")
    assert said("rspamd") == []
    program("rspamadm", "echo unknown element >&2; echo syntax OK")
    assert said("rspamd") == ["syntax OK | unknown element"]
    program("rspamadm", "exit 3")
    assert said("rspamd") == ["ended with 3 without a word"]


END = "*** FATAL CONFIG FILE ERROR ***\n>>> 'mailops-checked \"1\"'\nBad directive or wrong number of arguments"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (END, ""),
        (f"1:C 28 Nov 2026 10:00:00.000 # WARNING overcommit\n{END}", ""),
        (
            "*** FATAL CONFIG FILE ERROR ***\n>>> 'maxmemory x'\nargument must be a memory value\nmore",
            ">>> 'maxmemory x'\nargument must be a memory value",
        ),
        ("7:M 28 Nov 2026 10:00:00.000 # Fatal error, can't open config file", "Fatal error, can't open config file"),
        ("", "ended with 1 without a word"),
    ],
    ids=["only the end", "a warning", "a value", "a file", "nothing"],
)
def test_redis_is_read_up_to_a_directive_that_it_cannot_know(words: str, told: str) -> None:
    assert redis.objection(words, 1) == told


def test_redis_reads_its_file_without_what_the_vault_holds(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "redis.conf").write_bytes(b"port 0\ndir /vault/redis\ndir /vault/redisx\xe4")
    monkeypatch.setattr(redis, "CONF", str(tmp_path / "redis.conf"))
    program("redis-server", f'cat >{tmp_path}/read; echo "{END}"')
    program("redis-server", f"cat >{tmp_path}/read; echo mailops-checked")
    assert said("redis", vault="/vault") == []
    assert (tmp_path / "read").read_bytes() == b"port 0\ndir /vault/redisx\xe4"


def test_a_program_that_hangs_ends_with_all_that_it_started(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PATIENCE", 0.3)
    program("rspamadm", "sleep 60 & sleep 60")
    began = time.monotonic()
    assert said("rspamd") == ["rspamadm configtest did not end within 0 s"]
    assert time.monotonic() - began < 5


def test_a_program_that_is_not_there_is_no_approval(program: Program) -> None:
    assert said("rspamd") == ["rspamadm is not installed on this machine"]


def test_a_check_that_makes_a_mistake_is_no_approval(program: Program) -> None:
    program("doveconf", "echo args = /etc/users")
    assert said("dovecot") == ["it cannot be checked (KeyError: 'vault')"]


# As the versions before this one have stored it with their generations.
STORED: dict[str, Any] = {
    "unit": "rspamd.service",
    "checks": [["sh", "-c", "echo no >&2; exit 1"], ["true"], ["false"]],
}


def test_the_commands_of_an_earlier_manifest_are_run_as_they_stand() -> None:
    assert [found.words() for found in checks.objections([STORED])] == ["no", "ended with 1 without a word"]
    with pytest.raises(AgentError, match=r"the new rspamd.service does not take this configuration: no"):
        validate.judge([STORED])


def test_what_several_programs_of_a_daemon_say_alike_is_told_once() -> None:
    alike = ["postconf: fatal: no", "postmap: fatal: no", "a | b: fatal: no"]
    assert validate._once([checks.Objection("postfix.service", alike)]) == ["postfix.service: postconf: fatal: no"]
    apart = ["/etc/a: no such file", "/etc/b: no such file", "x | y"]
    assert validate._once([checks.Objection("rspamd.service", apart)]) == [f"rspamd.service: {line}" for line in apart]
