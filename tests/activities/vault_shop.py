"""Shared by the tests of Vault access and revocation: the shop on real servers, jobs that hold credentials, people who sign."""

from __future__ import annotations

import atexit
import base64
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import psycopg

from activities.issuing.results import issued_event
from justenough.adapters.configuration.folder import ConfigFolder
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store import Store
from justenough.adapters.targets.inspector import TargetInspector
from justenough.adapters.vault import IssuedSecret, JobToken, Vault
from justenough.domain.approvals.statements import OrderStatement, SignedStatement, to_signable
from justenough.domain.catalog.loader import resolve_issue, scope_alias
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.canonical_json import digest_of, to_canonical_json
from justenough.domain.core.ids import credential_id, new_job_id, request_id
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.states import Action
from justenough.domain.ledger.events import EventType, build_event
from justenough.services.dependencies import Deps
from justenough.services.positive_control import known_controls, with_observed_user
from tests.activities.tcp_door import Door
from tests.support.claims import claim_job
from tests.support.http_client import shared_client

EXAMPLE = Path(__file__).parents[2] / "examples" / "shop"
ACME = {"tenant": "acme"}
SPEC: dict[str, Any] = {
    "name": "refund-triage",
    "task": "Refund ticket {ticket}",
    "environment": "prod",
    "data_scope": ACME,
    "params": {"ticket": "4711"},
    "run": {"command": ["python", "triage.py", "{ticket}"]},
    "access": [{"resource": "orders-db", "action": "read", "ttl": "10m", "reason": "Look the order up"}],
}

PASSWORD = "a-password-of-the-tests"
"""Everyone's."""
PASSWORD_HASH = "$2b$05$tQm1Zk3YvB7eRw9LcXoN5uLQ6BPVY4v4m.tPq22i9Jmn2KlaM4K1i"
"""PASSWORD, hashed with the lowest bcrypt cost that Vault accepts: a login takes Vault 2 ms of processor time instead of 60."""


@dataclass
class Clock:
    """The real time, moved ahead by what a test says."""

    ahead: timedelta = timedelta()
    stepped: timedelta = timedelta()
    """How far somebody has set the machine's clock; no time has passed by it."""

    stopped: datetime | None = None
    """The time at which the clock stands still; None: it goes on."""

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead + self.stepped

    def ticks(self) -> float:
        return time.monotonic() + self._ahead.total_seconds()

    @property
    def _ahead(self) -> timedelta:
        return self.stopped - datetime.now(UTC) if self.stopped else self.ahead


@dataclass(frozen=True)
class Held:
    """One credential as a job holds it."""

    credential: CredentialHandle
    token: JobToken
    issued: IssuedSecret


@dataclass(frozen=True, eq=False)
class Shop:
    """The servers, with a door in front of PostgreSQL."""

    settings: Settings
    admin_token: str
    superuser: str
    door: Door
    environment: Mapping[str, str] = field(repr=False)
    """Fills `${X}` in its catalog."""

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """Call Vault as its administrator; fails unless it says yes."""
        answer = self._call(method, path, body, token=self.admin_token)
        assert answer.is_success, (path, answer.text)
        return answer.json() if answer.content else {}

    def status(self, method: str, path: str, *, token: str, body: Any = None) -> int:
        return self._call(method, path, body, token=token).status_code

    def users_of(self, job: str) -> list[str]:
        """Return a job's users, read from PostgreSQL itself and not through the door."""
        with psycopg.connect(self.superuser, autocommit=True) as connection:
            rows = connection.execute("SELECT rolname FROM pg_roles WHERE strpos(rolname, %s) > 0", [job]).fetchall()
        return [str(name) for (name,) in rows]

    def login(self, held: Held) -> psycopg.Connection[Any]:
        """Log in to PostgreSQL as the job would."""
        fields = held.issued.fields
        return psycopg.connect(
            self.superuser, user=fields["username"].reveal(), password=fields["password"].reveal(), autocommit=True, connect_timeout=60
        )

    def can_log_in(self, held: Held) -> bool:
        try:
            with self.login(held) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    def worker_vault(self) -> Vault:
        vault = Vault(self.settings.vault_addr)
        vault.login_from_file(self.settings.worker_approle_file)
        return vault

    def sign_in(self, name: str) -> Someone:
        """Log a person in; they make their signing key."""
        answer = self._call("POST", f"auth/people/login/{name}", {"password": PASSWORD}).json()["auth"]
        someone = Someone(self, name, answer["entity_id"], answer["client_token"])
        someone.call("POST", f"transit/keys/je-sign-{someone.id}", {"type": "ed25519"})
        return someone

    def newcomer(self, name: str, *groups: str) -> Someone:
        """A person of a test's own."""
        user = {"password_hash": PASSWORD_HASH, "token_policies": ["je-person"], "token_no_default_policy": True}
        self.admin("POST", f"auth/people/users/{name}", user)
        someone = self.sign_in(name)
        for group in groups:
            self.join(someone, group)
        return someone

    def join(self, someone: Someone, group: str) -> None:
        self._members(group, lambda members: [*members, someone.id])

    def leave(self, someone: Someone, group: str) -> None:
        self._members(group, lambda members: [member for member in members if member != someone.id])

    def _members(self, group: str, change: Any) -> None:
        path = f"identity/group/name/{group}"
        members = self.admin("GET", path)["data"]["member_entity_ids"] or []
        self.admin("POST", path, {"member_entity_ids": change(members)})

    def _call(self, method: str, path: str, body: Any = None, *, token: str = "") -> httpx.Response:
        headers = {"X-Vault-Token": token} if token else {}
        return shared_client().request(method, f"{self.settings.vault_addr}/v1/{path}", json=body, headers=headers)


