"""The credentials of the shop's roles, tested by logging in: each reaches only its tenant's rows, has its job's id, and can be revoked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import conninfo, errors

from tests.worker.provisioning.provisioned_shop import Session, Shop, job_token, new_job

pytestmark = pytest.mark.servers
Issued = dict[str, Any]


@pytest.fixture
def job(shop: Shop) -> Iterator[str]:
    name = new_job()
    yield name
    with shop.database() as admin:
        admin.execute("SELECT public.je_end_users(%s)", (name,))


def issue_credential(token: Session, path: str) -> Issued:
    answer = token.read(path)
    assert answer.status_code == 200, answer.text
    found: Issued = answer.json()
    return found


def login(shop: Shop, credential: Issued) -> psycopg.Connection[Any]:
    data = credential["data"]
    return psycopg.connect(conninfo.make_conninfo(shop.superuser, user=data["username"], password=data["password"]), autocommit=True)


def query_value(connection: psycopg.Connection[Any], statement: str) -> Any:
    row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else None


def users_of(shop: Shop, job: str) -> list[object]:
    with shop.database() as admin:
        return [name for (name,) in admin.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE %s", (f"%-token-{job}-%",))]


def revoke(worker: Session, lease: str) -> int:
    return worker.write(f"sys/leases/revoke/{lease}", sync=True).status_code


@pytest.mark.parametrize("tenant", ["acme", "globex"])
def test_a_reader_gets_only_the_rows_of_its_tenant(shop: Shop, worker: Session, job: str, tenant: str) -> None:
    credential = issue_credential(job_token(worker, job, "je-grant-orders-db-read", tenant=tenant), f"database/creds/orders-read-{tenant}")
    with login(shop, credential) as connection:
        assert query_value(connection, "SELECT string_agg(DISTINCT tenant, ',') FROM orders") == tenant
        assert query_value(connection, "SELECT count(*) FROM tickets") > 0
        for refused in ("SELECT * FROM customers", "SELECT * FROM refunds", "UPDATE orders SET status = 'paid'", "CREATE TABLE x ()"):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(refused.encode())


def test_a_token_for_one_tenant_cannot_issue_for_another_nor_for_another_action(worker: Session, job: str) -> None:
    token = job_token(worker, job, "je-grant-orders-db-read", tenant="acme")
    for path in (
        "database/creds/orders-read-globex",
        "database/creds/orders-write-acme",
        "database/creds/orders-admin",
        "kv/data/tenants/acme/helpdesk",
    ):
        assert token.read(path).status_code == 403
    assert token.read("database/creds/orders-read-acme").status_code == 200


def test_a_token_without_data_scope_issues_nothing_scoped(worker: Session, job: str) -> None:
    token = job_token(worker, job, "je-grant-orders-db-read", tenant=None)
    for path in ("database/creds/orders-read-acme", "database/creds/orders-read-", "database/creds/orders-read"):
        assert token.read(path).status_code in {403, 404}


@pytest.mark.parametrize(
    "policy, path",
    [
        ("je-grant-helpdesk-api-read", "kv/data/tenants/acme/helpdesk"),
        ("je-grant-helpdesk-api-write", "kv/data/tenants/acme/helpdesk-write"),
        ("je-grant-export-api-write", "kv/data/tenants/acme/export"),
    ],
)
def test_an_api_key_belongs_to_its_tenant_and_has_no_lease(worker: Session, job: str, policy: str, path: str) -> None:
    token = job_token(worker, job, policy)
    found = issue_credential(token, path)
    assert len(found["data"]["data"]["token"]) >= 32
    assert found["lease_id"] == ""
    assert token.read(path.replace("acme", "globex")).status_code == 403
    assert token.write(path, data={"token": "mine"}).status_code == 403


def test_a_writer_writes_refunds_of_its_tenant_but_reads_no_amounts(shop: Shop, worker: Session, job: str) -> None:
    credential = issue_credential(job_token(worker, job, "je-grant-refunds-db-write"), "database/creds/refunds-write-acme")
    with shop.database() as admin:
        order = query_value(admin, "SELECT min(id) FROM orders WHERE tenant = 'acme'")
        other = query_value(admin, "SELECT min(id) FROM orders WHERE tenant = 'globex'")
    insert = b"INSERT INTO refunds (tenant, order_id, amount, reason) VALUES (%s, %s, 1, 'test') RETURNING id"
    with login(shop, credential) as connection:
        refund = connection.execute(insert, ("acme", order)).fetchone()
        assert refund is not None
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(insert, ("globex", other))
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(b"SELECT amount FROM refunds")
    with shop.database() as admin:
        admin.execute("DELETE FROM refunds WHERE id = %s", refund)


def test_the_users_name_contains_the_job_and_the_user_expires_by_itself(shop: Shop, worker: Session, job: str) -> None:
    credential = issue_credential(job_token(worker, job, "je-grant-orders-db-read"), "database/creds/orders-read-acme")
    assert users_of(shop, job) == [credential["data"]["username"]]
    with shop.database() as admin:
        ends = query_value(
            admin, f"SELECT rolvaliduntil < now() + interval '31 minutes' FROM pg_roles WHERE rolname = '{credential['data']['username']}'"
        )
    assert ends is True


def test_revoking_ends_the_open_session_and_refuses_the_next(shop: Shop, worker: Session, job: str) -> None:
    credential = issue_credential(job_token(worker, job, "je-grant-orders-db-read"), "database/creds/orders-read-acme")
    connection = login(shop, credential)
    assert query_value(connection, "SELECT 1") == 1
    assert revoke(worker, credential["lease_id"]) == 204
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        login(shop, credential)
    assert users_of(shop, job) == []
    assert worker.write("sys/leases/lookup", lease_id=credential["lease_id"]).status_code != 200


def test_revoking_ends_a_session_in_the_middle_of_its_statement(shop: Shop, worker: Session, job: str) -> None:
    credential = issue_credential(job_token(worker, job, "je-grant-orders-db-read"), "database/creds/orders-read-acme")
    ended: list[BaseException] = []
    connection = login(shop, credential)

    def busy() -> None:
        try:
            connection.execute("SELECT pg_sleep(60)")
        except psycopg.Error as error:
            ended.append(error)

    thread = threading.Thread(target=busy)
    thread.start()
    assert revoke(worker, credential["lease_id"]) == 204
    thread.join(timeout=180)
    assert not thread.is_alive()
    assert ended


def test_the_objects_of_an_admin_job_are_dropped_with_its_user(shop: Shop, worker: Session, job: str) -> None:
    credential = issue_credential(job_token(worker, job, "je-grant-orders-db-admin", tenant=None), "database/creds/orders-admin")
    with login(shop, credential) as connection:
        connection.execute("CREATE TABLE made_by_a_job (id int)")
        connection.execute("GRANT SELECT ON made_by_a_job TO PUBLIC")
    assert revoke(worker, credential["lease_id"]) == 204
    assert users_of(shop, job) == []
    with shop.database() as admin:
        assert query_value(admin, "SELECT count(*) FROM pg_tables WHERE tablename = 'made_by_a_job'") == 0
        assert query_value(admin, f"SELECT public.je_end_space('{job}')") == f"space-{job}"


def test_revoking_a_user_that_the_reaper_ended_succeeds(shop: Shop, worker: Session, job: str) -> None:
    credential = issue_credential(job_token(worker, job, "je-grant-orders-db-read"), "database/creds/orders-read-acme")
    reaper = issue_credential(worker, "database/creds/je-reaper")
    with login(shop, reaper) as connection:
        assert connection.execute("SELECT public.je_end_users(%s)", (job,)).fetchall() == [(credential["data"]["username"],)]
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM public.orders")
    assert revoke(worker, credential["lease_id"]) == 204
    assert revoke(worker, credential["lease_id"]) in {204, 400}, "twice is fine: it is unknown by now"
    assert revoke(worker, reaper["lease_id"]) == 204


def test_the_observer_sees_a_jobs_users_and_ends_none(shop: Shop, worker: Session, job: str) -> None:
    credential = issue_credential(job_token(worker, job, "je-grant-orders-db-read"), "database/creds/orders-read-acme")
    observer = issue_credential(worker, "database/creds/je-observer")
    with login(shop, credential), login(shop, observer) as connection:
        seen = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{credential['data']['username']}'"
        assert query_value(connection, seen) == 1
        for refused in (
            f"SELECT public.je_end_users('{job}')",
            "SELECT * FROM public.orders",
            f'DROP ROLE "{credential["data"]["username"]}"',
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(refused.encode())
    assert revoke(worker, observer["lease_id"]) == 204


def test_postgresqls_catalog_contains_no_password_in_plain_text(shop: Shop, worker: Session, job: str) -> None:
    credential = issue_credential(job_token(worker, job, "je-grant-orders-db-read"), "database/creds/orders-read-acme")
    with shop.database() as admin:
        stored = str(query_value(admin, f"SELECT rolpassword FROM pg_authid WHERE rolname = '{credential['data']['username']}'"))
    assert stored.startswith("SCRAM-SHA-256$")
    log = (shop.settings.home / "logs" / "postgres.log").read_text()
    assert credential["data"]["password"] not in log


def test_a_client_certificate_is_issued_only_for_its_tenant_and_without_extras(worker: Session, job: str) -> None:
    token, path = job_token(worker, job, "je-grant-warehouse-api-read"), "pki/issue/warehouse-read"
    name = f"{job}.acme.jobs.shop.internal"
    given = token.write(path, common_name=name, ttl="60s")
    assert given.status_code == 200, given.text
    assert given.json()["lease_id"].startswith(f"{path}/")
    assert token.write(path, common_name=name.replace("acme", "globex"), ttl="60s").status_code == 400
    assert token.write(path, common_name=name, ttl="60s", alt_names="other.acme.jobs.shop.internal").status_code == 403
    assert token.write("pki/sign/warehouse-read", common_name=name, ttl="60s").status_code == 403
    assert revoke(worker, given.json()["lease_id"]) == 204


def test_an_ssh_certificate_is_for_one_user_and_has_no_lease(worker: Session, job: str) -> None:
    token, path = job_token(worker, job, "je-grant-web-servers-write", tenant=None), "ssh/issue/deploy"
    asked = {"valid_principals": "deploy", "key_type": "ed25519", "ttl": "60s"}
    given = token.write(path, **asked)
    assert given.status_code == 200, given.text
    assert given.json()["lease_id"] == ""
    assert token.write(path, **{**asked, "valid_principals": "root"}).status_code == 403
    assert token.write(path, **asked, extensions={"permit-port-forwarding": ""}).status_code == 403
    assert token.write("ssh/sign/deploy", public_key=given.json()["data"]["signed_key"]).status_code == 403


def test_a_certificates_revocation_is_public_so_the_worker_needs_no_capability_for_it(shop: Shop, worker: Session, job: str) -> None:
    token = job_token(worker, job, "je-grant-warehouse-api-read")
    given = token.write("pki/issue/warehouse-read", common_name=f"{job}.acme.jobs.shop.internal", ttl="60s").json()
    nobody, place = Session(shop.admin.address), f"pki/cert/{given['data']['serial_number']}"
    assert nobody.read_data(place)["revocation_time"] == 0
    assert revoke(worker, given["lease_id"]) == 204
    assert nobody.read_data(place)["revocation_time"]
    assert "X509 CRL" in str(nobody.read_data(f"pki/issuer/{nobody.read_data(place)['issuer_id']}/crl")["crl"])
    policy = str(shop.admin.read_data("sys/policies/acl/je-worker")["policy"])
    assert [line for line in policy.splitlines() if "pki/" in line and "pki/issue/warehouse-read/*" not in line] == []
