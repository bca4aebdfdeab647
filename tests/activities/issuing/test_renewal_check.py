"""Before each renewal the launcher, the approvals and the current policies are checked again; on real servers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from activities.issuing import authorization, lease_keeper
from activities.issuing.grants import MAX_WAITING_REQUESTS
from activities.issuing.issuer import ORDER_CHECK_INTERVAL_S, Issuer
from activities.issuing.results import AccessDenied, IssuedCredential, NotPermitted, PendingRequest
from justenough.adapters.store.errors import StoreUnavailable
from justenough.adapters.vault import IssuedSecret, VaultUnavailable
from justenough.adapters.vault import client as vault_client
from justenough.domain.approvals.ladder import ApprovalAnswer, Ladder
from justenough.domain.approvals.statements import DecisionStatement, DelegationStatement, to_signable
from justenough.domain.contracts.workflow_messages import GrantedRequest
from justenough.domain.core.ids import credential_id, job_of, new_job_id, request_id
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.jobs.spec import Access, checked_spec
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import BoundedTools, Bounds
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, EventType, build_event
from justenough.domain.readmodel.views import RequestView
from justenough.domain.tools.call import CallAccess, ToolCall
from justenough.services.evaluate_request import compute_request_digest
from justenough.services.inherited_limits import parent_limit_problems
from justenough.services.job_history import APPROVAL_EVENTS, JobHistory, build_job_history, read_job_history
from justenough.services.ledger_events import approval_escalated_event, approval_opened_event, order_events
from justenough.services.verify_order import VerifiedOrder, build_approval_verifier, verify_order
from tests.activities.held_credentials import keep_until
from tests.activities.vault_shop import SPEC, Desk, Held, Shop, Someone, copy_config, open_desk
from tests.adapters.store import event_samples as samples
from tests.support.claims import claim_job
from tests.support.wait import until

READ = SPEC
WRITE: dict[str, Any] = {**SPEC, "access": [{"resource": "orders-db", "action": "write", "ttl": "10m", "reason": "Mend the order"}]}
LEASE = 20
"""Seconds; a twentieth of it passes before each renewal, so that a busy machine does not lose it."""
ORDERS = Access(resource="orders-db", action=Action.READ, ttl=60, reason="look", at="request")
"""What policy allows without asking anybody."""
SIGNATURE_TTL = timedelta(seconds=30)


@dataclass(frozen=True)
class HeldJob:
    """One credential as a session holds it, and the two people behind it."""

    at: Desk
    job: str
    issuer: Issuer
    item: IssuedCredential
    launcher: Someone
    approver: Someone

    @property
    def can_log_in(self) -> bool:
        credential = self.item.credential
        issued = IssuedSecret(lease_id=credential.lease_id, ttl=LEASE, fields=self.item.fields)
        return self.at.shop.can_log_in(Held(credential, None, issued))  # type: ignore[arg-type]  # a login needs no token

    def entries_of(self, kind: EventType) -> list[dict[str, Any]]:
        return [entry.data for entry in self.at.deps.store.ledger.entries(job=self.job, types=[kind]).items]

    def renewals(self) -> list[dict[str, Any]]:
        return [data for data in self.entries_of(EventType.ACCESS_DECIDED) if data["phase"] == "renewal"]

    async def until(self, happened: Callable[[], bool]) -> None:
        assert self.item.credential.lease_id
        self.at.deps.vault.renew_lease(self.item.credential.lease_id, LEASE)
        await keep_until(self.at, self.job, self.issuer, self.item, happened)

    async def until_ended(self) -> str:
        """Hold it until it is confirmed dead; return why it was ended."""
        await self.until(lambda: bool(self.entries_of(EventType.CREDENTIAL_CONFIRMED)))
        assert not self.can_log_in
        (revoked,) = self.entries_of(EventType.CREDENTIAL_REVOKED)
        (view,) = self.at.deps.store.credentials.list(job=self.job).items
        assert (view.state, view.revoked_why) == ("confirmed", revoked["why"])
        return str(revoked["why"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration that the test may edit."""
    return copy_config(tmp_path)


