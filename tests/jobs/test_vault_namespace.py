"""Whole jobs where Vault is a namespace of a shared OpenBao behind TLS with a private authority: another installation beside the tests' own."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from anyio.from_thread import start_blocking_portal

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import read_json
from justenough.domain.core.ids import new_job_id
from justenough.domain.core.secret import Secret
from tests.console.pages.plain_browser import hidden_fields
from tests.support.free_ports import hold_ports
from tests.support.people import Human, log_in
from tests.support.plain_http import NO_TLS
from tests.support.shop import Shop, Witness, access, spec
from tests.support.tls_authority import create_authority
from tests.support.tls_front import serve_tls, server_context
from tests.support.wait import until
from worker.provisioning.admin_client import AppliedWrite
from worker.provisioning.setup import PersonSeed, VaultTarget, provision_vault
from worker.stack.doctor.vault import vault_findings
from worker.stack.environment import own_environment
from worker.stack.paths import StackPaths
from worker.stack.seed import shop_environment
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers

NAMESPACE = "team"
PEOPLE = ("ops", "lead", "auditor", "security")


@dataclass(frozen=True)
class Installation:
    """An installation whose Vault is a namespace."""

    stack: Stack
    """The servers at the addresses at which this installation reaches them."""
    settings: Settings
    trust: ssl.SSLContext
    environment: dict[str, str]

    @contextmanager
    def log_in(self, name: str) -> Iterator[Human]:
        """Log a person in to the namespace for a block."""
        with log_in(self.stack, name, namespace=NAMESPACE, verify=self.trust) as human:
            yield human

    def provision(self) -> tuple[AppliedWrite, ...]:
        """Set the namespace up, with a token of the root namespace."""
        places = StackPaths(self.stack.home)
        people = {
            name: PersonSeed(password=Secret(user.password), groups=user.groups)
            for name, user in self.stack.users.items()
            if name in PEOPLE
        }
        return provision_vault(
            VaultTarget(
                self.settings,
                admin_token=Secret(places.admin_token.read_text().strip()),
                people=people,
                environment={**os.environ, **shop_environment(places)},
            )
        )

    def is_ready(self) -> bool:
        """Whether the console says that everything works."""
        try:
            return httpx.get(f"{self.stack.console}/readyz", timeout=10, trust_env=False, verify=NO_TLS).status_code == 200
        except httpx.HTTPError:
            return False


def postgres_port(stack: Stack) -> int:
    return int(read_json(StackPaths(stack.home).ports)["postgres"])


@pytest.fixture(scope="module")
def installation(whole: Stack, whole_shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Set up a namespace, and run a worker and a console that know nothing else of Vault."""
    folder = tmp_path_factory.mktemp("namespace")
    authority, _ = create_authority(folder, "localhost")
    with whole_shop.admin() as vault:
        vault.post(f"sys/namespaces/{NAMESPACE}").raise_for_status()
    with ExitStack() as opened:
        (port,) = opened.enter_context(hold_ports(tmp_path_factory.mktemp("ports"), 1))
        portal = opened.enter_context(start_blocking_portal())
        front = serve_tls(str(whole.vault).removeprefix("http://"), server_context(authority, "localhost"))
        address = opened.enter_context(portal.wrap_async_context_manager(front)).replace("127.0.0.1", "https://localhost")
        settings = Settings(
            home=folder,
            config=whole.config,
            installation=NAMESPACE,
            temporal_address=str(whole.temporal),
            vault_addr=address,
            vault_namespace=NAMESPACE,
            vault_cacert=authority,
            worker_cidrs=("127.0.0.1/32",),
            console_port=port,
            drain=2,
        )
        environment = own_environment(settings, {"postgres": postgres_port(whole)})
        stack = whole.model_copy(update={"vault": address, "console": f"http://127.0.0.1:{port}"})
        made = Installation(stack, settings, ssl.create_default_context(cafile=authority), environment)
        made.provision()
        for server in ("console", "worker"):
            opened.enter_context(run_server(server, environment, folder / f"{server}.log"))
        until(made.is_ready, "the installation is ready")
        yield made


@contextmanager
def run_server(name: str, environment: dict[str, str], log: Path) -> Iterator[None]:
    with (
        log.open("ab") as output,
        subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", sys.executable, "-P", "-m", name],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        yield
        process.terminate()


def test_an_approved_job_runs_and_its_credential_is_revoked(installation: Installation, shop: Shop, witness: Witness) -> None:
    with installation.log_in("ops") as ops, installation.log_in("lead") as lead:
        assert ops.api.get("whoami").json()["groups"] == ["ops"]
        job = ops.launch(spec(witness.hand_over, access(action="write")), job=new_job_id(NAMESPACE, now=datetime.now(UTC)))
        lead.decide(ops.until(job, "awaiting_approval")["requests"][0])
        seen, login = ops.until(job, "succeeded"), witness.login()
        assert seen["revocation"]["state"] == "confirmed"
        shop.assert_dead(seen, login)
        assert ops.api.post(f"jobs/{job}/prove").raise_for_status().json()["dead"]


def log_in_to_pages(pages: httpx.Client, name: str, password: str) -> None:
    """Log a person in with the form, and keep the cookies."""
    form = hidden_fields(pages.get("/login").raise_for_status().text, "/login")
    assert pages.post("/login", data={**form, "name": name, "password": password}).status_code == 303


def test_a_locked_request_is_authorized_and_approved_on_the_pages(installation: Installation, shop: Shop, witness: Witness) -> None:
    same = {"Sec-Fetch-Site": "same-origin"}
    with (
        installation.log_in("ops") as ops,
        httpx.Client(base_url=str(installation.stack.console), headers=same, timeout=60, trust_env=False, verify=NO_TLS) as pages,
    ):
        job = ops.launch(spec(witness.hand_over, access("payouts-db", "write")), job=new_job_id(NAMESPACE, now=datetime.now(UTC)))
        (request,) = ops.until(job, "awaiting_approval")["requests"]
        assert request["lock"]["accessor"], "Vault waits for an authorization"
        log_in_to_pages(pages, "security", installation.stack.users["security"].password)
        form = hidden_fields(pages.get(f"/inbox/{request['id']}").raise_for_status().text, f"/inbox/{request['id']}/answer")
        answer = pages.post(f"/inbox/{request['id']}/answer", data={**form, "decision": "approve", "reason": "the ticket says so"})
        assert answer.status_code == 303, answer.text
        seen, login = ops.until(job, "succeeded"), witness.login()
        assert seen["revocation"]["state"] == "confirmed"
        shop.assert_dead(seen, login)


def test_doctor_finds_vault_unsealed_and_the_pages_login_in_the_namespace(installation: Installation) -> None:
    settings = installation.settings
    found = vault_findings(settings.vault_addr, namespace=NAMESPACE, cacert=settings.vault_cacert, pages_mount=settings.pages_mount)
    assert {"vault seal": "ok", "pages login": "ok"}.items() <= {finding.what: finding.level for finding in found}.items()


def test_setting_a_namespace_up_again_changes_nothing(installation: Installation) -> None:
    assert {write.outcome.value for write in installation.provision()} <= {"unchanged", "kept"}
