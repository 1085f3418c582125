"""The certificate that the mailhost shows on every port, and its key."""

from __future__ import annotations

from mailops.manifest import Certificate
from mailops.services.service import At, Service

FOLDER = "/etc/mailops/tls"
CHAIN = f"{FOLDER}/fullchain.pem"
KEY = f"{FOLDER}/privkey.pem"


def service(at: At) -> Service:
    return Service(
        packages=("openssl", "ca-certificates"),
        names={"tls_chain": CHAIN, "tls_key": KEY},
        certificates=(Certificate((at.site.mail_server_hostname,), CHAIN, KEY),),
    )
