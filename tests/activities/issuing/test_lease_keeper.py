"""A lease lives no longer than its grant, is renewed meanwhile, and a server that restarts does not end it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import psycopg
import pytest

from activities.issuing import lease_keeper
from activities.issuing.issuer import Issuer
from activities.issuing.results import IssuedCredential
from activities.revocation import revoke
from justenough.domain.core.errors import NotFound
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.spec import Access
from justenough.domain.ledger.events import Event
from tests.activities.held_credentials import keep_until
from tests.activities.vault_shop import Desk, Held, Shop

BUFFER = timedelta(seconds=5)
"""Vault's engine adds it to a lease's end for the target's own expiry."""
SECOND = timedelta(seconds=1)


class Willing:
    """The part of an issuer that renewals use: it allows each renewal."""

    def reason_to_end(self, item: IssuedCredential) -> None:
        return

    def forget(self, credential: CredentialHandle, unrecorded: tuple[Event, ...]) -> None:
        return

    def others_beside(self, credential: CredentialHandle) -> tuple[CredentialHandle, ...]:
        return ()


WILLING = cast("Issuer", Willing())


def valid_for(shop: Shop, job: str) -> timedelta:
    """Return for how long PostgreSQL itself lets the job's one user in."""
    with psycopg.connect(shop.superuser) as connection:
        ((left,),) = connection.execute("SELECT rolvaliduntil - now() FROM pg_roles WHERE strpos(rolname, %s) > 0", [job]).fetchall()
    return cast("timedelta", left)


def issuance(at: Desk, held: Held, *, ttl: float, lease: int) -> IssuedCredential:
    """Return a credential with this grant and this lease, as a session holds it."""
    assert held.credential.lease_id
    assert at.deps.vault.renew_lease(held.credential.lease_id, lease) == lease
    now = at.deps.now()
    credential = held.credential.model_copy(update={"issued_at": now, "expires_at": now + timedelta(seconds=ttl)})
    access = Access(resource=credential.resource, action=credential.action, ttl=max(1, int(ttl)), reason="a test")
    return IssuedCredential(access=access, credential=credential, fields={}, ends=at.deps.ticks() + ttl, lease_seconds=lease, connect={})


def renewal_count(at: Desk, job: str) -> int:
    return at.entry_types(job).count("credential.renewed")


def test_vault_limits_a_users_life_by_the_short_ttl_of_its_role_and_not_by_its_tokens(at: Desk) -> None:
    job = at.job()
    at.issue(job)
    assert 2 * 60 * SECOND < valid_for(at.shop, job) <= 2 * 60 * SECOND + BUFFER


async def test_a_renewal_extends_the_users_expiry_in_the_target_but_not_beyond_the_grant(at: Desk) -> None:
    job = at.job()
    item = issuance(at, at.issue(job), ttl=3.5, lease=3)
    await keep_until(at, job, WILLING, item, lambda: renewal_count(at, job) > 0)
    assert SECOND < valid_for(at.shop, job) <= 2 * SECOND + BUFFER


async def test_a_renewal_that_had_to_wait_until_its_grant_was_over_extends_nothing(at: Desk) -> None:
    job = at.job()
    item = issuance(at, at.issue(job), ttl=60, lease=2)
    at.clock.stepped = timedelta(minutes=1)
    # Vault would take a request for no seconds as one for its default.
    assert lease_keeper.LeaseKeeper(at.deps, job, WILLING)._renew(item) == lease_keeper.TTL_OVER
    assert valid_for(at.shop, job) <= 2 * SECOND + BUFFER


async def test_a_lease_as_long_as_its_grant_is_not_renewed(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_keeper, "CHECK_INTERVAL_S", 0.01)
    job = at.job()
    item = issuance(at, at.issue(job), ttl=2, lease=2)
    # Its end by the time of day was determined later than its end in ticks.
    item = replace(item, ends=item.ends - 0.01)
    await keep_until(at, job, WILLING, item, lambda: "credential.confirmed" in at.entry_types(job))
    assert renewal_count(at, job) == 0


