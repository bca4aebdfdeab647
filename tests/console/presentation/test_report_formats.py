"""The report as Markdown and as HTML: untrusted text stays text, and the HTML page is self-contained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.markdown import Markdown

from console.presentation.report import html, markdown
from console.presentation.report.figures import span, value_text
from console.presentation.terminal_text import plain
from justenough.domain.evidence.report import Report
from tests.adapters.store.event_samples import approval_decision, credential_confirmation, issuance, later, replace_data
from tests.support.evidence_samples import line, live_credential, rejection, report_of, review

HOSTILE = [
    "<script>alert(1)</script>",
    "</td></tr></table><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "{{ 7 * 7 }} {% include 'x' %}",
    "a | b | c",
    "`rm -rf /`",
    "[click](javascript:alert(1)) ![x](http://evil.example/x.png)",
    "see https://evil.example or www.evil.example or mail a@evil.example",
    "\n# A heading\n\n- a list\n\n| x |\n|---|\n",
    "\\| \\` \\<b>",
    "\u202egnp.exe\u2066",
    "$x$ ~~y~~ <!-- z --> &lt; **b** _i_",
]
VOID = {"meta"}


class Page(HTMLParser):
    """Reads a page. Fails if its tags are not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, name: str) -> list[str]:
        """Return every value of an attribute."""
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]


def hostile_report(text: str) -> Report:
    """A report with untrusted text in every possible place."""
    facts: list[Any] = [
        issuance(resource=text),
        credential_confirmation(at=later(5)),
        replace_data(approval_decision("approved"), name=text),
        rejection("x"),
        review(),
    ]
    return report_of(*facts, live=[live_credential(task=text, resource=text, job_state="failed")])


def tokens(text: str) -> Iterator[Any]:
    """Return the tokens that a Markdown parser makes of a text."""
    for token in Markdown(text).parsed:
        yield token
        yield from token.children or ()


@pytest.mark.parametrize("text", HOSTILE)
def test_untrusted_text_is_text_in_html(text: str) -> None:
    harmless, found = Page(html.render_html(hostile_report("harmless"))), Page(html.render_html(hostile_report(text)))
    assert found.tags == harmless.tags
    assert not [tag for tag, _ in found.tags if tag in {"script", "img", "iframe", "link", "object", "form"}]


@pytest.mark.parametrize("text", HOSTILE)
def test_untrusted_text_is_text_in_markdown(text: str) -> None:
    harmless, found = (list(tokens(markdown.render_markdown(hostile_report(one)))) for one in ("harmless", text))
    assert [token.type for token in found if token.type != "text"] == [token.type for token in harmless if token.type != "text"]
    assert not [token for token in found if token.type in {"link_open", "image", "html_inline", "html_block"}]


# Each example renders a whole report, which on a busy machine takes longer than hypothesis expects.
@settings(deadline=None, max_examples=50)
@example(task="a | b \\| c `d|e`")
@given(task=st.text(max_size=60))
def test_any_task_stays_in_its_markdown_table_cell(task: str) -> None:
    rendered = markdown.render_markdown(report_of(live=[live_credential(task=task)]))
    (row,) = [one for one in rendered.splitlines() if one.startswith("| c-")]
    table = Markdown(f"| a | b | c | d | e | f |\n| - | - | - | - | - | - |\n{row}\n").parsed
    cells = [after for before, after in pairwise(table) if before.type == "td_open"]
    assert len(cells) == 6
    assert {child.type for cell in cells for child in cell.children or ()} <= {"text", "text_special"}
    # The task fills its own cell and does not spill into the next ones.
    said = ["".join(child.content for child in cell.children or ()).replace("\u200b", "") for cell in cells]
    assert said[3].split() == plain(task).replace("\u200b", "").split()
    assert said[4:] == ["1 d", "1 d"]


def test_an_address_in_untrusted_text_never_becomes_a_link() -> None:
    rendered = markdown.render_markdown(report_of(live=[live_credential(task="https://evil.example www.evil.example a@evil.example")]))
    assert "https:" not in rendered
    assert "www." not in rendered
    assert "a@evil" not in rendered


def test_the_page_is_self_contained() -> None:
    found = Page(html.render_html(hostile_report("x")))
    assert {value for value in found.values("href") if not value.startswith("#")} == set()
    assert found.values("src") == []
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert "default-src 'none'; style-src 'unsafe-inline'" in found.values("content")
    assert "url(" not in html.render_html(hostile_report("x"))


def test_the_page_is_accessible() -> None:
    found = Page(html.render_html(hostile_report("x")))
    names = [tag for tag, _ in found.tags]
    assert found.tags[0] == ("html", {"lang": "en"})
    assert names.count("table") == names.count("caption") > 3
    assert names.count("h1") == 1
    assert {value.removeprefix("#") for value in found.values("href")} <= set(found.values("id"))
    assert len(found.values("id")) == len(set(found.values("id")))
    assert {attributes.get("scope") for tag, attributes in found.tags if tag == "th"} == {"col", "row"}


@pytest.mark.parametrize("render", [markdown.render_markdown, html.render_html])
def test_every_metric_is_shown_in_full(render: Any) -> None:
    alive = [live_credential(number, job_state="failed") for number in range(1, 26)]
    report = report_of(*(rejection("x", number) for number in range(30)), live=alive)
    text = render(report)
    assert re.search(r"\b5 more(\.$| are not shown<)", text, re.MULTILINE)
    for one in report.lines:
        for part in (one.title, one.definition, one.rule, one.shows, *(item.id for item in one.items)):
            assert part.replace("`", "") in text.replace("&#39;", "'").replace("\\", "").replace("`", ""), part
    command = line(report, "attempts.rejected").evidence.command
    assert command
    assert command in text
    assert line(report, "attempts.rejected").evidence.ids[-1] in text


@pytest.mark.parametrize(
    "seconds,text",
    [
        *[(0, "0 ms"), (0.3401, "340 ms"), (1, "1.0 s"), (59.94, "59.9 s"), (60, "1 min"), (250, "4 min 10 s"), (3600, "1 h")],
        *[(11100, "3 h 5 min"), (86400, "1 d"), (1051200, "12 d 4 h"), (-90, "-1 min 30 s"), (59.99, "60.0 s"), (3599.9, "59 min 59 s")],
    ],
)
def test_durations_use_a_suitable_unit(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize("share, text", [(1.0, "100.0%"), (0.9999, "99.9%"), (0.57, "57.0%"), (0.0005, "0.0%")])
def test_a_share_of_a_hundred_per_cent_means_all(share: float, text: str) -> None:
    assert value_text(share, share=True) == text