@dataclass(frozen=True)
class Someone:
    """A person who is logged in and can sign."""

    shop: Shop
    name: str
    id: str
    token: str = field(repr=False)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.shop._call(method, path, body, token=self.token)
        assert answer.is_success, (path, answer.text)
        return answer.json() if answer.content else {}

    def sign(self, statement: Mapping[str, Any]) -> SignedStatement:
        message = base64.b64encode(to_canonical_json(dict(statement))).decode()
        made = self.call("POST", f"transit/sign/je-sign-{self.id}", {"input": message})
        return SignedStatement(statement=dict(statement), signature=made["data"]["signature"])

    def order(self, job: str, changes: Mapping[str, Any] | None = None, *, now: datetime, spec: dict[str, Any] = SPEC) -> JobInput:
        """An order that this person signed, with `changes` to its statement."""
        statement = OrderStatement(
            job=job,
            spec_digest=digest_of(spec),
            bundle=None,
            params={"ticket": "4712"},
            reason="a test",
            person=self.id,
            issued_at=now,
            expires_at=now + timedelta(hours=1),
        )
        return JobInput.of(job, spec, {"ticket": "4712"}, None, self.sign({**to_signable(statement), **(changes or {})}))


@dataclass(frozen=True)
class Desk:
    """One test's worker: its own store, clock and memory on the shop's servers."""

    shop: Shop
    deps: Deps
    clock: Clock

    def job(self) -> str:
        """A job that was submitted and claimed by a session, with an order read as its one request."""
        job, now = new_job_id(self.deps.settings.installation, now=self.clock.now()), self.clock.now()
        assert claim_job(self.deps.store, job, run="a-run", owner="a-session", now=now)
        self.deps.store.ledger.append(
            [submission(job, now), *(access_request(job, number, *what, now) for number, what in enumerate(REQUESTS, start=1))]
        )
        return job

    def issue(self, job: str, number: int = 1, *, record: bool = True) -> Held:
        """Issue as a session does: prefix, token, credential, record, a look into its target. Without `record`, as one that dies meanwhile."""
        resource, action_name = REQUESTS[number - 1]
        action, deps, now = Action(action_name), self.deps, self.clock.now()
        definition = deps.config.current().catalog.resources[resource].actions[action]
        deps.vault.open_prefix(job, 600)
        token = deps.vault.create_token(job, policy=definition.policy, alias=scope_alias(definition, ACME), ttl=300)
        controls = known_controls(deps, definition, ACME)
        issued = deps.vault.issue(token, resolve_issue(definition, ACME))
        credential = CredentialHandle(
            id=credential_id(job, number),
            request_id=request_id(job, number),
            resource=resource,
            action=action,
            lease_id=issued.lease_id,
            accessor=token.accessor,
            issued_at=now,
            expires_at=now + timedelta(seconds=300),
            revocable=definition.revocable,
            user=issued.fields["username"].reveal() if definition.target else None,
            search_digest=controls.search_digest,
        )
        if record:
            deps.store.ledger.append([issued_event(job, credential)])
        if record and definition.target:
            credential = with_observed_user(deps, job, credential, definition, controls)
        return Held(credential, token, issued)

    def entry_types(self, job: str) -> list[str]:
        """The job's ledger, by type, without what the test put there."""
        own = {EventType.JOB_SUBMITTED, EventType.ACCESS_REQUESTED, EventType.CREDENTIAL_ISSUED, EventType.CREDENTIAL_FOUND}
        return [entry.type for entry in self.deps.store.ledger.entries(job=job).items if entry.type not in own]


