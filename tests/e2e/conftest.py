"""The lab for the end-to-end tests: one site per Debian release, booted and bootstrapped once, then shared.

Each release is a group of its own, so that two pytest workers run the two labs side by side. With four workers each
release has a second lab, made from the snapshot of the first: tests wait more than they work.
One failure is one failure: after a test that failed, the next one finds the house as it was after its bootstrap.
MAILOPS_TEST_KEEP=1 leaves the labs up and uses them again, which is what one wants while writing a test;
MAILOPS_TEST_LAB gives them another name than "test".
"""

from __future__ import annotations

import contextlib
import os
import signal
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from tests.e2e.house import House
from tests.e2e.watch import Watch

HOUSES = pytest.StashKey[dict[int, House]]()
GROUP = pytest.StashKey[str]()
# What the second lab is for, so that both take the same time (a run shows the time per file); the others need a house
# that was bootstrapped before their eyes, or came later.
SECOND = ("comes_back", "dkim", "drift", "filter", "generations", "interrupted", "names", "overrides", "upstream")

# A shell has its background work ignore Ctrl-C, and what that starts ignores it as well: some tests press it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One worker per lab: the tests that share one must not run at the same time."""
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    for item in items:
        if release := getattr(getattr(item, "callspec", None), "params", {}).get("house"):
            second = "b" if workers >= 4 and item.path.stem.removeprefix("test_") in SECOND else ""
            item.add_marker(pytest.mark.xdist_group(f"debian{release}{second}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure, of the test itself or of what was made or put away for it, spoils the house."""
    report = yield
    if report.failed and (house := getattr(item, "funcargs", {}).get("house")):
        house.spoiled = True
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Not at the end of the test that failed: whoever runs that one alone wants to look around."""
    release = getattr(getattr(item, "callspec", None), "params", {}).get("house")
    if group := item.get_closest_marker("xdist_group"):
        item.session.stash[GROUP] = group.args[0]
    house = item.session.stash.get(HOUSES, {}).get(release)
    if house and house.spoiled:
        house.restore()


def _make(house: House, first: str, keep: bool) -> None:
    if house.lab != first:
        house.build_like(first)
    else:
        house.build(anew=not keep)
    with Watch(house) as house.bootstrap_watch:
        house.fab("bootstrap")
    house.keep()


@pytest.fixture(scope="session", params=[12, 13], ids=["debian12", "debian13"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A bootstrapped site: mailhost, two null clients, and the outside world."""
    name = f"{os.environ.get('MAILOPS_TEST_LAB', 'test')}-{request.param}"
    keep = bool(os.environ.get("MAILOPS_TEST_KEEP"))
    first, name = name, name + request.session.stash[GROUP].removeprefix(f"debian{request.param}")
    house = House(name, request.param, tmp_path_factory.mktemp("site"))
    try:
        _make(house, first, keep)
    except Exception as error:  # all tests would fail with it; test_bootstrap.py and the end of the run tell of it
        if keep:
            raise
        house.failures.append(f"{type(error).__name__}: {error}")
        warnings.warn(f"{name} was made at the second attempt: {error}", stacklevel=1)
        _make(house, name, keep)
    request.session.stash.setdefault(HOUSES, {})[request.param] = house
    yield house
    if not keep:
        house.remove()


@pytest.fixture
def up(house: House) -> House:
    """The house with its vault open and every daemon running, whatever the test before did to it."""
    house.open_up()
    return house


@pytest.fixture
def site(house: House, tmp_path: Path) -> Callable[[Callable[[Any], None]], Path]:
    """Makes a copy of the house's site file with something changed in it; comments stay."""

    def make(edit: Callable[[Any], None]) -> Path:
        document = tomlkit.parse(house.hosts_toml.read_text())
        edit(document)
        path = tmp_path / "hosts.toml"
        path.write_text(tomlkit.dumps(document))
        return path

    return make
