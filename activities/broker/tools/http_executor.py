"""Sends a tool's HTTP request with the credential: to a checked address, without redirects, limited in time and bytes."""

from __future__ import annotations

import asyncio

import httpx

from activities.broker.tools.executors import Result, failure
from justenough.adapters.mcp_client.transport import UNCOMPRESSED_ENCODINGS
from justenough.adapters.outbound.dns_guard import NotReached, UnknownHost
from justenough.adapters.outbound.webhook_client import PinnedTransport
from justenough.domain.tools.call import HttpRequest
from justenough.domain.tools.definitions import Http


async def run(http: Http, request: HttpRequest) -> Result:
    """Return the upstream's response. Upstream errors become a failed `Result`; nothing is raised for them."""
    try:
        async with asyncio.timeout(http.timeout):
            return await _send(http, request)
    except NotReached as error:
        return failure(str(error))
    except UnknownHost:
        return failure("the upstream's host name cannot be resolved now")
    except (TimeoutError, httpx.TimeoutException):
        return failure(f"the upstream took longer than {http.timeout} s")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        # Their texts may contain the request's headers.
        return failure(f"the upstream does not answer ({type(error).__name__})")


async def _send(http: Http, request: HttpRequest) -> Result:
    headers = {"user-agent": "JustEnough", "accept-encoding": "identity", **request.headers}
    transport = PinnedTransport(private=http.allow_private)
    async with (
        httpx.AsyncClient(transport=transport, timeout=http.timeout, trust_env=False, follow_redirects=False) as client,
        client.stream(http.method, request.url, headers=headers, json=request.body) as answer,
    ):
        if answer.is_redirect:
            return failure(f"the upstream answers with a redirect (HTTP {answer.status_code}), which is not followed")
        if answer.headers.get("content-encoding", "").lower() not in UNCOMPRESSED_ENCODINGS:
            return failure("the upstream compressed its response despite `Accept-Encoding: identity`")
        content = b""
        async for chunk in answer.aiter_raw():
            content += chunk
            if len(content) > http.answer:
                break
    content, cut = content[: http.answer], len(content) > http.answer
    if b"\0" in content:
        # UTF-16 or binary: the redactor would not find the credential in it.
        return failure("the upstream's response is not UTF-8 text, so it is not passed on")
    if answer.is_success:
        return Result(content, cut=cut)
    return Result(f"HTTP {answer.status_code}\n".encode() + content, failed=True, cut=cut)
