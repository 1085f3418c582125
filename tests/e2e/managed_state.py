"""Runs on a machine: everything that mailops looks after there, as JSON; see steps.state.

Left out is what differs between two machines of the same state: times, random keys and salts, compiled scripts.
"""

import hashlib
import json
import os
import re
import socket
import sqlite3
import stat
import subprocess

FILES = ("/etc", "/usr/lib/mailops", "/usr/bin/mailcfg", "/usr/sbin/mailboot", "/usr/sbin/policy-rc.d")
STATE = "/var/lib/mailops"
VAULT = ("/vault/sieve", "/vault/dkim", "/vault/db")
# Other programs' own: what was in the files before their last change, caches.
OTHERS = re.compile(r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-$|/etc/(ld\.so\.cache|aliases\.db|\.pwd\.lock)$")
UNITS = "mailops-vault.service redis-server.service rspamd.service dovecot.service postfix.service"


def look(path):
    info = os.lstat(path)
    told = [f"{info.st_mode:o} {info.st_uid}:{info.st_gid}"]
    if stat.S_ISLNK(info.st_mode):
        told.append(os.readlink(path))
    elif stat.S_ISREG(info.st_mode):
        told += [f"{info.st_nlink} links", content(path)]
    return told


def content(path):
    if path.endswith((".key", ".txt", ".sqlite")) and path.startswith("/vault/"):
        return "…"
    with open(path, "rb") as file:
        text = file.read()
    if path.startswith(f"{STATE}/generations/") and path.endswith(".json"):
        record = json.loads(text)
        record.pop("when", None)
        text = json.dumps(record, sort_keys=True).encode()
    if path == "/etc/shadow":  # the day of the last change
        text = re.sub(rb":\d+:", b"::", text)
    return hashlib.sha256(text).hexdigest()


def tree(*roots):
    found = {}
    for root in roots:
        if os.path.lexists(root):
            found[root] = look(root)
        for folder, folders, names in os.walk(root):
            if folder == STATE:
                folders[:] = [name for name in folders if name != "vault"]
            for name in folders + names:
                path = f"{folder}/{name}"
                if not OTHERS.search(path) and not path.endswith(".svbin"):
                    found[path] = look(path)
    return found


def rows():
    path = "/vault/db/mail.sqlite"
    if not os.path.exists(path):
        return []
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        users = db.execute("SELECT email, active, length(password) FROM users ORDER BY email").fetchall()
        aliases = db.execute("SELECT src, dst FROM aliases ORDER BY src, dst").fetchall()
        return [users, aliases, db.execute("SELECT name FROM domains ORDER BY name").fetchall()]


def records_fit():
    """Whether each DKIM record is that of the key beside it."""
    found = {}
    folder = "/vault/dkim"
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if name.endswith(".key"):
            told = subprocess.run(
                ["openssl", "pkey", "-in", f"{folder}/{name}", "-pubout"], capture_output=True, text=True, check=False
            ).stdout
            public = "".join(told.splitlines()[1:-1])
            with open(f"{folder}/{name.removesuffix('.key')}.txt") as file:
                text = "".join(re.findall(r'"([^"]*)"', file.read()))
            found[name] = bool(public) and text.endswith(f"p={public}")
    return found


def units():
    properties = "--property=Id,ActiveState,UnitFileState,NeedDaemonReload"
    told = subprocess.run(["systemctl", "show", properties, *UNITS.split()], capture_output=True, text=True, check=True)
    return sorted(told.stdout.split("\n\n"))


def offered():
    """What Postfix says that it takes: it runs, and with which configuration."""
    try:
        with socket.create_connection(("127.0.0.1", 25), 5) as sock, sock.makefile("rwb", buffering=0) as lines:
            lines.readline()
            lines.write(b"EHLO state.test\r\n")
            told = []
            while not told or told[-1][3:4] == b"-":
                told.append(lines.readline())
            return [line.decode().strip()[4:] for line in told[1:]]
    except OSError as error:
        return [str(error)]


def history():
    keys = ("task", "outcome", "generation")
    try:
        with open("/var/log/mailops/history.jsonl") as file:
            return [{key: entry.get(key) for key in keys} for entry in map(json.loads, file)]
    except FileNotFoundError:
        return []


print(
    json.dumps(
        {
            "files": tree(*FILES),
            "kept": tree(STATE),
            "vault": tree(*VAULT),
            "rows": rows(),
            "keys": records_fit(),
            "units": units(),
            "offered": offered(),
            "run": sorted({*tree("/run/mailops")} - {"/run/mailops", "/run/mailops/candidates"}),
            "history": history(),
        }
    )
)
