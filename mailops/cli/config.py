"""Fabric's settings, without its reading of ssh_config: `ssh_config.py` does that, once a host is asked for."""

from __future__ import annotations

import fabric


class Config(fabric.Config):  # type: ignore[misc]
    """Reads no ssh_config: Paramiko's reader would end in a traceback at much that OpenSSH takes."""

    def load_ssh_config(self) -> None:
        """Nothing: whoever connects reads it."""
