"""GET /docs and /docs/…: the product's documentation, for everyone who is logged in. Its Markdown becomes HTML; raw HTML in it stays text.

Pages and images have the addresses of their files in docs/, without `.md`: `how-to/runbook`, `images/now.png`. A README is the page of its
folder. Links to files that are not served, such as source files, become text whose title is the file's path in the repository.
"""

from __future__ import annotations

import posixpath
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from console.pages.rendering import CONTENT_SECURITY_POLICY, render
from console.pages.routing import PageRoute
from justenough.domain.core.errors import NotFound

BASE = "/docs"
"""Where the console serves the documentation."""
IMAGE_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED, CHECKOUT = PACKAGE / "docs", PACKAGE.parent / "docs"
"""The folder into which a wheel installs the files, and their folder in a checkout."""
SECTIONS = {"tutorial": "Tutorial", "how-to": "How-to", "reference": "Reference", "explanation": "Explanation", "decisions": "Decisions"}
"""Names of the folders."""
IMAGE_HEADERS = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "private, max-age=3600"}
_GENERATED = re.compile(r"^<!-- (?:generated: [a-z-]+|end) -->\n", re.MULTILINE)
"""The marks of docs/generate.py."""
_NO_SLUG = re.compile(r"[^\w\- ]")
_SVG_SIZE = re.compile(r'<svg\b[^>]*? width="(\d+)" height="(\d+)"')

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of the second level."""

    anchor: str
    text: str


@dataclass(frozen=True, slots=True)
class DocPage:
    address: str
    """Empty for the index."""
    title: str
    body: Markup
    headings: Sequence[Heading]


@router.get("/docs")
@router.get("/docs/{address:path}")
def show(request: Request, address: str = "") -> Response:
    """Show a page of the documentation, or one of its images."""
    if image := doc_image(address):
        return Response(image.read_bytes(), media_type=IMAGE_TYPES[image.suffix], headers=IMAGE_HEADERS)
    page = doc_page(address)
    if page is None:
        raise NotFound(f"there is no page {address} in the docs")
    return render(request, "doc.html", page=page, section=SECTIONS.get(address.partition("/")[0], ""))


def doc_page(address: str) -> DocPage | None:
    """Return the page at an address; None if there is none. Only files that were found in the folder can be read."""
    file = doc_files().get(address)
    return _render_page(address) if file is not None and file.suffix == ".md" else None


def doc_image(address: str) -> Path | None:
    file = doc_files().get(address)
    return file if file is not None and file.suffix in IMAGE_TYPES else None


@cache
def doc_files() -> Mapping[str, Path]:
    folder = INSTALLED if INSTALLED.is_dir() else CHECKOUT
    files = sorted(path for path in folder.rglob("*") if path.suffix == ".md" or path.suffix in IMAGE_TYPES)
    return {_address_of(path.relative_to(folder).as_posix()): path for path in files}


def heading_slug(text: str) -> str:
    """Return the anchor of a heading's Markdown, as GitHub makes it."""
    return _NO_SLUG.sub("", text.strip().lower()).replace(" ", "-")


@cache
def _render_page(address: str) -> DocPage:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("td_open", lambda self, tokens, index, options, env: f"{self.renderToken(tokens, index, options, env)}<span>")
    parser.add_render_rule("td_close", lambda *_: "</span></td>\n")
    file = doc_files()[address]
    tokens = parser.parse(_GENERATED.sub("", file.read_text(encoding="utf-8")))
    headings = list(_mark_headings(tokens))
    _mark_tables(tokens)
    folder = address if file.name == "README.md" else posixpath.dirname(address)
    for token in tokens:
        _resolve_links(token.children or (), folder)
    # Markdown-it escapes the text, and the files are part of this program.
    body = Markup(parser.renderer.render(tokens, parser.options, {}))  # noqa: S704
    title = next((text for level, _, text in headings if level == "h1"), address)
    return DocPage(address, title, body, [Heading(anchor, text) for level, anchor, text in headings if level == "h2"])


def _mark_headings(tokens: Sequence[Token]) -> Iterator[tuple[str, str, str]]:
    """Give each heading its anchor, and yield level, anchor and text."""
    used: list[str] = []
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            slug = heading_slug(inline.content)
            anchor = f"{slug}-{used.count(slug)}" if slug in used else slug
            used.append(slug)
            opening.attrSet("id", anchor)
            yield opening.tag, anchor, _text_of(inline)


def _mark_tables(tokens: Sequence[Token]) -> None:
    """Mark tables so that they become lists on narrow screens, and give the glossary's words anchors. Inline styles are not allowed."""
    heads: list[str] = []
    column = 0
    for opening, inline in pairwise(tokens):
        if opening.type == "table_open":
            opening.attrSet("class", "stacks")
            heads = []
        elif opening.type == "tr_open":
            column = 0
        elif opening.type in {"th_open", "td_open"}:
            if opening.attrs.pop("style", None) == "text-align:right":
                opening.attrSet("class", "number")
            if opening.type == "th_open":
                heads.append(_text_of(inline))
                opening.attrSet("scope", "col")
            else:
                opening.attrSet("data-label", heads[column])
                if heads[column] == "word":
                    opening.attrSet("id", heading_slug(inline.content))
            column += 1


def _resolve_links(tokens: Sequence[Token], folder: str) -> None:
    """Point links and images to the addresses of this console; links to files that it does not serve become text."""
    is_text = False
    for token in tokens:
        if token.type == "image":
            address = posixpath.normpath(posixpath.join(folder, str(token.attrs["src"])))
            image = doc_image(address)
            if image is None:
                token.type = "text"
            else:
                token.attrs |= {"src": f"{BASE}/{address}", **_image_size(image)}
        elif token.type == "link_open":
            target = str(token.attrs["href"])
            resolved = _resolve_link(target, folder)
            is_text = resolved is None
            token.tag = "span" if is_text else "a"
            path = posixpath.normpath(posixpath.join("docs", folder, urlsplit(target).path))
            token.attrs = {"title": f"In the repository: {path}"} if resolved is None else {"href": resolved}
        elif token.type == "link_close":
            token.tag = "span" if is_text else "a"


def _resolve_link(target: str, folder: str) -> str | None:
    """Return the address of a link's target; None if this console does not serve it."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or not parts.path:
        return target
    address = _address_of(posixpath.normpath(posixpath.join(folder, parts.path)))
    if address not in doc_files():
        return None
    return f"{BASE}/{address}".rstrip("/") + (f"#{parts.fragment}" if parts.fragment else "")


def _address_of(path: str) -> str:
    """Return the address of a file's path in docs/."""
    address = path.removesuffix(".md")
    return address.removesuffix("README").rstrip("/")


def _image_size(image: Path) -> dict[str, str | int | float]:
    """Return width and height, so that nothing moves when the image has loaded."""
    if image.suffix == ".png":
        # https://www.w3.org/TR/png-3/#11IHDR
        width, height = struct.unpack(">II", image.read_bytes()[16:24])
        return {"width": width, "height": height}
    found = _SVG_SIZE.search(image.read_text(encoding="utf-8"))
    return {"width": found[1], "height": found[2]} if found else {}


def _text_of(inline: Token) -> str:
    return "".join(child.content for child in inline.children or () if child.type in {"text", "code_inline"})
