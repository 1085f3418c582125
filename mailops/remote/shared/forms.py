"""The forms of what is kept on a machine, and of what it should be: which keys each has, and what they mean.

For type checkers and readers alone: no program loads this file as it runs. All of it is JSON: times are seconds since
1970, a mode is a whole number (420 is 0644), contents are named by their SHA-256 in hexadecimal. What earlier versions
kept `stored` lifts to these. What is said in a call is in `calls`.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

# --- What a machine should be


class User(TypedDict):
    """A system account or, with `groups` alone, the groups an existing account must be in."""

    name: str
    home: str
    groups: list[str]
    uid: int | None  # None: the package made the account, or the system picks a number


class Directory(TypedDict):
    path: str
    mode: int
    owner: str
    group: str
    mend: bool  # whether one that is there gets this mode and owner


class File(TypedDict):
    path: str
    sha256: str  # of what the laptop has for it; it is asked for where it is not here
    mode: int
    owner: str
    group: str
    secret: bool  # it shows in no diff, and never travels back
    local: str  # the administrator's own additions to it, a file on the machine; "" for none
    merge: str  # how these are merged into it (`remote.changes.additions`)


class Check(TypedDict):
    daemon: str
    options: dict[str, str]


class Service(TypedDict):
    unit: str  # of systemd
    roots: list[str]  # paths; a changed file below one of them is to be noticed
    on_change: Literal["reload", "restart"]
    mail: bool  # it waits for the vault, and never starts at boot
    checks: list[Check | list[str]]  # an earlier mailops had commands here, and generations of that time have them


class Source(TypedDict):
    name: str
    url: str
    suite: str
    packages: list[str]


class Vault(TypedDict):
    mountpoint: str
    cipherdir: str
    queue: str  # where what it holds of the mail queue is shown as well; "" for nowhere
    directories: list[Directory]


class Accounts(TypedDict):
    """A machine keeps `database` alone in its manifest: who has mail here stands in the vault, and nowhere else."""

    database: str
    domains: NotRequired[list[str]]
    users: NotRequired[list[str]]  # addresses
    aliases: NotRequired[list[tuple[str, str]]]  # from, to
    needed: NotRequired[list[tuple[str, str]]]  # address, the machines that log in with it; "": the administrator's


class Rows(TypedDict):
    domains: list[str]
    users: list[str]  # addresses
    aliases: list[tuple[str, str]]  # from, to


class Listed(Rows):
    """The accounts that hosts.toml had at the last bootstrap, kept in the vault."""

    needed: NotRequired[list[tuple[str, str]]]  # as in Accounts
    left: NotRequired[Rows]  # that it had before and are still here
    gone: NotRequired[Rows]  # that somebody has removed here


class Dkim(TypedDict):
    keyroot: str
    selectors: list[str]  # the first signs
    domains: list[str]


class Certificate(TypedDict):
    names: list[str]
    cert: str
    key: str


class Probe(TypedDict):
    kind: str  # see `remote.services.probe`
    port: int  # 0 where a Unix socket is asked
    options: dict[str, str]
    service: str  # the unit that a wrong answer accuses; "" for none
    when: str  # asked only after this unit was started, or told of changed files; "" for always


class Manifest(TypedDict):
    role: str
    hostname: str
    release: int | None  # of Debian; None where an earlier mailops did not say
    packages: list[str]
    sources: list[Source]
    debconf: list[str]  # lines of debconf-set-selections(1)
    users: list[User]
    directories: list[Directory]
    vault: Vault | None
    accounts: Accounts | None
    dkim: Dkim | None
    certificates: list[Certificate]
    files: list[File]
    services: list[Service]
    probes: list[Probe]
    format: NotRequired[int]


# --- What a machine keeps


class Found(TypedDict, total=False):
    """What stands at a path: `sha256`, `mode`, `uid` and `gid` of a file, `link` of a symbolic link, `other` of
    anything else. The rest is what is known of a file that mailops has written."""

    sha256: str
    mode: int
    uid: int
    gid: int
    link: str  # where it leads to
    other: int  # which kind of thing it is (S_IFMT of inode(7))
    secret: bool
    base: str  # what it said before `local` was merged into it
    local: str


State = Found | None  # None for nothing

# Who does something to a machine: the person, and the address that they come from; the task.
Author = TypedDict("Author", {"who": str, "from": str})


class By(Author):
    task: str


class Files(TypedDict):
    """The part of a generation that says what is where."""

    files: dict[str, State]
    locals: dict[str, str]  # the administrator's files of additions -> what they said


class Run(By):
    """What is known of a run while it lasts."""

    when: float  # it began
    revision: str  # of the site, in git; "" where it is not known
    vault: str  # where it is mounted; "" for none
    services: NotRequired[list[Service]]  # that have to notice; of an amendment nobody has
    running: NotRequired[list[str]]  # the units of these that ran before


# Who made a generation, and what it changed. Not known of number 0, a machine that is being set up.
_Made = TypedDict(
    "_Made",
    {"when": float, "who": str, "from": str, "task": str, "revision": str, "changed": list[str]},
    total=False,
)


class Generation(_Made, Files):
    number: int
    parent: int | None
    replaced: dict[str, State]  # what stood there before
    proven: bool  # whether the daemons have answered with these files
    format: NotRequired[int]


class Change(TypedDict):
    before: State
    after: State


class Journal(Run):
    """A change of files that is under way, or was cut short."""

    paths: dict[str, Change]
    number: int  # of the generation that comes of it
    amend: bool  # that generation is active already, and its record is replaced
    listed: bool  # it was a generation before
    folders: list[str]  # that were made for it, outermost first
    format: NotRequired[int]


class Entry(By):
    """Of the history: a run that is over."""

    when: float
    outcome: str  # `errors.OUTCOMES`
    why: str
    revision: NotRequired[str]  # of a run that was cut short not everything is known
    generation: NotRequired[int | None]  # that it has made active
    seconds: NotRequired[float]
    changed: NotRequired[dict[str, list[str] | int]]  # by room: lines, or their number where they name people
    format: NotRequired[int]


class Origins(TypedDict):
    """What stood at the paths before mailops took them over."""

    paths: dict[str, State]
    format: NotRequired[int]


class Served(TypedDict):
    """The certificates that the daemons were told of: path, and its SHA-256."""

    told: dict[str, str]
    format: NotRequired[int]


# The sources that the installed packages were taken from; `underway` while they are being replaced.
Taken = TypedDict("Taken", {"from": list[Source], "underway": NotRequired[bool]})

# What the holder of the machine's lock says of itself; {} where nobody does.
Holder = TypedDict(
    "Holder",
    {
        "who": str,
        "from": str,
        "doing": str,
        "since": float,
        "pid": int,
        "started": int,  # its process, in ticks since the boot
        "by": str,  # never kept: who has just ended it
    },
    total=False,
)
