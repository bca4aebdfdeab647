"""The models of the catalog: resources, actions, targets, scopes, provisioning writes. Frozen values; reading them is catalog.py's. No I/O.

Fields: docs/reference/catalog.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PrivateAttr, StringConstraints, model_validator

from justenough.domain.approvals.tiers import MAX_TIER
from justenough.domain.catalog.audiences import Audiences
from justenough.domain.catalog.mcp_tool_list import ToolList
from justenough.domain.core.base_model import Model
from justenough.domain.core.placeholders import ISSUE_TIME_PLACEHOLDERS, SCOPE_PLACEHOLDER, SETTING_PLACEHOLDER, did_you_mean
from justenough.domain.core.units import Duration
from justenough.domain.jobs.spec import MAX_TTL_S, Label, LabelKey, Name, ScopeKey, Sentence
from justenough.domain.jobs.states import Action, Revocable, Sensitivity
from justenough.domain.llm.definition import ModelDef
from justenough.domain.tools.definitions import Tool

# No globs, no empty or dotted segments, no commas, no query: what is written here ends up in Vault policies.
VAULT_PATH_PATTERN = re.compile(r"[A-Za-z0-9_${}-][A-Za-z0-9_.${}-]*(?:/[A-Za-z0-9_${}-][A-Za-z0-9_.${}-]*)+")
RESERVED_MOUNTS = ("sys", "auth", "cubbyhole")
"""Vault's own controls issue nothing that a job could use."""


def _check_vault_path(path: str) -> str:
    if not VAULT_PATH_PATTERN.fullmatch(path):
        message = "must be a path in Vault like database/creds/orders-read (letters, digits, _ - . and placeholders)"
        raise ValueError(message)
    if path.partition("/")[0] in RESERVED_MOUNTS:
        message = f"{path.partition('/')[0]}/ is Vault's own and issues nothing to jobs"
        raise ValueError(message)
    return path


VaultPath = Annotated[str, StringConstraints(max_length=256), AfterValidator(_check_vault_path)]
Mount = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*$", max_length=128)]
DAY_PATTERN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
GrantPolicy = Annotated[str, StringConstraints(pattern=r"^je-grant-[a-z0-9-]{1,128}$")]
Scope = Annotated[Mapping[ScopeKey, Label], Field(min_length=1, max_length=4)]
ScopeKeys = Annotated[tuple[ScopeKey, ...], Field(max_length=4)]


def _parse_sensitivity(value: Any) -> Any:
    if isinstance(value, Sensitivity):
        return value
    names = [level.name.lower() for level in Sensitivity]
    if not isinstance(value, str) or value not in names:
        message = f"must be one of {', '.join(names)}{did_you_mean(str(value), names)}"
        raise ValueError(message)
    return Sensitivity[value.upper()]


def _parse_day(value: Any) -> Any:
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value if DAY_PATTERN.fullmatch(value) else "")
    except (TypeError, ValueError):
        message = "must be a day like 2030-01-31"
        raise ValueError(message) from None


Day = Annotated[date, BeforeValidator(_parse_day)]
SensitivityName = Annotated[
    Sensitivity, BeforeValidator(_parse_sensitivity), PlainSerializer(lambda level: level.name.lower(), return_type=str)
]


class Issue(Model):
    """Where in Vault a credential comes from."""

    path: VaultPath
    method: Literal["read", "update"] = "read"
    data: Mapping[str, str | int | bool] = Field(default_factory=dict)
    """Sent along with `update`; `{job}` and `{ttl}` (seconds of the grant) are filled in at each issue."""

    @model_validator(mode="after")
    def _data_is_sent(self) -> Self:
        if self.data and self.method == "read":
            message = "data is sent with `method: update` only"
            raise ValueError(message)
        return self


class ResolvedIssue(Model):
    """An issue with the job's data scope filled in: exactly what Vault is asked."""

    path: str
    method: Literal["read", "update"]
    data: Mapping[str, str | int | bool]


class Target(Model):
    """How to see, and end, a job's users in the target itself."""

    postgres: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    """A libpq conninfo, without user and password."""
    observe: VaultPath
    """Vault path of short-lived users that may read pg_roles and pg_stat_activity."""
    end: VaultPath
    """Vault path of short-lived users that may only execute the function that ends a job's users."""


class Review(Model):
    """Who looks at an action again, and by when."""

    owner: Name | None = None
    """A group; the resource's owner unless said."""
    by: Day | None = None


