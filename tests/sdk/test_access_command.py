"""`justenough-access` inside real jobs: it passes on the exit code and signals, and the credential is revoked however the command ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.sdk.remote_python import Remote, launch_remote
from tests.support.people import Human
from tests.support.shop import Login, Shop
from tests.support.wait import until

pytestmark = pytest.mark.servers
TELL = "import os, json; print(json.dumps(dict(os.environ)), flush=True)"
HOLD = f"""
import signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda n, _: (print("got", n, flush=True), sys.exit(40 + n)))
{TELL}
time.sleep(60)
"""


def run_access(job: Remote, *arguments: str) -> tuple[int, str, str]:
    """Run the command inside a job; return its exit code, stdout and stderr."""
    code = f"done = subprocess.run(['justenough-access', *{arguments!r}], capture_output=True, text=True)"
    found: tuple[int, str, str] = tuple(job.run(f"{code}\nresult = [done.returncode, done.stdout, done.stderr]"))
    return found


def variables_in(output: str) -> dict[str, Any]:
    """Return the variables that a command printed."""
    found: dict[str, Any] = json.loads(output.splitlines()[0])
    return found


def test_a_database_s_variables_are_libpq_s_and_the_login_ends_with_the_command(job: Remote, shop: Shop) -> None:
    query = "import psycopg; print(psycopg.connect().execute('SELECT current_user').fetchone()[0]); import sys; sys.exit(3)"
    code, output, said = run_access(job, "orders-db", "read", "--reason", "Count", "--", "python3", "-c", f"{TELL}\n{query}")
    assert (code, said) == (3, "")
    seen = variables_in(output)
    assert output.splitlines()[1] == seen["PGUSER"]
    assert seen["PGDATABASE"] == "shop"
    assert not shop.can_log_in(Login(seen["PGUSER"], seen["PGPASSWORD"]))


def test_other_fields_get_default_names_or_the_requested_ones(job: Remote) -> None:
    code, output, _ = run_access(job, "helpdesk-api", "read", "--", "python3", "-c", TELL)
    seen = variables_in(output)
    assert code == 0
    assert seen["JUSTENOUGH_CREDENTIAL_TOKEN"]
    assert seen["JUSTENOUGH_BROKER"] == "/run/justenough/broker.sock"
    _, output, _ = run_access(job, "helpdesk-api", "read", "--env", "HELPDESK=token", "--", "python3", "-c", TELL)
    assert variables_in(output)["HELPDESK"] == seen["JUSTENOUGH_CREDENTIAL_TOKEN"]
    assert "JUSTENOUGH_CREDENTIAL_TOKEN" not in variables_in(output)
    code, _, said = run_access(job, "helpdesk-api", "read", "--env", "HELPDESK=key", "--", "true")
    assert code == 2
    assert "read on helpdesk-api has no field key; it has" in said


def test_a_url_is_accepted_by_a_driver(job: Remote) -> None:
    query = "import os, psycopg; print(psycopg.connect(os.environ['DATABASE_URL']).execute('SELECT current_user').fetchone()[0])"
    code, output, _ = run_access(job, "orders-db", "read", "--format", "dsn", "--", "python3", "-c", query)
    assert code == 0
    assert job.job in output
    code, _, said = run_access(job, "helpdesk-api", "read", "--format", "dsn", "--", "true")
    assert code == 2
    assert "cannot be a database URL: it has no" in said


def test_a_file_is_private_and_deleted_after_the_command(job: Remote) -> None:
    look = "import json, os, stat; p = os.environ['JUSTENOUGH_CREDENTIAL_FILE']; print(p, oct(os.stat(p).st_mode & 0o777), open(p).read())"
    code, output, _ = run_access(job, "orders-db", "read", "--format", "json", "--", "python3", "-c", look)
    path, mode, content = output.split(maxsplit=2)
    assert (code, mode) == (0, "0o600")
    assert json.loads(content)["data"]["password"]
    assert job.run(f"result = os.path.exists(os.path.dirname({path!r}))") is False


def test_without_a_command_it_prints_shell_assignments_and_their_lifetime(job: Remote, shop: Shop) -> None:
    script = 'eval "$(justenough-access orders-db read)" && echo "$PGUSER $PGPASSWORD"'
    output, said = job.run(f"d = subprocess.run(['sh', '-c', {script!r}], capture_output=True, text=True); result = [d.stdout, d.stderr]")
    assert shop.can_log_in(Login(*output.split()))
    assert "is valid until 20" in said
    _, output, _ = run_access(job, "orders-db", "read", "--format", "json")
    assert json.loads(output)["resource"] == "orders-db"


def test_a_credential_that_cannot_be_printed_is_revoked(job: Remote, ops: Human) -> None:
    before = {item["id"] for item in ops.job(job.job)["credentials"]}
    code, output, said = run_access(job, "orders-db", "read", "--env", "TOKEN=token")
    assert (code, output) == (2, "")
    assert "has no field token" in said
    full = "subprocess.run(['justenough-access', 'orders-db', 'read'], stdout=open('/dev/full', 'w'), stderr=subprocess.PIPE, text=True)"
    code, said = job.run(f"done = {full}\nresult = [done.returncode, done.stderr]")
    assert (code, "cannot be printed: No space left on device" in said) == (1, True)
    new = [item for item in ops.job(job.job)["credentials"] if item["id"] not in before]
    assert [item["state"] for item in new] == ["confirmed", "confirmed"]


@pytest.mark.parametrize("name, number", [("SIGTERM", 15), ("SIGINT", 2), ("SIGHUP", 1), ("SIGUSR1", 10)])
def test_a_signal_reaches_the_command_whose_exit_code_counts(job: Remote, shop: Shop, name: str, number: int) -> None:
    start = f"p = subprocess.Popen(['justenough-access', 'orders-db', 'read', '--', 'python3', '-c', {HOLD!r}], stdout=subprocess.PIPE, text=True)"
    seen = json.loads(job.run(f"{start}\nline = p.stdout.readline(); result = line"))
    login = Login(seen["PGUSER"], seen["PGPASSWORD"])
    assert shop.can_log_in(login)
    rest = job.run(f"p.send_signal(signal.{name}); rest = p.stdout.read(); result = [rest, p.wait()]")
    assert rest == [f"got {number}\n", 40 + number]
    assert not shop.can_log_in(login)


def test_a_command_that_a_signal_ends_has_a_shell_s_exit_code(job: Remote) -> None:
    assert run_access(job, "orders-db", "read", "--", "sh", "-c", "kill -KILL $$")[0] == 137


def test_a_signal_during_an_approval_ends_the_wait_and_runs_nothing(ops: Human) -> None:
    with launch_remote(ops) as job:
        job.run("import os, signal, subprocess, time")
        job.run("p = subprocess.Popen(['justenough-access', 'refunds-db', 'write', '--', 'touch', '/tmp/ran'])")
        until(lambda: ops.job(job.job)["requests"], "people are asked")
        assert job.run("p.send_signal(signal.SIGTERM); result = [p.wait(), os.path.exists('/tmp/ran')]") == [143, False]
        assert ops.job(job.job)["credentials"] == []


@pytest.mark.parametrize(
    "arguments, code, says",
    [
        (("orders-db", "read", "--", "no-such-program"), 127, "no-such-program: No such file or directory"),
        (("orders-db", "read", "--", "/etc/hosts"), 126, "/etc/hosts: Permission denied"),
        (("ordersdb", "read", "--", "true"), 2, "unknown resource"),
        (("orders-db",), 2, "the following arguments are required: ACTION"),
        (("orders-db", "read", "--"), 2, "a command is missing after --"),
        (("orders-db", "read", "--wait", "soon", "--", "true"), 2, "'soon' is not a duration"),
        (("orders-db", "read", "--env", "1=x", "--", "true"), 2, "write NAME=FIELD"),
        (("orders-db", "read", "--env", "A=x", "--format", "dsn", "--", "true"), 2, "--env works only with --format env"),
        (("payouts-db", "write", "--", "true"), 6, "request it at the start, in the job's spec"),
        (("refunds-db", "write", "--wait", "0", "--", "true"), 7, "waits for approval at tier 1"),
    ],
)
def test_each_failure_has_its_exit_code_and_its_message(job: Remote, arguments: tuple[str, ...], code: int, says: str) -> None:
    found, output, said = run_access(job, *arguments)
    assert (found, output) == (code, "")
    assert says in said


def test_every_credential_of_the_command_is_revoked_when_the_job_has_ended(ops: Human, shop: Shop) -> None:
    with launch_remote(ops) as job:
        job.run("import subprocess")
        for _ in range(3):
            assert run_access(job, "orders-db", "read", "--", "true")[0] == 0
        live = [one for one in ops.job(job.job)["credentials"] if one["state"] != "confirmed"]
        assert live == []
        assert shop.users_of(job.job) == []
    shop.assert_dead(ops.job(job.job))
