"""What a machine is for: a role is a list of services, in the order in which their units start."""

from __future__ import annotations

from typing import NamedTuple


class Role(NamedTuple):
    """`services` are modules of `mailops.services`; a role without any is not made by mailops yet. What others lean on
    has the lower `order` and is done first. A `central` machine is the one of its site through which all mail goes: by
    mail_server_hostname clients find it, and the machines that only send.
    """

    services: tuple[str, ...] = ()
    order: int = 9
    central: bool = False


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
        central=True,
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


def is_central(role: str) -> bool:
    return role in ROLES and ROLES[role].central


def having(service: str) -> tuple[str, ...]:
    """The roles with that service: those that a task about it is for."""
    return tuple(name for name, role in ROLES.items() if service in role.services)
