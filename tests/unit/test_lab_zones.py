"""The lab's zones: what is in them, and what may be published."""

from __future__ import annotations

import pytest

from mailops.lab import zones
from mailops.lab.layout import LabError
from mailops.lab.zones import Record

ZONES = ["example.test", "sub.example.test", "1.213.10.in-addr.arpa", ""]


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("example.test", "example.test"),
        ("MAIL.Example.TEST.", "example.test"),
        ("a.sub.example.test", "sub.example.test"),
        ("notexample.test", ""),
        ("10.1.213.10.in-addr.arpa", "1.213.10.in-addr.arpa"),
    ],
)
def test_a_name_lives_in_the_longest_zone_that_it_ends_with(name: str, zone: str) -> None:
    assert zones.home(name, ZONES) == zone


def test_a_name_without_a_zone_has_no_home() -> None:
    assert zones.home("elsewhere.test", ["example.test"]) is None


def test_addresses_go_both_ways() -> None:
    assert zones.addresses({"mail.example.test": "10.213.1.10"}) == [
        Record("mail.example.test", "A", "10.213.1.10"),
        Record("10.1.213.10.in-addr.arpa", "PTR", "mail.example.test."),
    ]


def test_a_machine_that_only_sends_has_its_bounces_taken_by_the_mail_server() -> None:
    names = ["mail.example.test", "web.example.test", "second.test"]
    records = zones.senders(names, "mail.example.test", ["example.test", "second.test"])
    assert records == [
        Record("mail.example.test", "TXT", "v=spf1 a -all"),
        Record("web.example.test", "TXT", "v=spf1 a:mail.example.test -all"),
        Record("web.example.test", "MX", "10 mail.example.test."),
    ]


def test_what_is_published_replaces_the_same_name_and_type_alone() -> None:
    made_up = zones.mail("example.test", "mail.example.test")
    records = zones.replace(made_up, [Record("Example.Test.", "txt", "v=spf1 -all")])
    assert [record.text for record in records if record.key == ("example.test", "TXT")] == ["v=spf1 -all"]
    assert ("example.test", "MX") in {record.key for record in records}


def test_long_text_is_cut_into_strings_of_255() -> None:
    strings = zones.quoted("x" * 600).split()
    assert [len(string) - 2 for string in strings] == [255, 255, 90]


def test_quotes_and_backslashes_are_escaped() -> None:
    assert zones.quoted('a"b\\c') == '"a\\"b\\\\c"'


def test_quoted_text_is_left_alone() -> None:
    assert zones.quoted('"v=DKIM1; " "p=AAA"') == '"v=DKIM1; " "p=AAA"'


@pytest.mark.parametrize(
    "record", [Record("a b", "TXT", ""), Record("a", "TXT", "x\n$INCLUDE y"), Record("$TTL", "A", "1")]
)
def test_a_record_that_would_break_the_zone_is_refused(record: Record) -> None:
    with pytest.raises(LabError):
        zones.line(record)


def test_each_zone_file_has_its_own_records_and_serial() -> None:
    records = [Record("mail.example.test", "A", "10.213.1.10"), *zones.name_servers(ZONES, "10.213.1.2")]
    files = zones.zone_files(ZONES, records, serial=7)
    assert files["example.test"].splitlines() == [
        "$TTL 5",
        "example.test. SOA ns.example.test. hostmaster.example.test. 7 3600 600 86400 5",
        "example.test. NS ns.example.test.",
        "mail.example.test. A 10.213.1.10",
        "ns.example.test. A 10.213.1.2",
    ]
    assert files[""].splitlines()[1:] == [
        ". SOA ns. hostmaster. 7 3600 600 86400 5",
        ". NS ns.",
        "ns. A 10.213.1.2",
    ]
