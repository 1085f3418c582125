"""The lab's name server, on the outside machine: writes its zones, and lets tests publish records.

What is published is kept in the lab's folder, so it survives the machine.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from typing import Any

from mailops.lab import zones
from mailops.lab.layout import OUTSIDE, Lab, LabError, locked, write
from mailops.lab.machine import Machine, chroot, machines, put
from mailops.lab.running import is_on, run, wait_for_ssh
from mailops.lab.zones import Record
from mailops.site.model import Site
from mailops.site.reader import load

FOLDER = "/etc/knot/zones"

# The zones are checked before the server sees them, so that a bad record never takes a domain away.
CHECK = f"""
for file in {FOLDER}/.new/*.zone; do
    name=$(basename "$file" .zone)
    [ "$name" != root ] || name=.
    kzonecheck --origin "$name" "$file" || exit 1
done
mv {FOLDER}/.new/*.zone {FOLDER}/
"""

# The first waits for a boot, the second takes up new zones, the third comes back when those named are being served.
RELOAD = "systemctl start knot.service && knotc reload && knotc --blocking zone-reload"


def publish(lab: Lab, records: Iterable[tuple[str, str, str]]) -> None:
    """Put (name, type, text) records into the lab's DNS; answered from the moment this returns.

    They replace whatever is there with the same names and types. TXT is given as bare text.
    Raises LabError when the records make no valid zone; then nothing changes.
    """
    new = [Record(*record) for record in records]
    with locked(f"dns-{lab.name}"):
        _serve(lab, zones.replace(_published(lab), new))


def unpublish(lab: Lab, records: Iterable[tuple[str, str]]) -> None:
    """Take published records of these (name, type) away again; what the lab made up comes back."""
    gone = {Record(name, kind, "").key for name, kind in records}
    with locked(f"dns-{lab.name}"):
        _serve(lab, [record for record in _published(lab) if record.key not in gone])


def refresh(lab: Lab) -> None:
    """Write the zones anew, after the site's hosts or domains have changed."""
    with locked(f"dns-{lab.name}"):
        site = load(lab.hosts_file)
        known = zones.site_zones(site)
        _serve(lab, [record for record in _published(lab) if zones.home(record.name, known)])


def _serve(lab: Lab, published: list[Record]) -> None:
    outside = Machine.load(lab, OUTSIDE)
    site = load(lab.hosts_file)
    _refuse_foreign(published, zones.site_zones(site))
    names = zones.all_zones(site, lab.network)
    records = zones.replace(_made_up(lab, site, names), published)
    serial = int(_state(lab)["serial"]) + 1
    _put_zones(outside, zones.zone_files(names, records, serial))
    put(outside, "/etc/knot/knot.conf", zones.server_conf(names))
    write(lab.folder / "dns.json", json.dumps({"serial": serial, "published": published}, indent=1) + "\n")
    if is_on(outside):
        wait_for_ssh(outside)
        run(outside, f"{RELOAD} {' '.join(f'{name}.' for name in names)}")


def _made_up(lab: Lab, site: Site, names: Iterable[str]) -> list[Record]:
    """The records that a lab has before anybody publishes any."""
    there = machines(lab)
    records = zones.name_servers(names, lab.name_server)
    records += zones.addresses({machine.hostname: machine.address for machine in there})
    for machine in there:
        name = f"{machine.name}.{site.domain}"
        if machine.name != OUTSIDE and name not in {other.hostname for other in there}:
            records.append(Record(name, "A", machine.address))
    for domain in site.mail_domains:
        records += zones.mail(domain, site.mail_server_hostname)
    ours = {machine.hostname for machine in there if machine.name != OUTSIDE} | {site.mail_server_hostname}
    records += zones.senders(sorted(ours), site.mail_server_hostname, site.mail_domains)
    records += zones.senders([zones.STRANGER_MX], zones.STRANGER_MX, [])
    return records + zones.mail(zones.STRANGER_DOMAIN, zones.STRANGER_MX)


def _put_zones(outside: Machine, files: dict[str, str]) -> None:
    shutil.rmtree(outside.root / FOLDER.lstrip("/") / ".new", ignore_errors=True)
    for zone, text in files.items():
        put(outside, f"{FOLDER}/.new/{zones.file_name(zone)}", text)
    try:
        chroot(outside, ["sh", "-eu"], CHECK)
    except LabError as error:
        raise LabError(f"the DNS server would refuse these records: {error.message}") from None


def _refuse_foreign(records: Iterable[Record], known: list[str]) -> None:
    for record in records:
        if not zones.home(record.name, known):
            raise LabError(
                f"the lab's DNS has no zone for {record.name}",
                f"it has {', '.join(known)}; a domain comes in through mail_domains of hosts.toml",
            )


def _published(lab: Lab) -> list[Record]:
    return [Record(*record) for record in _state(lab)["published"]]


def _state(lab: Lab) -> dict[str, Any]:
    path = lab.folder / "dns.json"
    state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"serial": 0, "published": []}
    return state
