"""The models of the catalog: resources, actions, targets, scopes, provisioning writes. Frozen values; loader.py parses them. No I/O.

Fields: docs/reference/catalog.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PrivateAttr,
    StringConstraints,
    field_validator,
    model_validator,
)

from justenough.domain.approvals.tiers import MAX_TIER
from justenough.domain.catalog.audiences import Audiences
from justenough.domain.catalog.mcp_tool_list import ToolList
from justenough.domain.core.base_model import Model
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import Problem, reject_if
from justenough.domain.core.placeholders import ISSUE_TIME_PLACEHOLDERS, SCOPE_PLACEHOLDER, did_you_mean, has_stray_brace
from justenough.domain.core.units import Duration
from justenough.domain.jobs.spec import MAX_TTL_S, Label, LabelKey, Name, ScopeKey, Sentence
from justenough.domain.jobs.states import Action, Revocable, Sensitivity
from justenough.domain.llm.definition import ModelDef
from justenough.domain.tools.definitions import Tool

# No globs, no empty or dotted segments, no commas, no query: these paths are written into Vault policies.
VAULT_PATH_PATTERN = re.compile(r"[A-Za-z0-9_${}-][A-Za-z0-9_.${}-]*(?:/[A-Za-z0-9_${}-][A-Za-z0-9_.${}-]*)+")
ISSUING_PATH = re.compile(r"([^$]+)/(?:creds|issue)/([^/$]+)")
"""Matches paths from which secrets engines issue credentials of a role: mount and name."""
RESERVED_MOUNTS = ("sys", "auth", "cubbyhole", "identity")
"""Mounts of Vault's own controls, which issue no credentials for jobs."""
OWN_KEY = re.compile(r"transit/.*/je-.*")
"""Matches the paths of our keys in Vault (`vault_names`)."""


def _check_vault_path(path: str) -> str:
    is_path, why = VAULT_PATH_PATTERN.fullmatch(path), why_reserved(path)
    reject_if(not is_path, "must be a path in Vault like database/creds/orders-read (letters, digits, _ - . and placeholders)")
    reject_if(why, why or "")
    return path


def why_reserved(path: str) -> str | None:
    """Return why no action may issue from a path in Vault; None if it may."""
    if (mount := path.partition("/")[0]) in RESERVED_MOUNTS:
        return f"{mount}/ belongs to Vault itself and issues nothing to jobs"
    return "keys named je-… are JustEnough's: they sign for people and for the ledger; use another key" if OWN_KEY.fullmatch(path) else None


def role_path(issue_path: str) -> str | None:
    """Return the path of the role that a path issues from: `database/roles/NAME` for `database/creds/NAME`. None for other paths."""
    match = ISSUING_PATH.fullmatch(issue_path)
    return f"{match[1]}/roles/{match[2]}" if match else None


VaultPath = Annotated[str, StringConstraints(max_length=256), AfterValidator(_check_vault_path)]
Mount = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*$", max_length=128)]
DAY_PATTERN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
GrantPolicy = Annotated[str, StringConstraints(pattern=r"^je-grant-[a-z0-9-]{1,128}$")]
Scope = Annotated[Mapping[ScopeKey, Label], Field(min_length=1, max_length=4)]
ScopeKeys = Annotated[tuple[ScopeKey, ...], Field(max_length=4)]


class Issue(Model):
    """The call that issues a credential: the Vault path, method and data."""

    path: VaultPath
    method: Literal["read", "update"] = "read"
    data: Mapping[str, str | int | bool] = Field(default_factory=dict)
    """Sent with `update`; `{job}` and `{ttl}` (the grant's seconds) are filled in at each issue."""

    @model_validator(mode="after")
    def _data_is_sent(self) -> Self:
        reject_if(self.data and self.method == "read", "data needs `method: update`")
        return self


class ResolvedIssue(Model):
    """An issue with the job's data scope filled in: the exact call to Vault."""

    path: str
    method: Literal["read", "update"]
    data: Mapping[str, str | int | bool]


class Target(Model):
    """A target system, and how to observe and end a job's users in it."""

    postgres: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    """A libpq conninfo, without user and password."""
    observe: VaultPath
    """Vault path of short-lived users that may read pg_roles and pg_stat_activity."""
    end: VaultPath
    """Vault path of short-lived users that may only execute the function that ends a job's users."""

    @property
    def digest(self) -> str:
        """The digest of where users are searched, and under which user."""
        return digest_of({"postgres": self.postgres, "observe": self.observe})


