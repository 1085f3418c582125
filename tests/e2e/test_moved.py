"""A vault that comes from another machine is adopted, whatever numbers that one had for those who own its files."""

from __future__ import annotations

import json

import pytest

from tests.e2e.house import House, token, until
from tests.e2e.test_vault import assert_up

ADMIN, USER1 = "admin@example.test", "user1@example.test"
CIPHERDIR = "/var/lib/mailops/vault"
# Owner and mode of each, but for what comes and goes while daemons run.
LISTING = (
    "find /vault -not -type s -not -path '/vault/queue/*/*' -not -name '*.lock' -not -name '*.mailops-new' "
    "-not -path '*/tmp/*' -printf '%p %u:%g %m\\n' | sort"
)
# How the files came here.
ELSEWHERE = "lambda uid, gid: (uid and uid + 3000, gid and gid + 4000)"
ROOTS = "lambda uid, gid: (0, 0)"


def chown(house: House, where: str, new: str) -> None:
    """Give all files there other owners, as a copy would have them."""
    script = f"""
import os
new = {new}
for folder, folders, names in os.walk({where!r}, topdown=False):
    for path in [os.path.join(folder, name) for name in (*folders, *names)] + [folder]:
        state = os.lstat(path)
        os.lchown(path, *new(state.st_uid, state.st_gid))
"""
    house.run("mail", "python3 -", stdin=script)


@pytest.mark.parametrize("new", [ELSEWHERE, ROOTS], ids=["numbers-of-elsewhere", "all-of-root"])
def test_a_copied_vault_is_adopted_with_owners_right_all_the_way_down(up: House, new: str) -> None:
    up.fab("bootstrap")  # the tests before may have left something
    read, waits = up.stranger_sends(USER1), token()
    up.arrives(USER1, read)
    up.run("mail", "systemctl stop dovecot")
    up.stranger_sends(USER1, waits)
    until(lambda: "queue is empty" not in up.run("mail", "mailq"), 30, "a message that waits")
    up.fab("lock")
    up.run("mail", "rm -r /var/lib/mailops/vault-conf")  # what a new machine does not have
    odd = up.run("mail", f"find {CIPHERDIR} -printf '%U %G\\n' | sort | uniq -c")
    chown(up, CIPHERDIR, new)
    assert up.run("mail", f"find {CIPHERDIR} -printf '%U %G\\n' | sort | uniq -c") != odd
    done = up.fab("-H", "mail", "bootstrap")
    assert "owners in /vault" in done.stdout
    assert "recovery key" not in done.stdout + done.stderr
    assert_up(up)
    up.arrives(USER1, waits, sender="mail")
    assert up.messages(USER1, read)
    assert up.run("mail", f"find {CIPHERDIR} -printf '%U %G\\n' | awk '$1 > 2999 || $2 > 3999' | wc -l").strip() == "0"
    for folder, owner in (("mail", "vmail:vmail"), ("sieve", "vmail:vmail"), ("dkim", "root:_rspamd")):
        assert up.run("mail", f"find /vault/{folder} -printf '%u:%g\\n' | sort -u").split() == [owner]
    assert up.run("mail", "find /vault/queue/def* /vault/queue/active -not -user postfix") == ""
    again = up.fab_json("-H", "mail", "bootstrap")["mail"]
    assert again["changes"] == {}, json.dumps(again)


def test_an_adoption_that_was_cut_is_taken_up_again(up: House) -> None:
    """The vault is open by then, and half of its files belong to nobody; that is nobody's edit by hand."""
    before = up.run("mail", LISTING)
    for task in ("bootstrap", "unlock"):
        up.run("mail", "rm /vault/.owners")
        for folder in ("sieve", "dkim", "redis"):
            chown(up, f"/vault/{folder}", ELSEWHERE)
        assert up.run("mail", LISTING) != before
        assert "owners in /vault" in up.fab("-H", "mail", task).stdout
        assert up.run("mail", LISTING) == before
    assert_up(up)
