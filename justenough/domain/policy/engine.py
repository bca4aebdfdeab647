"""Policy: what Cedar says of one request, the tier it needs, and which policies decided. No I/O, no clock.

The needed tier is the least N such that N and every tier above allow; none, or any evaluation error, is a denial. Policies are
folded (justenough/domain/policy/partial_evaluation.py) once per action and resource; then one question to Cedar tells which policies hold at which tier.
Reading files and finding errors in them: justenough/domain/policy/cedar_source.py. What Cedar sees of a request: justenough/domain/policy/cedar_request.py, docs/how-to/policies.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Self

import cedarpy
from cedarpy import pst

from justenough.domain.catalog.models import Resource
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.states import Action
from justenough.domain.policy.cedar_request import (
    AccessContext,
    Attributes,
    JobFacts,
    Phase,
    call_entity_json,
    context_attributes,
    entity_json,
    job_attributes,
    resource_attributes,
    shape_problems,
    to_cedar_request,
)
from justenough.domain.policy.cedar_source import POLICIES, SCHEMA_FILE, PolicyRule, read_rules, read_schema
from justenough.domain.policy.partial_evaluation import ANY_ATTRIBUTE, PartialRequest, fold_policy, mentioned_attributes
from justenough.domain.policy.tier_result import MAX_TIER, TIERS, Remainder, TierResult

__all__ = ["MAX_TIER", "AccessContext", "JobFacts", "Phase", "PolicySet"]

DEFAULT_DENY = "default-deny"
NO_POLICIES = "no-policies"
DOUBLE_LOCK = "double-lock"
"""What decisions name where the catalog's `lock_tier` asks for a higher tier than policy does."""
# A catalog has some dozens of resources; the bound only keeps changing ones from piling up.
MAX_PREPARED = 4096


class CedarInputs(NamedTuple):
    """What Cedar decides one request with, each as JSON text."""

    job: str
    resource: str
    """The resource's entity; for a call of a tool, the call's too."""
    context: str


@dataclass(frozen=True, slots=True)
class _PreparedPolicies:
    """The policies that can matter for one action on one resource, all as permits, so that Cedar's reasons are those that hold."""

    handle: cedarpy.PolicySet
    meaning: Mapping[str, Remainder]
    """By folded policy: which rule it stands for, at which tiers."""
    mentioned: frozenset[tuple[str, str]]
    """The attributes that these policies look at; no others are told, which is most of the time saved."""

    def select_attributes(self, variable: str, attributes: Attributes) -> Attributes:
        if (variable, ANY_ATTRIBUTE) in self.mentioned:
            return attributes
        return {name: value for name, value in attributes.items() if (variable, name) in self.mentioned}