class Review(Model):
    """The reviewers of an action, and the date by which they must review it."""

    owner: Name | None = None
    """A group; by default the resource's owner."""
    by: date | None = None

    @field_validator("by", mode="before")
    @classmethod
    def _parse_day(cls, value: Any) -> Any:
        if value is None or isinstance(value, date):
            return value
        parsed = None
        with suppress(TypeError, ValueError):
            parsed = date.fromisoformat(value if DAY_PATTERN.fullmatch(value) else "")
        reject_if(parsed is None, "must be a date like 2030-01-31")
        return parsed


class VaultWrite(Model):
    """One idempotent write that `justenough vault setup` applies."""

    path: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_{}-][A-Za-z0-9_./{}-]*[A-Za-z0-9_}-]$", max_length=512)]
    data: Mapping[str, Any] = Field(default_factory=dict)
    per_scope: ScopeKeys = ()
    """The write is repeated for each scope with exactly these keys, with `{key}` filled in."""
    once: bool = False
    """Written only if the path is empty; `${random}` in it is a new random value."""
    unless: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)+$", max_length=512)] | None = None
    """Another path: written only if nothing is listed below that path. For write-only paths, such as a CA's key."""

    @model_validator(mode="after")
    def _one_reason_to_write(self) -> Self:
        reject_if(self.once and self.unless is not None, "once and unless are mutually exclusive; set one of them")
        return self


class ActionDef(Model):
    """One action on a resource: how it is issued, under which Vault policy, for how long, and how it can be revoked."""

    issue: Issue
    policy: GrantPolicy
    """By default `je-grant-<resource>-<action>`, which `read_catalog` fills in."""
    max_ttl: Annotated[Duration, Field(le=MAX_TTL_S)]
    """Seconds."""
    revocable: Revocable = Revocable.NOW
    data_scope: ScopeKeys = ()
    """Data scope keys that a job must set."""
    target: Target | None = None
    role: Mapping[str, Any] | None = None
    """Data of the role that `issue.path` issues from; `justenough vault setup` writes it."""
    reaches_vault: bool = False
    """Whether a job that gets this credential at its start may connect to Vault itself."""
    space: bool = False
    """Whether issuing it creates a space in the target for the job, which is dropped when the job ends."""
    crl: Mount | None = None
    """The pki mount that issues it: a certificate counts as revoked once this mount's CRL lists it, or once it has expired."""
    lock: Literal["none", "control_group"] = "none"
    """`control_group`: Vault itself also requires people's authorization (justenough/domain/catalog/control_groups.py)."""
    lock_tier: Annotated[int, Field(ge=1, le=MAX_TIER)] | None = None
    """For a locked action: the lowest tier whose approvers can authorize it; default 1."""
    review: Review = Review()

    @property
    def locked(self) -> bool:
        """Whether Vault itself also requires people's authorization."""
        return self.lock != "none"

    @property
    def least_tier(self) -> int:
        """The lowest tier that may approve, independent of policy; 0 for any."""
        return (self.lock_tier or 1) if self.locked else 0

    @property
    def role_write(self) -> VaultWrite | None:
        """The write that creates its role; None without `role`."""
        path = role_path(self.issue.path)
        if self.role is None or path is None:
            return None
        return VaultWrite(path=path, data=self.role, per_scope=self.data_scope if SCOPE_PLACEHOLDER.search(path) else ())

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        reserved = min(ISSUE_TIME_PLACEHOLDERS & set(self.data_scope), default=None)
        sent = {name for value in self.issue.data.values() for name in SCOPE_PLACEHOLDER.findall(str(value))}
        issue_time = min(sent & ISSUE_TIME_PLACEHOLDERS, default=None)
        is_revocable = self.revocable is Revocable.NOW
        faults = {
            "lock_tier needs `lock: control_group`": self.lock_tier is not None and not self.locked,
            f"data_scope: {{{reserved}}} is filled in from the job itself; choose another key": reserved is not None,
            f"issue.data: with `lock: control_group` the call to Vault is fixed before the issue; it cannot contain {{{issue_time}}}": self.locked
            and issue_time is not None,
            "role: needs an issue.path like database/creds/NAME or pki/issue/NAME, which issues from roles/NAME": self.role is not None
            and role_path(self.issue.path) is None,
            "space: needs a `target`, so that its removal can be verified": self.space and self.target is None,
            "space: needs `revocable: now`, because it is dropped when access ends": self.space and not is_revocable,
            "crl: needs `revocable: now`": self.crl is not None and not is_revocable,
            f"crl: must be the pki mount that issues it, but issue.path is not under {self.crl}/": self.crl is not None
            and not self.issue.path.startswith(f"{self.crl}/"),
        }
        if fault := next((message for message, applies in faults.items() if applies), None):
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _placeholders_are_bound(self) -> Self:
        texts = {"issue.path": self.issue.path, **{f"issue.data.{key}": value for key, value in self.issue.data.items()}}
        for where, text in texts.items():
            bound = {*self.data_scope, *(ISSUE_TIME_PLACEHOLDERS if where != "issue.path" else ())}
            unbound = sorted(set(SCOPE_PLACEHOLDER.findall(str(text))) - bound)
            if unbound:
                message = f"{where}: {{{unbound[0]}}} is not in data_scope{did_you_mean(unbound[0], self.data_scope)}"
                raise ValueError(message)
            reject_if(has_stray_brace(str(text)), f"{where}: contains a brace outside of a placeholder like {{tenant}} or ${{SETTING}}")
        return self