async def test_a_lease_is_renewed_in_time_if_its_session_needed_most_of_it_until_its_process_began(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    item = issuance(at, held, ttl=60, lease=6)
    # Four seconds ago.
    item = replace(item, ends=item.ends - 4)
    assert held.credential.lease_id
    assert at.deps.vault.renew_lease(held.credential.lease_id, 2) == 2
    await keep_until(at, job, WILLING, item, lambda: bool(at.entry_types(job)))
    assert at.entry_types(job)[0] == "credential.renewed"
    assert at.shop.can_log_in(held)


async def test_a_job_keeps_its_access_if_the_target_is_back_before_the_lease_ends(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_keeper, "RETRY_INTERVAL_S", 0.2)
    job, tries = at.job(), 0
    held = at.issue(job)
    item = issuance(at, held, ttl=60, lease=4)
    real = at.deps.vault.renew_lease

    def counted(lease: str, seconds: int) -> int:
        nonlocal tries
        tries += 1
        if tries == 2:
            at.shop.door.open()
        return real(lease, seconds)

    monkeypatch.setattr(at.deps.vault, "renew_lease", counted)
    with at.shop.door.closed():
        await keep_until(at, job, WILLING, item, lambda: renewal_count(at, job) > 0)
        assert tries >= 2
        assert valid_for(at.shop, job) > BUFFER + 2 * SECOND
        assert at.shop.can_log_in(held)
        assert "credential.revoked" not in at.entry_types(job)


async def test_a_lease_that_cannot_be_renewed_ends_at_its_own_expiry(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_keeper, "RETRY_INTERVAL_S", 0.2)
    job = at.job()
    held = at.issue(job)
    item = issuance(at, held, ttl=60, lease=2)
    assert held.credential.lease_id
    at.deps.vault.revoke_lease(held.credential.lease_id)
    await keep_until(at, job, WILLING, item, lambda: "credential.confirmed" in at.entry_types(job))
    assert renewal_count(at, job) == 0
    assert not at.shop.can_log_in(held)
    (view,) = at.deps.store.credentials.list(job=job).items
    assert str(view.revoked_why).startswith("its lease could not be renewed: PUT sys/leases/renew: ")


@pytest.mark.parametrize("lease", [600, 500], ids=["a lease as long as the grant", "a shorter lease"])
async def test_a_credential_ends_soon_after_its_grant_although_the_machine_was_suspended(
    at: Desk, monkeypatch: pytest.MonkeyPatch, lease: int
) -> None:
    monkeypatch.setattr(lease_keeper, "CHECK_INTERVAL_S", 0.2)
    seconds_left, sleeps = IssuedCredential.seconds_left, asyncio.Event()

    def see_time_left(item: IssuedCredential, **clocks: Any) -> float:
        # The keeper sleeps right after it has checked the time.
        sleeps.set()
        return seconds_left(item, **clocks)

    monkeypatch.setattr(IssuedCredential, "seconds_left", see_time_left)
    job = at.job()
    held = at.issue(job)
    # Longer than the test waits.
    async with lease_keeper.keep_leases(at.deps, job, WILLING, [issuance(at, held, ttl=600, lease=lease)]), asyncio.timeout(60):
        await sleeps.wait()
        at.clock.stepped = timedelta(minutes=11)
        while "credential.confirmed" not in await asyncio.to_thread(at.entry_types, job):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
    assert not at.shop.can_log_in(held)


async def test_a_credential_that_is_released_repeatedly_is_revoked_once(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    job, ended, real = at.job(), 0, revoke.revoke_by_handle
    held = at.issue(job)
    item = issuance(at, held, ttl=60, lease=60)

    def counted(*given: Any, **more: Any) -> Any:
        nonlocal ended
        ended += 1
        return real(*given, **more)

    monkeypatch.setattr(revoke, "revoke_by_handle", counted)
    async with lease_keeper.keep_leases(at.deps, job, WILLING, [item]) as keeper, asyncio.timeout(180):
        await asyncio.gather(*(keeper.revoke_credential(item.credential.id, f"wish {number}") for number in range(50)))
        with pytest.raises(NotFound):
            await keeper.revoke_credential(item.credential.id, "once more")
    assert ended == 1
    assert not at.shop.can_log_in(held)
