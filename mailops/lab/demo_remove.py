"""`script/demo --remove`: takes away what the demo brought to this computer, in whatever state it is.

Standard library only, as long as no lab is left: a demo that never got as far as its virtual environment is
removed, too.
"""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mailops.errors import MailopsError
from mailops.lab import cache, demo, demo_packages, host, layout


def remove(everything: bool) -> None:
    """The demo's machines and, unless another lab needs it, all that the lab brought to this computer."""
    _down(demo.LAB)
    others = [lab.name for lab in layout.labs()]
    if others and not everything:
        print(f"{layout.BASE} stays: there are other labs in it ({', '.join(others)})")
        print("`MAILOPS_LAB=NAME fab lab.down` removes one; `script/demo --remove --all` removes them all")
        return
    for name in others:
        _down(name)
    with layout.locked("computer"):
        cache.stop()
        host.bridge_down()
    kept = demo_packages.remove()
    if kept:
        print(f"kept, because other packages need them now: {', '.join(kept)}")
    _delete_folder()
    print(f"removed {layout.BASE} and {layout.BRIDGE}")


def _down(name: str) -> None:
    if layout.Lab(name).folder.exists():
        from mailops.lab import replica

        print(f'removing the lab "{name}"', flush=True)
        replica.down(name)


def _delete_folder() -> None:
    """The record of the packages goes last: until then, another run can finish what this one began."""
    for part in layout.BASE.iterdir():
        if part != demo_packages.RECORD:
            host.delete(part)
    demo_packages.RECORD.unlink(missing_ok=True)
    with suppress(OSError):  # a folder that is a mount of its own stays, empty
        layout.BASE.rmdir()


@contextmanager
def alone() -> Iterator[None]:
    """Two demos at the same time would take each other's machines away."""
    folder = layout.BASE / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "demo", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MailopsError("another demo is running on this computer", "wait until it ends") from None
        yield


def main(argv: list[str]) -> int:
    try:
        with alone():
            remove(demo.arguments().parse_args(argv).all)
    except MailopsError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("\ndemo: interrupted; run it again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
