"""The benchmark prints its figures in a form for programs. Their values are never tested: they depend on the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.figures import Figure, p50, p99, table

ROOT = Path(__file__).resolve().parents[2]


def test_the_benchmarks_without_servers_report_their_figures_as_json() -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--pure", "-o", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in json.loads(done.stdout)["figures"]}
    assert set(figures) == {"policy_decision_p50", "policy_replay", "ledger_verification", "evidence_report"}
    assert all(figure["value"] > 0 and figure["budget"] and figure["unit"] for figure in figures.values())


@pytest.mark.parametrize(
    "figure, ok, budget",
    [
        (Figure("a", "", 80, "/s", floor=100, at_least=0.8, of="ratio"), True, "≥ 0.8 × floor"),
        (Figure("a", "", 79, "/s", floor=100, at_least=0.8, of="ratio"), False, "≥ 0.8 × floor"),
        (Figure("a", "", 110, "ms", floor=100, at_most=1, of="ratio"), False, "≤ 1 × floor"),
        (Figure("a", "", 249, "MB", at_most=250), True, "≤ 250 MB"),
        (Figure("a", "", 251, "MB", at_most=250), False, "≤ 250 MB"),
        (Figure("a", "", 28, "events"), None, ""),
    ],
)
def test_a_budget_limits_the_figure_or_its_ratio_to_the_floor(figure: Figure, ok: bool | None, budget: str) -> None:
    assert (figure.ok, figure.budget) == (ok, budget)


def test_the_table_shows_whether_each_figure_is_within_its_budget() -> None:
    missed = Figure("slow", "jobs per second", 5, "/s", floor=10, at_least=0.8, of="ratio", note="the machine was busy")
    lines = table([missed, Figure("fast", "decision", 125, "µs", at_most=250)]).splitlines()
    assert lines[1].split()[-2:] == ["0.50", "miss"]
    assert lines[2].split()[-1] == "ok"
    assert lines[3].strip() == "slow: the machine was busy"


def test_percentiles_are_observed_values() -> None:
    assert p50([3, 1, 2]) == 2
    assert p99([*range(1, 101)]) == 100
    assert p99([5, 7]) == 7
