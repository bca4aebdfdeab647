"""The documents match the repository: links and anchors resolve, make targets exist, decisions are numbered and listed."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pytest

from justenough.adapters.configuration.scaffold.new_resource import KINDS
from justenough.domain.catalog.provisioned_sql import find_unqualified_calls

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"), *(ROOT / "sdk").glob("*.md")])
SQL_FILES = sorted([*(ROOT / "examples").rglob("*.sql"), *(ROOT / "deploy").rglob("*.psql")])
DECISIONS = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = dict(re.findall(r"^([a-z-]+):[^=\n]*?(?:## (.+))?$", MAKEFILE, re.MULTILINE))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def text_files() -> tuple[Path, ...]:
    """Return the tracked text files, without recorded histories, lock files and pictures."""
    paths = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    texts = (ROOT / path for path in paths if path and not path.startswith("tests/histories/"))

    return tuple(path for path in texts if path.is_file() and path.suffix not in {".png", ".lock", ".gz", ".ico", ".woff2"})


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(document: Path) -> frozenset[str]:
    """Return the anchors of a document's headings, in GitHub's form."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    slugs: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        slugs.append(f"{slug}-{slugs.count(slug)}" if slug in slugs else slug)

    return frozenset(slugs)


def long_lines(text: str) -> list[str]:
    """Return the lines of prose that are too long. Tables, code, images, generated parts and lines without a blank do not count."""
    prose = re.sub(r"^```.*?^```$|^<!-- generated.*?^<!-- end -->$", "", text, flags=re.MULTILINE | re.DOTALL)

    return [
        line for line in prose.splitlines() if len(line) > 120 and not line.startswith(("|", "    ", "#", "![")) and " " in line.strip()[4:]
    ]


def is_valid_link(link: str, document: Path) -> bool:
    path, _, anchor = link.partition("#")
    target = (document.parent / path).resolve() if path else document

    return target.exists() and (not anchor or anchor in anchors(target))


def find_in_files(find: Callable[[Path], Iterable[str]], files: Iterable[Path] = DOCUMENTS) -> dict[str, list[str]]:
    """Return what a search finds, by file."""
    found = {name(file): list(find(file)) for file in files}

    return {file: finds for file, finds in found.items() if finds}


def test_every_relative_link_resolves_to_a_file_and_a_heading() -> None:
    def broken_links(document: Path) -> list[str]:
        links = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", without_code(document.read_text()))
        relative = [link for pair in links for link in pair if link and "://" not in link]
        return [link for link in relative if not is_valid_link(link, document)]

    assert find_in_files(broken_links) == {}


def test_the_index_lists_every_page_of_its_folders() -> None:
    index = (ROOT / "docs/README.md").read_text()
    pages = [name(document).removeprefix("docs/") for document in DOCUMENTS if name(document).startswith("docs/")]

    assert [page for page in pages if page != "README.md" and not page.startswith("decisions/") and f"({page})" not in index] == []


def test_no_file_cites_a_missing_document() -> None:
    # The wheel has the docs in console/docs.
    known = {prefix + name(document) for document in DOCUMENTS for prefix in ("", "console/")}
    basenames = {document.name for document in DOCUMENTS}
    missing = {}
    for file in text_files():
        for cited, anchor in re.findall(r"(?<![\w/*.:-])((?:\.{0,2}/?[\w-]+/)*[\w-]+\.md)\b(#[\w-]+)?", file.read_text()):
            beside = os.path.normpath(file.parent.relative_to(ROOT) / cited)
            target = next((path for path in (cited, beside) if path in known), None)
            if target is None and cited not in basenames:
                missing[f"{name(file)}: {cited}"] = "no such document"
            elif target and anchor and anchor[1:] not in anchors(ROOT / target):
                missing[f"{name(file)}: {cited}{anchor}"] = "no such heading"

    assert missing == {}


def test_no_file_cites_a_missing_decision() -> None:
    numbers = {path.name[:4] for path in DECISIONS}
    cited = {(name(file), number) for file in text_files() for number in re.findall(r"docs/decisions/(\d{4})", file.read_text())}

    assert {pair for pair in cited if pair[1] not in numbers} == set()


