"""The paths that were written but that no daemon has been told of yet: a run that dies leaves them here."""

from __future__ import annotations

import contextlib
import json
import os

from .machine import STATE
from .shell import write_atomic

PATH = f"{STATE}/pending.json"


def load() -> list[str]:
    try:
        with open(PATH, encoding="utf-8") as file:
            return [str(path) for path in json.load(file)]
    except FileNotFoundError:
        return []


def store(paths: list[str]) -> None:
    os.makedirs(STATE, mode=0o755, exist_ok=True)
    write_atomic(PATH, json.dumps(paths).encode(), 0o600)


def clear() -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(PATH)
