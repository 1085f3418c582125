"""An apt repository of somebody else's: Debian's own Rspamd under a higher version, and packages that nobody wants.

It lies on the outside machine, which builds it, signs it with throw-away keys, and serves it.
"""

from __future__ import annotations

from mailops.lab import replica
from tests.e2e.house import House, until

URL = "http://mx.elsewhere.test:8000/"
ROOT = "/srv/apt"
NEW, BAD = "99.0-1~upstream", "99.1-1~upstream"
CODE_NAMES = {12: "bookworm", 13: "trixie"}
DIRECTLY = "/etc/apt/apt.conf.d/99repository"  # not through the lab's cache of Debian's packages

PREPARE = f"""
set -e
which gpg >/dev/null || {{ apt-get -q update; apt-get -qy install --no-install-recommends gpg gpg-agent; }} >&2
mkdir -p {ROOT}/pool /root/keys; chmod 700 /root/keys; cd /root/keys
for owner in right wrong; do
    [ -e $owner.asc ] && continue
    gpg --homedir . --batch --quiet --passphrase '' --quick-gen-key $owner ed25519 sign never
    gpg --homedir . --armor --export $owner >$owner.asc
done
"""
# Everything of Debian's package but its version; in the bad one `rspamadm configtest` objects.
PACK = f"""
set -e
cd {ROOT}
rm -rf tree pool/rspamd_*
dpkg-deb -R rspamd.deb tree
sed -i 's/^Version: .*/Version: {NEW}/' tree/DEBIAN/control
dpkg-deb -Zgzip -z1 -b tree pool/rspamd_new.deb
sed -i 's/^Version: .*/Version: {BAD}/' tree/DEBIAN/control
mv tree/usr/bin/rspamadm tree/usr/bin/rspamadm.real
printf '%s\\n' '#!/bin/sh' '[ "$1" != configtest ] || {{ echo "milters are a section of tomorrow" >&2; exit 1; }}' \\
    'exec /usr/bin/rspamadm.real "$@"' >tree/usr/bin/rspamadm
chmod 755 tree/usr/bin/rspamadm
dpkg-deb -Zgzip -z1 -b tree pool/rspamd_bad.deb
rm -rf tree; mkdir -p tree/DEBIAN
for decoy in postfix hello; do
    printf '%s\\n' "Package: $decoy" 'Version: 99.0' 'Architecture: all' 'Maintainer: x <x@x>' 'Description: a decoy' \\
        >tree/DEBIAN/control
    dpkg-deb -b tree pool/$decoy.deb
done
rm -rf tree
"""
PUBLISH = """
set -e
cd {root}; suite=dists/{suite}; index=$suite/main/binary-amd64
rm -rf dists; mkdir -p $index
for deb in {debs}; do
    dpkg-deb -f pool/$deb.deb
    printf 'Filename: pool/%s\\nSize: %s\\nSHA256: %s\\n\\n' $deb.deb $(stat -c %s pool/$deb.deb) \\
        $(sha256sum pool/$deb.deb | cut -d' ' -f1)
done >$index/Packages
{{
    printf 'Origin: Elsewhere\\nSuite: {suite}\\nCodename: {suite}\\nArchitectures: amd64\\nComponents: main\\n'
    printf 'Date: %s\\nSHA256:\\n %s %s main/binary-amd64/Packages\\n' "$(LC_ALL=C date -Ru)" \\
        $(sha256sum $index/Packages | cut -d' ' -f1) $(stat -c %s $index/Packages)
}} >$suite/Release
gpg --homedir /root/keys --batch --quiet --yes -u {owner} --clearsign -o $suite/InRelease $suite/Release
rm $suite/Release
"""


class Repository:
    """What the outside machine offers to the house's mail server."""

    def __init__(self, house: House) -> None:
        self.house = house
        house.run("outside", PREPARE)
        folder = replica.root_path(house.lab, "outside") / ROOT.lstrip("/")
        if not (folder / "pool/hello.deb").exists():
            house.run(
                "mail", "cd /var/tmp && rm -f rspamd_*.deb && apt-get -q download rspamd && mv rspamd_*.deb rspamd.deb"
            )
            debians = replica.root_path(house.lab, "mail") / "var/tmp/rspamd.deb"
            (folder / "rspamd.deb").write_bytes(debians.read_bytes())
            debians.unlink()
            house.run("outside", PACK)
        self.serve()
        house.run("mail", f"echo 'Acquire::http::Proxy::mx.elsewhere.test \"DIRECT\";' >{DIRECTLY}")

    def serve(self) -> None:
        self.stop()
        serve = f"systemd-run -q --unit=repository --working-directory={ROOT} python3 -m http.server 8000"
        self.house.run("outside", serve)
        there = "bash -c ': </dev/tcp/mx.elsewhere.test/8000' && echo up"
        until(lambda: self.house.run("mail", there, check=False), 20, URL)

    def stop(self) -> None:
        self.house.run("outside", "systemctl stop repository; systemctl reset-failed repository", check=False)

    def publish(self, *debs: str, owner: str = "right") -> None:
        """Offer these and no others, signed by one of the two owners of keys."""
        names = {"root": ROOT, "suite": CODE_NAMES[self.house.release], "owner": owner, "debs": " ".join(debs)}
        self.house.run("outside", PUBLISH.format(**names))

    def key(self, owner: str = "right") -> str:
        return self.house.run("outside", f"cat /root/keys/{owner}.asc")

    def fingerprint(self, owner: str = "right") -> str:
        said = self.house.run("outside", f"gpg --homedir /root/keys --batch --with-colons --fingerprint {owner}")
        return next(line.split(":")[9] for line in said.splitlines() if line.startswith("fpr:"))

    def close(self) -> None:
        self.stop()
        self.house.run("mail", f"rm -f {DIRECTLY}")
