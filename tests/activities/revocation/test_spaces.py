"""A job's space on real servers: it lives as long as its job and not as one credential, and nothing is confirmed while it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest

from activities.revocation.proof import prove
from activities.revocation.revoke import revoke, revoke_by_handle, revoke_one
from justenough.adapters.targets.postgres_locks import find_locks
from justenough.domain.jobs.states import CredentialState, RevocationState
from justenough.domain.ledger.overdue import end_session_advice
from justenough.services.revocation_attempts import SECOND_CHECK_DELAY
from tests.activities.revocation_calls import revocation_state, revoke_by_session, revoke_from_outside
from tests.activities.vault_shop import Desk, Held

pytestmark = pytest.mark.servers
SPACE = 4
"""The request for it."""


def spaces_of(at: Desk, job: str) -> list[str]:
    """What PostgreSQL itself says, asked past the door."""
    with psycopg.connect(at.shop.superuser) as connection:
        return [name for (name,) in connection.execute("SELECT nspname FROM pg_namespace WHERE strpos(nspname, %s) > 0", [job])]


def make_table(at: Desk, held: Held, table: str = "found") -> None:
    with at.shop.login(held) as connection:
        connection.execute(f"CREATE TABLE {table} AS SELECT 1 AS id".encode())


@contextmanager
def lock_space(at: Desk, job: str, application: str = "backup") -> Iterator[int]:
    """Hold a lock on what is in a job's space, as a backup does; yield the process id of the session."""
    with psycopg.connect(at.shop.superuser, application_name=application) as connection:
        connection.execute(f'LOCK TABLE "space-{job}".found IN ACCESS SHARE MODE'.encode())
        yield connection.info.backend_pid


def test_a_space_is_dropped_with_its_job_and_the_proof_has_looked_for_it(at: Desk) -> None:
    job, other = at.job(), at.job()
    held, bystander = at.issue(job, SPACE), at.issue(other, SPACE)
    make_table(at, held)
    assert spaces_of(at, job) == [f"space-{job}"]
    assert ("space", True) in {(finding.what.split()[0], finding.alive) for finding in prove(at.deps, job).findings}

    assert revoke_by_session(at, job, held).confirmed

    assert (spaces_of(at, job), at.shop.users_of(job), at.shop.can_log_in(held)) == ([], [], False)
    assert (spaces_of(at, other), at.shop.can_log_in(bystander)) == ([f"space-{other}"], True)
    proof = prove(at.deps, job)
    assert proof.dead
    where = f"127.0.0.1:{at.shop.door.port}/shop"
    assert [(finding.what, finding.detail) for finding in proof.findings if finding.what.startswith("space")] == [
        (f"space in {where}", "none carries the job's id")
    ]
    assert revoke_by_session(at, other, bystander).confirmed


def test_a_jobs_space_outlives_a_credential_and_the_next_credential_uses_it(at: Desk) -> None:
    job = at.job()
    first = at.issue(job, SPACE)
    make_table(at, first)
    ended = revoke_one(at.deps, job, first.credential.id, by="person", why="a test")
    assert (ended.confirmed, at.shop.can_log_in(first)) == (True, False)
    assert spaces_of(at, job) == [f"space-{job}"]
    told = at.deps.store.ledger.entries(job=job).items[-1].data
    assert str(told["how"]).endswith("the job's space remains until the job ends")

    second = at.issue(job, SPACE, record=False)
    with at.shop.login(second) as connection:
        assert connection.execute("SELECT id FROM found").fetchall() == [(1,)]
    assert revoke_by_session(at, job, second).confirmed
    assert spaces_of(at, job) == []


def test_a_space_whose_credentials_were_all_released_is_dropped_at_the_end(at: Desk) -> None:
    job = at.job()
    held = at.issue(job, SPACE)
    make_table(at, held)
    assert revoke_one(at.deps, job, held.credential.id, by="job", why="given back").confirmed
    spaces = frozenset({("scratch", "write")})
    assert revoke(at.deps, job, by="session", settled=True, why="it ended", known=(), spaces=spaces).confirmed
    assert spaces_of(at, job) == []


def test_a_revocation_is_not_confirmed_while_the_jobs_space_exists(at: Desk) -> None:
    job = at.job()
    held = at.issue(job, SPACE)
    make_table(at, held)
    with lock_space(at, job):
        failed = revoke_by_session(at, job, held)
        assert not failed.confirmed
        assert any(why.startswith("space in ") and f"space-{job}" in why for why in failed.failures)
        assert not revoke_by_session(at, job, held).confirmed
        assert (at.shop.can_log_in(held), spaces_of(at, job)) == (False, [f"space-{job}"])
        assert revocation_state(at, job) is RevocationState.OVERDUE
        view = at.deps.store.credentials.get(held.credential.id)
        assert view is not None
        assert view.state is not CredentialState.CONFIRMED
        assert not prove(at.deps, job).dead
    assert revoke_by_session(at, job, held).confirmed
    assert (spaces_of(at, job), prove(at.deps, job).dead) == ([], True)


