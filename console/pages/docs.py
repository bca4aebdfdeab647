"""GET /docs and /docs/…: the product's documentation, for everyone who is logged in."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from console.pages.rendering import CONTENT_SECURITY_POLICY, render
from console.pages.routing import PageRoute
from console.presentation.documentation import doc_image, doc_page
from justenough.domain.core.errors import NotFound

SECTIONS = {"tutorial": "Tutorial", "how-to": "How-to", "reference": "Reference", "explanation": "Explanation", "decisions": "Decisions"}
"""Names of the folders."""
IMAGE_HEADERS = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "private, max-age=3600"}

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/docs")
@router.get("/docs/{address:path}")
def show(request: Request, address: str = "") -> Response:
    """Show a page of the documentation, or one of its images."""
    if image := doc_image(address):
        return Response(image.content, media_type=image.media_type, headers=IMAGE_HEADERS)
    page = doc_page(address)
    if page is None:
        raise NotFound(f"there is no page {address} in the docs")
    return render(request, "doc.html", page=page, section=SECTIONS.get(address.partition("/")[0], ""))
