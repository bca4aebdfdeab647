"""Credentials, proof, ledger, catalog and sweep from the command line."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.console.cli.conftest import Cli, write_spec
from tests.support.canned_server import serve_canned_answers
from tests.support.people import Human
from tests.support.wait import until

pytestmark = pytest.mark.servers

READ = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "Look an order up"}


def run_to_end(cli: Cli, folder: Path) -> dict[str, Any]:
    """A job that had one credential and is over."""
    path = write_spec(folder, ["true"], access=[READ], data_scope={"tenant": "acme"})
    found: dict[str, Any] = cli.json("job", "run", path, "--wait")
    return found


def test_the_access_of_an_ended_job_is_proven_dead(cli: Cli, tmp_path: Path) -> None:
    job = run_to_end(cli, tmp_path)

    proof = cli.json("credential", "prove", job["id"])
    table = cli.run("credential", "prove", job["id"])

    assert proof["dead"]
    assert any(job["credentials"][0]["lease_id"] in finding["what"] for finding in proof["findings"])
    assert {finding["alive"] for finding in proof["findings"]} == {False}
    assert job["credentials"][0]["id"] in {finding["credential"] for finding in proof["findings"]}
    assert proof["next"] == []
    assert table.stdout.splitlines()[-1] == f"{job['id']}: every credential is revoked"


def test_a_running_jobs_access_is_not_proven_dead_and_its_credential_can_be_revoked(cli: Cli, ops: Human, tmp_path: Path) -> None:
    path = write_spec(tmp_path, ["sleep", "60"], access=[READ], data_scope={"tenant": "acme"})
    job = cli.json("job", "run", path)["id"]
    ops.until(job, "running")
    credential = cli.run("credential", "list", "--live", "--job", job, "-o", "name").stdout.strip()

    assert not cli.json("credential", "prove", job, code=9)["dead"]
    revoked = cli.json("credential", "revoke", credential)
    assert (revoked["id"], revoked["state"], revoked["dead"], revoked["next"]) == (credential, "confirmed", True, [])
    assert cli.run("credential", "list", "--live", "--job", job, "-o", "name").stdout == ""
    assert ops.job(job)["state"] == "running"
    assert cli.run("job", "kill", job, "--wait").exit_code == 0


def test_the_whole_ledger_is_exported_one_entry_a_line(cli: Cli, auditor: Human, tmp_path: Path) -> None:
    job = run_to_end(cli, tmp_path)["id"]
    out = tmp_path / "ledger.jsonl"

    done = cli.run("ledger", "export", "--job", job, "--out", out, who="auditor")
    to_stdout = cli.run("ledger", "export", "--job", job, who="auditor").stdout

    assert (done.exit_code, done.stdout) == (0, "")
    exported = [json.loads(line) for line in out.read_text().splitlines()]
    texts = [entry.pop("text") for entry in exported]
    assert exported == auditor.ledger(job)
    assert [hashlib.sha256(text.encode()).hexdigest() for text in texts] == [entry["hash"] for entry in exported]
    assert out.read_text() == to_stdout
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_an_export_goes_past_one_page(cli: Cli, auditor: Human, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from console.cli.commands import ledger

    job = run_to_end(cli, tmp_path)["id"]
    monkeypatch.setattr(ledger, "PAGE_SIZE", 2)

    done = cli.run("ledger", "export", "--job", job, who="auditor")

    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [entry["seq"] for entry in auditor.ledger(job)]


def test_the_ledger_is_listed_oldest_first(cli: Cli, tmp_path: Path) -> None:
    job = run_to_end(cli, tmp_path)["id"]

    found = cli.json("ledger", "list", "--job", job, "--limit", "3")

    assert [entry["seq"] for entry in found["items"]] == [1, 2, 3]
    assert found["next"]


def test_verifying_a_sound_ledger_succeeds_and_states_the_limits_of_the_check(cli: Cli, tmp_path: Path) -> None:
    run_to_end(cli, tmp_path)

    done = cli.run("ledger", "verify", who="auditor")

    assert done.exit_code == 0
    assert done.stdout.startswith("sound: ")
    assert "not verifiable: " in done.stdout


def test_verifying_a_ledger_with_problems_exits_with_1(cli: Cli) -> None:
    problem = {"job": "j-dev-x", "seq": 3, "fault": "edited", "message": "the hash is another"}
    with serve_canned_answers() as console:
        console.set_response(200, {"entries": 3, "jobs": 1, "problems": [problem], "unseen": []}, "application/json")
        done = cli.run("ledger", "verify", "--console-url", console.address)

    assert done.exit_code == 1
    assert "1 problem: 3 entries in 1 chain" in done.stdout
    assert "edited" in done.stdout


def test_anybody_with_an_export_can_verify_the_ledger_offline(cli: Cli, alone: Cli, tmp_path: Path) -> None:
    job = run_to_end(cli, tmp_path)["id"]
    out = tmp_path / "ledger.jsonl"
    assert cli.run("ledger", "export", "--job", job, "--out", out, who="auditor").exit_code == 0

    sound = alone.run("ledger", "verify", "--offline", out)
    out.write_text(out.read_text().replace("sandbox", "sandbag"))
    altered = alone.run("ledger", "verify", "--offline", out)

    assert (sound.exit_code, sound.stdout.startswith("sound: ")) == (0, True)
    assert "not verifiable: " in sound.stdout
    assert (altered.exit_code, "edited" in altered.stdout) == (1, True)
    assert "cannot read" in alone.run("ledger", "verify", "--offline", tmp_path / "gone").stderr
    assert alone.run("ledger", "verify", "--offline", tmp_path / "gone").exit_code == 2


@pytest.fixture
def kept(cli: Cli, tmp_path: Path) -> tuple[Path, Path, Path]:
    """An export of the whole ledger, its newest checkpoint and the keys, as files."""
    run_to_end(cli, tmp_path)
    checkpoint, keys, out = (tmp_path / name for name in ("checkpoint.txt", "keys.json", "ledger.jsonl"))
    until(lambda: cli.run("ledger", "checkpoint", "--out", checkpoint, who="auditor").exit_code == 0, "a checkpoint is signed")
    assert cli.run("ledger", "keys", "--out", keys, who="auditor").exit_code == 0
    assert cli.run("ledger", "export", "--out", out, who="auditor").exit_code == 0
    return out, checkpoint, keys


def test_a_copy_is_compared_with_a_checkpoint_and_everybodys_signatures_are_verified(alone: Cli, kept: tuple[Path, Path, Path]) -> None:
    out, checkpoint, keys = kept
    verify = ("ledger", "verify", "--offline", out, "--checkpoint", checkpoint, "--keys", keys)
    sound = alone.run(*verify)
    assert (sound.exit_code, sound.stdout.startswith("sound: ")) == (0, True), sound.stdout
    lines = out.read_text().splitlines(keepends=True)
    size = int(checkpoint.read_text().splitlines()[1])
    out.write_text("".join(lines[: size - 1]))
    cut = alone.run(*verify)
    assert (cut.exit_code, "rewritten" in cut.stdout) == (1, True)
    assert f"commits to {size:,} entries, but the copy has only the first {size - 1:,}" in cut.stdout


def test_the_example_reader_of_an_export_verifies_it_too(kept: tuple[Path, Path, Path]) -> None:
    out, checkpoint, keys = kept
    reader = Path(__file__).parents[3] / "examples" / "verify-ledger" / "verify_ledger.py"
    assert len(reader.read_text().splitlines()) < 60

    def read() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, reader, out, checkpoint, keys], capture_output=True, text=True, check=False)

    assert "entries are sound and continue the checkpoint" in read().stdout
    lines = out.read_text().splitlines(keepends=True)
    size = int(checkpoint.read_text().splitlines()[1])
    edited = json.loads(lines[0])
    edited["text"] = edited["text"].replace("j-dev", "j-prod")
    for changed in (lines[: size - 1], [json.dumps(edited) + "\n", *lines[1:]], [lines[1], lines[0], *lines[2:]]):
        out.write_text("".join(changed))
        assert read().returncode == 1


@pytest.mark.parametrize("option", ["--checkpoint", "--keys"])
def test_an_invalid_checkpoint_or_key_is_reported_as_such(alone: Cli, kept: tuple[Path, Path, Path], option: str) -> None:
    out, *_ = kept
    done = alone.run("ledger", "verify", "--offline", out, option, out)
    assert done.exit_code == 2
    assert "as `justenough ledger checkpoint` writes it" in done.stderr or "`justenough ledger keys` writes" in done.stderr
    online = alone.run("ledger", "verify", option, out)
    assert (online.exit_code, "--offline" in online.stderr) == (2, True)


def test_a_proven_job_can_be_attested_and_a_running_one_cannot(cli: Cli, ops: Human, tmp_path: Path) -> None:
    job, out, keys = run_to_end(cli, tmp_path), tmp_path / "proof.json", tmp_path / "keys.json"
    assert cli.run("credential", "prove", job["id"], "--attest", out).exit_code == 0
    envelope = json.loads(out.read_text())
    payload = base64.b64decode(envelope["payload"])
    statement = json.loads(payload)
    assert (statement["_type"], statement["predicate"]["verdict"]) == ("https://in-toto.io/Statement/v1", "revoked")
    (subject,) = statement["subject"]
    issued = next(entry for entry in ops.ledger(job["id"]) if entry["type"] == "credential.issued")
    assert subject == {"name": job["credentials"][0]["id"], "digest": {"sha256": issued["hash"]}}
    assert any(job["credentials"][0]["lease_id"] in seen["checked"] for seen in statement["predicate"]["observations"])
    assert cli.run("ledger", "keys", "--out", keys, who="auditor").exit_code == 0
    (signature,) = envelope["signatures"]
    message = f"DSSEv1 28 {envelope['payloadType']} {len(payload)} ".encode() + payload
    public = [base64.b64decode(key["public_key"]) for key in json.loads(keys.read_text())["checkpoint_keys"]]
    Ed25519PublicKey.from_public_bytes(public[-1]).verify(base64.b64decode(signature["sig"]), message)

    running = cli.json("job", "run", write_spec(tmp_path, ["sleep", "60"], access=[READ], data_scope={"tenant": "acme"}))["id"]
    ops.until(running, "running")
    out.unlink()
    refused = cli.run("credential", "prove", running, "--attest", out)
    assert (refused.exit_code, out.exists()) == (9, False)
    assert "error: no attestation was written" in refused.stderr
    assert cli.run("job", "kill", running, "--wait").exit_code == 0


def test_a_job_without_credentials_is_proven_but_has_nothing_to_attest(cli: Cli, tmp_path: Path) -> None:
    job, out = cli.json("job", "run", write_spec(tmp_path, ["true"]), "--wait")["id"], tmp_path / "proof.json"
    out.write_text("of another job")

    done = cli.run("credential", "prove", job, "--attest", out, "-q")

    assert (done.exit_code, out.read_text()) == (1, "of another job")
    assert done.stdout.splitlines()[-1] == f"{job}: every credential is revoked"
    assert done.stderr == "error: no attestation was written: the job was never issued a credential\n"


def test_a_person_who_may_not_read_everything_cannot_verify_the_ledger(cli: Cli) -> None:
    assert cli.run("ledger", "verify").exit_code == 6


def test_a_sweep_can_be_run_from_the_command_line(cli: Cli) -> None:
    found = cli.run("sweep", "-o", "json", who="lead")

    assert found.exit_code in {0, 9}
    assert set(json.loads(found.stdout)) >= {"looked_at", "revoked", "lost", "unknown", "failures"}


def test_a_sweep_that_could_not_revoke_exits_with_9(cli: Cli) -> None:
    failures = ["j-dev-x: the target is down"]
    report = {"looked_at": 1, "revoked": [], "lost": [], "unknown": [], "failures": failures, "unlisted": 2_000, "at": None}
    with serve_canned_answers() as console:
        console.set_response(200, report, "application/json")
        done = cli.run("sweep", "--console-url", console.address)

    assert done.exit_code == 9
    assert "the target is down" in done.stdout
    assert "Not listed: 2,000 jobs\n" in done.stdout


def test_a_sweep_that_waits_for_its_second_check_is_not_called_failed(cli: Cli) -> None:
    report = {"looked_at": 1, "revoked": [], "lost": [], "unknown": [], "failures": ["j-dev-x: a second check is pending"], "at": None}
    with serve_canned_answers() as console:
        console.set_response(200, report, "application/json")
        done = cli.run("sweep", "--console-url", console.address)

    assert done.exit_code == 9
    assert ("Failed:  0\n" in done.stdout, "Waiting: 1\n" in done.stdout) == (True, True)
    assert ("second check" in done.stderr, "which server is down" in done.stderr) == (True, False)


def test_the_catalog_of_the_console_is_listed(cli: Cli, ops: Human) -> None:
    assert cli.json("catalog", "list") == ops.api.get("catalog").json()
    names = cli.run("catalog", "list", "-o", "name").stdout.split()
    assert {"orders-db", "refunds-db", "customers-db", "helpdesk-api", "export-api"} <= set(names)
    assert "confidential" in cli.run("catalog", "list").stdout


def test_catalog_show_names_the_people_who_can_approve(cli: Cli, ops: Human) -> None:
    assert cli.json("catalog", "show", "refunds-db") == ops.api.get("resources/refunds-db").json()
    shown = [line.split() for line in cli.run("catalog", "show", "refunds-db:write").stdout.splitlines()]
    assert ["write", "tier", "1", "10m", "now", "write-at-tier-1"] in shown
    assert ["1", "(owner)", "1", "support-leads", "(lead)"] in shown
    unknown = cli.run("catalog", "show", "refund-db")
    assert (unknown.exit_code, "did you mean 'refunds-db'?" in unknown.stderr) == (5, True)


def test_tools_that_the_console_withholds_are_listed_with_the_reason(cli: Cli) -> None:
    with serve_canned_answers() as console:
        console.set_response(200, {"resources": [], "withheld": [{"upstream": "hub", "why": "hub: its tools are not pinned\x1b[2J"}]})
        done = cli.run("catalog", "list", "--console-url", console.address)

    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "warning: hub: its tools are not pinned\\x1b[2J")


def test_a_search_that_is_not_complete_says_so(cli: Cli) -> None:
    with serve_canned_answers() as console:
        console.set_response(200, {"query": "x", "hits": [], "suggestions": [], "is_partial": True, "is_indexed": False})
        done = cli.run("find", "x", "--console-url", console.address)

    assert (done.exit_code, done.stderr.splitlines()[1:]) == (
        0,
        [
            "Only the newest of the jobs that you may read were searched for words. An id, a name or a rarer word finds older ones.",
            "Older entries are still being indexed. Search again later.",
        ],
    )


def test_a_checkpoint_that_does_not_exist_yet_is_an_error_and_no_empty_file(cli: Cli, tmp_path: Path) -> None:
    with serve_canned_answers() as console:
        console.set_response(200, {"checkpoint": ""})
        done = cli.run("ledger", "checkpoint", "--out", tmp_path / "checkpoint", "--console-url", console.address, who="auditor")

    assert done.exit_code == 1
    assert done.stderr == "error: there is no checkpoint yet; the console signs one within a minute of the first entry\n"
    assert list(tmp_path.iterdir()) == []


def test_find_accepts_database_users_id_beginnings_and_names(cli: Cli, tmp_path: Path) -> None:
    job = run_to_end(cli, tmp_path)["id"]
    found = cli.json("find", f"XX0bDqLP-token-{job}-orders-read-acm")
    assert [(hit["kind"], hit["id"]) for hit in found["hits"]] == [("job", job)]
    assert cli.run("find", job[:-2], "-o", "name").stdout == f"{job}\n"
    table = cli.run("find", "orders-db")
    assert [line.split()[:2] for line in table.stdout.splitlines()][:2] == [["KIND", "FOUND"], ["resource", "orders-db"]]


def test_a_search_without_result_suggests_a_similar_name(cli: Cli) -> None:
    nothing = cli.run("find", "orders-bd")
    assert nothing.stdout == ""
    assert "No results that you may read for 'orders-bd'. Did you mean orders-db" in nothing.stderr
    empty = cli.run("find", " ")
    assert (empty.exit_code, empty.stderr) == (2, "error: the text is empty; give an id, a name or a word\n")
