"""Evaluates policies: Cedar's decision on a request, the tier it needs, and the deciding policies. No I/O, no clock.

The needed tier is the lowest N such that N and every tier above it allow; if there is none, or on any evaluation error, the request is
denied. Policies are folded (justenough/domain/policy/partial_evaluation.py) once per action and resource; then a single Cedar evaluation
shows which policies apply at which tier. justenough/domain/policy/cedar_source.py reads the files and reports their errors;
justenough/domain/policy/cedar_request.py and docs/reference/policies.md define how a request looks to Cedar.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Self

import cedarpy
from cedarpy import pst

from justenough.domain.approvals.tiers import MAX_TIER
from justenough.domain.catalog.models import Resource
from justenough.domain.core.errors import InvalidInput, Problem, raise_problems
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.states import Action
from justenough.domain.policy import cedar_request
from justenough.domain.policy.cedar_request import AccessContext, Attributes, JobFacts, to_cedar_request
from justenough.domain.policy.cedar_source import POLICIES, SCHEMA_FILE, PolicyRule, read_rules, read_schema
from justenough.domain.policy.ceiling import with_ceiling
from justenough.domain.policy.partial_evaluation import ANY_ATTRIBUTE, LiteralNode, PartialRequest, fold_policy, mentioned_attributes
from justenough.domain.policy.tier_result import TIERS, Remainder, TierResult

DEFAULT_DENY = "default-deny"
NO_POLICIES = "no-policies"
DOUBLE_LOCK = "double-lock"
"""The id in a decision if the catalog's `lock_tier` requires a higher tier than policy does."""
LITERAL_NODES: Mapping[type, Callable[..., LiteralNode]] = {str: pst.StringLit, int: pst.LongLit, bool: pst.BoolLit}
# A catalog has some dozens of resources; the bound only matters if they change while the process runs.
MAX_PREPARED = 4096


class CedarInputs(NamedTuple):
    """The inputs of one Cedar evaluation, each as JSON text."""

    job: str
    resource: str
    """The resource's entity; for a tool call, also the call's entity."""
    context: str


@dataclass(frozen=True, slots=True)
class _PreparedPolicies:
    """The policies that can apply to one action on one resource, all turned into permits, so that Cedar names each one that applies."""

    handle: cedarpy.PolicySet
    remainders: Mapping[str, Remainder]
    """By the id of the folded policy."""
    mentioned: frozenset[tuple[str, str]]
    """The attributes that these policies read. Cedar gets no others, which saves most of the time."""

    def select_attributes(self, variable: str, attributes: Attributes) -> Attributes:
        if (variable, ANY_ATTRIBUTE) in self.mentioned:
            return attributes
        return {name: value for name, value in attributes.items() if (variable, name) in self.mentioned}


