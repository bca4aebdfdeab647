"""A session issues a locked request: once, although its target may be restarting at that moment."""

from __future__ import annotations

from dataclasses import replace

import pytest
from temporalio.testing import ActivityEnvironment

from activities.issuing.issuer import Issuer
from activities.job_activities import JobActivities
from activities.revocation.revoke import revoke
from justenough.adapters.vault import ConnectionRefused
from justenough.domain.approvals.statements import build_decision_statement, to_signable
from justenough.domain.contracts.workflow_messages import AnswersInput, GrantedRequest
from justenough.services.job_history import read_job_history
from justenough.services.verify_order import VerifiedOrder, verify_order
from tests.activities.test_open_locks import LockedJob
from tests.activities.vault_shop import Desk
from tests.support.claims import claim_job

pytestmark = pytest.mark.servers


def test_a_locked_credential_is_issued_once_its_target_has_restarted(at: Desk) -> None:
    waiting, security, deps = LockedJob(at), at.shop.sign_in("security"), at.deps
    waiting.open_locks(deps)
    kept = deps.store.wrapped_tokens.get(waiting.request)
    assert kept is not None
    security.call("POST", "sys/control-group/authorize", {"accessor": kept.accessor})
    ladder = waiting.ladder
    request = {"job_id": waiting.job, "id": ladder.request, "digest": ladder.digest, "ttl": ladder.ttl, "action": ladder.action}
    signed = security.sign(to_signable(build_decision_statement(request, "approve", reason="needed", person=security.id, now=deps.now())))
    environment = ActivityEnvironment()
    environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=waiting.job)
    answers = AnswersInput(job=waiting.job, ladders={ladder.request: ladder}, received=(signed.model_dump(mode="json"),), number=1)
    counted = environment.run(JobActivities(deps).take_answers, answers)
    assert counted.verdicts == {ladder.request: "approved"}
    granted = GrantedRequest(id=ladder.request, number=1, answers=counted.ladders[ladder.request].answers)
    verified = verify_order(deps, waiting.order, now=deps.now())
    assert isinstance(verified, VerifiedOrder)
    assert claim_job(deps.store, waiting.job, run="run", owner="owner", now=deps.now())
    issuer = Issuer(deps, waiting.order, verified, read_job_history(deps.store.ledger, waiting.job), owner="owner")
    with at.shop.door.closed(), pytest.raises(ConnectionRefused):
        issuer.issue(granted)
    issued = issuer.issue(granted)

    assert len(at.shop.users_of(waiting.job)) == 1
    assert deps.store.wrapped_tokens.get(waiting.request) is None
    assert "approval.rejected" not in at.entry_types(waiting.job)
    held = (issued.credential,)
    assert revoke(deps, waiting.job, by="session", settled=True, why="it ended", known=held).confirmed
    assert at.shop.users_of(waiting.job) == []
