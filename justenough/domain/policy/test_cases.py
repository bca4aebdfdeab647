"""Policy tests as YAML tables: requests, and the decisions that policy must make. No I/O, no clock.

A case is one request; a spec is a job spec whose requests are decided as at the job's start. docs/reference/policies.md describes the format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from justenough.domain.approvals.tiers import MAX_TIER
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.core.base_model import Message, Model
from justenough.domain.core.errors import InvalidInput, Problem, reject_if
from justenough.domain.core.placeholders import did_you_mean
from justenough.domain.core.units import Duration
from justenough.domain.core.untrusted_yaml import check_json, read_yaml, validate_model
from justenough.domain.jobs.credentials import Decision, HeldAccess
from justenough.domain.jobs.spec import MAX_TTL_S, Access, Agent, JobSpec, Label, LabelKey, Name, RunSpec, ScopeKey, Sentence, checked_spec
from justenough.domain.jobs.states import Action
from justenough.domain.policy.cedar_request import DEFAULT_CLOCK, AccessContext, Clock, JobFacts, Phase
from justenough.domain.policy.dry_run import PolicyEvaluator, dry_run_spec
from justenough.domain.tools.call import ToolCall

OUTCOMES = ("allowed", *(f"tier {number}" for number in range(1, MAX_TIER + 1)), "denied")
MAX_CASES = 2000


def _check_outcome(text: str) -> str:
    reject_if(text not in OUTCOMES, f"must be one of {', '.join(OUTCOMES)}{did_you_mean(text, OUTCOMES)}")
    return text


ExpectedOutcome = Annotated[str, AfterValidator(_check_outcome)]
ResourceAction = Annotated[str, StringConstraints(pattern=rf"^[a-z0-9-]{{1,63}}:({'|'.join(Action)})$")]
"""`orders-db:read`."""
PolicyIds = tuple[Annotated[str, StringConstraints(max_length=100)], ...]


class CaseJob(Model):
    """The requesting job: the part of a spec that policies can use."""

    name: Name = "job"
    task: Sentence = "A test of policies"
    agent: Agent | None = None
    environment: Name | None = None
    """Default: the resource's."""
    labels: Mapping[LabelKey, Label] = Field(default_factory=dict)
    data_scope: Mapping[ScopeKey, Label] = Field(default_factory=dict)


class _Case(Model):
    """The circumstances of a case."""

    name: Annotated[str, StringConstraints(max_length=200)] = ""
    requester: Annotated[str, StringConstraints(max_length=64)] = ""
    groups: tuple[Name, ...] | None = None
    """The requester's groups; default: the groups that may launch."""
    hour: Annotated[int, Field(ge=0, le=23)] = DEFAULT_CLOCK.hour
    """UTC."""
    weekday: Annotated[int, Field(ge=1, le=7)] = DEFAULT_CLOCK.weekday
    """1 Monday to 7 Sunday, UTC."""
    break_glass: bool = False

    def requester_facts(self, spec: JobSpec, default_groups: frozenset[str]) -> JobFacts:
        """Return the job of this spec, launched by the requester."""
        return JobFacts("test", spec, self.requester, default_groups if self.groups is None else frozenset(self.groups))


class PolicyCase(_Case):
    """A request and the expected decision."""

    ask: ResourceAction
    expect: ExpectedOutcome
    by: PolicyIds | None = None
    """Exactly these policies must decide; default: any."""
    job: CaseJob = CaseJob()
    ttl: Annotated[Duration, Field(le=MAX_TTL_S)] = 300
    reason: Sentence = "A test of policies"
    phase: Phase = "start"
    after: tuple[ResourceAction, ...] = ()
    """The access that was issued to the job before, in this order."""
    returned: tuple[ResourceAction, ...] = ()
    """The access of `after` that has ended since; its data stays touched."""
    issued_count: Annotated[int, Field(ge=0)] | None = None
    """Number of credentials issued before; default: the number of items in `after`."""
    call: ToolCall | None = None
    """{tool, arguments}: the tool call that needs the access; default: none."""


class SpecCase(_Case):
    """A job spec and the expected decision on each of its requests."""

    spec: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    """A file, relative to the configuration folder."""
    expect: tuple[ExpectedOutcome, ...]
    params: Mapping[str, str] = Field(default_factory=dict)


class PolicyTestTable(Model):
    """One file."""

    defaults: Mapping[str, Any] = Field(default_factory=dict)
    """Values for keys that a case omits; merged key by key within `job`."""
    cases: Annotated[tuple[PolicyCase, ...], Field(max_length=MAX_CASES)] = ()
    specs: Annotated[tuple[SpecCase, ...], Field(max_length=MAX_CASES)] = ()


class CaseOutcome(Message):
    """An outcome as a table writes it, and the deciding policies."""

    outcome: str
    by: tuple[str, ...] | None = None


class CaseResult(Message):
    """The result of one case."""

    table: str
    case: str
    """Its path: `cases[3]`, `specs[0].expect[1]`."""
    name: str
    ask: str
    passed: bool
    expected: CaseOutcome
    got: CaseOutcome
    errors: tuple[str, ...] = ()


