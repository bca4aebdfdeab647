"""What kill, revoke, prove and sweep print for each credential: what ended it, what may still be active and why, and what to do next."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from console.cli.render import revocation as aftermath
from console.presentation.status_badges import shown_credential_state, state_word
from justenough.domain.jobs.states import CredentialState, JobState, RevocationState
from tests.console.cli.conftest import Cli
from tests.support.canned_server import CannedServer, serve_canned_answers

JOB = "j-dev-x"


def credential(state: str, number: int = 1, **more: Any) -> dict[str, Any]:
    """A credential as the API shows it."""
    ids = {"id": f"c-dev-x-{number}", "job_id": JOB, "resource": "orders-db", "action": "read", "revocable": "now"}
    times = {"issued_at": "2026-01-31T09:30:00Z", "expires_at": "2026-01-31T09:40:00Z", "revoked_at": None, "confirmed_at": None}
    return {**ids, **times, "state": state, "confirmed_how": None, "why": None, **more}


def job(state: str, revocation: str, *credentials: dict[str, Any]) -> dict[str, Any]:
    """A job as the API shows it."""
    proof: dict[str, Any] = {"state": revocation, "confirmed_at": None, "failures": [], "since": None}
    same = {"id": JOB, "name": "n", "state": state, "exit_code": None, "reason": None, "revocation": proof}
    return {**same, "credentials": list(credentials)}


def test_the_states_used_for_output_are_those_of_the_models() -> None:
    assert {state.value for state in JobState if state.ended} == aftermath.ENDED_JOB_STATES
    assert set(CredentialState) >= aftermath.DEAD_STATES
    assert set(RevocationState) >= aftermath.SETTLED_REVOCATION_STATES


@pytest.mark.parametrize(
    "found, dead",
    [
        (job("killed", "confirmed", credential("confirmed")), True),
        (job("killed", "none"), True),
        (job("killed", "confirmed", credential("confirmed"), credential("expired", 2)), True),
        (job("killed", "residual", credential("confirmed"), credential("residual", 2, revocable="on_expiry")), False),
        (job("killed", "pending", credential("confirmed")), False),
        (job("killed", "overdue", credential("overdue")), False),
        (job("running", "none", credential("issued")), False),
        (job("revoking", "pending", credential("revoked")), False),
    ],
)
def test_a_job_is_dead_once_every_credential_is_and_its_proof_stands(found: dict[str, Any], *, dead: bool) -> None:
    assert aftermath.job_report(found)["dead"] is dead


@pytest.mark.parametrize(
    "item, at, said",
    [
        (
            credential("confirmed", confirmed_at="2026-01-31T09:35:00Z", confirmed_how="its lease is gone"),
            "2026-01-31T09:35:00Z",
            "its lease is gone",
        ),
        (credential("expired", why="its expiry time has passed"), "2026-01-31T09:40:00Z", "its expiry time has passed"),
        (credential("expired", why="the job never had it", revocable="never"), "", "the job never had it"),
        (credential("residual", why="it cannot be"), "expires 2026-01-31T09:40:00Z", "it cannot be"),
        (credential("residual", why="it cannot be", revocable="never"), "never expires", "it cannot be"),
        (credential("overdue", why="target shop: away"), "expires 2026-01-31T09:40:00Z", "target shop: away"),
        (credential("issued"), "expires 2026-01-31T09:40:00Z", "not revoked yet"),
        (credential("revoking"), "expires 2026-01-31T09:40:00Z", "being revoked"),
        (credential("revoked"), "expires 2026-01-31T09:40:00Z", "revoked, not verified yet"),
    ],
    ids=lambda value: value["state"] if isinstance(value, dict) else "",
)
def test_each_credential_says_when_and_how_it_ended_or_until_when_it_may_be_active_and_why(
    item: dict[str, Any], at: str, said: str
) -> None:
    row = aftermath.credential_row(aftermath.with_dead_flag(item))
    look = shown_credential_state(item["state"], item["revocable"])
    assert row == (item["id"], "orders-db", "read", state_word("credential", look), at, said)


def test_a_credential_that_only_the_worker_had_is_not_said_to_have_expired(cli: Cli) -> None:
    listed = [credential("expired", revocable="never"), credential("expired", 2, revocable="on_expiry")]
    with serve_canned_answers() as console:
        console.set_response(200, {"items": listed, "next": None}, "application/json")
        lines = run_against(console, cli, "credential", "list").stdout.splitlines()
    assert "  never reached the job  " in lines[1]
    assert "2026-01-31T09:40:00Z" not in lines[1]
    assert "  expired (not verified)  " in lines[2]


@pytest.mark.parametrize(
    "state, word", [("running", "not due yet"), ("awaiting_approval", "not due yet"), ("succeeded", "no access issued")]
)
def test_only_a_job_that_has_ended_is_said_to_have_been_issued_no_access(cli: Cli, state: str, word: str) -> None:
    found = job(state, "none")
    listed = {**found, "environment": "dev", "requester": "ops", "created_at": "2026-01-31T09:30:00Z", "task": "t"}
    assert aftermath.revocation_text(found) == word
    with serve_canned_answers() as console:
        console.set_response(200, {"items": [listed], "next": None}, "application/json")
        done = run_against(console, cli, "job", "list")
    assert f"  {word}  " in done.stdout


def next_steps(found: dict[str, Any]) -> str:
    return "\n".join(aftermath.job_report(found)["next"])


def test_the_advice_after_a_kill_depends_on_what_is_alive() -> None:
    assert next_steps(job("killed", "confirmed", credential("confirmed"))) == ""
    assert "Check that a worker is running: justenough doctor" in next_steps(job("running", "none", credential("issued")))
    assert "retried until it succeeds" in next_steps(job("killed", "overdue", credential("overdue")))
    assert f"justenough credential prove {JOB}" in next_steps(job("killed", "overdue", credential("overdue")))
    assert "docs/how-to/runbook.md#overdue" in next_steps(job("killed", "overdue", credential("overdue")))
    assert "has not ended yet" in next_steps(job("revoking", "confirmed", credential("confirmed")))
    kept = credential("residual", resource="helpdesk-api", revocable="never")
    assert aftermath.credential_report(kept)["next"] == aftermath.job_report(job("killed", "residual", kept))["next"]
    assert next_steps(job("killed", "residual", kept)) == (
        "The secret read from helpdesk-api stays valid until its owner changes it: docs/how-to/runbook.md#residual"
    )
    certificate = credential("residual", revocable="on_expiry")
    assert next_steps(job("killed", "residual", certificate)) == (
        "c-dev-x-1 cannot be revoked early; it is valid until 2026-01-31T09:40:00Z: docs/how-to/runbook.md#residual"
    )


LOCK = "lock in db:5432/shop: session 4711 of backup (application nightly) holds locks on what is left of the job, in a transaction since 2026-01-31T09:20:00Z"
END_SESSION = "(psql -h db -p 5432 -d shop -U SUPERUSER) and end it: SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE pid = 4711 AND "


def test_if_a_session_holds_a_lock_the_advice_is_to_end_it_and_not_to_kill_or_sweep_again(cli: Cli) -> None:
    found = job("succeeded", "overdue", credential("overdue", why=f"{LOCK}; space in db:5432/shop: space-j-dev-x"))
    found["revocation"]["failures"] = [LOCK, "space in db:5432/shop: space-j-dev-x"]
    steps = [next_steps(found), "\n".join(aftermath.credential_report(found["credentials"][0])["next"])]
    with serve_canned_answers() as console:
        report = {"job": JOB, "dead": False, "revoked": False, "findings": [], "failures": [], "at": None}
        console.routes.update({f"/jobs/{JOB}/prove": (200, report), f"/jobs/{JOB}": (200, found)})
        swept = {"looked_at": 1, "revoked": [], "lost": [], "unknown": [], "failures": [f"{JOB}: {LOCK}; more"], "at": None}
        console.routes["/sweep"] = (200, swept)
        steps += [run_against(console, cli, "credential", "prove", JOB).stderr, run_against(console, cli, "sweep").stderr]
    for text in steps:
        assert END_SESSION in text
        assert re.search(r"interval '1s';$", text, re.MULTILINE), "nothing follows the statement on its line"
        assert "docs/how-to/runbook.md#overdue" in text
        assert not re.search("job kill|justenough sweep|doctor", text)


@pytest.mark.parametrize(
    "until, said",
    [("2026-01-31T09:40:00Z", "valid until 2026-01-31T09:40:00Z"), (None, "valid until changed by the owner")],
)
def test_a_kill_that_leaves_a_residual_credential_says_until_when_and_exits_with_9(cli: Cli, until: str | None, said: str) -> None:
    found = job("killed", "residual", credential("confirmed"), credential("residual", 2, revocable="on_expiry"))
    found["revocation"]["residual_until"] = until
    with serve_canned_answers() as console:
        answer_kill(console, found)
        done = run_against(console, cli, "job", "kill", JOB)
    assert done.exit_code == 9
    assert done.stdout.splitlines()[-1] == f"{JOB}: killed; 1 of 2 credentials are revoked or expired; 1 cannot be revoked early: {said}"


def test_a_proof_lists_residual_credentials_separately_and_exits_with_9(cli: Cli) -> None:
    value = {"what": "value of c-dev-x-1", "alive": True, "detail": "valid", "credential": "c-dev-x-1", "residual": True}
    gone = {"what": "token a", "alive": False, "detail": "unknown to Vault", "credential": "c-dev-x-1"}
    with serve_canned_answers() as console:
        report = {"job": JOB, "dead": False, "revoked": True, "findings": [gone, value], "failures": [], "at": None}
        console.routes.update({f"/jobs/{JOB}/prove": (200, report), f"/jobs/{JOB}": (200, job("killed", "residual"))})
        done = run_against(console, cli, "credential", "prove", JOB)
    assert done.exit_code == 9
    assert "still valid" in done.stdout
    assert done.stdout.splitlines()[-1] == f"{JOB}: all that can be revoked is revoked, but 1 credential is still valid"
    assert "runbook.md#residual" in done.stderr
    assert "job kill" not in done.stderr


def test_a_list_shows_no_date_for_a_value_that_only_its_owner_can_end(cli: Cli) -> None:
    listed = [credential("residual", revocable="never"), credential("residual", 2, revocable="on_expiry")]
    with serve_canned_answers() as console:
        console.set_response(200, {"items": listed, "next": None}, "application/json")
        done = run_against(console, cli, "credential", "list")
    (header, endless, lapsing) = (re.split(" {2,}", line) for line in done.stdout.splitlines())
    column = header.index("EXPIRES")
    assert (endless[column], lapsing[column]) == ("never", "2026-01-31T09:40:00Z")


@pytest.mark.parametrize(
    "typed, state",
    [
        *[("active", "issued"), ("issued", "issued"), ("revoked (verified)", "confirmed"), ("revoked-verified", "confirmed")],
        *[("verified", "confirmed"), ("cannot-be-revoked-early", "residual"), ("still valid", "residual")],
        *[("confirmed", "confirmed"), ("revoked", "revoked"), ("Overdue", "overdue"), ("overdue: may still work", "overdue")],
    ],
)
def test_credentials_are_listed_by_the_pages_word_or_the_apis_name_of_a_state_and_shown_in_the_pages_word(
    cli: Cli, typed: str, state: str
) -> None:
    listed = {"items": [credential(state)], "next": None}
    with serve_canned_answers() as console:
        console.set_response(200, listed, "application/json")
        table = run_against(console, cli, "credential", "list", "--state", typed)
        whole = run_against(console, cli, "credential", "list", "--state", typed, form="json")
    assert {request.path.partition("?")[2] for request in console.requests if "?" in request.path} == {f"state={state}"}
    assert f"  {state_word('credential', state)}  " in table.stdout
    assert json.loads(whole.stdout) == listed


@pytest.mark.parametrize("typed", ["verified", "confirmed", "no access left", "no-access-left"])
def test_jobs_whose_access_is_verified_as_revoked_can_be_listed(cli: Cli, typed: str) -> None:
    with serve_canned_answers() as console:
        console.set_response(200, {"items": [], "next": None}, "application/json")
        assert run_against(console, cli, "job", "list", "--revocation", typed).exit_code == 0
    assert "revocation=confirmed" in console.requests[-1].path


@pytest.mark.parametrize(
    "arguments, allowed",
    [
        (
            ("credential", "list", "--state", "alive"),
            "active, revoking, revoked, revoked-verified, overdue, still-valid, expired-not-verified",
        ),
        (("job", "list", "--state", "alive"), "pending, awaiting-approval, running, revoking, succeeded"),
        (("job", "list", "--revocation", "none"), "not-yet-verified, no-access-left, still-valid-in-part, overdue"),
        (("request", "list", "--state", "alive"), "pending, allowed-by-policy, approved, denied, expired, withdrawn"),
    ],
)
def test_an_unknown_state_is_refused_with_the_words_that_there_are(cli: Cli, arguments: tuple[str, ...], allowed: str) -> None:
    done = cli.run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{arguments[2]}: there is no state '{arguments[3]}'; the states are {allowed}" in done.stderr


def run_against(console: CannedServer, cli: Cli, *arguments: str, form: str = "table") -> Any:
    return cli.run(*arguments, "-o", form, "--console-url", console.address)


def answer_kill(console: CannedServer, found: dict[str, Any], note: str | None = None) -> None:
    """Have a console take a kill and show this job."""
    console.set_response(200, {"items": [], "next": None}, "application/json")
    stopping = {"id": JOB, "state": "running", "note": note}
    console.routes.update({f"/jobs/{JOB}/kill": (202, stopping), f"/jobs/{JOB}": (200, found)})


def test_a_kill_that_is_not_confirmed_in_time_says_what_is_alive_and_why_and_exits_with_9(cli: Cli) -> None:
    with serve_canned_answers() as console:
        answer_kill(console, job("revoking", "overdue", credential("confirmed"), credential("overdue", 2, why="target shop: away")))
        done = run_against(console, cli, "job", "kill", JOB, "--timeout", "1s")
    assert done.exit_code == 9
    assert done.stdout.splitlines()[-1] == f"{JOB}: revoking; 1 of 2 credentials are revoked or expired; revocation overdue"
    assert "target shop: away" in done.stdout
    assert "justenough doctor" in done.stderr


def test_credentials_beyond_those_that_the_console_lists_are_counted(cli: Cli) -> None:
    found = {**job("killed", "confirmed", credential("confirmed")), "older_credentials": 1234}
    assert aftermath.job_verdict(aftermath.job_report(found)) == f"{JOB}: killed; 1,235 of 1,235 credentials are revoked or expired"
    with serve_canned_answers() as console:
        answer_kill(console, found)
        killed = run_against(console, cli, "job", "kill", JOB, "--timeout", "10s")
    assert killed.stdout.splitlines()[-1] == f"{JOB}: killed; 1,235 of 1,235 credentials are revoked or expired"


def test_a_kill_that_no_worker_handles_exits_with_9_if_something_is_alive_and_otherwise_with_7(cli: Cli) -> None:
    with serve_canned_answers() as console:
        answer_kill(console, job("running", "none", credential("issued")))
        alive = run_against(console, cli, "job", "kill", JOB, "--timeout", "1s")
        answer_kill(console, job("pending", "none"))
        nothing = run_against(console, cli, "job", "kill", JOB, "--timeout", "1s")
    assert (alive.exit_code, nothing.exit_code) == (9, 7)
    assert "Check that a worker is running" in alive.stderr


def test_a_kill_without_a_workflow_says_what_was_done_instead(cli: Cli) -> None:
    with serve_canned_answers() as console:
        answer_kill(console, job("killed", "confirmed"), note="its workflow is gone; a sweep was started")
        done = run_against(console, cli, "job", "kill", JOB)
    assert done.exit_code == 0
    assert f"{JOB}: its workflow is gone; a sweep was started" in done.stderr
    assert done.stdout == f"{JOB}: killed; no credentials were issued\n"


def test_a_kill_that_does_not_wait_says_where_to_look(cli: Cli) -> None:
    with serve_canned_answers() as console:
        answer_kill(console, job("running", "none"))
        done = run_against(console, cli, "job", "kill", JOB, "--no-wait")
        both = run_against(console, cli, "job", "kill", JOB, "--no-wait", "--timeout", "5s")
    assert (done.exit_code, both.exit_code) == (0, 2)
    assert f"justenough job show {JOB}" in done.stderr


def test_a_credential_that_could_not_be_ended_says_why_and_what_to_do(cli: Cli) -> None:
    with serve_canned_answers() as console:
        console.set_response(202, credential("overdue", why="target shop: away"), "application/json")
        table = run_against(console, cli, "credential", "revoke", "c-dev-x-1")
        whole = run_against(console, cli, "credential", "revoke", "c-dev-x-1", form="json")
    assert table.exit_code == whole.exit_code == 9
    assert "target shop: away" in table.stdout
    assert "justenough credential revoke c-dev-x-1" in table.stderr
    assert f"justenough job kill {JOB}" in table.stderr
    assert '"dead": false' in whole.stdout


def test_checks_that_failed_are_listed_apart_from_what_is_alive_and_what_is_dead(cli: Cli) -> None:
    findings = [
        {"what": "lease database/x", "alive": True, "detail": "alive", "credential": "c-dev-x-1"},
        {"what": "token a", "alive": False, "detail": "unknown to Vault", "credential": "c-dev-x-1"},
    ]
    with serve_canned_answers() as console:
        report = {"job": JOB, "dead": False, "findings": findings, "failures": ["target h:1/shop: away"], "at": None}
        console.routes.update({f"/jobs/{JOB}/prove": (200, report), f"/jobs/{JOB}": (200, job("running", "none"))})
        done = run_against(console, cli, "credential", "prove", JOB)
    assert done.exit_code == 9
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[1] == ["c-dev-x-1", "lease", "database/x", "active", "alive"]
    assert lines[3] == ["target", "h:1/shop", "unknown", "away"]
    assert f"justenough job kill {JOB}" in done.stderr


def test_a_sweep_says_what_it_did_per_job_and_credential(cli: Cli) -> None:
    swept = {"looked_at": 4, "revoked": [JOB], "lost": [], "unknown": ["j-dev-z"], "failures": ["j-dev-y: a second look is to come"]}
    with serve_canned_answers() as console:
        console.set_response(404, {"title": "Not Found", "detail": "there is no such job"})
        shown = job("lost", "confirmed", credential("confirmed", confirmed_how="its lease is gone"))
        console.routes.update({"/sweep": (200, {**swept, "at": None}), f"/jobs/{JOB}": (200, shown)})
        table = run_against(console, cli, "sweep")
        whole = run_against(console, cli, "sweep", form="json")
    assert table.exit_code == whole.exit_code == 9
    assert f"{JOB}  revoked     c-dev-x-1" in table.stdout
    assert "its lease is gone" in table.stdout
    assert "a second look is to come" in table.stdout
    assert "j-dev-z  left alone" in table.stdout
    assert "docs/how-to/runbook.md#of-no-known-job" in table.stderr
    assert '"did": "failed"' in whole.stdout
