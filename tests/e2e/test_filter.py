"""The spam filter between everybody: who reaches its sockets, and that no message makes another one wait."""

from __future__ import annotations

from tests.e2e.house import House

MILTERS = "/var/spool/postfix/rspamd"
CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


def test_postfix_alone_reaches_the_milters(up: House) -> None:
    for path in (f"{MILTERS}/incoming.sock", f"{MILTERS}/outgoing.sock", "/run/rspamd/controller.sock"):
        said = up.run("mail", f"runuser -u nobody -- python3 -c '{CONNECT}' {path} 2>&1 || :")
        assert "PermissionError" in said, path
    up.run("mail", f"runuser -u postfix -- python3 -c '{CONNECT}' {MILTERS}/incoming.sock")
    ports = up.run("mail", "ss -Hltn | awk '{ print $4 }'").split()
    assert not [port for port in ports if port.rpartition(":")[2] in ("11332", "11333", "11335")]
