"""The documentation that the console serves: every page, its links, anchors and images, and nothing outside of its folder."""

from __future__ import annotations

import posixpath
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from console.pages import docs
from console.pages.docs import CHECKOUT, doc_files, doc_page
from justenough.adapters.configuration.settings import Settings
from tests.console.pages.recorded_console import Desk, RenderedPage, load_page, serve_desk

pytestmark = pytest.mark.servers

PAGES = sorted(address for address, file in doc_files().items() if file.suffix == ".md")


@pytest.fixture(scope="module")
async def records(settings: Settings, passwords: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    async with serve_desk(settings, passwords, tmp_path_factory.mktemp("docs") / "store.db") as opened:
        yield opened


def ids_of(address: str) -> list[str]:
    page = doc_page(address)
    assert page is not None
    return re.findall(r' id="([^"]+)"', page.body)


async def test_every_page_is_served_and_its_links_and_images_lead_somewhere(records: Desk) -> None:
    browser = await records.log_in("ops")
    broken = []
    for address in PAGES:
        page = await load_page(browser, f"/docs/{address}".rstrip("/"))
        assert "<!--" not in page.text.replace("<!-- generated: NAME -->", "")
        for link in (*page.links, *(attributes["src"] or "" for tag, attributes in page.tags if tag == "img")):
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme == "https" or parts.hostname == "127.0.0.1", link
            elif parts.path.startswith("/docs") or not parts.path:
                target = parts.path.removeprefix("/docs").strip("/") if parts.path else address
                if target not in doc_files() or (parts.fragment and parts.fragment not in (*ids_of(target), "main")):
                    broken.append((address, link))
    assert broken == []


async def test_every_file_of_the_docs_is_served(records: Desk) -> None:
    browser = await records.log_in("ops")
    files = [path.relative_to(CHECKOUT) for path in CHECKOUT.rglob("*") if path.suffix in {".md", ".png", ".svg"}]
    assert len(doc_files()) == len(files)
    picture = await browser.open("/docs/images/now.png")
    assert (picture.status_code, picture.headers["content-type"], picture.content) == (
        200,
        "image/png",
        (CHECKOUT / "images/now.png").read_bytes(),
    )
    drawing = await browser.open("/docs/images/architecture.svg")
    assert drawing.headers["content-type"] == "image/svg+xml"
    assert drawing.headers["content-security-policy"].startswith("default-src 'self'")


@pytest.mark.parametrize(
    "path",
    [
        "generate.py",
        "reference/meanings.toml",
        "../README",
        "..%2fREADME",
        "%2e%2e/%2e%2e/etc/passwd",
        "..%5c..%5cREADME",
        "how-to/../../pyproject.toml",
        "%2fetc%2fpasswd",
        "//etc/passwd",
        "how-to",
        "glossary.md",
        "images/now",
        "images",
    ],
)
async def test_nothing_else_is_served(records: Desk, path: str) -> None:
    browser = await records.log_in("ops")
    assert (await browser.open(f"/docs/{path}")).status_code == 404


async def test_the_docs_are_for_people_who_are_logged_in(records: Desk) -> None:
    browser = await records.log_in("outsider")
    await load_page(browser, "/docs")
    browser.http.cookies.clear()
    for path in ("/docs", "/docs/how-to/runbook", "/docs/images/now.png"):
        answer = await browser.open(path)
        assert (answer.status_code, urlsplit(answer.headers["location"]).path) == (303, "/login")


async def test_links_to_files_that_are_not_served_become_text(records: Desk) -> None:
    browser = await records.log_in("ops")
    source = (await browser.open("/docs")).text
    assert '<span title="In the repository: SECURITY.md">SECURITY</span>' in source
    assert not [link for link in RenderedPage(source).links if link.endswith((".md", ".yaml", ".cedar"))]


async def test_the_docs_are_linked_from_every_page_and_the_glossary_from_headings(records: Desk) -> None:
    browser = await records.log_in("lead")
    words = ids_of("glossary")
    assert {"overdue", "break-glass", "right-sizing"} <= set(words)
    for path in ("/ledger", "/now"):
        page = await load_page(browser, path)
        assert "/docs" in page.links
        assert {link.partition("#")[2] for link in page.links if link.startswith("/docs/glossary#")} <= set(words)
    assert "/docs/glossary#ledger" in (await load_page(browser, "/ledger")).links


def test_raw_html_and_dangerous_links_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "SECURITY.md").write_text(
        "# <script>alert(1)</script>\n\n<img src=x onerror=alert(1)>\n\n[a](javascript:alert(1)) [b](data:text/html,x) "
        "![c](https://example.invalid/x.png)\n\n| a | b |\n| --- | ---: |\n| <b>x</b> | [up](../../etc/passwd) |\n"
    )
    monkeypatch.setattr(docs, "INSTALLED", tmp_path)
    doc_files.cache_clear()
    try:
        page = doc_page("SECURITY")
    finally:
        monkeypatch.undo()
        doc_files.cache_clear()
    assert page is not None
    assert not re.search(r"<script|<img|<b>|javascript:[^<]*\"|style=|href=", page.body)
    assert "&lt;script&gt;" in page.body


def test_links_are_resolved_beside_the_page_that_has_them() -> None:
    page = doc_page("how-to/runbook")
    assert page is not None
    assert 'href="/docs/how-to/backup#what-happens-after-a-restore"' in page.body
    assert 'href="/docs/reference/engines"' in page.body
    decisions = doc_page("decisions")
    assert decisions is not None
    assert posixpath.join("/docs/decisions", "0001-one-distribution-five-packages") in decisions.body
