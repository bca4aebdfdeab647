"""Anybody who can write to Temporal may send a signal, with anything in it: it changes nothing, ends nothing, and stays within bounds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from justenough.domain.jobs.states import JobState
from tests.workflows.known_jobs import Need
from tests.workflows.servers import Bench, StartedJob
from workflows import options
from workflows.job import Job
from workflows.signals import ReceivedAnswers, decode_signal

MEGABYTES = 2 * 1024 * 1024 - 4096
"""As large as the server takes a signal's payload."""


def raw_value(data: bytes, encoding: str = "json/plain") -> RawValue:
    """Return a payload as it would travel, whatever is in it."""
    return RawValue(Payload(metadata={"encoding": encoding.encode()}, data=data))


def deep_json(depth: int) -> RawValue:
    """Return JSON this deep."""
    return raw_value(b"[" * depth + b"]" * depth)


GROWING = raw_value(b"[" + b"1e15," * 3000 + b"1]")
"""Four times as large once it is read and written again: 1000000000000000.0."""
ANYTHING: dict[str, Sequence[Any]] = {
    "no argument": (),
    "two arguments": ({"statement": {}}, "x"),
    "twenty arguments": tuple(range(20)),
    "null": (None,),
    "true": (True,),
    "a number": (7,),
    "a string": ("approve",),
    "a list": ([1, [2, {}]],),
    "an object": ({"statement": 1, "signature": {}},),
    "an unknown request": ({"statement": {"request": "r-x", "person": "lead", "decision": "approve"}, "signature": "of lead"},),
    "an empty payload": (raw_value(b""),),
    "not JSON": (raw_value(b"{"),),
    "not text": (raw_value(bytes(range(256))),),
    "bytes": (raw_value(bytes(range(256)), "binary/plain"),),
    "an unknown encoding": (raw_value(b"\x00", "of/nobody"),),
    "a protobuf that is none": (raw_value(b"{}", "json/protobuf"),),
    "NaN": (raw_value(b'{"a": NaN, "b": -Infinity}'),),
    "half a character": (raw_value(rb'{"statement": {"request": "\ud800"}, "signature": "\udfff"}'),),
    "half a character as a key": (raw_value(rb'{"\ud800": 1}'),),
    "a number too long to read": (raw_value(b"9" * 5000),),
    "a number longer than any type": (raw_value(b"9" * 4000),),
    "numbers that grow": (GROWING,),
    "JSON too deep to hand on": (deep_json(150),),
    "JSON too deep for one side": (deep_json(220),),
    "JSON too deep for both sides": (deep_json(300),),
    "JSON too deep to read": (deep_json(8000),),
    "two megabytes": (raw_value(b'"' + b"x" * (MEGABYTES - 2) + b'"'),),
}


async def assert_still_answers(job: StartedJob) -> None:
    """See that a job still takes an answer, and ends by it."""
    await job.answer("lead", decision="deny")
    assert (await job.result()).state is JobState.DENIED
    assert not [event for event in await job.history() if event == "workflow_task_failed"]


@pytest.mark.parametrize("args", ANYTHING.values(), ids=ANYTHING.keys())
async def test_a_malformed_answer_makes_one_rejected_entry_and_the_job_still_takes_decisions(bench: Bench, args: Sequence[Any]) -> None:
    job = await bench.start(needs=(Need(1),))
    await job.wait_for_timer()
    await job.handle.signal("decide", args=args)
    await job.known.until(lambda known: "rejected" in known.ledger)
    await assert_still_answers(job)
    assert job.known.ledger == ["needs_approval 1", "rejected", "deny by lead", "closed denied"]


async def test_malformed_and_unknown_signals_change_nothing(bench: Bench) -> None:
    job = await bench.start(needs=(Need(1),))
    for args in ANYTHING.values():
        await job.handle.signal("revoke_credential", args=args)
        await job.handle.signal("nobody's", args=args)
    await assert_still_answers(job)
    assert job.known.ledger == ["needs_approval 1", "deny by lead", "closed denied"]


