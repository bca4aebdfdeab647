"""A job's identity on real servers: issued to a running job, verified by stock tools with the console's published keys, refused after its end."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from joserfc.errors import BadSignatureError, ExpiredTokenError, InvalidClaimError

from activities.delivery.identity_token import AudienceNotAllowed, NoIssuer, issue_identity_token
from activities.issuing.results import AccessClosed
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store.errors import StoreUnavailable
from justenough.adapters.store.session_claims import SessionClaim
from justenough.domain.approvals.statements import SignedStatement
from justenough.domain.catalog.audiences import AudienceDef, Audiences
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.errors import InvalidInput
from justenough.domain.integrations.job_identity import TOKEN_LIFETIME
from justenough.services.dependencies import Deps, open_worker_deps
from justenough.services.verify_order import VerifiedOrder, verify_order
from tests.support.claims import claim_job
from tests.support.identity_verifier import alter_claims, verify_identity
from tests.support.people import Human
from tests.support.shop import Shop, spec
from worker.provisioning.admin_client import WriteOutcome
from worker.provisioning.setup import provision_vault
from worker.stack.seed import vault_to_set_up
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers
HOW_TO = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "identity.md").read_text(encoding="utf-8")
ROLE: dict[str, Any] = json.loads(HOW_TO.partition("<<'END'\n")[2].partition("END\n")[0])
"""The role in the how-to."""
(AUDIENCE,) = ROLE["bound_audiences"]
AGENT = {"name": "refund-agent", "version": "1.4", "model": "scripted", "owner": "support"}


@dataclass(frozen=True)
class Session:
    """A job from the view of its session."""

    deps: Deps
    order: VerifiedOrder
    owner: str

    @property
    def job(self) -> str:
        return self.order.statement.job

    def issue_token(self, audience: str = AUDIENCE, **changes: Any) -> str:
        """Return a token like the broker."""
        return issue_identity_token(replace(self.deps, **changes), self.order, audience, owner=self.owner).reveal()

    def token_entries(self) -> list[dict[str, Any]]:
        """Return the ledger's entries about the job's identity tokens."""
        return [entry.data for entry in self.deps.store.ledger.entries(job=self.job).items if entry.type == "identity.issued"]


@pytest.fixture(scope="module")
def deps(whole: Stack) -> Iterator[Deps]:
    """Yield the dependencies of another worker."""
    assert whole.vault
    settings = Settings(
        home=whole.home, config=whole.config, vault_addr=whole.vault, console_url=whole.console, database_url=whole.database_url
    )
    with open_worker_deps(settings, {"SHOP_HOST": "127.0.0.1", "SHOP_PORT": "1", "MODEL_URL": "http://127.0.0.1:65535/v1"}) as opened:
        yield opened


def open_session(deps: Deps, ops: Human, **changes: Any) -> Session:
    """Return a session that has claimed a job that exists nowhere else."""
    body = ops.order(spec("true", agent=AGENT, **changes))
    order = JobInput(job=body["id"], spec=body["spec"], order=SignedStatement(statement=body["statement"], signature=body["signature"]))
    made = verify_order(deps, order, now=deps.now())
    assert isinstance(made, VerifiedOrder)
    owner = uuid.uuid4().hex
    assert claim_job(deps.store, order.job, run="a test", owner=owner, now=deps.now())
    return Session(deps, made, owner)


@pytest.fixture(scope="module")
def acme(deps: Deps, ops: Human) -> Session:
    return open_session(deps, ops)


@pytest.fixture(scope="module")
def globex(deps: Deps, ops: Human) -> Session:
    return open_session(deps, ops, data_scope={"tenant": "globex"})


@pytest.fixture(scope="module")
def published(whole: Stack) -> dict[str, Any]:
    """Return what a relying party reads: the discovery document and the keys."""
    with httpx.Client(trust_env=False, timeout=180) as anyone:
        found: dict[str, Any] = anyone.get(f"{whole.console}/.well-known/openid-configuration").raise_for_status().json()
        assert found["issuer"] == whole.console
        return found | anyone.get(found["jwks_uri"]).raise_for_status().json()  # type: ignore[no-any-return] # JSON


def config_with_audience(deps: Deps, audience: str) -> Any:
    """Return a configuration whose catalog has only this audience."""
    current = deps.config.current()
    named = Audiences(audiences={audience: AudienceDef(environment="prod")})
    there = replace(current, catalog=current.catalog.model_copy(update={"identity": named}))
    return SimpleNamespace(current=lambda: there)


def verify_token(token: str, published: dict[str, Any], *, audience: str = AUDIENCE, later: timedelta = timedelta()) -> dict[str, Any]:
    return verify_identity(token, published, issuer=published["issuer"], audience=audience, now=datetime.now(UTC) + later)


def test_a_running_job_has_an_identity_until_its_end_and_its_tokens_work_from_the_worker_only(
    deps: Deps, ops: Human, shop: Shop, published: dict[str, Any]
) -> None:
    job = ops.launch(spec("sleep 300", agent=AGENT))
    seen = ops.until(job, "running")
    with shop.admin() as vault:
        found = vault.post("auth/token/lookup-accessor", json={"accessor": seen["credentials"][0]["accessor"]}).raise_for_status().json()
    assert found["data"]["bound_cidrs"] == ["127.0.0.1"]

    stored, claim = deps.store.jobs.order(job), deps.store.claims.get(job)
    assert stored
    assert claim
    order = verify_order(deps, stored, now=deps.now())
    assert isinstance(order, VerifiedOrder)
    assert claim.owner
    running = Session(deps, order, claim.owner)
    said = verify_token(running.issue_token(), published)
    assert (said["sub"], said["job"], said["agent"]["name"], said["data_scope"]) == (job, job, "refund-agent", {"tenant": "acme"})
    with pytest.raises(AccessClosed):
        replace(running, owner="another run").issue_token()

    assert ops.api.post(f"jobs/{job}/kill").status_code == 202
    ops.until(job)
    with pytest.raises(AccessClosed, match="closed"):
        running.issue_token()
    assert [entry["data"]["jti"] for entry in ops.ledger(job) if entry["type"] == "identity.issued"] == [said["jti"]]


def test_a_manual_setup_of_the_embedded_vault_keeps_its_jobs_tokens_bound(whole: Stack, shop: Shop) -> None:
    applied = provision_vault(vault_to_set_up(Settings(home=whole.home, config=whole.config)))
    assert {step.path: step.outcome for step in applied}["sys/policies/acl/je-worker"] is WriteOutcome.UNCHANGED
    with shop.admin() as vault:
        assert '"token_bound_cidrs" = [["127.0.0.1/32"]]' in vault.get("sys/policies/acl/je-worker").json()["data"]["policy"]


def test_a_stock_library_accepts_a_token_and_rejects_it_for_another_audience_later_or_altered(
    acme: Session, published: dict[str, Any]
) -> None:
    token = acme.issue_token()
    said = verify_token(token, published)
    assert set(said) <= set(published["claims_supported"])
    assert said["exp"] - said["iat"] == 300
    assert verify_token(token, published, later=timedelta(minutes=4, seconds=50)) == said
    with pytest.raises(ExpiredTokenError):
        verify_token(token, published, later=TOKEN_LIFETIME)
    with pytest.raises(InvalidClaimError, match="in the future"):
        verify_token(token, published, later=timedelta(minutes=-1))
    with pytest.raises(InvalidClaimError, match="aud"):
        verify_token(token, published, audience="https://helpdesk.example")
    with pytest.raises(BadSignatureError):
        verify_token(alter_claims(token, "acme", "evil"), published)


def test_the_ledger_records_the_audiences_of_a_jobs_identity_and_no_token(acme: Session, published: dict[str, Any]) -> None:
    before = len(acme.token_entries())
    token = acme.issue_token("https://helpdesk.example")
    said = verify_token(token, published, audience="https://helpdesk.example")
    (entry,) = acme.token_entries()[before:]
    assert (entry["audience"], entry["jti"]) == ("https://helpdesk.example", said["jti"])
    assert abs(datetime.fromisoformat(entry["expires_at"]).timestamp() - said["exp"]) < 1
    assert token.rpartition(".")[2] not in str(entry)


def test_a_job_gets_an_identity_only_for_audiences_of_its_environment_in_the_catalog(deps: Deps, ops: Human, acme: Session) -> None:
    named = config_with_audience(acme.deps, AUDIENCE)
    assert acme.issue_token(config=named)
    before = acme.token_entries()
    with pytest.raises(AudienceNotAllowed, match=r"does not name 'https://stranger\.example'"):
        acme.issue_token("https://stranger.example", config=named)
    assert acme.token_entries() == before
    staging = open_session(deps, ops, environment="staging", access=[])
    with pytest.raises(AudienceNotAllowed, match=r"is for jobs in 'prod', but this job is in 'staging'"):
        staging.issue_token(config=named)


def test_no_identity_is_issued_if_it_cannot_be_recorded_or_has_no_audience(acme: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    before = acme.token_entries()
    for audience in ("", "a\nb", "a" * 256):
        with pytest.raises(InvalidInput):
            acme.issue_token(audience)
    nowhere = acme.deps.settings.model_copy(update={"console_url": None})
    with pytest.raises(NoIssuer, match="JUSTENOUGH_JOB_ISSUER"):
        acme.issue_token(settings=nowhere)
    assert acme.token_entries() == before

    def away(_: object) -> None:
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(acme.deps.store.ledger, "append", away)
    with pytest.raises(StoreUnavailable):
        acme.issue_token()


def test_a_token_ends_five_minutes_after_the_jobs_access_was_checked_however_long_signing_takes(
    acme: Session, published: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [datetime.now(UTC)]
    began, seen = clock[0], acme.deps.store.claims.get

    def slow(job: str) -> SessionClaim | None:
        found = seen(job)
        clock[0] += timedelta(hours=1)
        return found

    monkeypatch.setattr(acme.deps.store.claims, "get", slow)
    assert verify_token(acme.issue_token(now=lambda: clock[0]), published)["exp"] <= (began + TOKEN_LIFETIME).timestamp()


def test_a_jobs_identity_is_not_accepted_as_a_persons(acme: Session, whole: Stack) -> None:
    # No catalog should name this audience. If one does, the console still does not accept a job as a person.
    token = acme.issue_token("je-console", config=config_with_audience(acme.deps, "je-console"))
    answer = httpx.get(f"{whole.console}/api/v1/whoami", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
    assert answer.status_code == 401
    assert "not signed by this installation's Vault" in answer.json()["detail"]


@pytest.mark.parametrize("how", ["oidc_discovery_url", "jwks_url"])
def test_openbaos_jwt_login_accepts_one_tenants_jobs_and_rejects_anothers(
    acme: Session, globex: Session, shop: Shop, published: dict[str, Any], how: str
) -> None:
    where = {"oidc_discovery_url": published["issuer"], "jwks_url": published["jwks_uri"]}[how]
    stale = acme.issue_token(now=lambda: datetime.now(UTC) - TOKEN_LIFETIME - timedelta(seconds=1))
    mount = f"jobs-{how.partition('_')[0]}"
    with shop.admin() as vault:

        def login(token: str) -> httpx.Response:
            return vault.post(f"auth/{mount}/login", json={"role": "refunds", "jwt": token})

        vault.post(f"sys/auth/{mount}", json={"type": "jwt"}).raise_for_status()
        config = {how: where, "bound_issuer": published["issuer"], "jwt_supported_algs": ["EdDSA"]}
        vault.post(f"auth/{mount}/config", json=config).raise_for_status()
        vault.post(f"auth/{mount}/role/refunds", json=ROLE).raise_for_status()

        taken = login(acme.issue_token())
        assert taken.status_code == 200, taken.text
        assert taken.json()["auth"]["metadata"]["job"] == acme.job
        refused = {
            "another tenant's": globex.issue_token(),
            "for another audience": acme.issue_token("https://helpdesk.example"),
            "altered": alter_claims(globex.issue_token(), "globex", "acme"),
            "expired": stale,
        }
        assert {why: login(token).status_code for why, token in refused.items()} == dict.fromkeys(refused, 400)
        vault.delete(f"sys/auth/{mount}").raise_for_status()
