"""A real Temporal, OpenBao and store, a console in uvicorn with a clock that tests control, and browsers without JavaScript."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from temporalio.client import Client

from console.auth.login_throttle import LoginThrottle
from console.auth.page_sessions import PageSessions
from console.auth.vault_directory import ConsoleVault
from console.services.console import Console, build_console
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.secret import Secret
from tests.console.pages.oidc_provider import MOUNT, Provider
from tests.console.pages.plain_browser import Browser, Clock, Site
from tests.console.pages.provider_site import Front, serve_front
from tests.console.served_console import Human, Served, serve_console
from tests.console.served_console import log_in as human
from tests.support import temporal_client
from tests.support.cheap_passwords import PASSWORDS, create_users
from tests.support.plain_http import NO_TLS
from tests.support.shop_config import copy_shop
from worker.provisioning.setup import PersonSeed, VaultTarget, provision_vault
from worker.stack.control import running_stack
from worker.stack.paths import StackPaths
from worker.stack.seed import shop_environment
from worker.stack.stack_file import Stack

NAMES = {
    "ops": ("ops",),
    "lead": ("support-leads",),
    "chief": ("chiefs",),
    "gone": ("ops",),
    "mallory": ("ops",),
    "guessed": (),
    "outsider": (),
    "auditor": ("auditors",),
    "security": ("security",),
    "chief2": ("chiefs",),
    "oncall": ("break-glass",),
}

LogIn = Callable[..., Awaitable[Browser]]


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    """The servers. `settings` sets Vault up."""
    only = ("temporal", "vault", "postgres")
    with (
        tempfile.TemporaryDirectory(prefix="je-pages-") as folder,
        running_stack(Path(folder) / "home", copy_shop(Path(folder) / "shop"), only=only, provision=False) as running,
    ):
        yield running


@pytest.fixture(scope="package")
def passwords() -> dict[str, str]:
    """Everyone's password."""
    return {name: PASSWORDS[name] for name in NAMES}


@pytest.fixture(scope="package")
def settings(stack: Stack, passwords: dict[str, str]) -> Settings:
    """A console's settings. Its Vault has everyone's logins."""
    assert stack.vault
    assert stack.temporal
    settings = Settings(
        home=stack.home,
        config=stack.config,
        vault_addr=stack.vault,
        temporal_address=stack.temporal,
        installation="dev",
        # Each test logs in anew.
        quota_page_sessions=10_000,
    )
    token = stack.admin_token_file.read_text().strip()
    headers = {"X-Vault-Token": token}
    with httpx.Client(base_url=f"{stack.vault}/v1/", headers=headers, timeout=15, trust_env=False, verify=NO_TLS) as vault:
        create_users(vault, (*settings.people_mounts, settings.pages_mount), NAMES)
    places = StackPaths(stack.home)
    provision_vault(
        VaultTarget(
            settings,
            admin_token=Secret(token),
            people={name: PersonSeed(password=Secret(passwords[name]), groups=groups) for name, groups in NAMES.items()},
            environment={**os.environ, **shop_environment(places)},
        )
    )
    return settings


@pytest.fixture(scope="package")
async def admin(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of Vault with the administrator's token."""
    token = stack.admin_token_file.read_text().strip()
    async with httpx.AsyncClient(
        base_url=f"{stack.vault}/v1/", headers={"X-Vault-Token": token}, timeout=60, trust_env=False, verify=NO_TLS
    ) as client:
        yield client


@pytest.fixture(scope="package")
async def console(settings: Settings) -> AsyncIterator[Console]:
    """The parts of a console. Each test has its own sessions and login attempts."""
    async with build_console(settings) as made:
        yield made


@pytest.fixture
async def site(console: Console, passwords: dict[str, str]) -> AsyncIterator[Site]:
    """A console for this test alone, with its own clock."""
    async with serve_parts(console, passwords) as made:
        yield made


@asynccontextmanager
async def serve_site(settings: Settings, passwords: dict[str, str]) -> AsyncIterator[Site]:
    """Yield a console with these settings."""
    async with build_console(settings) as made, serve_parts(made, passwords) as site:
        yield site


@asynccontextmanager
async def serve_parts(parts: Console, passwords: dict[str, str]) -> AsyncIterator[Site]:
    """Serve these parts with a clock."""
    clock, deps = Clock(), parts.deps
    assert isinstance(deps.vault, ConsoleVault)
    sessions = PageSessions(replace(deps, now=clock), deps.vault, parts.token_verifier, parts.quotas)
    console = replace(parts, sessions=sessions, login_throttle=LoginThrottle())
    async with serve_console(console) as http:
        yield Site(console, clock, str(http.base_url), passwords)


@pytest.fixture
async def browser(site: Site) -> AsyncIterator[Callable[[], Browser]]:
    """Creates browsers that share no cookies."""
    async with AsyncExitStack() as opened:
        yield lambda: Browser.create(site, opened)


@pytest.fixture
def logged_in(site: Site, browser: Callable[[], Browser]) -> LogIn:
    """Creates browsers with a logged-in person."""

    async def log_in(name: str = "lead") -> Browser:
        made = browser()
        answer = await made.log_in(name, site.passwords[name])
        assert answer.status_code == 303, answer.text
        return made

    return log_in


@pytest.fixture(scope="package")
async def front(settings: Settings) -> AsyncIterator[Front]:
    """The identity provider's page for people."""
    async with serve_front(settings.vault_addr) as served_there:
        yield served_there


@pytest.fixture(scope="package")
async def oidc_site(
    settings: Settings, passwords: dict[str, str], admin: httpx.AsyncClient, front: Front
) -> AsyncIterator[tuple[Site, Provider]]:
    """A console with SSO through OpenBao's own identity provider."""
    changed = settings.model_copy(update={"pages_oidc_mount": MOUNT, "pages_oidc_role": "pages", "pages_oidc_fresh_role": "pages-fresh"})
    async with serve_site(changed, passwords) as made:
        yield made, await Provider.provision(admin, [f"{made.address}/login/oidc/callback"], passwords, front=front.address)


@pytest.fixture(scope="package")
def people(stack: Stack, settings: Settings, passwords: dict[str, str]) -> dict[str, Human]:
    """API clients of people who launch jobs and decide requests."""
    return {name: human(stack, name, passwords[name]) for name in ("ops", "lead", "security", "chief", "chief2", "oncall", "auditor")}


@pytest.fixture(scope="package")
async def temporal(stack: Stack) -> Client:
    """A client of Temporal that reads what consoles encrypted."""
    return await temporal_client.connect(stack)


@pytest.fixture
async def served(site: Site, stack: Stack, people: dict[str, Human], temporal: Client) -> AsyncIterator[Served]:
    """The same console's API and its services."""
    async with httpx.AsyncClient(base_url=site.address, timeout=60, trust_env=False, verify=NO_TLS) as http:
        yield Served(http=http, console=site.console, temporal=temporal, stack=stack, people=people)