class ActionDef(Model):
    """One action on a resource: how it is issued, under which Vault policy, for how long, and what revoking achieves."""

    issue: Issue
    policy: GrantPolicy
    """Written out by `read_catalog` where the catalog leaves it to the pattern `je-grant-<resource>-<action>`."""
    max_ttl: Annotated[Duration, Field(le=MAX_TTL_S)]
    """Seconds."""
    revocable: Revocable = Revocable.NOW
    data_scope: ScopeKeys = ()
    """Keys that a request must bind."""
    target: Target | None = None
    space: bool = False
    """Whether issuing it gives its job a space in the target, which lives as long as the job and is dropped at its end."""
    crl: Mount | None = None
    """The pki mount that issues it: a certificate counts as dead once the CRL of this mount has it, or its time is over."""
    lock: Literal["none", "control_group"] = "none"
    """`control_group`: Vault itself also wants people's authorization (justenough/domain/catalog/control_groups.py)."""
    lock_tier: Annotated[int, Field(ge=1, le=MAX_TIER)] | None = None
    """Of a locked action: the lowest tier whose people open it; default 1."""
    review: Review = Review()

    @property
    def locked(self) -> bool:
        """Whether Vault itself also wants people's authorization."""
        return self.lock != "none"

    @property
    def least_tier(self) -> int:
        """The lowest tier that may approve, whatever policy says; 0 for any."""
        return (self.lock_tier or 1) if self.locked else 0

    @model_validator(mode="after")
    def _only_a_lock_has_a_tier(self) -> Self:
        if self.lock_tier is not None and not self.locked:
            message = "lock_tier goes with `lock: control_group` only"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _what_is_given_is_given_once(self) -> Self:
        if taken := ISSUE_TIME_PLACEHOLDERS & set(self.data_scope):
            message = f"data_scope: {{{min(taken)}}} is filled in from the job itself; name the key otherwise"
            raise ValueError(message)
        sent = {name for value in self.issue.data.values() for name in SCOPE_PLACEHOLDER.findall(str(value))}
        if self.locked and sent & ISSUE_TIME_PLACEHOLDERS:
            message = f"issue.data: with `lock: control_group` Vault is asked before it is issued; it cannot have {{{min(sent & ISSUE_TIME_PLACEHOLDERS)}}}"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _a_space_can_be_looked_for(self) -> Self:
        if self.space and self.target is None:
            message = "space: what is to be dropped at the end must be seen to be gone; it goes with a `target` only"
            raise ValueError(message)
        if self.space and self.revocable is not Revocable.NOW:
            message = "space: it is dropped when access ends; it goes with `revocable: now` only"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _only_certificates_have_a_crl(self) -> Self:
        if self.crl is None:
            return self
        if self.revocable is not Revocable.NOW:
            message = "crl shows what was revoked; it goes with `revocable: now` only"
            raise ValueError(message)
        if not self.issue.path.startswith(f"{self.crl}/"):
            message = f"crl: names the pki mount that issues it, and issue.path is not under {self.crl}/"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _placeholders_are_bound(self) -> Self:
        texts = {"issue.path": self.issue.path, **{f"issue.data.{key}": value for key, value in self.issue.data.items()}}
        for where, text in texts.items():
            given = ISSUE_TIME_PLACEHOLDERS if where != "issue.path" else frozenset()
            unbound = sorted(set(SCOPE_PLACEHOLDER.findall(str(text))) - set(self.data_scope) - given)
            if unbound:
                message = f"{where}: {{{unbound[0]}}} is not in data_scope{did_you_mean(unbound[0], self.data_scope)}"
                raise ValueError(message)
            if re.search(r"[{}]", SCOPE_PLACEHOLDER.sub("", SETTING_PLACEHOLDER.sub("", str(text)))):
                message = f"{where}: a brace that is no placeholder like {{tenant}} or ${{SETTING}}"
                raise ValueError(message)
        return self


class Resource(Model):
    """Something that jobs use under a credential."""

    title: Sentence
    environment: Name
    sensitivity: SensitivityName
    external: bool = False
    """Whether data written here leaves the organisation."""
    owner: Name
    """A group."""
    used_by: Literal["job", "gateway"] = "job"
    """`gateway`: no job ever gets a credential of it; the broker's gateways use it for the job."""
    connect: Mapping[LabelKey, Annotated[str, StringConstraints(max_length=8192)]] = Field(default_factory=dict)
    """No secrets; deliverable beside the credential's own fields."""
    actions: Annotated[Mapping[Action, ActionDef], Field(min_length=1)]

    def reviewer(self, action: Action) -> str:
        """Return the group that reviews an action."""
        return self.actions[action].review.owner or self.owner

    def least_tier(self, action: Action) -> int:
        """Return the lowest tier that may approve an action, whatever policy says; 0 for any."""
        return self.actions[action].least_tier if action in self.actions else 0


