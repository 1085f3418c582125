"""A stream of mail from outside, and whether it arrived: every message exactly once, and none bounced."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from tests.e2e.house import House, token

ADMIN = "admin@example.test"
STRANGER = "stranger@elsewhere.test"
MOST = 5000  # messages; a stream that nobody ends comes to an end by itself


class Stream:
    """A stranger who writes without a pause to one user, to the other, and to both in turn.

    The outside machine's own MTA takes the messages at once, and retries what it cannot deliver.
    """

    def __init__(self, house: House, users: tuple[str, str], pause: float) -> None:
        """`pause`: seconds between two messages."""
        self.house = house
        self.users = users
        self.mark = token()
        self._pause = pause
        self._end = f"/run/{self.mark}.end"
        self._began = time.time()
        self._pool = ThreadPoolExecutor(1)
        self._sent: Future[str]

    def __enter__(self) -> Stream:
        one, other = self.users
        message = f"From: {STRANGER}\\nTo: {one}, {other}\\nSubject: {self.mark}-$n\\n\\nHello.\\n"
        script = f"""
            n=0
            while [ ! -e {self._end} ] && [ $n -lt {MOST} ]; do
                n=$((n + 1))
                case $((n % 3)) in 0) to="{one} {other}";; 1) to={one};; 2) to={other};; esac
                printf "{message}" | sendmail -f {STRANGER} $to && echo "$n $to"
                sleep {self._pause}
            done
        """
        self._sent = self._pool.submit(self.house.run, "outside", script)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        self._pool.shutdown()
        self.house.run("outside", f"rm -f {self._end}")

    def is_flowing(self) -> bool:
        return not self._sent.done()

    def end(self) -> dict[str, list[str]]:
        """Send no more; returns the subjects of what was sent to each user."""
        self.house.run("outside", f"touch {self._end}")
        sent: dict[str, list[str]] = {user: [] for user in self.users}
        for line in self._sent.result(timeout=60).splitlines():
            number, *users = line.split()
            for user in users:
                sent[user].append(f"{self.mark}-{number}")
        return sent

    def put_off(self) -> int:
        """How often the outside machine had to try again, by its own log."""
        log = self.house.run("outside", f"journalctl -q -o cat -t postfix/smtp --since @{self._began:.0f}")
        return log.count("status=deferred")

    def assert_arrived(self, seconds: float) -> None:
        """What was sent is in the mailboxes within `seconds`, each message exactly once."""
        sent = self.end()
        deadline = time.monotonic() + seconds
        missing = {user: set(subjects) for user, subjects in sent.items()}
        while any(missing.values()) and time.monotonic() < deadline:
            for machine in ("outside", "mail"):  # nobody waits for their next turn
                self.house.run(machine, "postqueue -f")
            time.sleep(1)
            missing = {user: set(sent[user]) - set(subjects(self.house, user, self.mark)) for user in self.users}
        queues = self.house.run("outside", "mailq") + self.house.run("mail", "mailq") if any(missing.values()) else ""
        assert missing == {user: set() for user in self.users}, f"not there after {seconds:.0f} s\n{queues}"
        for user in self.users:
            there = Counter(subjects(self.house, user, self.mark))
            assert there == Counter(sent[user]), f"{user}: {there - Counter(sent[user])} too many"
        assert_nothing_bounced(self.house, self.mark)


def subjects(house: House, user: str, mark: str) -> list[str]:
    """The subjects with `mark` in them, of all messages in the user's inbox."""
    with house.imap(user) as client:
        client.select(readonly=True)
        numbers = client.search(None, "SUBJECT", mark)[1][0].split()
        if not numbers:
            return []
        lines = client.fetch(b",".join(numbers).decode(), "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
    return [part[1].decode().removeprefix("Subject:").strip() for part in lines if isinstance(part, tuple)]


def assert_nothing_bounced(house: House, mark: str) -> None:
    """A bounce quotes the subject; the stranger's own mailbox has no other reason to know it."""
    assert house.run("outside", f"grep -rlF {mark} /home/stranger/Maildir || true") == ""
    with house.imap(ADMIN) as client:  # where what a null client sends would bounce to
        client.select(readonly=True)
        assert client.search(None, "FROM", "MAILER-DAEMON", "TEXT", mark)[1] == [b""]
