"""Broken additions of an administrator's own: refused or rolled back, while mail flows in and none is lost.

One stream of messages comes in during all of it, and the last test counts them. Good additions go through, and win.
"""

from __future__ import annotations

import json
import re
import shlex
import smtplib
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.broken_overrides import (
    DIRECTORY,
    DOVECOT,
    LOCAL,
    MAIN_CF,
    MASTER_CF,
    MECHANISM,
    REDIS,
    REFUSED,
    ROLLED_BACK,
    RSPAMD,
    TARGETS,
    Broken,
)
from tests.e2e.house import House, token
from tests.e2e.stream import Stream
from tests.e2e.test_bootstrap import DAEMONS, lives
from tests.e2e.test_generations import greeting, listed, offered

Edit = Callable[[Any], None]
Site = Callable[[Edit], Path]
USER1, USER2 = "user1@example.test", "user2@second.test"
REFUSAL = "refused by the daemons' own checks; nothing was touched"
QUICK, BEARABLE = 20, 40  # seconds; on an idle computer a refusal takes 1 and a rollback 3 to 13
MANAGED = "/etc/postfix /etc/dovecot /etc/rspamd /etc/redis /etc/systemd/system /etc/mailops /usr/lib/mailops"
GOOD = {
    MAIN_CF: "message_size_limit = 12345678",
    MASTER_CF: "2525 inet n - y - - smtpd",
    DOVECOT: "mail_max_userip_connections = 7",
    RSPAMD: "actions {\n  reject = 12;\n}",
    REDIS: "maxmemory 256mb",
}


@pytest.fixture(scope="module")
def streams(house: House) -> Iterator[list[tuple[int, Stream]]]:
    """One stream that goes on from test to test; another after the house was put back, which ended the first."""
    streams: list[tuple[int, Stream]] = []
    yield streams
    if streams and streams[-1][0] == house.restored:
        streams[-1][1].__exit__(None, None, None)


@pytest.fixture
def stream(house: House, streams: list[tuple[int, Stream]]) -> Stream:
    if not streams or streams[-1][0] != house.restored:
        house.fab("unlock")
        streams.append((house.restored, Stream(house, (USER1, USER2), pause=0.4).__enter__()))
    return streams[-1][1]


@pytest.fixture
def flowing(house: House, stream: Stream) -> Iterator[House]:
    """The house while mail comes in; without additions, and as its site says, before and after the test."""
    assert stream.is_flowing()
    yield house
    if house.run("mail", f"find {LOCAL} -type f -delete; cat /var/lib/mailops/journal.json 2>/dev/null; true"):
        raise AssertionError("a run was left unfinished")


def write(house: House, local: str, text: str, mode: str = "644") -> None:
    """What an administrator does on the machine."""
    folder = Path(local).parent
    house.run("mail", f"mkdir -p {folder}; cat >{local}; chmod {mode} {local}", stdin=text.rstrip("\n") + "\n")