@dataclass(frozen=True)
class PolicySet:
    """A validated set of policies."""

    rules: tuple[PolicyRule, ...]
    digest: str
    """`sha256:…` over file names, texts and schema."""
    external: frozenset[str]
    """Names of the catalog's external resources."""
    default: str = DEFAULT_DENY
    """The id in a denial that no policy caused."""
    _actions: cedarpy.Entities | None = field(default=None, repr=False, compare=False)
    """The schema's actions, if the schema groups them."""
    _prepared: dict[Any, _PreparedPolicies] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, files: Mapping[str, str], schema: str, *, external: Iterable[str] = ()) -> Self:
        """Read the policies of these files (text by name); raise InvalidInput with every problem by file, line and column.

        `external` names the resources through which data leaves the organisation; `context.touched_external` refers to them.
        """
        parsed = read_schema(schema)
        raise_problems(POLICIES, cedar_request.shape_problems(parsed, schema, file=SCHEMA_FILE))
        rules = read_rules(files, parsed)
        if not rules:
            raise InvalidInput(POLICIES, (Problem("", "no policy found; without policies every request is denied"),))
        actions = cedarpy.Entities.from_json_str("[]", parsed)
        grouped = any(item["parents"] for item in json.loads(str(actions)))
        return cls(rules=rules, digest=_digest(files, schema), external=frozenset(external), _actions=actions if grouped else None)

    @classmethod
    def none(cls) -> Self:
        """Return the set that denies every request, used until valid policies are loaded."""
        return cls(rules=(), digest=_digest({}, ""), external=frozenset(), default=NO_POLICIES)

    @property
    def ids(self) -> tuple[str, ...]:
        """The `@id`s, by file name and order."""
        return tuple(rule.id for rule in self.rules)

    def decide(
        self, job: JobFacts, name: str, resource: Resource, action: Action, *, context: AccessContext, top: int = MAX_TIER
    ) -> Decision:
        """Return the decision on one action on the named resource. `top` is the highest tier that has approvers."""
        return self.to_decision(self.evaluate(job, name, resource, action, context=context), top=top)

    def evaluate(self, job: JobFacts, name: str, resource: Resource, action: Action, *, context: AccessContext) -> TierResult:
        """Return which policies apply at each tier to one action on the named resource."""
        prepared = self._prepare(name, resource, action)
        try:
            inputs = self.cedar_inputs(job, name, resource, action, context=context)
            request = to_cedar_request(job.id, name, action, inputs.context)
            both = f"[{inputs.job},{inputs.resource}]"
            entities = self._actions.with_added_json_str(both) if self._actions else cedarpy.Entities.from_json_str(both)
            diagnostics = cedarpy.is_authorized_batch([request], prepared.handle, entities)[0].diagnostics
        except ValueError as error:
            return TierResult(errors=(str(error),))
        if diagnostics.errors:
            text = "\n".join(diagnostics.errors)
            erring = dict.fromkeys(item.rule.id for key, item in prepared.remainders.items() if f"`{key}`" in text)
            return TierResult(erring=tuple(erring), errors=tuple(sorted(diagnostics.errors)))
        applying = sorted((prepared.remainders[reason] for reason in diagnostics.reasons), key=lambda item: item.rule.position)

        def by_tier(effect: str) -> tuple[tuple[str, ...], ...]:
            rules = [item for item in applying if item.rule.template.effect == effect]
            return tuple(tuple(item.rule.id for item in rules if tier in item.tiers) for tier in TIERS)

        result = TierResult(permits=by_tier("permit"), forbids=by_tier("forbid"))
        return with_ceiling(result.with_least_tier(resource.least_tier(action), DOUBLE_LOCK), context.beyond)

    def cedar_inputs(self, job: JobFacts, name: str, resource: Resource, action: Action, *, context: AccessContext) -> CedarInputs:
        """Build the entities and the context for Cedar, with only the attributes that a policy reads: equal inputs get equal decisions."""
        prepared = self._prepare(name, resource, action)
        target = cedar_request.entity_json(
            "Resource", name, prepared.select_attributes("resource", cedar_request.resource_attributes(resource))
        )
        # A call is an entity of its own, because its numeric arguments have arbitrary names, which only tags can have.
        if not prepared.mentioned.isdisjoint({("context", "call"), ("context", ANY_ATTRIBUTE)}):
            target += f",{cedar_request.call_entity_json(context)}"
        return CedarInputs(
            cedar_request.entity_json("Job", job.id, prepared.select_attributes("principal", cedar_request.job_attributes(job))),
            target,
            json.dumps(prepared.select_attributes("context", cedar_request.context_attributes(context, self.external))),
        )

    @cached_property
    def names_jobs(self) -> bool:
        """Whether a policy names a job by its id, so that otherwise equal jobs may get different decisions."""
        return any(uid.type.basename == "Job" for rule in self.rules for uid in pst.entity_uids(rule.template))

    def to_decision(self, result: TierResult, *, top: int) -> Decision:
        """Return the decision that follows from the policies that apply."""
        top = min(top, MAX_TIER)
        needed = None if result.errors else result.needed_tier(top)
        if needed is None:
            policies = result.erring if result.errors else result.forbids[top]
            return Decision(outcome="denied", policies=policies or (self.default,), policy_digest=self.digest, errors=result.errors)
        below = tuple(dict.fromkeys(rule for tier in range(needed) for rule in result.forbids[tier]))
        policies = result.permits[needed] + below
        return Decision(outcome="needs_approval" if needed else "allowed", tier=needed, policies=policies, policy_digest=self.digest)

    def remainders(self, name: str, resource: Resource, action: Action) -> tuple[Remainder, ...]:
        """Return the remainder of each policy that can apply to one action on the named resource."""
        return tuple(self._prepare(name, resource, action).remainders.values())

    def relevant_attributes(self, name: str, resource: Resource, action: Action) -> frozenset[tuple[str, str]]:
        """Return the attributes that those policies read, as `("principal", "requester_groups")`; `*` for all of a variable's."""
        return self._prepare(name, resource, action).mentioned

    def _prepare(self, name: str, resource: Resource, action: Action) -> _PreparedPolicies:
        key = (name, action, *cedar_request.resource_attributes(resource).values())
        if (prepared := self._prepared.get(key)) is not None:
            return prepared
        if len(self._prepared) >= MAX_PREPARED:
            self._prepared.clear()
        remainders: dict[str, Remainder] = {}
        policies: dict[str, pst.Template] = {}
        requests = self._partial_requests(name, resource, action)
        for rule in self.rules:
            # Most policies have the same remainder at several tiers.
            tiers_by_rest: dict[pst.Template, list[int]] = {}
            for tier, request in enumerate(requests):
                rest = fold_policy(rule.template, request)
                if rest is not None:
                    tiers_by_rest.setdefault(rest, []).append(tier)
            for rest, tiers in tiers_by_rest.items():
                # Evaluation errors quote this id, so it is readable.
                folded_id = rule.id if len(tiers) > MAX_TIER else f"{rule.id} (tier {', '.join(map(str, tiers))})"
                remainders[folded_id] = Remainder(rule, frozenset(tiers), rest)
                policies[folded_id] = replace(rest, id=folded_id, effect="permit")
        tree = pst.PolicySet(templates=pst.FrozenMap(), static_policies=pst.FrozenMap(policies), template_links=())
        prepared = _PreparedPolicies(cedarpy.PolicySet.from_pst(tree), remainders, mentioned_attributes(policies.values()))
        self._prepared[key] = prepared
        return prepared

    def _partial_requests(self, name: str, resource: Resource, action: Action) -> list[PartialRequest]:
        """Return the known parts of a request at each tier."""
        uid = _uid("Action", action.value)
        actions = json.loads(str(self._actions)) if self._actions else []
        parents = [parent for item in actions if item["uid"] == {"type": "Action", "id": action.value} for parent in item["parents"]]
        groups = frozenset({uid, *(_uid(parent["type"], parent["id"]) for parent in parents)})
        attributes = cedar_request.resource_attributes(resource).items()
        known = {("resource", attribute): LITERAL_NODES[type(value)](value=value) for attribute, value in attributes}
        tiers = [{("context", "approved_tier"): pst.LongLit(value=tier)} for tier in TIERS]
        return [PartialRequest(uid, groups, _uid("Resource", name), {**known, **tier}) for tier in tiers]


@lru_cache(maxsize=1024)
def _uid(kind: str, name: str) -> pst.EntityUid:
    return pst.EntityUid(type=pst.EntityType(basename=kind), id=name)


def _digest(files: Mapping[str, str], schema: str) -> str:
    content = json.dumps([[name, files[name]] for name in sorted(files)] + [[SCHEMA_FILE, schema]], ensure_ascii=True)
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"
