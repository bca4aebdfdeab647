"""Helpers of the provisioning tests: a plain Vault client per token, and the servers on which the shop is set up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psycopg
from typer.testing import CliRunner, Result

from console.cli.root_group import build_program
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import read_json
from justenough.domain.core.ids import new_job_id
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import job_role
from tests.support.http_client import shared_client
from tests.support.wait import until
from worker.provisioning.admin_client import AppliedWrite, WriteOutcome
from worker.provisioning.plan import PlannedWrite
from worker.provisioning.setup import PersonSeed, VaultTarget, plan_vault, provision_vault

NUMBERS = count(1)
CHANGES = {WriteOutcome.CREATED, WriteOutcome.CHANGED}
REPOSITORY = Path(__file__).resolve().parents[3]
SHOP = REPOSITORY / "examples" / "shop"
PEOPLE = {
    name: PersonSeed(Secret(f"{name}-password"), (group,))
    for name, group in {"lead": "support-leads", "ops": "ops", "security": "security"}.items()
}
NOBODY: dict[str, PersonSeed] = {}


@dataclass(frozen=True)
class Session:
    """Vault as one token sees it. Calls return status codes instead of errors, so that tests can check what is refused."""

    address: str
    token: str = ""

    def call(self, method: str, path: str, body: object = None) -> httpx.Response:
        headers = {"X-Vault-Token": self.token} if self.token else {}
        return shared_client().request(method, f"{self.address}/v1/{path}", json=body, headers=headers)

    def read(self, path: str) -> httpx.Response:
        return self.call("GET", path)

    def list(self, path: str) -> httpx.Response:
        return self.call("LIST", path)

    def write(self, path: str, **body: object) -> httpx.Response:
        return self.call("POST", path, body)

    def delete(self, path: str) -> httpx.Response:
        return self.call("DELETE", path)

    def read_data(self, path: str) -> dict[str, object]:
        """Return the data at a path. Fails if there is none."""
        response = self.read(path)
        assert response.status_code == 200, (path, response.text)
        data: dict[str, object] = response.json()["data"]
        return data


@dataclass(frozen=True)
class Shop:
    """The servers, and the setup of Vault on them."""

    settings: Settings
    admin: Session
    environment: dict[str, str]
    superuser: str

    def setup(self, *, people: dict[str, PersonSeed] | None = NOBODY, **settings: object) -> tuple[AppliedWrite, ...]:
        """Set Vault up and return the outcomes. Leave out PEOPLE unless the test is about them: each setup logs all of them in."""
        changed = self.settings.model_copy(update=settings)
        return provision_vault(VaultTarget(changed, admin_token=Secret(self.admin.token), people=people, environment=self.environment))

    def approle(self, file: Path) -> Session:
        """Log in like the worker or the console."""
        login = Session(self.admin.address).write("auth/approle/login", **read_json(file))
        assert login.status_code == 200, login.text
        return Session(self.admin.address, login.json()["auth"]["client_token"])

    def database(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.superuser, autocommit=True)


class Emptied:
    """A namespace of its own in the tests' Vault."""

    def __init__(self, shop: Shop, home: Path) -> None:
        self._shop = shop
        # Vault deletes a namespace slowly, and its name is in use until then.
        self.namespace = f"planned-{next(NUMBERS)}"
        self.environment = dict(shop.environment)
        """What fills `${X}` of the catalog."""
        own: dict[str, Any] = {"vault_namespace": self.namespace, "home": home, "worker_approle": None, "console_approle": None}
        self.settings = Settings.model_validate({**shop.settings.model_dump(), **own})

    def create(self) -> None:
        self._shop.admin.write(f"sys/namespaces/{self.namespace}")

    def delete(self) -> None:
        """Delete the namespace after its last lease: OpenBao 2.7.2 ends in a panic if one is being revoked while its namespace disappears."""
        for mount in self.lists("sys/leases/lookup"):
            # Revoke by force, because some tests leave users that Vault cannot drop.
            self.write(f"sys/leases/revoke-force/{mount.rstrip('/')}")
        until(lambda: not self.lists("sys/leases/lookup"), f"the leases of {self.namespace} are gone")
        self._shop.admin.delete(f"sys/namespaces/{self.namespace}")

    def _run(self, run: Callable[..., Any], **environment: str) -> Any:
        token, env = Secret(self._shop.admin.token), {**self.environment, **environment}
        return run(VaultTarget(self.settings, admin_token=token, environment=env))

    def plan(self, **environment: str) -> tuple[PlannedWrite, ...]:
        planned: tuple[PlannedWrite, ...] = self._run(plan_vault, **environment)
        return planned

    def apply(self, **environment: str) -> tuple[AppliedWrite, ...]:
        applied: tuple[AppliedWrite, ...] = self._run(provision_vault, **environment)
        return applied

    def changes(self) -> dict[str, tuple[str, ...]]:
        """Return by path the lines of the data that would be written now."""
        return {step.path: step.lines for step in self.plan() if step.outcome in CHANGES}

    def write(self, path: str, **data: Any) -> None:
        self._shop.admin.write(f"{self.namespace}/{path}", **data)

    def read(self, path: str) -> dict[str, Any]:
        return self._shop.admin.read_data(f"{self.namespace}/{path}")

    def lists(self, path: str) -> list[str]:
        """Return the names below a path; none if there is nothing."""
        response = self._shop.admin.list(f"{self.namespace}/{path}")
        return response.json()["data"]["keys"] if response.status_code == 200 else []

    def call(self, path: str, **data: Any) -> httpx.Response:
        """Write without a token."""
        return Session(self._shop.admin.address).write(f"{self.namespace}/{path}", **data)

    def command(self, *words: str, **env: str | None) -> Result:
        """Run `justenough …` as an administrator of this namespace, here in this process: starting another takes longer than the command."""
        gone = {name: None for name in os.environ if name.startswith(("JUSTENOUGH_", "VAULT_"))}
        named = {"VAULT_ADDR": self.settings.vault_addr, "VAULT_NAMESPACE": self.namespace, "VAULT_TOKEN": self._shop.admin.token}
        ours = {"JUSTENOUGH_HOME": str(self.settings.home), "JUSTENOUGH_CONFIG": str(self.settings.config)}
        kept = {name: value for name, value in self._shop.environment.items() if name not in gone}
        environment = {**gone, **kept, "MODEL_URL": "http://127.0.0.1:8080/v1", **named, **ours, **env}
        return CliRunner().invoke(build_program(), words, env=environment, prog_name="justenough")

    def policies(self) -> list[str]:
        names: list[str] = self._shop.admin.list(f"{self.namespace}/sys/policies/acl").json()["data"]["keys"]
        return names


