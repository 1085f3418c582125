"""Writing one value into hosts.toml, and nothing else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from mailops.errors import MailopsError
from mailops.site import edit

TEXT = """\
# Our site.
domain = "example.test"   # since 2003
dkim_selector = "202611"
# dkim_selector_next = "202701"      # `fab dkim.prepare` writes it

# The machines
[hosts.mail]
role = "mailhost"   # the one
port = 22
# host_key = "ssh-ed25519 …"         # `fab trust mail` writes it
debian = 13

# The backup, in the cellar.
# Do not step on it.
[hosts."backup.example"]
role = "mailnull"

# The end
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "hosts.toml"
    file.write_text(TEXT)
    return file


def test_an_existing_value_is_replaced_in_its_place(path: Path) -> None:
    edit.set_value(path, ("dkim_selector",), "202701")
    edit.set_value(path, ("domain",), "example.org")
    edit.set_value(path, ("hosts", "mail", "port"), 2222)
    assert path.read_text() == TEXT.replace('"202611"', '"202701"').replace(
        '"example.test"   #', '"example.org"   #'
    ).replace("port = 22", "port = 2222")


def test_a_new_value_goes_below_its_commented_out_example(path: Path) -> None:
    edit.set_value(path, ("dkim_selector_next",), "202702")
    edit.set_value(path, ("hosts", "mail", "host_key"), "ssh-ed25519 AAAA")
    next_line = '# dkim_selector_next = "202701"      # `fab dkim.prepare` writes it\n'
    key_line = '# host_key = "ssh-ed25519 …"         # `fab trust mail` writes it\n'
    assert path.read_text() == TEXT.replace(next_line, next_line + 'dkim_selector_next = "202702"\n').replace(
        key_line, key_line + 'host_key = "ssh-ed25519 AAAA"\n'
    )


def test_a_new_value_stays_out_of_the_next_tables_comments(path: Path) -> None:
    edit.set_value(path, ("hosts", "mail", "user"), "root")
    edit.set_value(path, ("hosts", "backup.example", "user"), "root")
    edit.set_value(path, ("vault",), "/srv/vault")
    assert path.read_text() == (
        TEXT.replace("debian = 13\n", 'debian = 13\nuser = "root"\n')
        .replace('"mailnull"\n', '"mailnull"\nuser = "root"\n')
        .replace('"202611"\n', '"202611"\nvault = "/srv/vault"\n')
    )


def test_none_removes_and_leaves_the_comments(path: Path) -> None:
    edit.set_value(path, ("hosts", "mail", "debian"), None)
    edit.set_value(path, ("hosts", "mail", "user"), None)
    edit.set_value(path, ("hosts", "nobody", "user"), None)
    assert path.read_text() == TEXT.replace("debian = 13\n", "")


def test_set_and_removed_is_as_before(path: Path) -> None:
    edit.set_value(path, ("dkim_selector_next",), "202702")
    edit.set_value(path, ("dkim_selector_next",), None)
    assert path.read_text() == TEXT


@pytest.mark.parametrize(
    "text",
    [
        'hosts = { mail = { role = "mailhost" }, web = { role = "webmail" } }  # in one line\n',
        'hosts.mail.role = "mailhost"\nhosts.web.role = "webmail"  # dotted\n',
        '[hosts]\nmail = { role = "mailhost" }  # a row each\nweb = { role = "webmail" }\n',
        '[hosts]  # all\n[hosts.mail]# one\nrole = "mailhost"\n[hosts.web] # two\nrole = "webmail"',
        '[ hosts . "mail" ]\nrole = "mailhost"\n[hosts.web] # two\nrole = "webmail"\n',
        '# none yet\n[hosts.web] # two\nrole = "webmail"\n',
        "",
    ],
)
@pytest.mark.parametrize("keys", [("hosts", "mail", "host_key"), ("dkim_selector_next",)])
def test_other_ways_of_writing_tables(path: Path, text: str, keys: tuple[str, ...]) -> None:
    path.write_text(text)
    before = tomllib.loads(text)
    edit.set_value(path, keys, "a \"b\" 'c' \\ é")
    written = path.read_text()
    table = tomllib.loads(written)
    for key in keys[:-1]:
        table = table[key]
    assert table[keys[-1]] == "a \"b\" 'c' \\ é"
    assert all(comment in written for comment in ("# in one line", "# two", "# none yet") if comment in text)
    edit.set_value(path, keys, None)
    after = tomllib.loads(path.read_text())
    assert {**after, "hosts": before.get("hosts")} == {**before, "hosts": before.get("hosts")}


def test_a_line_that_only_looks_like_a_header(path: Path) -> None:
    text = 'note = """\n[hosts.mail]\nrole = "x"\n"""\nmatrix = [\n[1],\n]\n[hosts.mail]\nrole = "mailhost"\n'
    path.write_text(text)
    edit.set_value(path, ("hosts", "mail", "user"), "root")
    assert path.read_text() == text + 'user = "root"\n'
    edit.set_value(path, ("domain",), "a.test")
    assert tomllib.loads(path.read_text())["domain"] == "a.test"
    assert text[:30] in path.read_text()


