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
    """One file with its response metadata."""

    content: bytes
    type: str
    digest: str
    """Digest of the content; part of the address."""


@router.get("/static/{mark}/{name}")
async def static(mark: str, name: str) -> Response:
    """Return a file. An address with another version's digest gets the current content, uncached."""
    found = _files().get(name)
    if found is None:
        raise NotFound(f"there is no /static/{mark}/{name}")
    return Response(found.content, media_type=found.type, headers={"Cache-Control": CACHE_FOREVER if mark == found.digest else "no-store"})


def static_url(name: str) -> str:
    """Return the address of a file."""
    return f"/static/{_files()[name].digest}/{name}"


@cache
def _files() -> dict[str, StaticFile]:
    found = (entry for entry in files("console.pages").joinpath("static").iterdir() if entry.name.rpartition(".")[2] in MEDIA_TYPES)
    contents = {entry.name: entry.read_bytes() for entry in found}
    return {
        name: StaticFile(content, MEDIA_TYPES[name.rpartition(".")[2]], hashlib.sha256(content).hexdigest()[:16])
        for name, content in contents.items()
    }
