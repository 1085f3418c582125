"""Rspamd: its milter, as Postfix opens it; what it says of its configuration, and what it computes once in its life."""

from __future__ import annotations

import os
import re
import struct
from typing import TYPE_CHECKING

from ..system.lock import RUN
from ..system.shell import ENVIRONMENT, write_atomic
from . import conversation
from .checks import said, without_a_word
from .conversation import Conversation, Wrong
from .daemons import Daemon, Options

if TYPE_CHECKING:
    from ..shared.calls import Judged

# libmilter's protocol, version 6: a length, a letter, and for option negotiation version, actions, steps.
VERSION, ALL_ACTIONS, ALL_STEPS = 6, 0x1FF, 0x1FFFFF
NEGOTIATE, QUIT = b"O", b"Q"
PROMPT = 5.0  # seconds; nothing is looked up for this answer
# The list of all top-level domains: its own on Debian 12 and in its makers' package, another package's on 13.
TOP_LEVEL_DOMAINS = tuple(f"/usr/share/{folder}/effective_tld_names.dat" for folder in ("rspamd", "publicsuffix"))
CACHE = "/var/lib/rspamd"
WARM = f"{RUN}/rspamd-warm.conf"

# A task in its log: the queue ID, the action, score and limit, the symbols, and who has overruled the score.
TASK = re.compile(
    r"rspamd_task_write_log: id: <.*>, qid: <(?P<qid>\w+)>, .*?\(default: . \((?P<action>[a-z ]+)\): "
    r"\[(?P<score>-?[\d.]+|-?nan)/(?P<limit>-?[\d.]+|nan)\] \[(?P<symbols>.*)\]\), len: (?P<rest>.*)",
    re.DOTALL,
)
SYMBOL = re.compile(r"(?:^|,)([A-Z][A-Z0-9_]*)\((-?[\d.]+)\)\{([^{}]*)\}")
FORCED = re.compile(r"forced: [a-z ]+ \"(.*)\"; score=")
FEW = 6  # symbols that a person is told of
WORDS = {
    "ARC_ALLOW": "ARC is right",
    "BAYES_HAM": "like what is wanted here",
    "BAYES_SPAM": "like what was called spam here",
    "DMARC_POLICY_ALLOW": "DMARC passes",
    "DMARC_POLICY_QUARANTINE": "DMARC fails, and its domain wants that filed as spam",
    "DMARC_POLICY_REJECT": "DMARC fails, and its domain wants that refused",
    "DMARC_POLICY_SOFTFAIL": "DMARC fails",
    "FORGED_RECIPIENTS": "the recipients are not those of its To",
    "FORGED_SENDER": "the envelope's sender is not that of its From",
    "FROM_POLICY": "the policy of the domain in its From",
    "GREYLIST": "greylisted: an unknown server has to try again",
    "GTUBE": "the test message for spam filters",
    "HFILTER_FROMHOST_NORES_A_OR_MX": "the sender's domain takes no mail",
    "HFILTER_HOSTNAME_UNKNOWN": "the server's address has no name",
    "MISSING_DATE": "no Date",
    "MISSING_MID": "no Message-ID",
    "MISSING_SUBJECT": "no Subject",
    "MISSING_TO": "no To",
    "ONCE_RECEIVED": "straight from its author's machine",
    "RBL_SPAMHAUS": "the server is listed by Spamhaus",
    "R_DKIM_ALLOW": "the DKIM signature is right",
    "R_DKIM_REJECT": "the DKIM signature is wrong",
    "R_SPF_ALLOW": "SPF passes",
    "R_SPF_FAIL": "SPF fails",
    "R_SPF_SOFTFAIL": "SPF fails softly",
    "VIOLATED_DIRECT_SPF": "SPF fails for the server that brought it",
}


def milter(port: int, options: dict[str, str]) -> None:
    """Each of the sockets in `options` is asked; a port, where an earlier mailops has set up the machine."""
    if port:
        _negotiates(conversation.local(port, PROMPT), f"port {port}")
    for path in options.values():
        _negotiates(conversation.unix(path, PROMPT), path)


def _negotiates(milter: Conversation, place: str) -> None:
    """It agrees on a protocol, which is how every conversation between Postfix and a milter starts."""
    with milter as connection:
        body = NEGOTIATE + struct.pack("!III", VERSION, ALL_ACTIONS, ALL_STEPS)
        connection.send(struct.pack("!I", len(body)) + body)
        try:
            length, letter = struct.unpack("!Ic", connection.take(5))
        except TimeoutError:  # Rspamd keeps a socket that none of its workers serves any more
            raise Wrong(f"{place} takes connections and does not answer") from None
        if letter != NEGOTIATE or length != len(body):
            raise Wrong("it speaks, but not as a milter")
        version, _, _ = struct.unpack("!III", connection.take(12))
        if not 2 <= version <= VERSION:
            raise Wrong(f"it wants version {version} of the milter protocol")
        connection.send(struct.pack("!I", len(QUIT)) + QUIT)


def verdict(text: str) -> tuple[str, Judged] | None:
    """The queue ID that a line is about, and what was thought of that message; None for any other line."""
    found = TASK.search(text)
    if not found:
        return None
    said = [(name, float(score), options) for name, score, options in SYMBOL.findall(found["symbols"])]
    leading = sorted((one for one in said if one[1]), key=lambda one: -abs(one[1]))[:FEW]
    signed = next((options for name, _, options in said if name == "DKIM_SIGNED"), "")
    forced = FORCED.search(found["rest"])
    return found["qid"], {
        "action": found["action"],
        "score": None if "nan" in found["score"] else float(found["score"]),
        "limit": None if "nan" in found["limit"] else float(found["limit"]),
        "symbols": [{"name": name, "score": score, "words": WORDS.get(name, "")} for name, score, _ in leading],
        "signed": signed.rstrip(";")[:300],
        "forced": forced[1][:300] if forced else "",
    }


def _settings(_: Options) -> str:
    """It ends well with an element that it does not know; then "syntax OK" is not all it says."""
    done = said("rspamadm", "configtest")
    words = f"{done.out}{done.err}".strip()
    return "" if words == "syntax OK" else words or without_a_word(done.code)


def _warm() -> None:
    """Compiles the list of all top-level domains (43 MB, ten seconds), which Rspamd keeps under a name made of it.

    Its own configuration, which says where the list is, is not there yet when this runs: dpkg brings that last.
    """
    import subprocess

    lists = [path for path in TOP_LEVEL_DOMAINS if os.path.exists(path)]
    if not lists:
        return
    options = f'url_tld = "{lists[0]}"; hs_cache_dir = "{CACHE}";'
    write_atomic(WARM, f"options {{ {options} }} actions {{ reject = 15; }}\n".encode(), 0o600)
    null = subprocess.DEVNULL
    command = ("rspamadm", "mime", "--config", WARM, "urls", "/dev/null")
    # Whatever it makes _rspamd has to read.
    subprocess.run(command, stdin=null, stdout=null, stderr=null, env=ENVIRONMENT, umask=0o022, check=False)
    os.unlink(WARM)


DAEMON = Daemon(
    checks=(_settings,),
    warm=_warm,
    package="rspamd",  # there is a choice of two
    processes="rspamd",
    chatter="; map; .*cannot resolve",
)
