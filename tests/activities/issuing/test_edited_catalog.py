"""The catalog is edited while a credential is decided or issued."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from activities.broker.broker import Broker
from activities.issuing.lease_keeper import LeaseKeeper
from activities.issuing.results import IssuedCredential
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.redaction import Redactor
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import Action
from justenough.domain.ledger.events import Event, EventType
from justenough.domain.readmodel.views import EntryView
from tests.activities.issuing_session import start_session
from tests.activities.vault_shop import ACME, Desk, Shop, copy_config, open_desk

pytestmark = pytest.mark.servers


async def nobody(_: str) -> None:
    """Nobody is notified."""


def load_catalog(at: Desk, catalog: Path, text: str) -> None:
    """Replace the catalog and read it again, as the worker does when its file changes."""
    catalog.write_text(text)
    at.deps.config.refresh()


async def test_a_job_is_told_how_to_reach_what_it_was_issued_although_the_catalog_has_lost_it_meanwhile(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_config(tmp_path)
    # The jobs in triggers.yaml name the resource.
    (folder / "triggers.yaml").unlink()
    catalog = folder / "catalog.yaml"
    before = catalog.read_text()
    with open_desk(shop, tmp_path, folder=folder) as at:
        session = await asyncio.to_thread(
            start_session, at, {"resource": "orders-db", "action": "read", "ttl": "10m", "reason": "Look", "at": "request"}
        )
        expected, issue = at.deps.config.current().catalog.resources["orders-db"].connect, session.issuer.access

        def issue_and_edit(*args: Any, **options: Any) -> Any:
            issued = issue(*args, **options)
            edited = yaml.safe_load(before)
            del edited["resources"]["orders-db"], edited["tools"]
            load_catalog(at, catalog, yaml.safe_dump(edited))
            assert "orders-db" not in at.deps.config.current().catalog.resources
            return issued

        monkeypatch.setattr(session.issuer, "access", issue_and_edit)
        keeper = LeaseKeeper(at.deps, session.job, session.issuer)
        broker = Broker(at.deps, session.verified, session.issuer, keeper, Redactor(()), owner="owner", notify_workflow=nobody)
        item = await broker.access(Access(resource="orders-db", action=Action.READ, ttl=600, reason="Look", at="request"))
        assert isinstance(item, IssuedCredential)
        assert {name: item.fields[name].reveal() for name in expected} == {name: str(value) for name, value in expected.items()}
        assert expected
        await keeper.close()
        load_catalog(at, catalog, before)
        assert (await asyncio.to_thread(session.end)).confirmed


async def test_a_credential_is_issued_as_it_was_decided_although_the_catalog_changes_in_between(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_config(tmp_path)
    catalog = folder / "catalog.yaml"
    before = catalog.read_text()
    with open_desk(shop, tmp_path, folder=folder) as at:
        session = await asyncio.to_thread(
            start_session, at, {"resource": "orders-db", "action": "read", "ttl": "10m", "reason": "Look", "at": "request"}
        )
        ledger = at.deps.store.ledger
        append = ledger.append

        def append_and_edit(events: Sequence[Event]) -> tuple[EntryView, ...]:
            new = append(events)
            if any(event.type is EventType.ACCESS_DECIDED and event.data["phase"] == "issue" for event in events):
                edited = yaml.safe_load(before)
                edited["resources"]["orders-db"]["actions"]["read"]["issue"]["path"] = "database/creds/not-decided"
                load_catalog(at, catalog, yaml.safe_dump(edited))
            return new

        monkeypatch.setattr(ledger, "append", append_and_edit)
        access = Access(resource="orders-db", action=Action.READ, ttl=600, reason="Look", at="request")
        issued = await asyncio.to_thread(session.issuer.access, access)
        assert isinstance(issued, IssuedCredential)
        changed = at.deps.config.current().catalog.resources["orders-db"].actions[Action.READ].issue
        assert changed.path == "database/creds/not-decided"
        assert "not-decided" not in str(issued.credential.lease_id)
        load_catalog(at, catalog, before)
        assert (await asyncio.to_thread(session.end)).confirmed


def test_a_further_credential_of_a_grant_lives_no_longer_than_the_catalog_allows_now(shop: Shop, tmp_path: Path) -> None:
    folder = copy_config(tmp_path)
    # The jobs in triggers.yaml request the access for longer.
    (folder / "triggers.yaml").unlink()
    catalog = folder / "catalog.yaml"
    with open_desk(shop, tmp_path, folder=folder) as at:
        session = start_session(at, {"resource": "orders-db", "action": "read", "ttl": "10m", "reason": "Look", "at": "request"})
        access = Access(resource="orders-db", action=Action.READ, ttl=600, reason="Look", at="request")
        assert isinstance(session.issuer.access(access), IssuedCredential)
        edited = yaml.safe_load(catalog.read_text())
        edited["resources"]["orders-db"]["actions"]["read"]["max_ttl"] = "1m"
        load_catalog(at, catalog, yaml.safe_dump(edited))
        assert at.deps.config.alarm is None

        with pytest.raises(InvalidInput, match="1m"):
            session.issuer.access(access)
        assert isinstance(session.issuer.access(access.model_copy(update={"ttl": 60})), IssuedCredential)
        assert session.end().confirmed


def test_a_credential_is_not_renewed_in_a_data_scope_that_the_catalog_no_longer_lists(shop: Shop, tmp_path: Path) -> None:
    folder = copy_config(tmp_path)
    (folder / "triggers.yaml").unlink()
    catalog = folder / "catalog.yaml"
    with open_desk(shop, tmp_path, folder=folder) as at:
        session = start_session(at, {"resource": "helpdesk-api", "action": "read", "ttl": "10m", "reason": "Look", "at": "request"})
        access = Access(resource="helpdesk-api", action=Action.READ, ttl=600, reason="Look", at="request")
        item = session.issuer.access(access)
        assert isinstance(item, IssuedCredential)
        edited = yaml.safe_load(catalog.read_text())
        edited["resources"]["helpdesk-api"]["actions"]["read"]["max_ttl"] = "1m"
        load_catalog(at, catalog, yaml.safe_dump(edited))
        assert session.issuer.reason_to_end(item) is None

        edited["scopes"].remove(ACME)
        load_catalog(at, catalog, yaml.safe_dump(edited))
        assert at.deps.config.alarm is None
        ending = session.issuer.reason_to_end(item)
        assert ending is not None
        assert ending.why.startswith("read on helpdesk-api cannot be issued: no scope 'tenant-acme' is provisioned")
        assert session.end().confirmed
