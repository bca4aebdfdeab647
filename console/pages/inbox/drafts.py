"""What somebody was writing when they had to log in once more: kept in their own browser, sealed to their session, sent by nobody but them.

A cookie of its own path, readable by no script; one that this session did not seal is no draft.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import zlib
from typing import NamedTuple

from fastapi import Request, Response
from starlette.datastructures import FormData

from console.auth.cookies import Cookies
from console.pages.page_user import Visitor

LIFE = 900
"""Seconds."""
LONGEST = 3800
"""Bytes of a cookie; browsers keep no longer ones. What does not fit is kept without its reason."""


class Draft(NamedTuple):
    """The fields of an answer, as they were typed."""

    decision: str = ""
    reason: str = ""
    ttl: str = ""
    action: str = ""
    absent: str = ""
    """Entity id of whom it is given for; empty for oneself."""
    confirm: str = ""
    verdict: str = ""
    tools: str = ""
    """Lines of justenough/domain/jobs/tool_bounds_syntax.py."""


def typed(form: FormData) -> Draft:
    """Return what a form holds."""
    return Draft(**{name: str(form.get(name, "")).replace("\r\n", "\n").strip() for name in Draft._fields})


def keep(response: Response, cookies: Cookies, draft: Draft, visitor: Visitor, request: str) -> None:
    """Keep a draft with the browser."""
    value = _sealed(draft, visitor, request)
    if len(value) > LONGEST:
        value = _sealed(draft._replace(reason=""), visitor, request)
    cookies.set(response, cookies.draft, value, life=LIFE, path=_path(request))


def kept(incoming: Request, cookies: Cookies, visitor: Visitor, request: str) -> Draft | None:
    """Return what was being written, where this session kept it for this request."""
    seal, _, content = incoming.cookies.get(cookies.draft, "").partition(".")
    if not hmac.compare_digest(seal.encode(), _seal(content, visitor, request).encode()):
        return None
    try:
        return Draft(*json.loads(zlib.decompress(base64.urlsafe_b64decode(content))))
    except (ValueError, TypeError, binascii.Error, zlib.error):
        return None


def forget(response: Response, cookies: Cookies, request: str) -> None:
    """Keep a draft no longer."""
    cookies.drop(response, cookies.draft, path=_path(request))


def _sealed(draft: Draft, visitor: Visitor, request: str) -> str:
    content = base64.urlsafe_b64encode(zlib.compress(json.dumps(draft).encode())).decode()
    return f"{_seal(content, visitor, request)}.{content}"


def _seal(content: str, visitor: Visitor, request: str) -> str:
    return hmac.new(visitor.csrf.encode(), f"draft/{request}/{content}".encode(), hashlib.sha256).hexdigest()


def _path(request: str) -> str:
    return f"/inbox/{request}"
