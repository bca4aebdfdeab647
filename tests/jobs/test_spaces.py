"""However a job ends, its space is dropped with all its objects, and the login that created it is revoked."""

from __future__ import annotations

import psycopg
import pytest

from tests.activities.broker.remote_job import launch_puppet
from tests.support.people import Human
from tests.support.shop import LOGIN, Login, Shop, Witness, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers
SCRATCH = access("scratch", "write", deliver=LOGIN)
WHOLE = {"env": {"PGHOST": "host", "PGPORT": "port", "PGDATABASE": "dbname", **LOGIN["env"]}}
WORK = """
import psycopg
with psycopg.connect(autocommit=True) as space:
    space.execute("CREATE TABLE found AS SELECT generate_series(1, 20) AS id")
    try:
        space.execute("CREATE TABLE public.found AS SELECT 1 AS id")
    except psycopg.errors.InsufficientPrivilege:
        print(*space.execute("SELECT count(*) FROM found").fetchone(), "rows in", *space.execute("SELECT current_schema").fetchone(), end=", none in public")
"""


def launch_with_space(ops: Human, shop: Shop, witness: Witness) -> tuple[str, Login]:
    """Launch a job that has a space and keeps running; return it once its space has objects."""
    job = ops.launch(spec(f"{witness.hand_over}; sleep 300", SCRATCH))
    login = witness.login()
    with shop.connect(login) as connection:
        connection.execute("CREATE TABLE found AS SELECT generate_series(1, 10000) AS id")
        connection.execute("CREATE VIEW again AS SELECT * FROM found")
    assert shop.spaces_of(job) == [f"space-{job}"]
    return job, login


def test_a_jobs_space_is_dropped_at_its_end_and_the_proof_says_so(ops: Human, auditor: Human, shop: Shop, witness: Witness) -> None:
    job = ops.launch(spec(f"python3 -c '{WORK}' && {witness.hand_over}", access("scratch", "write", deliver=WHOLE)))
    login = witness.login()
    seen = ops.until(job)
    assert (seen["state"], seen["revocation"]["state"]) == ("succeeded", "confirmed")
    assert f"20 rows in space-{job}, none in public" in ops.output(job)
    shop.assert_dead(seen, login)
    proof = auditor.api.post(f"jobs/{job}/prove").json()
    assert proof["dead"] is True
    assert [item["alive"] for item in proof["findings"] if item["what"].startswith("space in ")] == [False]
    how = [entry["data"]["how"] for entry in ops.ledger(job) if entry["type"] == "credential.confirmed"]
    assert ["no user and no space of the job in" in text for text in how] == [True]


def test_a_space_is_dropped_if_its_job_is_killed_in_the_middle_of_a_transaction(ops: Human, shop: Shop, witness: Witness) -> None:
    job, login = launch_with_space(ops, shop, witness)
    connection = shop.connect(login)
    connection.execute("UPDATE found SET id = -id")
    assert ops.api.post(f"jobs/{job}/kill").status_code == 202
    seen = ops.until(job)
    assert (seen["state"], seen["revocation"]["state"]) == ("killed", "confirmed")
    with connection, pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    shop.assert_dead(seen, login)


def test_a_space_outlives_the_credential_that_created_it_but_not_the_job(ops: Human, shop: Shop) -> None:
    with launch_puppet(ops) as job:
        first = job.request_access("scratch", "write").json
        with shop.connect(Login(first["data"]["username"], first["data"]["password"])) as connection:
            connection.execute("CREATE TABLE found AS SELECT 7 AS id")
        assert job.call("POST", f"/v1/access/{first['credential_id']}/release").status == 200
        second = job.request_access("scratch", "write").json
        login = Login(second["data"]["username"], second["data"]["password"])
        with shop.connect(login) as connection:
            assert connection.execute("SELECT id FROM found").fetchall() == [(7,)]
        assert job.call("POST", f"/v1/access/{second['credential_id']}/release").status == 200
        assert shop.spaces_of(job.job) == [f"space-{job.job}"]
    seen = ops.until(job.job)
    assert seen["revocation"]["state"] == "confirmed"
    shop.assert_dead(seen, login)


def test_a_job_is_not_confirmed_clean_while_its_space_exists(ops: Human, shop: Shop, witness: Witness) -> None:
    job, login = launch_with_space(ops, shop, witness)
    with psycopg.connect(shop.dsn) as backup:
        backup.execute(f'SELECT count(*) FROM "space-{job}".found'.encode())
        assert ops.api.post(f"jobs/{job}/kill").status_code == 202
        until(lambda: ops.job(job)["revocation"]["state"] not in {"none", "pending"}, "somebody says how its revocation goes")
        assert ops.job(job)["revocation"]["state"] == "overdue"
        assert not shop.can_log_in(login)
        assert shop.spaces_of(job) == [f"space-{job}"]
    seen = ops.until(job)
    assert (seen["state"], seen["revocation"]["state"]) == ("killed", "confirmed")
    shop.assert_dead(seen, login)
