"""Rspamd from a source of the site's own: it and nothing else comes from there, proven or undone, and it goes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.apt_repository import DIRECTLY, NEW, URL, Repository
from tests.e2e.house import House

ADMIN, USER1, STRANGER = "admin@example.test", "user1@example.test", "stranger@elsewhere.test"
FILES = ("/etc/apt/sources.list.d/mailops-rspamd.sources", "/etc/apt/preferences.d/mailops-rspamd")


def version(house: House) -> str:
    return house.run("mail", "dpkg-query -W -f '${Version} ${db:Status-Status}' rspamd", check=False)


@pytest.fixture
def repository(up: House) -> Iterator[Repository]:
    """Up, and Debian's Rspamd is back on the machine at the end, whatever a test has made of it."""
    repository = Repository(up)
    try:
        yield repository
    finally:
        repository.close()
        up.fab("-H", "mail", "bootstrap")
        up.run("mail", f"[ ! -e {DIRECTLY} ] && [ ! -e {FILES[0]} ] && rm -f /var/lib/apt/lists/mx.elsewhere.test*")
    assert "upstream" not in version(up)
    assert up.state() == "up"


@pytest.fixture
def upstream(
    repository: Repository, site: Callable[[Callable[[Any], None]], Path], tmp_path: Path
) -> Callable[..., Path]:
    """A site file that takes Rspamd from the repository."""

    def make(**changes: str) -> Path:
        (tmp_path / "rspamd.asc").write_text(repository.key())
        values = {"url": URL, "key": "rspamd.asc", "fingerprint": repository.fingerprint()} | changes

        def edit(document: Any) -> None:
            document.add("rspamd", "upstream")
            document.add("rspamd_upstream", values)

        return site(edit)

    return make


def test_rspamd_comes_from_its_source_and_nothing_else_does(
    up: House, repository: Repository, upstream: Callable[..., Path]
) -> None:
    debians = version(up)
    repository.publish("rspamd_new", "postfix", "hello")
    wanted = upstream()
    planned = up.fab("-H", "mail", "plan", site=wanted).stdout
    assert f"rspamd from {URL}" in planned
    assert all(path in planned for path in FILES)
    refused = up.fab("-H", "mail", "push", site=wanted, check=False)
    assert "a push brings no packages" in refused.stderr + refused.stdout
    assert version(up) == debians

    said = up.fab("-H", "mail", "bootstrap", site=wanted)
    assert NEW in said.stdout + said.stderr
    assert version(up) == f"{NEW} installed"
    assert f"rspamd {NEW}" in up.fab("-H", "mail", "status").stdout
    running = "readlink /proc/$(systemctl show -P MainPID rspamd)/exe"
    assert "deleted" not in up.run("mail", running)
    subject = up.submit(USER1, STRANGER)
    assert b"DKIM-Signature" in up.stranger_reads(subject)
    up.arrives(USER1, up.stranger_sends(USER1))

    policy = up.run("mail", "apt-cache policy postfix hello")
    assert f"99.0 -1\n         -1 {URL.rstrip('/')}" in policy
    assert "Candidate: 99.0" not in policy
    assert up.fab("-H", "mail", "drift").returncode == 0
    assert "nothing changed" in up.fab("-H", "mail", "bootstrap", site=wanted).stdout

    up.run("mail", f"echo '# by hand' >>{FILES[1]}")
    assert FILES[1] in up.fab("-H", "mail", "drift", check=False).stdout
    said = up.fab("-H", "mail", "rollback", "--overwrite").stdout
    assert f"rspamd {NEW} → {debians.split()[0]}" in said
    assert "active again; other packages, system users" in said
    assert version(up) == debians
    assert up.run("mail", f"ls {' '.join(FILES)} 2>/dev/null || true") == ""
    assert up.fab_json("-H", "mail", "bootstrap")["mail"]["changes"] == {}
    assert up.state() == "up"


