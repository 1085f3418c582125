"""DKIM keys in the vault: one for each domain and selector, with the DNS record beside it (RFC 6376)."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from . import machine
from .shared.errors import BAD_INPUT, LOCKED, AgentError
from .shared.records import DOMAIN, SELECTOR, record_name, zone_lines
from .system import holder
from .system.access import READ, obstacle
from .system.files import ids, read, read_json
from .system.shell import run, write_atomic

if TYPE_CHECKING:
    from .shared.calls import DkimArgs, Key, Keys, Link
    from .shared.forms import Dkim

OWNER, GROUP, MODE = "root", "_rspamd", 0o640
PATIENCE = 30.0  # seconds for another call to make its keys
BITS = 2048  # RFC 8301: at least 1024, should be 2048


def converge(wanted: Dkim, link: Link, dry_run: bool = False) -> list[str]:
    """Make the keys of `wanted` (Manifest.dkim) that are missing; a key that exists is never touched.

    Returns a line for each change that was made, or would be. AgentError (5) while the vault is locked.
    """
    return [change.words for change in _converged(wanted, dry_run)]


class Change(NamedTuple):
    words: str
    key: str = ""  # where a key was made, or would be: the name of its record


def _converged(wanted: Dkim, dry_run: bool) -> list[Change]:
    keyroot = wanted["keyroot"]
    pairs = [(domain, selector) for selector in wanted["selectors"] for domain in wanted["domains"]]
    if not pairs:
        return []
    if not os.path.isdir(keyroot):
        if dry_run:
            return [Change(f"DKIM keys in {keyroot}, as far as they are missing: the vault is not open to look")]
        raise AgentError(f"{keyroot} is not there: the vault is locked", "fab unlock", LOCKED)
    missing = _converge_all(keyroot, pairs, dry_run=True)
    if dry_run:
        return missing
    if missing or not _names(pairs) <= set(_noted() or []):
        with _alone(keyroot):
            missing = _converge_all(keyroot, pairs, dry_run=False)
            _remember(pairs)
    return missing


def call(args: DkimArgs, link: Link) -> Keys:
    """All keys of this machine: {"keys": [{domain, selector, name, value, path}], "made": [name]}.

    `args` may have "make", a selector: its missing keys are "made" first, for every domain.
    Only public data is returned.
    """
    applied = machine.manifest()
    wanted = applied.get("dkim")
    if not wanted:
        raise AgentError("this machine signs nothing", "set dkim_selector in hosts.toml, then: fab bootstrap")
    if not machine.vault_is_open(applied):
        raise AgentError("the vault, with the DKIM keys, is locked", "fab unlock", LOCKED)
    made: list[str] = []
    if selector := args.get("make"):
        if not SELECTOR.fullmatch(selector):
            raise AgentError(f"{selector!r} is not a selector", "write it like 202701", code=BAD_INPUT)
        made = [change.key for change in _converged(wanted | {"selectors": [selector]}, dry_run=False) if change.key]
    return {"keys": _keys(wanted["keyroot"], wanted["domains"]), "made": made}


def _converge_all(keyroot: str, pairs: list[tuple[str, str]], dry_run: bool) -> list[Change]:
    changes: list[Change] = []
    for domain, selector in pairs:
        changes += _converge_one(f"{keyroot}/{domain}.{selector}", domain, selector, dry_run)
    return changes


def fault(wanted: Dkim) -> str:
    """What is wrong with the keys that sign now, and what to do; "" for nothing. The vault is open."""
    said = []
    selector = wanted["selectors"][0]
    gone = [domain for domain in wanted["domains"] if not os.path.exists(_signing(wanted, domain))]
    lost = [domain for domain in gone if _was_there(wanted["keyroot"], domain, selector)]
    if new := [domain for domain in gone if domain not in lost]:
        said.append(f"there is no key yet for {', '.join(new)} ({selector}); next: fab -H NAME bootstrap")
    if lost:
        names = f"{', '.join(lost)} ({selector})"
        remedy = "restore it from a backup, or make a new one, whose record is to be published: fab -H NAME bootstrap"
        said.append(f"the key of {names} is missing, and mail leaves unsigned; next: {remedy}")
    for domain in wanted["domains"]:
        if domain not in gone and (why := _useless(_signing(wanted, domain))):
            said.append(f"mail of {domain} leaves unsigned: {why}")
    return "; ".join(said)


def _signing(wanted: Dkim, domain: str) -> str:
    return f"{wanted['keyroot']}/{domain}.{wanted['selectors'][0]}.key"


def _useless(key: str) -> str:
    """Why nothing is signed with a key that is there."""
    if why := obstacle(GROUP, key, READ):
        return f"{why}; next: fab -H NAME bootstrap"
    try:
        lines = read(key).decode("ascii").strip().splitlines()
        whole = "PRIVATE KEY-----" in lines[0] and "PRIVATE KEY-----" in lines[-1]
        sequence = base64.b64decode("".join(lines[1:-1]), validate=True)
    except (ValueError, IndexError):
        whole, sequence = False, b""
    if whole and is_whole(sequence):
        return ""
    return (
        f"{key} is damaged; next: restore it from a backup, or move it away and make a new one: fab -H NAME bootstrap"
    )


def is_whole(sequence: bytes) -> bool:
    """Whether DER (X.690) that starts with a SEQUENCE is as long as it says."""
    if len(sequence) < 4 or sequence[0] != 0x30:
        return False
    count = sequence[1] & 0x7F if sequence[1] > 0x80 else 0
    length = int.from_bytes(sequence[2 : 2 + count], "big") if count else sequence[1]
    return len(sequence) == 2 + count + length


def _was_there(keyroot: str, domain: str, selector: str) -> bool:
    """Whether a missing key has left something behind: its record, or our note that it was made."""
    made = _noted()
    if made is None:  # what was set up earlier has no note, and what its manifest asks for was made
        try:
            applied = machine.manifest()["dkim"]
        except AgentError:  # the first bootstrap
            return False
        made = [f"{one}.{other}" for one in applied["domains"] for other in applied["selectors"]] if applied else []
    return f"{domain}.{selector}" in made or os.path.exists(f"{keyroot}/{domain}.{selector}.txt")


def _remember(pairs: list[tuple[str, str]]) -> None:
    """A push brings a manifest with domains whose keys only the next bootstrap makes: so it cannot tell of those."""
    made = sorted({*(_noted() or []), *_names(pairs)})
    os.makedirs(os.path.dirname(_note()), mode=0o700, exist_ok=True)
    write_atomic(_note(), json.dumps(made).encode(), 0o600)


def _names(pairs: list[tuple[str, str]]) -> set[str]:
    return {f"{domain}.{selector}" for domain, selector in pairs}


def _noted() -> list[str] | None:
    return read_json(_note(), f"as root there: rm {_note()}", None)


def _note() -> str:
    return f"{os.path.dirname(machine.MANIFEST)}/dkim.json"


def _converge_one(stem: str, domain: str, selector: str, dry_run: bool) -> list[Change]:
    """One key and its record; the record of an existing key is made from that key."""
    key, text = f"{stem}.key", f"{stem}.txt"
    wrong = [path for path in (key, text) if os.path.exists(path) and not _right(path)]
    changes = [Change(f"permissions of {path}") for path in wrong]
    if not os.path.exists(key):
        again = _was_there(os.path.dirname(stem), domain, selector)
        words = f"DKIM key {key}" + ", whose record must be published anew: fab dkim.ls" * again
        changes.append(Change(words, record_name(domain, selector)))
    elif not os.path.exists(text):
        changes.append(Change(f"DKIM record {text}"))
    if dry_run or not changes:
        return changes
    owner = ids(OWNER, GROUP)
    if not os.path.exists(key):
        with contextlib.suppress(FileNotFoundError):  # a record of some other key must not be published
            os.unlink(text)
        write_atomic(key, _new_key(), MODE, *owner)
    if not os.path.exists(text):
        zone = zone_lines(record_name(domain, selector), _value(key))
        write_atomic(text, zone.encode(), MODE, *owner)
    for path in (key, text):
        os.chown(path, *owner)
        os.chmod(path, MODE)
    return changes


def _new_key() -> bytes:
    """A private key that has been in no file yet: openssl writes it to us, not to the disk."""
    command = ("openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{BITS}")
    made = run(*command).stdout
    if "PRIVATE KEY" not in made:
        raise AgentError("openssl made no key")
    return made.encode()


def _value(key: str) -> str:
    """The text of the DNS record of the private key at path `key`."""
    public = run("openssl", "pkey", "-in", key, "-pubout", check=False, stdin="")
    lines = public.stdout.splitlines()
    if public.returncode or len(lines) < 3:
        raise AgentError(f"openssl cannot read {key}", "move it away; fab bootstrap makes another")
    # PEM is base64 between two lines of dashes; decoding it makes sure that nothing else is in it.
    encoded = base64.b64encode(base64.b64decode("".join(lines[1:-1]), validate=True)).decode()
    return f"v=DKIM1; k=rsa; p={encoded}"


def _keys(keyroot: str, domains: list[str]) -> list[Key]:
    """Every key below `keyroot`, those of domains that the site no longer has included."""
    if not os.path.isdir(keyroot):
        return []
    found = []
    for name in sorted(os.listdir(keyroot)):
        domain, selector = _split(name.removesuffix(".key"), domains)
        if name.endswith(".key") and DOMAIN.fullmatch(domain) and SELECTOR.fullmatch(selector):
            path = f"{keyroot}/{name}"
            record: Key = {
                "domain": domain,
                "selector": selector,
                "name": record_name(domain, selector),
                "value": _value(path),
                "path": path,
            }
            found.append(record)
    return found


def _split(stem: str, domains: list[str]) -> tuple[str, str]:
    """The domain and the selector in `<domain>.<selector>`, either of which may have dots."""
    known = [domain for domain in domains if stem.startswith(f"{domain}.")]
    if known:
        domain = max(known, key=len)
        return domain, stem.removeprefix(f"{domain}.")
    domain, _, selector = stem.rpartition(".")
    return domain, selector


def _right(path: str) -> bool:
    state = os.stat(path)
    return (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (*ids(OWNER, GROUP), MODE)


@contextlib.contextmanager
def _alone(keyroot: str) -> Iterator[None]:
    """Two calls at once must not make two keys of one name, of which the second would stay (flock(2))."""
    descriptor = os.open(keyroot, os.O_RDONLY | os.O_DIRECTORY)
    deadline = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    pid, name = (holder.with_lock(keyroot) or [(0, "another call")])[0]
                    text = f"{name} has been making DKIM keys for {PATIENCE:.0f} s"
                    raise AgentError(text, f"if it hangs, as root there: kill -KILL {pid}", LOCKED) from None
            time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)
