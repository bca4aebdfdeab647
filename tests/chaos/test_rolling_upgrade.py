"""The last release's worker beside this version's, on one store, as docs/how-to/upgrade.md describes it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import read_json
from justenough.adapters.store import Store
from justenough.adapters.store.migrate import Revisions
from justenough.domain.core.secret import Secret
from tests.chaos.job_latch import hold_jobs
from tests.chaos.test_graceful_stop import free_port, is_ready
from tests.support.people import Human, log_in
from tests.support.shop import Shop, Witness, spec
from tests.support.shop_config import copy_shop
from tests.support.wait import until
from worker.provisioning.setup import VaultTarget, provision_vault
from worker.stack.control import running_stack
from worker.stack.environment import own_environment
from worker.stack.paths import StackPaths
from worker.stack.postgres import superuser_dsn
from worker.stack.seed import shop_environment
from worker.stack.stack_file import Stack

# It needs the repository's history and a stack of its own: `make chaos LONG=1` runs it.
pytestmark = [pytest.mark.servers, pytest.mark.long]
ROOT = Path(__file__).resolve().parents[2]
RELEASE = "3e9b1bcc6222"
"""The main branch of 2026-11-26, with the changes of that section of CHANGELOG.md."""
PASSWORD = "runtime-password"


@dataclass(eq=False)
class Process:
    """A worker or console that nobody restarts, and its output."""

    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> int:
        """Ask it to end, like an orderly restart; return its exit code."""
        self.process.terminate()
        return self.process.wait(180)


@dataclass(eq=False)
class Upgrade:
    """An installation in the middle of its upgrade: the last release's worker runs, the store is migrated, this version's console runs."""

    stack: Stack
    old_worker: Process
    old_environment: Mapping[str, str]
    new_environment: Mapping[str, str]
    revisions: Revisions


@contextmanager
def run(module: str, environment: Mapping[str, str], log: Path) -> Iterator[Process]:
    """Run a worker or console for a block."""
    with log.open("wb") as output:
        command = ["setpriv", "--pdeathsig=KILL", sys.executable, "-P", "-m", module]
        with subprocess.Popen(command, env=dict(environment), cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output) as process:
            try:
                yield Process(process, log)
            finally:
                process.kill()


@contextmanager
def run_worker(environment: Mapping[str, str], log: Path) -> Iterator[Process]:
    """Run a worker for a block, from when it polls."""
    with run("worker", environment, log) as worker:
        until(lambda: b"worker ready" in log.read_bytes() or worker.process.poll() is not None, "a worker is ready")
        assert worker.process.poll() is None, log.read_text()
        yield worker


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last release's code, and in `packages` what it imports."""
    folder = tmp_path_factory.mktemp("release")
    archive = subprocess.run(["git", "archive", RELEASE], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    uv = str(Path(sys.executable).with_name("uv"))
    lock = ("--require-hashes", "--no-deps", "--requirements", str(folder / "requirements.lock"))
    subprocess.run([uv, "pip", "install", "--quiet", "--target", str(folder / "packages"), *lock], check=True)
    return folder


@pytest.fixture(scope="module")
def upgrade(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgrade]:
    home = tmp_path_factory.mktemp("upgrade") / "home"
    config = copy_shop(home.with_name("shop"))
    places, port = StackPaths(home), free_port()
    with ExitStack() as stack:
        servers = stack.enter_context(running_stack(home, config, only=("temporal", "vault", "postgres")))
        assert servers.vault
        assert servers.temporal
        database = int(read_json(places.ports)["postgres"])
        owner = superuser_dsn(places, database)
        with psycopg.connect(owner, autocommit=True) as admin:
            admin.execute("CREATE DATABASE upgraded")
            admin.execute(f"CREATE ROLE je_store LOGIN PASSWORD '{PASSWORD}'".encode())
        owner = superuser_dsn(places, database, database="upgraded")
        url = f"http://127.0.0.1:{port}"
        common = Settings(
            home=home,
            config=config,
            temporal_address=servers.temporal,
            vault_addr=servers.vault,
            console_url=url,
            console_port=port,
            database_url=owner,
            drain=2,
        )
        # First what Vault needs, from this version. The last release's workers use it as well.
        provision_vault(
            VaultTarget(
                common,
                admin_token=Secret(places.admin_token.read_text(encoding="utf-8").strip()),
                environment={**os.environ, **shop_environment(places)},
            )
        )
        # This version's shop uses keys that the last release does not know.
        old_shop = copy_shop(home.with_name("old-shop"), example=release / "examples" / "shop")
        old = common.model_copy(update={"config": old_shop})
        old_environment = {**own_environment(old, {"postgres": database}), "PYTHONPATH": f"{release}:{release / 'packages'}"}
        old_worker = stack.enter_context(run_worker(old_environment, home / "logs" / "old-worker.log"))
        with closing(Store(owner)) as store:
            revisions = store.migrate(grant="je_store")
        runtime = f"postgresql://je_store:{PASSWORD}@127.0.0.1:{database}/upgraded"
        # The last release cannot read what is encrypted.
        ours = common.model_copy(update={"database_url": runtime, "payload_encryption": "off"})
        new_environment = own_environment(ours, {"postgres": database})
        console = stack.enter_context(run("console", new_environment, home / "logs" / "new-console.log"))
        until(lambda: is_ready(f"{url}/readyz") or console.process.poll() is not None, "the console is ready, with the old worker")
        assert console.process.poll() is None, console.log.read_text()
        yield Upgrade(servers.model_copy(update={"console": url}), old_worker, old_environment, new_environment, revisions)


@pytest.fixture
def ops(upgrade: Upgrade) -> Iterator[Human]:
    with log_in(upgrade.stack, "ops") as human:
        yield human


def test_jobs_of_an_old_worker_go_on_through_a_rolling_upgrade(upgrade: Upgrade, ops: Human) -> None:
    assert upgrade.revisions.found != upgrade.revisions.newest
    with ExitStack() as stack:
        shop, witness = stack.enter_context(Shop.open(upgrade.stack)), stack.enter_context(closing(Witness()))
        latch = stack.enter_context(hold_jobs())
        # The old worker goes on with the migrated store and the new console's orders.
        first = ops.until(ops.launch(spec("true")))
        assert (first["state"], first["revocation"]["state"]) == ("succeeded", "confirmed"), first["reason"]
        held = ops.launch(spec(f"{witness.hand_over}; {latch.wait}", timeout="10m"))
        stopped = ops.launch(spec(f"{witness.hand_over}; sleep 600", timeout="10m"))
        logins = [witness.login(), witness.login()]
        # One that is started again does not: the store is newer than it.
        log = upgrade.old_worker.log.with_name("older-worker.log")
        with run("worker", upgrade.old_environment, log) as restarted:
            assert restarted.process.wait(180) == 1
            assert f"revision {upgrade.revisions.newest}" in log.read_text()
        # Beside a new worker, the jobs of the old one go on.
        worker = stack.enter_context(run_worker(upgrade.new_environment, log.with_name("new-worker.log")))
        assert all(map(shop.can_log_in, logins))
        latch.open()
        assert ops.until(held)["state"] == "succeeded"
        assert upgrade.old_worker.stop() == 0
        assert ops.until(stopped)["reason"] == "worker_stopped"
        last = ops.launch(spec("true"))
        assert ops.until(last)["state"] == "succeeded"
        for job in (held, stopped, last):
            shop.assert_dead(ops.job(job), *logins)
        assert worker.stop() == 0