def config_with(folder: Path, old: str, new: str) -> Path:
    """Write the shop's configuration with one text replaced; return its folder."""
    text = (SHOP / "catalog.yaml").read_text()
    assert old in text
    (folder / "catalog.yaml").write_text(text.replace(old, new, 1))
    shutil.copy(SHOP / "approvals.yaml", folder)
    return folder


def new_job(installation: str = "dev") -> str:
    """Return a job id that no other test uses."""
    return new_job_id(installation, now=datetime.now(UTC))


def job_role_body(**other: object) -> dict[str, object]:
    """Return the role that a worker writes for a job, with some fields replaced; None removes a field."""
    body: dict[str, object] = {
        "allowed_policies_glob": ["je-grant-*"],
        "allowed_entity_aliases": ["je-scope-*"],
        "orphan": True,
        "token_no_default_policy": True,
        "token_type": "service",
        "token_explicit_max_ttl": "30m",
    }
    return {key: value for key, value in {**body, **other}.items() if value is not None}


def open_prefix(worker: Session, job: str) -> str:
    """Open a job's prefix like the worker; return the path that creates its tokens."""
    response = worker.write(f"auth/token/roles/{job_role(job)}", **job_role_body())
    assert response.status_code == 204, response.text
    return f"auth/token/create/{job_role(job)}"


def job_token(worker: Session, job: str, policy: str, *, tenant: str | None = "acme") -> Session:
    """Create a token for one grant of a job, like the worker."""
    alias = {"entity_alias": f"je-scope-tenant-{tenant}"} if tenant else {}
    response = worker.write(open_prefix(worker, job), policies=[policy], ttl="5m", display_name=job, renewable=False, **alias)
    assert response.status_code == 200, response.text
    return Session(worker.address, response.json()["auth"]["client_token"])
