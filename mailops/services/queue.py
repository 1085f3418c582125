"""Postfix's queue: it lies in the vault, and bindfs(1) shows it where Postfix looks for it."""

from __future__ import annotations

from mailops.services.service import At, Service, Tie

# Postfix's queue_directory.
FOLDER = "/var/spool/postfix"


def service(at: At) -> Service:
    return Service(packages=("bindfs",), ties=(Tie("mailops-queue.service"),), names={"queue_directory": FOLDER})
