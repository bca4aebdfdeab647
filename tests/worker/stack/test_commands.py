"""The commands as a user types them: their output, its stream and the exit code."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from console.cli.root_group import build_program
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import write_private
from tests.support.canned_server import serve_canned_answers
from tests.support.child_process import run_child
from tests.support.tls_authority import create_authority
from tests.worker.stack.conftest import LIFELINE
from worker.stack.control import start_detached, stop_stack
from worker.stack.paths import StackPaths
from worker.stack.pidfile import birth_time, wait_until
from worker.stack.readyz import NoConsole, alarms, fetch_readyz, findings
from worker.stack.stack_file import Stack, read_stack

SHOP = Path(__file__).parents[3] / "examples" / "shop"


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("JUSTENOUGH_", "VAULT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("JUSTENOUGH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build_program(), arguments)


def test_down_without_a_stack_says_so_and_succeeds(tmp_path: Path) -> None:
    done = run("down")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == f"Nothing is running in {tmp_path / 'home'}.\n"


def test_up_replaces_no_login_of_an_installation_with_a_vault_of_its_own(tmp_path: Path) -> None:
    login = tmp_path / "home" / "worker.approle.json"
    login.parent.mkdir()
    login.write_text("{}")
    done = run("up", "--detach")
    assert done.exit_code == 1
    assert f"{login}: belongs to an installation with its own Vault" in done.stderr
    assert login.read_text() == "{}"


def test_status_without_a_stack_says_how_to_start_it(tmp_path: Path) -> None:
    done = run("status")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"The stack is not running in {tmp_path / 'home'}. Start it: justenough up --detach\n"


def test_status_as_json_without_a_stack_reports_that_none_is_running(tmp_path: Path) -> None:
    done = run("status", "-o", "json")
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {"home": str(tmp_path / "home"), "running": False, "supervisor": None, "children": [], "alarms": []}


def test_down_says_before_it_waits_how_long_jobs_have_to_end(tmp_path: Path) -> None:
    home = tmp_path / "home"
    start_detached(Settings(home=home, config=SHOP), only=("model",), provision=False)
    try:
        done = run("down")
    finally:
        stop_stack(StackPaths(home))
    assert done.stderr.splitlines() == ["Stopping. Jobs that still run have 30 s to end.", "Stopped model."]


@pytest.mark.parametrize(
    "form,stdout", [("json", '{\n  "home": "HOME",\n  "stopped": []\n}\n'), ("yaml", "home: HOME\nstopped: []\n"), ("name", "")]
)
def test_down_prints_what_it_stopped_in_every_output_format(tmp_path: Path, form: str, stdout: str) -> None:
    done = run("down", "-o", form, "--quiet")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == stdout.replace("HOME", str(tmp_path / "home"))


def test_the_commands_names_load_without_their_actions() -> None:
    heavy = "{'psycopg', 'pydantic', 'rich', 'structlog', 'worker.provisioning', 'worker.stack', 'activities'}"
    code = f"import sys; import worker.commands; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@contextlib.contextmanager
def serve_console(answer: dict[str, Any]) -> Iterator[int]:
    class Console(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Console) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


READY: dict[str, Any] = {
    "ready": True,
    "checks": [],
    "overdue_revocations": 0,
    "overdue_since": None,
    "overdue_credentials": 0,
    "sweep": {"last_ended_at": "2026-01-31T09:30:00Z", "age_seconds": 7, "late": False},
    "config_alarm": None,
}
SINCE = {"overdue_since": "2026-01-31T09:30:00.123Z", "overdue_credentials": 3}
LATE = {"sweep": {"last_ended_at": "2026-01-31T09:30:00Z", "age_seconds": 75, "late": True}}


@pytest.mark.parametrize(
    "answer,starts,remedy",
    [
        (READY | {"config_alarm": "folder: the last good stays"}, "installation's configuration: folder: the last good", "catalog check"),
        (
            READY | {"overdue_revocations": 2} | SINCE,
            "overdue revocations: 2 job(s) since 2026-01-31T09:30:00Z; 3 credential(s) may be active",
            "justenough job list --revocation overdue; then docs/how-to/runbook.md#overdue",
        ),
        (
            READY | {"overdue_credentials": 1},
            "overdue revocations: 1 credential(s) of running jobs should have been revoked",
            "credential list --live",
        ),
        (READY | LATE, "sweep: late: the last one ended 75 s ago", "justenough sweep"),
        (
            READY | {"sweep": {"age_seconds": None, "late": True}},
            "sweep: late: no sweep has ended yet",
            "docs/how-to/runbook.md#the-sweep-is-late",
        ),
        (
            READY
            | {"checks": [{"name": "store", "ok": False, "ms": 1, "detail": "no answer in 2 s"}]}
            | {"overdue_revocations": None, "sweep": {"age_seconds": None, "late": True}},
            "installation's store: no answer in 2 s",
            "JUSTENOUGH_DATABASE_URL",
        ),
        (
            READY
            | {"targets": {"known": 3, "failing": 1, "failing_since": "2026-01-31T09:30:00.5Z", "checked_at": "2026-01-31T09:40:00Z"}},
            "targets: 1 of 3 failing since 2026-01-31T09:30:00Z: users cannot be ended, or no revocation verified",
            "docs/how-to/runbook.md#a-target-fails",
        ),
        (
            READY | {"checks": [{"name": "vault", "ok": False, "ms": 1, "detail": "is sealed"}]},
            "installation's vault: is sealed",
            "bao operator unseal",
        ),
        (
            READY | {"checks": [{"name": "workers", "ok": False, "ms": 1, "detail": "no worker polls justenough-dev"}]},
            "installation's workers: no worker polls justenough-dev",
            "justenough worker",
        ),
    ],
)
def test_each_problem_of_the_console_becomes_an_alarm_with_its_remedy(answer: dict[str, Any], starts: str, remedy: str) -> None:
    with serve_console(answer) as port:
        (alarm,) = alarms(fetch_readyz(f"http://127.0.0.1:{port}"))
    assert alarm.startswith(starts)
    assert remedy in alarm


def test_each_worker_with_a_broken_configuration_is_an_alarm_of_its_own() -> None:
    found = alarms(READY | {"config_alarm": "shop: catalog.yaml: broken\nworker host-7: shop: SHOP_PORT is missing"})
    assert [alarm.partition(" (")[0] for alarm in found] == [
        "installation's configuration: shop: catalog.yaml: broken",
        "installation's configuration: worker host-7: shop: SHOP_PORT is missing",
    ]


def test_processes_with_different_configurations_are_a_warning() -> None:
    workers = [{"name": name, "config_digest": digest} for name, digest in (("a", "sha256:1"), ("b", "sha256:2"), ("c", None))]
    (warning,) = [one for one in findings(READY | {"workers": workers}) if one.level == "warning"]
    assert warning.found == "consoles and workers use different configurations: a sha256:1, b sha256:2"
    assert not [one for one in findings(READY | {"workers": workers[1:], "config_digest": "sha256:2"}) if one.level == "warning"]
    (warning,) = [one for one in findings(READY | {"workers": workers[1:], "config_digest": "sha256:3"}) if one.level == "warning"]
    assert warning.found == "consoles and workers use different configurations: this console sha256:3, b sha256:2"


def test_overdue_revocations_that_cannot_be_counted_are_a_warning() -> None:
    (warning,) = [one for one in findings(READY | {"overdue_revocations": None}) if one.level == "warning"]
    assert (warning.what, warning.found) == ("overdue revocations", "could not be counted: the console cannot read its store")
    assert warning.remedy


def test_a_healthy_or_older_console_raises_no_alarm() -> None:
    for answer in (READY, {"ready": True, "checks": [], "overdue_revocations": 0, "config_alarm": None}):
        with serve_console(answer) as port:
            assert alarms(fetch_readyz(f"http://127.0.0.1:{port}")) == ()


def test_another_server_is_not_taken_for_a_console() -> None:
    with serve_console({"something": "else"}) as port, pytest.raises(NoConsole, match="not answer like a JustEnough console"):
        fetch_readyz(f"http://127.0.0.1:{port}")
    with pytest.raises(NoConsole, match=r"http://127\.0\.0\.1:9 does not answer \(ConnectError\)"):
        fetch_readyz("http://127.0.0.1:9")


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_a_console_with_a_private_authority_is_trusted_by_ssl_cert_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    authority, contexts = create_authority(tmp_path, "localhost")
    with serve_canned_answers(contexts["localhost"]) as console:
        console.set_response(200, READY)
        address = console.address.replace("https", scheme)
        with pytest.raises(
            NoConsole, match=r"does not answer \(its certificate is not trusted: set SSL_CERT_FILE to the CA that signed it\)"
        ):
            fetch_readyz(address)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        assert fetch_readyz(address)["checks"] == READY["checks"]


def test_doctor_checks_another_installations_console(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*arguments: str) -> dict[str, dict[str, Any]]:
        return {item["what"]: item for item in json.loads(run("doctor", "-o", "json", *arguments).stdout)["findings"]}

    with serve_console(READY | {"overdue_revocations": 2} | SINCE) as port:
        told = found("--console-url", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("JUSTENOUGH_CONSOLE_URL", f"http://127.0.0.1:{port}")
        assert found()["overdue revocations"] == told["overdue revocations"]
    assert (told["console"]["level"], told["overdue revocations"]["level"], told["sweep"]["found"]) == (
        "ok",
        "missing",
        "the last one ended 7 s ago",
    )
    away = found("--console-url", "http://127.0.0.1:9")
    assert (away["console"]["level"], away["console"]["found"]) == (
        "missing",
        "the console at http://127.0.0.1:9 does not answer (ConnectError)",
    )


def make_home_of_a_killed_supervisor(home: Path, *, console: int) -> None:
    """Create a home whose supervisor is gone and whose console still answers."""
    home.mkdir()
    places = StackPaths(home)
    private = {"home": str(home), "config": str(SHOP), "supervisor": 1, "database_url": "sqlite://", "admin_token_file": str(home / "x")}
    stack = private | {"console": f"http://127.0.0.1:{console}", "users": {}, "pids": {"console": os.getpid()}}
    write_private(places.stack, json.dumps(stack))
    write_private(places.ports, json.dumps({"console": console, "temporal_http": 9, "vault": 9}))


def test_children_without_a_supervisor_are_reported_with_the_consoles_alarms(tmp_path: Path) -> None:
    with serve_console(READY | {"config_alarm": "broken"}) as port:
        make_home_of_a_killed_supervisor(tmp_path / "home", console=port)
        status, doctor = run("status"), run("doctor", "-o", "json")
    assert status.exit_code == 1
    assert "no longer has a supervisor: servers that stop are not restarted. Repair it: justenough up --detach\n" in status.stderr
    assert "Alarm: installation's configuration: broken (Fix it, then check it: justenough catalog check)\n" in status.stderr
    missing = {item["what"]: item["found"] for item in json.loads(doctor.stdout)["findings"] if item["level"] == "missing"}
    assert missing["installation's configuration"] == "broken"
    assert "its supervisor is gone" in missing["stack"]


def test_doctor_names_each_problem_of_the_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JUSTENOUGH_CONFIG", str(tmp_path))
    (tmp_path / "catalog.yaml").write_text("resources: {x: {}}\n", encoding="utf-8")
    done = run("doctor", "-o", "json")
    found = [item["found"] for item in json.loads(done.stdout)["findings"] if item["what"] == "configuration"]
    assert done.exit_code == 1
    assert any(line.startswith(f"{tmp_path}: catalog.yaml:resources.x.") for line in found)
    assert any("approvals.yaml: cannot be read" in line for line in found)


def test_a_wrong_setting_is_named_and_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUSTENOUGH_INSTALLATION", "Not Allowed")
    monkeypatch.setenv("JUSTENOUGH_CONSOLE_PORT", "many")
    done = run("up")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "setting installation: " in done.stderr
    assert "setting console_port: " in done.stderr


def test_a_damaged_stack_file_is_reported_with_a_remedy_that_works(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "stack.json").write_text("{}", encoding="utf-8")
    done = run("status")
    assert done.exit_code == 1
    assert "Stop the stack (justenough down) and start it again." in done.stderr
    assert run("down").exit_code == 0
    assert not (tmp_path / "home" / "stack.json").exists()


def test_vault_setup_without_a_vault_or_a_token_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("vault", "setup")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "set VAULT_ADDR (or vault_addr in justenough.toml) and VAULT_TOKEN" in done.stderr
    monkeypatch.setenv("VAULT_ADDR", "https://vault.example:8200")
    monkeypatch.setenv("JUSTENOUGH_CONFIG", str(SHOP))
    lacks_token = run("vault", "setup")
    assert (lacks_token.exit_code, lacks_token.stderr) == (
        1,
        "error: set VAULT_TOKEN to an administrator's token for https://vault.example:8200\n",
    )


def test_vault_setup_names_the_example_shops_folder_only_if_it_uses_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = f"No configuration folder is set here, so this uses the example shop's: {SHOP}\n"
    monkeypatch.chdir(tmp_path)
    assert said in run("vault", "setup").stderr
    monkeypatch.setenv("JUSTENOUGH_CONFIG", str(tmp_path))
    assert said not in run("vault", "setup").stderr


def test_vault_setup_with_a_wrong_catalog_lists_each_problem_on_a_line_and_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "catalog.yaml").write_text("resources: {x: {}, y: {}}\n", encoding="utf-8")
    monkeypatch.setenv("JUSTENOUGH_CONFIG", str(tmp_path))
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:9")
    monkeypatch.setenv("VAULT_TOKEN", "an-administrators")
    done = run("vault", "setup")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: catalog.yaml: 10 problems\n  resources.x")
    assert "\n  resources.y" in done.stderr


def test_an_invalid_network_of_workers_is_a_usage_error_that_names_it_and_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUSTENOUGH_WORKER_CIDRS", "10.1.0.0/16,10.2.0.7/24")
    done = run("vault", "setup")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("setting worker_cidrs: ")
    assert "10.2.0.7/24 has host bits set; write a network like 10.1.2.0/24" in done.stderr


def test_vault_setup_names_a_vault_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "SHOP_HOST": "127.0.0.1",
        "SHOP_PORT": "9",
        "MODEL_URL": "http://127.0.0.1:65535/v1",
        "SHOP_VAULT_PASSWORD": "x",
        "VAULT_ADDR": "http://127.0.0.1:9",
        "VAULT_TOKEN": "x",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JUSTENOUGH_CONFIG", str(SHOP))
    done = run("vault", "setup")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "http://127.0.0.1:9" in done.stderr


@pytest.mark.parametrize("arguments", [("up",), ("up", "--detach")])
def test_up_on_a_port_in_use_names_the_port_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("JUSTENOUGH_CONSOLE_PORT", str(port))
        command = (sys.executable, "-m", "console.cli", *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[3])
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        f"error: port {port}, which the settings choose for console, is in use by another program; stop it or choose another port\n"
        in done.stderr
    )
    assert not (tmp_path / "home" / "stack.json").exists()


@pytest.mark.parametrize(
    "command, code", [(("vault", "plan"), 1), (("vault", "apply"), 2), (("doctor",), 2), (("doctor", "--production"), 2)]
)
@pytest.mark.parametrize("token", ["s.hidden\r", "s.hídden"])
def test_an_administrators_token_that_no_header_can_carry_is_refused_and_not_printed(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], code: int, token: str
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", token)
    with serve_canned_answers() as vault:
        monkeypatch.setenv("VAULT_ADDR", vault.address)
        done = run(*command)
    assert (done.exit_code, done.stdout) == (code, "")
    assert "VAULT_TOKEN" in done.stderr
    assert "another character that no token has" in done.stderr
    assert "dden" not in done.stderr


def test_a_namespace_that_no_header_can_carry_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_NAMESPACE", "téam")
    done = run("vault", "plan")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("setting VAULT_NAMESPACE: ")


def test_doctor_lists_findings_as_json_and_fails_if_something_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("doctor", "-o", "json")
    findings = json.loads(done.stdout)["findings"]
    assert {"python", "temporal", "openbao", "postgresql"} <= {finding["what"] for finding in findings}
    assert done.exit_code == int(any(finding["level"] == "missing" for finding in findings))
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:9")
    done = run("doctor")
    assert done.exit_code == 1
    assert "FAIL vault: http://127.0.0.1:9 did not answer" in done.stdout


@pytest.mark.servers
def test_up_with_a_stack_already_running_says_so_and_prints_its_addresses(servers: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUSTENOUGH_HOME", str(servers.home))
    for arguments in (("up",), ("up", "--detach")):
        done = run(*arguments)
        assert done.exit_code == 0
        assert done.stderr == f"The stack is already running in {servers.home}.\n"
        assert f"Vault:       {servers.vault}\n" in done.stdout
    for form in ("json", "yaml"):
        done = run("up", "--detach", "-o", form)
        found = json.loads(done.stdout) if form == "json" else yaml.safe_load(done.stdout)
        assert found["vault"] == servers.vault
        assert not any(user.password in done.stdout for user in servers.users.values())


@pytest.mark.servers
def test_status_shows_each_child(servers: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUSTENOUGH_HOME", str(servers.home))
    done = run("status")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["NAME", "temporal", "vault", "postgres"]
    children = json.loads(run("status", "-o", "json").stdout)["children"]
    found = read_stack(StackPaths(servers.home))
    assert found is not None
    assert {child["name"]: child["pid"] for child in children} == found.pids
    assert {child["health"] for child in children} == {"healthy"}


@pytest.fixture
def foreground(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = (sys.executable, "-m", "worker.stack", "--only", "temporal", "--no-provision", "--lifeline", str(LIFELINE))
    with run_child(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=Path(__file__).parents[3], pass_fds=(LIFELINE,)
    ) as process:
        yield process
    stop_stack(StackPaths(tmp_path / "home"))


@pytest.mark.servers
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_foreground_stack_stops_everything(
    foreground: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    places = StackPaths(tmp_path / "home")
    assert wait_until(places.stack.exists, within=180)
    stack = read_stack(places)
    assert stack is not None
    foreground.send_signal(number)
    foreground.communicate(timeout=30)
    assert foreground.returncode == 0
    assert birth_time(stack.pids["temporal"]) is None
    assert not places.stack.exists()
