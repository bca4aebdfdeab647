"""Serves style, script and icons under addresses with a content digest, so that browsers can cache them forever."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response

from justenough.domain.core.errors import NotFound

MEDIA_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
CACHE_FOREVER = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class StaticFile:
    content: bytes
    type: str
    digest: str
    """Digest of the content; part of the address."""


@router.get("/static/{digest}/{name}")
async def static(digest: str, name: str) -> Response:
    """Return a file. An address with another version's digest gets the current content, uncached."""
    file = _files().get(name)
    if file is None:
        raise NotFound(f"there is no /static/{digest}/{name}")
    return Response(file.content, media_type=file.type, headers={"Cache-Control": CACHE_FOREVER if digest == file.digest else "no-store"})


def static_url(name: str) -> str:
    return f"/static/{_files()[name].digest}/{name}"


@cache
def _files() -> dict[str, StaticFile]:
    contents = {entry.name: entry.read_bytes() for entry in files("console.pages").joinpath("static").iterdir() if entry.is_file()}
    return {
        name: StaticFile(content, MEDIA_TYPES[suffix], hashlib.sha256(content).hexdigest()[:16])
        for name, content in contents.items()
        if (suffix := name.rpartition(".")[2]) in MEDIA_TYPES
    }