@pytest.mark.parametrize("args", [ANYTHING["null"], ANYTHING["two arguments"], ANYTHING["not text"]])
async def test_a_kill_signal_works_whatever_its_arguments_are(bench: Bench, args: Sequence[Any]) -> None:
    job = await bench.start(needs=(Need(1),))
    await job.handle.signal("kill", args=args)
    assert (await job.result()).state is JobState.KILLED


async def test_an_answer_that_cannot_be_examined_does_not_affect_other_answers(bench: Bench) -> None:
    queue = "poison"
    job = await bench.start(queue=queue, needs=(Need(1),))
    for args in ({"poison": True}, "x", job.known.answer("lead", "deny"), {"poison": True}):
        await job.handle.signal("decide", args)
    async with bench.worker(queue=queue):
        assert (await job.result()).state is JobState.DENIED
    assert job.known.ledger == ["needs_approval 1", "rejected", "deny by lead", "closed denied"]
    assert job.known.signals == [2, 3]


async def send_many(job: StartedJob, name: str, *args: Any, times: int) -> None:
    """Send the same signal many times."""
    for _ in range(times // 50):
        await asyncio.gather(*(job.handle.signal(name, args=args) for _ in range(50)))


async def test_an_answer_after_two_thousand_that_do_not_count_is_counted(bench: Bench) -> None:
    queue = "flood"
    job = await bench.start(queue=queue, needs=(Need(1),))
    await send_many(job, "decide", {"statement": {}, "signature": "x" * 1000}, times=2000)
    await job.answer("lead", decision="deny")
    async with bench.worker(queue=queue):
        assert (await job.result()).state is JobState.DENIED
    events = Counter(await job.history())
    assert events.total() - events["workflow_execution_signaled"] < 200


async def test_a_history_in_which_further_answers_were_ignored_replays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def add_as_earlier_releases(answers: ReceivedAnswers, args: Sequence[RawValue]) -> None:
        if answers._examined + len(answers._waiting) < options.MAX_ANSWERS:
            answers._waiting.append(decode_signal(args))

    queue = "earlier"
    job = await bench.start(queue=queue, needs=(Need(1),))
    await send_many(job, "decide", {}, times=options.MAX_ANSWERS + 100)
    await job.handle.signal("kill")
    with monkeypatch.context() as earlier:
        earlier.setattr(ReceivedAnswers, "add", add_as_earlier_releases)
        async with bench.worker(queue=queue):
            assert (await job.result()).state is JobState.KILLED
    replayer = Replayer(workflows=[Job], data_converter=pydantic_data_converter)
    await replayer.replay_workflow(await job.handle.fetch_history())


async def test_a_flood_of_revoke_signals_is_carried_out_only_up_to_a_limit(bench: Bench) -> None:
    queue = "wishes"
    job = await bench.start(queue=queue)
    await send_many(job, "revoke_credential", "c-other-01m874bxt0wzzm5b0k5tvhr3n1-1", times=100)
    await send_many(job, "revoke_credential", f"c{job.known.job[1:]}-7", times=300)
    async with bench.worker(queue=queue):
        assert (await job.result()).state is JobState.SUCCEEDED
    assert job.known.ledger.count("revoked 7") == job.known.tried["revoke_credential"] == options.MAX_REVOCATION_REQUESTS


@pytest.mark.parametrize("answer", ["x" * (options.MAX_ANSWER_BYTES - 2), GROWING], ids=["as large as it may be", "larger once read"])
async def test_large_answers_that_arrive_together_fit_into_an_activitys_arguments(server: Bench, answer: object) -> None:
    queue = "large"
    job = await server.start(queue=queue, needs=(Need(1),), down={"take_answers"})
    # Each becomes an argument of an ordinary activity, whose size the server limits.
    await send_many(job, "decide", answer, times=options.MAX_ANSWERS_PER_BATCH)
    async with server.worker(queue=queue):
        await job.known.until(lambda known: known.tried["take_answers"] > 3)
        job.known.down.clear()
        await assert_still_answers(job)
    assert job.known.ledger.count("rejected") == options.MAX_ANSWERS_PER_BATCH