def test_sql_to_copy_names_the_schema_of_each_function() -> None:
    def unqualified_calls(file: Path) -> Iterable[str]:
        text = file.read_text()
        if file.suffix == ".md":
            text = "\n".join((*re.findall(r"^```sql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL), *re.findall(r"`(SELECT [^`]*)`", text)))
        return map(str, find_unqualified_calls(text))

    assert find_in_files(unqualified_calls, [*DOCUMENTS, *SQL_FILES]) == {}


@pytest.mark.parametrize("script", ["generate", "draw"])
def test_the_generated_parts_of_the_docs_are_up_to_date(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = runpy.run_path(str(ROOT / f"docs/{script}.py"))["main"](["--check"])

    assert status == 0, f"{capsys.readouterr().err}run `make docs`, and add a meaning for each new key to docs/reference/meanings.toml"


def cell_count(row: str) -> int:
    """Return the number of cells of a table's row."""
    return len(re.findall(r"(?<!\\)\|", row.strip().strip("|"))) + 1


def test_each_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    def odd_rows(document: Path) -> list[str]:
        # Further cells are not shown.
        text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
        tables = [table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]
        return [row for table in tables for row in table if row.startswith("||") or cell_count(row) != cell_count(table[1])]

    assert find_in_files(odd_rows) == {}


def test_prose_wraps_at_120_characters() -> None:
    assert find_in_files(lambda document: long_lines(document.read_text())) == {}


def test_every_make_target_that_a_document_names_exists() -> None:
    def unknown_targets(document: Path) -> set[str]:
        text = document.read_text()
        targets = set(re.findall(r"`make ([a-z-]+)", text)) | set(re.findall(r"^\$ make ([a-z-]+)", text, re.MULTILINE))
        return targets - set(TARGETS)

    assert find_in_files(unknown_targets) == {}


def test_the_documents_show_the_newest_revision_of_the_store() -> None:
    newest = max(file.name[:4] for file in (ROOT / "justenough/adapters/store/migrations/versions").glob("[0-9]*.py"))
    shown = find_in_files(lambda document: re.findall(r"\brevision (\d{4})\b", document.read_text()), (ROOT / "docs").rglob("*.md"))

    assert {revision for revisions in shown.values() for revision in revisions} == {newest}


def test_the_page_about_resources_shows_a_url_of_each_kind() -> None:
    page = (ROOT / "docs/how-to/add-resource.md").read_text()

    assert [kind for kind, form in KINDS.items() if f"| `{kind}` | `{form.example}`" not in page] == []


def test_no_document_has_a_to_do_note() -> None:
    assert find_in_files(lambda document: re.findall(r"\b(?:TODO|TBD|FIXME|XXX)\b", document.read_text())) == {}


@pytest.mark.parametrize("target", ["help", "setup", "demo", "test", "check", "up", "bench"])
def test_the_public_make_targets_exist_and_have_a_description(target: str) -> None:
    assert TARGETS.get(target)


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [int(path.name[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def test_decisions_are_all_listed() -> None:
    index = (ROOT / "docs/decisions/README.md").read_text()

    assert [path.name for path in DECISIONS if f"({path.name})" not in index] == []


@pytest.mark.parametrize("record", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_has_its_number_status_and_three_parts(record: Path) -> None:
    text = record.read_text()

    assert text.startswith(f"# {int(record.name[:4])}. ")
    assert re.search(r"^Status: (accepted|replaced by \d{4})$", text, re.MULTILINE)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]


def test_the_changelog_has_an_unreleased_section() -> None:
    assert re.search(r"^## \[Unreleased\]$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_every_settings_name_in_the_documents_is_a_setting() -> None:
    from justenough.adapters.configuration.settings import Settings

    known = {f"JUSTENOUGH_{field.upper()}" for field in Settings.model_fields}
    names = {name for document in DOCUMENTS for name in re.findall(r"\bJUSTENOUGH_[A-Z_]+", document.read_text())}

    # A job's environment variables are no settings.
    jobs = ("JUSTENOUGH_BROKER", "JUSTENOUGH_JOB_ID", "JUSTENOUGH_ACCESS", "JUSTENOUGH_CREDENTIAL_", "JUSTENOUGH_FILES")
    assert {name for name in names - known if not name.startswith(jobs)} == set()


HOP = re.compile(r"`(?P<path>[a-z_]+(?:/[a-z_]+)+(?:\.py)?)`(?P<names>(?:,? `\w+`)*)")


def absent_hops(text: str) -> set[str]:
    """Return the files, folders, and names in the files, that a text refers to and the repository does not have."""
    missing = set()
    for hop in HOP.finditer(text):
        path, names = ROOT / hop["path"], re.findall(r"\w+", hop["names"])
        source = path.read_text() if path.is_file() else ""
        defined = [re.search(rf"^(?:\s*(?:async def|def|class) {name}\b|{name}\b.* = )", source, re.MULTILINE) for name in names]
        if not path.exists() or not all(defined):
            missing.add(hop[0])
    return missing


@pytest.mark.parametrize("page", ["docs/explanation/architecture.md", "CONTRIBUTING.md"])
def test_each_place_that_a_page_for_contributors_names_exists(page: str) -> None:
    assert absent_hops((ROOT / page).read_text()) == set()


@pytest.mark.parametrize("hop", ["`workflows/no_such_file.py`", "`workflows/job.py` `Job`, `no_such_name`", "`console/no_such_folder`"])
def test_a_missing_place_is_found(hop: str) -> None:
    assert absent_hops(f"| Where? | {hop} |") == {hop}