class VaultWrite(Model):
    """One write that `justenough vault setup` applies, idempotent."""

    path: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_{}-][A-Za-z0-9_./{}-]*[A-Za-z0-9_}-]$", max_length=512)]
    data: Mapping[str, Any] = Field(default_factory=dict)
    per_scope: ScopeKeys = ()
    """Repeated for each scope with exactly these keys, `{key}` filled in."""
    once: bool = False
    """Written only where nothing is; `${random}` in it is a new random value."""
    unless: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)+$", max_length=512)] | None = None
    """Another path: written only where nothing is listed below it. For what cannot be read back where it is written, as a CA's key."""

    @model_validator(mode="after")
    def _one_reason_to_write(self) -> Self:
        if self.once and self.unless is not None:
            message = "once and unless both say when to write; choose one"
            raise ValueError(message)
        return self


class Catalog(Model):
    """What can be asked for."""

    resources: Annotated[Mapping[Name, Resource], Field(min_length=1)]
    scopes: tuple[Scope, ...] = ()
    """The data scopes that have an identity in Vault."""
    texts: Mapping[LabelKey, Annotated[str, StringConstraints(max_length=16384)]] = Field(default_factory=dict)
    """Longer texts that the provisioning writes use as `${NAME}`."""
    models: Mapping[Name, ModelDef] = Field(default_factory=dict)
    """Servers of models that jobs reach through their broker."""
    provision: tuple[VaultWrite, ...] = ()
    tools: Mapping[Name, Tool] = Field(default_factory=dict)
    """What a running job may have done for it (justenough/domain/tools/definitions.py)."""
    identity: Audiences = Audiences()
    """To whom a running job may show which job it is."""
    _passing: Mapping[str, Tool] | None = PrivateAttr(default=None)
    _withheld: Mapping[str, str] = PrivateAttr(default_factory=dict)
    _reviewed: Mapping[str, ToolList] = PrivateAttr(default_factory=dict)
    _listings: Mapping[str, Tool] = PrivateAttr(default_factory=dict)

    @property
    def callable(self) -> Mapping[str, Tool]:
        """Every tool that jobs can call, by name: those that stand here, and those of upstream MCP servers that are passed on."""
        return {name: tool for name, tool in self.tools.items() if not tool.mcp} if self._passing is None else self._passing

    @property
    def withheld_upstreams(self) -> Mapping[str, str]:
        """The upstream MCP servers of which nothing is passed on, and why."""
        return self._withheld

    @property
    def reviewed_lists(self) -> Mapping[str, ToolList]:
        """What was reviewed of upstream MCP servers, by name, where it is there."""
        return self._reviewed

    @property
    def listings(self) -> Mapping[str, Tool]:
        """The tools that list those of upstream MCP servers, for jobs whose order names them."""
        return self._listings

    def with_callable_tools(
        self,
        tools: Mapping[str, Tool],
        *,
        withheld: Mapping[str, str],
        reviewed: Mapping[str, ToolList],
        listings: Mapping[str, Tool],
    ) -> Self:
        """Return the same catalog with these tools to call (upstreams.py)."""
        found = self.model_copy()
        found._passing, found._withheld = dict(tools), dict(withheld)  # noqa: SLF001 - its own
        found._reviewed, found._listings = dict(reviewed), dict(listings)  # noqa: SLF001 - the same
        return found

    def action(self, resource: str, action: Action) -> ActionDef | None:
        """Return the definition of an action, None where it is not offered."""
        found = self.resources.get(resource)
        return found.actions.get(action) if found else None

    @property
    def has_locks(self) -> bool:
        """Whether Vault itself asks people for some action."""
        return any(action.locked for resource in self.resources.values() for action in resource.actions.values())

    def scopes_with(self, keys: Iterable[str]) -> tuple[Mapping[str, str], ...]:
        """Return the scopes that bind exactly these keys."""
        return tuple(scope for scope in self.scopes if set(scope) == set(keys))
