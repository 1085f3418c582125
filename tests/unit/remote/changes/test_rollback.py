"""Whole runs on a machine on paper that do not work out: what comes back, who is told, and who is blamed."""

from __future__ import annotations

from typing import Any

import pytest

from mailops.remote import machine
from mailops.remote.changes import generations, rollback, run, transaction
from mailops.remote.services import daemon_log, probe
from mailops.remote.shared.errors import AgentError
from mailops.remote.system import units as services
from tests.unit.remote.changes.paper import Paper, unlock

# Rolling back


@pytest.mark.parametrize("trouble", [AgentError("journalctl did not end within 120 s"), TypeError("a list")])
def test_a_report_that_fails_does_not_keep_the_files_of_before_from_coming_back(
    paper: Paper, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    paper.push(paper.file("main.cf", b"1"))

    def fail(*_: Any) -> list[str]:
        raise trouble

    monkeypatch.setattr(daemon_log, "since", fail)
    paper.bad_once()
    told = paper.refused(paper.file("main.cf", b"2")).message
    assert "rolled back to generation 1, which answers" in told
    assert "the suspects are not known" in told
    assert (paper.read("main.cf"), paper.active(), transaction.pending()) == (b"1", 1, None)


def test_everybody_is_told_although_one_does_not_obey(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    def tell(verb: str, unit: str) -> None:
        paper.told.append(unit)
        if unit != "b.service":
            raise AgentError(f"{unit} did not {verb}", units=[unit])

    monkeypatch.setattr(services, "_tell", tell)
    wanted = [{"unit": f"{name}.service", "roots": ["/etc/x"], "on_change": "reload"} for name in "abc"]
    with pytest.raises(AgentError, match=r"a\.service did not reload; c\.service did not reload") as caught:
        services.activate(wanted, ["/etc/x"])
    assert paper.told == ["a.service", "b.service", "c.service"]
    assert caught.value.units == ("a.service", "c.service")


def test_what_is_asked_after_a_change_goes_by_the_units_that_were_told_not_by_the_words_for_it(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(services.Told, "__str__", lambda _: "somebody was told")
    monkeypatch.setattr(probe, "await_all", lambda probes, *_: asked.extend(item["kind"] for item in probes))
    whens = {"smtp": "", "login": "postfix.service", "imaps": "dovecot.service"}
    probes = [{"kind": kind, "port": 1, "when": unit, "options": {}} for kind, unit in whens.items()]
    changes = paper.push(paper.file("main.cf", b"1"), probes=probes)
    assert changes["services"] == ["somebody was told"]
    assert asked == ["smtp", "login"]


def test_a_failed_first_bootstrap_tells_the_daemon_that_ran_before(paper: Paper) -> None:
    (paper.etc / "main.cf").write_bytes(b"an administrator's own")
    paper.bad_once()
    assert "rolled back to what was before" in paper.refused(paper.file("main.cf", b"ours")).message
    assert paper.read("main.cf") == b"an administrator's own"
    assert (paper.told, paper.stopped) == (["reload postfix.service"] * 2, [])


def test_a_daemon_that_cannot_be_started_afresh_keeps_no_other_down(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(verb: str, unit: str) -> None:
        paper.told.append(f"{verb} {unit}")
        if unit == "redis.service":
            raise AgentError("redis.service did not restart", units=[unit])

    monkeypatch.setattr(services, "_tell", tell)
    with pytest.raises(AgentError, match=r"redis\.service"):
        services.restart(["redis.service", "postfix.service"])
    assert paper.told == ["restart redis.service", "restart postfix.service"]


def test_a_vault_that_goes_in_the_middle_leaves_the_undoing_to_the_unlock(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault, hidden = paper.root / "vault", paper.root / "hidden"
    vault.mkdir()
    mounted = [True]
    monkeypatch.setattr(machine, "is_mounted", lambda _: mounted[0])
    wanted = {"vault": {"mountpoint": str(vault), "cipherdir": "x", "directories": []}}

    def files(text: bytes) -> list[dict[str, Any]]:
        sieve = str(vault / "junk.sieve")
        return [paper.file("main.cf", text), paper.file("sieve", text) | {"path": sieve}]

    paper.laptop[str(vault / "junk.sieve")] = b"1"
    paper.push(*files(b"1"), **wanted)

    def die() -> None:
        mounted[0] = False
        vault.rename(hidden)
        vault.mkdir()
        raise AgentError("no answer")

    paper.answer = die
    paper.laptop[str(vault / "junk.sieve")] = b"2"
    error = paper.refused(*files(b"2"), **wanted)
    assert (error.code, "the vault has gone" in error.message, "unlock" in error.hint) == (5, True, True)
    assert transaction.pending()
    vault.rmdir()
    hidden.rename(vault)
    mounted[0] = True
    paper.answer = lambda: None
    run.Run("unlock", "me@here", paper).recover()
    assert [path.read_bytes() for path in vault.iterdir()] == [b"1"]
    assert paper.read("main.cf") == b"1"


def test_a_script_that_comes_back_is_not_run_as_it_was_compiled_meanwhile(paper: Paper) -> None:
    paper.push(paper.file("junk.sieve", b"keep;"))
    compiled = paper.etc / "junk.svbin"
    compiled.write_bytes(b"keep")
    (paper.etc / "other.svbin").write_bytes(b"another's")

    def a_message_comes() -> None:
        assert not compiled.exists()
        compiled.write_bytes(b"discard")
        paper.bad_once()
        paper.answer()

    paper.answer = a_message_comes
    paper.refused(paper.file("junk.sieve", b"discard;"))
    assert paper.read("junk.sieve") == b"keep;"
    assert sorted(path.name for path in paper.etc.iterdir()) == ["junk.sieve", "other.svbin"]


# A push while the vault is locked, and the unlock


def test_an_unlock_falls_back_to_what_the_change_came_from(paper: Paper) -> None:
    for text in (b"1", b"2", b"3"):
        paper.push(paper.file("main.cf", text))
    rollback.call({"who": "me@here", "to": 2}, paper)
    paper.opened = False
    paper.push(paper.file("main.cf", b"4"))
    paper.bad_once()
    error = unlock(paper)
    assert error
    assert "generation 2 is active again, and answers" in error.message
    assert (paper.active(), paper.read("main.cf")) == (2, b"2")


def test_an_unlock_that_falls_back_leaves_a_hand_edit_alone_and_names_it(paper: Paper) -> None:
    paper.push(paper.file("main.cf", b"1"), paper.file("other", b"o"))
    paper.opened = False
    paper.push(paper.file("main.cf", b"2"), paper.file("other", b"o"))
    (paper.etc / "other").write_bytes(b"by hand")
    paper.bad_once()
    error = unlock(paper)
    assert error
    assert f"left as edited on this machine: {paper.etc / 'other'}" in error.message
    assert (paper.read("main.cf"), paper.read("other")) == (b"1", b"by hand")


def beside_the_vault(paper: Paper) -> dict[str, Any]:
    """A manifest's services and probes: a web server that needs no vault, and Postfix, which does."""
    web = {"unit": "nginx.service", "roots": [str(paper.etc)], "on_change": "reload", "mail": False, "checks": []}
    probes = [{"kind": "http", "port": 80, "options": {}, "service": "nginx.service"}]
    probes += [{"kind": "smtp", "port": 25, "options": {}, "service": "postfix.service"}]
    return {"services": [web, *paper.manifest()["services"]], "probes": probes}


def test_what_needs_no_vault_is_told_and_asked_while_that_is_locked(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(probe, "await_all", lambda probes, *_: asked.extend(item["port"] for item in probes))
    paper.opened = False
    paper.push(paper.file("main.cf", b"1"), **beside_the_vault(paper))
    assert (paper.told, asked) == (["reload nginx.service"], [80])
    assert not generations.active()["proven"]
    assert unlock(paper) is None
    assert (asked, generations.active()["proven"]) == ([80, 80, 25], True)


def test_a_push_that_what_needs_no_vault_does_not_survive_is_rolled_back_at_once(paper: Paper) -> None:
    more = beside_the_vault(paper)
    paper.push(paper.file("main.cf", b"1"), **more)
    paper.opened = False
    paper.bad_once()
    paper.refused(paper.file("main.cf", b"2"), **more)
    assert paper.read("main.cf") == b"1"
    assert paper.told == ["reload nginx.service"] * 2  # of both files, and Postfix of none


def test_the_generation_to_fall_back_to_is_not_pruned(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "KEPT", 2)
    paper.push(paper.file("main.cf", b"good"))
    paper.opened = False
    for number in range(4):
        paper.push(paper.file("main.cf", b"%d" % number))
    assert generations.numbers() == [1, 4, 5]
    paper.bad_once()
    assert unlock(paper)
    assert (paper.active(), paper.read("main.cf")) == (1, b"good")