def read_policy_table(name: str, text: str | bytes) -> PolicyTestTable:
    """Parse and validate a table, with defaults filled in; raise InvalidInput with every problem by path."""
    raw = read_yaml(name, text)
    if not isinstance(raw, dict):
        raise InvalidInput(name, (Problem("", "must be a mapping with `cases` or `specs`"),))
    defaults = raw.get("defaults")
    if isinstance(defaults, dict) and isinstance(raw.get("cases"), list):
        cases = [{**defaults, **case} if isinstance(case, dict) else case for case in raw["cases"]]
        for case, merged in zip(raw["cases"], cases, strict=True):
            if isinstance(case, dict) and isinstance(case.get("job"), dict) and isinstance(defaults.get("job"), dict):
                merged["job"] = {**defaults["job"], **case["job"]}
        raw = {**raw, "cases": cases}
    table = validate_model(name, PolicyTestTable, raw)
    if not table.cases and not table.specs:
        raise InvalidInput(name, (Problem("", "has neither `cases` nor `specs`"),))
    return table


def spec_case_problems(path: str, case: SpecCase, raw: Any, rules: PolicyEvaluator) -> tuple[Problem, ...]:
    """Return the problems of a spec that a table names, and of its expected outcomes."""
    try:
        check_json("job spec", raw)
        spec = checked_spec(raw, case.params)
    except InvalidInput as error:
        return tuple(Problem(path, f"{case.spec}: {problem}") for problem in error.problems)
    problems = [Problem(path, f"{case.spec}: {problem}") for problem in problems_in_spec(spec, rules.catalog)]
    if len(case.expect) != len(spec.access):
        message = f"{case.spec} has {len(spec.access)} requests, but {len(case.expect)} outcomes are expected"
        problems.append(Problem(f"{path}.expect", message))
    return tuple(problems)


def policy_table_problems(table: PolicyTestTable, rules: PolicyEvaluator) -> tuple[Problem, ...]:
    """Return a problem for each resource and action of a table that is not in the catalog."""
    problems = []
    for number, case in enumerate(table.cases):
        for key, items in (("ask", (case.ask,)), ("after", case.after), ("returned", case.returned)):
            for resource, action in map(_split_resource_action, items):
                found = rules.catalog.offer_problems(resource, (action,), where="")
                problems += [Problem(f"cases[{number}].{key}", problem.message) for problem in found]
    return tuple(problems)


def run_cases(name: str, table: PolicyTestTable, rules: PolicyEvaluator, groups: frozenset[str]) -> Iterator[CaseResult]:
    """Yield the result of each case of a table without problems. `groups`: those of the requester of a case that names none."""
    for number, case in enumerate(table.cases):
        resource, action = _split_resource_action(case.ask)
        held = HeldAccess()
        for item in case.after:
            held = rules.with_issued(held, *_split_resource_action(item))
        for item in case.returned:
            held = held.with_ended(*_split_resource_action(item))
        if case.issued_count is not None:
            held = held.model_copy(update={"issued_count": case.issued_count})
        environment = case.job.environment or rules.catalog.resources[resource].environment
        spec = JobSpec(**{**dict(case.job), "environment": environment}, run=RunSpec(command=("true",)))
        job = case.requester_facts(spec, groups)
        access = Access(resource=resource, action=action, ttl=case.ttl, reason=case.reason)
        call: dict[str, Any] = {"tool": case.call.tool, "arguments": case.call.pairs, "numbers": case.call.numbers} if case.call else {}
        clock = Clock(case.hour, case.weekday)
        context = AccessContext(case.phase, case.ttl, case.reason, clock, held=held, break_glass=case.break_glass, **call)
        title = case.name or case.ask + (f" after {', '.join(case.after)}" if case.after else "")
        expected = CaseOutcome(outcome=case.expect, by=case.by)
        yield _to_result(name, f"cases[{number}]", title, case.ask, expected, rules.decide(job, access, context))


def run_spec_case(name: str, number: int, case: SpecCase, raw: Any, rules: PolicyEvaluator, groups: frozenset[str]) -> Iterator[CaseResult]:
    """Yield the result of each request of a spec without problems."""
    job = case.requester_facts(checked_spec(raw, case.params), groups)
    steps = dry_run_spec(rules, job, clock=Clock(case.hour, case.weekday), break_glass=case.break_glass)
    for index, (step, outcome) in enumerate(zip(steps, case.expect, strict=True)):
        path, ask = f"specs[{number}].expect[{index}]", f"{step.access.resource}:{step.access.action}"
        yield _to_result(name, path, case.name or case.spec, ask, CaseOutcome(outcome=outcome), step.decision)


def _to_result(table: str, path: str, name: str, ask: str, expected: CaseOutcome, decision: Decision) -> CaseResult:
    outcome = f"tier {decision.tier}" if decision.outcome == "needs_approval" else decision.outcome
    got = CaseOutcome(outcome=outcome, by=decision.policies)
    same_policies = expected.by is None or sorted(expected.by) == sorted(decision.policies)
    passed = got.outcome == expected.outcome and same_policies
    return CaseResult(table=table, case=path, name=name, ask=ask, passed=passed, expected=expected, got=got, errors=decision.errors)


def _split_resource_action(text: str) -> tuple[str, Action]:
    resource, _, action = text.rpartition(":")
    return resource, Action(action)
