"""Which test process runs which file next."""

from __future__ import annotations

import pytest

from tests.scheduling import WORTH_STARTING, next_scope, rank

CLI = [f"tests/cli/test_{number}.py" for number in range(WORTH_STARTING)]
STORE, PURE = "tests/store/test_a.py", "tests/justenough/test_a.py"


@pytest.mark.parametrize(
    "waiting, mine, others, expected",
    [
        pytest.param([STORE, CLI[0]], ["whole"], [], CLI[0], id="goes on with its own servers"),
        pytest.param([CLI[0], STORE], ["chaos"], ["whole"], STORE, id="starts what nobody has"),
        pytest.param([CLI[0], PURE], ["chaos"], ["whole", "justenough"], PURE, id="helps where no servers are needed"),
        pytest.param(CLI, ["chaos"], ["whole"], CLI[0], id="helps where much is left"),
        pytest.param(CLI[1:], ["chaos"], ["whole"], None, id="ends where little is left"),
        pytest.param(CLI[1:], ["chaos"], [], CLI[1], id="runs what a process that ended has left"),
        pytest.param([PURE, STORE], ["justenough"], [], STORE, id="what needs no servers comes last"),
    ],
)
def test_a_process_runs_next_what_costs_the_fewest_starts(
    waiting: list[str], mine: list[str], others: list[str], expected: str | None
) -> None:
    assert next_scope(waiting, mine=mine, others=others) == expected


def test_what_takes_longest_begins_and_what_shares_servers_follows() -> None:
    files = [PURE, "tests/pages/test_a.py", STORE, "tests/jobs/test_a.py", "tests/pages/test_now.py", "tests/chaos/test_a.py", CLI[0]]
    assert [file.split("/")[1] for file in sorted(files, key=rank)] == ["chaos", "jobs", "cli", "pages", "pages", "store", "justenough"]
    assert sorted(files, key=rank)[3] == "tests/pages/test_now.py"
