"""Where a password comes from: the terminal, the environment, a command, the desktop's keyring.

A secret is fetched once per process and never shown: not in messages, not by `repr`, not in a traceback.
`mask` takes the known ones out of a text.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from mailops.errors import BAD_INPUT, MailopsError
from mailops.site.model import Secret

# A password manager may wait for its own passphrase, a touch, a phone.
_COMMAND_SECONDS = 300
# Shorter than this, a password is part of too many ordinary words to be masked.
_SHORTEST_MASKED = 4
PLAIN = re.compile(r"[\w./%@+~-]+|[a-z]+://[\w./%+~-]+")  # nowhere NAME:PASSWORD
TELLING = re.compile(r"-+(p|k|u|pw|pass|secret|token|key)", re.IGNORECASE)  # options whose value is one
_MASK = "*" * 8
# Sentences of our own. They say nothing of a password, until a word of theirs is masked: then they say which one it is.
OURS = (
    "wrong passphrase; the vault stays locked",
    "try again; whoever has forgotten it sets a new one with the recovery key: docs/how-to/vault.md",
)


class _Memory:
    """What has been fetched so far. A class of its own so that no `repr` shows what it holds."""

    def __init__(self) -> None:
        # Taken for the whole of a fetch: two threads do not ask the same question, nor two at once.
        self.lock = threading.RLock()
        self.fetched: dict[tuple[str, str, str], str] = {}
        self.known: set[str] = set()
        self.confirmed: set[tuple[str, str, str]] = set()  # what was typed twice


_memory = _Memory()


def resolve(secret: Secret) -> str:
    """The password itself; asked for, read or computed at the first call, remembered after it.

    Raises `MailopsError`, which names the key in hosts.toml, when there is none to be had.
    """
    with _memory.lock:
        key = _identity(secret)
        if key not in _memory.fetched:
            _memory.fetched[key] = remember(_checked(_SOURCES[secret.kind](secret), secret))
        return _memory.fetched[key]


def confirmed(secret: Secret) -> str:
    """As `resolve`, of a new password: what a person types is typed twice, as a slip would lock its owner out."""
    with _memory.lock:
        value, key = resolve(secret), _identity(secret)
        if secret.kind == "prompt" and key not in _memory.confirmed:
            if _again() != value:
                _memory.fetched.pop(key)
                raise _error(secret, "the two that were typed differ; nothing was made of it", "Run it again.")
            _memory.confirmed.add(key)
        return value


def possible(secret: Secret) -> None:
    """MailopsError where it can be seen already that there will be none to be had: nothing is asked, nothing is run."""
    if secret.kind == "prompt":
        _terminal(secret)
    if secret.kind == "env":
        _env(secret)


def forget(secret: Secret) -> None:
    """Fetch it anew next time, after a machine refused it. It stays masked."""
    with _memory.lock:
        _memory.fetched.pop(_identity(secret), None)


def remember(value: str) -> str:
    """Mask this one from now on, too: a password that came by another way. Returns it."""
    with _memory.lock:
        _memory.known.add(value)
    return value


def known() -> frozenset[str]:
    """Every secret seen so far."""
    with _memory.lock:
        return frozenset(_memory.known)


def mask(text: str) -> str:
    """The text with every known secret replaced by ********, also where JSON, Python or we ourselves escaped it."""
    import json

    from mailops import printable

    forms: set[str] = set()
    for value in known():
        if len(value) >= _SHORTEST_MASKED:
            escaped = (json.dumps(value), json.dumps(value, ensure_ascii=False), repr(value))
            forms.update((value, printable.line(value), *(form[1:-1] for form in escaped)))
    for form in sorted(forms, key=len, reverse=True):  # the longest first: one may contain another
        text = _without(form, text)
    return text


def masked(value: Any) -> Any:
    """Plain data, each of its texts masked."""
    if isinstance(value, dict):
        return {mask(key): masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item) for item in value]
    return mask(value) if isinstance(value, str) else value


def _without(form: str, text: str) -> str:
    """The text with `form` masked; it stays where it is a part of a whole sentence of ours."""
    for sentence in OURS:
        if form in sentence and form != sentence and sentence in text:
            return sentence.join(_without(form, part) for part in text.split(sentence))
    return text.replace(form, _MASK)


def _identity(secret: Secret) -> tuple[str, str, str]:
    """What makes two secrets the same. Two prompts may share their words and mean different passwords."""
    return secret.kind, secret.value, secret.where if secret.kind == "prompt" else ""


def _checked(value: str, secret: Secret) -> str:
    if not value:
        raise _error(secret, "the password is empty", "Give it at least one character.")
    # Programs that read a password read a line; more would be cut without a word.
    if not value.isascii() and not _is_text(value):
        raise _error(secret, "the password is not valid UTF-8", "Choose one that is.")
    if set(value) & set("\0\r\n"):
        raise _error(secret, "the password has more than one line", "Keep it on one line.")
    return value


def _is_text(value: str) -> bool:
    """False for bytes that were no UTF-8, which Python carries as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _error(secret: Secret, what: str, hint: str) -> MailopsError:
    return MailopsError(what, hint, BAD_INPUT, secret.where)


