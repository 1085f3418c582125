"""What the tests of runs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.remote.changes.paper import Paper


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paper:
    return Paper(tmp_path, monkeypatch)
