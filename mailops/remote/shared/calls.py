"""The forms of a call: what the laptop sends with it, what the machine says and asks meanwhile, and its result.

For type checkers and readers alone: no program loads this file as it runs. Times are seconds since 1970, durations
seconds, sizes bytes, contents base64. What a machine may say the laptop checks by `mailops.ssh.protocol`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired, Protocol, TypedDict, overload

from .forms import Entry, Manifest, Rows

# --- What the laptop sends

Change = Literal["queue.rm", "queue.hold", "queue.release"]  # of messages


class Facts(TypedDict):
    """What a role has to know of the machine before it can say what belongs there."""

    release: int  # of Debian
    mailhost_certificate: str  # PEM; "" for none


class Args(TypedDict, total=False):
    """Of whatever call: what none of them has in another form."""

    manifest: Manifest | None


class Nothing(TypedDict):
    """Calls that need not be told anything."""


class PlanArgs(TypedDict):
    task: Literal["plan"]
    who: str
    manifest: NotRequired[Manifest | None]  # made from these facts, which the laptop remembers
    facts: NotRequired[Facts | None]


class ConvergeArgs(TypedDict):
    task: Literal["bootstrap", "push"]
    who: str
    take_over: NotRequired[bool]  # from another run
    overwrite: NotRequired[bool]  # files that somebody has edited
    manifest: NotRequired[Manifest | None]  # as in a plan's
    facts: NotRequired[Facts | None]


class DiffArgs(TypedDict):
    since: NotRequired[int | None]  # a generation; None for the one before the active one


class RollbackArgs(TypedDict):
    who: str
    take_over: NotRequired[bool]
    to: NotRequired[int | None]  # as `since`
    overwrite: NotRequired[bool]


class HistoryArgs(TypedDict):
    count: int


class RunArgs(TypedDict):
    who: str
    take_over: NotRequired[bool]


class StatusArgs(TypedDict):
    accounts: NotRequired[Rows]  # what hosts.toml lists by now


class MailcfgArgs(TypedDict):
    argv: list[str]
    who: str
    sure: bool  # whatever depends on it


class DkimArgs(TypedDict):
    make: NotRequired[str]  # a selector whose missing keys are made first


class QueueArgs(TypedDict):
    task: Literal["queue"]


class FlushArgs(TypedDict):
    task: Literal["queue.flush"]


class ShowArgs(TypedDict):
    task: Literal["queue.show"]
    id: str


class ChangeArgs(TypedDict):
    task: Change
    who: str
    ids: list[str]
    which: str  # in their place: "deferred", "all"; "" where it is they
    sure: bool  # nobody is to be asked


class TraceArgs(TypedDict):
    what: str  # an address, "@" and a domain, a queue ID, a Message-ID
    since: float


class TunnelArgs(TypedDict):
    port: int
    user: str


# --- What the machine says meanwhile


class Step(TypedDict):
    t: Literal["step"]
    name: str
    state: str  # "start", "ok", "changed", "failed"
    lines: list[str]  # what was done there


class Progress(TypedDict):
    t: Literal["progress"]
    name: str
    percent: float
    detail: str


class Say(TypedDict):
    t: Literal["say"]
    text: str


class Ask(TypedDict):
    t: Literal["ask"]
    what: str
    data: object


class Beat(TypedDict):
    """A sign of life."""

    t: Literal["beat"]
    told: NotRequired[str]  # never said by a machine: what the laptop tells whoever waits


class Result(TypedDict):
    t: Literal["result"]
    data: Mapping[str, object]


class Error(TypedDict):
    t: Literal["error"]
    message: str
    hint: str
    code: int


class Bare(TypedDict):
    """Of the loader: there is no python3."""

    t: Literal["bare"]
    system: str
    release: str


class Begun(TypedDict):
    """Of the loader: it is there; or it lacks the agent."""

    t: Literal["hello", "agent"]


Said = Step | Progress | Say | Ask | Beat | Result | Error
Event = Said | Bare | Begun


class Edit(TypedDict):
    """A file that is not as it was, or would not be."""

    path: str
    state: Literal["new", "removed", "changed", "edited", "mode", "missing"]
    secret: bool
    before: str | None  # contents; None for nothing, and of what is secret
    after: str | None
    was: str  # mode and owner, as a person reads them
    now: str


class Passphrase(TypedDict):
    new: bool  # for a vault that is to be made


class Deletion(TypedDict):
    """Of many messages of the queue."""

    count: int
    age: float  # of the oldest


class Link(Protocol):
    """What a call can say and ask: of the laptop, or on the machine's own console."""

    origin: str
    resolute: bool

    def step(self, name: str, state: str, lines: Sequence[str] = ()) -> None: ...
    def progress(self, name: str, percent: float, detail: str = "") -> None: ...
    def say(self, text: str) -> None: ...
    def check(self) -> None: ...

    @overload
    def ask(self, what: Literal["manifest"], data: Facts) -> Manifest: ...
    @overload  # contents, by path
    def ask(self, what: Literal["files"], data: list[str]) -> dict[str, str]: ...
    @overload  # by address
    def ask(self, what: Literal["hashes"], data: list[str]) -> dict[str, str]: ...
    @overload
    def ask(self, what: Literal["hash"], data: str) -> str: ...
    @overload
    def ask(self, what: Literal["passphrase"], data: Passphrase) -> str: ...
    @overload  # to be shown
    def ask(self, what: Literal["recovery"], data: str) -> None: ...
    @overload  # to be shown
    def ask(self, what: Literal["edited"], data: list[Edit]) -> None: ...
    @overload
    def ask(self, what: Literal["delete"], data: Deletion) -> bool: ...
    @overload
    def ask(self, what: Literal["revision"]) -> str | None: ...


