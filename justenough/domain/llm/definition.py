"""The catalog's definitions of language models behind the gateway. The protocol is OpenAI's (chat completions). No I/O, no clock."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator

from justenough.domain.core.base_model import Model
from justenough.domain.core.errors import reject_if
from justenough.domain.core.placeholders import SETTING_PLACEHOLDER, has_stray_brace
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
    """The access whose credential a gateway uses; policy decides on it like any other access."""

    resource: Name
    action: Action = Action.READ


class ModelDef(Model):
    """One language model server, the models that jobs may use, and their budgets."""

    uses: GatewayUses
    url: Url
    """Up to and including `/v1`; `/chat/completions` and `/models` are appended."""
    allow: Annotated[tuple[NamePattern, ...], Field(min_length=1, max_length=64)]
    """Names of models; `*` and `?` as in file name patterns."""
    headers: Mapping[HeaderName, HeaderText] = Field(default_factory=lambda: {"Authorization": "Bearer {key}"})
    """Sent with each call; `{key}` is the credential's field of that name."""
    max_requests: Annotated[int, Field(ge=1, le=MAX_MODEL_REQUESTS)] = 1_000
    """The maximum of one job's budget; the same holds for `max_tokens`."""
    max_tokens: Annotated[int, Field(ge=1, le=MAX_MODEL_TOKENS)] = 1_000_000
    timeout: Annotated[Duration, Field(le=MAX_CALL_S)] = 300
    """Seconds for one call, including its whole response."""

    @field_validator("url")
    @classmethod
    def _keeps_the_key_private(cls, url: str) -> str:
        if SETTING_PLACEHOLDER.search(url):
            return url
        if why := url_problem(url, private=True):
            raise ValueError(why)
        reject_if("?" in url, "must not have a query")
        host = urlsplit(url).hostname or ""
        is_loopback = host == "localhost"
        with suppress(ValueError):
            is_loopback = is_loopback or ip_address(host).is_loopback
        message = "must begin with https://, or the key would be sent unencrypted (http:// is allowed for this machine's loopback only)"
        reject_if(not url.startswith("https://") and not is_loopback, message)
        return url

    @field_validator("headers")
    @classmethod
    def _no_reserved_headers(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        for name, text in headers.items():
            reject_if(name.lower() in _GATEWAY_HEADERS, f"{name} is set by the gateway")
            reject_if(has_stray_brace(text), f"{name}: contains a brace outside of a placeholder like {{key}} or ${{SETTING}}")
        return headers

    def allows(self, name: str) -> bool:
        """Whether jobs may use a model of this name."""
        return MODEL_NAME.fullmatch(name) is not None and any(fnmatchcase(name, pattern) for pattern in self.allow)