def _parse_sensitivity(value: Any) -> Any:
    names = [level.name.lower() for level in Sensitivity]
    reject_if(not isinstance(value, str) or value not in names, f"must be one of {', '.join(names)}{did_you_mean(str(value), names)}")
    return Sensitivity[value.upper()]


SensitivityName = Annotated[
    Sensitivity, BeforeValidator(_parse_sensitivity), PlainSerializer(lambda level: level.name.lower(), return_type=str)
]
ConnectFields = Mapping[LabelKey, Annotated[str, StringConstraints(max_length=8192)]]


class ActionDefaults(Model):
    """The defaults of actions: each applies to an action that does not set the value itself (inheritance.py fills it in)."""

    max_ttl: Annotated[Duration, Field(le=MAX_TTL_S)] | None = None
    """Seconds."""
    revocable: Revocable | None = None
    data_scope: ScopeKeys | None = None
    target: Target | None = None
    review: Review | None = None


class Defaults(ActionDefaults):
    """The defaults of resources and provisioning writes: each applies if the resource or write does not set the value itself."""

    environment: Name | None = None
    sensitivity: SensitivityName | None = None
    owner: Name | None = None
    connect: ConnectFields | None = None
    provision: Mapping[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_{}-][A-Za-z0-9_./{}-]*/$", max_length=512)], Mapping[str, Any]
    ] = Field(default_factory=dict)
    """Default data of every write below a path, by that path: `database/roles/`."""


class Resource(ActionDefaults):
    """Something that jobs use with a credential."""

    title: Sentence
    environment: Name
    sensitivity: SensitivityName
    external: bool = False
    """Whether data sent here leaves the organisation."""
    owner: Name
    """A group."""
    used_by: Literal["job", "gateway"] = "job"
    """`gateway`: jobs never get its credential; the broker's gateways use it for the job."""
    connect: ConnectFields = Field(default_factory=dict)
    """Connection parameters that are delivered with the credential's own fields. No secrets."""
    actions: Annotated[Mapping[Action, ActionDef], Field(min_length=1)]

    def reviewer(self, action: Action) -> str:
        """Return the group that reviews an action."""
        return self.actions[action].review.owner or self.owner

    def least_tier(self, action: Action) -> int:
        """Return the lowest tier that may approve an action, independent of policy; 0 for any."""
        return self.actions[action].least_tier if action in self.actions else 0


@dataclass(frozen=True, slots=True)
class UpstreamTools:
    """The tools of a catalog's upstream MCP servers (mcp_upstreams.py finds them)."""

    callable: Mapping[str, Tool] = field(default_factory=dict)
    """By the name under which jobs call them."""
    listings: Mapping[str, Tool] = field(default_factory=dict)
    """The `<server>.tools` tools, by name. Each lists a server's tools, for jobs whose order names it."""
    withheld: Mapping[str, str] = field(default_factory=dict)
    """The servers whose tools jobs cannot call, and why."""
    reviewed: Mapping[str, ToolList] = field(default_factory=dict)
    """The reviewed tool lists, by server."""