# --- Results


class Changed(TypedDict):
    """Of a bootstrap, push, rollback, unlock and lock; which of the last keys is there is the task's affair."""

    changes: dict[str, list[str]]  # by room: a line for each
    generation: int | None  # that is active now, where it is another one
    unwell: dict[str, str]  # what is wrong with the machine when all is done
    locked: NotRequired[bool]  # the vault
    changed: NotRequired[bool]  # of an unlock or lock: whether it did anything
    unknown: NotRequired[bool]  # to its mailhost
    seconds: NotRequired[float]  # that it took, by the laptop's clock


class Plan(TypedDict):
    changes: dict[str, list[str]]
    files: list[Edit]
    edited: list[Edit]  # that would stop a bootstrap
    refused: str  # by the daemons' own checks; "" for not
    interrupted: bool  # a run, whose changes would be undone first
    locked: bool
    new_vault: bool


class Drift(TypedDict):
    files: list[Edit]
    unpushed: list[str]  # files of additions that have been changed since
    generation: int
    locked: bool  # what lies in the vault was not looked at


# "from" and "to" are generations.
Diff = TypedDict("Diff", {"from": int, "to": int, "files": list[Edit]})

# Of a generation.
Past = TypedDict(
    "Past",
    {
        "number": int,
        "when": float,
        "who": str,
        "from": str,
        "revision": str,
        "task": str,
        "changed": list[str],
        "proven": bool,
    },
)


class Generations(TypedDict):
    active: int
    generations: list[Past]


class History(TypedDict):
    entries: list[Entry]  # oldest first
    unseen: NotRequired[bool]  # the vault, which has what was done to accounts, is closed


class Damage(TypedDict):
    what: str
    next: str  # to be typed


class VaultState(TypedDict):
    mountpoint: str
    open: bool
    damage: NotRequired[Damage]
    made: NotRequired[bool]  # of a closed one: whether there is one at all
    answers: NotRequired[Literal[False]]  # of an open one whose process hangs
    free: NotRequired[int]


class Oldest(TypedDict):
    """The message that waits for the longest time, which could not be delivered yet."""

    since: float
    reason: str


class Dated(TypedDict):
    """A certificate that is served."""

    names: list[str]
    ends: float


class NotSetUp(TypedDict):
    state: Literal["bare"]
    release: int


