"""approvals.yaml: tiers, their approvers, quorums and deadlines, and the roles. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import Field, field_validator

from justenough.domain.approvals.statements import MAX_STATEMENT_LIFETIME
from justenough.domain.core.base_model import Message, Model
from justenough.domain.core.errors import InvalidInput, Problem, raise_problems, reject_if
from justenough.domain.core.units import Duration, duration_text
from justenough.domain.core.untrusted_yaml import read_yaml, validate_model
from justenough.domain.jobs.spec import Name

APPROVALS_FILE = "approvals.yaml"
MAX_TIER = 3
MAX_WAIT_S = int((MAX_STATEMENT_LIFETIME - timedelta(days=1)).total_seconds())
"""How long all tiers together may take: a job starts, and its approvals count, only while their signatures are valid."""


class Tier(Model):
    """The approvers of one tier, their quorum, and how long they have to respond."""

    name: Name
    approvers: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Groups."""
    quorum: Annotated[int, Field(ge=1, le=20)] = 1
    """Distinct people."""
    respond_within: Annotated[Duration, Field(le=MAX_WAIT_S)]
    """Seconds."""


def seconds_to_pass(tiers: Mapping[int, Tier]) -> int:
    """Return the seconds after which a request that nobody decides has passed every tier."""
    return sum(tier.respond_within for tier in tiers.values())


class Roles(Model):
    """The groups that may launch jobs, read all jobs, and use break-glass."""

    launch: tuple[Name, ...] = ()
    read: tuple[Name, ...] = ()
    break_glass: tuple[Name, ...] = ("break-glass",)
    """May approve alone, with a reason; each use is reviewed afterwards."""


class Tiers(Model):
    """approvals.yaml: the tiers from 1 up, without a gap, and the roles."""

    roles: Roles = Roles()
    tiers: Mapping[Annotated[int, Field(ge=1, le=MAX_TIER)], Tier]

    @field_validator("tiers")
    @classmethod
    def _check_tiers(cls, tiers: Mapping[int, Tier]) -> Mapping[int, Tier]:
        reject_if(sorted(tiers) != list(range(1, len(tiers) + 1)), f"tiers must be numbered 1, 2, … without a gap; found {sorted(tiers)}")
        wait = seconds_to_pass(tiers)
        most = f"signatures are valid for {MAX_STATEMENT_LIFETIME.days} days, and the job must start before they end"
        reject_if(
            wait > MAX_WAIT_S, f"all tiers' respond_within add up to {duration_text(wait)}, more than {duration_text(MAX_WAIT_S)}: {most}"
        )
        return tiers

    @property
    def top(self) -> int:
        """The highest tier; 0 if there is none."""
        return max(self.tiers, default=0)

    def tier_of(self, groups: frozenset[str]) -> int:
        """Return the highest tier at which a member of these groups may approve; 0 for none."""
        return max((number for number, tier in self.tiers.items() if groups & set(tier.approvers)), default=0)

    def respond_by(self, tier: int, *, now: datetime) -> datetime:
        """Return the deadline of a tier that opens now."""
        return now + timedelta(seconds=self.tiers[tier].respond_within)

    @property
    def approver_groups(self) -> frozenset[str]:
        """Every group that approves at some tier."""
        return frozenset(group for tier in self.tiers.values() for group in tier.approvers)

    @property
    def reading_groups(self) -> frozenset[str]:
        """Every group whose members may read every job."""
        return self.approver_groups | {*self.roles.read, *self.roles.break_glass}


class Person(Message):
    """A person's current data in Vault: an enabled entity with an alias on a people mount."""

    id: str
    """Vault entity id."""
    name: str
    """Login name."""
    groups: frozenset[str] = frozenset()


def read_tiers(text: str | bytes) -> Tiers:
    """Parse and check approvals.yaml; raise InvalidInput with every problem by path."""
    raw: Any = read_yaml(APPROVALS_FILE, text)
    if not isinstance(raw, dict):
        raise InvalidInput(APPROVALS_FILE, (Problem("", "must be a mapping with `roles` and `tiers`"),))
    problems: tuple[Problem, ...] = ()
    if isinstance(raw.get("tiers"), dict):
        # Keys are still text here, so that a problem's path names them as they are written.
        numbered = {key: value for key, value in raw["tiers"].items() if key in map(str, range(1, MAX_TIER + 1))}
        problems = tuple(Problem(f"tiers.{key}", f"tiers are numbered 1 to {MAX_TIER}") for key in raw["tiers"] if key not in numbered)
        raw = {**raw, "tiers": numbered}
    try:
        tiers = validate_model(APPROVALS_FILE, Tiers, raw)
    except InvalidInput as error:
        raise InvalidInput(APPROVALS_FILE, (*problems, *error.problems)) from error
    raise_problems(APPROVALS_FILE, problems)
    return tiers
