"""Postfix follows a resolver that changes, or that was not there at boot. For every machine that has a Postfix."""

from __future__ import annotations

from mailops.services.service import At, Service


def service(at: At) -> Service:
    return Service()
