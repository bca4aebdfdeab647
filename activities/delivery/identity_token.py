"""Draws a job's identity: a short token, signed by Vault, that tells one audience which job its bearer is. The broker's to call.

Blocking: runs in threads. Whatever it raises, no token has left it.
"""

from __future__ import annotations

import uuid

from activities.issuing.results import ACCESS_CLOSED, AccessClosed, NotPermitted
from justenough.adapters.configuration.settings import NO_ISSUER
from justenough.domain.catalog.audiences import checked_audience
from justenough.domain.core.errors import GiveUp
from justenough.domain.core.secret import Secret
from justenough.domain.integrations.job_identity import TOKEN_LIFETIME, build_claims, build_token, signing_input
from justenough.domain.ledger.events import EventType, build_event
from justenough.services.dependencies import Deps
from justenough.services.verify_order import VerifiedOrder


class NoIssuer(GiveUp):
    """The settings do not say in whose name jobs are vouched for."""


class NotVouchedFor(NotPermitted):
    """The catalog does not let this job show its identity there; the message names the audience."""


def issue_identity_token(deps: Deps, verified: VerifiedOrder, audience: str, *, owner: str) -> Secret:
    """Return a token of the job for one audience, having recorded that it was vouched for. `owner` is the session that asks.

    Raises InvalidInput for an audience that is none, NotVouchedFor for one that the catalog does not name for it, NoIssuer, Closed where the job has ended, and what Vault and the store raise.
    """
    job, wanted, issuer = verified.statement.job, checked_audience(audience), deps.settings.workload_issuer
    if why := deps.config.current().catalog.identity.why_not_allowed(wanted, environment=verified.spec.environment):
        raise NotVouchedFor(why)
    if issuer is None:
        raise NoIssuer(NO_ISSUER)
    # The clock is read before the claim is: so no token, however long its making takes, outlives the claim by more than its life.
    now, token_id = deps.now(), uuid.uuid4().hex
    claim = deps.store.claims.get(job)
    if claim is None or not claim.is_held_by(owner):
        raise AccessClosed(f"{ACCESS_CLOSED}: it gets no identity any more")
    claims = build_claims(verified.spec, verified.statement, issuer=issuer, audience=wanted, token_id=token_id, now=now)
    signed, signature = deps.vault.sign_identity(lambda version: signing_input(claims, version=version))
    expires = (now + TOKEN_LIFETIME).isoformat()
    deps.store.ledger.append(
        [build_event(EventType.IDENTITY_ISSUED, job, at=now, about=token_id, audience=wanted, expires_at=expires, jti=token_id)]
    )
    return build_token(signed, signature)
