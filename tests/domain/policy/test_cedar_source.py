"""Reading policy files: all errors are reported at once, with file, line and column, and nothing else is ever raised."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.policy.cedar_request import OPTIONAL_CONTEXT
from justenough.domain.policy.cedar_source import MAX_BYTES
from justenough.domain.policy.engine import PolicySet
from tests.support.domain_samples import SCHEMA, SHOP

GOOD = '@id("good") permit(principal, action, resource);\n'


def problems(files: dict[str, str], schema: str = SCHEMA) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        PolicySet.load(files, schema)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "text, where, what",
    [
        ("permit(principal, action resource);", "2:26", "unexpected token `resource`"),
        ("permit(principal, action, resource)\nwhen { principal.nope == 1 };", "3:18", "`nope`"),
        ("permit(principal, action, resource)\nwhen { context.nope };", "3:16", "`nope`"),
        ('permit(principal, action == Action::"raed", resource);', "2:", "raed"),
        ("permit(principal is Nobody, action, resource);", "2:21", "`Nobody`"),
        ('permit(principal, action, resource)\n  when { context.approved_tier == "1" };', "2:1", "Long and String"),
        ("permit(principal, action, resource) when { foo.bar };", "2:", "foo"),
        ("permit(principal, action, resource) when { 1 + };", "2:48", "unexpected token `}`"),
        ("permit(principal, action, resource)", "2:35", "end of input"),
        ("permit(principal, action, resource) # why\n;", "2:37", "invalid token"),
        ('permit(principal, action, resource) when { "open };', "2:44", "invalid token"),
        ('@id("x") permit(principal, action, resource) when { 99999999999999999999 > 1 };', "2:74", "number too large"),
        ("permit(principal, action, resource);", "2:1", "@id"),
        ("@id permit(principal, action, resource);", "2:1", "@id"),
        ('@id("has space") permit(principal, action, resource);', "2:1", "@id"),
        ('@id("default-deny") permit(principal, action, resource);', "2:1", "@id"),
        ('@id("good") forbid(principal, action, resource);', "2:1", "a.cedar:1:1"),
        ('@id("t") permit(principal == ?principal, action, resource);', "2:1", "template"),
        ('@id("c") permit(principal, action, resource) when { context == context };', "2:1", "uses the entire `context`"),
        ('// one; "two\n\n\t/*', "4:2", "unexpected token"),
    ],
)
def test_each_problem_is_reported_with_its_place(text: str, where: str, what: str) -> None:
    found = problems({"a.cedar": GOOD + text})
    assert any(problem.startswith(f"a.cedar:{where}") and what in problem for problem in found), found


def test_every_problem_of_every_file_is_reported_at_once() -> None:
    found = problems(
        {
            "b.cedar": "permit(principal);\npermit(principal, action, resource) when { principal.nope };\nforbid(",
            "a.cedar": GOOD + GOOD,
        }
    )
    assert [problem.partition(": ")[0] for problem in found] == [
        "b.cedar:1:1",
        "b.cedar:2:54",
        "b.cedar:2:1",
        "b.cedar:3:7",
        "a.cedar:2:1",
    ]


def test_a_policy_id_used_in_two_files_is_refused() -> None:
    assert problems({"a.cedar": GOOD, "b.cedar": "\n" + GOOD}) == ["b.cedar:2:1: duplicate @id 'good'; also in a.cedar:1:1"]


@pytest.mark.parametrize("files", [{}, {"a.cedar": ""}, {"a.cedar": "// nothing yet\n"}])
def test_a_policy_set_without_policies_is_refused(files: dict[str, str]) -> None:
    assert "no policy found" in problems(files)[0]


@pytest.mark.parametrize(
    "schema, place",
    [
        ("entity Job;\nentity Resource {", "schema.cedarschema:2:17: unexpected end of input"),
        ("entity Job;\nentity Resource { owner String };", "schema.cedarschema:2:25: unexpected token `String`"),
        ("entity Job;\nentity Resource { owner: Strnig };", "schema.cedarschema:2:26: failed to resolve type: Strnig"),
        (SCHEMA.replace("task: String,", ""), "schema.cedarschema: entity Job must have exactly"),
        (SCHEMA.replace("owner: String,", "owner: Long,"), "schema.cedarschema: entity Job must have exactly"),
        (SCHEMA.replace("sensitivity: Long,", "sensitivity: String,"), "schema.cedarschema: entity Resource must have exactly"),
        (SCHEMA.replace("ttl_seconds: Long,", ""), "schema.cedarschema: action read must take"),
        (SCHEMA.replace("held: Set<String>,", "held: Set<Long>,"), "schema.cedarschema: action read must take"),
        (SCHEMA.replace("write, admin", "write"), "schema.cedarschema: action admin must take"),
    ],
)
def test_a_schema_that_differs_from_what_requests_contain_is_refused(schema: str, place: str) -> None:
    assert schema != SCHEMA
    assert any(problem.startswith(place) for problem in problems({"a.cedar": GOOD}, schema)), problems({"a.cedar": GOOD}, schema)


@pytest.mark.parametrize("folder", ["examples/policies", "deploy/compose/config", "justenough/adapters/configuration/scaffold/folder"])
def test_each_folder_has_the_schema_of_the_shop(folder: str) -> None:
    assert (SHOP.parents[1] / folder / "policies/schema.cedarschema").read_text() == SCHEMA


def test_a_schema_may_omit_the_optional_parts_of_the_context() -> None:
    # A word in a comment is no declaration.
    lines = [line for line in SCHEMA.splitlines() if line.split(":")[0].strip() not in OPTIONAL_CONTEXT]
    schema = "\n".join([*lines, "// hour: not asked here"])
    assert len(lines) == len(SCHEMA.splitlines()) - len(OPTIONAL_CONTEXT)
    assert PolicySet.load({"a.cedar": GOOD}, schema).ids == ("good",)


def test_a_file_of_a_megabyte_and_more_is_refused() -> None:
    assert "bytes" in problems({"a.cedar": GOOD + "//" + "x" * 1024 * 1024})[0]


def test_strings_with_semicolons_and_comments_are_not_split() -> None:
    text = (
        '@id("a") @why("; // not a comment") permit(principal, action, resource) // ; @id("b")\n when { context.reason != "\\"; permit" };'
    )
    assert PolicySet.load({"a.cedar": text}, SCHEMA).ids == ("a",)


@pytest.mark.parametrize(
    "opening, closing",
    [("!(", ")"), ("(", ")"), ("[", "]"), ("{a: ", "}"), ("true && ", ""), ("1 + ", ""), ("if true then true else ", "")],
)
def test_a_policy_nested_deeply_enough_to_overflow_cedar_is_refused(opening: str, closing: str) -> None:
    for depth in (1_000, 20_000):
        text = f'@id("deep") permit(principal, action, resource) when {{ {opening * depth}true{closing * depth} }};'
        (problem,) = problems({"a.cedar": text})
        assert "nested too deeply" in problem


@pytest.mark.parametrize("text", ["!(" * 40 + "resource.external" + ")" * 40, " || ".join(["resource.external"] * 90)])
def test_ordinary_policies_are_not_refused_as_too_deep(text: str) -> None:
    text = f'@id("wide") permit(principal, action, resource) when {{ {text} }};'
    assert PolicySet.load({"a.cedar": text}, SCHEMA).ids == ("wide",)


def test_a_schema_that_would_overflow_cedar_is_refused() -> None:
    assert "nested too deeply" in problems({"a.cedar": GOOD}, f"type A = {'Set<' * 20_000}Long{'>' * 20_000};")[0]


def problems_or_none(files: dict[str, str], schema: str = SCHEMA) -> tuple[Problem, ...] | None:
    """Return the problems of a set, None where it is good; whatever else is raised fails the test."""
    try:
        PolicySet.load(files, schema)
    except InvalidInput as error:
        return error.problems
    return None


SHOP_TEXT = "".join(path.read_text() for path in sorted((SHOP / "policies").glob("*.cedar")))


@settings(max_examples=150, deadline=None)
@given(start=st.integers(0, len(SHOP_TEXT)), length=st.integers(0, 12), instead=st.text(max_size=8))
def test_no_edit_of_a_policy_file_raises_anything_but_invalid_input(start: int, length: int, instead: str) -> None:
    text = SHOP_TEXT[:start] + instead + SHOP_TEXT[start + length :]
    found = problems_or_none({"a.cedar": text})
    assert found is None or all(problem.path.startswith("a.cedar:") for problem in found)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=200))
def test_no_text_raises_anything_but_invalid_input(text: str) -> None:
    assert problems_or_none({"a.cedar": text}) != ()
    assert problems_or_none({"a.cedar": GOOD}, text) != ()


def test_a_schema_that_is_too_large_is_refused_before_it_is_parsed() -> None:
    assert problems({}, SCHEMA + "// x\n" * (MAX_BYTES // 5)) == [f"schema.cedarschema: more than {MAX_BYTES:,} bytes"]
