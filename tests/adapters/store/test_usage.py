"""What was requested, granted and used, as right-sizing and review read it; and that no such query reads every job."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from justenough.adapters.store import Store
from justenough.domain.ledger.events import Event, EventType
from justenough.domain.rightsizing.usage import AccessKey
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import JOB, NOW, job_id, later
from tests.adapters.store.test_queries import query_plans

WRITE = {"resource": "orders-db", "action": "write", "ttl": "10m", "reason": "Write the refund"}
SPEC = {"name": "refund-triage", "run": {"command": ["python"]}, "access": [{**WRITE, "deliver": {"env": {"PGUSER": "username"}}}]}


def run_events(job: str = JOB, *more: Event, start: float = 0, **changes: Any) -> list[Event]:
    """A run that was issued what it asked for, 100 s before it ended."""
    return [
        samples.submission(job, at=later(start), **{"spec": SPEC, **changes}),
        samples.access_request(job, at=later(start)),
        samples.access_decision("allowed", job, at=later(start)),
        samples.job_start(job, at=later(start + 1)),
        samples.issuance(job, at=later(start)),
        *more,
        samples.credential_confirmation(job, at=later(start + 101)),
        samples.job_end(job=job, at=later(start + 100)),
    ]


def credential_use(job: str = JOB, number: int = 1, about: str = "") -> Event:
    found = samples.credential_event(EventType.CREDENTIAL_USED, job, number=number, what="a tool was called")
    return found.model_copy(update={"id": found.id + about})


def test_a_run_has_the_access_of_its_own_spec_and_the_outcome_of_each_request(store: Store) -> None:
    store.ledger.append(run_events())
    found = store.usage.run_history("refund-triage")
    assert found is not None
    (run,) = found.runs
    (ask,) = run.requests
    (one,) = ask.uses
    assert (found.newest, found.newest_at, found.spec) == (JOB, NOW, SPEC)
    assert (run.ran, set(run.offered)) == (True, {AccessKey("orders-db", "write")})
    assert (ask.key, ask.ttl, ask.granted, ask.refused, ask.granted_ttl) == (AccessKey("orders-db", "write"), 600, True, False, None)
    assert (one.delivered, one.seen, ask.seconds) == (True, False, 100)


def test_the_use_of_a_credential_ends_with_the_first_event_that_ends_it(store: Store) -> None:
    revoked = samples.credential_event(EventType.CREDENTIAL_REVOKED, job_id(2), at=later(40), by="person", why=None)
    store.ledger.append([*run_events(job_id(1)), *run_events(job_id(2), revoked), *run_events(job_id(3))[:-1]])
    # One whose hard end came before its job's.
    store.ledger.append(
        [
            samples.submission(job_id(4), spec=SPEC),
            samples.access_request(job_id(4)),
            samples.issuance(job_id(4), expires_at=later(30)),
            samples.job_end(job=job_id(4), at=later(900)),
        ]
    )
    found = store.usage.run_history("refund-triage")
    assert found is not None
    assert {run.job: run.requests[0].seconds for run in found.runs} == {job_id(4): 30, job_id(2): 40, job_id(1): 100}


def test_a_credential_in_doubt_has_no_known_duration_of_use(store: Store) -> None:
    data = {"resource": "orders-db", "action": "write", "request": samples.issuance().data["request"], "revocable": "now"}
    doubted = samples.credential_event(EventType.CREDENTIAL_DOUBTED, asked_at=NOW, expires_at=later(60), **data)
    store.ledger.append(
        [samples.submission(spec=SPEC), samples.access_request(), samples.job_start(), doubted, samples.job_end(at=later(90))]
    )
    found = store.usage.run_history("refund-triage")
    assert found is not None
    (ask,) = found.runs[0].requests
    assert (ask.granted, len(ask.uses), ask.seconds) == (True, 1, None)


@pytest.mark.parametrize("about", ["", "/1"])
def test_a_credential_counts_as_used_only_if_the_ledger_records_a_use_of_it(store: Store, about: str) -> None:
    # The tenth credential's id begins as the first one's does.
    second = [samples.access_request(number=10), samples.issuance(number=10)]
    store.ledger.append(run_events(JOB, *second, credential_use(number=10, about=about)))
    found = store.usage.run_history("refund-triage")
    assert found is not None
    assert [[use.seen for use in ask.uses] for ask in found.runs[0].requests] == [[False], [True]]


def test_a_run_passed_on_what_its_descendants_requested_in_their_specs_or_while_they_ran(store: Store) -> None:
    spec: dict[str, Any] = {"name": "part", "run": {"command": ["python"]}}
    reads = {**spec, "access": [{"resource": "orders-db", "action": "read", "ttl": "1m", "reason": "Look", "at": "request"}]}
    store.ledger.append([*run_events(job_id(1)), *run_events(job_id(2), start=1000)])
    store.ledger.append([samples.submission(job_id(3), name="part", spec=spec, parent=job_id(1))])
    store.ledger.append([samples.submission(job_id(4), name="part", spec=reads, parent=job_id(3))])
    store.ledger.append([samples.access_request(job_id(3), resource="customers-db", action="admin")])
    found = store.usage.run_history("refund-triage")
    assert found is not None
    passed_on = frozenset({AccessKey("customers-db", "admin"), AccessKey("orders-db", "read")})
    assert {run.job: run.passed_on for run in found.runs} == {job_id(1): passed_on, job_id(2): frozenset()}


def test_a_shorter_ttl_than_the_orders_was_named_by_the_program(store: Store) -> None:
    call = {"tool": "find-order", "arguments": {}}
    ttls: list[dict[str, Any]] = [{"ttl": 300}, {"ttl": 900}, {"ttl": 300, "call": call}, {"ttl": 300, "resource": "refunds-db"}]
    store.ledger.append(run_events(JOB, *(samples.access_request(number=number, **ask) for number, ask in enumerate(ttls, start=2))))
    found = store.usage.run_history("refund-triage")
    assert found is not None
    assert [ask.is_ttl_named for ask in found.runs[0].requests] == [False, True, False, False, False]


def test_narrowed_and_denied_requests_are_reported(store: Store) -> None:
    approved = [
        samples.access_request(number=2),
        samples.access_decision("needs_approval", number=2, tier=1),
        samples.approval_decision("approved", number=2),
    ]
    denied = [samples.access_request(number=3), samples.access_decision("denied", number=3)]
    store.ledger.append(run_events(JOB, *approved, *denied))
    found = store.usage.run_history("refund-triage")
    assert found is not None
    assert [(ask.granted, ask.refused, ask.granted_ttl) for ask in found.runs[0].requests] == [
        (True, False, None),
        (True, False, 300),
        (False, True, None),
    ]


def test_the_newest_finished_runs_are_analysed_and_the_newest_spec_is_reported(store: Store) -> None:
    newer = {**SPEC, "task": "newer"}
    store.ledger.append([event for number in range(5) for event in run_events(job_id(number), start=1000 * number)])
    store.ledger.append([samples.submission(job_id(9), spec=newer, at=later(9000)), *run_events(job_id(7), name="other")])

    def runs(**which: Any) -> list[str]:
        found = store.usage.run_history("refund-triage", **which)
        assert found is not None
        assert (found.newest, found.spec) == (job_id(9), newer)
        return [run.job for run in found.runs]

    assert runs() == [job_id(number) for number in (4, 3, 2, 1, 0)]
    assert runs(runs=3) == [job_id(4), job_id(3)]
    assert runs(since=later(3000)) == [job_id(4), job_id(3)]
    assert runs(requester_id="e-ops", since=later(99_000)) == []
    assert (
        store.usage.run_history("refund-triage", requester_id="e-sam")
        is store.usage.run_history("unknown")
        is store.usage.run_history("nul\0")
        is None
    )


def all_items(read: Callable[[str | None], Any]) -> list[Any]:
    found, cursor = [], None
    while True:
        page = read(cursor)
        found += page.items
        if (cursor := page.next) is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_every_job_name_is_listed_once_and_a_launchers_alone(store: Store, limit: int) -> None:
    for number, (name, person) in enumerate([("b", "e-ops"), ("a", "e-sam"), ("c", "e-ops"), ("b", "e-sam")]):
        store.ledger.append(run_events(job_id(number), name=name, requester=person))
    assert [(one.name, len(one.runs)) for one in all_items(lambda cursor: store.usage.run_histories(limit=limit, cursor=cursor))] == [
        ("a", 1),
        ("b", 2),
        ("c", 1),
    ]
    assert [one.name for one in store.usage.run_histories(cursor="a\0").items] == ["b", "c"]
    theirs = all_items(lambda cursor: store.usage.run_histories(requester_id="e-ops", limit=limit, cursor=cursor))
    assert [(one.name, [run.job for run in one.runs]) for one in theirs] == [("b", [job_id(0)]), ("c", [job_id(2)])]


def test_access_granted_through_fewer_tools_than_requested_counts_as_narrowed(store: Store) -> None:
    requested: dict[str, Any] = {"a": {"arguments": {}}, "b": {"arguments": {}}}
    granted = {"a": requested["a"]}
    for number, tools in ((1, granted), (2, requested), (3, None)):
        job = job_id(number)
        store.ledger.append([samples.submission(job), samples.access_request(job, tools=requested)])
        if tools is None:
            store.ledger.append([samples.access_decision("allowed", job)])
        else:
            approval = samples.approval_decision("approved", job, ttl=600)
            decided = samples.replace_data(approval, tools=tools, granted_tools=tools)
            store.ledger.append([samples.access_decision("needs_approval", job), decided])
    use = store.usage.action_use(AccessKey("orders-db", "write"))
    assert (use.granted, use.narrowed) == (3, 1)


@pytest.mark.parametrize("limit", [1, 100])
def test_the_use_of_each_action_is_reported_once_over_all_jobs(store: Store, limit: int) -> None:
    read: dict[str, Any] = {"resource": "customers-db", "action": "read"}
    approved = [
        samples.access_request(job_id(2), number=2, at=later(50)),
        samples.access_decision("needs_approval", job_id(2), number=2),
        samples.approval_decision("approved", job_id(2), number=2),
    ]
    store.ledger.append(run_events(job_id(1), samples.issuance(job_id(1), number=2, action="admin", at=later(3))))
    store.ledger.append([*run_events(job_id(2), *approved, start=60), *run_events(job_id(3), data_scope={"tenant": "globex"})])
    store.ledger.append(
        [samples.submission(job_id(4)), samples.access_request(job_id(4), **read), samples.access_decision("denied", job_id(4))]
    )

    found = {(use.resource, use.action): use for use in all_items(lambda cursor: store.usage.action_uses(limit=limit, cursor=cursor))}
    write = found["orders-db", "write"]
    assert sorted(found) == [("customers-db", "read"), ("orders-db", "admin"), ("orders-db", "write")]
    assert (write.asked, write.granted, write.narrowed, write.longest_granted, write.last_issued) == (4, 4, 1, 600, later(60))
    assert sorted(scope["tenant"] for scope in write.scopes) == ["acme", "globex"]
    assert write.whole
    denied = found["customers-db", "read"]
    assert (denied.asked, denied.granted, denied.longest_granted, denied.last_issued) == (1, 0, None, None)
    assert found["orders-db", "admin"].last_issued == later(3)

    late = {
        (use.resource, use.action): use
        for use in all_items(lambda cursor: store.usage.action_uses(since=later(55), limit=limit, cursor=cursor))
    }
    # The time of the last issue is returned, however long ago it was.
    assert (late["orders-db", "write"].asked, late["orders-db", "admin"].last_issued) == (1, later(3))


@pytest.mark.parametrize("limit", [1, 2])
def test_pages_of_actions_leave_out_no_resource_whose_name_continues_that_of_another(store: Store, limit: int) -> None:
    names = ["db", "db-copy", "db2"]
    store.ledger.append([samples.submission(), *(samples.access_request(number=at, resource=name) for at, name in enumerate(names, 1))])
    assert [use.resource for use in all_items(lambda cursor: store.usage.action_uses(limit=limit, cursor=cursor))] == names


@pytest.mark.parametrize("requester", [None, "e-ops"])
def test_no_usage_query_scans_every_job_request_or_credential(ready_file: Path, tmp_path: Path, requester: str | None) -> None:
    """This keeps right-sizing quick with a million jobs: each table is read by a key."""
    shutil.copy(ready_file, tmp_path / "store.db")
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with closing(Store(url)) as store:
        store.ledger.append(run_events())

    def asked(store: Store) -> None:
        store.usage.run_history("refund-triage", requester_id=requester, runs=100)
        store.usage.run_histories(requester_id=requester, runs=100, limit=10, cursor="a")
        store.usage.action_uses(since=NOW, limit=10)

    found = query_plans(url, asked)
    # Only the newest requests of one action are scanned or sorted, and these are limited in number.
    assert {plan for plan in found if re.search(r"SCAN (?!anon_1|CONSTANT)", plan)} == set()
    by_name = [plan for plan in found if "name" in plan]
    assert by_name
    assert all(("requester_id=?" in plan) is bool(requester) for plan in by_name), by_name
    assert [plan for plan in found if "ledger" in plan and "(id>? AND id<?)" in plan]
