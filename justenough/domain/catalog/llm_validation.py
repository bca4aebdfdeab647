"""Validates the models of a catalog, a spec's use of a model, and requests for resources that only gateways use. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import Problem
from justenough.domain.core.placeholders import did_you_mean
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.spec import Access, JobSpec, ModelUse


def model_problems(catalog: Catalog) -> Iterator[Problem]:
    """Yield the problems of a catalog's models that involve its resources, by YAML path."""
    for name, model in catalog.models.items():
        where, uses = f"models.{name}.uses", model.uses
        resource = catalog.resources.get(uses.resource)
        if resource is None:
            yield Problem(f"{where}.resource", f"unknown resource {uses.resource!r}{did_you_mean(uses.resource, catalog.resources)}")
            continue
        if uses.action not in resource.actions:
            offered = ", ".join(sorted(resource.actions))
            yield Problem(f"{where}.action", f"{uses.resource} does not offer {uses.action}; it offers {offered}")
        elif resource.actions[uses.action].locked:
            yield Problem(
                f"{where}.action", f"{uses.resource} {uses.action} is behind a Vault control group, which a running job cannot wait for"
            )
        if resource.used_by != "gateway":
            yield Problem(f"{where}.resource", f"{uses.resource} needs `used_by: gateway`, or a job could request the model's key itself")


def model_access(use: ModelUse, catalog: Catalog) -> Access | None:
    """Return the access that the gateway requests for a model, at the catalog's max_ttl; None if the catalog does not offer it."""
    model = catalog.models.get(use.name)
    action = catalog.action(model.uses.resource, model.uses.action) if model else None
    if model is None or action is None:
        return None
    reason = f"Calls of model {use.name}: at most {use.requests:,} requests and {use.tokens:,} tokens"
    return Access(resource=model.uses.resource, action=model.uses.action, ttl=action.max_ttl, reason=reason, at="request")


def model_use_problems(spec: JobSpec, catalog: Catalog) -> Iterator[Problem]:
    """Yield the problems of a spec's `model` by YAML path. The access behind the model is checked like any other access."""
    use = spec.model
    if use is None:
        return
    model = catalog.models.get(use.name)
    if model is None:
        yield Problem("model.name", f"unknown model {use.name!r}{did_you_mean(use.name, catalog.models)}")
        return
    for field, count, limit in (("requests", use.requests, model.max_requests), ("tokens", use.tokens, model.max_tokens)):
        if count > limit:
            yield Problem(f"model.{field}", f"{count:,} is more than {limit:,}, the maximum of model {use.name} for one job")


def why_for_gateways_only(item: Access, catalog: Catalog) -> Rejection | None:
    """Return why no job can get a credential for an access, or None if only policy decides."""
    resource = catalog.resources.get(item.resource)
    if resource is None or resource.used_by == "job":
        return None
    return Rejection("gateways_only", f"only the broker's gateways use {item.resource}; jobs cannot get its credential")
