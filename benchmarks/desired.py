"""What the machine should be, handed to the others: the manifest that mailops itself has made, as plain data, and the
very bytes of its files. So all of them ask the same machine the same questions.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.lab import BENCH, House
from mailops import secrets
from mailops.lab.layout import write
from mailops.manifest import Manifest
from mailops.services.compose import manifest_for
from mailops.site import reader

FOLDER = BENCH / "desired"


def write_down(house: House) -> Path:
    """Make .bench/desired anew: desired.json, and files/ laid out as the machine is."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    made = manifest(house)
    for file in made.files:
        copy = FOLDER / "files" / file.path.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.content)
    write(FOLDER / "desired.json", json.dumps(_plain(made) | _login(house), indent=1) + "\n")
    return FOLDER


def manifest(house: House) -> Manifest:
    wanted = reader.load(house.sites[0])
    facts = {"release": house.release, "mailhost_certificate": ""}
    return manifest_for(wanted, wanted.hosts["mail"], facts, secrets.resolve)


def _plain(manifest: Manifest) -> dict[str, Any]:
    """Modes as octal text, as both tools like them; what only mailops has (probes, checks) is left out."""
    data = manifest.to_json()
    directories = [*data["directories"], *data["vault"]["directories"]]
    for item in (*directories, *data["files"]):
        item["mode"] = f"{item['mode']:04o}"
    return {
        "packages": data["packages"],
        "accounts": [user for user in data["users"] if not user["groups"]],
        "members": [user for user in data["users"] if user["groups"]],
        "groups_wanted": sorted({group for user in data["users"] for group in user["groups"]}),
        "directories": directories,
        "certificates": data["certificates"],
        "vault": data["vault"],
        "mail": data["accounts"],
        "dkim": data["dkim"],
        "files": [{key: item[key] for key in ("path", "mode", "owner", "group")} for item in data["files"]],
        # The order of mailops: Postfix comes last.
        "services": [service["unit"] for service in data["services"]],
    }


def _login(house: House) -> dict[str, str]:
    host = house.host
    return {
        "address": str(host["address"]),
        "user": str(host["user"]),
        "identity": str(host["identity"]),
        "known_hosts": str(house.known_hosts),
        "files_folder": str(FOLDER / "files"),
    }
