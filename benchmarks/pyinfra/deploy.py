"""The mailhost as a pyinfra deploy: the same packages, accounts, directories, files, database rows and services as
mailops' own, from desired.json. On a machine that is as it should be, it changes nothing. Read by pyinfra.
"""

import json
import os

from pyinfra import host
from pyinfra.facts.files import File
from pyinfra.facts.server import Command
from pyinfra.operations import apt, files, server, systemd

with open(os.environ["BENCH_DESIRED"]) as file:
    desired = json.load(file)


def put(prefix="", no_prefix=()):
    """Put the files below `prefix`, and return their operations."""
    return [
        files.put(
            name=item["path"],
            src=desired["files_folder"] + item["path"],
            dest=item["path"],
            user=item["owner"],
            group=item["group"],
            mode=item["mode"],
        )
        for item in desired["files"]
        if item["path"].startswith(prefix) and not item["path"].startswith(no_prefix)
    ]


def changed(operations):
    return lambda: any(operation.did_change() for operation in operations)


def listed(command, *columns):
    """The words in these columns of a mailcfg listing."""
    lines = (host.get_fact(Command, command=command) or "").splitlines()
    return {" ".join(line.split()[column] for column in columns) for line in lines if line}


apt.packages(name="Packages", packages=desired["packages"], no_recommends=True)
for group in desired["groups_wanted"]:
    server.group(name=f"Group {group}", group=group, system=True)
for user in desired["accounts"]:
    server.user(  # noqa: S604 - a login shell
        name=f"Account {user['name']}",
        user=user["name"],
        home=user["home"],
        shell="/usr/sbin/nologin",
        system=True,
        ensure_home=False,
    )
for user in desired["members"]:
    server.user(
        name=f"Groups of {user['name']}", user=user["name"], groups=user["groups"], append=True, ensure_home=False
    )

for certificate in desired["certificates"]:
    if not host.get_fact(File, path=certificate["cert"]):
        names = certificate["names"]
        server.shell(
            name="Certificate",
            commands=[
                f"openssl req -x509 -newkey rsa:2048 -nodes -sha256 -days 3650 -subj /CN={names[0]} "
                f"-addext subjectAltName=DNS:{',DNS:'.join(names)} "
                f"-keyout {certificate['key']} -out {certificate['cert']}"
            ],
        )

units = put("/etc/systemd/")
systemd.daemon_reload(name="Reload systemd", _if=changed(units))
systemd.service(name="The vault, which a person has made and opened", service="mailops-vault.service", running=True)
for item in desired["directories"]:
    files.directory(name=item["path"], path=item["path"], user=item["owner"], group=item["group"], mode=item["mode"])

for domain in sorted(set(desired["mail"]["domains"]) - listed("mailcfg lsdom", 0)):
    server.shell(name=f"Domain {domain}", commands=[f"mailcfg adddom {domain}"])
for email in sorted(set(desired["mail"]["users"]) - listed("mailcfg lsuser", 0)):
    server.shell(name=f"User {email}", commands=[f"mailcfg adduser {email}"], _stdin=[desired["passwords"][email]])
for alias in sorted({" ".join(pair) for pair in desired["mail"]["aliases"]} - listed("mailcfg lsalias", -2, -1)):
    server.shell(name=f"Alias {alias}", commands=[f"mailcfg addalias {alias}"])
for domain in desired["dkim"]["domains"]:
    for selector in desired["dkim"]["selectors"]:
        key = f"{desired['dkim']['keyroot']}/{domain}.{selector}.key"
        if not host.get_fact(File, path=key):
            server.shell(name=f"DKIM key of {domain}", commands=[f"openssl genrsa -out {key} 2048"])

told = {
    "redis-server.service": put("/etc/redis/"),
    "rspamd.service": put("/etc/rspamd/"),
    "dovecot.service": put("/etc/dovecot/"),
    "postfix.service": put("/etc/postfix/"),
}
put(no_prefix=("/etc/systemd/", "/etc/redis/", "/etc/rspamd/", "/etc/dovecot/", "/etc/postfix/"))
for unit in desired["services"]:
    systemd.service(name=f"{unit}, which waits for the vault at boot", service=unit, running=True, enabled=False)
    if unit == "redis-server.service":
        systemd.service(name=f"Restart {unit}", service=unit, restarted=True, _if=changed(told[unit]))
    else:
        systemd.service(name=f"Reload {unit}", service=unit, reloaded=True, _if=changed(told[unit]))
