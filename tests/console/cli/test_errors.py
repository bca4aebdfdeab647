"""An error is one line on stderr, with one more line for each problem and its path, and an exit code that scripts can tell apart."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import webbrowser
from pathlib import Path

import httpx
import pytest

from console.cli.client import api, oidc
from console.cli.client.config import ServerAddresses
from console.cli.client.http_client import to_unreachable
from console.cli.client.vault import PersonVaultClient
from console.cli.errors import Unreachable
from console.cli.options import DEFAULT_OPTIONS, run_with_options
from justenough.domain.core.secret import Secret
from tests.console.cli.conftest import ROOT, Cli
from tests.console.served_console import SHOP
from tests.support.canned_server import serve_canned_answers
from tests.support.tls_authority import create_authority
from worker.stack.stack_file import Stack

EVERY = [
    *(
        ("job", *rest)
        for rest in (("list",), ("show", "j"), ("watch", "j"), ("logs", "j"), ("timeline", "j"), ("cancel", "j"), ("kill", "j"))
    ),
    *(("request", *rest) for rest in (("list",), ("show", "r"), ("approve", "r", "--reason", "x"), ("deny", "r", "--reason", "x"))),
    *(("credential", *rest) for rest in (("list",), ("revoke", "c"), ("prove", "j"))),
    *(("ledger", *rest) for rest in (("list",), ("export",), ("verify",))),
    ("catalog", "list"),
    ("catalog", "show", "orders-db"),
    ("sweep",),
    ("whoami",),
]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.servers
@pytest.mark.parametrize(
    "status,code",
    [(401, 4), (403, 6), (404, 5), (409, 8), (412, 8), (413, 2), (422, 2), (428, 1), (429, 1), (500, 1), (503, 1)],
)
def test_each_status_of_the_api_has_its_exit_code(cli: Cli, monkeypatch: pytest.MonkeyPatch, status: int, code: int) -> None:
    monkeypatch.setattr(api, "RETRY_DELAY_S", 0.01)
    with serve_canned_answers() as console:
        console.set_response(status, {"type": "about:blank", "title": "T", "status": status, "detail": "why it is so"})
        done = cli.run("job", "list", "--console-url", console.address)

    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.splitlines()[0] == "error: why it is so"


@pytest.mark.servers
def test_each_problem_of_a_bad_input_is_printed_on_a_separate_line(cli: Cli) -> None:
    errors = [{"path": "access[0].ttl", "message": "too long"}, {"path": "", "message": "odd\x1b[2J"}]
    with serve_canned_answers() as console:
        console.set_response(422, {"title": "T", "status": 422, "detail": "job spec: access[0].ttl: too long; odd", "errors": errors})
        done = cli.run("job", "list", "--console-url", console.address)

    assert done.stderr.splitlines() == ["error: job spec: 2 problems", "  access[0].ttl: too long", "  odd\\x1b[2J"]


@pytest.mark.servers
@pytest.mark.parametrize("body,media", [(b"<html>", "text/html"), (b"[]", "application/json"), (b"", "text/plain")])
@pytest.mark.parametrize("status", [200, 404, 502])
def test_a_server_that_is_not_a_console_is_recognised_as_such(cli: Cli, status: int, body: bytes, media: str) -> None:
    with serve_canned_answers() as console:
        console.set_response(status, body, media)
        done = cli.run("job", "list", "--console-url", console.address)

    assert done.exit_code == {200: 1, 404: 5, 502: 1}[status]
    assert done.stderr.startswith("error: ")
    assert console.address in done.stderr


@pytest.mark.servers
@pytest.mark.parametrize("arguments", EVERY, ids=" ".join)
def test_a_console_that_does_not_answer_is_named_with_how_to_start_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr("console.cli.watch.poll.MAX_OUTAGE_S", 0.0)
    monkeypatch.setattr("console.cli.watch.poll.POLL_INTERVAL_S", 0.01)
    address = f"http://127.0.0.1:{free_port()}"

    done = cli.run(*arguments, env={"JUSTENOUGH_CONSOLE_URL": address})

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-2:] == [
        f"error: the console at {address} does not answer (connection refused)",
        "Start it. If it belongs to the stack on this machine: justenough up --detach",
    ]


@pytest.mark.servers
def test_after_an_outage_the_requests_that_were_not_decided_are_named(cli: Cli) -> None:
    requests = [f"r-dev-01kb3zq0aa0000000000000000-{number}" for number in (1, 2, 3)]

    done = cli.run("request", "approve", *requests, "--reason", "x", env={"JUSTENOUGH_CONSOLE_URL": f"http://127.0.0.1:{free_port()}"})

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {requests[0]}: the console at ")
    assert done.stderr.endswith(f"error: also not done: {requests[1]}, {requests[2]}\n")


@pytest.mark.servers
def test_the_api_command_refuses_an_answer_that_is_not_json(cli: Cli) -> None:
    with serve_canned_answers() as console:
        console.set_response(200, b"<html>", "text/html")
        done = cli.run("api", "GET", "/jobs", "--console-url", console.address)

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "error: GET /jobs does not answer with JSON\nUse another client, such as curl\n"


@pytest.mark.servers
def test_a_console_with_a_private_authority_is_trusted_by_ssl_cert_file(cli: Cli, tmp_path: Path) -> None:
    authority, contexts = create_authority(tmp_path, "localhost")
    with serve_canned_answers(contexts["localhost"]) as console:
        refused = cli.run("job", "list", env={"JUSTENOUGH_CONSOLE_URL": console.address})
        trusting = cli.run("job", "list", env={"JUSTENOUGH_CONSOLE_URL": console.address, "SSL_CERT_FILE": str(authority)})

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"error: the console at {console.address} does not answer ([SSL: CERTIFICATE_VERIFY_FAILED]" in refused.stderr
    assert "Set SSL_CERT_FILE to a file with the CA that signed its certificate" in refused.stderr
    assert trusting.exit_code == 0, trusting.stderr


@pytest.mark.servers
def test_a_vault_with_a_private_authority_is_trusted_by_vault_cacert(alone: Cli, tmp_path: Path) -> None:
    authority, contexts = create_authority(tmp_path, "localhost")
    with serve_canned_answers(contexts["localhost"]) as vault:
        vault.set_response(400, {"errors": ["invalid username or password"]})
        login = ("login", "--user", "ada", "--password-stdin")
        refused = alone.run(*login, stdin="wrong", env={"VAULT_ADDR": vault.address})
        trusting = alone.run(*login, stdin="wrong", env={"VAULT_ADDR": vault.address, "VAULT_CACERT": str(authority)})

    assert (refused.exit_code, refused.stderr.splitlines()[-1].split(" to ")[0]) == (1, "Set VAULT_CACERT"), refused.stderr
    assert "does not answer" not in trusting.stderr
    assert trusting.exit_code != 0


@pytest.mark.servers
@pytest.mark.parametrize("server", ["VAULT_ADDR", "JUSTENOUGH_CONSOLE_URL"])
def test_a_certificate_is_verified_however_the_scheme_is_spelled(cli: Cli, alone: Cli, tmp_path: Path, server: str) -> None:
    _, contexts = create_authority(tmp_path, "localhost")
    with serve_canned_answers(contexts["localhost"]) as served:
        env = {server: served.address.replace("https:", "HTTPS:")}
        if server == "VAULT_ADDR":
            done = alone.run("login", "--user", "ada", "--password-stdin", stdin="hunter2", env=env)
        else:
            done = cli.run("job", "list", env=env)

    assert served.requests == []
    assert (done.exit_code, done.stdout) == (1, "")
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr


@pytest.mark.parametrize("content", [None, "no certificate"])
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "VAULT_CACERT"])
def test_a_file_of_certificates_that_cannot_be_read_is_named(alone: Cli, tmp_path: Path, variable: str, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    env = {"VAULT_ADDR": "https://127.0.0.1:9", variable: str(file)}

    done = alone.run("login", "--user", "ada", "--password-stdin", stdin="hunter2", env=env)

    assert (done.exit_code, done.stderr) == (2, f"error: {variable}: cannot read certificates from {file}\n")


@pytest.mark.parametrize("arguments", EVERY, ids=" ".join)
def test_every_command_says_how_to_start_the_stack_if_nothing_runs(alone: Cli, arguments: tuple[str, ...]) -> None:
    done = alone.run(*arguments)

    assert (done.exit_code, done.stdout) == (1, "")
    assert "no stack is running here" in done.stderr
    assert "justenough up --detach" in done.stderr


def test_every_command_says_how_to_log_in_if_nobody_is_logged_in(alone: Cli) -> None:
    alone.home.mkdir()
    (alone.home / "stack.json").write_text(json.dumps({"console": "http://127.0.0.1:9", "vault": "http://127.0.0.1:9"}))

    for arguments in EVERY:
        done = alone.run(*arguments)
        assert (done.exit_code, done.stdout) == (4, ""), arguments
        assert done.stderr.splitlines() == ["error: you are not logged in", "Log in: justenough login --profile ops"]


def test_a_vault_that_does_not_answer_is_named_with_how_to_start_it(alone: Cli) -> None:
    address = f"http://127.0.0.1:{free_port()}"

    done = alone.run("login", "--user", "ops", "--password-stdin", stdin="x", env={"VAULT_ADDR": address})

    assert done.exit_code == 1
    assert f"Vault at {address} does not answer (connection refused)" in done.stderr
    assert "justenough up --detach" in done.stderr


@pytest.mark.parametrize(
    "status,body,code,says",
    [
        (200, b"<html>", 1, "did not answer like a Vault; check the address"),
        (200, b"[]", 1, "did not answer like a Vault; check the address"),
        (200, b"{}", 4, "if it needs a second factor, log in with `bao login` and set VAULT_TOKEN"),
        (500, b'{"errors": ["disk full", "try later"]}', 1, "answered 500: disk full; try later"),
        (500, b"<html>", 1, "answered 500: no reason was returned"),
    ],
)
def test_a_login_that_a_vault_answers_oddly_is_refused_in_words(alone: Cli, status: int, body: bytes, code: int, says: str) -> None:
    with serve_canned_answers() as vault:
        vault.set_response(status, body)
        done = alone.run("login", "--user", "ada", "--password-stdin", stdin="x", env={"VAULT_ADDR": vault.address})

    assert (done.exit_code, says in done.stderr) == (code, True), done.stderr
    assert not alone.login_file("ops").exists()


@pytest.mark.parametrize("data", [None, {}, {"token": "x"}, {"token": "a.b.c"}, {"token": 5}])
def test_an_identity_token_that_cannot_be_decoded_is_an_error(alone: Cli, data: object) -> None:
    with serve_canned_answers() as vault:
        vault.set_response(200, {"data": data})
        done = alone.run("whoami", "--console-url", "http://127.0.0.1:9", env={"VAULT_ADDR": vault.address, "VAULT_TOKEN": "t"})

    assert (done.exit_code, done.stderr) == (1, "error: cannot decode the identity token from Vault\n")


@pytest.mark.parametrize("url", ["javascript:alert(1)?state=s", "file:///etc/passwd?state=s", "https://idp.example/login"])
def test_a_login_address_that_a_browser_must_not_open_is_not_opened(alone: Cli, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    with serve_canned_answers() as vault:
        vault.set_response(200, {"data": {"auth_url": url}})
        done = alone.run("login", "--method", "oidc", "--port", free_port(), env={"VAULT_ADDR": vault.address, "BROWSER": "x"})

    assert (done.exit_code, opened) == (1, [])
    assert "returned a login address that cannot be opened; check the mount's configuration" in done.stderr
    assert url not in done.output


def test_a_login_at_a_provider_that_nobody_completes_times_out(alone: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "LOGIN_TIMEOUT_S", 0.01)
    with serve_canned_answers() as vault:
        vault.set_response(200, {"data": {"auth_url": "https://idp.example/login?state=s"}})
        done = alone.run("login", "--method", "oidc", "--no-browser", "--port", free_port(), env={"VAULT_ADDR": vault.address})

    assert done.exit_code == 7
    assert "you did not log in within five minutes; run justenough login again" in done.stderr


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxys_answer_in_place_of_vault_is_an_outage(status: int) -> None:
    """A withdrawal is then recorded without a signature."""
    with serve_canned_answers() as vault:
        vault.set_response(status, b"<html>", "text/html")

        def sign() -> str:
            return PersonVaultClient(ServerAddresses(vault=vault.address)).sign(Secret("t"), "e", b"x")

        with pytest.raises(Unreachable, match=f"is sealed or not ready \\({status}\\)"):
            run_with_options(DEFAULT_OPTIONS, sign)


@pytest.mark.parametrize(
    "proxy,why",
    [
        ("socks5://user:secret@127.0.0.1:9", "SOCKS proxies are not supported"),
        ("odd://user:secret@127.0.0.1:9", "this address or that of its proxy is invalid"),
        ("http://user:secret@127.0.0.1:port", "this address or that of its proxy is invalid"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_reported_without_its_password(alone: Cli, proxy: str, why: str) -> None:
    done = alone.run(
        "login", "--user", "ops", "--password-stdin", stdin="x", env={"VAULT_ADDR": "https://vault.example", "ALL_PROXY": proxy}
    )

    assert (done.exit_code, done.stderr.splitlines()[0]) == (2, f"error: cannot connect to https://vault.example: {why}")
    assert "ALL_PROXY" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.servers
def test_an_option_overrides_the_environment_and_the_environment_overrides_the_settings_file(
    cli: Cli, whole: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "justenough.toml").write_text('console_url = "http://127.0.0.1:9"\n')

    assert cli.run("whoami").exit_code == 1
    assert cli.run("whoami", env={"JUSTENOUGH_CONSOLE_URL": str(whole.console)}).exit_code == 0
    assert cli.run("whoami", "--console-url", whole.console, env={"JUSTENOUGH_CONSOLE_URL": "http://127.0.0.1:9"}).exit_code == 0


@pytest.mark.parametrize("address", ["localhost:8080", "ftp://x", "http://", "http://[", "https://x?y=1", "https://a..b"])
def test_an_invalid_address_is_a_usage_error(alone: Cli, address: str) -> None:
    done = alone.run("job", "list", "--console-url", address)

    assert done.exit_code == 2
    assert "--console-url: not an address" in done.stderr


def test_a_damaged_settings_file_is_named(alone: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "justenough.toml").write_text("not = = toml")

    done = alone.run("job", "list")

    assert done.exit_code == 2
    assert "cannot read justenough.toml" in done.stderr


def test_a_damaged_stack_file_is_named_with_the_remedy(alone: Cli) -> None:
    alone.home.mkdir()
    (alone.home / "stack.json").write_text("{")

    done = alone.run("job", "list")

    assert (done.exit_code, done.stderr) == (
        1,
        f"error: cannot read {alone.home / 'stack.json'}\nRestart the stack: justenough down, then justenough up --detach\n",
    )


def test_a_catalog_whose_sql_could_run_a_jobs_function_is_refused(alone: Cli) -> None:
    shutil.copytree(SHOP, alone.config, ignore=shutil.ignore_patterns("__pycache__"))
    catalog = alone.config / "catalog.yaml"
    assert alone.run("catalog", "check", alone.config).exit_code == 0
    catalog.write_text(catalog.read_text().replace("SELECT public.je_open_space(", "SELECT je_open_space("))

    done = alone.run("catalog", "check", alone.config)

    assert (done.exit_code, done.stdout) == (2, "")
    assert re.search(
        r"resources\.scratch\.actions\.write\.role\.creation_statements: it calls je_open_space\(…\) without a schema; write", done.stderr
    )


def test_a_catalog_with_a_schema_that_keeps_a_validator_busy_is_refused(alone: Cli) -> None:
    shutil.copytree(SHOP, alone.config, ignore=shutil.ignore_patterns("__pycache__"))
    catalog = alone.config / "catalog.yaml"
    catalog.write_text(catalog.read_text().replace("order_id: {type: integer,", "order_id: {pattern: '(?=.*x)y', type: integer,", 1))

    done = alone.run("catalog", "check", alone.config)

    assert (done.exit_code, done.stdout) == (2, "")
    assert "tools.find-order.input.properties.order_id.pattern: this pattern can take very long to match; use no" in done.stderr


@pytest.mark.parametrize("arguments", [("job",), ("job", "lits"), ("job", "list", "--stat"), ("job", "list", "-o", "xml"), ("nonsense",)])
def test_an_invalid_command_line_is_a_usage_error(alone: Cli, arguments: tuple[str, ...]) -> None:
    done = alone.run(*arguments)

    assert (done.exit_code, done.stdout) == (2, "")
    if arguments == ("job",):
        assert done.stderr.startswith("Usage: justenough job COMMAND")
        return
    error, help_hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert error[7:8].islower() or error.startswith("error: --")
    assert re.fullmatch(r"Help: justenough( job)?( list)? --help", help_hint)


@pytest.mark.parametrize(
    "arguments, expected",
    [(("login", "ops"), "ops; this command takes only options"), (("job", "show", "@last", "and", "more"), "and more")],
    ids=["only options", "one argument"],
)
def test_an_unexpected_argument_is_named(alone: Cli, arguments: tuple[str, ...], expected: str) -> None:
    done = alone.run(*arguments)

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == f"error: unexpected argument: {expected}"


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_the_format_options_of_other_programs_lead_to_ours(alone: Cli, form: str) -> None:
    done = alone.run("job", "list", f"--{form}")

    assert done.exit_code == 2
    assert done.stderr.splitlines()[0] == f"error: no such option: --{form}. Did you mean `-o {form}`?"


def test_an_invalid_value_is_named_with_its_option_and_the_allowed_values(alone: Cli) -> None:
    done = alone.run("job", "list", "-o", "xml")

    assert done.stderr.splitlines()[0] == "error: --output: 'xml' is not one of 'table', 'json', 'yaml', 'name'"


def test_an_invalid_argument_is_named_with_the_allowed_values(alone: Cli) -> None:
    done = alone.run("vault", "try", "orders-db", "own")

    assert done.stderr.splitlines()[0] == "error: ACTION: 'own' is not one of 'read', 'write', 'admin'"


def test_a_hint_about_two_words_names_no_command_that_is_refused(alone: Cli) -> None:
    done = alone.run("policy", "explain", "job.yaml", "orders-db")

    assert (done.exit_code, done.stderr) == (2, "error: give one SPEC or one RESOURCE:ACTION\n")


def test_a_column_without_a_title_is_not_among_the_columns_to_choose(alone: Cli) -> None:
    alone.login_file("ops").parent.mkdir(parents=True)
    alone.login_file("ops").touch(mode=0o600)
    done = alone.run("profile", "list", "--columns", "age")

    assert done.stderr == "error: --columns: there is no column age; the columns are name, login, expires, console, vault\n"


def test_a_current_folder_that_is_gone_is_named(alone: Cli, tmp_path: Path) -> None:
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    env = alone.env(JUSTENOUGH_HOME="", PYTHONPATH=str(ROOT))
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-P", "-m", "console.cli", "status"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "error: the current folder no longer exists; change to another one\n")


def test_a_user_without_a_home_folder_is_told_what_to_set(alone: Cli) -> None:
    # Python finds no home folder, as for a user without an account and without HOME.
    homeless = alone.env(HOME="~", XDG_CONFIG_HOME="")
    for arguments in (("profile", "list"), ("whoami",), ("status",)):
        command = [sys.executable, "-m", "console.cli", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=homeless, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == ("error: the folder of the logins is unknown: this user has no home folder\nSet HOME or XDG_CONFIG_HOME\n")

    typing = {"_JUSTENOUGH_COMPLETE": "complete_bash", "COMP_WORDS": "justenough --profile ", "COMP_CWORD": "2"}
    command = [sys.executable, "-c", "from console.cli.main import main; main()"]
    done = subprocess.run(command, cwd=ROOT, env=homeless | typing, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("", "")


@pytest.mark.servers
@pytest.mark.parametrize(
    "status, body, code",
    [(400, b'{"title": "T", "errors": {"name": ["too long"]}}', 1), (422, b'{"title": "T", "errors": [1]}', 2), (200, b"[" * 100_000, 1)],
)
def test_an_answer_of_another_service_is_no_traceback(cli: Cli, status: int, body: bytes, code: int) -> None:
    with serve_canned_answers() as console:
        console.set_response(status, body)
        done = cli.run("job", "list", "--console-url", console.address)

    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ")
    assert console.address in done.stderr


@pytest.mark.servers
def test_an_answer_that_cannot_be_decompressed_is_no_traceback(cli: Cli) -> None:
    with serve_canned_answers() as console:
        console.headers["Content-Encoding"] = "gzip"
        done = cli.run("job", "list", "--console-url", console.address)

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"error: {console.address} did not answer like a JustEnough console; check the address\n"


@pytest.mark.parametrize("arguments", [("--version",), ("job", "list", "--help"), ("profile", "list", "-o", "json")], ids=str)
@pytest.mark.parametrize("buffering", ["", "1"])
def test_output_that_cannot_be_written_is_an_error_without_a_traceback(alone: Cli, arguments: tuple[str, ...], buffering: str) -> None:
    command, env = (sys.executable, "-m", "console.cli", *arguments), alone.env(PYTHONUNBUFFERED=buffering)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: reading or writing failed: No space left on device\n")

    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as broken:
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=broken, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")

    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["up", "status", "down"])
def test_a_home_that_is_no_folder_is_an_error_without_a_traceback(alone: Cli, command: str) -> None:
    alone.home.write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "console.cli", command], cwd=ROOT, env=alone.env(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "Not a directory" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("error", [httpx.ReadError("[Errno 104] Connection reset by peer"), httpx.WriteError("[Errno 32] Broken pipe")])
def test_a_connection_without_tls_that_breaks_off_may_need_tls(error: httpx.TransportError) -> None:
    plain, secure = (
        to_unreachable("Vault", f"{scheme}://vault.example:8200", error, authority="VAULT_CACERT").hint for scheme in ("http", "https")
    )

    assert plain == "If it speaks TLS, write its address with https://"
    assert secure.startswith("Check that it runs")
