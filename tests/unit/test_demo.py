"""The pure parts of script/demo: reading a terminal's output, apt's simulation, its own announcement."""

from __future__ import annotations

import pytest

from mailops.lab import demo, demo_packages
from mailops.lab.demo_screen import final_lines

SIMULATION = """\
Inst libc6 [2.36-9+deb12u9] (2.36-9+deb12u10 Debian:12.9/stable [amd64])
Inst systemd-container (252.31-1~deb12u1 Debian:12.9/stable [amd64])
Inst mmdebstrap (1.3.5-7 Debian:12.9/stable [all])
Conf systemd-container (252.31-1~deb12u1 Debian:12.9/stable [amd64])
"""


def test_only_new_packages_are_taken_away_again() -> None:
    assert demo_packages.NEW.findall(SIMULATION) == ["systemd-container", "mmdebstrap"]


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("one\r\ntwo\r\n", ["one", "two"]),
        ("\r\x1b[K… packages 1 %\r\x1b[K… packages 2 %\r\x1b[K● packages\r\n", ["● packages"]),
        ("a\n\nb\n\n\n", ["a", "", "b"]),
        ("", []),
    ],
)
def test_a_line_that_was_written_over_is_gone(printed: str, shown: list[str]) -> None:
    assert final_lines(printed) == shown


def test_the_announcement_names_what_will_be_installed() -> None:
    assert "installs mmdebstrap and what they need" in demo.announcement(["mmdebstrap"])
    assert "all it needs are there" in demo.announcement([])


def test_there_is_no_demo_on_another_release(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        demo.arguments().parse_args(["--debian", "11"])
    assert ended.value.code == 2
    assert "--debian" in capsys.readouterr().err
