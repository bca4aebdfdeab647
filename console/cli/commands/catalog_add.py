"""`justenough catalog add`: write what a new resource needs into the configuration folder."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path

from console.cli import terminal
from console.cli.client.config import load_config
from console.cli.errors import Failure, WrongUsage
from console.cli.files import replace_text
from console.cli.json_object import Json
from console.cli.render.output import emit
from justenough.adapters.configuration.folder import ConfigSet
from justenough.adapters.configuration.scaffold.new_resource import NewResource, ResourceFiles, missing_terms, render_resource
from justenough.adapters.runtime.new_files import new_files
from justenough.domain.catalog.catalog_text import add_to_catalog, without_writes
from justenough.domain.catalog.loader import CATALOG_FILE, read_catalog
from justenough.domain.catalog.models import Catalog
from justenough.domain.policy.dry_run import PolicyEvaluator
from justenough.domain.policy.test_cases import read_policy_table, run_cases


def add_resource(folder: Path, new: NewResource) -> None:
    """Write the resource and print what is left to do. Raises InvalidInput or Failure before anything is written."""
    config = load_config(folder)
    defaults = config.catalog.defaults.model_dump(mode="json")
    if missing := missing_terms(new, defaults):
        options = ", ".join(f"--{name}" for name in missing)
        raise WrongUsage(f"{new.name} needs {options}: {CATALOG_FILE} has no such `defaults`")
    rendered = render_resource(new, defaults, today=datetime.now(UTC).date())
    mounted = {write.path for write in config.catalog.provision if write.path.startswith("sys/mounts/")}
    text = add_to_catalog((folder / CATALOG_FILE).read_text(encoding="utf-8"), without_writes(rendered.fragment, mounted))
    table, denied = _policy_table(new, config, read_catalog(text))
    files = {f"policies/tests/{new.name}.yaml": table, **({rendered.sql_file: rendered.sql} if rendered.sql else {})}
    for name in files:
        if (folder / name).exists():
            raise WrongUsage(f"{folder / name} already exists", hint="Remove it, or choose another name.")
    try:
        with new_files((folder / name, content) for name, content in files.items()):
            # Write the catalog last: the resource exists once the catalog lists it.
            replace_text(folder / CATALOG_FILE, text)
    except OSError as error:
        raise Failure(f"cannot write {error.filename or folder}: {error.strerror}") from error
    written = [str(folder / name) for name in (CATALOG_FILE, *files)]
    shown: Json = {"resource": new.name, "written": written, "denied": denied, "next": _next_steps(folder, new, rendered)}
    lines = [f"Wrote {file}" for file in written]
    lines += [f"Policy denies {ask} to everybody: write a policy that permits it (docs/how-to/policies.md)" for ask in denied]
    lines += ["Next:", *(f"  {step}" for step in shown["next"])]
    emit(shown, table=lambda _: terminal.write_line("\n".join(lines)), name="resource")


def _policy_table(new: NewResource, config: ConfigSet, catalog: Catalog) -> tuple[str, list[str]]:
    """Return a test table with the decisions of current policy, and the actions that it denies."""
    asks = [f"{new.name}:{action}" for action in sorted(catalog.resources[new.name].actions, key=lambda action: action.rank)]
    cases = "".join(f'  - {{ask: "{ask}", expect: denied}}\n' for ask in asks)
    table = read_policy_table("a new table", f"cases:\n{cases}")
    rules = PolicyEvaluator(config.policies, catalog, config.tiers.top)
    found = [case.got.outcome for case in run_cases("", table, rules, frozenset(config.tiers.roles.launch))]
    head = f"# What policy decides about {new.name}. `justenough policy test` checks it.\ncases:\n"
    lines = "".join(f'  - {{ask: "{ask}", expect: {outcome}}}\n' for ask, outcome in zip(asks, found, strict=True))
    return head + lines, [ask for ask, outcome in zip(asks, found, strict=True) if outcome == "denied"]


def _next_steps(folder: Path, new: NewResource, rendered: ResourceFiles) -> list[str]:
    steps = []
    if rendered.secret:
        steps.append(f"export {rendered.secret}=…    # the password with which Vault logs in")
    if rendered.sql:
        steps.append(f"{rendered.sql_client} {shlex.quote(str(folder / rendered.sql_file))}")
    steps += ["justenough vault plan", "justenough vault apply"]
    if new.kind in {"kv", "http"}:
        steps.append(f"bao kv put kv/{new.name} token=…    # what jobs read, or the worker sends")
    return [
        *steps,
        f"justenough vault try {new.name} {'write' if new.kind == 'ssh' else 'read'}",
    ]
