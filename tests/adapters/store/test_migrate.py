"""Migrations create what the models say, once, and never change what a newer version created."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, Table, inspect, text

from justenough.adapters.store import Store, StoreTooNew, StoreUnfit
from justenough.adapters.store.engine import open_database
from justenough.adapters.store.migrate import REVISIONS, alembic_config
from justenough.adapters.store.tables import METADATA
from justenough.domain.core.errors import GiveUp
from tests.adapters.store.conftest import as_owner
from tests.adapters.store.event_samples import JOB, NOW, later, submission


def test_models_and_migrations_agree(url: str) -> None:
    engine = open_database(url).engine
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_exactly_one_table_is_called_a_ledger(url: str) -> None:
    engine = open_database(url).engine
    assert [name for name in inspect(engine).get_table_names() if "ledger" in name] == ["ledger"]
    engine.dispose()


def test_migrating_again_keeps_existing_data(empty_url: str) -> None:
    with closing(Store(empty_url)) as store:
        store.migrate()
        store.ledger.append([submission()])
        store.migrate()
        assert store.jobs.get(JOB) is not None


def test_a_database_of_a_newer_version_is_left_alone(store: Store, url: str) -> None:
    store.ledger.append([submission()])
    engine = open_database(as_owner(url)).engine
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'from-tomorrow'"))
    with pytest.raises(StoreTooNew, match=r"from-tomorrow.*newer version") as refused:
        store.migrate()
    assert isinstance(refused.value, GiveUp)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "from-tomorrow"
    engine.dispose()


def test_a_postgresql_that_is_too_old_is_refused_with_both_versions(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justenough.adapters.store.migrate.OLDEST_POSTGRESQL", (99, 1))
    with closing(Store(as_owner(url))) as store:
        for look in (store.migrate, store.inspect) if url.startswith("postgresql") else ():
            with pytest.raises(StoreUnfit, match=r"the store's server is PostgreSQL [0-9.]+; upgrade it to 99\.1 or newer"):
                look()
        if not url.startswith("postgresql"):
            assert store.migrate().found is not None


def test_a_failed_migration_leaves_nothing_half_made(empty_url: str) -> None:
    engine = open_database(empty_url).engine
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE credentials (id integer)"))
    with closing(Store(empty_url)) as store, pytest.raises(Exception, match="credentials"):
        store.migrate()
    assert inspect(engine).get_table_names() == ["credentials"]
    engine.dispose()


def test_after_the_upgrade_an_open_revocation_without_a_start_is_dated_to_the_end_of_its_job(empty_url: str) -> None:
    engine, config = open_database(empty_url).engine, alembic_config()
    texts = dict.fromkeys(("name", "task", "environment", "requester", "requester_id", "order_reason"), "x")
    empty: dict[str, Any] = {"revocation_failures": [], "data_scope": {}, "labels": {}, "params": {}}
    states = {"state": "failed", "revocation_state": "pending", "created_at": NOW, "ended_at": later(5)}
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        jobs = Table("jobs", MetaData(), autoload_with=connection)
        connection.execute(jobs.insert(), {"id": JOB, **texts, **empty, **states})
    with closing(Store(empty_url)) as store:
        store.migrate()
        found = store.jobs.get(JOB)
    engine.dispose()
    assert found is not None
    assert found.revocation.since == later(5)


def test_a_credential_that_an_older_version_confirmed_is_residual_after_the_upgrade_if_still_valid(empty_url: str) -> None:
    engine, config = open_database(empty_url).engine, alembic_config()
    texts = dict.fromkeys(("name", "task", "environment", "requester", "requester_id", "order_reason"), "x")
    empty: dict[str, Any] = {"revocation_failures": [], "data_scope": {}, "labels": {}, "params": {}}
    ended = {"state": "succeeded", "revocation_state": "confirmed", "created_at": NOW, "ended_at": later(5)}
    kinds = {"timed": ("on_expiry", "revoked", True), "kept": ("never", "expired", False), "gone": ("now", "confirmed", False)}
    kinds["called"] = kinds["kept"]
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0017")
        tables = {name: Table(name, MetaData(), autoload_with=connection) for name in ("jobs", "requests", "credentials")}
        for name, (revocable, state, live) in kinds.items():
            connection.execute(tables["jobs"].insert(), {"id": f"{JOB}-{name}", **texts, **empty, **ended})
            of_it = {"id": name, "job_id": f"{JOB}-{name}", "resource": "r", "action": "read", "revocable": revocable, "state": state}
            asked = {"requester_id": "x", "number": 1, "ttl": 60, "reason": "", "optional": False, "sensitivity": "", "title": ""}
            # The ORM writes JSON's null, not SQL's.
            asked |= {"call": {"tool": "t", "arguments": {}} if name == "called" else None, "tools": None}
            tier = {"tier": 0, "current_tier": 0, "quorum": 0, "policies": [], "policy_digest": "", "digest": "", "created_at": NOW}
            connection.execute(tables["requests"].insert(), {**of_it, **asked, **tier, "state": "allowed"})
            times = {"issued_at": NOW, "expires_at": later(600), "request_id": name, "live": live}
            connection.execute(tables["credentials"].insert(), {**of_it, **times})
    with closing(Store(empty_url)) as store:
        store.migrate()
        found = {name: store.jobs.get(f"{JOB}-{name}") for name in kinds}
    engine.dispose()
    shown = {name: (job.revocation.state, job.revocation.residual_until, job.credentials[0].state) for name, job in found.items() if job}
    assert shown == {
        "timed": ("residual", later(600), "residual"),
        "kept": ("residual", None, "residual"),
        "gone": ("confirmed", None, "confirmed"),
        "called": ("confirmed", None, "expired"),
    }


def test_a_delegates_decision_that_an_older_version_recorded_is_for_the_person_in_its_entry(empty_url: str) -> None:
    engine, config = open_database(empty_url).engine, alembic_config()
    texts = {"approver": "d", "approver_id": "e-d", "tier": 1, "decision": "approve", "reason": "", "ttl": 60, "at": NOW, "request_id": "r"}
    named = {"delegate": "d", "delegate_id": "e-d", "reason": "", "made_at": NOW, "until": NOW, "signed": {}, "person": "ada"}
    entry = {"job": JOB, "type": "approval.decided", "at": NOW.isoformat(), "prev": "", "hash": ""}
    entries = {"of ada": '{"on_behalf_of": "e-ada"}', "own": '{"on_behalf_of": null}', "list": "[]", "nul": r'{"on_behalf_of": "\u0000"}'}
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0028")
        tables = {name: Table(name, MetaData(), autoload_with=connection) for name in ("approvals", "delegations", "ledger")}
        for number, (name, data) in enumerate(entries.items(), start=1):
            connection.execute(tables["approvals"].insert(), {"id": name, **texts, "on_behalf_of": None if name == "own" else "ada"})
            connection.execute(tables["ledger"].insert(), {**entry, "id": name, "data": data, "position": number, "seq": number})
        # Her namesake on another mount has the same delegate.
        for person in ("e-ada", "e-namesake"):
            connection.execute(tables["delegations"].insert(), {"id": person, "person_id": person, **named})
        command.upgrade(config, "head")
        found = {row.id: row.on_behalf_of_id for row in connection.execute(text("SELECT id, on_behalf_of_id FROM approvals"))}
    engine.dispose()
    assert found == {"of ada": "e-ada", "own": None, "list": None, "nul": None}


def test_the_migrations_are_one_line_in_the_order_of_their_files_names() -> None:
    script = ScriptDirectory.from_config(alembic_config())
    assert script.get_heads() == [REVISIONS[-1]]
    assert tuple(revision.revision for revision in script.walk_revisions())[::-1] == REVISIONS