def test_windows_line_ends_stay(path: Path) -> None:
    path.write_bytes(TEXT.replace("\n", "\r\n").encode())
    edit.set_value(path, ("dkim_selector",), "202701")
    edit.set_value(path, ("dkim_selector_next",), "202702")
    content = path.read_bytes()
    assert content.count(b"\n") == content.count(b"\r\n") == TEXT.count("\n") + 1


def test_mode_stays_and_nothing_is_left_behind(path: Path) -> None:
    path.chmod(0o640)
    edit.set_value(path, ("domain",), "example.org")
    assert path.stat().st_mode & 0o7777 == 0o640
    assert list(path.parent.iterdir()) == [path]


def test_a_link_stays_a_link(path: Path) -> None:
    folder = path.parent / "site"
    folder.mkdir()
    link = folder / "hosts.toml"
    link.symlink_to("../hosts.toml")
    edit.set_value(link, ("domain",), "example.org")
    assert link.is_symlink()
    assert 'domain = "example.org"' in path.read_text()


def test_no_change_does_not_touch_the_file(path: Path) -> None:
    inode = path.stat().st_ino
    edit.set_value(path, ("domain",), "example.test")
    assert path.stat().st_ino == inode


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("domain = ", "cannot be set: Invalid value"),
        ('hosts = "none"', "hosts.mail.host_key cannot be set: .* not a table"),
        ('hosts = [{ mail = { role = "x" } }]', "not a table"),
    ],
)
def test_a_file_that_cannot_be_changed_is_left_alone(path: Path, text: str, words: str) -> None:
    path.write_text(text)
    with pytest.raises(MailopsError, match=words):
        edit.set_value(path, ("hosts", "mail", "host_key"), "x")
    assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MailopsError, match="No such file"):
        edit.set_value(tmp_path / "hosts.toml", ("domain",), "x")


def test_a_failure_half_way_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(MailopsError, match="No space left"):
        edit.set_value(path, ("domain",), "example.org")
    assert path.read_text() == TEXT
    assert list(path.parent.iterdir()) == [path]


# --- Rows of a list

LISTS = """\
domain = "example.test"
mail_users = [  # who has a mailbox
    { email = "a@example.test", pw = { command = "pass a" } }, # the boss
    { email = "b@example.test", pw = { env = "B" } },
    # { email = "c@example.test" },
]
mail_aliases = [{ src = "s@example.test", dst = "a@example.test" }]

# The machines
[hosts.mail]
role = "mailhost"
"""
NEW = {"email": "n@example.test", "pw": {"prompt": "First password of n"}}


def listed(path: Path, key: str, add: list[Any] | None = None, remove: list[int] | None = None) -> str:
    edit.change_list(path, key, add or [], remove or [], lambda new, _: tomllib.loads(new.read_text()) and None)
    return path.read_text()


def test_rows_come_and_go_and_the_rest_stays(path: Path) -> None:
    path.write_text(LISTS)
    row = '    { email = "n@example.test", pw = { prompt = "First password of n" } }'
    after = listed(path, "mail_users", [NEW])
    assert [line for line in after.splitlines() if line not in LISTS.splitlines()] == [row]
    assert "# the boss" in after
    assert tomllib.loads(after)["mail_users"][2] == NEW
    gone = listed(path, "mail_users", remove=[1])
    assert gone == after.replace('    { email = "b@example.test", pw = { env = "B" } },\n', "")
    one = listed(path, "mail_aliases", [{"src": "@example.test", "dst": "b@example.test"}])
    assert '"a@example.test" }, { src = "@example.test", dst = "b@example.test" }]' in one
    assert tomllib.loads(listed(path, "mail_aliases", remove=[0, 1]))["mail_aliases"] == []


def test_a_list_that_is_not_there_stands_above_the_machines(path: Path) -> None:
    after = listed(path, "mail_domains", ["second.test"])
    assert tomllib.loads(after)["mail_domains"] == ["example.test", "second.test"]
    assert after.index("mail_domains") < after.index("# The machines")
    assert tomllib.loads(listed(path, "mail_users", [NEW]))["mail_users"] == [NEW]


def test_tables_of_their_own_stay_so(path: Path) -> None:
    path.write_text('domain = "example.test"\n\n[[mail_aliases]]\nsrc = "a@b.test"\ndst = "c@b.test"\n')
    after = listed(path, "mail_aliases", [{"src": "d@b.test", "dst": "c@b.test"}])
    assert after.count("[[mail_aliases]]") == 2
    assert tomllib.loads(listed(path, "mail_aliases", remove=[0]))["mail_aliases"] == [
        {"src": "d@b.test", "dst": "c@b.test"}
    ]


def test_what_would_be_wrong_is_not_written(path: Path) -> None:
    def check(new: Path, _: Path) -> None:
        raise MailopsError("it would be wrong")

    with pytest.raises(MailopsError, match="it would be wrong"):
        edit.change_list(path, "mail_domains", ["second.test"], [], check)
    assert path.read_text() == TEXT
    assert [each.name for each in path.parent.iterdir()] == ["hosts.toml"]
