"""Thousands of courses of answers, honest and not: nothing is ever granted without enough distinct people who may say so, and did.

Each course sends signed answers to one request (double, late, self, replayed, forged, taken back, for others, for something else) while
people change groups, delegations come and go, time passes and the request climbs. At any moment somebody may bring everything that was
ever signed, in any order, to where it is issued. Whether that may be is counted here again, from who did what alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from justenough.domain.approvals import statements, verification
from justenough.domain.approvals.ladder import Ladder
from justenough.domain.approvals.statements import DecisionStatement, DelegationStatement, SignedStatement, to_signable
from justenough.domain.approvals.tiers import Person, Roles, Tier, Tiers
from justenough.domain.approvals.verification import ApprovalVerifier, RequestTally
from justenough.domain.core.canonical_json import to_canonical_json
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.states import Action
from tests.support.domain_samples import JOB, NOW
from tests.support.signing_keys import public_key, vault_signature

COURSES = 5_000
REQUEST = "r-dev-01kg9b4zv0e8r2m6x3c5n7p9qa-1"
DIGESTS = tuple(f"sha256:{letter * 64}" for letter in "ab")
LIFE = timedelta(hours=6)
GROUPS = {
    "ops": {"ops", "leads"},
    "lead": {"leads"},
    "lead2": {"leads"},
    "security": {"security"},
    "chief": {"chiefs"},
    "chief2": {"chiefs"},
    "glass": {"break-glass"},
    "outsider": {"else"},
}
NAMES = tuple(GROUPS)
LAUNCHER = "ops"
ROLES = Roles(launch=("ops",))


def tiers_of(quorum: int) -> Tiers:
    many = {1: ("leads", quorum), 2: ("security", 1), 3: ("chiefs", 2)}
    made = {n: Tier(name=f"t{n}", approvers=(group,), quorum=needed, respond_within=3600) for n, (group, needed) in many.items()}
    return Tiers(roles=ROLES, tiers=made)


TIERS = {1: tiers_of(1), 2: tiers_of(2)}


@dataclass(frozen=True)
class Act:
    """One thing that somebody really signed, or that somebody made up."""

    signer: str
    signed: SignedStatement
    genuine: bool = True

    @property
    def statement(self) -> Mapping[str, Any]:
        return self.signed.statement


@lru_cache(maxsize=200_000)
def build_act(
    signer: str,
    decision: Literal["approve", "deny", "withdraw", "break_glass"],
    ttl: int,
    action: Action,
    digest: str,
    absent: str | None,
    at: datetime,
    forged: str,
) -> Act:
    statement = DecisionStatement.model_construct(
        job=JOB,
        request=REQUEST,
        digest=digest,
        decision=decision,
        ttl=ttl,
        action=action,
        reason="because",
        person="lead" if forged == "name" else signer,
        on_behalf_of=absent,
        issued_at=at,
        expires_at=at + LIFE,
    )
    raw = to_signable(statement)
    signature = vault_signature(signer, to_canonical_json(raw))
    if forged == "field":
        raw = {**raw, "decision": "approve", "ttl": 601 - ttl}
    return Act(signer, SignedStatement(statement=raw, signature=signature), genuine=not forged)


@dataclass
class World:
    """The people and what happened, independent of the code under test."""

    tiers: Tiers
    now: datetime = NOW
    digest: str = DIGESTS[0]
    away: set[str] = field(default_factory=set)
    """People who have left their groups or are disabled."""
    delegations: dict[tuple[str, str], tuple[datetime, SignedStatement]] = field(default_factory=dict)
    ended: set[tuple[str, str]] = field(default_factory=set)
    sent: list[Act] = field(default_factory=list)

    def person(self, entity: str) -> Person | None:
        if entity not in GROUPS or (entity in self.away and len(entity) % 2):
            return None
        return Person(id=entity, name=entity, groups=frozenset() if entity in self.away else frozenset(GROUPS[entity]))

    def public_keys(self, entity: str) -> Mapping[int, bytes]:
        return {1: public_key(entity)}

    def delegation(self, person: str, delegate: str, *, at: datetime) -> SignedStatement | None:
        assert at == self.now
        made = self.delegations.get((person, delegate))
        return made[1] if made and (person, delegate) not in self.ended else None

    @property
    def table(self) -> ApprovalVerifier:
        return ApprovalVerifier(self, self.tiers, self.now)

    def tier(self, who: str) -> int:
        return 0 if who in self.away else self.tiers.tier_of(frozenset(GROUPS[who]))


@dataclass
class Request:
    """What a worker, its ledger and then a session know about one request."""

    standing: RequestTally
    climbed_out: bool = False
    settled: str = ""
    """Once recorded, for good."""
    took_back: set[str] = field(default_factory=set)

    def send(self, world: World, one: Act) -> None:
        after = self.standing.with_signed(world.table, JOB, one.signed)
        if not isinstance(after, Rejection) and not self.climbed_out:
            self.standing = after
            self.took_back |= {one.signer} if one.statement["decision"] == "withdraw" else set()
            self.settled = after.verdict if after.verdict in {"denied", "withdrawn"} else self.settled

    def climb(self, world: World) -> None:
        if self.standing.verdict == "pending" and not self.climbed_out:
            higher = self.standing.ladder.to_next_tier(world.tiers, now=world.now)
            self.climbed_out = higher is None
            self.standing = replace(self.standing, ladder=higher or self.standing.ladder)

    def ladder_to_issue(self, world: World, acts: Iterable[Act]) -> Ladder | None:
        """What a session does with whatever answers it is brought: it counts them anew, by what the ledger says of the request."""
        known = self.standing.ladder
        fresh = known.model_copy(update={"answers": (), "digest": world.digest})
        ladder, _ = world.table.recount_answers(JOB, fresh, (one.signed for one in acts))
        fine = ladder.verdict(world.tiers) == "approved" and not self.settled and not self.climbed_out
        return ladder if fine else None


def voices_for(world: World, request: Request, acts: Iterable[Act]) -> Iterator[str]:
    """Whoever may approve now, and really signed that they do: counted from who did what, not by the code under test."""
    ladder = request.standing.ladder
    for one in acts:
        said, signer = one.statement, one.signer
        current = datetime.fromisoformat(str(said["issued_at"])) + LIFE > world.now
        theirs = one.genuine and said["person"] == signer and said["digest"] == world.digest and current
        if not theirs or signer == LAUNCHER or signer in request.took_back or said["decision"] != "approve":
            continue
        absent = said.get("on_behalf_of")
        if absent is not None:
            made = world.delegations.get((absent, signer))
            if made is None or (absent, signer) in world.ended or made[0] <= world.now or absent == LAUNCHER:
                continue
            # The delegate may have decided before the request escalated.
            if world.tier(absent) < ladder.needed:
                continue
        if world.tier(signer) >= ladder.current:
            yield signer


def has_broken_glass(world: World, request: Request, acts: Iterable[Act]) -> bool:
    return any(
        one.genuine
        and one.signer == "glass"
        and one.statement["person"] == "glass"
        and one.statement["decision"] == "break_glass"
        and one.statement["digest"] == world.digest
        and datetime.fromisoformat(str(one.statement["issued_at"])) + LIFE > world.now
        and "glass" not in world.away
        and "glass" not in request.took_back
        for one in acts
    )


def cache_calls(function: Callable[..., Any], *, key: Callable[..., Any]) -> Callable[..., Any]:
    # The arguments are kept, so that no id is another's later.
    known: dict[Any, Any] = {}

    def called(*args: Any) -> Any:
        name = key(*args)
        if name not in known:
            known[name] = (function(*args), args)
        return known[name][0]

    return called


SAID: tuple[Literal["approve", "deny", "withdraw", "break_glass"], ...] = (
    *("approve", "approve", "approve", "approve", "approve", "deny", "withdraw", "break_glass", "approve", "approve"),
)
SEEN: Counter[str] = Counter()


@settings(max_examples=COURSES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.binary(min_size=6, max_size=26))
def check_interleaving(course: bytes) -> None:
    world = World(TIERS[1 + course[0] % 2])
    needed = 1 + course[1] % 3
    ladder = Ladder(
        request=REQUEST,
        digest=world.digest,
        action=Action.WRITE,
        requester=LAUNCHER,
        needed=needed,
        current=needed,
        respond_by=world.now,
        ttl=600,
    )
    request = Request(RequestTally(ladder))
    if course[0] >= 128:
        add_delegation(world, "lead", "lead2", ends=False)
        add_delegation(world, "chief", "chief2", ends=False)
    for what, who in zip(course[2::2], course[3::2], strict=False):
        take_step(world, request, what, who)
        if who % 4 == 0:
            check_issue(world, request, rotate(world.sent, what))
    check_issue(world, request, rotate(world.sent, course[-1]))
    counted = {id(answer.signed) for answer in request.standing.ladder.answers}
    check_issue(world, request, [one for one in world.sent if id(one.signed) in counted])


def rotate(acts: list[Act], steps: int) -> list[Act]:
    turn = steps % max(len(acts), 1)
    return [*acts[turn:], *acts[:turn]]


def take_step(world: World, request: Request, what: int, who: int) -> None:
    name, other = NAMES[who % 8], NAMES[who // 8 % 8]
    kind = what % 16
    if kind < 10:
        decision = SAID[kind]
        digest = DIGESTS[1] if kind == 8 else DIGESTS[0]
        less = (60, Action.READ) if who >= 128 else (600, Action.WRITE)
        ttl, action = less if decision in {"approve", "break_glass"} else (600, Action.WRITE)
        absent = other if kind == 3 and who >= 192 else None
        if kind == 4 and world.delegations:
            absent, name = sorted(world.delegations)[who % len(world.delegations)]
        forged = ("name", "field")[who % 2] if kind == 9 else ""
        world.sent.append(build_act(name, decision, ttl, action, digest, absent, world.now, forged))
        request.send(world, world.sent[-1])
    elif kind == 10 and world.sent:
        request.send(world, world.sent[who % len(world.sent)])
    elif kind == 11:
        request.climb(world)
    elif kind == 12:
        world.away ^= {name}
    elif kind == 13:
        add_delegation(world, name, other, ends=who >= 192)
    elif kind == 14:
        world.now += timedelta(hours=1 + who % 4)
    else:
        world.digest = DIGESTS[world.digest == DIGESTS[0]]


def add_delegation(world: World, person: str, delegate: str, *, ends: bool) -> None:
    if ends:
        world.ended.add((person, delegate))
        return
    world.delegations[person, delegate] = delegation(person, delegate, world.now)
    world.ended.discard((person, delegate))


@lru_cache(maxsize=200_000)
def delegation(person: str, delegate: str, at: datetime) -> tuple[datetime, SignedStatement]:
    """Return when a delegation that begins at a moment ends, and its signed statement."""
    until = at + timedelta(hours=3)
    statement = DelegationStatement(delegate=delegate, reason="away", person=person, issued_at=at, expires_at=until)
    raw = to_signable(statement)
    return until, SignedStatement(statement=raw, signature=vault_signature(person, to_canonical_json(raw)))


def check_issue(world: World, request: Request, acts: Iterable[Act]) -> None:
    given_ = tuple(acts)
    issued = request.ladder_to_issue(world, given_)
    SEEN["tried"] += 1
    if issued is None:
        return
    SEEN["issued"] += 1
    glass = has_broken_glass(world, request, given_)
    people = set(voices_for(world, request, given_))
    quorum = world.tiers.tiers[issued.current].quorum
    assert glass or len(people) >= quorum, (people, quorum, issued)
    SEEN["by glass" if glass else f"by {quorum}"] += 1
    assert LAUNCHER not in {voice for answer in issued.answers for voice in answer.represented_people}
    voices = [voice for answer in issued.answers for voice in sorted(answer.represented_people)]
    assert len(voices) == len(set(voices)), "nobody is heard twice, not through a delegate either"
    for answer in issued.answers:
        assert issued.grant.ttl <= answer.ttl
        assert answer.action is None or issued.grant.action.rank <= answer.action.rank
        SEEN["for another"] += answer.on_behalf_of is not None
    SEEN["narrowed"] += issued.is_narrowed


def test_no_sequence_of_answers_grants_without_a_quorum_of_distinct_people(monkeypatch: pytest.MonkeyPatch) -> None:
    # Reading and checking one statement says the same each time, and takes most of the time: each once.
    monkeypatch.setattr(
        verification, "read_statement", cache_calls(verification.read_statement, key=lambda model, signed: (model, id(signed)))
    )
    monkeypatch.setattr(
        verification, "why_signature_invalid", cache_calls(statements.why_signature_invalid, key=lambda signed, keys: (id(signed), keys[1]))
    )
    SEEN.clear()
    check_interleaving()
    # A course in which nothing is ever granted proves nothing.
    for kind in ("issued", "by glass", "by 1", "by 2", "narrowed", "for another"):
        assert SEEN[kind] > 20, SEEN
