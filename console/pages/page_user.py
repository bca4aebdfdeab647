"""The logged-in user of a page, and CSRF-checked forms. Every page and every form uses this module.

A form is accepted if it carries its session's CSRF token and the browser does not report another origin.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated
from urllib.parse import urlsplit

from anyio import to_thread
from fastapi import Depends, Request
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException

from console.auth.authorization import READING_ROLES, Caller, Role
from console.auth.csrf import is_masked_token
from console.auth.page_sessions import ActiveSession, NoSession
from console.concurrency.vault_threads import VAULT_THREADS
from console.pages.regions import AUTO_REFRESH_HEADER
from console.services.console import Console
from console.services.inputs import SignedBody
from justenough.adapters.store.inbox_queries import MAX_COUNT, InboxFilter
from justenough.adapters.vault import VaultDenied, VaultRefused, user_login
from justenough.domain.approvals.statements import Statement, to_signable
from justenough.domain.core.canonical_json import to_canonical_json
from justenough.domain.core.errors import Forbidden

CSRF_FIELD = "csrf"
"""Name of the hidden CSRF field in every form."""
MAX_FIELDS = 200
MAX_FIELD_BYTES = 256 * 1024
"""Maximum bytes of a field as browsers encode it. A pasted spec is the longest field."""
WRONG_CSRF_TEXT = "this form belongs to an earlier login, or another site sent it"


class BadForm(Forbidden):
    """A form with a wrong CSRF token or origin, or one that cannot be read."""


@dataclass(frozen=True, slots=True)
class PageUser:
    """A person who is logged in to the pages."""

    caller: Caller
    csrf: str
    """The CSRF token of this session's forms."""
    fresh: bool
    """Whether the last login is at most five minutes old, as careful decisions require."""
    waiting: int
    """How many requests wait for this person's decision, up to inbox_queries.MAX_COUNT."""
    reviews: int
    """How many break-glass reviews wait for them, up to the same maximum."""
    console: Console = field(repr=False)
    session: ActiveSession = field(repr=False)

    @property
    def waiting_text(self) -> str:
        """The number of requests that wait; empty for none."""
        return _count_text(self.waiting)

    @property
    def inbox_text(self) -> str:
        """The number of requests and reviews that wait; empty for none."""
        return _count_text(self.waiting + self.reviews)

    @property
    def session_mark(self) -> str:
        """A text that differs for each session and discloses nothing about it."""
        return self.seal("page")[:12]

    def seal(self, text: str) -> str:
        """Return a seal that proves later that this session produced a text."""
        return hmac.new(self.csrf.encode(), text.encode(), hashlib.sha256).hexdigest()

    async def sign(self, statement: Statement) -> SignedBody:
        """Return a statement signed with the person's own key, using this session's login. Raises NoSession, RetryLater."""
        raw = to_signable(statement)
        token = await self.console.sessions.token(self.session)
        content, vault = to_canonical_json(raw), self.console.deps.vault
        try:
            signature = await VAULT_THREADS.run(partial(user_login.sign, vault, token, self.caller.person.id, content))
        except (VaultDenied, VaultRefused) as error:
            raise NoSession("your login can no longer sign; log in again") from error
        return SignedBody(statement=raw, signature=signature)

    async def authorize(self, accessor: str) -> bool:
        """Authorize a control group request in Vault; return whether it now has all authorizations. Raises Conflict, NoSession, RetryLater."""
        token = await self.console.sessions.token(self.session)
        try:
            return await VAULT_THREADS.run(partial(user_login.authorize, self.console.deps.vault, token, accessor))
        except VaultDenied as error:
            raise NoSession("your login is no longer valid; log in again") from error


async def page_user_of(request: Request, *, allow_last_known: bool = False) -> PageUser:
    """Return the user of a request's session. `allow_last_known`: as in `PageSessions.session_of`.

    Raises NoSession with the reason if there is none, RetryLater if Vault or the store is unavailable.
    """
    console: Console = request.app.state.console
    session = await console.sessions.session_of(
        request.cookies.get(console.cookies.session),
        by_person=AUTO_REFRESH_HEADER not in request.headers,
        allow_last_known=allow_last_known,
    )

    def read() -> tuple[Caller, int, int]:
        caller = Caller(person=session.person, tiers=console.deps.config.current().tiers, expires=session.expires.timestamp())
        store, me, tier = console.deps.store, caller.person.id, caller.tier
        if not tier:
            return caller, 0, 0
        reviews = store.reviews.count_answerable(me, caller.review_tier, up_to=MAX_COUNT)
        return caller, store.inbox.count(InboxFilter(person=me, tier=tier, mine=True)), reviews

    # Run in a thread: the store blocks, and the configuration is sometimes read from files.
    caller, waiting, reviews = await to_thread.run_sync(read)
    csrf, fresh = session.key.csrf, session.fresh
    return PageUser(caller=caller, csrf=csrf, fresh=fresh, waiting=waiting, reviews=reviews, console=console, session=session)


async def read_form(request: Request) -> FormData:
    """Return the posted form of the page user. Raises BadForm."""
    visitor: PageUser = request.state.visitor
    return await read_form_with_csrf(request, visitor.csrf)


async def read_form_with_csrf(request: Request, csrf: str) -> FormData:
    """Return a posted form that has this CSRF token and the same origin, its lines separated by LF. Raises BadForm."""
    if not is_same_origin(request):
        raise BadForm(WRONG_CSRF_TEXT)
    try:
        form = await request.form(max_files=0, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
    except HTTPException as error:
        raise BadForm("this form is too large or cannot be read; send less text, or use the command line") from error
    if not is_masked_token(str(form.get(CSRF_FIELD, "")), csrf):
        raise BadForm(WRONG_CSRF_TEXT)
    # Browsers send a line break as two characters, but the maxlength of a field counts it as one.
    return FormData([(name, value.replace("\r\n", "\n")) for name, value in form.multi_items() if isinstance(value, str)])


def is_same_origin(request: Request) -> bool:
    """Whether the browser's headers are consistent with a request from our own origin."""
    if site := request.headers.get("sec-fetch-site"):
        return site == "same-origin"
    origin = request.headers.get("origin")
    if origin is None:
        return True
    console: Console = request.app.state.console
    ours = {request.headers.get("host", ""), urlsplit(console.deps.settings.console_url or "").netloc}
    return urlsplit(origin).netloc in ours - {""}


def _count_text(count: int) -> str:
    return f"{MAX_COUNT - 1}+" if count >= MAX_COUNT else str(count or "")


def page_user_with(*roles: Role) -> Callable[[Request], Awaitable[PageUser]]:
    """Return a dependency: the page user, if they have one of these roles. If no role is named, none is needed."""

    async def page_user(request: Request) -> PageUser:
        visitor: PageUser = request.state.visitor
        if roles:
            visitor.caller.require(*roles)
        return visitor

    return page_user


ThePageUser = Annotated[PageUser, Depends(page_user_with())]
"""A person who is logged in."""
PageMember = Annotated[PageUser, Depends(page_user_with(*Role))]
"""A person with at least one role."""
PageLauncher = Annotated[PageUser, Depends(page_user_with(Role.LAUNCH))]
PageApprover = Annotated[PageUser, Depends(page_user_with(Role.APPROVE))]
PageReader = Annotated[PageUser, Depends(page_user_with(*READING_ROLES))]
"""A person who may read everything."""
TheForm = Annotated[FormData, Depends(read_form)]
