"""DKIM keys by the real openssl, and the rotation against real name servers on the loopback."""

from __future__ import annotations

import base64
import datetime
import grp
import json
import os
import pwd
import re
import socketserver
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import dns.zone
import pytest

from mailops.dkim import dns as dkim_dns
from mailops.dkim import keys as laptop
from mailops.errors import MailopsError
from mailops.remote import dkim, machine
from mailops.remote.shared.errors import AgentError
from mailops.site import reader
from mailops.site.model import Site

DOMAINS = ["example.test", "second.test"]
SERVERS = {"ns1.example.test": "127.0.53.1", "ns2.example.test": "127.0.53.2"}


@pytest.fixture(autouse=True)
def me(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The keys belong to whoever runs the tests: there is no group _rspamd here."""
    monkeypatch.setattr(machine, "MANIFEST", str(tmp_path / "manifest.json"))
    monkeypatch.setattr(dkim, "OWNER", pwd.getpwuid(os.getuid()).pw_name)
    monkeypatch.setattr(dkim, "GROUP", grp.getgrgid(os.getgid()).gr_name)
    monkeypatch.setattr(dkim, "obstacle", lambda user, path, bits: "")


@pytest.fixture
def wanted(tmp_path: Path) -> dict[str, Any]:
    keyroot = tmp_path / "dkim"
    keyroot.mkdir()
    return {"keyroot": str(keyroot), "selectors": ["202611"], "domains": DOMAINS}


# --- keys ------------------------------------------------------------------------------------------------


def test_converge_makes_keys_and_their_records(wanted: dict[str, Any]) -> None:
    lines = dkim.converge(wanted, None)
    keyroot = Path(wanted["keyroot"])
    assert lines == [f"DKIM key {keyroot}/{domain}.202611.key" for domain in DOMAINS]
    assert sorted(os.listdir(keyroot)) == [
        *("example.test.202611.key", "example.test.202611.txt"),
        *("second.test.202611.key", "second.test.202611.txt"),
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in keyroot.iterdir()} == {0o640}
    told = subprocess.run(
        ["openssl", "pkey", "-noout", "-text", "-in", keyroot / "example.test.202611.key"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "2048 bit" in told


def test_the_record_is_a_zone_file_that_name_servers_read(wanted: dict[str, Any]) -> None:
    dkim.converge(wanted, None)
    text = Path(wanted["keyroot"], "example.test.202611.txt").read_text()
    zone = dns.zone.from_text("@ 60 SOA ns1 root 1 2 3 4 5\n@ NS ns1\n" + text, "example.test")
    record = zone.get_rdataset("202611._domainkey", "TXT")
    assert record is not None
    strings = record[0].strings
    assert max(map(len, strings)) <= 255
    assert all(len(piece) > 20 for piece in strings[1:])
    value = b"".join(strings).decode()
    assert value.startswith("v=DKIM1; k=rsa; p=MII")
    assert value == dkim._value(f"{wanted['keyroot']}/example.test.202611.key")
    base64.b64decode(value.partition("p=")[2], validate=True)


def test_a_key_is_never_replaced_and_a_lost_record_is_made_again(wanted: dict[str, Any]) -> None:
    dkim.converge(wanted, None)
    key, text = (Path(wanted["keyroot"], f"example.test.202611.{kind}") for kind in ("key", "txt"))
    before = key.read_bytes(), text.read_bytes()
    assert dkim.converge(wanted, None) == []
    text.unlink()
    key.chmod(0o644)
    lines = [f"permissions of {key}", f"DKIM record {text}"]
    assert dkim.converge(wanted, None, dry_run=True) == lines
    assert not text.exists()
    assert dkim.converge(wanted, None) == lines
    assert (key.read_bytes(), text.read_bytes()) == before
    assert stat.S_IMODE(key.stat().st_mode) == 0o640


def test_a_record_without_its_key_is_not_kept(wanted: dict[str, Any]) -> None:
    dkim.converge(wanted, None)
    key, text = (Path(wanted["keyroot"], f"example.test.202611.{kind}") for kind in ("key", "txt"))
    before = text.read_bytes()
    key.unlink()
    assert dkim.converge(wanted, None) == [f"DKIM key {key}, whose record must be published anew: fab dkim.ls"]
    assert text.read_bytes() != before


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("both", [True, False])
def test_a_key_that_signed_and_is_gone_is_told(here: dict[str, Any], both: bool, noted: bool) -> None:
    dkim.converge(here["dkim"], None)
    assert dkim.fault(here["dkim"]) == ""
    key, text = (Path(here["dkim"]["keyroot"], f"example.test.202611.{kind}") for kind in ("key", "txt"))
    key.unlink()
    if both:
        text.unlink()
    if not noted:  # set up by an earlier mailops
        Path(dkim._note()).unlink()
    assert dkim.fault(here["dkim"]).startswith("the key of example.test (202611) is missing, and mail leaves unsigned")
    (line,) = dkim.converge(here["dkim"], None)
    assert line == f"DKIM key {key}, whose record must be published anew: fab dkim.ls"


def test_a_domain_that_no_bootstrap_has_seen_has_no_key_yet(here: dict[str, Any]) -> None:
    dkim.converge(here["dkim"], None)
    here["dkim"] = here["dkim"] | {"domains": [*DOMAINS, "third.test"]}  # as a push leaves it
    assert dkim.fault(here["dkim"]) == "there is no key yet for third.test (202611); next: fab -H NAME bootstrap"
    assert dkim.converge(here["dkim"], None) == [f"DKIM key {here['dkim']['keyroot']}/third.test.202611.key"]
    assert dkim.fault(here["dkim"]) == ""


@pytest.mark.parametrize("cut", [0, 1, 100, 700])
def test_a_damaged_key_is_told(here: dict[str, Any], cut: int) -> None:
    dkim.converge(here["dkim"], None)
    key = Path(here["dkim"]["keyroot"], "example.test.202611.key")
    key.write_bytes(key.read_bytes()[:cut] if cut else b"")
    assert dkim.fault(here["dkim"]).startswith(f"mail of example.test leaves unsigned: {key} is damaged; next: restore")


def test_keys_are_private_from_their_first_byte(wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    real = os.open

    def watched(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        if flags & os.O_CREAT:
            modes.append(mode)
        return real(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", watched)
    dkim.converge(wanted, None)
    assert set(modes) == {0o600}


def test_a_dry_run_touches_nothing(wanted: dict[str, Any]) -> None:
    assert len(dkim.converge(wanted, None, dry_run=True)) == 2
    assert os.listdir(wanted["keyroot"]) == []


def test_nothing_is_made_below_a_vault_that_is_not_open(wanted: dict[str, Any]) -> None:
    wanted["keyroot"] += "/absent"
    with pytest.raises(AgentError, match="locked") as caught:
        dkim.converge(wanted, None)
    assert caught.value.code == 5
    assert len(dkim.converge(wanted, None, dry_run=True)) == 1
    assert not os.path.exists(wanted["keyroot"])
    assert dkim.converge(wanted | {"selectors": []}, None) == []


def test_two_calls_at_once_make_one_key(wanted: dict[str, Any]) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend(dkim.converge(wanted, None))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2
    for domain in DOMAINS:
        text = Path(wanted["keyroot"], f"{domain}.202611.txt").read_text()
        value = "".join(re.findall(r'"([^"]*)"', text))
        assert value == dkim._value(f"{wanted['keyroot']}/{domain}.202611.key")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]) -> dict[str, Any]:
    """This computer as a bootstrapped machine with an open vault."""
    applied: dict[str, Any] = {"dkim": wanted, "open": True}
    monkeypatch.setattr(dkim, "BITS", 1024)  # ten times as fast to make
    monkeypatch.setattr(machine, "manifest", lambda: applied)
    monkeypatch.setattr(machine, "vault_is_open", lambda manifest: manifest["open"])
    return applied


def test_call_shows_all_keys_and_nothing_private(here: dict[str, Any]) -> None:
    dkim.converge(here["dkim"] | {"domains": ["gone.test"]}, None)
    answer = dkim.call({"make": "s1.lists"}, None)
    assert [(key["domain"], key["selector"]) for key in answer["keys"]] == [
        ("example.test", "s1.lists"),
        ("gone.test", "202611"),
        ("second.test", "s1.lists"),
    ]
    assert answer["keys"][0]["name"] == "s1.lists._domainkey.example.test"
    assert answer["made"] == ["s1.lists._domainkey.example.test", "s1.lists._domainkey.second.test"]
    os.unlink(f"{here['dkim']['keyroot']}/example.test.s1.lists.txt")
    assert dkim.call({"make": "s1.lists"}, None)["made"] == []  # a record was written, for a key that was there
    assert "PRIVATE" not in json.dumps(answer)
    assert dkim.call({}, None)["made"] == []


def test_call_refuses(here: dict[str, Any]) -> None:
    for selector in ("../../etc", "a b", ".x", "x" * 64):
        with pytest.raises(AgentError, match="not a selector"):
            dkim.call({"make": selector}, None)
    Path(here["dkim"]["keyroot"], "example.test.202611.key").write_text("no key")
    with pytest.raises(AgentError, match="openssl cannot read"):
        dkim.call({}, None)
    here["open"] = False
    with pytest.raises(AgentError) as caught:
        dkim.call({}, None)
    assert caught.value.code == 5
    here["dkim"] = None
    with pytest.raises(AgentError, match="signs nothing"):
        dkim.call({}, None)


# --- the laptop ------------------------------------------------------------------------------------------

HOSTS_TOML = """\
domain = "example.test"
admin_email = "admin@example.test"
mail_domains = ["example.test", "second.test"]
mail_users = [
    { email = "admin@example.test", pw = { env = "PW" } },
    { email = "relay@example.test", pw = { env = "PW" } },
]
cryptdir_pw = { env = "PW" }
resolver = "127.0.53.1"

# Keys follow a year-month pattern.
dkim_selector = "202611" # since autumn
# dkim_selector_next = "202701"   # `fab dkim.prepare` writes it

[hosts.mail]
role = "mailhost"
"""


class Machine:
    """ssh.machine.Machine, with the agent called directly."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def call(self, name: str, args: dict[str, Any]) -> dict[str, Any]:
        assert name == "dkim"
        answer: dict[str, Any] = json.loads(json.dumps(dkim.call(args, None)))
        return answer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.toml"
    path.write_text(HOSTS_TOML)
    return path


@pytest.fixture
def far(file: Path, here: dict[str, Any]) -> Any:
    dkim.converge(here["dkim"], None)
    return Machine(reader.load(file))


TODAY = datetime.date(2026, 11, 23)


@pytest.mark.parametrize(
    ("current", "expected"),
    [
        ("202611", "202612"),
        ("202001", "202612"),
        ("202612", "202701"),
        ("202711", "202712"),
        ("mail", "202612"),
    ],
)
def test_the_default_selector_is_a_month_not_used_yet(far: Any, current: str, expected: str) -> None:
    import dataclasses

    site = dataclasses.replace(far.site, dkim_selector=current)
    assert laptop.next_selector(site, None, TODAY)[0] == expected
    prepared = dataclasses.replace(site, dkim_selector_next="203001")
    assert laptop.next_selector(prepared, None, TODAY)[0] == "203001"
    assert laptop.next_selector(prepared, "203002", TODAY)[0] == "203002"
    for wrong in (current, "a b"):
        with pytest.raises(MailopsError):
            laptop.next_selector(site, wrong, TODAY)
    with pytest.raises(MailopsError, match="nothing is signed"):
        laptop.next_selector(dataclasses.replace(site, dkim_selector=""), None, TODAY)


def test_prepare_makes_keys_and_writes_hosts_toml(far: Any, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    laptop.prepare_on(far, "202701", "as you asked")
    said = capsys.readouterr().out
    assert "202701._domainkey.second.test. IN TXT (" in said
    assert "202611._domainkey" not in said
    assert "there already" not in said
    written = file.read_text()
    assert reader.load(file).dkim_selector_next == "202701"
    assert set(HOSTS_TOML.splitlines()) - set(written.splitlines()) <= {
        '# dkim_selector_next = "202701"   # `fab dkim.prepare` writes it'
    }
    again: Any = Machine(reader.load(file))
    laptop.prepare_on(again, "202701", "as you asked")
    assert "there already" in capsys.readouterr().out
    assert file.read_text() == written


def test_prepare_leaves_hosts_toml_alone_when_the_machine_cannot(far: Any, file: Path, here: dict[str, Any]) -> None:
    here["open"] = False
    with pytest.raises(AgentError):
        laptop.prepare_on(far, "202701", "as you asked")
    assert file.read_text() == HOSTS_TOML


def test_ls_marks_what_each_key_is_for(far: Any, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    laptop.prepare_on(far, "202701", "as you asked")
    dkim.call({"make": "202001"}, None)
    after: Any = Machine(reader.load(file))
    capsys.readouterr()
    laptop.show(after)
    said = capsys.readouterr().out
    assert re.findall(r"^example\.test +(\S+) +(\S.*?) +/", said, re.M) == [
        ("202001", "kept"), ("202611", "signs now"), ("202701", "next")
    ]  # fmt: skip
    assert said.count(" IN TXT (") == 4
    laptop.show(after, as_json=True)
    assert len(json.loads(capsys.readouterr().out)) == 6


# --- the DNS ---------------------------------------------------------------------------------------------


class Server:
    """A small authoritative name server over UDP and TCP; `records` may be changed while it runs."""

    def __init__(self, address: str, port: int) -> None:
        self.records: dict[str, dict[str, list[str]]] = {}
        self.rcode = dns.rcode.NOERROR
        self.asked: list[tuple[str, bool]] = []
        server = self

        class Udp(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                answer = server.answer(self.request[0])
                wire = answer.to_wire()
                if len(wire) > 256:  # make the asker come back over TCP
                    answer.answer.clear()
                    answer.flags |= dns.flags.TC
                    wire = answer.to_wire()
                self.request[1].sendto(wire, self.client_address)

        class Tcp(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                length = int.from_bytes(self.rfile.read(2))
                wire = server.answer(self.rfile.read(length)).to_wire()
                self.wfile.write(len(wire).to_bytes(2) + wire)

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self.servers: list[socketserver.BaseServer] = [
            socketserver.ThreadingUDPServer((address, port), Udp),
            socketserver.ThreadingTCPServer((address, port), Tcp),
        ]
        for each in self.servers:
            threading.Thread(target=each.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, wire: bytes) -> dns.message.Message:
        query = dns.message.from_wire(wire)
        name, kind = query.question[0].name.to_text(omit_final_dot=True), query.question[0].rdtype
        self.asked.append((name, bool(query.flags & dns.flags.RD)))
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.AA
        answer.set_rcode(self.rcode)
        found = self.records.get(name)
        if found is None:
            answer.set_rcode(dns.rcode.NXDOMAIN if self.rcode == dns.rcode.NOERROR else self.rcode)
        for of_kind, texts in (found or {}).items():
            rrset = dns.rrset.from_text_list(query.question[0].name, 60, "IN", of_kind, texts)
            if rrset.rdtype == kind or of_kind == "CNAME":
                answer.answer.append(rrset)
        return answer

    def close(self) -> None:
        for each in self.servers:
            each.shutdown()
            each.server_close()


def txt(value: str) -> str:
    """A TXT record's text, cut in another way than ours and with spaces where they do not matter."""
    value = value.replace("; ", ";").replace("p=", "p= ")
    return " ".join(f'"{value[at : at + 100]}"' for at in range(0, len(value), 100))


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Server]]:
    """Two name servers that both have the zones; the first is also the site's resolver."""
    port = 10000 + os.getpid() % 20000
    monkeypatch.setattr(dkim_dns, "PORT", port)
    monkeypatch.setattr(dkim_dns, "UDP_TRIES", (0.3,))
    monkeypatch.setattr(dkim_dns, "TCP_TRY", 0.3)
    running = [Server(address, port) for address in SERVERS.values()]
    for server in running:
        for domain in DOMAINS:
            soa = "ns1.example.test. root.example.test. 1 2 3 4 5"
            server.records[domain] = {"SOA": [soa], "NS": [f"{name}." for name in SERVERS]}
        for name, address in SERVERS.items():
            server.records[name] = {"A": [address]}
    yield running
    for server in running:
        server.close()


@pytest.fixture
def ready(far: Any, file: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """A machine whose next keys are prepared, and not published."""
    laptop.prepare_on(far, "202701", "as you asked")
    capsys.readouterr()
    return Machine(reader.load(file))


def publish(servers: list[Server], far: Any, edit: Callable[[str], str] = txt) -> None:
    for server in servers:
        for key in far.call("dkim", {})["keys"]:
            server.records[key["name"]] = {"TXT": [edit(key["value"])]}


def check(far: Any) -> list[str]:
    keys = far.call("dkim", {})["keys"]
    return [str(missing) for missing in dkim_dns.unpublished(far.site, keys, "202701")]


def test_rotate_refuses_before_publishing_and_changes_nothing(servers: list[Server], ready: Any, file: Path) -> None:
    before = file.read_bytes()
    pushed: list[Site] = []
    with pytest.raises(MailopsError) as caught:
        laptop.rotate_on(ready, pushed.append)
    for domain in DOMAINS:
        for server in SERVERS:
            assert f"{domain}: {server} has no such record" in caught.value.message
    assert "dkim.ls" in caught.value.hint
    assert (file.read_bytes(), pushed) == (before, [])


def test_rotate_after_publishing_switches_and_pushes(
    servers: list[Server], ready: Any, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(servers, ready)
    pushed: list[Site] = []
    laptop.rotate_on(ready, pushed.append)
    assert [(site.dkim_selector, site.dkim_selector_next) for site in pushed] == [("202701", "")]
    assert reader.load(file).dkim_selector == "202701"
    assert "# Keys follow a year-month pattern." in file.read_text()
    assert "# since autumn" in file.read_text()
    assert "Leave the 202611 records" in capsys.readouterr().out
    assert len(ready.call("dkim", {})["keys"]) == 4
    direct = [rd for server in servers for name, rd in server.asked if "_domainkey" in name and not rd]
    assert len(direct) >= 4, "the servers themselves were asked, without recursion"
    after: Any = Machine(reader.load(file))
    with pytest.raises(MailopsError, match="no dkim_selector_next"):
        laptop.rotate_on(after, pushed.append)


def test_rotate_puts_hosts_toml_back_when_the_push_fails(servers: list[Server], ready: Any, file: Path) -> None:
    publish(servers, ready)
    before = file.read_bytes()
    for failure in (MailopsError("mail: the connection was lost"), KeyboardInterrupt()):

        def push(site: Site, failure: BaseException = failure) -> None:
            raise failure

        with pytest.raises(type(failure)):
            laptop.rotate_on(ready, push)
        assert file.read_bytes() == before


def test_force_warns_and_switches(
    servers: list[Server], ready: Any, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    laptop.rotate_on(ready, lambda site: None, force=True)
    assert "warning: the 202701 keys are not published" in capsys.readouterr().out
    assert reader.load(file).dkim_selector == "202701"


def test_rotate_without_keys_or_without_next(far: Any, file: Path) -> None:
    with pytest.raises(MailopsError, match="no dkim_selector_next") as caught:
        laptop.rotate_on(far, lambda site: None)
    assert caught.value.code == 2
    file.write_text(HOSTS_TOML.replace("# dkim_selector_next", "dkim_selector_next"))
    without: Any = Machine(reader.load(file))
    with pytest.raises(MailopsError, match=r"no 202701 key yet for example\.test, second\.test"):
        laptop.rotate_on(without, lambda site: None)


def test_one_server_behind_is_named(servers: list[Server], ready: Any) -> None:
    publish(servers[:1], ready)
    assert check(ready) == [f"{domain}: ns2.example.test has no such record" for domain in DOMAINS]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda value: txt(value[:-9] + "A" * 9), "has another key"),
        (lambda value: '"v=DKIM1; p="', "has another key, p= in place"),
        (lambda value: '"v=spf1 -all"', "not such a key: v=spf1 -all"),
        (lambda value: '"v=DKIM1; k=ed25519; p=abc"', "not such a key"),
    ],
)
def test_a_wrong_record_is_told(servers: list[Server], ready: Any, edit: Callable[[str], str], expected: str) -> None:
    publish(servers, ready, edit)
    found = check(ready)
    assert len(found) == 4
    assert all(expected in line for line in found)


def test_two_records_are_one_too_many(servers: list[Server], ready: Any) -> None:
    publish(servers, ready)
    for server in servers:
        server.records["202701._domainkey.second.test"]["TXT"].append('"v=DKIM1; p=abc"')
    assert check(ready) == [
        f"second.test: {name} has 2 records where one must be (RFC 6376, 3.6.2.2)" for name in SERVERS
    ]


def test_servers_that_refuse_or_are_silent(servers: list[Server], ready: Any) -> None:
    publish(servers, ready)
    servers[1].rcode = dns.rcode.REFUSED
    assert check(ready) == [f"{domain}: ns2.example.test answers REFUSED" for domain in DOMAINS]
    servers[1].close()
    assert check(ready) == [f"{domain}: ns2.example.test does not answer" for domain in DOMAINS]


def test_an_address_that_cannot_be_reached_does_not_matter_when_another_can(servers: list[Server], ready: Any) -> None:
    publish(servers, ready)
    for server in servers:
        server.records["ns2.example.test"]["AAAA"] = ["100::53"]  # RFC 6666: goes nowhere
    assert check(ready) == []


def test_an_alias_into_another_zone_is_followed(servers: list[Server], ready: Any) -> None:
    publish(servers, ready)
    for server in servers:
        moved = server.records["202701._domainkey.second.test"]
        server.records["keys.example.test"] = moved
        server.records["202701._domainkey.second.test"] = {"CNAME": ["keys.example.test."]}
    assert check(ready) == []
    for server in servers:
        del server.records["keys.example.test"]
    assert check(ready) == [f"second.test: {name} has no such record" for name in SERVERS]


def test_a_domain_that_is_not_in_the_dns(servers: list[Server], ready: Any) -> None:
    publish(servers, ready)
    for server in servers:
        server.records["."] = {"SOA": [". . 1 2 3 4 5"]}
        del server.records["second.test"]
    assert check(ready) == ["second.test: is not in the DNS"]


def test_a_resolver_that_is_silent(ready: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dkim_dns, "PORT", 9)
    monkeypatch.setattr(dkim_dns, "LOOKUP", 0.3)
    found = check(ready)
    assert len(found) == 2
    assert all("name servers" in line for line in found)
