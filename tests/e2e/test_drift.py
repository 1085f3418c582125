"""Files that somebody edits on a machine: found, shown, not overwritten unless told to, and kept even then."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import House, token
from tests.e2e.test_generations import offered

Edit = Callable[[Any], None]
Site = Callable[[Edit], Path]
MAIN_CF = "/etc/postfix/main.cf"
ACCOUNTS = "/etc/postfix/accounts"  # of a null client
PASSWORD_FILE = "/etc/postfix/sasl_passwd"  # likewise; secret
LOCAL = "/etc/mailops/local/postfix/main.cf"
STATE = "/var/lib/mailops"


@pytest.fixture
def mended(up: House) -> Iterator[House]:
    """The house, which is as its site says again after the test."""
    yield up
    up.fab("push", "--overwrite")
    assert up.fab("drift").returncode == 0


def life(house: House, name: str) -> str:
    """What changes when Postfix is started, restarted or reloaded."""
    properties = "InvocationID,ActiveEnterTimestampMonotonic,StateChangeTimestampMonotonic"
    units = "postfix.service postfix@-.service"
    return house.run(
        name, f"systemctl show -p {properties} {units}; pgrep -P 1 -x master; postconf -n; stat -c %Y.%Z {MAIN_CF}"
    )


# Looking


def test_machines_as_mailops_left_them_have_no_drift(up: House) -> None:
    done = up.fab("drift")
    lines = [f"{name}  every file is as mailops wrote it" for name in ("mail", "backup", "web")]
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, lines, "")


def test_edited_missing_and_chmodded_files_are_found_and_nothing_is_touched(mended: House) -> None:
    mark, password = f"# {token()}", token()
    mended.run(
        "backup",
        f"echo '{mark}' >>{MAIN_CF}; rm {ACCOUNTS}; chown nobody /etc/postfix/master.cf;"
        f"echo 'x y:{password}' >>{PASSWORD_FILE}",
    )
    before = life(mended, "backup")
    done = mended.fab("drift", check=False)
    assert done.returncode == 3
    assert done.stderr.startswith(
        "mailops: 4 files differ from what mailops wrote\n  to keep it, move it into hosts.toml"
    )
    assert "fab -H backup push --overwrite" in done.stderr
    head, _, diff = done.stdout.partition("\n\n")
    assert sorted(head.splitlines()) == [
        f"backup  edited   {MAIN_CF}",
        f"backup  edited   {PASSWORD_FILE}  (its content is secret and not shown)",
        f"backup  missing  {ACCOUNTS}",
        "backup  mode     /etc/postfix/master.cf  0644 root:root → 0644 nobody:root",
        "mail  every file is as mailops wrote it",
    ]
    assert diff.startswith(f"--- {MAIN_CF} (as mailops wrote it)\n+++ {MAIN_CF} (now)\n@@ ")
    assert diff.endswith(f"\n+{mark}\nweb  every file is as mailops wrote it\n")
    assert life(mended, "backup") == before

    found = json.loads(mended.fab("drift", "--json", check=False).stdout)
    assert {name: len(each["files"]) for name, each in found.items()} == {"mail": 0, "backup": 4, "web": 0}
    states = {file["path"]: file["state"] for file in found["backup"]["files"]}
    assert states == {
        MAIN_CF: "edited",
        PASSWORD_FILE: "edited",
        ACCOUNTS: "missing",
        "/etc/postfix/master.cf": "mode",
    }
    printed = "".join(mended.printed)
    assert password not in printed
    assert mended.password("relay@example.test") not in printed


def test_a_machine_that_cannot_be_reached_has_its_own_code(mended: House, site: Site) -> None:
    mended.run("backup", f"echo >>{MAIN_CF}")

    def edit(doc: Any) -> None:
        doc["hosts"]["web"]["port"] = 1

    done = mended.fab("drift", site=site(edit), check=False)
    assert done.returncode == 4
    assert f"backup  edited   {MAIN_CF}" in done.stdout
    assert "web  ✗ web: no connection to " in done.stderr


def test_local_additions_are_no_drift_but_are_told_of_until_they_are_pushed(mended: House) -> None:
    mended.run("backup", f"mkdir -p $(dirname {LOCAL}); echo 'maximal_queue_lifetime = 3d' >{LOCAL}")
    try:
        done = mended.fab("-H", "backup", "drift")
        assert f"backup  {LOCAL} was changed and is not in use yet; next: fab -H backup push\n" in done.stdout
        mended.fab("-H", "backup", "push")
        assert mended.run("backup", "postconf -h maximal_queue_lifetime") == "3d\n"
        assert mended.fab_json("-H", "backup", "drift")["backup"] | {"generation": 0} == {
            "files": [],
            "unpushed": [],
            "generation": 0,
            "locked": False,
        }
    finally:
        mended.run("backup", f"rm {LOCAL}")
    assert mended.fab_json("-H", "backup", "drift")["backup"]["unpushed"] == [LOCAL]
    mended.fab("-H", "backup", "push")
    assert mended.run("backup", "postconf -h maximal_queue_lifetime") == "5d\n"


# Going on


@pytest.mark.parametrize("task", ["bootstrap", "push"])
def test_a_run_stops_at_an_edit_with_its_diff_and_touches_nothing(mended: House, task: str) -> None:
    mark = f"# {token()}"
    mended.run("mail", f"echo '{mark}' >>{MAIN_CF}")
    before, count = life(mended, "mail"), len(history(mended))
    done = mended.fab("-H", "mail", task, check=False)
    assert done.returncode == 3
    assert f"mail  edited   {MAIN_CF}\n\n--- {MAIN_CF} (as mailops wrote it)\n" in done.stdout
    assert f"\n+{mark}\n" in done.stdout
    first, *hints = done.stderr.splitlines()
    hint = " ".join(hints)
    assert first.startswith("mailops: mail: edited on this machine")
    assert MAIN_CF in first
    assert "--overwrite" in hint
    assert "/etc/mailops/local/" in hint
    assert life(mended, "mail") == before
    assert [entry["outcome"] for entry in history(mended)[count:]] == ["refused"]

    said = mended.fab("-H", "mail", task, "--json", check=False)
    assert list(json.loads(said.stdout)["mail"]) == ["error", "hint", "code"]
    assert f"\n+{mark}\n" in said.stderr
    assert life(mended, "mail") == before


def history(house: House) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = house.fab_json("-H", "mail", "history", "--count", "1000")["mail"]["entries"]
    return found


def test_overwrite_puts_the_file_back_and_keeps_the_edit(mended: House) -> None:
    mark = f"# {token()}"
    was = mended.run("mail", f"sha256sum {MAIN_CF}; stat -c '%a %U %G' {MAIN_CF}")
    mended.run("mail", f"echo '{mark}' >>{MAIN_CF}; chmod 600 {MAIN_CF}")
    result = mended.fab_json("-H", "mail", "push", "--overwrite")["mail"]
    assert result["changes"]["files"] == [MAIN_CF]
    assert mended.run("mail", f"sha256sum {MAIN_CF}; stat -c '%a %U %G' {MAIN_CF}") == was
    (kept,) = mended.run("mail", f"grep -lxF '{mark}' {STATE}/objects/*").split()
    record = json.loads(mended.run("mail", f"cat {STATE}/generations/{result['generation']}.json"))
    replaced = record["replaced"][MAIN_CF]
    assert (replaced["sha256"], replaced["mode"]) == (Path(kept).name, 0o600)
    assert mended.fab_json("-H", "mail", "push")["mail"]["changes"] == {}


def test_an_edit_of_a_secret_file_stops_a_run_and_is_not_shown(mended: House) -> None:
    password = token()
    mended.run("backup", f"echo 'x y:{password}' >>{PASSWORD_FILE}")
    for args in (["push"], ["push", "--json"], ["plan"], ["plan", "--json"]):
        done = mended.fab("-H", "backup", *args, check=False)
        assert done.returncode == (3 if "push" in args else 0)
        assert PASSWORD_FILE in done.stdout + done.stderr
        assert password not in done.stdout + done.stderr
        assert mended.password("relay@example.test") not in done.stdout + done.stderr


def test_an_edit_that_says_what_the_site_says_stops_nobody(mended: House, site: Site) -> None:
    """The emergency change at night, taken over into hosts.toml in the morning."""

    def edit(doc: Any) -> None:
        doc["override"] = {"message_size_limit": 43_000_000}

    mended.run("mail", f"sed -i 's/^message_size_limit = .*/message_size_limit = 43000000/' {MAIN_CF}")
    done = mended.fab("-H", "mail", "push", "--json", site=site(edit))
    assert json.loads(done.stdout)["mail"]["changes"]["files"] == [MAIN_CF]  # nobody had told the daemon, nor asked it
    assert offered(mended) == 43_000_000
    assert mended.fab("-H", "mail", "drift").returncode == 0
    mended.fab("-H", "mail", "rollback")
    assert offered(mended) == 52_428_800


def test_a_plan_tells_of_the_edits_that_would_stop_a_bootstrap(mended: House) -> None:
    mark = f"# {token()}"
    mended.run("backup", f"echo '{mark}' >>{MAIN_CF}")
    done = mended.fab("-H", "backup", "plan")
    assert (
        "backup  bootstrap would stop, as these were edited on the machine (--overwrite replaces them):" in done.stdout
    )
    assert f"\n+{mark}\n" in done.stdout  # what the edit did
    assert f"\n-{mark}\n" in done.stdout  # and what bootstrap would do
    (edit,) = mended.fab_json("-H", "backup", "plan")["backup"]["edited"]
    assert (edit["path"], edit["state"]) == (MAIN_CF, "edited")
    assert re.search(rf"^\+{mark}$", edit["diff"], re.MULTILINE)
