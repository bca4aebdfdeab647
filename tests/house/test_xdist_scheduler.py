"""The choice of the file that a test process runs next."""

from __future__ import annotations

import pytest

from tests.support.xdist_scheduler import WORTH_STARTING, next_scope, rank, servers_of

CLI = [f"tests/console/cli/test_{number}.py" for number in range(WORTH_STARTING)]
CHAOS, STORE, PURE = "tests/chaos/test_a.py", "tests/adapters/store/test_a.py", "tests/domain/jobs/test_a.py"


@pytest.mark.parametrize(
    "waiting, mine, others, expected",
    [
        pytest.param([STORE, CLI[0]], ["whole"], [], CLI[0], id="continues with its own servers"),
        pytest.param([CLI[0], STORE], ["chaos"], ["whole"], STORE, id="starts servers that no process has"),
        pytest.param([CLI[0], PURE], ["chaos"], ["whole", "domain"], PURE, id="helps with files without servers"),
        pytest.param(CLI, ["chaos"], ["whole"], CLI[0], id="helps if many files are left"),
        pytest.param(CLI[1:], ["chaos"], ["whole"], None, id="ends if few files are left"),
        pytest.param(CLI, ["chaos"], ["whole", "whole"], None, id="ends if few files are left for each process that has the servers"),
        pytest.param([CHAOS, STORE], [], ["chaos"], CHAOS, id="starts servers a second time whose files wait for long"),
        pytest.param([CHAOS, STORE], [], ["chaos", "chaos"], STORE, id="starts no servers a third time at the beginning"),
        pytest.param(CLI[1:], ["chaos"], [], CLI[1], id="runs the files that an ended process left"),
        pytest.param([PURE, STORE], ["domain"], [], STORE, id="files without servers come last"),
    ],
)
def test_a_process_runs_the_file_that_needs_the_fewest_server_starts(
    waiting: list[str], mine: list[str], others: list[str], expected: str | None
) -> None:
    assert next_scope(waiting, mine=mine, others=others) == expected


def test_the_longest_files_start_first_and_files_with_the_same_servers_follow() -> None:
    files = [
        PURE,
        "tests/console/pages/test_a.py",
        STORE,
        "tests/jobs/test_a.py",
        "tests/console/pages/test_dashboard.py",
        "tests/chaos/test_a.py",
        CLI[0],
    ]
    assert [servers_of(file) for file in sorted(files, key=rank)] == ["chaos", "whole", "whole", "pages", "pages", "store", "domain"]
    assert sorted(files, key=rank)[3] == "tests/console/pages/test_dashboard.py"