def test_what_cannot_be_believed_or_does_not_work_leaves_debians_and_is_tried_again(
    up: House, repository: Repository, upstream: Callable[..., Path]
) -> None:
    debians, wanted = version(up), upstream()
    stays = f"rspamd stays {debians.split()[0]}: {URL} does not answer"
    repository.stop()
    assert stays in up.fab("-H", "mail", "bootstrap", site=wanted).stdout
    repository.serve()
    repository.publish("rspamd_new", owner="wrong")
    said = up.fab("-H", "mail", "bootstrap", site=wanted).stdout
    assert "a source of packages is left out: " in said
    assert f"The repository '{URL.rstrip('/')} " in said
    assert stays in said
    assert version(up) == debians
    assert f"not yet rspamd from {URL}" in up.fab("-H", "mail", "status").stdout

    repository.publish("rspamd_new", "rspamd_bad")
    done = up.fab("-H", "mail", "bootstrap", site=wanted, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "the new rspamd.service does not take this configuration: milters are a section of tomorrow" in said
    assert "rolled back to generation" in said
    assert version(up) == debians
    up.arrives(ADMIN, up.stranger_sends(ADMIN))


def test_a_first_bootstrap_never_takes_debians_instead_and_going_back_takes_it(
    up: House, repository: Repository, upstream: Callable[..., Path]
) -> None:
    debians = version(up)
    repository.publish("rspamd_new", owner="wrong")
    up.run("mail", "systemctl stop rspamd; dpkg --remove --force-depends rspamd")
    wanted = upstream()
    done = up.fab("-H", "mail", "bootstrap", site=wanted, check=False)
    assert done.returncode == 1
    assert f"rspamd is to come from {URL}" in done.stdout + done.stderr
    assert "installed" not in version(up)
    repository.publish("rspamd_new", "postfix")
    up.fab("-H", "mail", "bootstrap", site=wanted)
    assert version(up) == f"{NEW} installed"
    up.arrives(USER1, up.stranger_sends(USER1))
    said = up.fab("-H", "mail", "bootstrap")
    assert f"rspamd {NEW} → {debians.split()[0]}" in said.stdout + said.stderr
    assert version(up) == debians
    assert up.run("mail", f"ls {' '.join(FILES)} 2>/dev/null || true") == ""


def test_a_run_that_is_cut_while_the_package_comes_leaves_nothing_half_made(
    up: House, repository: Repository, upstream: Callable[..., Path]
) -> None:
    debians = version(up)
    repository.publish("rspamd_new")
    wanted = upstream()
    unpacking = "until grep -q ' unpacked rspamd:[^ ]* 99' /var/log/dpkg.log; do sleep 0.02; done"
    with ThreadPoolExecutor() as pool:
        up.run("mail", ": >/var/log/dpkg.log")
        cut = pool.submit(up.run, "mail", f"timeout 60 sh -c \"{unpacking}\"; pkill -9 -f '^python3 -IS -c'")
        done = up.fab("-H", "mail", "bootstrap", site=wanted, check=False)
        cut.result()
    assert done.returncode == 1
    said = up.fab("-H", "mail", "status").stdout
    assert "an interrupted run is to be finished or undone" in said
    assert "not yet rspamd from " in said
    up.fab("-H", "mail", "bootstrap")
    assert version(up) == debians
    assert up.run("mail", f"dpkg --audit; ls {' '.join(FILES)} 2>/dev/null || true") == ""
    up.arrives(USER1, up.stranger_sends(USER1))


def test_a_wrong_fingerprint_is_refused_before_anything_is_sent(
    up: House, repository: Repository, upstream: Callable[..., Path]
) -> None:
    done = up.fab("-H", "mail", "bootstrap", site=upstream(fingerprint=repository.fingerprint("wrong")), check=False)
    assert done.returncode == 2
    assert f"which is {repository.fingerprint()}" in done.stderr
