"""What is wrong with the models of a catalog, with a spec's model, and with asking for what only gateways use. Pure; by YAML path."""

from __future__ import annotations

from collections.abc import Iterator

from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import Problem
from justenough.domain.core.placeholders import did_you_mean
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.spec import Access, JobSpec, ModelUse


def model_problems(catalog: Catalog) -> Iterator[Problem]:
    """Yield what the rest of a catalog has against its models."""
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
            yield Problem(f"{where}.action", f"{uses.resource} {uses.action} is locked in Vault, which a running job cannot wait for")
        if resource.used_by != "gateway":
            yield Problem(f"{where}.resource", f"{uses.resource} needs `used_by: gateway`, or a job could ask for the model's key itself")


def model_access(use: ModelUse, catalog: Catalog) -> Access | None:
    """Return what the gateway asks for, the longest that the catalog allows; None where the catalog does not have it."""
    model = catalog.models.get(use.name)
    action = catalog.action(model.uses.resource, model.uses.action) if model else None
    if model is None or action is None:
        return None
    reason = f"Calls of model {use.name}: at most {use.requests:,} requests and {use.tokens:,} tokens"
    return Access(resource=model.uses.resource, action=model.uses.action, ttl=action.max_ttl, reason=reason, at="request")


def model_use_problems(spec: JobSpec, catalog: Catalog) -> Iterator[Problem]:
    """Yield what the catalog has against a spec's model itself; what it has against the access behind it is asked as for any other."""
    use = spec.model
    model = catalog.models.get(use.name) if use else None
    if use is None:
        return
    if model is None:
        yield Problem("model.name", f"unknown model {use.name!r}{did_you_mean(use.name, catalog.models)}")
        return
    for what, asked, most in (("requests", use.requests, model.max_requests), ("tokens", use.tokens, model.max_tokens)):
        if asked > most:
            yield Problem(f"model.{what}", f"{asked:,} is more than {most:,}, the most that model {use.name} allows one job")


def why_for_gateways_only(item: Access, catalog: Catalog) -> Rejection | None:
    """Return why no job can have a credential for some access, or None if policy alone decides."""
    resource = catalog.resources.get(item.resource)
    if resource is None or resource.used_by == "job":
        return None
    return Rejection("gateways_only", f"only the broker's gateways use {item.resource}: no job gets its credential")
