"""`doctor --production` on a running installation: it reports that all is well, and each fault that the test causes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from console.cli.root_group import build_program
from justenough.adapters.configuration.scaffold import END_USERS_SQL_FILE
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.targets.postgres_hazards import ALWAYS
from justenough.domain.core.secret import Secret
from tests.support.canned_server import serve_canned_answers
from tests.support.tls_vault import serve_tls_vault
from worker.provisioning.admin_client import AdminClient, VaultNotReady
from worker.stack.doctor.servers import clock_findings
from worker.stack.doctor.vault import vault_findings
from worker.stack.paths import StackPaths
from worker.stack.plan import EMBEDDED_WORKER_CIDRS
from worker.stack.postgres import superuser_dsn
from worker.stack.seed import shop_environment
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers


@pytest.fixture
def environment(whole: Stack) -> dict[str, str | None]:
    """The variables of the stack's worker, as if its servers were somebody's own, and an administrator's token."""
    places = StackPaths(whole.home)
    gone: dict[str, str | None] = {name: None for name in os.environ if name.startswith(("JUSTENOUGH_", "VAULT_", "TEMPORAL_"))}
    return {
        **gone,
        **shop_environment(places),
        "JUSTENOUGH_CONFIG": str(whole.config),
        "JUSTENOUGH_TEMPORAL_ADDRESS": str(whole.temporal),
        "JUSTENOUGH_DATABASE_URL": whole.database_url,
        "JUSTENOUGH_CONSOLE_URL": str(whole.console),
        "JUSTENOUGH_WORKER_APPROLE": str(whole.home / "worker.approle.json"),
        "JUSTENOUGH_CONSOLE_APPROLE": str(whole.home / "console.approle.json"),
        "JUSTENOUGH_WORKER_CIDRS": ",".join(EMBEDDED_WORKER_CIDRS),
        "VAULT_ADDR": str(whole.vault),
        "VAULT_TOKEN": places.admin_token.read_text().strip(),
    }


def examine(environment: Mapping[str, str | None], **changed: str | None) -> Result:
    words = ("doctor", "--production", "-o", "json")
    return CliRunner().invoke(build_program(), words, env={**environment, **changed}, prog_name="justenough")


def levels(done: Result) -> dict[str, set[str]]:
    """Return the levels of what was found, by what was checked."""
    found: dict[str, set[str]] = {}
    for finding in json.loads(done.stdout)["findings"]:
        found.setdefault(finding["what"], set()).add(finding["level"])
    return found


def failures(done: Result) -> dict[str, str]:
    findings: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    assert all(finding["remedy"] for finding in findings if finding["level"] != "ok")
    return {finding["what"]: finding["found"] for finding in findings if finding["level"] == "missing"}


def test_a_good_installation_passes_and_its_target_is_tried(environment: dict[str, str | None]) -> None:
    done = examine(environment)

    assert failures(done) == {}
    assert done.exit_code == 0
    found = levels(done)
    for what in ("temporal server", "workers", "vault seal", "clock", "vault objects", "worker login", "console login", "store", "console"):
        assert "ok" in found[what], what
    assert found["access orders-db:read"] == {"ok"}
    texts = {finding["what"]: finding["found"] for finding in json.loads(done.stdout)["findings"]}
    (hazards,) = (text for what, text in texts.items() if what.startswith("hazards "))
    assert hazards == f"none but one: {ALWAYS}"


def test_a_hazard_in_a_target_is_a_warning_and_old_sql_a_failure(environment: dict[str, str | None], whole: Stack) -> None:
    superuser = superuser_dsn(StackPaths(whole.home), int(environment["SHOP_PORT"] or 0))
    with psycopg.connect(superuser, autocommit=True) as database:
        database.execute("ALTER DATABASE shop RESET temp_file_limit")
        try:
            warned = examine(environment)
            database.execute("DROP FUNCTION public.je_sql_version()")
            failed = examine(environment)
        finally:
            database.execute(END_USERS_SQL_FILE.read_bytes())
            database.execute("ALTER DATABASE shop SET temp_file_limit = '1GB'")
    (finding,) = (one for one in json.loads(warned.stdout)["findings"] if one["what"].startswith("hazards "))
    assert (finding["level"], warned.exit_code) == ("warning", 0)
    assert finding["found"] == f"there is no temp_file_limit: a job could fill the disk; {ALWAYS}"
    assert finding["remedy"] == "Run ALTER DATABASE \"shop\" SET temp_file_limit = '1GB' as a superuser."
    (found,) = (text for what, text in failures(failed).items() if what.startswith("hazards "))
    assert found.startswith("there is no je_sql_version(), so its SQL is older than version")
    assert failed.exit_code == 1


