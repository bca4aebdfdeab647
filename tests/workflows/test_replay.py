"""Histories that were recorded earlier replay on today's workflows: a job that waits for a week survives every deployment meanwhile."""

from __future__ import annotations

import re

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from console.temporal.fire_workflow import Fire
from tests.workflows.careless_edits import ClosesPatiently, GoesUnguarded, WaitsFirst
from tests.workflows.history_files import FOLDER, read_histories, texts_in
from tests.workflows.servers import WORKFLOWS
from workflows.guard import Guard
from workflows.job import Job

HISTORIES = read_histories()
OF_A_MACHINE = re.compile(r"(^|[\s\"':=])/(home|root|work|tmp|usr|Users|opt|var)/|\d+@[\w.-]+|site-packages|Traceback")
SIZE = 64 * 1024


def replayer(*workflows: type) -> Replayer:
    """Return what replays histories on these workflows."""
    return Replayer(workflows=workflows, data_converter=pydantic_data_converter)


@pytest.fixture(scope="module")
def current() -> Replayer:
    return replayer(*WORKFLOWS)


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES.keys())
async def test_a_recorded_history_replays_on_the_current_code(current: Replayer, history: WorkflowHistory) -> None:
    await current.replay_workflow(history)


@pytest.mark.parametrize("changed, name", [(WaitsFirst, "auto-approved"), (ClosesPatiently, "auto-approved"), (GoesUnguarded, "approved")])
async def test_a_careless_change_of_the_workflow_fails_the_replay(changed: type, name: str) -> None:
    with pytest.raises(NondeterminismError):
        await replayer(changed, Guard).replay_workflow(HISTORIES[name])


async def test_a_careless_change_does_not_fail_the_replay_of_a_history_that_it_does_not_affect() -> None:
    await replayer(GoesUnguarded, Guard).replay_workflow(HISTORIES["auto-approved"])


def test_the_recorded_histories_cover_every_replayed_workflow() -> None:
    kept = " ".join(file.read_text() for file in FOLDER.glob("*.json"))
    assert {f'"name": "{kind.__name__}"' in kept for kind in (Job, Guard, Fire)} == {True}
    assert len(HISTORIES) >= 14


@pytest.mark.parametrize("name", HISTORIES)
def test_recorded_histories_are_small_and_name_no_machine(name: str) -> None:
    file = FOLDER / f"{name}.json"
    assert file.stat().st_size < SIZE
    assert not [text for text in texts_in(HISTORIES[name].to_json_dict()) if OF_A_MACHINE.search(text)]