@dataclass(frozen=True)
class PolicySet:
    """A checked set of policies."""

    rules: tuple[PolicyRule, ...]
    digest: str
    """`sha256:…` over file names, texts and schema."""
    external: frozenset[str]
    """Names of the catalog's external resources."""
    default: str = DEFAULT_DENY
    """What a denial names where no policy forbids."""
    _actions: cedarpy.Entities | None = field(default=None, repr=False, compare=False)
    """The schema's actions, where it groups them."""
    _prepared: dict[Any, _PreparedPolicies] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, files: Mapping[str, str], schema: str, *, external: Iterable[str] = ()) -> Self:
        """Return the policies of these files (text by name); raise InvalidInput with every problem by file, line and column.

        `external` names the resources where data leaves the organisation: what `context.touched_external` looks at.
        """
        parsed = read_schema(schema)
        problems = tuple(shape_problems(parsed, schema, file=SCHEMA_FILE))
        if problems:
            raise InvalidInput(POLICIES, problems)
        rules = read_rules(files, parsed)
        if not rules:
            raise InvalidInput(POLICIES, (Problem("", "there are none; without policies everything is denied"),))
        actions = cedarpy.Entities.from_json_str("[]", parsed)
        grouped = any(item["parents"] for item in json.loads(str(actions)))
        return cls(rules=rules, digest=_digest(files, schema), external=frozenset(external), _actions=actions if grouped else None)

    @classmethod
    def none(cls) -> Self:
        """Return the set that denies everything, for a start without a good one."""
        return cls(rules=(), digest=_digest({}, ""), external=frozenset(), default=NO_POLICIES)

    @property
    def ids(self) -> tuple[str, ...]:
        """The `@id`s, by file name and order."""
        return tuple(rule.id for rule in self.rules)

    def decide(
        self, job: JobFacts, name: str, resource: Resource, action: Action, *, context: AccessContext, top: int = MAX_TIER
    ) -> Decision:
        """Return what policy says of one action on the resource of that name. `top` is the highest tier that has approvers."""
        return self.to_decision(self.evaluate(job, name, resource, action, context=context), top=top)

    def evaluate(self, job: JobFacts, name: str, resource: Resource, action: Action, *, context: AccessContext) -> TierResult:
        """Return which policies hold for one action on the resource of that name, at each tier."""
        prepared = self._prepare(name, resource, action)
        try:
            inputs = self.cedar_inputs(job, name, resource, action, context=context)
            question = to_cedar_request(job.id, name, action, inputs.context)
            entities = _entities(inputs.job, inputs.resource, self._actions)
            diagnostics = cedarpy.is_authorized_batch([question], prepared.handle, entities)[0].diagnostics
        except ValueError as error:
            return TierResult(errors=(str(error),))
        if diagnostics.errors:
            return TierResult(erring=_erring_policies(diagnostics.errors, prepared), errors=tuple(sorted(diagnostics.errors)))
        weighed, least = _to_tier_result(diagnostics.reasons, prepared), resource.least_tier(action)
        return weighed.with_least_tier(least, DOUBLE_LOCK) if least else weighed

    def cedar_inputs(self, job: JobFacts, name: str, resource: Resource, action: Action, *, context: AccessContext) -> CedarInputs:
        """Build the entities and the context that Cedar gets. Equal inputs get equal answers: only attributes that a policy mentions are in them."""
        prepared = self._prepare(name, resource, action)
        target = entity_json("Resource", name, prepared.select_attributes("resource", resource_attributes(resource)))
        # A call is one more entity beside the resource: numbers have names of the tools' own, which only tags can have.
        call = (
            f",{call_entity_json(context)}"
            if ("context", "call") in prepared.mentioned or ("context", ANY_ATTRIBUTE) in prepared.mentioned
            else ""
        )
        return CedarInputs(
            entity_json("Job", job.id, prepared.select_attributes("principal", job_attributes(job))),
            target + call,
            json.dumps(prepared.select_attributes("context", context_attributes(context, self.external))),
        )

    @cached_property
    def names_jobs(self) -> bool:
        """Whether some policy is about one job by its id, so that even jobs that are alike may be decided differently."""
        return any(uid.type.basename == "Job" for rule in self.rules for uid in pst.entity_uids(rule.template))

    def to_decision(self, result: TierResult, *, top: int = MAX_TIER) -> Decision:
        """Return the decision that follows from which policies hold."""
        top = min(top, MAX_TIER)
        if result.errors:
            return self._build_denial(result.erring, errors=result.errors)
        needed = result.needed_tier(top)
        if needed is None:
            return self._build_denial(result.forbids[top])
        below = tuple(dict.fromkeys(rule for tier in range(needed) for rule in result.forbids[tier]))
        return Decision(
            outcome="needs_approval" if needed else "allowed",
            tier=needed,
            policies=result.permits[needed] + below,
            policy_digest=self.digest,
        )

    def remainders(self, name: str, resource: Resource, action: Action) -> tuple[Remainder, ...]:
        """Return what is left of each policy that can matter for one action on the resource of that name."""
        return tuple(self._prepare(name, resource, action).meaning.values())

    def relevant_attributes(self, name: str, resource: Resource, action: Action) -> frozenset[tuple[str, str]]:
        """Return the attributes that can matter there, as `("principal", "requester_groups")`; `*` for all of a variable's."""
        return self._prepare(name, resource, action).mentioned

    def _build_denial(self, policies: tuple[str, ...], *, errors: tuple[str, ...] = ()) -> Decision:
        return Decision(outcome="denied", policies=policies or (self.default,), policy_digest=self.digest, errors=errors)

    def _prepare(self, name: str, resource: Resource, action: Action) -> _PreparedPolicies:
        key = (name, resource.environment, resource.sensitivity, resource.external, resource.owner, action)
        prepared = self._prepared.get(key)
        if prepared is None:
            if len(self._prepared) >= MAX_PREPARED:
                self._prepared.clear()
            prepared = self._prepared[key] = _prepare_policies(self.rules, name, resource, action, self._actions)
        return prepared


