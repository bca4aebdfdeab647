"""Bundles: the files that go along with a job, kept by the digest of their content."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from console.api.dependencies import AuthenticatedRoute, Launcher
from console.api.schemas import Bundled
from console.http.dependencies import TheConsole
from console.http.problems import problem_responses
from justenough.domain.core.errors import TooLarge, UnsupportedMedia
from justenough.domain.jobs.bundle import MAX_PACKED_BYTES, bundle_digest, check_bundle

BUNDLES_PATH = "/bundles"

router = APIRouter(route_class=AuthenticatedRoute, tags=["bundles"])


@router.post(
    BUNDLES_PATH,
    status_code=201,
    responses={200: {"model": Bundled, "description": "It is there already"}, **problem_responses(415)},
    openapi_extra={"requestBody": {"required": True, "content": {"application/gzip": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def put_bundle(request: Request, response: Response, console: TheConsole, caller: Launcher) -> Bundled:
    """Keep a gzipped tar of a job's working directory; the same content is kept once."""
    del caller
    if request.headers.get("content-type", "").partition(";")[0].strip() not in {"application/gzip", "application/x-gzip"}:
        raise UnsupportedMedia("a bundle is application/gzip")
    content = await _read_bundle(request)
    store = console.deps.store

    def keep() -> tuple[str, bool]:
        check_bundle(content)
        name = bundle_digest(content)
        known = store.bundles.get(name) is not None
        if not known:
            store.bundles.put(name, content)
        return name, known

    name, known = await to_thread.run_sync(keep)
    if known:
        response.status_code = 200
    return Bundled(digest=name, size=len(content))


async def _read_bundle(request: Request) -> bytes:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MAX_PACKED_BYTES:
            raise TooLarge(f"a bundle has at most {MAX_PACKED_BYTES:,} bytes")
    return bytes(content)
