"""Stores a half-written decision in a cookie while its author logs in again. The cookie is authenticated with their session's key.

The cookie has its own path and no script can read it. A cookie that another session made is ignored.
"""

from __future__ import annotations

import base64
import hmac
import json
import zlib
from typing import NamedTuple

from fastapi import Request, Response
from starlette.datastructures import FormData

from console.auth.cookies import PageCookies
from console.pages.page_user import PageUser

DRAFT_LIFETIME_S = 900
"""Seconds."""
MAX_COOKIE_BYTES = 3800
"""Longest cookie value; browsers drop longer ones. A draft that does not fit is stored without its reason."""


class AnswerDraft(NamedTuple):
    """The fields of a decision form as entered."""

    decision: str = ""
    reason: str = ""
    ttl: str = ""
    action: str = ""
    absent: str = ""
    """Entity id of the absent person on whose behalf the decision is made; empty for oneself."""
    confirm: str = ""
    verdict: str = ""
    tools: str = ""
    """Tools with their bounds, one per line, in the syntax of justenough/domain/jobs/tool_bounds_syntax.py."""
    stated: str = ""
    """The `choices` that the page stated in the sentence to sign."""

    @property
    def choices(self) -> str:
        """The chosen limits and the absent person, as app.js writes them too."""
        return " ".join(f"{self.absent} {self.action} {self.ttl} {self.tools}".split())


def draft_from_form(form: FormData) -> AnswerDraft:
    """Read a draft from a posted form. Ticked reasons come before the typed one."""
    draft = AnswerDraft(**{name: str(form.get(name, "")).strip() for name in AnswerDraft._fields})
    ticked = [str(one).strip() for one in form.getlist("ticked")]
    return draft._replace(reason=". ".join(filter(None, (*ticked, draft.reason))))


def save(response: Response, cookies: PageCookies, draft: AnswerDraft, visitor: PageUser, request: str) -> None:
    value = ""
    for candidate in (draft, draft._replace(reason="")):
        content = base64.urlsafe_b64encode(zlib.compress(json.dumps(candidate).encode())).decode()
        value = f"{visitor.seal(f'draft/{request}/{content}')}.{content}"
        if len(value) <= MAX_COOKIE_BYTES:
            break
    cookies.set(response, cookies.draft, value, max_age_s=DRAFT_LIFETIME_S, path=f"/inbox/{request}")


def load(incoming: Request, cookies: PageCookies, visitor: PageUser, request: str) -> AnswerDraft | None:
    """Return the draft that this session stored for this request; None if there is none."""
    seal, _, content = incoming.cookies.get(cookies.draft, "").partition(".")
    if not hmac.compare_digest(seal.encode(), visitor.seal(f"draft/{request}/{content}").encode()):
        return None
    try:
        return AnswerDraft(*json.loads(zlib.decompress(base64.urlsafe_b64decode(content))))
    except (ValueError, TypeError, zlib.error):
        return None


def delete(response: Response, cookies: PageCookies, request: str) -> None:
    cookies.delete(response, cookies.draft, path=f"/inbox/{request}")
