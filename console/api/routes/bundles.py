"""Bundles: the files of a job's working directory, stored by the digest of their content."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from console.api.dependencies import AuthenticatedRoute, Launcher
from console.http.dependencies import TheConsole
from console.http.problems import problem_responses
from console.services.submit_job import store_bundle
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import TooLarge, UnsupportedMedia
from justenough.domain.jobs.bundle import MAX_PACKED_BYTES

BUNDLES_PATH = "/bundles"

router = APIRouter(route_class=AuthenticatedRoute, tags=["bundles"])


class Bundled(Message):
    digest: str
    size: int
    """Bytes of the packed bundle, as sent."""


@router.post(
    BUNDLES_PATH,
    status_code=201,
    responses={200: {"model": Bundled, "description": "This bundle was already stored"}, **problem_responses(415)},
    openapi_extra={"requestBody": {"required": True, "content": {"application/gzip": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def put_bundle(request: Request, response: Response, console: TheConsole, caller: Launcher) -> Bundled:
    """Store a gzipped tar of a job's working directory. The same content is stored once."""
    if request.headers.get("content-type", "").partition(";")[0].strip() not in {"application/gzip", "application/x-gzip"}:
        raise UnsupportedMedia("a bundle must be sent as Content-Type: application/gzip")
    await to_thread.run_sync(console.quotas.require_bundle, caller.person.id)
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MAX_PACKED_BYTES:
            raise TooLarge(f"the bundle is larger than {MAX_PACKED_BYTES:,} bytes")
    digest, new = await to_thread.run_sync(store_bundle, console.deps, caller.person, bytes(content))
    response.status_code = 201 if new else 200
    return Bundled(digest=digest, size=len(content))