@pytest.fixture
def at(shop: Shop, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk with the shop's own configuration, or with `folder` in tests that want one."""
    folder = request.getfixturevalue("folder") if "folder" in request.fixturenames else None
    # Otherwise groups and keys are remembered for ten seconds.
    monkeypatch.setattr(vault_client, "CACHE_TTL_S", 0)
    monkeypatch.setattr(lease_keeper, "RETRY_INTERVAL_S", 0.2)
    monkeypatch.setattr(lease_keeper, "RENEW_AT_FRACTION", 0.05)
    with open_desk(shop, tmp_path, folder=folder) as made:
        yield made


def start_job(
    at: Desk,
    spec: dict[str, Any] = READ,
    *,
    tier: int = 0,
    parent: str | None = None,
    by: Someone | None = None,
    approver: Someone | None = None,
    absent: Someone | None = None,
) -> HeldJob:
    """Return a job's one credential, issued as sessions issue, to newcomers; its lease is cut short."""
    deps, mark = at.deps, secrets.token_hex(4)
    launcher = by or at.shop.newcomer(f"launcher-{mark}", "ops")
    approver = approver or at.shop.newcomer(f"approver-{mark}", "support-leads")
    job = new_job_id("dev", now=deps.now())
    said = {"expires_at": to_rfc3339(deps.now() + SIGNATURE_TTL), **({"parent": parent} if parent else {})}
    order = launcher.order(job, said, now=deps.now(), spec=spec)
    verified = verify_order(deps, order, now=deps.now())
    assert isinstance(verified, VerifiedOrder)
    deps.store.ledger.append(order_events(deps, order, verified))
    assert claim_job(deps.store, job, run="run", owner="owner", now=deps.now())
    issuer = Issuer(deps, order, verified, read_job_history(deps.store.ledger, job), owner="owner")
    answers = (approval_of(at, job, verified, approver, tier=tier, absent=absent),) if tier else ()
    item = issuer.issue(GrantedRequest(id=request_id(job, 1), number=1, answers=answers))
    assert item.credential.lease_id
    short = replace(item, lease_seconds=deps.vault.renew_lease(item.credential.lease_id, LEASE))
    held = HeldJob(at, job, issuer, short, launcher, approver)
    assert held.can_log_in
    return held


def approval_of(
    at: Desk,
    job: str,
    verified: VerifiedOrder,
    approver: Someone,
    *,
    tier: int,
    action: Action | None = None,
    tools: BoundedTools | None = None,
    absent: Someone | None = None,
    decision: Literal["approve", "break_glass"] = "approve",
) -> ApprovalAnswer:
    """Return a person's approval of a job's one request, verified. `action`: what they narrow it to."""
    access, now = verified.spec.access[0], at.deps.now()
    digest = compute_request_digest(at.deps, verified, access, bundle=None, tier=tier)
    about: dict[str, Any] = {"request": request_id(job, 1), "digest": digest, "ttl": access.ttl, "action": access.action}
    times: dict[str, Any] = {"issued_at": now, "expires_at": now + SIGNATURE_TTL}
    granted = {**about, "action": action or access.action, "on_behalf_of": absent.id if absent else None}
    statement = DecisionStatement(job=job, decision=decision, reason="it is needed", person=approver.id, tools=tools, **granted, **times)
    ladder = Ladder(**about, tools=access.tools, requester=verified.person.id, needed=tier, current=tier, respond_by=now)
    answer = build_approval_verifier(at.deps, now=now).verify_answer(job, ladder, approver.sign(to_signable(statement)))
    assert isinstance(answer, ApprovalAnswer)
    return answer


async def test_a_job_loses_its_access_at_the_next_decision_once_its_launcher_left_their_group(at: Desk) -> None:
    job = start_job(at)
    at.shop.leave(job.launcher, "ops")
    why = await job.until_ended()
    assert why == f"its order is no longer valid: {job.launcher.name} is in none of the groups that may launch (ops)"
    assert job.entries_of(EventType.CREDENTIAL_RENEWED) == []


@pytest.mark.parametrize(
    "passed, stepped", [(1, 0), (0, 1), (1, -1)], ids=["time passes", "the machine was suspended", "its clock was set back meanwhile"]
)
def test_a_running_job_gets_nothing_new_once_its_launcher_left_their_group(at: Desk, passed: int, stepped: int) -> None:
    job = start_job(at)
    at.shop.leave(job.launcher, "ops")
    interval = timedelta(seconds=ORDER_CHECK_INTERVAL_S)
    at.clock.ahead, at.clock.stepped = passed * interval, stepped * interval
    why = f"its order is no longer valid: {job.launcher.name} is in none of the groups that may launch"
    # Request one credential under the existing grant, and one that would be a new request.
    for access in (ORDERS, ORDERS.model_copy(update={"action": Action.WRITE})):
        with pytest.raises(NotPermitted, match=re.escape(why)):
            job.issuer.access(access)
    assert len(job.issuer.holdings.alive) == 1
    assert [data for data in job.entries_of(EventType.ACCESS_REQUESTED) if data["action"] == "write"] == []


async def test_an_approval_no_longer_counts_once_its_approver_has_left_the_group(at: Desk) -> None:
    job = start_job(at, WRITE, tier=1)
    at.shop.leave(job.approver, "support-leads")
    name = job.approver.name
    assert await job.until_ended() == (
        f"its valid approvals no longer reach the quorum of tier 1 ({name}: {name} is in no group that approves requests)"
    )


async def test_an_approval_that_was_withdrawn_ends_what_was_issued_on_it(at: Desk) -> None:
    job = start_job(at, WRITE, tier=1)
    record_withdrawal(at, job.job, job.approver.id, job.approver.name)
    assert await job.until_ended() == f"its approval was withdrawn by {job.approver.name}"


async def test_the_end_of_a_delegation_ends_nothing_that_the_delegate_approved_before(at: Desk) -> None:
    absent, delegate = at.shop.newcomer("renewal-absent", "support-leads"), at.shop.newcomer("renewal-delegate", "support-leads")
    now, about = at.deps.now(), {"person": absent.id, "name": absent.name, "delegation": "d-renewal"}
    statement = DelegationStatement(delegate=delegate.id, reason="away", person=absent.id, issued_at=now, expires_at=now + SIGNATURE_TTL)
    signed = absent.sign(to_signable(statement)).model_dump(mode="json")
    more = {"delegate": delegate.id, "delegate_name": delegate.name, "until": to_rfc3339(statement.expires_at), "reason": "away"}
    made = build_event(EventType.DELEGATION_MADE, UNATTRIBUTED_CHAIN, at=now, about="d-renewal", **about, **more, signed=signed)
    at.deps.store.ledger.append([made])
    job = start_job(at, WRITE, tier=1, approver=delegate, absent=absent)
    ended = build_event(EventType.DELEGATION_ENDED, UNATTRIBUTED_CHAIN, at=at.deps.now(), about="d-renewal", **about)
    at.deps.store.ledger.append([ended])
    # The delegation's signature expires meanwhile, too.
    at.clock.ahead = SIGNATURE_TTL
    await job.until(lambda: bool(job.entries_of(EventType.CREDENTIAL_RENEWED)))
    assert job.can_log_in
    # The delegate and the absent person must each have the right to decide.
    at.shop.leave(absent, "support-leads")
    assert "the absent person may not decide" in await job.until_ended()


def record_withdrawal(at: Desk, job: str, person: str, name: str) -> None:
    request = request_id(job, 1)
    fields = {"request": request, "person": person, "name": name, "reason": "a mistake", "signed": {}, "verdict": "withdrawn"}
    at.deps.store.ledger.append([build_event(EventType.APPROVAL_WITHDRAWN, job, at=at.deps.now(), about=request, **fields)])


def test_an_approval_withdrawn_while_vault_issues_gives_the_job_nothing(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    issue = at.deps.vault.issue

    def issue_late(*arguments: Any) -> IssuedSecret:
        issued = issue(*arguments)
        record_withdrawal(at, at.deps.store.jobs.list().items[0].id, "lead", "lead")
        return issued

    monkeypatch.setattr(at.deps.vault, "issue", issue_late)
    with pytest.raises(NotPermitted, match="its approval was withdrawn"):
        start_job(at, WRITE, tier=1)
    (credential,) = at.deps.store.credentials.list().items
    assert (credential.state, credential.revoked_why) == ("confirmed", "write on orders-db: its approval was withdrawn")
    assert at.shop.users_of(credential.job_id) == []


@pytest.mark.parametrize(
    "error, why",
    [(StoreUnavailable("the store hangs"), "the store hangs"), (RuntimeError("a password"), "issuing it failed unexpectedly")],
    ids=["expected", "unexpected"],
)
def test_a_credential_whose_withdrawal_could_not_be_looked_up_is_revoked_at_once(
    at: Desk, monkeypatch: pytest.MonkeyPatch, error: Exception, why: str
) -> None:
    get = at.deps.store.requests.get

    def fail_once_issued(request: str) -> RequestView | None:
        if at.deps.store.credentials.list(job=job_of(request)).items:
            raise error
        return get(request)

    monkeypatch.setattr(at.deps.store.requests, "get", fail_once_issued)
    with pytest.raises(type(error)):
        start_job(at, WRITE, tier=1)
    (credential,) = at.deps.store.credentials.list().items
    assert (credential.state, credential.revoked_why) == ("confirmed", why)
    assert at.shop.users_of(credential.job_id) == []


async def test_an_edited_policy_ends_access_that_it_now_forbids_and_the_decision_is_recorded(at: Desk, folder: Path) -> None:
    job = start_job(at)
    more = '\n// Nothing is read any more.\n@id("closed")\nforbid (principal, action == Action::"read", resource);\n'
    with (folder / "policies" / "reads.cedar").open("a") as file:
        file.write(more)
    assert await job.until_ended() == "policy denies it now (closed)"
    (decided,) = job.renewals()
    assert (decided["outcome"], decided["policies"], decided["facts"]["phase"]) == ("denied", ["closed"], "renewal")
    assert decided["facts"]["held"] == ["orders-db:read"]


async def test_a_grant_ends_if_policy_now_requires_a_higher_tier_than_it_was_issued_at(at: Desk, folder: Path) -> None:
    job = start_job(at)
    reads = folder / "policies" / "reads.cedar"
    reads.write_text(
        reads.read_text().replace("resource.sensitivity <= 2 };", "resource.sensitivity <= 2 && context.approved_tier >= 1 };")
    )
    assert "policy now requires tier 1 (read-up-to-confidential), but it was issued at tier 0" in await job.until_ended()


async def test_an_unchanged_decision_renews_without_an_entry_and_a_changed_one_is_recorded(at: Desk, folder: Path) -> None:
    # The order and the approval have expired: they only needed to be valid when they were counted.
    job = start_job(at, WRITE, tier=1)
    at.clock.ahead = 10 * SIGNATURE_TTL
    await job.until(lambda: len(job.entries_of(EventType.CREDENTIAL_RENEWED)) >= 2)
    assert (job.can_log_in, job.renewals()) == (True, [])
    writes = folder / "policies" / "writes.cedar"
    before = writes.read_text()
    writes.write_text(before.replace("write-at-tier-1", "renamed"))
    await job.until(lambda: len(job.renewals()) == 1)
    writes.write_text(before)
    await job.until(lambda: len(job.renewals()) == 2)
    assert [(data["outcome"], data["tier"], data["policies"]) for data in job.renewals()] == [
        ("needs_approval", 1, ["renamed"]),
        ("needs_approval", 1, ["write-at-tier-1"]),
    ]
    assert (job.can_log_in, job.entries_of(EventType.CREDENTIAL_REVOKED)) == (True, [])


async def test_each_credential_of_a_grant_has_its_own_record_of_changed_decisions(at: Desk, folder: Path) -> None:
    job, reads = start_job(at), folder / "policies" / "reads.cedar"
    before = reads.read_text()
    reads.write_text(before.replace("read-up-to-confidential", "renamed"))
    assert job.issuer.reason_to_end(job.item) is None
    # The rule of that time allows the second one; the next rule denies it.
    second = job.issuer.access(ORDERS)
    assert isinstance(second, IssuedCredential)
    assert second.credential.request_id == job.item.credential.request_id
    reads.write_text(before + '\n@id("closed")\nforbid (principal, action == Action::"read", resource);\n')
    ending = job.issuer.reason_to_end(second)
    assert ending is not None
    at.deps.store.ledger.append(ending.events)
    assert [data["policies"] for data in job.renewals()] == [["renamed"], ["closed"]]


def test_each_denial_of_access_under_a_grant_is_recorded_once(at: Desk, folder: Path) -> None:
    job, reads = start_job(at), folder / "policies" / "reads.cedar"
    before = reads.read_text()
    for name in ("closed", "closed", "frozen"):
        reads.write_text(before + f'\n@id("{name}")\nforbid (principal, action == Action::"read", resource);\n')
        at.deps.config.refresh()
        with pytest.raises(AccessDenied):
            job.issuer.access(ORDERS)
    assert [data["policies"] for data in job.renewals()] == [["closed"], ["frozen"]]


async def test_data_that_a_parent_reads_while_its_child_runs_counts_at_the_childs_next_renewal(at: Desk, folder: Path) -> None:
    with (folder / "policies" / "reads.cedar").open("a") as file:
        file.write(
            '\n// One or the other.\n@id("apart") forbid (principal, action, resource) when { resource.sensitivity == 2 && context.touched == 3 };\n'
        )
    mark = secrets.token_hex(4)
    launcher = at.shop.newcomer(f"parent-{mark}", "ops")
    parent = new_job_id("dev", now=at.deps.now())
    order = launcher.order(parent, now=at.deps.now())
    verified = verify_order(at.deps, order, now=at.deps.now())
    assert isinstance(verified, VerifiedOrder)
    at.deps.store.ledger.append(order_events(at.deps, order, verified))
    job = start_job(at, parent=parent, by=launcher)
    handles = {"lease_id": None, "accessor": "a", "issued_at": at.deps.now().isoformat(), "expires_at": at.deps.now().isoformat()}
    read = {
        "request": request_id(parent, 1),
        "resource": "customers-db",
        "action": "read",
        "revocable": "now",
        "certificate": None,
        "held_by_job": True,
        "user": None,
        "target_digest": None,
        "search_digest": None,
        **handles,
    }
    at.deps.store.ledger.append(
        [build_event(EventType.CREDENTIAL_ISSUED, parent, at=at.deps.now(), about="c", credential=credential_id(parent, 1), **read)]
    )
    assert await job.until_ended() == "policy denies it now (apart)"
    assert job.renewals()[0]["facts"]["touched_resources"] == ["customers-db", "orders-db"]


async def test_access_beyond_a_childs_order_ends_once_the_parents_approval_for_it_is_withdrawn(at: Desk, folder: Path) -> None:
    with (folder / "policies" / "writes.cedar").open("a") as file:
        file.write('\n@id("child-writes") permit (principal, action == Action::"write", resource) when { principal.name == "child" };\n')
    reads = {**READ["access"][0], "at": "request"}
    parent = start_job(at, {**WRITE, "access": [*WRITE["access"], reads], "beyond": "policy"}, tier=1)
    child = start_job(at, {**READ, "name": "child", "beyond": "policy"}, parent=parent.job, by=parent.launcher)
    item = child.issuer.access(ORDERS.model_copy(update={"action": Action.WRITE, "ttl": 600}))
    assert isinstance(item, IssuedCredential)
    assert item.credential.lease_id
    writes = replace(child, item=replace(item, lease_seconds=at.deps.vault.renew_lease(item.credential.lease_id, LEASE)))
    assert writes.can_log_in
    assert child.issuer.reason_to_end(item) is None

    record_withdrawal(at, parent.job, parent.approver.id, parent.approver.name)

    await writes.until(lambda: bool(writes.entries_of(EventType.CREDENTIAL_CONFIRMED)))
    (revoked,) = writes.entries_of(EventType.CREDENTIAL_REVOKED)
    assert (revoked["credential"], revoked["why"]) == (item.credential.id, "the parent job has read on orders-db, but not write")
    assert (writes.can_log_in, child.can_log_in) == (False, True)


@pytest.mark.parametrize(
    "action,granted,problems",
    [
        ("write", {"ttl": 60}, ()),
        ("write", {"ttl": 30}, ("access[0].ttl: longer than the parent job's 30s",)),
        # Whoever can write to the store adds nothing to what a person signed.
        ("admin", {"ttl": 60, "action": "admin"}, ("access[0].action: the parent job has read, write on orders-db, but not admin",)),
    ],
)
def test_a_child_has_what_its_parents_order_says_unless_approvers_allowed_less(
    at: Desk, action: str, granted: dict[str, Any], problems: tuple[str, ...]
) -> None:
    parent = start_job(at, {**READ, "access": [*READ["access"], {**WRITE["access"][0], "at": "request"}]})
    # The parent needs it for less long than its order says.
    waiting = parent.issuer.access(ORDERS.model_copy(update={"action": Action.WRITE, "ttl": 60}))
    assert isinstance(waiting, PendingRequest)
    answer = samples.approval_decision("approved", parent.job, number=2, **granted)
    at.deps.store.ledger.append([samples.approval_opening(parent.job, number=2), answer])
    child = checked_spec({**WRITE, "access": [{**WRITE["access"][0], "action": action}], "params": {"ticket": "1"}})
    assert tuple(map(str, parent_limit_problems(at.deps, child, parent.job))) == problems


@pytest.mark.parametrize("away", ["vault", "store"])
async def test_a_server_that_does_not_answer_does_not_end_a_grant(at: Desk, monkeypatch: pytest.MonkeyPatch, away: str) -> None:
    job = start_job(at, WRITE, tier=1)
    where: Any
    where, method, error = {
        "vault": (at.deps.vault, "person", VaultUnavailable("nobody answers")),
        "store": (authorization, "approval_withdrawers", StoreUnavailable("nobody answers")),
    }[away]
    real, tries = getattr(where, method), 0

    def unsure(*args: Any, **options: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(where, method, unsure)
    await job.until(lambda: bool(job.entries_of(EventType.CREDENTIAL_RENEWED)))
    assert tries > 1
    assert (job.can_log_in, job.entries_of(EventType.CREDENTIAL_REVOKED)) == (True, [])


def test_a_decision_costs_three_vault_calls_per_person_and_two_while_the_names_of_groups_are_cached(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, calls = start_job(at, WRITE, tier=1), 0
    real = at.deps.vault.call_own

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(*args, **options)

    monkeypatch.setattr(at.deps.vault, "call_own", counted)
    assert job.issuer.reason_to_end(job.item) is None
    # Entity, group and key of the launcher and of the approver.
    assert calls == 6
    monkeypatch.setattr(vault_client, "CACHE_TTL_S", 10.0)
    job.issuer.reason_to_end(job.item)
    calls = 0
    assert job.issuer.reason_to_end(job.item) is None
    # Whether a person is enabled, and which keys they have, is never remembered.
    assert calls == 4


def test_nothing_is_issued_on_an_approval_by_the_launcher_of_an_ancestor(at: Desk) -> None:
    owner = at.shop.newcomer("forebear", "ops", "support-leads")
    robot = at.shop.newcomer("forebears-robot", "ops", "security")
    writes = {**WRITE["access"][0], "at": "request"}
    parent = start_job(at, {**READ, "access": [*READ["access"], writes]}, by=owner).job
    with pytest.raises(NotPermitted, match=r"do not reach the quorum \(people cannot decide on a job that they triggered"):
        start_job(at, WRITE, tier=1, parent=parent, by=robot, approver=owner)
    assert start_job(at, WRITE, tier=1, parent=parent, by=robot).can_log_in


def test_nothing_is_issued_that_policy_denies_by_now(at: Desk, folder: Path) -> None:
    (folder / "policies" / "closed.cedar").write_text('@id("closed") forbid (principal, action == Action::"read", resource);\n')
    at.deps.config.refresh()
    with pytest.raises(NotPermitted, match=r"read on orders-db: policy denies it now \(closed\)"):
        start_job(at)
    assert at.deps.store.credentials.list().items == ()


def issuer_of(job: HeldJob, history: JobHistory) -> Issuer:
    """Return the issuer of another session of a job, with this history."""
    return Issuer(job.at.deps, job.issuer._order, job.issuer._verified, history, owner="owner")


def issue_again(job: HeldJob, history: JobHistory, *answers: ApprovalAnswer) -> IssuedCredential:
    """Issue a job's one request once more, as a session with this history would."""
    return issuer_of(job, history).issue(GrantedRequest(id=request_id(job.job, 1), number=1, answers=answers))


@pytest.mark.parametrize("state", ["denied", "expired", "withdrawn"])
def test_nothing_is_issued_on_valid_approvals_of_a_request_that_has_ended(at: Desk, state: str) -> None:
    job = start_job(at, WRITE, tier=1)
    approval = approval_of(at, job.job, job.issuer._verified, job.approver, tier=1)
    with pytest.raises(NotPermitted, match=f"write on orders-db: the request is {state}"):
        issue_again(job, JobHistory(settled={request_id(job.job, 1): state}), approval)
    assert len(at.deps.store.credentials.list().items) == 1


@pytest.mark.parametrize(
    "first, reached, now, is_issued",
    [(2, 2, 1, True), (1, 2, 2, True), (1, 1, 2, False)],
    ids=[
        "policy needs a lower tier by now",
        "the request has escalated to the tier that policy needs by now",
        "policy needs a higher tier by now",
    ],
)
def test_approvals_count_if_policy_needs_no_higher_tier_than_the_request_has_reached(
    at: Desk, folder: Path, first: int, reached: int, now: int, is_issued: bool
) -> None:
    job, approver = start_job(at, WRITE, tier=1), at.shop.newcomer(f"security-{secrets.token_hex(4)}", "security")
    approval = approval_of(at, job.job, job.issuer._verified, approver, tier=first)
    policy = folder / "policies" / "writes.cedar"
    policy.write_text(policy.read_text().replace("!resource.external && context.approved_tier >= 1", f"context.approved_tier >= {now}"))
    at.deps.config.refresh()
    tiers, ledger = at.deps.config.current().tiers, at.deps.store.ledger
    signed_terms = {name: approval.signed.statement[name] for name in ("request", "digest", "ttl", "action")}
    opened = Ladder(requester=job.launcher.id, needed=first, current=first, respond_by=at.deps.now(), **signed_terms)
    ledger.append([approval_opened_event(job.job, opened, tiers, at=at.deps.now())])
    if reached > first:
        ledger.append([approval_escalated_event(job.job, opened.model_copy(update={"current": reached}), tiers, at=at.deps.now())])
    history = build_job_history(ledger.entries(job=job.job, types=APPROVAL_EVENTS).items)
    if is_issued:
        issuer = issuer_of(job, history)
        issuer.issue(GrantedRequest(id=request_id(job.job, 1), number=1, answers=(approval,)))
        # The grant covers more of the same.
        again = Access(resource="orders-db", action=Action.WRITE, ttl=60, reason="another one", at="request")
        assert isinstance(issuer.access(again), IssuedCredential)
    else:
        with pytest.raises(
            NotPermitted, match=r"it needs tier 2, but its valid approvals do not reach the quorum \(.* is for something other"
        ):
            issue_again(job, history, approval)


def test_a_session_that_issues_on_break_glass_opens_the_review_itself(at: Desk, folder: Path) -> None:
    approvals = folder / "approvals.yaml"
    approvals.write_text(approvals.read_text().replace("break_glass: [break-glass]", "break_glass: [chiefs]"))
    at.deps.config.refresh()
    job, breaker = start_job(at, WRITE, tier=1), at.shop.newcomer(f"glass-{secrets.token_hex(4)}", "chiefs")
    passed = approval_of(at, job.job, job.issuer._verified, breaker, tier=1, decision="break_glass")
    assert job.entries_of(EventType.REVIEW_OPENED) == []
    assert issue_again(job, JobHistory(), passed).credential.user is not None
    (review,) = job.entries_of(EventType.REVIEW_OPENED)
    assert (review["request"], review["person"], review["reason"]) == (request_id(job.job, 1), breaker.id, "it is needed")


BOUND_SPEC: dict[str, Any] = {
    **SPEC,
    "access": [{"resource": "refunds-db", "action": "write", "ttl": "10m", "reason": "Pay back", "tools": {"refund-order": {}}}],
    "beyond": "policy",
}


def refund_issuer(at: Desk) -> tuple[Issuer, Someone]:
    """Return an issuer with a grant for refunds of at most 100 by their tool, and who approved it."""
    deps, mark = at.deps, secrets.token_hex(4)
    launcher, approver = at.shop.newcomer(f"launcher-{mark}", "ops"), at.shop.newcomer(f"approver-{mark}", "support-leads")
    job = new_job_id("dev", now=deps.now())
    order = launcher.order(job, now=deps.now(), spec=BOUND_SPEC)
    verified = verify_order(deps, order, now=deps.now())
    assert isinstance(verified, VerifiedOrder)
    deps.store.ledger.append(order_events(deps, order, verified))
    assert claim_job(deps.store, job, run="run", owner="owner", now=deps.now())
    issuer = Issuer(deps, order, verified, read_job_history(deps.store.ledger, job), owner="owner")
    tools = {"refund-order": Bounds.model_validate({"arguments": {"amount": {"maximum": 100}}})}
    answer = approval_of(at, job, verified, approver, tier=1, tools=tools)
    allowed = issuer.allow(GrantedRequest(id=request_id(job, 1), number=1, answers=(answer,)))
    assert (allowed.access.tools, issuer.holdings.alive) == (tools, ())
    return issuer, approver


def refund_call(amount: float) -> CallAccess:
    """What a call of the tool needs."""
    call = ToolCall(tool="refund-order", arguments={"order_id": 1, "amount": amount, "reason": "it broke"})
    return CallAccess(resource="refunds-db", action=Action.WRITE, ttl=60, reason="a call", at="request", call=call)


def test_a_call_under_a_live_grant_is_refused_once_policy_no_longer_allows_its_arguments(at: Desk, folder: Path) -> None:
    issuer, _ = refund_issuer(at)
    assert isinstance(issuer.access(refund_call(50)), IssuedCredential)
    with (folder / "policies" / "writes.cedar").open("a") as file:
        file.write(
            '\n// Since yesterday.\n@id("small-refunds") forbid (principal, action, resource) when {'
            ' context.tool == "refund-order" && context.arguments.contains("reason=it broke") &&'
            ' context.call.hasTag("amount") && context.call.getTag("amount").greaterThan(decimal("10.0")) };\n'
        )
    until(lambda: "small-refunds" in at.deps.config.current().policies.ids, "the policy is read")
    with pytest.raises(AccessDenied) as refused:
        issuer.access(refund_call(50))
    assert refused.value.policies == ("small-refunds",)
    assert isinstance(issuer.access(refund_call(10)), IssuedCredential)
    assert len(issuer.holdings.alive) == 2


def test_a_call_beyond_the_approved_bounds_does_not_use_the_grant_and_waits_for_approval(at: Desk) -> None:
    issuer, _ = refund_issuer(at)
    assert isinstance(issuer.access(refund_call(100)), IssuedCredential)
    assert isinstance(issuer.access(refund_call(100.5)), PendingRequest)


def test_a_child_keeps_to_the_bounds_that_approvers_set_on_its_parents_tools(at: Desk) -> None:
    issuer, _ = refund_issuer(at)
    (problem,) = parent_limit_problems(at.deps, checked_spec(BOUND_SPEC), issuer.verified_order().statement.job)
    assert str(problem) == "access[0].tools.refund-order.arguments.amount: must have a bound: the parent job has a bound here"


def test_what_the_catalog_issues_from_another_path_by_now_needs_its_own_approval(at: Desk, folder: Path) -> None:
    job, file, policy = start_job(at, WRITE, tier=1), folder / "catalog.yaml", "sys/policies/acl/je-grant-orders-db-write"
    access = Access(resource="orders-db", action=Action.WRITE, ttl=60, reason="another one", at="request")
    assert isinstance(job.issuer.access(access), IssuedCredential)
    old = re.compile(r'        issue: \{path: "database/creds/orders-write-\{tenant}"}\n        role: .*\n')
    text, edits = old.subn('        issue: {path: "database/creds/refunds-write-{tenant}"}\n', file.read_text())
    assert edits == 1
    allowed = at.shop.admin("GET", policy)["data"]["policy"]
    at.shop.admin("POST", policy, {"policy": allowed.replace("orders-write", "refunds-write")})
    file.write_text(text)
    at.deps.config.refresh()
    try:
        assert isinstance(job.issuer.access(access), PendingRequest)
    finally:
        at.shop.admin("POST", policy, {"policy": allowed})
    assert at.deps.config.alarm is None


def test_a_grant_for_tools_ends_once_its_approvals_no_longer_reach_the_quorum(at: Desk) -> None:
    issuer, approver = refund_issuer(at)
    assert isinstance(issuer.access(refund_call(1)), IssuedCredential)
    at.shop.leave(approver, "support-leads")
    assert isinstance(issuer.access(refund_call(1)), PendingRequest)


def test_a_job_at_its_limit_of_pending_requests_still_gets_access_that_policy_allows(at: Desk) -> None:
    issuer, _ = refund_issuer(at)
    for number in range(MAX_WAITING_REQUESTS):
        assert isinstance(issuer.access(refund_call(101 + number)), PendingRequest)
    with pytest.raises(
        NotPermitted, match=f"{MAX_WAITING_REQUESTS} requests of this job already wait for people: wait for their answers first"
    ):
        issuer.access(refund_call(1000))
    # The same thing asked again is no further request.
    assert isinstance(issuer.access(refund_call(101)), PendingRequest)
    assert isinstance(issuer.access(ORDERS), IssuedCredential)


def test_requests_that_nobody_waits_for_any_more_do_not_count_against_the_limit_of_pending_requests(at: Desk) -> None:
    issuer, _ = refund_issuer(at)
    waiting = [issuer.access(refund_call(101 + number)) for number in range(MAX_WAITING_REQUESTS)]
    ended = [one.request_id for one in waiting if isinstance(one, PendingRequest)]
    events = (build_event(EventType.APPROVAL_EXPIRED, job_of(one), at=at.deps.now(), about=one, request=one, tier=3) for one in ended)
    at.deps.store.ledger.append([*events])
    assert isinstance(issuer.access(refund_call(1000)), PendingRequest)


def test_calls_that_only_python_considers_equal_need_separate_approvals(at: Desk) -> None:
    issuer, _ = refund_issuer(at)
    asked = []
    for reason in (1, True, 1):
        access = refund_call(101)
        call = access.call.model_copy(update={"arguments": {**access.call.arguments, "reason": reason}})
        waits = issuer.access(access.model_copy(update={"call": call}))
        assert isinstance(waits, PendingRequest)
        asked.append(waits.request_id)
    assert asked[0] == asked[2] != asked[1]


def test_a_job_that_has_used_up_its_approval_requests_gets_only_what_policy_allows(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.issuing.grants.MAX_APPROVAL_REQUESTS_PER_JOB", 2)
    issuer, _ = refund_issuer(at)
    for amount in (101, 102):
        assert isinstance(issuer.access(refund_call(amount)), PendingRequest)
    with pytest.raises(
        NotPermitted, match="this job has used its 2 approval requests; only access that policy allows automatically is still available"
    ):
        issuer.access(refund_call(103))
    assert isinstance(issuer.access(ORDERS), IssuedCredential)
