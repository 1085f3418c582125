"""The benchmarks' own arithmetic and judgement; what they measure is measured by `script/bench`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import arguments, converge, first, memory, ours, ping, relay, report, rivals, rounds
from benchmarks.lab import CHANGED_FILE
from benchmarks.rounds import Contender, Sample
from mailops.lab.layout import LabError

PROJECT = Path(__file__).parents[2]


# --- taking turns ----------------------------------------------------------------------------------------


def plain(command: Sequence[str | Path]) -> list[str]:
    return [str(word) for word in command]


def contender(name: str, script: str = "", **more: object) -> Contender:
    command = [sys.executable, "-IS", "-c", script]
    return Contender(name, lambda: command, lambda: dict(os.environ), **more)  # type: ignore[arg-type]


def test_the_yardstick_comes_before_each_of_the_others() -> None:
    told = rounds.play([contender("stick"), contender("one"), contender("two", turns=2)], 2, plain)
    names = " ".join(sample.contender for sample in told)
    assert names == f"{'stick stick one stick two stick two ' * 2}stick"


def test_a_slow_contender_has_its_turn_in_every_so_many_rounds() -> None:
    names = [one.name for one in rounds.schedule([contender("fast"), contender("slow", every=5)], 10)]
    assert (names.count("fast"), names.count("slow")) == (10, 2)
    assert names[:2] == ["fast", "slow"]


def test_a_turn_is_timed_to_the_end_of_the_process_and_not_of_what_it_leaves_behind() -> None:
    leave = "import subprocess, time; subprocess.Popen(['sleep', '3']); time.sleep(0.2)"
    assert 0.2 <= rounds.turn(contender("one", leave), plain).seconds < 2


def test_before_and_after_are_not_timed() -> None:
    seen: list[str] = []
    pause = {"ready": lambda: (time.sleep(0.5), seen.append("ready")), "after": lambda: seen.append("after")}
    assert rounds.turn(contender("one", **pause), plain).seconds < 0.5
    assert seen == ["ready", "after"]


def test_a_run_that_fails_or_did_something_else_stops_the_benchmark() -> None:
    with pytest.raises(LabError, match="one ended 3: no luck"):
        rounds.turn(contender("one", "import sys; print('no luck'); sys.exit(3)"), plain)
    with pytest.raises(LabError, match="to change nothing"):
        rounds.turn(contender("one", "print('1 change, 0.4 s')", check=ours.nothing_changed), plain)


def test_a_ratio_is_to_the_yardstick_of_that_time() -> None:
    """The computer has half its speed from the tenth second on: the seconds double, the ratios stay."""
    samples = []
    for second in range(20):
        slow = 2.0 if second >= 10 else 1.0
        samples += [Sample("stick", second, 0.1 * slow), Sample("one", second + 0.5, 0.2 * slow)]
    found = rounds.ratios(samples, "stick")
    assert found["one"] == pytest.approx(2.0)
    assert found["stick"] == pytest.approx(1.0)
    assert rounds.medians(samples)["one"] == pytest.approx(0.3)


def test_a_long_sample_is_near_what_came_just_before_it_and_just_after() -> None:
    long = Sample("long", 10, 30)
    sticks = [Sample("stick", began, seconds) for began, seconds in ((0, 9), (8, 1), (9, 1), (40, 1), (41, 1), (60, 9))]
    assert rounds.nearby(long, sticks) == 1


# --- judging what they said ------------------------------------------------------------------------------


def test_mailops_with_nothing_to_do_says_so() -> None:
    ours.nothing_changed("mail    nothing changed, 0.5 s\n")


def converged(**changes: list[str]) -> str:
    """stderr's progress and stdout's JSON, as they come together."""
    answer = json.dumps({"mail": {"changes": changes, "locked": False, "seconds": 0.9}}, indent=2)
    return f"mail  ● files        {CHANGED_FILE}\n{answer}\nmail    2 changes, 0.9 s\n"


def test_one_changed_file_is_that_file_and_one_reload() -> None:
    ours.one_file_changed(converged(files=[CHANGED_FILE], services=["reload postfix.service"]))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"files": [CHANGED_FILE]},
        {"files": [CHANGED_FILE], "services": ["restart postfix.service"]},
        {"files": [CHANGED_FILE, "/etc/mailname"], "services": ["reload postfix.service"]},
        {"files": [CHANGED_FILE], "services": ["reload postfix.service", "reload dovecot.service"]},
        {"files": [CHANGED_FILE], "services": ["reload postfix.service"], "accounts": ["user a@example.test"]},
    ],
)
def test_anything_else_is_not(changes: dict[str, list[str]]) -> None:
    with pytest.raises(LabError, match="and it did"):
        ours.one_file_changed(converged(**changes))


def test_no_json_at_all_is_told() -> None:
    with pytest.raises(LabError, match="no JSON came"):
        ours.one_file_changed("something else\n")


RECAP = "mail                       : ok={ok}   changed={changed}    unreachable=0    failed={failed}  \n"


def test_ansible_tells_in_its_recap() -> None:
    rivals.nothing_changed_by_ansible(RECAP.format(ok=18, changed=0, failed=0))
    for ok, changed, failed in ((18, 1, 0), (18, 0, 1), (2, 0, 0)):
        with pytest.raises(LabError, match="Ansible was to change nothing"):
            rivals.nothing_changed_by_ansible(RECAP.format(ok=ok, changed=changed, failed=failed))


def test_pyinfra_tells_in_its_last_line() -> None:
    line = "    Grand total                61      {}         {}       {}          \n"
    rivals.nothing_changed_by_pyinfra(line.format("-", "-", 61))
    for cells in ((1, "-", 60), ("-", 1, 60), ("-", "-", 60)):
        with pytest.raises(LabError, match="pyinfra was to change nothing"):
            rivals.nothing_changed_by_pyinfra(line.format(*cells))


# --- telling ---------------------------------------------------------------------------------------------

SAMPLES = [
    Sample("ssh_true", 0, 0.8),
    Sample("mailops_noop", 1, 0.6),
    Sample("ssh_true", 2, 0.8),
    Sample("ansible_noop", 3, 60.0),
    Sample("ssh_true", 64, 0.8),
]


def test_the_json_has_median_seconds_by_round_trip_and_ratios_beside_them() -> None:
    figures = converge.as_json({50: SAMPLES})
    ratios = {"ssh_true": 1.0, "mailops_noop": 0.75, "ansible_noop": 75.0}
    assert figures == {"50": {"ssh_true": 0.8, "mailops_noop": 0.6, "ansible_noop": 60.0, "ratios": ratios}}


def test_the_table_has_a_column_for_each_round_trip() -> None:
    text = converge.table(converge.as_json({0: SAMPLES, 50: SAMPLES}))
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:]] == [
        "`ssh host true`",
        "mailops, nothing to do",
        "Ansible, nothing to do",
    ]
    assert "0.60 s (0.75 x)" in text
    assert "60.00 s (75 x)" in text
    assert len({len(line) for line in text.splitlines()}) == 1


def test_the_others_are_told_in_times_of_ours() -> None:
    figures = converge.as_json({0: SAMPLES, 50: SAMPLES})
    assert converge.beside_ours(figures) == [
        "Ansible takes as long as mailops 100 times at 0 ms, 100 times at 50 ms.\n"
    ]


def test_first_compares_the_two_of_each_round() -> None:
    seconds = [(30.0, 33.0), (60.0, 60.0), (30.0, 36.0)]
    pairs = [(Sample(first.APT, 0, apt), Sample(first.BOOTSTRAP, 0, ours)) for apt, ours in seconds]
    figures = first.as_json([sample for pair in pairs for sample in pair])
    assert figures == {first.APT: 30.0, first.BOOTSTRAP: 36.0, "ratio": 1.1}


def test_a_section_is_replaced_between_its_markers_and_nowhere_else() -> None:
    begin, end = "<!-- one: script/bench writes from here -->", "<!-- one: to here -->"
    document = f"before\n{begin}\nold\n{end}\nafter\n"
    once = report.with_section(document, "one", r"new \1")
    assert once == f"before\n{begin}\n\nnew \\1\n\n{end}\nafter\n"
    assert report.with_section(once, "one", r"new \1") == once
    with pytest.raises(LabError, match="has no lines"):
        report.with_section(document, "two", "new")


@pytest.mark.parametrize("name", ["converge", "start", "first", "memory"])
def test_the_document_has_a_place_for_each_benchmark(name: str) -> None:
    assert "figures" in report.with_section(report.DOCUMENT.read_text(encoding="utf-8"), name, "figures")


# --- the command line ------------------------------------------------------------------------------------


def test_defaults_of_the_full_and_of_the_quick_run() -> None:
    full, quick = arguments.parse(["converge"]), arguments.parse(["converge", "--quick"])
    assert (full.round_trips, full.rounds, full.keep) == ((0, 50, 100), 25, False)
    assert (quick.round_trips, quick.rounds) == ((50,), 10)
    assert arguments.parse(["converge", "--round-trips", "20,20,5"]).round_trips == (20, 5)


def test_only_a_whole_run_is_for_the_document() -> None:
    assert arguments.parse(["converge", "--keep"]).publish
    assert arguments.parse(["start"]).publish
    for more in (["--quick"], ["--rounds", "1"], ["--round-trips", "50"], ["--debian", "12"]):
        assert not arguments.parse(["converge", *more]).publish


@pytest.mark.parametrize(
    "argv",
    [[], ["converg"], ["converge", "--rounds", "0"], ["converge", "--round-trips", "x"], ["start", "--json", "/no/a"]],
)
def test_wrong_use_is_a_line_and_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments.parse(argv)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_help_needs_nothing_that_is_not_there_and_has_examples() -> None:
    command = ["python3", "-B", "-S", "-m", "benchmarks", "--help"]  # -S: without any installed package
    said = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert "script/bench converge --quick" in said
    assert "exit codes" in said


# --- memory ----------------------------------------------------------------------------------------------


def test_the_processes_of_a_unit_are_added_up_and_one_that_has_ended_counts_for_nothing() -> None:
    said = "rspamd.service 51200\nrspamd.service 1024\npostfix.service 2048\npostfix.service \nodd.service \n"
    assert memory.sizes(said) == {"rspamd.service": 51.0, "postfix.service": 2.0}


# --- the line --------------------------------------------------------------------------------------------


def test_a_frame_waits_its_time_and_frames_keep_their_order() -> None:
    reading, writing = os.pipe()
    now = time.monotonic()
    queue: relay.Queue = deque([(now, b"1"), (now, b"2"), (now + 60, b"3")])
    relay.deliver(queue, writing)
    assert os.read(reading, 10) == b"12"
    wait = relay.until_due({writing: queue})
    assert wait is not None
    assert 59 < wait < 60
    assert relay.until_due({writing: deque()}) is None


def test_the_ping_has_the_checksum_of_rfc_1071() -> None:
    packet = ping.echo(4711, 1)
    assert ping.checksum(packet) == 0
    assert packet[0] == ping.ECHO