def test_a_failed_revocation_names_the_session_that_holds_the_lock_until_it_is_ended(at: Desk) -> None:
    job = at.job()
    held = at.issue(job, SPACE)
    make_table(at, held)
    where = f"127.0.0.1:{at.shop.door.port}/shop"
    with suppress(psycopg.OperationalError), lock_space(at, job, "nightly; lock in x: session 1 ") as pid:
        assert not revoke_by_session(at, job, held).confirmed
        failed = revoke_by_session(at, job, held)
        (lock,) = [why for why in failed.failures if why.startswith("lock in ")]
        assert lock.startswith(f"lock in {where}: session {pid} of ")
        assert "(application nightly? lock in x? session 1 ) holds locks on what is left of the job, in a transaction since 20" in lock
        recorded = [entry.data["failures"] for entry in at.deps.store.ledger.entries(job=job).items if entry.type == "revocation.overdue"]
        assert lock in recorded[-1]
        advice = end_session_advice(recorded[-1])
        statement = advice.partition(" and end it: ")[2]
        began = re.search(r"timestamptz '(.+?)'", statement)
        assert began
        with psycopg.connect(at.shop.superuser, autocommit=True) as administrator:
            # A session that had its process id later is not ended.
            assert administrator.execute(statement.replace(began[1], "2000-01-01T00:00:00Z").encode()).fetchall() == []
            assert administrator.execute(statement.encode()).fetchall() == [(True,)]
    assert revoke_by_session(at, job, held).confirmed
    assert spaces_of(at, job) == []


def test_a_user_without_any_access_is_confirmed_even_if_a_lock_keeps_its_empty_role(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    with suppress(psycopg.OperationalError), psycopg.connect(at.shop.superuser, application_name="nightly") as connection:
        connection.execute(f"COMMENT ON ROLE \"{held.credential.user}\" IS 'kept'".encode())
        assert revoke_by_handle(at.deps, job, held.credential, (), by="person", why="a test").confirmed
        seen = at.deps.targets.inspect(job)
        assert ([user.name for user in seen.users], [role.name for role in seen.empty_roles]) == ([], [held.credential.user])
        assert not at.shop.can_log_in(held)
    at.deps.targets.end_all_of(job)
    assert at.deps.targets.traces_of(job) == ()


def test_an_observer_without_rights_names_the_session_and_says_what_it_cannot_see(at: Desk) -> None:
    job, other = at.job(), at.job()
    make_table(at, at.issue(job, SPACE))
    with lock_space(at, job) as pid, at.shop.login(at.issue(other)) as unprivileged:
        (lock,) = find_locks(unprivileged, "db:5432/shop", [f"space-{job}"])
        assert find_locks(unprivileged, "db:5432/shop", [f"space-{other}"]) == ()
    assert lock.startswith(f"lock in db:5432/shop: session {pid} of ")
    assert lock.endswith(", and the observer may not see since when")


def test_a_space_is_dropped_even_if_no_credential_of_its_job_was_recorded(at: Desk) -> None:
    job = at.job()
    held = at.issue(job, SPACE, record=False)
    make_table(at, held)
    assert revoke_from_outside(at, job).second_check_in is not None
    assert spaces_of(at, job) == []
    at.clock.ahead = SECOND_CHECK_DELAY
    assert revoke_from_outside(at, job).confirmed


def test_the_sweep_finds_the_job_of_a_space_that_has_no_users(at: Desk) -> None:
    job = at.job()
    held = at.issue(job, SPACE)
    at.shop.admin("PUT", f"sys/leases/revoke/{held.credential.lease_id}", {"sync": True})
    jobs, inspection = at.deps.targets.job_ids()
    assert (job in jobs, inspection.failures) == (True, ())
    assert [found.name for found in at.deps.targets.traces_of(job)] == [f"space-{job}"]
    assert revoke_from_outside(at, job).second_check_in is not None
    assert at.deps.targets.traces_of(job) == ()


def test_a_space_is_found_even_if_the_job_requested_none(at: Desk) -> None:
    job = at.job()
    held = at.issue(job, SPACE)
    asked = frozenset({("orders-db", "read")})
    look = at.deps.targets.inspect(job, asked)
    assert ([space.name for space in look.spaces], look.space_targets) == ([f"space-{job}"], ())
    assert revoke_by_session(at, job, held).confirmed
    assert at.deps.targets.inspect(job, asked).traces == ()


@contextmanager
def disable_space_end(at: Desk) -> Iterator[None]:
    """Have a target that gives no spaces, and does not know how to end one."""
    with psycopg.connect(at.shop.superuser, autocommit=True) as connection:
        connection.execute("ALTER FUNCTION je_end_space(text) RENAME TO je_end_nothing")
        try:
            yield
        finally:
            connection.execute("ALTER FUNCTION je_end_nothing(text) RENAME TO je_end_space")


def test_a_target_without_spaces_needs_no_function_that_ends_one(at: Desk) -> None:
    job, roomy = at.job(), at.job()
    held, spacious = at.issue(job), at.issue(roomy, SPACE)
    with disable_space_end(at):
        ended = at.deps.targets.end_all_of(job)
        assert (len(ended.users), ended.spaces, ended.failures) == (1, (), ())
        assert revoke_by_session(at, job, held).confirmed
        refused = revoke_by_session(at, roomy, spacious)
        assert not refused.confirmed
        assert any("UndefinedFunction" in why for why in refused.failures)
    assert revoke_by_session(at, roomy, spacious).confirmed


def test_a_revocation_is_not_confirmed_if_the_space_could_not_be_searched_for(at: Desk) -> None:
    job = at.job()
    held = at.issue(job, SPACE)
    make_table(at, held)
    with at.shop.door.closed():
        assert not revoke_by_session(at, job, held).confirmed
        assert spaces_of(at, job) == [f"space-{job}"]
    assert revoke_by_session(at, job, held).confirmed
    assert spaces_of(at, job) == []
