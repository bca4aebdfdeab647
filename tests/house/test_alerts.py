"""The alert rules name metrics that the console has, and the page about alerts has the same rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
PAGE = (ROOT / "docs/how-to/alerts.md").read_text()
METRICS = set(re.findall(r"^\| `(justenough_\w+)`", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE))
"""The generated table, which another test compares with the code."""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_names_only_metrics_that_exist(rule: dict[str, Any]) -> None:
    named = set(re.findall(r"justenough_\w+", rule["expr"]))

    assert named <= METRICS
    assert named or "up{" in rule["expr"]


def test_the_page_has_each_alert_with_the_same_expression_time_and_urgency() -> None:
    rows = (line.split(" | ") for line in PAGE.splitlines() if line.startswith("| `JustEnough"))
    on_the_page = {cells[0].strip("| `"): tuple(cell.strip(" `") for cell in cells[1:4]) for cells in rows}

    assert on_the_page == {rule["alert"]: (rule["expr"], rule.get("for", "0"), rule["labels"]["severity"]) for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_the_runbook_of_an_alert_exists(rule: dict[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)

    assert not anchor or anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
