"""Which test process runs which file next."""

from __future__ import annotations

import pytest

from tests.support.xdist_scheduler import WORTH_STARTING, next_scope, rank, servers_of

CLI = [f"tests/console/cli/test_{number}.py" for number in range(WORTH_STARTING)]
STORE, PURE = "tests/adapters/store/test_a.py", "tests/domain/jobs/test_a.py"


@pytest.mark.parametrize(
    "waiting, mine, others, expected",
    [
        pytest.param([STORE, CLI[0]], ["whole"], [], CLI[0], id="goes on with its own servers"),
        pytest.param([CLI[0], STORE], ["chaos"], ["whole"], STORE, id="starts what nobody has"),
        pytest.param([CLI[0], PURE], ["chaos"], ["whole", "domain"], PURE, id="helps where no servers are needed"),
        pytest.param(CLI, ["chaos"], ["whole"], CLI[0], id="helps where much is left"),
        pytest.param(CLI[1:], ["chaos"], ["whole"], None, id="ends where little is left"),
        pytest.param(CLI[1:], ["chaos"], [], CLI[1], id="runs what a process that ended has left"),
        pytest.param([PURE, STORE], ["domain"], [], STORE, id="what needs no servers comes last"),
    ],
)
def test_a_process_runs_next_what_costs_the_fewest_starts(
    waiting: list[str], mine: list[str], others: list[str], expected: str | None
) -> None:
    assert next_scope(waiting, mine=mine, others=others) == expected


def test_what_takes_longest_begins_and_what_shares_servers_follows() -> None:
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
