"""A revocation that fails or hangs is shown as overdue, with the reason, until it is confirmed; on real servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from activities.revocation import revoke
from activities.revocation.revoke import revoke_one
from justenough.adapters.targets.inspector import RequestedActions, TargetInspector
from justenough.adapters.targets.postgres import TargetInspection
from justenough.adapters.vault import Vault
from justenough.domain.jobs.states import CredentialState, RevocationState
from justenough.domain.ledger import overdue as lateness
from tests.activities.revocation_calls import revocation_state, revoke_by_session
from tests.activities.vault_shop import Desk
from tests.support.wait import until

pytestmark = pytest.mark.servers


def test_a_revocation_names_a_target_that_is_down_and_is_confirmed_once_it_is_back(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    with at.shop.door.closed():
        failed = revoke_by_session(at, job, held)

        assert not failed.confirmed
        assert any(f"127.0.0.1:{at.shop.door.port}/shop" in why for why in failed.failures)
        assert any(str(held.credential.lease_id) in why for why in failed.failures)
        assert revocation_state(at, job) is RevocationState.PENDING, "a first failure that came at once may be a blip"
        assert at.deps.vault.prefix_accessors(job) == (), "the tokens end although the target is away"
        revoke_by_session(at, job, held)
        assert revocation_state(at, job) is RevocationState.OVERDUE
    assert revoke_by_session(at, job, held).confirmed
    assert not at.shop.can_log_in(held)
    assert at.shop.users_of(job) == []


def test_a_credential_that_cannot_be_ended_is_overdue_with_the_reason_until_it_is_ended(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    with at.shop.door.closed():
        assert not revoke_one(at.deps, job, held.credential.id, by="session", why="a test").confirmed
        assert at.entry_types(job) == [], "the session tries again in a moment"
        assert not revoke_one(at.deps, job, held.credential.id, by="person", why="a test").confirmed

        view = at.deps.store.credentials.get(held.credential.id)
        assert view is not None
        assert view.state is CredentialState.OVERDUE
        assert str(held.credential.lease_id) in str(view.why)
        assert revocation_state(at, job) is RevocationState.NONE, "its job goes on"
    assert revoke_one(at.deps, job, held.credential.id, by="person", why="a test").confirmed
    assert not at.shop.can_log_in(held)
    assert at.entry_types(job) == ["credential.overdue", "credential.revoked", "credential.confirmed"]
    after = at.deps.store.credentials.get(held.credential.id)
    assert after is not None
    assert (after.state, after.why) == (CredentialState.CONFIRMED, None)


def test_a_single_attempt_that_takes_longer_than_the_grace_is_overdue(at: Desk) -> None:
    class Slow(TargetInspector):
        def inspect(self, job: str, actions: RequestedActions | None = None, *, names: Collection[str] = ()) -> TargetInspection:
            at.clock.ahead += lateness.REVOCATION_GRACE
            return super().inspect(job, actions, names=names)

    targets = Slow(at.deps.vault, lambda: at.deps.config.current().catalog, installation=at.deps.settings.installation)
    slow, job = replace(at, deps=replace(at.deps, targets=targets)), at.job()
    held = at.issue(job)
    with at.shop.door.closed():
        assert not revoke_by_session(slow, job, held).confirmed
        assert revocation_state(at, job) is RevocationState.OVERDUE
    assert revoke_by_session(slow, job, held).confirmed
    targets.close()


def test_a_target_that_hangs_does_not_block_its_inspection_for_long(at: Desk) -> None:
    job = at.job()
    at.deps.targets.inspect(job)
    with at.shop.door.hanging():
        started = time.monotonic()
        look = at.deps.targets.inspect(job)
        assert look.failures
        assert time.monotonic() - started < 60


def test_a_revocation_that_hangs_is_shown_as_overdue_while_it_hangs(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Vault):
        def revoke_prefix(self, job: str) -> None:
            assert go_on.wait(180)
            super().revoke_prefix(job)

    def overdue() -> bool:
        view = at.deps.store.jobs.get(job)
        assert view is not None
        return view.revocation.state is RevocationState.OVERDUE

    monkeypatch.setattr(revoke, "REVOCATION_GRACE", timedelta(seconds=0.2))
    go_on, job = threading.Event(), at.job()
    held = at.issue(job)
    vault = Hanging(at.shop.settings.vault_addr)
    vault.login_from_file(at.shop.settings.worker_approle_file)
    with closing(vault), ThreadPoolExecutor(1) as pool:
        revoking = pool.submit(revoke_by_session, replace(at, deps=replace(at.deps, vault=vault)), job, held)
        until(overdue, "it is told of while it hangs")
        go_on.set()
        assert revoking.result().confirmed
    assert not overdue()
    started, late = (
        entry for entry in at.deps.store.ledger.entries(job=job).items if entry.type in {"revocation.started", "revocation.overdue"}
    )
    # The revocation became slow after its grace, however late that was recorded. The attempt's findings are newer.
    slow = started.at + timedelta(seconds=0.2)
    assert (late.id, late.at) == (f"{started.id.replace('.started', '.overdue')}-slow", slow)
    assert late.data == {"by": "session", "failures": ["no result after 0 s"], "attempt": 1, "seen_from": slow.isoformat()}


def test_many_failing_attempts_do_not_flood_the_ledger(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    with at.shop.door.closed():
        for _ in range(5):
            revoke_by_session(at, job, held)
        assert at.entry_types(job).count("revocation.overdue") == 2, "the second and the fourth"
    assert revoke_by_session(at, job, held).confirmed
