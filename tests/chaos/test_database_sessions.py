"""When access ends, open sessions are cut, and objects are dropped with the user who owns them. What does not end is never called ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from psycopg import errors

from tests.chaos.rig import Rig
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Login, Shop, Witness, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers

CUT_ERRORS = (psycopg.OperationalError, psycopg.InterfaceError)
OWNED = (
    "CREATE TABLE {name} (id serial PRIMARY KEY, kind {name}_kind, total int GENERATED ALWAYS AS ({name}_twice(1)) STORED)",
    "CREATE VIEW {name}_view AS SELECT id FROM {name}",
    "CREATE INDEX ON {name} ({name}_twice(id))",
    "ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY mine ON {name} TO shop_orders_admin USING (true)",
    "GRANT ALL ON {name} TO PUBLIC",
    "GRANT ALL ON {name} TO shop_orders_admin WITH GRANT OPTION",
)
FIRST = (
    "CREATE TYPE {name}_kind AS ENUM ('a')",
    "CREATE FUNCTION {name}_twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * n'",
)


@dataclass
class JobLogin:
    """One job whose login a test uses, as a process of another user to which the job handed it."""

    job: str
    login: Login
    shop: Shop
    connections: list[psycopg.Connection[Any]] = field(default_factory=list)

    def connect(self, *, autocommit: bool = True) -> psycopg.Connection[Any]:
        """Log in once more."""
        connection = self.shop.connect(self.login)
        connection.autocommit = autocommit
        self.connections.append(connection)
        return connection


@pytest.fixture
def opened(rig: Rig, ops: Human, security: Human, shop: Shop, witness: Witness) -> Iterator[Callable[..., JobLogin]]:
    """Start jobs that hand their login over and then do nothing."""
    rig.ensure_worker()
    all_of_them: list[JobLogin] = []

    def open_one(action: str = "read") -> JobLogin:
        job = ops.launch(spec(f"{witness.hand_over}; exec sleep 300", access(action=action)))
        if action == "admin":
            seen = ops.until(job, "awaiting_approval")
            assert security.answer(seen["requests"][0]).status_code in ACCEPTED_STATUSES
        all_of_them.append(JobLogin(job, witness.login(), shop))
        return all_of_them[-1]

    yield open_one
    for one in all_of_them:
        for connection in one.connections:
            with suppress(psycopg.Error):
                connection.close()


def connect_owner(shop: Shop) -> psycopg.Connection[Any]:
    return psycopg.connect(shop.dsn, autocommit=True)


def cancel_job(ops: Human, job_login: JobLogin) -> None:
    assert ops.api.post(f"jobs/{job_login.job}/cancel").status_code == 202


def is_cut(connection: psycopg.Connection[Any]) -> bool:
    try:
        connection.execute("SELECT 1")
    except CUT_ERRORS:
        return True
    return False


def sessions_without_a_role(shop: Shop) -> int:
    """Sessions that nobody could attribute to a job any more."""
    with connect_owner(shop) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity a WHERE usesysid > 10 AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.usesysid)"
        ).fetchone()
        return int(row[0]) if row else 0


def test_open_sessions_are_ended_whatever_they_do_and_leave_no_lock(ops: Human, shop: Shop, opened: Callable[..., JobLogin]) -> None:
    one = opened("admin")
    idle, busy, writing, locking = (one.connect(autocommit=at_once) for at_once in (True, True, False, False))
    order = writing.execute("UPDATE orders SET status = 'shipped' WHERE id = (SELECT min(id) FROM orders) RETURNING id").fetchone()
    locking.execute("LOCK TABLE tickets IN ROW EXCLUSIVE MODE")
    ended: list[BaseException] = []

    def work() -> None:
        try:
            busy.execute("SELECT pg_sleep(600)")
        except psycopg.Error as error:
            ended.append(error)

    working = threading.Thread(target=work, daemon=True)
    working.start()
    cancel_job(ops, one)
    seen = ops.until(one.job)
    assert (seen["state"], seen["revocation"]["state"]) == ("cancelled", "confirmed")
    shop.assert_dead(seen, one.login)
    working.join(180)
    assert ended
    assert all(map(is_cut, (idle, writing, locking)))
    with connect_owner(shop) as connection:
        assert connection.execute("SELECT id FROM orders WHERE id = %s FOR UPDATE NOWAIT", order).fetchone() == order
        connection.execute("BEGIN; LOCK TABLE tickets IN ACCESS EXCLUSIVE MODE NOWAIT; ROLLBACK")


def test_objects_and_grants_of_a_user_do_not_block_its_revocation(ops: Human, shop: Shop, opened: Callable[..., JobLogin]) -> None:
    one = opened("admin")
    mine, name = one.connect(), f"made_{time.time_ns()}"
    for statement in (*FIRST, *OWNED):
        mine.execute(statement.format(name=name).encode())
    # The shop's users cannot create what would outlast their session or be out of reach.
    for statement in ("CREATE SCHEMA theirs", "CREATE TABLE public.theirs (id int)", "SELECT lo_create(0)"):
        with pytest.raises(errors.InsufficientPrivilege):
            mine.execute(statement)
    mine.execute("BEGIN")
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        mine.execute("PREPARE TRANSACTION 'for later'")
    cancel_job(ops, one)
    seen = ops.until(one.job)
    assert (seen["state"], seen["revocation"]["state"]) == ("cancelled", "confirmed")
    shop.assert_dead(seen, one.login)
    with connect_owner(shop) as connection:
        assert connection.execute("SELECT 1 FROM pg_tables WHERE tablename = %s", (name,)).fetchone() is None


def test_a_login_that_is_tried_repeatedly_leaves_no_session_behind(ops: Human, shop: Shop, opened: Callable[..., JobLogin]) -> None:
    one, over = opened(), threading.Event()

    def hammer() -> None:
        while not over.is_set():
            with suppress(psycopg.OperationalError):
                one.connect()

    hammering = [threading.Thread(target=hammer, daemon=True) for _ in range(4)]
    for thread in hammering:
        thread.start()
    # As many as one user may have at once.
    until(lambda: len(one.connections) >= 8, "logins are opened")
    cancel_job(ops, one)
    seen = ops.until(one.job)
    shop.assert_dead(seen, one.login)
    over.set()
    for thread in hammering:
        thread.join(180)
    assert sessions_without_a_role(shop) == 0
    assert all(map(is_cut, one.connections))


def test_a_session_that_does_not_end_is_overdue_and_its_user_cannot_log_in_again(
    ops: Human, shop: Shop, opened: Callable[..., JobLogin]
) -> None:
    stuck, locked = opened(), opened("admin")
    backend = stuck.connect().info.backend_pid
    locked.connect().execute("CREATE TABLE wanted (id int)")
    with connect_owner(shop) as other:
        other.execute(f'BEGIN; LOCK TABLE "space-{locked.job}".wanted IN ACCESS SHARE MODE'.encode())
        os.kill(backend, signal.SIGSTOP)
        try:
            for one in (stuck, locked):
                cancel_job(ops, one)
            # The first step of a revocation: the users cannot log in any more.
            until(lambda: not any(shop.can_log_in(one.login) for one in (stuck, locked)), "neither login works")
            for one in (stuck, locked):
                assert_overdue(ops, shop, one)
        finally:
            os.kill(backend, signal.SIGCONT)
            other.execute("ROLLBACK")
    for one in (stuck, locked):
        seen = ops.until(one.job)
        assert (seen["state"], seen["revocation"]["state"]) == ("cancelled", "confirmed")
        shop.assert_dead(seen, one.login)
        assert [entry["type"] for entry in ops.ledger(one.job)].count("job.ended") == 1
    assert all(map(is_cut, stuck.connections))


def assert_overdue(ops: Human, shop: Shop, job_login: JobLogin) -> None:
    """Fail unless a job's revocation is shown as overdue, with its user and its lease still there for all to see."""

    def tried() -> int:
        return [entry["type"] for entry in ops.ledger(job_login.job)].count("revocation.overdue")

    until(lambda: tried() > 0, "it is said to be overdue")
    seen = ops.job(job_login.job)
    assert (seen["state"], seen["revocation"]["state"]) == ("revoking", "overdue")
    assert {item["state"] for item in seen["credentials"]} == {"overdue"}
    assert shop.users_of(job_login.job)
    assert shop.live_leases(seen)
    assert not shop.can_log_in(job_login.login)
