"""Which certificates are ours and good; openssl makes them."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from mailops.remote.certificates import certificate

NAME = "mail.example.test"


@pytest.fixture
def item(tmp_path: Path) -> dict[str, Any]:
    return {"names": [NAME], "cert": str(tmp_path / "fullchain.pem"), "key": str(tmp_path / "privkey.pem")}


def sign(
    item: dict[str, Any], *extensions: str, days: int = 820, subject: str = f"/CN={NAME}", san: str = NAME
) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", subject, "-days", str(days), "-keyout", item["key"], "-out", item["cert"]]
    for extension in (f"subjectAltName=DNS:{san}", *extensions):
        command += ["-addext", extension]
    subprocess.run(command, check=True, capture_output=True)


def found(item: dict[str, Any]) -> str:
    return " ".join(certificate.converge([item], dry_run=True))


def test_one_that_we_make_is_good_for_two_years(item: dict[str, Any]) -> None:
    sign(item, *certificate.EXTENSIONS)
    leaf = certificate.read(item["cert"])
    assert leaf
    assert leaf.ours
    assert found(item) == ""
    now = time.time()
    assert abs(leaf.starts - now) < 60
    assert certificate.fault(leaf, [NAME], now + 759 * 86400) == ""
    assert "ends on" in certificate.fault(leaf, [NAME], now + 761 * 86400)


@pytest.mark.parametrize(
    ("extensions", "days", "why"),
    [
        (("basicConstraints=CA:TRUE", "extendedKeyUsage=serverAuth"), 820, "telephones"),
        (("basicConstraints=critical,CA:FALSE",), 820, "telephones"),
        (certificate.EXTENSIONS, 3650, "telephones"),
        (certificate.EXTENSIONS, 30, "ends on"),
    ],
)
def test_what_is_not_good_is_made_anew(item: dict[str, Any], extensions: tuple[str, ...], days: int, why: str) -> None:
    sign(item, *extensions, days=days)
    assert why in found(item)


def test_one_for_another_name_is_made_anew(item: dict[str, Any]) -> None:
    sign(item, *certificate.EXTENSIONS, subject="/CN=old.example.test", san="old.example.test")
    assert "another name" in found(item)


def test_what_somebody_else_has_made_is_left_alone(item: dict[str, Any]) -> None:
    sign(item, days=3, subject=f"/O=Somebody/CN={NAME}")
    assert found(item) == ""
    Path(item["cert"]).write_text("no certificate")
    assert found(item) == ""


def test_what_is_missing_is_made(item: dict[str, Any]) -> None:
    assert found(item) == f"self-signed certificate for {NAME}"


def test_one_that_clients_refuse_for_its_dates_is_told(item: dict[str, Any]) -> None:
    certificate.converge([item])
    leaf = certificate.read(item["cert"])
    assert leaf
    assert certificate.refused(item, leaf.starts) == ""
    assert "ended on" in certificate.refused(item, leaf.ends)
    assert "is good from" in certificate.refused(item, leaf.starts - 1)


def test_what_somebody_elses_lacks_is_told(item: dict[str, Any]) -> None:
    sign(item, subject="/O=Some CA", san="*.example.test,DNS:imap.example.org,IP:192.0.2.1")
    leaf = certificate.read(item["cert"])
    assert leaf
    assert leaf.names == ["*.example.test", "imap.example.org"]
    assert [item["names"] for item in certificate.shown([item])] == [leaf.names]
    assert certificate.look([item]) == []
    other = item | {"names": [NAME, "deep.mail.example.test", "imap.example.org"]}
    assert "*.example.test, imap.example.org, not deep.mail.example.test; next: put" in certificate.look([other])[0]


@pytest.mark.parametrize(("days", "told"), [(13, "ends on"), (20, "")])
def test_somebody_elses_that_ends_soon_is_told(item: dict[str, Any], days: int, told: str) -> None:
    sign(item, subject="/O=Some CA", days=days)
    assert told in "".join(certificate.look([item]))
    assert bool(certificate.look([item])) == bool(told)


@pytest.mark.parametrize("cut", [1, 5, 9])
def test_names_that_are_cut_off_are_none(item: dict[str, Any], cut: int) -> None:
    sign(item)
    leaf = certificate.read(item["cert"])
    assert leaf
    found = certificate.ALTERNATIVES.search(leaf.der)
    assert found
    assert leaf._replace(der=leaf.der[: found.end() + cut]).names in ([], [""], [NAME[: cut - 6]])