def _prepare_policies(
    rules: tuple[PolicyRule, ...], name: str, resource: Resource, action: Action, actions: cedarpy.Entities | None
) -> _PreparedPolicies:
    meaning: dict[str, Remainder] = {}
    policies: dict[str, pst.Template] = {}
    questions = [_build_question(name, resource, action, tier, actions) for tier in TIERS]
    for rule in rules:
        for template, tiers in _fold_by_tier(rule.template, questions).items():
            # This is what evaluation errors show, so it is made to be read.
            key = rule.id if len(tiers) > MAX_TIER else f"{rule.id} (tier {', '.join(map(str, tiers))})"
            meaning[key] = Remainder(rule, frozenset(tiers), template)
            policies[key] = replace(template, id=key, effect="permit")
    tree = pst.PolicySet(templates=pst.FrozenMap(), static_policies=pst.FrozenMap(policies), template_links=())
    return _PreparedPolicies(cedarpy.PolicySet.from_pst(tree), meaning, mentioned_attributes(policies.values()))


def _fold_by_tier(template: pst.Template, questions: list[PartialRequest]) -> dict[pst.Template, list[int]]:
    """Return what is left of a policy, with the tiers at which it is that: most policies are the same at several."""
    outcomes: dict[pst.Template, list[int]] = {}
    for tier, question in enumerate(questions):
        left = fold_policy(template, question)
        if left is not None:
            outcomes.setdefault(left, []).append(tier)
    return outcomes


def _build_question(name: str, resource: Resource, action: Action, tier: int, actions: cedarpy.Entities | None) -> PartialRequest:
    uid = _uid("Action", action.value)
    known_actions = json.loads(str(actions)) if actions else []
    parents = [parent for item in known_actions if item["uid"] == {"type": "Action", "id": action.value} for parent in item["parents"]]
    return PartialRequest(
        action=uid,
        groups=frozenset({uid, *(_uid(parent["type"], parent["id"]) for parent in parents)}),
        resource=_uid("Resource", name),
        known={
            ("context", "approved_tier"): pst.LongLit(value=tier),
            ("resource", "environment"): pst.StringLit(value=resource.environment),
            ("resource", "sensitivity"): pst.LongLit(value=int(resource.sensitivity)),
            ("resource", "external"): pst.BoolLit(value=resource.external),
            ("resource", "owner"): pst.StringLit(value=resource.owner),
        },
    )


def _to_tier_result(reasons: Iterable[str], prepared: _PreparedPolicies) -> TierResult:
    held = sorted((prepared.meaning[reason] for reason in reasons), key=lambda item: item.rule.position)

    def at(tier: int, effect: str) -> tuple[str, ...]:
        return tuple(item.rule.id for item in held if tier in item.tiers and item.rule.template.effect == effect)

    return TierResult(permits=tuple(at(tier, "permit") for tier in TIERS), forbids=tuple(at(tier, "forbid") for tier in TIERS))


def _erring_policies(errors: Iterable[str], prepared: _PreparedPolicies) -> tuple[str, ...]:
    text = "\n".join(errors)
    return tuple(dict.fromkeys(item.rule.id for key, item in prepared.meaning.items() if f"`{key}`" in text))


@lru_cache(maxsize=1024)
def _entities(job: str, resource: str, actions: cedarpy.Entities | None) -> cedarpy.Entities:
    both = f"[{job},{resource}]"
    return actions.with_added_json_str(both) if actions else cedarpy.Entities.from_json_str(both)


def _uid(kind: str, name: str) -> pst.EntityUid:
    return pst.EntityUid(type=pst.EntityType(basename=kind), id=name)


def _digest(files: Mapping[str, str], schema: str) -> str:
    content = json.dumps([[name, files[name]] for name in sorted(files)] + [[SCHEMA_FILE, schema]], ensure_ascii=True)
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"