class Status(TypedDict):
    state: Literal["locked", "up", "degraded"]
    role: str
    hostname: str
    release: int
    upgraded: str  # since the files were made; "" for not
    vault: VaultState | None
    services: dict[str, str]  # by unit: systemd's word for its state, or "masked"
    able: list[str]  # the units that can run while the vault is as it is
    probes: dict[str, str]  # by what was asked or looked at: what is wrong; "" for nothing
    unadvised: list[str]  # the names of those that do not say what to do
    queue: int | None  # messages; None while it cannot be seen
    oldest: Oldest | None
    held: int
    uptime: float
    versions: dict[str, str]  # by package
    generation: int
    applied: float | None
    busy: str  # who holds the machine; "" for nobody
    interrupted: bool
    drift: list[str]  # paths
    packages: list[str]  # that are not installed as they should be
    torn: list[str]  # of these, those that have to come anew
    held_packages: list[str]
    swap: list[str]  # that is not encrypted
    sources: list[str]  # what does not come yet from where it should
    now: float
    certificate: str  # PEM
    certificates: list[Dated]
    certificate_fault: list[str]
    reboot: list[str]  # why it has to start again
    accounts: list[str]  # where they and hosts.toml do not agree


class Served(TypedDict):
    certificate: str  # PEM


class Mailcfg(TypedDict):
    code: int  # an exit code: a refusal is an answer, too
    lines: list[str]
    rows: list[dict[str, str | int]] | None  # of a table
    error: str
    hint: str
    removed: NotRequired[list[list[str]]]  # aliases: from, to


class Key(TypedDict):
    domain: str
    selector: str
    name: str  # of the record
    value: str
    path: str


class Keys(TypedDict):
    keys: list[Key]
    made: list[str]  # a line for each


class Counts(TypedDict):
    """Of the messages in the queue."""

    count: int
    held: int


class Waiting(TypedDict):
    """A message in the queue."""

    id: str
    queue: str  # "hold", "active", "incoming", "maildrop", "deferred"
    since: float
    size: int
    sender: str
    recipients: list[str]  # the first of them
    count: int  # of all of them
    reason: str  # the first that is given why it waits
    reasons: int


class Listed(Counts):
    now: float
    messages: list[Waiting]  # oldest first


class Shown(TypedDict):
    now: float
    message: Waiting | None
    head: list[str]
    body: list[str]
    more: bool


class Done(TypedDict):
    chosen: int  # messages
    done: int  # of which there were still so many
    missing: list[str]  # IDs
    agreed: bool


class Came(TypedDict):
    """How a message came to this machine."""

    door: str  # "port 25", or in words
    host: str  # and its address; "" for this machine itself
    login: str


class Symbol(TypedDict):
    name: str
    score: float
    words: str  # "" where there are none for it


class Judged(TypedDict):
    """What the spam filter thought of a message."""

    action: str
    score: float | None
    limit: float | None
    symbols: list[Symbol]  # those that weighed most
    signed: str  # domain:s=selector
    forced: str  # why the score did not matter


class Delivery(TypedDict):
    """To one recipient, as it went the last time."""

    to: str
    orig: str  # the alias that it was for
    relay: str
    status: str  # "sent", "deferred", "bounced", "expired"
    text: str
    queued: str  # its ID on the next machine
    when: float
    tries: int
    did: list[str]  # what the mailbox made of it, in words
    advice: str


class Refused(TypedDict):
    to: str
    text: str
    advice: str


class Story(TypedDict):
    """The way of a message through this machine; or of one that was refused before it had an ID."""

    id: str
    when: float
    came: Came | None
    message_id: str
    sender: str
    size: int
    filter: Judged | None
    to: list[Delivery]
    recipients: int
    refused: list[Refused]
    next: list[str]  # IDs of what came of it here
    removed: Literal["", "done", "by hand"]  # from the queue
    held: bool
    times: int  # it was refused just so


class Stories(TypedDict):
    stories: list[Story]  # the latest
    count: int
    begins: float  # the journal
    looked_from: float | None  # where that is later, because there is too much of it
    locked: bool


class Console(TypedDict):
    password: str
