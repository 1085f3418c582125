"""A self-signed certificate, so that TLS works from the first minute."""

from __future__ import annotations

import os
from typing import Any

from .shell import run, write_atomic

DAYS = 3650


def converge(wanted: list[dict[str, Any]], dry_run: bool = False) -> list[str]:
    """Make each certificate that does not exist; one that does, whoever made it, is left alone."""
    absent = [item for item in wanted if not (os.path.exists(item["cert"]) and os.path.exists(item["key"]))]
    if not dry_run:
        for item in absent:
            _make(item)
    return [f"self-signed certificate for {', '.join(item['names'])}" for item in absent]


def _make(item: dict[str, Any]) -> None:
    """openssl-req(1); the key is born in a folder that only root can enter."""
    import tempfile

    names = ",".join(f"DNS:{name}" for name in item["names"])
    os.makedirs(os.path.dirname(item["key"]), mode=0o755, exist_ok=True)
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        key, cert = f"{folder}/key", f"{folder}/cert"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256"]
        command += ["-days", str(DAYS), "-subj", f"/CN={item['names'][0]}", "-addext", f"subjectAltName={names}"]
        run(*command, "-keyout", key, "-out", cert)
        for lone in (item["key"], item["cert"]):  # half a pair fits no other half; its owner finds it beside
            if os.path.exists(lone):
                os.replace(lone, f"{lone}.old")
        for source, target, mode in ((key, item["key"], 0o600), (cert, item["cert"], 0o644)):
            with open(source, "rb") as file:
                write_atomic(target, file.read(), mode)
