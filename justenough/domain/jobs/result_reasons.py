"""Why a job failed although its program may have made no mistake: the names that the ledger records, and what they mean. No I/O."""

from __future__ import annotations

from enum import StrEnum


class ResultReason(StrEnum):
    """The reason of a job's result that has a name of its own. Any other reason is a sentence, or `<error>: <sentence>`."""

    WORKER_LOST = "worker_lost"
    WORKER_STOPPED = "worker_stopped"
    NO_WORKER = "no_worker"
    NO_PLACE = "no_place"
    SERVERS_UNAVAILABLE = "servers_unavailable"
    ACCESS_CUT = "access_cut"
    WORKFLOW_GONE = "workflow_gone"


RESULT_REASON_TEXTS = {
    ResultReason.WORKER_LOST: "its worker no longer reported to Temporal",
    ResultReason.WORKER_STOPPED: "its worker was shut down while the job ran",
    ResultReason.NO_WORKER: "no worker took it in time",
    ResultReason.NO_PLACE: "it waited too long for one of its launcher's places among the running jobs",
    ResultReason.SERVERS_UNAVAILABLE: "it waited too long for a worker that reaches Vault and the store",
    ResultReason.ACCESS_CUT: "the store no longer allowed it access while it ran",
    ResultReason.WORKFLOW_GONE: "its workflow no longer waited for it",
}


def result_reason_text(reason: str | None) -> str:
    """Return a result's reason as people read it: `its worker was shut down while the job ran (worker_stopped)`. Empty for None."""
    return f"{RESULT_REASON_TEXTS[ResultReason(reason)]} ({reason})" if reason in RESULT_REASON_TEXTS else reason or ""