class Catalog(Model):
    """Everything that jobs can request."""

    defaults: Defaults = Defaults()
    resources: Mapping[Name, Resource]
    scopes: tuple[Scope, ...] = ()
    """The data scopes that have an identity in Vault."""
    texts: Mapping[LabelKey, Annotated[str, StringConstraints(max_length=16384)]] = Field(default_factory=dict)
    """Longer texts that the provisioning writes use as `${NAME}`."""
    models: Mapping[Name, ModelDef] = Field(default_factory=dict)
    """Language model servers that jobs reach through their broker."""
    provision: tuple[VaultWrite, ...] = ()
    tools: Mapping[Name, Tool] = Field(default_factory=dict)
    """Tools that a running job may call (justenough/domain/tools/definitions.py)."""
    identity: Audiences = Audiences()
    """The audiences that a running job may get identity tokens for."""
    _upstreams: UpstreamTools = PrivateAttr(default_factory=UpstreamTools)

    @property
    def upstreams(self) -> UpstreamTools:
        """The tools of its upstream MCP servers, once `with_upstreams` has set them."""
        return self._upstreams

    @property
    def callable(self) -> dict[str, Tool]:
        """Every tool that jobs can call, by name: the catalog's own, and those that upstream MCP servers expose."""
        return {**{name: tool for name, tool in self.tools.items() if not tool.mcp}, **self._upstreams.callable}

    @property
    def named_tools(self) -> dict[str, Tool]:
        """Every tool that an order can name: those that jobs can call, and those that list a server's tools."""
        return {**self.callable, **self._upstreams.listings}

    def with_upstreams(self, upstreams: UpstreamTools) -> Self:
        """Return a copy of the catalog with these tools of its upstream MCP servers."""
        copy = self.model_copy()
        copy._upstreams = upstreams  # noqa: SLF001 - its own
        return copy

    def action(self, resource: str, action: Action) -> ActionDef | None:
        """Return the definition of an action; None if it is not offered."""
        definition = self.resources.get(resource)
        return definition.actions.get(action) if definition else None

    def offer_problems(self, resource: str, actions: Iterable[Action], *, where: str) -> Iterator[Problem]:
        """Yield why requests for these actions on a resource fail: at `<where>.resource` if there is no such resource, else at `<where>.action`
        for each action that it does not offer.
        """
        if resource not in self.resources:
            yield Problem(f"{where}.resource", f"unknown resource {resource!r}{did_you_mean(resource, self.resources)}")
            return
        offered = self.resources[resource].actions
        for action in sorted(set(actions) - offered.keys()):
            yield Problem(f"{where}.action", f"{resource} does not offer {action}; it offers {', '.join(sorted(offered))}")

    def lets_reach_vault(self, issued: Iterable[tuple[str, Action]]) -> bool:
        """Whether a job with credentials for these actions, each with its resource, may connect to Vault itself."""
        definitions = (self.action(resource, action) for resource, action in issued)
        return any(definition is not None and definition.reaches_vault for definition in definitions)

    def iter_actions(self) -> Iterator[tuple[str, ActionDef]]:
        """Yield each action with its YAML path."""
        for name, resource in self.resources.items():
            for action, definition in resource.actions.items():
                yield f"resources.{name}.actions.{action}", definition

    def iter_writes(self) -> Iterator[tuple[str, VaultWrite]]:
        """Yield each write to Vault in order, with the YAML path of its data: first the writes of `provision`, then the roles of actions."""
        for index, write in enumerate(self.provision):
            yield f"provision[{index}].data", write
        for where, definition in self.iter_actions():
            if (role := definition.role_write) is not None:
                yield f"{where}.role", role

    @property
    def has_locks(self) -> bool:
        """Whether any action is locked by a control group."""
        return any(action.locked for _, action in self.iter_actions())

    def scopes_with(self, keys: Collection[str]) -> tuple[Mapping[str, str], ...]:
        """Return the scopes that have exactly these keys; without keys, the empty scope."""
        return tuple(scope for scope in self.scopes if set(scope) == set(keys)) if keys else ({},)
