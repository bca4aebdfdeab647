"""The whole stack, once per session: real Temporal, OpenBao, PostgreSQL, a worker and a console, with the shop's people logged in.

Tests share it and are told apart by their jobs' ids. Folders that kill servers start stacks of their own.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from justenough.adapters.runtime import gc_tuning
from tests.support.memory_folder import use_memory
from tests.support.people import Human, log_in
from tests.support.shop import Shop
from tests.support.shop_config import copy_shop
from tests.support.xdist_scheduler import ByServers, rank
from worker.stack.control import running_stack
from worker.stack.paths import StackPaths
from worker.stack.stack_file import APPS, SERVERS, Stack

# How long one example takes says more about what else the machine does than about us.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

HASTY = '  hasty: {uses: {resource: model-api}, url: "${MODEL_URL}", allow: ["gpt-*"], timeout: 2s, max_requests: 5}\n'
"""The shop's model once more, for tests that do not want to wait as long as jobs may."""
FOR_TESTS = {"JUSTENOUGH_JOB_PATH", "JUSTENOUGH_SCREENSHOTS"}
"""The settings that a test run takes from whoever starts it."""
LAST_LINES, LONGEST_LINE = 15, 500
"""How many lines of a log a failed test shows, and how many characters of each."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep the servers' files in memory, unless another process started this one or somebody chose a folder: `TMPDIR=/tmp make test`.

    Forget the settings of the installation that the user works with: tests would write into its store, whose ledger keeps everything.

    Under nohup, which ignores SIGHUP, catch it: the programs that tests start would otherwise ignore it, too.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    for name in [name for name in os.environ if name.startswith("JUSTENOUGH_") and name not in FOR_TESTS]:
        del os.environ[name]
    is_chosen = hasattr(config, "workerinput") or "TMPDIR" in os.environ or config.option.basetemp is not None
    folder = None if is_chosen else use_memory()
    if folder is not None:
        # Shorter than pytest's own choice: a socket's path has at most 108 bytes.
        config.option.basetemp = str(folder / "t")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collect tests without collecting garbage: what collecting creates lives until the end, and Python would look through it again and again.

    Collect garbage less often afterwards, too, as workers do.
    """
    with gc_tuning.pause():
        _import_tests_in_turn(session.config)
        collected = yield
    gc_tuning.freeze()
    return collected


def _import_tests_in_turn(config: pytest.Config) -> None:
    """Import the test files, each process beginning with others: who imports one first compiles it for all. In a new clone this takes half the time."""
    process = getattr(config, "workerinput", None)
    if process is None:
        return
    files = sorted(file for argument in config.args if Path(argument).is_dir() for file in Path(argument).absolute().rglob("test_*.py"))
    begin = len(files) * int(process["workerid"].removeprefix("gw")) // process["workercount"]
    for file in (*files[begin:], *files[:begin]):
        with suppress(Exception):
            # pytest imports it again, and reports what is wrong with it.
            import_module(".".join(file.relative_to(config.rootpath).with_suffix("").parts))


@pytest.fixture(scope="session", autouse=True)
def no_files_in_the_checkout(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fail where a test leaves a file in the checkout: a `justenough.toml` there would configure every later command."""
    before = set(pytestconfig.rootpath.iterdir())
    yield
    new = {path.name for path in set(pytestconfig.rootpath.iterdir()) - before if not path.name.startswith(".")}
    assert not new, f"tests left files in {pytestconfig.rootpath}: {sorted(new)}"


def pytest_report_header() -> str | None:
    """Say what an ordinary user's run leaves out."""
    return None if os.geteuid() == 0 else "not root: tests marked `root` are left out"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest, and keep tests that share servers together. As an ordinary user, leave out what needs root."""
    if os.geteuid() != 0:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("root")])
        items[:] = [item for item in items if not item.get_closest_marker("root")]
    items.sort(key=lambda item: rank(str(item.path)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServers | None:
    """Say which process runs what, where `--dist loadscope` asks for it."""
    return ByServers(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the last lines of the stack's logs to the report of a failed test: its folder is deleted afterwards."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("whole")
    if report.failed and stack is not None:
        logs = StackPaths(stack.home)
        report.sections += [(f"{child}.log", _last_lines(logs.log(child))) for child in APPS]
    return report


def _last_lines(log: Path) -> str:
    """Return the end of a log, or why it cannot be read, for example because it is gone with its stack."""
    try:
        lines = log.open(errors="replace")
    except OSError as error:
        return str(error)
    with lines:
        return "\n".join(line.rstrip()[:LONGEST_LINE] for line in deque(lines, LAST_LINES))


@pytest.fixture(scope="session")
def whole() -> Iterator[Stack]:
    """The stack, with a copy of the shop's configuration that tests may edit and put back. Models are the tests' own."""
    with tempfile.TemporaryDirectory(prefix="je-tests-") as folder:
        config = copy_shop(Path(folder) / "shop")
        catalog = config / "catalog.yaml"
        catalog.write_text(catalog.read_text().replace("\nmodels:\n", f"\nmodels:\n{HASTY}", 1))
        with running_stack(Path(folder) / "home", config, only=(*SERVERS, *APPS), drain=2) as stack:
            yield stack


@pytest.fixture(scope="session")
def whole_shop(whole: Stack) -> Iterator[Shop]:
    """The shop as its own database's owner sees it, and what jobs tell it."""
    with Shop.open(whole) as opened:
        yield opened


@pytest.fixture(scope="session")
def shop(whole_shop: Shop) -> Shop:
    return whole_shop


def _person(name: str) -> object:
    def fixture(whole: Stack) -> Iterator[Human]:
        with log_in(whole, name) as human:
            yield human

    return pytest.fixture(fixture, scope="session", name=name)


ops, lead, security, chief, chief2, auditor, oncall = map(_person, ("ops", "lead", "security", "chief", "chief2", "auditor", "oncall"))
