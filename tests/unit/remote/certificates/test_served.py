"""Which certificates the daemons have been told of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mailops.remote.certificates import certificate, served
from mailops.remote.shared.errors import AgentError
from tests.unit.remote.certificates.test_certificate import sign


@pytest.fixture
def item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(served, "STATE", str(tmp_path / "state"))
    monkeypatch.setattr(served, "TOLD", str(tmp_path / "state" / "certificates.json"))
    made = {"names": ["mail.example.test"], "cert": str(tmp_path / "cert"), "key": str(tmp_path / "key")}
    sign(made)
    return made


def test_a_replaced_one_is_new_until_the_daemons_are_told(item: dict[str, Any]) -> None:
    assert served.unseen([item]) == []  # of a machine that knows nothing of it yet
    served.seen([item])
    assert served.unseen([item]) == []
    sign(item)
    assert served.unseen([item]) == [item["cert"]]
    assert "the old one is served; next: fab -H NAME push" in "".join(certificate.look([item]))
    served.seen([item])
    assert served.unseen([item]) == []


def test_one_that_is_made_anew_is_new_on_a_machine_that_an_earlier_mailops_set_up(item: dict[str, Any]) -> None:
    Path(served.STATE).mkdir()
    served.remember(item["cert"])
    sign(item)
    assert served.unseen([item]) == [item["cert"]]


def test_the_mark_of_an_earlier_mailops_counts(item: dict[str, Any]) -> None:
    served.seen([item])
    Path(f"{item['cert']}.unseen").touch()
    assert served.unseen([item]) == [item["cert"]]
    served.seen([item])
    assert served.unseen([item]) == []


def test_one_with_another_ones_key_is_refused(item: dict[str, Any]) -> None:
    served.require_pairs([item], [item["cert"]])
    certificate_alone = Path(item["cert"]).read_bytes()
    sign(item)
    Path(item["cert"]).write_bytes(certificate_alone)
    served.require_pairs([item], [])
    with pytest.raises(AgentError, match="cannot be served with"):
        served.require_pairs([item], [item["cert"]])