def _prompt(secret: Secret) -> str:
    import getpass

    _terminal(secret)
    try:
        return getpass.getpass(f"{secret.value} ({secret.where}): ")
    except EOFError:
        raise _error(secret, "nothing was typed", "Start again, or press Ctrl-C to leave.") from None


def _again() -> str:
    import getpass

    try:
        return getpass.getpass("The same again: ")
    except EOFError:
        return ""


def _terminal(secret: Secret) -> None:
    """getpass would fall back on an echoing stdin; only a real terminal will do."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise _error(
            secret,
            "is to be asked for, and there is no terminal to ask on",
            'Write { env = "NAME" } or { command = "…" } instead of the prompt to run without one.',
        ) from None


def _env(secret: Secret) -> str:
    value = os.environ.get(secret.value)
    if value is None:
        raise _error(
            secret,
            f"the environment variable {secret.value} is not set",
            f"Set it, without a trace in the shell's history: read -rs {secret.value}; export {secret.value}",
        )
    return value


def _command(secret: Secret) -> str:
    """The first line that a shell command prints. It may talk to the person: stdin and stderr are theirs."""
    hint = "Run it by hand to see why; its messages are above."
    which = f"its command ({shown})" if (shown := shown_command(secret.value)) else "its command"
    with subprocess.Popen(["/bin/sh", "-c", secret.value], stdout=subprocess.PIPE) as process:
        try:
            output = process.communicate(timeout=_COMMAND_SECONDS)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            raise _error(secret, f"{which} took more than {_COMMAND_SECONDS} s", hint) from None
    if process.returncode:
        raise _error(secret, f"{which} ended with status {process.returncode}", hint)
    line = output.split(b"\n", 1)[0].removesuffix(b"\r")
    return line.decode(errors="surrogateescape")


def shown_command(text: str) -> str:
    """The command, where it cannot hold the password itself, as a careless one may: plain words that fetch one."""
    words = text.split()
    plain = bool(words) and all(PLAIN.fullmatch(word) and not TELLING.match(word) for word in words)
    return text if plain and words[0] not in ("echo", "printf") else ""


def _keyring(secret: Secret) -> str:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        raise _error(
            secret, "the keyring needs a package that is not installed", "pip install 'mailops[keyring]'"
        ) from None
    service, _, user = secret.value.rpartition("/")
    try:
        value = keyring.get_password(service, user)
    except keyring.errors.KeyringError as error:
        raise _error(secret, f"the keyring did not answer: {error}", "Unlock it, then start again.") from None
    if value is None:
        raise _error(secret, f"the keyring has nothing under {secret.value}", f"keyring set '{service}' '{user}'")
    return str(value)


_SOURCES: dict[str, Callable[[Secret], str]] = {
    "prompt": _prompt,
    "env": _env,
    "command": _command,
    "keyring": _keyring,
}
