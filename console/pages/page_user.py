"""Who looks at a page, and what their forms bring: the seam between pages and sessions. Every page and every form passes here.

A form counts where it carries what its session's pages carry (`csrf`), and where the browser does not say that it comes from elsewhere.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Annotated, Protocol
from urllib.parse import urlsplit

from anyio import to_thread
from fastapi import Depends, Request
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException

from console.auth.authorization import Caller
from console.auth.page_sessions import NotVisiting, Visit
from console.services.console import Console
from console.services.inputs import SignedBody
from justenough.adapters.vault import VaultDenied, VaultRefused, user_login
from justenough.domain.approvals.statements import Statement, signable
from justenough.domain.core.canonical_json import canonical
from justenough.domain.core.errors import Forbidden
from justenough.domain.core.secret import Secret

__all__ = ["BadForm", "NotVisiting", "TheForm", "TheVisitor", "Visitor", "checked_form", "visitor_of"]

BY_ITSELF = "X-Look-Again"
"""Header of what an open page asks without its person's doing."""
CSRF = "csrf"
"""The hidden field of every form."""
MAX_FIELDS = 200
MAX_FIELD = 256 * 1024
"""Bytes; a pasted spec is the longest."""
NOT_YOURS = "this form was not made for your session; open the page again"


class BadForm(Forbidden):
    """A form that the session's pages did not make, or that cannot be read."""


class Hand(Protocol):
    """What acts in Vault as the person."""

    async def sign(self, content: bytes) -> str:
        """Return the person's signature, in Vault's form."""

    async def authorize(self, accessor: str) -> bool:
        """Open Vault's lock under an accessor, as far as this person can."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """A person who is logged in to the pages."""

    caller: Caller
    csrf: str
    """What every form of this session carries in its hidden field `csrf`."""
    fresh: bool
    """Logged in anew within the last five minutes: what tier 3 and above needs."""
    hand: Hand = field(repr=False)

    async def signed(self, statement: Statement) -> SignedBody:
        """Return a statement signed with the person's own key, by this session's own login. Raises NotVisiting, RetryLater."""
        raw = signable(statement)
        return SignedBody(statement=raw, signature=await self.hand.sign(canonical(raw)))

    async def authorize(self, accessor: str) -> bool:
        """Authorize what waits in Vault; return whether Vault now has all the authorizations that it wants. Raises Conflict, NotVisiting, RetryLater."""
        return await self.hand.authorize(accessor)


async def visitor_of(request: Request) -> Visitor:
    """Return whose session a request carries. Raises NotVisiting saying why there is none, RetryLater where Vault or the store is away."""
    console: Console = request.app.state.console
    visit = await console.sessions.visit(request.cookies.get(console.cookies.session), used=BY_ITSELF not in request.headers)
    # In a thread: now and then it looks at files.
    tiers = (await to_thread.run_sync(console.deps.config.current)).tiers
    request.state.visit = visit
    caller = Caller(person=visit.person, tiers=tiers, expires=visit.expires.timestamp())
    return Visitor(caller=caller, csrf=visit.key.csrf, fresh=visit.fresh, hand=_OwnHand(console, visit))


async def checked_form(request: Request) -> FormData:
    """Return the posted form of a visitor. Raises BadForm."""
    visitor: Visitor = request.state.visitor
    return await form_with(request, visitor.csrf)


async def form_with(request: Request, expected: str) -> FormData:
    """Return a posted form that carries this `csrf` and comes from a page of ours. Raises BadForm."""
    if not comes_from_us(request):
        raise BadForm(NOT_YOURS)
    try:
        form = await request.form(max_files=0, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD)
    except HTTPException as error:
        raise BadForm("this form cannot be read") from error
    values = [value for _, value in form.multi_items()]
    if len(values) > MAX_FIELDS or any(not isinstance(value, str) or len(value) > MAX_FIELD for value in values):
        raise BadForm("this form is larger than any of ours")
    if not hmac.compare_digest(str(form.get(CSRF, "")).encode(), expected.encode()):
        raise BadForm(NOT_YOURS)
    return form


def comes_from_us(request: Request) -> bool:
    """Whether nothing that the browser says speaks against a page of ours having sent this."""
    if site := request.headers.get("sec-fetch-site"):
        return site == "same-origin"
    origin = request.headers.get("origin")
    if origin is None:
        return True
    console: Console = request.app.state.console
    ours = {request.headers.get("host", ""), urlsplit(console.deps.settings.console_url or "").netloc}
    return urlsplit(origin).netloc in ours - {""}


@dataclass(frozen=True, slots=True)
class _OwnHand:
    console: Console
    visit: Visit

    async def sign(self, content: bytes) -> str:
        token = await self.console.sessions.token(self.visit)
        return await to_thread.run_sync(self._sign, token, content)

    async def authorize(self, accessor: str) -> bool:
        token = await self.console.sessions.token(self.visit)
        return await to_thread.run_sync(self._authorize, token, accessor)

    def _sign(self, token: Secret, content: bytes) -> str:
        try:
            return user_login.sign(self.console.deps.vault, token, self.visit.person.id, content)
        except (VaultDenied, VaultRefused) as error:
            raise NotVisiting("your login does not sign any more; log in again") from error

    def _authorize(self, token: Secret, accessor: str) -> bool:
        try:
            return user_login.authorize(self.console.deps.vault, token, accessor)
        except VaultDenied as error:
            raise NotVisiting("your login does not hold any more; log in again") from error


async def _the_visitor(request: Request) -> Visitor:
    visitor: Visitor = request.state.visitor
    return visitor


TheVisitor = Annotated[Visitor, Depends(_the_visitor)]
TheForm = Annotated[FormData, Depends(checked_form)]