def push(house: House, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    return house.fab("-H", "mail", "push", check=False, site=site)


@contextmanager
def broken(house: House, case: Broken, site: Site) -> Iterator[Path | None]:
    """The house with a broken addition on its machine, or the site with a broken override."""
    if not case.local:
        yield site(lambda doc: doc.update(override=dict(case.override)))
        return
    write(house, case.local, case.on(house.release))
    yield None
    house.run("mail", f"rm {case.local}")


def files(house: House, times: bool = False) -> str:
    """Content, mode and owner of whatever mailops could touch, and which generation is active.

    `times` adds inodes and times: what was written anew as it was shows.
    """
    shape = "%p %m %u:%g %l" + (" %i %T@ %C@" if times else "")
    find = f"find {MANAGED} -path {LOCAL} -prune -o"
    return house.run(
        "mail",
        f"{find} ! -type d -printf '{shape}\\n' | sort; {find} -type f -print0 | sort -z | xargs -0 sha256sum;"
        "cat /var/lib/mailops/active; sha256sum /var/lib/mailops/manifest.json",
    )


def told(house: House) -> str:
    """What changes when a daemon is started, restarted or reloaded."""
    return lives(house, "mail", f"{DAEMONS} postfix@-.service")


def assert_serves(house: House) -> None:
    """Right now: strangers' mail is taken, a user logs in and sends, another one reads."""
    taken = house.swaks("--to", USER1, "--quit-after", "RCPT")
    assert taken.returncode == 0, taken.stdout
    assert house.can_log_in(USER1, house.password(USER1))
    subject = house.submit(USER1, USER2)
    house.arrives(USER2, subject, seconds=15)


def assert_refused(case: Broken, done: subprocess.CompletedProcess[str]) -> None:
    first, second, *_ = done.stderr.splitlines()
    assert done.returncode == 1
    assert first == f"mailops: mail: {REFUSAL}"
    assert second.startswith(f"    {case.unit}: ")
    for words in case.words:
        assert words in done.stderr


def assert_rolled_back(house: House, case: Broken, done: subprocess.CompletedProcess[str], generation: int) -> None:
    first, second, *rest = done.stderr.splitlines()
    assert done.returncode == 1
    assert re.search("^mail  ● rollback  ", done.stdout, re.MULTILINE)
    assert first.startswith("mailops: mail: ")
    assert second == f"    rolled back to generation {generation}, which answers"
    suspect = f"    suspect: {case.target}" + (f" (with {case.local})" if case.local else "")
    assert [line for line in rest if "suspect:" in line] == [suspect]
    for line in case.on(house.release).splitlines() if case.local else map(str, case.override.values()):
        assert f"      + {line}" in rest or any("    + " in one and _inside(line, one) for one in rest), line
    for words in case.words:
        assert words in done.stderr
    assert any(case.log in line for line in rest if line.startswith("    log: ")) or not case.log, done.stderr


def _inside(values: str, line: str) -> bool:
    return all(value in line for value in re.findall(r"\w+", values))


# Refused by a daemon's own check


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_what_a_check_objects_to_is_refused_and_nothing_is_touched(flowing: House, case: Broken, site: Site) -> None:
    before = files(flowing, times=True), told(flowing)
    with broken(flowing, case, site) as copy:
        began = time.monotonic()
        done = push(flowing, copy)
        seconds = time.monotonic() - began
    assert_refused(case, done)
    assert (files(flowing, times=True), told(flowing)) == before
    assert seconds < QUICK


def test_a_plan_shows_the_objection_and_touches_nothing(flowing: House) -> None:
    write(flowing, MAIN_CF, "nonsense_parameter = 7")
    before = files(flowing, times=True), told(flowing)
    done = flowing.fab("-H", "mail", "plan", check=False)
    assert done.returncode == 1
    assert f"mail  ✗ {REFUSAL}\n" in done.stdout
    assert "unused parameter: nonsense_parameter=7" in done.stdout
    assert "\n+nonsense_parameter = 7\n" in done.stdout
    found = flowing.fab("-H", "mail", "plan", "--json", check=False)
    assert found.returncode == 1
    assert "nonsense_parameter" in json.loads(found.stdout)["mail"]["refused"]
    assert (files(flowing, times=True), told(flowing)) == before


def test_what_is_refused_is_refused_again_until_it_is_mended(flowing: House) -> None:
    before = files(flowing)
    write(flowing, REDIS, "maxmemory lots")
    first, second = push(flowing), push(flowing)
    assert (first.returncode, first.stderr) == (1, second.stderr)
    entries = flowing.fab_json("-H", "mail", "history")["mail"]["entries"]
    assert [entry["outcome"] for entry in entries[-2:]] == ["refused", "refused"]
    write(flowing, REDIS, "maxmemory 100mb")
    assert push(flowing).returncode == 0
    assert redis(flowing, "maxmemory") == str(100 << 20)
    flowing.run("mail", f"rm {REDIS}")
    assert push(flowing).returncode == 0
    assert redis(flowing, "maxmemory") == "0"
    assert_same_files(flowing, before)


def assert_same_files(house: House, before: str) -> None:
    """As before but for the number of the generation, which counts on."""
    number = re.compile(r"^\d+(?=[0-9a-f]{64} )", re.MULTILINE)
    assert number.sub("N", files(house)) == number.sub("N", before)


# Rolled back, because only the running daemons tell


@pytest.mark.parametrize("case", ROLLED_BACK, ids=lambda case: case.name)
def test_what_no_check_sees_is_rolled_back_and_everything_answers(flowing: House, case: Broken, site: Site) -> None:
    generation, before = listed(flowing)["active"], files(flowing)
    with broken(flowing, case, site) as copy:
        began = time.monotonic()
        done = push(flowing, copy)
        seconds = time.monotonic() - began
        assert_serves(flowing)
    assert_rolled_back(flowing, case, done, generation)
    assert files(flowing) == before
    assert listed(flowing)["active"] == generation
    assert seconds < BEARABLE


def test_what_is_rolled_back_is_rolled_back_again_until_it_is_mended(flowing: House) -> None:
    generation, before = listed(flowing)["active"], files(flowing)
    write(flowing, REDIS, DIRECTORY.on(flowing.release))
    for _ in range(2):
        assert_rolled_back(flowing, DIRECTORY, push(flowing), generation)
    assert files(flowing) == before
    assert_serves(flowing)
    entries = flowing.fab_json("-H", "mail", "history")["mail"]["entries"]
    assert [entry["outcome"] for entry in entries[-2:]] == ["rolled back", "rolled back"]
    write(flowing, REDIS, "databases 8")
    assert push(flowing).returncode == 0
    assert redis(flowing, "databases") == "8"
    flowing.run("mail", f"rm {REDIS}")
    assert push(flowing).returncode == 0
    assert_same_files(flowing, before)


# While the vault is locked


def test_what_was_pushed_while_locked_is_proven_by_the_unlock_or_taken_back(flowing: House) -> None:
    good, before = listed(flowing)["active"], files(flowing)
    write(flowing, DOVECOT, MECHANISM.on(flowing.release))
    flowing.fab("lock")
    done = push(flowing)
    assert done.returncode == 0
    assert "the vault is locked, mail waits for `fab unlock`" in done.stdout
    made = listed(flowing)["generations"][-1]
    assert (made["number"] > good, made["proven"]) == (True, False)
    began = time.monotonic()
    unlocked = flowing.fab("unlock", check=False)
    assert time.monotonic() - began < BEARABLE
    assert unlocked.returncode == 1
    first, *rest = unlocked.stderr.splitlines()
    said = f"mailops: mail: generation {made['number']}, pushed while the vault was locked, does not work: "
    assert first.startswith(said)
    assert MECHANISM.log in unlocked.stderr
    assert f"    generation {good} is active again, and answers; mail is up" in rest
    assert_serves(flowing)
    assert files(flowing) == before
    assert flowing.state() == "up"


# Good ones


def redis(house: House, name: str) -> str:
    """A setting as the running Redis has it."""
    return house.run("mail", f"redis-cli -s /run/redis/redis-server.sock config get {name}").split()[-1]


def rspamd_actions(house: House) -> dict[str, float | None]:
    """The scores as the running Rspamd has them."""
    return {each["action"]: each["value"] for each in json.loads(house.console("actions"))}


def greets(house: House, port: int) -> bool:
    try:
        with smtplib.SMTP(house.address("mail"), port, "laptop.test", timeout=10) as client:
            return client.noop()[0] == 250
    except ConnectionRefusedError:
        return False


def test_good_additions_win_last_and_leave_without_a_trace(flowing: House) -> None:
    before, hello, plain = files(flowing), token(), rspamd_actions(flowing)
    for local, text in (GOOD | {DOVECOT: f"{GOOD[DOVECOT]}\nlogin_greeting = {hello}"}).items():
        write(flowing, local, text)
    done = flowing.fab_json("-H", "mail", "push")["mail"]
    assert sorted(done["changes"]["files"]) == sorted(target for target, _ in TARGETS.values())

    assert offered(flowing) == 12345678
    assert greets(flowing, 2525)
    assert hello in greeting(flowing)
    assert flowing.run("mail", "doveconf -h mail_max_userip_connections") == "7\n"
    assert rspamd_actions(flowing) == plain | {"reject": 12.0}
    assert redis(flowing, "maxmemory") == str(256 << 20)
    assert_serves(flowing)

    there = files(flowing, times=True), told(flowing)
    assert flowing.fab_json("-H", "mail", "bootstrap")["mail"]["changes"] == {}
    assert flowing.fab_json("-H", "mail", "plan")["mail"]["changes"] == {}
    assert flowing.fab("-H", "mail", "drift").stdout == "mail  every file is as mailops wrote it\n"
    assert (files(flowing, times=True), told(flowing)) == there

    flowing.run("mail", f"find {LOCAL} -type f -delete")
    flowing.fab("-H", "mail", "push")
    assert_same_files(flowing, before)
    assert (offered(flowing), greets(flowing, 2525), hello in greeting(flowing)) == (52428800, False, False)
    assert (rspamd_actions(flowing), redis(flowing, "maxmemory")) == (plain, "0")
    assert_serves(flowing)


def test_a_private_addition_stays_private(flowing: House) -> None:
    secret, count = token(), len(flowing.printed)
    write(flowing, DOVECOT, f"login_greeting = {secret}", mode="600")
    write(flowing, REDIS, f"# {secret}\nmaxmemory 256mb", mode="600")
    targets = f"{TARGETS[DOVECOT][0]} {TARGETS[REDIS][0]}"
    assert flowing.fab("-H", "mail", "plan").stdout.count(TARGETS[REDIS][0])
    flowing.fab("-H", "mail", "plan", "--json")
    assert push(flowing).returncode == 0
    assert secret in greeting(flowing)
    modes = flowing.run("mail", f"stat -c '%a %U:%G' {targets}").splitlines()
    assert modes == ["640 root:root", "640 root:redis"]
    for args in (["diff"], ["diff", "--json"], ["drift"], ["generations", "--json"], ["history", "--json"]):
        flowing.fab("-H", "mail", *args)
    write(flowing, REDIS, f"requirepass {secret}", mode="600")
    done = push(flowing)  # the report shows what is new in a suspect file, if others may read that
    assert "redis: -NOAUTH Authentication required" in done.stderr
    assert re.search(r"rolled back to generation \d+, which answers", done.stderr)
    assert_serves(flowing)
    flowing.run("mail", f"find {LOCAL} -type f -delete")
    assert push(flowing).returncode == 0
    assert secret not in "".join(flowing.printed[count:])


def test_a_main_cf_that_nobody_may_read_is_refused_with_the_way_out(flowing: House) -> None:
    before = files(flowing, times=True), told(flowing)
    write(flowing, MAIN_CF, GOOD[MAIN_CF], mode="600")  # sendmail(1) reads it as whoever calls it
    done = push(flowing)
    assert done.returncode == 1
    assert f"{MAIN_CF} may not be read by everybody" in done.stderr
    assert f"chmod a+r {shlex.quote(MAIN_CF)}" in done.stderr
    assert (files(flowing, times=True), told(flowing)) == before


# And all the while


def test_every_message_of_the_stream_has_arrived_exactly_once(
    flowing: House, stream: Stream, streams: list[tuple[int, Stream]]
) -> None:
    """The last one here: it ends the stream."""
    assert len(streams) > 1 or stream.put_off() > 0, (
        "mail was put off while a daemon was broken: the stream has met what it was meant to"
    )
    stream.assert_arrived(seconds=90)
