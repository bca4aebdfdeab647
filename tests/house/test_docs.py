"""The documents say what is there: links lead somewhere, named make targets exist, decisions are numbered and listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"), *(ROOT / "sdk").glob("*.md")])
DECISIONS = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = dict(re.findall(r"^([a-z-]+):[^=\n]*?(?:## (.+))?$", MAKEFILE, re.MULTILINE))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_relative_link_leads_to_a_file(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())

    dead = [link for link in links if "://" not in link and not (document.parent / link).exists()]

    assert dead == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_make_target_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text()
    named = set(re.findall(r"`make ([a-z-]+)", text)) | set(re.findall(r"^\$ make ([a-z-]+)", text, re.MULTILINE))

    assert named - set(TARGETS) == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_no_document_admits_to_be_unfinished(document: Path) -> None:
    assert re.findall(r"\b(?:TODO|TBD|FIXME|XXX)\b", document.read_text()) == []


@pytest.mark.parametrize("target", ["help", "setup", "demo", "test", "check", "up", "bench"])
def test_the_targets_that_others_rely_on_exist_and_say_what_they_do(target: str) -> None:
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


def test_the_changelog_has_a_place_for_what_is_coming() -> None:
    assert re.search(r"^## \[Unreleased\]$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_every_settings_name_in_the_documents_is_a_setting() -> None:
    from activities.settings import Settings

    known = {f"JUSTENOUGH_{field.upper()}" for field in Settings.model_fields}
    named = {found for document in DOCUMENTS for found in re.findall(r"\bJUSTENOUGH_[A-Z_]+", document.read_text())}

    # What a job sees of its broker, and what the SDK hands over, is no setting of ours.
    jobs = ("JUSTENOUGH_BROKER", "JUSTENOUGH_JOB_ID", "JUSTENOUGH_ACCESS", "JUSTENOUGH_CREDENTIAL_", "JUSTENOUGH_FILES")
    assert {one for one in named - known if not one.startswith(jobs)} == set()
