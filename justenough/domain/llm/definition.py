"""Models behind the gateway: what the catalog says of one, a job's budget of it, and how many tokens an answer took. No I/O, no clock.

The wire is OpenAI's (chat completions, server-sent events); where an upstream does not tell what it used, four bytes of text count as a token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator

from justenough.domain.core.base_model import Model
from justenough.domain.core.placeholders import SCOPE_PLACEHOLDER, SETTING_PLACEHOLDER
from justenough.domain.core.units import Duration
from justenough.domain.core.url_policy import url_problem
from justenough.domain.jobs.spec import MAX_MODEL_REQUESTS, MAX_MODEL_TOKENS, Name
from justenough.domain.jobs.states import Action

MAX_CALL_S = 3600


MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")


NamePattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/@+*?-]{1,128}$")]


HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")]


HeaderText = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e](?:[\x20-\x7e]{0,1022}[\x21-\x7e])?$")]


Url = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


_GATEWAY_HEADERS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding"})


class GatewayUses(Model):
    """Whose credential a gateway uses: an action on a resource, decided as any other."""

    resource: Name
    action: Action = Action.READ


class ModelDef(Model):
    """One server of models, and what jobs may have of it."""

    uses: GatewayUses
    url: Url
    """Up to and with `/v1`: `/chat/completions` and `/models` follow it."""
    allow: Annotated[tuple[NamePattern, ...], Field(min_length=1, max_length=64)]
    """Names of models; `*` and `?` as in file names."""
    headers: Mapping[HeaderName, HeaderText] = Field(default_factory=lambda: {"Authorization": "Bearer {key}"})
    """Sent with each call; `{key}` is the credential's field of that name."""
    max_requests: Annotated[int, Field(ge=1, le=MAX_MODEL_REQUESTS)] = 1_000
    """What one job's budget may be at most; so is the next."""
    max_tokens: Annotated[int, Field(ge=1, le=MAX_MODEL_TOKENS)] = 1_000_000
    timeout: Annotated[Duration, Field(le=MAX_CALL_S)] = 300
    """Seconds that one call may take, its whole answer included."""

    @field_validator("url")
    @classmethod
    def _where_a_key_may_go(cls, url: str) -> str:
        if not SETTING_PLACEHOLDER.search(url) and (why := _url_problem(url)):
            raise ValueError(why)
        return url

    @field_validator("headers")
    @classmethod
    def _headers_of_its_own(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        for name, text in headers.items():
            if name.lower() in _GATEWAY_HEADERS:
                message = f"{name} is set by the gateway"
                raise ValueError(message)
            if re.search(r"[{}]", SCOPE_PLACEHOLDER.sub("", SETTING_PLACEHOLDER.sub("", text))):
                message = f"{name}: a brace that is no placeholder like {{key}} or ${{SETTING}}"
                raise ValueError(message)
        return headers

    def allows(self, name: str) -> bool:
        """Whether jobs may use a model of this name."""
        return MODEL_NAME.fullmatch(name) is not None and any(fnmatchcase(name, pattern) for pattern in self.allow)


def _url_problem(url: str) -> str | None:
    if why := url_problem(url, private=True):
        return why
    if "?" in url:
        return "must have no query"
    if not url.startswith("https://") and not _is_loopback(urlsplit(url).hostname or ""):
        return "must begin with https://, or the key would travel in the clear (http:// goes with this machine's loopback only)"
    return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
