"""Style, script and icons: read once, named by their content, so that browsers may keep them for ever."""

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
    """One file as it is sent."""

    content: bytes
    type: str
    digest: str
    """Of its content; part of its address."""


@router.get("/static/{mark}/{name}")
async def static(mark: str, name: str) -> Response:
    """Return a file. An address of another version's gets today's content, not kept."""
    found = _files().get(name)
    if found is None:
        raise NotFound(f"there is no /static/{mark}/{name}")
    return Response(found.content, media_type=found.type, headers={"Cache-Control": CACHE_FOREVER if mark == found.digest else "no-store"})


def static_url(name: str) -> str:
    """Return where a file is."""
    return f"/static/{_files()[name].digest}/{name}"


@cache
def _files() -> dict[str, StaticFile]:
    found = (entry for entry in files("console.pages").joinpath("static").iterdir() if entry.name.rpartition(".")[2] in MEDIA_TYPES)
    return {entry.name: _file(entry.name, entry.read_bytes()) for entry in found}


def _file(name: str, content: bytes) -> StaticFile:
    return StaticFile(content, MEDIA_TYPES[name.rpartition(".")[2]], hashlib.sha256(content).hexdigest()[:16])