REQUESTS = (("orders-db", "read"), ("refunds-db", "write"), ("helpdesk-api", "read"), ("scratch", "write"))


@cache
def empty_store() -> Path:
    """Return a store's file as migration leaves it, made once for all who copy it."""
    file = Path(tempfile.mkdtemp(prefix="je-store-")) / "store.db"
    atexit.register(shutil.rmtree, file.parent, ignore_errors=True)
    store = Store(f"sqlite:///{file}")
    store.migrate()
    store.close()
    return file


@cache
def shop_config(folder: Path, port: int) -> ConfigFolder:
    """Return the shop's own configuration, which nobody edits, read once for all."""
    return read_config(folder, port)


def read_config(folder: Path, port: int) -> ConfigFolder:
    """Return a configuration folder as a worker reads it."""
    return ConfigFolder(folder, {"SHOP_HOST": "127.0.0.1", "SHOP_PORT": str(port), "MODEL_URL": "http://127.0.0.1:65535/v1"})


def copy_config(tmp_path: Path) -> Path:
    """Return a copy of the shop's configuration, for a test that edits it."""
    return shutil.copytree(EXAMPLE, tmp_path / "config", ignore=shutil.ignore_patterns("__pycache__", "data"))


@contextmanager
def open_desk(shop: Shop, tmp_path: Path, *, folder: Path | None = None) -> Iterator[Desk]:
    """A worker's desk for the length of a block; `folder`: another configuration than the shop's own."""
    shutil.copyfile(empty_store(), tmp_path / "store.db")
    store, clock, vault = Store(f"sqlite:///{tmp_path / 'store.db'}"), Clock(), shop.worker_vault()
    config = read_config(folder, shop.door.port) if folder else shop_config(shop.settings.config, shop.door.port)
    targets = TargetInspector(vault, lambda: config.current().catalog, installation=shop.settings.installation)
    deps = Deps(settings=shop.settings, store=store, vault=vault, config=config, targets=targets, now=clock.now, ticks=clock.ticks)
    try:
        yield Desk(shop, deps, clock)
    finally:
        targets.close()
        vault.close()
        store.close()


def submission(job: str, now: datetime) -> Any:
    return build_event(
        EventType.JOB_SUBMITTED,
        job,
        at=now,
        spec=SPEC,
        name="refund-triage",
        task="t",
        environment="prod",
        agent=None,
        data_scope=ACME,
        labels={},
        params={},
        bundle=None,
        reason="",
        requester="someone",
        requester_name="someone",
        parent=None,
        beyond="ask",
        order={"statement": {}, "signature": ""},
    )


def access_request(job: str, number: int, resource: str, action: str, now: datetime) -> Any:
    request = request_id(job, number)
    return build_event(
        EventType.ACCESS_REQUESTED,
        job,
        at=now,
        about=request,
        request=request,
        number=number,
        resource=resource,
        action=action,
        ttl=300,
        reason="r",
        reason_by="order",
        signed_reason="r",
        optional=False,
        title=resource,
        sensitivity="internal",
        revocable="never" if resource == "helpdesk-api" else "now",
    )


def issue_decision(job: str, number: int, now: datetime) -> Any:
    """What a session records right before it asks Vault."""
    request = request_id(job, number)
    allowed = {
        "outcome": "allowed",
        "tier": 0,
        "policies": ["a-test"],
        "policy_digest": "",
        "digest": "",
        "errors": [],
        "facts": {"action": REQUESTS[number - 1][1]},
    }
    return build_event(EventType.ACCESS_DECIDED, job, at=now, about=f"{request}/issue", request=request, phase="issue", **allowed)


def secret_values(held: Held) -> list[str]:
    """Everything of a credential that may stand nowhere."""
    return [held.token.secret.reveal(), *(value.reveal() for name, value in held.issued.fields.items() if name != "username")]


def admin_vault(shop: Shop) -> Vault:
    vault = Vault(shop.settings.vault_addr)
    vault.login_token(Secret(shop.admin_token))
    return vault
