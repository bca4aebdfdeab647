"""Write the generated parts of the reference pages: tables of keys, routes, commands, metrics, states and exit codes, read from the code.

    python docs/generate.py           rewrite the text between `<!-- generated: NAME -->` and `<!-- end -->` in docs/reference, and the JSON
                                      Schemas for editors (editor_schemas.py)
    python docs/generate.py --check   change nothing; exit 1 and name the pages that are out of date

The sentences come from docs/reference/meanings.toml and, for routes and commands, from the code's own descriptions. tests/house/test_docs.py
runs the check.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from enum import Enum, IntEnum
from functools import reduce
from operator import or_
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from annotated_types import Ge, Le, MaxLen
from pydantic import AliasChoices, BaseModel, BeforeValidator, StringConstraints
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

# All imports of our code are here, so that moving a module changes this file in one place.
from activities.process.interpreters import Interpreter
from activities.process.job_command import JobLaunch, JobPaths, environment_script
from console.app import create_app
from console.cli.errors import ExitCode
from console.cli.root_group import build_program
from console.presentation.status_badges import state_word
from docs.editor_schemas import editor_schemas
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store.rights import RIGHTS
from justenough.domain.approvals.tiers import Tiers
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.ids import CREDENTIAL_ID, JOB_ID, REQUEST_ID
from justenough.domain.core.units import duration_text, size_text
from justenough.domain.integrations.triggers import Triggers
from justenough.domain.jobs.result_reasons import RESULT_REASON_TEXTS
from justenough.domain.jobs.spec import KUBECONFIG, PGPASSFILE, JobSpec
from justenough.domain.jobs.states import CredentialState, JobState, RequestState, RevocationState
from worker.stack.doctor import CHECKS

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs/reference"
PRODUCT = ("justenough", "workflows", "activities", "worker", "console")
MEANINGS: dict[str, dict[str, str]] = tomllib.loads((ROOT / "docs/reference/meanings.toml").read_text())
MARKED = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n)(?:.*?)(<!-- end -->)", re.DOTALL)
READ_BY = {
    "parse_duration": "duration",
    "parse_size": "size",
    "networks_of": "networks, separated by commas",
}
"""How a value is written, by the name of the function that parses it."""
DEFAULTS = {
    "resources.*.actions.*.policy": "`je-grant-<resource>-<action>`",
    "tools.*.sql.dsn": "`target.postgres` of the action in `uses`",
}
"""Defaults that are filled in before the model is validated."""
METRICS = {"Gauge", "Counter", "Histogram", "Summary"}
GLOBAL_OPTIONS = {"--output", "--quiet", "--yes", "--debug", "--profile", "--console-url", "--help"}
DELIVERED = {
    "JUSTENOUGH_ACCESS",
    "JUSTENOUGH_BROKER_URL",
    "JUSTENOUGH_BROKER_TOKEN",
    "OPENAI_BASE_URL",
    "OPENAI_API_KEY",
    PGPASSFILE,
    KUBECONFIG,
}
"""Variables of a job that depend on its spec."""


class OutOfDate(Exception):
    """A key has no meaning, a meaning has no key, or a page does not match the code."""


def table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ((" ".join(cell.split()).replace("|", "\\|") for cell in cells) for cells in [head, ["---"] * len(head), *rows])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def with_meanings(section: str, keys: Sequence[str]) -> dict[str, str]:
    """Return the meaning of each key; raise OutOfDate unless the section has exactly these keys."""
    meanings = MEANINGS[section]
    missing, extra = [key for key in keys if key not in meanings], [key for key in meanings if key not in keys]
    if missing or extra:
        message = f"docs/reference/meanings.toml [{section}]: no meaning for {missing or 'none'}; no such key: {extra or 'none'}"
        raise OutOfDate(message)
    return {key: meanings[key] for key in keys}


# Keys of files and settings.


def parts_of(annotation: Any, metadata: Sequence[Any] = ()) -> tuple[Any, list[Any]]:
    """Return a type without Annotated and None, and its metadata."""
    facts = list(metadata)
    while True:
        options = get_args(annotation)
        if get_origin(annotation) is Annotated:
            annotation, facts = options[0], [*facts, *options[1:]]
        elif get_origin(annotation) in {Union, UnionType} and NoneType in options:
            annotation = reduce(or_, (option for option in options if option is not NoneType))
        else:
            return annotation, [inner for fact in facts for inner in (fact.metadata if isinstance(fact, FieldInfo) else [fact])]


def type_text(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return how a value is written, in a few words."""
    kind, facts = parts_of(annotation, metadata)
    form = next(
        (READ_BY[fact.func.__name__] for fact in facts if isinstance(fact, BeforeValidator) and fact.func.__name__ in READ_BY), None
    )
    if form:
        most = next((int(str(fact.le)) for fact in facts if isinstance(fact, Le)), None)
        return f"{form}, at most {duration_text(most)}" if most is not None and form == "duration" else form
    return _composed_text(kind) or (_string_text(facts) if kind is str else _plain_text(kind, facts))