def test_servers_that_do_not_answer_are_each_named_within_ten_seconds_each(environment: dict[str, str | None]) -> None:
    nowhere = {
        "JUSTENOUGH_TEMPORAL_ADDRESS": "127.0.0.1:9",
        "JUSTENOUGH_DATABASE_URL": "postgresql://je@127.0.0.1:9/je",
        "JUSTENOUGH_CONSOLE_URL": "http://127.0.0.1:9",
        "VAULT_ADDR": "http://127.0.0.1:9",
    }
    done = examine(environment, **nowhere)

    found = failures(done)
    assert done.exit_code == 1
    assert {"temporal server", "vault", "vault objects", "worker login", "console login", "store", "console"} <= set(found)
    assert "Traceback" not in done.stdout + done.stderr


def test_a_temporal_without_workers_a_changed_object_and_a_wrong_login_are_found(
    environment: dict[str, str | None], tmp_path: Path
) -> None:
    wrong = tmp_path / "worker.approle.json"
    wrong.write_text('{"role_id": "wrong", "secret_id": "wrong"}')
    done = examine(environment, JUSTENOUGH_INSTALLATION="other", JUSTENOUGH_WORKER_APPROLE=str(wrong))

    found = failures(done)
    assert done.exit_code == 1
    assert found["workers"].startswith("no worker polls justenough-other")
    assert "vault objects" in found
    assert str(wrong) in found["worker login"]
    assert "access orders-db:read" in found


def test_doctor_needs_only_the_login_of_its_own_machine(environment: dict[str, str | None], tmp_path: Path) -> None:
    nothing = str(tmp_path / "nothing.json")
    workers, consoles = examine(environment, JUSTENOUGH_CONSOLE_APPROLE=nothing), examine(environment, JUSTENOUGH_WORKER_APPROLE=nothing)

    assert (failures(workers), failures(consoles)) == ({}, {})
    assert levels(workers)["access orders-db:read"] == {"ok"}
    found = {finding["what"]: finding["found"] for finding in json.loads(consoles.stdout)["findings"]}
    assert found["access"] == f"not tried: there is no worker's login here ({nothing})"


def test_missing_settings_are_reported_as_warnings(environment: dict[str, str | None]) -> None:
    done = examine(environment, VAULT_TOKEN=None, JUSTENOUGH_CONSOLE_URL=None, JUSTENOUGH_PAYLOAD_ENCRYPTION="off")

    found = json.loads(done.stdout)["findings"]
    warned = {finding["found"] for finding in found if finding["level"] == "warning"}
    assert "what workers and consoles write into Temporal is not encrypted" in warned
    assert "not compared with what this version needs" in warned
    assert any(text.startswith("JUSTENOUGH_CONSOLE_URL is not set") for text in warned)


def test_a_store_that_is_not_there_is_reported_and_not_created(environment: dict[str, str | None], tmp_path: Path) -> None:
    file = tmp_path / "home" / "justenough.db"
    done = examine(environment, JUSTENOUGH_DATABASE_URL=None, JUSTENOUGH_HOME=str(file.parent))

    assert failures(done)["store"] == f"{file} does not exist"
    assert not file.parent.exists()


@pytest.mark.parametrize("seconds", [-3600, 0, 3600])
def test_a_clock_that_differs_from_vaults_is_found(seconds: int) -> None:
    with serve_canned_answers() as vault:
        (finding,) = clock_findings(Settings(vault_addr=vault.address), now=lambda: time.time() + seconds)

    assert finding.level == ("ok" if seconds == 0 else "missing")


def test_a_vault_that_speaks_tls_while_we_do_not_ends_no_examination(tmp_path: Path) -> None:
    with serve_tls_vault(tmp_path) as vault:
        plain = vault.address.replace("https:", "http:")
        assert list(clock_findings(Settings(vault_addr=plain), now=time.time)) == []
        (found,) = vault_findings(plain, token=Secret("s.token"))
        with pytest.raises(VaultNotReady, match=r"speaks TLS: write VAULT_ADDR with https://"), AdminClient(plain, Secret("s.token")):
            pass
        told = CliRunner().invoke(
            build_program(), ["whoami"], env={"VAULT_ADDR": plain, "VAULT_TOKEN": "s.token", "JUSTENOUGH_CONSOLE_URL": plain}
        )
    assert (found.what, found.level, found.found) == ("vault", "missing", f"{plain} speaks TLS")
    assert told.stderr == f"error: Vault at {plain} speaks TLS\nWrite its address with https://\n"


def test_a_console_logs_where_it_listens(whole: Stack) -> None:
    lines = StackPaths(whole.home).log("console").read_text().splitlines()
    ready = [json.loads(line) for line in lines if '"console ready"' in line]
    assert ready
    assert f"http://{ready[-1]['host']}:{ready[-1]['port']}" == whole.console
