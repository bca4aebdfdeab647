"""An attestation names only credentials that the check covered. If there is none, the reason is given."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from console.services.attestations import attest
from justenough.adapters.store import Store
from justenough.domain.contracts.workflow_messages import Finding, ProofReport
from justenough.services.dependencies import Deps
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import JOB, NOW, part_id
from tests.console.served_console import Served

pytestmark = pytest.mark.servers
CHECKED = part_id(JOB, "c")
NOT_COVERED = "the check did not cover 1 of the job's credentials as the ledger records them"


@pytest.fixture
def deps(served: Served, tmp_path: Path) -> Iterator[Deps]:
    """The console's Vault, and a store of the test's own with a job that had a credential."""
    with closing(Store(f"sqlite:///{tmp_path / 'store.db'}")) as store:
        store.migrate()
        store.ledger.append([samples.submission(), samples.issuance()])
        yield replace(served.console.deps, store=store)


def report(*, dead: bool = True, credential: str = CHECKED) -> ProofReport:
    checked = ("lease database/creds/orders-write/abc", "token acc-1")
    findings = tuple(Finding(what=what, alive=not dead, credential=credential) for what in checked)
    return ProofReport(job=JOB, dead=dead, findings=findings, at=NOW, covers_ledger=True)


def test_an_attestation_names_each_credential_that_was_checked(deps: Deps) -> None:
    made = attest(deps, report())
    assert made.envelope is not None
    assert made.why_none is None
    statement = json.loads(base64.b64decode(made.envelope.payload))
    assert [subject["name"] for subject in statement["subject"]] == [CHECKED]


def test_no_attestation_is_made_while_a_credential_may_be_alive(deps: Deps) -> None:
    made = attest(deps, report(dead=False))
    assert (made.envelope, made.why_none) == (None, "not every credential of the job is revoked")


def test_no_attestation_is_made_if_a_credential_was_issued_after_the_check_or_not_checked_again(deps: Deps) -> None:
    made = attest(deps, report(credential="c-dev-another-1"))
    assert (made.envelope, made.why_none) == (None, NOT_COVERED)


def test_no_attestation_is_made_of_a_check_by_a_worker_that_reads_only_the_stores_tables(deps: Deps) -> None:
    """Workers of earlier versions make such checks, and may still run beside this console."""
    by_older = ProofReport.model_validate(report().model_dump(exclude={"covers_ledger"}))
    made = attest(deps, by_older)
    assert (made.envelope, made.why_none) == (None, "a worker of an earlier version made the check; upgrade all workers")


def test_no_attestation_is_made_for_a_job_without_credentials(deps: Deps) -> None:
    made = attest(deps, report().model_copy(update={"job": "j-dev-none"}))
    assert (made.envelope, made.why_none) == (None, "the job was never issued a credential")
