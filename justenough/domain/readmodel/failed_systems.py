"""Groups overdue revocations by the system that prevents their verification, and advises what to do. No I/O, no clock.

The rows follow the table in docs/how-to/runbook.md#overdue.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from justenough.domain.core.base_model import Message
from justenough.domain.ledger.overdue import end_session_advice
from justenough.domain.readmodel.dashboard import OverdueCredential, OverdueJob


class FailedSystem(Message):
    """One system, and the revocations that wait for it."""

    name: str
    advice: str
    """What to do, in a sentence or two."""
    failures: tuple[str, ...]
    """The errors of the system, or of the step that needs it, without duplicates."""
    since: datetime
    """When the oldest revocation that waits for the system began."""
    jobs: tuple[OverdueJob, ...]
    """The oldest first."""

    @property
    def credentials(self) -> tuple[OverdueCredential, ...]:
        """The credentials that may be active."""
        return tuple(credential for job in self.jobs for credential in job.credentials)


class _Rule(NamedTuple):
    pattern: str
    """Matches the beginning of a failure; its group `name` completes the system's name."""
    system: str
    advice: str
    distance: int = 0
    """How far it is from the cause: only a job's failures nearest to the cause count."""


START_TARGET = "Start the database, or open its network to Vault and to the workers."
DROP_BY_HAND = "The next attempt ends what is left there. If it cannot, do so by hand: the runbook has the statements."
UNSEARCHABLE = "Wait until the time that the message names, or look for such users in the target and drop them."
RULES = (
    _Rule(r"lock in (?P<name>\S+): ", "Target", "See which session holds a lock there: the runbook has the query.", distance=-1),
    _Rule(r"(targets|c-\S+): .*no valid configuration", "Workers", "Fix the workers' configuration: until then they know no targets."),
    # Vault makes the observer's user in the target, so this is the target's failure unless Vault answers nothing else either.
    _Rule(r"target (?P<name>\S+): Vault at \S+ did not answer", "Target", START_TARGET, distance=1),
    _Rule(r"target (?P<name>\S+): ", "Target", START_TARGET),
    _Rule(r"(users|space) in (?P<name>\S+): ", "Target", DROP_BY_HAND),
    _Rule(r"c-\S+: ", "Targets that cannot be searched", UNSEARCHABLE),
    _Rule(r"certificate (?P<name>\S+?)/cert/", "Vault's CRL at", "Rebuild it: bao read MOUNT/crl/rotate."),
    _Rule(r"the store: ", "Store", "Check JUSTENOUGH_DATABASE_URL and that database."),
    _Rule(r".*is sealed|.*answered 50[13]", "Vault", "Unseal it: bao operator unseal."),
    # Vault ends a user in its target, for which it may have to wait.
    _Rule(
        r"(lease \S+|the job's tokens): .*(answered 5|did not answer \(Read)",
        "Vault",
        "Vault could not end the lease. Start the database that issued it; or rotate Vault's own login there (bao read database/config/NAME).",
        distance=2,
    ),
    _Rule(r".*Vault at \S+ did not answer", "Vault", "Start it, or open its network to the workers."),
    _Rule(r".*answered 403|.*permission denied", "Vault", "Give the worker its policy again: justenough vault setup."),
    _Rule(r"no result after", "A step that hangs", "See the workers' log for the step that began last.", distance=3),
)
OTHER = _Rule("", "Other failures", "See the job's page for each message, and the runbook for its meaning.", distance=3)


def group_by_system(jobs: Iterable[OverdueJob]) -> tuple[FailedSystem, ...]:
    """Return the systems for which these jobs wait, worst first: by the number of credentials that cannot be verified."""
    rules: dict[str, _Rule] = {}
    failures: dict[str, dict[str, None]] = {}
    waiting: dict[str, dict[str, OverdueJob]] = {}
    for job in sorted(jobs, key=lambda job: job.since):
        for system, rule, failure in _causes(job.failures or ("no result yet",)):
            rules.setdefault(system, rule)
            failures.setdefault(system, {})[failure] = None
            waiting.setdefault(system, {})[job.id] = job
    systems = [
        FailedSystem(
            name=system,
            advice=end_session_advice(failures[system]) or rules[system].advice,
            failures=tuple(failures[system]),
            since=min(job.since for job in theirs.values()),
            jobs=tuple(theirs.values()),
        )
        for system, theirs in waiting.items()
    ]
    return tuple(sorted(systems, key=lambda found: (-len(found.credentials), -len(found.jobs), found.since)))


def _causes(failures: Sequence[str]) -> list[tuple[str, _Rule, str]]:
    """Return system, rule and text of the failures of one job that are nearest to their cause."""
    found = []
    for failure in failures:
        matches = ((rule, re.match(rule.pattern, failure)) for rule in RULES)
        rule, match = next(((rule, match) for rule, match in matches if match), (OTHER, None))
        name = match.groupdict().get("name") if match else None
        found.append((f"{rule.system} {name}" if name else rule.system, rule, failure))
    nearest = min(rule.distance for _, rule, _ in found)
    return [item for item in found if item[1].distance == nearest]