def _composed_text(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in {tuple, list}:
        return f"list of {type_text(inner[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"map to {type_text(inner[1])}"
    return " or ".join(dict.fromkeys(map(type_text, inner))) if origin in {Union, UnionType} else ""


def _plain_text(kind: Any, facts: Sequence[Any]) -> str:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "object"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{one.name.lower() if issubclass(kind, IntEnum) else one.value}`" for one in kind)
    names = {int: "integer", float: "number", bool: "boolean", Path: "path", date: "day, `2030-01-31`", Any: "any value"}
    name = names[kind]
    least = next((fact.ge for fact in facts if isinstance(fact, Ge)), None)
    most = next((fact.le for fact in facts if isinstance(fact, Le)), None)
    if least is not None and most is not None:
        return f"{name}, {least:,} to {most:,}"
    return f"{name}, at least {least:,}" if least is not None else name


def _string_text(facts: Sequence[Any]) -> str:
    pattern = next((str(fact.pattern) for fact in facts if isinstance(fact, StringConstraints) and fact.pattern), None)
    if pattern:
        return f"string matching `{pattern}`"
    longest = next((fact.max_length for fact in facts if isinstance(fact, StringConstraints | MaxLen) and fact.max_length), None)
    return f"string, at most {longest:,} characters" if longest else "string"


def default_text(field: FieldInfo) -> str:
    """Return a field's default as one would write it in the file."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    _, facts = parts_of(field.annotation, field.metadata)
    parsers = {fact.func.__name__ for fact in facts if isinstance(fact, BeforeValidator)}
    if value is None or value is PydanticUndefined or isinstance(value, BaseModel) or value in ((), {}, ""):
        return ""
    if "parse_duration" in parsers:
        value = duration_text(value)
    elif "parse_size" in parsers:
        value = size_text(value)
    elif isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, Enum):
        value = value.value
    elif isinstance(value, Mapping):
        value = json.dumps(value)
    elif isinstance(value, tuple):
        value = "[" + ", ".join(map(str, value)) + "]"
    return f"`{value}`"


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key of a model and of the models inside it, by its path."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        yield path, field
        inner, below = _inside(field.annotation, path)
        if inner is not None:
            yield from fields_of(inner, f"{below}.")


def _inside(annotation: Any, path: str) -> tuple[type[BaseModel] | None, str]:
    kind, _ = parts_of(annotation)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        return _inside(inner[0], f"{path}[]")
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _inside(inner[1], f"{path}.*")
    return (kind, path) if isinstance(kind, type) and issubclass(kind, BaseModel) else (None, path)


def keys_of(section: str, model: type[BaseModel]) -> str:
    """Return the table of a file's keys."""
    fields = dict(fields_of(model))
    meanings = with_meanings(section, list(fields))
    rows = [
        (f"`{path}`", type_text(field.annotation, field.metadata), DEFAULTS.get(path, default_text(field)), meanings[path])
        for path, field in fields.items()
    ]
    return table(("key", "type", "default", "meaning"), rows)


def settings() -> str:
    """Return the table of the settings."""
    meanings = with_meanings("settings", list(Settings.model_fields))
    rows = []
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        variable = alias.choices[0] if isinstance(alias, AliasChoices) else f"JUSTENOUGH_{name.upper()}"
        rows.append((f"`{variable}`", f"`{name}`", type_text(field.annotation, field.metadata), default_text(field), meanings[name]))
    return table(("variable", "in justenough.toml", "type", "default", "meaning"), rows)


def store_rights() -> str:
    """Return the statements that grant the rights in the store, one for each set of rights."""
    tables: dict[str, list[str]] = {}
    for name, rights in sorted(RIGHTS.items()):
        tables.setdefault(rights, []).append(name)
    grants = [f"GRANT {rights} ON {', '.join(names)} TO je_store;" for rights, names in sorted(tables.items())]
    return "\n".join(("```sql", "GRANT USAGE ON SCHEMA public TO je_store;", *grants, "```"))


# What the console serves.


def openapi() -> Mapping[str, Any]:
    """Return the OpenAPI document, from an app that serves no requests."""
    deps = SimpleNamespace(settings=SimpleNamespace(pages="off", console_proxies=(), temporal_ui_url=None))
    document: Mapping[str, Any] = create_app(SimpleNamespace(deps=deps)).openapi()  # type: ignore[arg-type]
    return document


def routes() -> str:
    """Return the tables of the API's routes, one for each tag."""
    document, text = openapi(), ""
    for tag in document["tags"]:
        rows = []
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if tag["name"] in operation["tags"]:
                    description = operation.get("description", "").split("\n\n")[0]
                    rows.append((f"`{method.upper()} {path}`", _parameters(document, operation), _responses(operation), description))
        text += f"### {tag['name'].capitalize()}\n\n{tag['description']}\n\n{table(('route', 'takes', 'answers', 'what it does'), rows)}\n"
    return text


def _parameters(document: Mapping[str, Any], operation: Mapping[str, Any]) -> str:
    names = [f"`{parameter['name']}`" for parameter in operation.get("parameters", ()) if parameter["in"] != "path"]
    bodies = operation.get("requestBody", {}).get("content", {})
    for kind, body in bodies.items():
        name = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
        properties = document["components"]["schemas"].get(name, {}).get("properties", {})
        names.append("body {" + ", ".join(f"`{key}`" for key in properties) + "}" if properties else f"body {kind}")
    return ", ".join(names)


def _responses(operation: Mapping[str, Any]) -> str:
    texts = []
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            content = response.get("content", {})
            names = [body["schema"]["$ref"].rpartition("/")[2] for body in content.values() if "$ref" in body.get("schema", {})]
            links = [f"[{name}](#{re.sub(r'[^a-z0-9_-]', '', name.lower())})" for name in names]
            kinds = [kind for kind in content if not names and kind != "application/json"]
            texts.append(" ".join((status, *links, *kinds)))
    return ", ".join(texts)


def objects() -> str:
    """Return the fields of each object in the API's responses."""
    document = openapi()
    schemas, names = document["components"]["schemas"], set[str]()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    more = _references([response for one in operations for status, response in one["responses"].items() if status.startswith("2")])
    while more:
        names |= more
        more = _references([schemas[name] for name in more]) - names
    text = ""
    for name in sorted(names):
        fields = ", ".join(f"`{field}`" for field in schemas[name].get("properties", schemas[name].get("enum", ())))
        if fields:
            text += f"#### {name}\n\n{'One of ' if 'enum' in schemas[name] else ''}{fields}\n\n"
    return text


def _references(value: Any) -> set[str]:
    inner = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []
    own = {value["$ref"].rpartition("/")[2]} if isinstance(value, Mapping) and isinstance(value.get("$ref"), str) else set()
    return own.union(*map(_references, inner))


def metrics() -> str:
    """Return the table of Prometheus metrics, from every place in our code that creates one."""
    rows = []
    for path in sorted(file for folder in PRODUCT for file in (ROOT / folder).rglob("*.py")):
        if not any(kind in path.read_text() for kind in METRICS):
            continue
        tree = ast.parse(path.read_text())
        constants = {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in METRICS and len(node.args) > 1:
                name, text, *rest = node.args
                labels = constants.get(rest[0].id, rest[0]) if rest and isinstance(rest[0], ast.Name) else rest[0] if rest else None
                names = ", ".join(f"`{label}`" for label in (ast.literal_eval(labels) if labels is not None else []))
                rows.append((f"`{ast.literal_eval(name)}`", node.func.id.lower(), names, ast.literal_eval(text)))
    return table(("metric", "type", "labels", "meaning"), sorted(rows))


# The program.


def commands() -> str:
    """Return the table of the program's commands."""
    root = typer.main.get_command(build_program())
    return table(("command", "options", "what it does"), _command_rows(root, ""))


def _command_rows(group: Any, prefix: str) -> Iterator[tuple[str, str, str]]:
    context = typer.Context(group)
    for name in sorted(group.list_commands(context)):
        command = group.get_command(context, name)
        words, options = [f"{prefix} {name}".strip()], []
        if getattr(command, "commands", None):
            yield from _command_rows(command, words[0])
        elif not command.hidden:
            for parameter in (one for one in command.params if not one.hidden):
                if parameter.param_type_name == "argument":
                    argument = (parameter.metavar or parameter.name or "").upper().strip("[]") + ("…" if parameter.nargs == -1 else "")
                    words.append(argument if parameter.required else f"[{argument}]")
                elif (option := max(parameter.opts, key=len)) not in GLOBAL_OPTIONS:
                    options.append(f"`{option}`")
            yield f"`{' '.join(words)}`", " ".join(options), (command.help or "").split("\n\n")[0]


def doctor_checks() -> str:
    """Return the table of doctor's checks."""
    modes: dict[str, set[str]] = {}
    for check in CHECKS:
        modes.setdefault(check.what, set()).update({"here", "production"} if check.mode == "both" else {check.mode})
    rows = [(what, *("yes" if mode in found else "" for mode in ("here", "production"))) for what, found in modes.items()]
    return table(("check", "`doctor`", "`doctor --production`"), rows)


def exit_codes() -> str:
    """Return the table of exit codes."""
    meanings = with_meanings("exit-codes", [code.name for code in ExitCode])
    return table(("code", "meaning"), [(str(code.value), meanings[code.name]) for code in ExitCode])


def states(section: str, kind: str, values: type[Enum]) -> str:
    """Return the table of the states in an enum."""
    meanings = with_meanings(section, [state.value for state in values])
    return table(
        ("state", "shown as", "meaning"), [(f"`{state.value}`", state_word(kind, state), meanings[state.value]) for state in values]
    )


def result_reasons() -> str:
    """Return the table of the reasons that have a name."""
    return table(("reason", "meaning"), [(f"`{reason}`", f"{text[0].upper()}{text[1:]}.") for reason, text in RESULT_REASON_TEXTS.items()])


def ids() -> str:
    """Return the table of ids."""
    rows = [("job, also its Temporal workflow id", JOB_ID), ("request", REQUEST_ID), ("credential", CREDENTIAL_ID)]
    # The names of groups are not part of the documented pattern.
    return table(("id of a", "pattern"), [(what, "`" + re.sub(r"\?P<[a-z]+>", "", pattern.pattern) + "`") for what, pattern in rows])


def job_environment() -> str:
    """Return the table of a job's environment variables."""
    launch = JobLaunch(job="j", argv=("true",), uid=0, interpreter=Interpreter(Path("/usr/bin/python3"), ()), broker=Path("/broker.sock"))
    always = set(re.findall(r"^export ([A-Z_]+)=", environment_script(launch, JobPaths()).reveal(), re.MULTILINE))
    known = MEANINGS["job-environment"]
    meanings = with_meanings("job-environment", sorted(always | DELIVERED, key=lambda name: [*known, name].index(name)))
    return table(("variable", "meaning"), [(f"`{name}`", text) for name, text in meanings.items()])


PARTS: Mapping[str, Callable[[], str]] = {
    "settings": settings,
    "job-spec": lambda: keys_of("job-spec", JobSpec),
    "catalog": lambda: keys_of("catalog", Catalog),
    "approvals": lambda: keys_of("approvals", Tiers),
    "triggers": lambda: keys_of("triggers", Triggers),
    "routes": routes,
    "objects": objects,
    "metrics": metrics,
    "commands": commands,
    "doctor-checks": doctor_checks,
    "exit-codes": exit_codes,
    "ids": ids,
    "job-states": lambda: states("job-states", "job", JobState),
    "result-reasons": result_reasons,
    "request-states": lambda: states("request-states", "request", RequestState),
    "credential-states": lambda: states("credential-states", "credential", CredentialState),
    "revocation-states": lambda: states("revocation-states", "revocation", RevocationState),
    "job-environment": job_environment,
    "store-rights": store_rights,
}


def main(arguments: Sequence[str]) -> int:
    """Rewrite the pages, or check them; return the exit code."""
    stale, used = [], set()
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text()
        used |= {match["name"] for match in MARKED.finditer(text)}
        new = MARKED.sub(lambda match: f"{match[1]}\n{PARTS[match['name']]().rstrip()}\n\n{match[3]}", text)
        if new != text:
            stale.append(page.relative_to(ROOT))
            if "--check" not in arguments:
                page.write_text(new)
    for file, content in editor_schemas(MEANINGS):
        if not file.exists() or file.read_text() != content:
            stale.append(file.relative_to(ROOT))
            if "--check" not in arguments:
                file.parent.mkdir(exist_ok=True)
                file.write_text(content)
    if unused := set(PARTS) - used:
        message = f"no page of docs/reference has {', '.join(sorted(unused))}"
        raise OutOfDate(message)
    for page in stale:
        sys.stderr.write(f"{page}: {'out of date; run `make docs`' if '--check' in arguments else 'rewritten'}\n")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
