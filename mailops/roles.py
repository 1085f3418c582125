"""What a machine is for: a role is a list of services, in the order in which their units start."""

from __future__ import annotations

from typing import NamedTuple


class Role(NamedTuple):
    """`services` are modules of `mailops.services`; a role without any is not made by mailops yet. What others lean on
    has the lower `order` and is done first.
    """

    services: tuple[str, ...] = ()
    order: int = 9


ROLES = {
    "mailhost": Role(
        (
            "vault",
            "certificate",
            "accounts",
            "redis",
            "dkim",
            "rspamd",
            "dovecot",
            "srs",
            "queue",
            "resolver",
            "postfix",  # last: mail is taken when everything else is there
        ),
        order=0,
    ),
    "mailnull": Role(("resolver", "nullclient"), order=2),
    "webmail": Role(order=1),
    "bastion": Role(),
}
# Those that mailops makes.
MADE = tuple(name for name, role in ROLES.items() if role.services)


def runs(role: str, service: str) -> bool:
    """Whether machines of that role have the service; "" is no role."""
    return role in ROLES and service in ROLES[role].services


def having(service: str) -> tuple[str, ...]:
    """The roles with that service: those that a task about it is for."""
    return tuple(name for name, role in ROLES.items() if service in role.services)
