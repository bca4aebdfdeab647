"""What a new resource needs: its part of catalog.yaml, the SQL for its database, and the secret that Vault needs. Touches no server."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import jinja2

from justenough.adapters.configuration.scaffold.new_folder import to_yaml_text
from justenough.domain.core.errors import Problem, raise_problems
from justenough.domain.core.url_policy import url_problem

REVIEW_AFTER_DAYS = 365
TERMS = ("environment", "sensitivity", "owner")
OWN_TERMS = {"target": "null", "revocable": "now", "data_scope": "[]"}
"""The terms that a resource states if the catalog's `defaults` differ."""


class ResourceKind(NamedTuple):
    schemes: tuple[str, ...]
    """Of its URL."""
    example: str
    port: int | None = None
    """The default."""
    mount: str = ""
    """The mount of its secrets engine; "" for a separate mount with the resource's name."""
    has_password: bool = False
    """Whether Vault needs a password, or a token, to issue."""
    has_database: bool = False
    """Whether its URL names a database."""


KINDS = {
    "postgres": ResourceKind(
        ("postgresql", "postgres"),
        "postgresql://db.example:5432/billing?sslmode=verify-full",
        5432,
        "database",
        has_password=True,
        has_database=True,
    ),
    "mysql": ResourceKind(("mysql",), "mysql://db.example:3306/billing", 3306, "database", has_password=True, has_database=True),
    "redis": ResourceKind(("redis", "rediss"), "rediss://cache.example:6379", 6379, "database", has_password=True),
    "rabbitmq": ResourceKind(("https", "http"), "https://queue.example:15672", 15672, has_password=True),
    "kubernetes": ResourceKind(("https",), "https://cluster.example:6443", 443, "kubernetes", has_password=True),
    "pki": ResourceKind(("https",), "https://warehouse.example", 443),
    "ssh": ResourceKind(("ssh",), "ssh://deploy@web.example", 22),
    "kv": ResourceKind(("https", "http"), "https://api.example", 443, "kv"),
    "http": ResourceKind(("https",), "https://api.example/v1/items", 443, "kv"),
}


@dataclass(frozen=True, slots=True)
class NewResource:
    """A resource to add. Terms that are None come from the catalog's `defaults`."""

    kind: str
    name: str
    url: str
    title: str
    environment: str | None = None
    sensitivity: str | None = None
    owner: str | None = None
    schema: str = "public"
    """postgres: the schema whose tables jobs use."""
    namespace: str = "default"
    """kubernetes: where jobs' service accounts are."""


@dataclass(frozen=True, slots=True)
class ResourceFiles:
    """The files to write, and the steps that are left to do."""

    fragment: str
    """The part to add to catalog.yaml, in its format."""
    sql: str | None
    """To be run by the owner of the database; None if there is none."""
    sql_file: str
    """The path for the SQL file, relative to the configuration folder."""
    secret: str | None
    """The environment variable from which `vault apply` takes Vault's own password; None if Vault needs none."""
    sql_client: str
    """The command that runs the SQL file whose path follows it; "" if there is none."""


def render_resource(new: NewResource, defaults: Mapping[str, Any], *, today: date) -> ResourceFiles:
    """Return the files that a resource needs in a catalog with these `defaults`. Raises InvalidInput if its URL does not fit its kind."""
    kind, where = KINDS[new.kind], _parse_url(new)
    sql, password = new.name.replace("-", "_"), f"{new.name.replace('-', '_').upper()}_VAULT_PASSWORD"
    database, query = where.path.strip("/"), f"?{where.query}" if where.query else ""
    port, sql_file = where.port or kind.port, f"sql/{new.name}.sql"
    parameters = parse_qsl(where.query)
    conninfo = " ".join((f"host={where.hostname} port={port} dbname={database}", *(f"{name}={value}" for name, value in parameters)))
    sql_client = {
        "postgres": f'psql "{conninfo} user=OWNER" -v ON_ERROR_STOP=1 -v password="${password}" -1 -f',
        "mysql": f"mysql --host={where.hostname} --port={port} --user=OWNER --password --init-command=\"SET @password = '${password}'\" <",
    }.get(new.kind, "")
    review_by = date.fromordinal(today.toordinal() + REVIEW_AFTER_DAYS)
    terms = {name: to_yaml_text(term) for name in TERMS if (term := getattr(new, name)) is not None} | {"review": f"{{by: {review_by}}}"}
    terms |= {name: own for name, own in OWN_TERMS.items() if defaults.get(name) and not (name == "target" and new.kind == "postgres")}
    values: dict[str, Any] = {
        "name": new.name,
        "title": json.dumps(new.title, ensure_ascii=False),
        "terms": "".join(f"    {name}: {value}\n" for name, value in terms.items()),
        "url": new.url.rstrip("/"),
        "is_private": url_problem(new.url, private=False) is not None and url_problem(new.url, private=True) is None,
        "scheme": where.scheme,
        "host": where.hostname,
        "address": f"[{where.hostname}]:{port}" if ":" in str(where.hostname) else f"{where.hostname}:{port}",
        "port": port,
        "database": database,
        "query": query,
        # What verifies the server for Vault and the worker must verify it for jobs too.
        "parameters": "".join(f", {name}: {json.dumps(value)}" for name, value in parameters),
        "conninfo": conninfo,
        "username": where.username or "default",
        "mount": kind.mount or new.name,
        "sql": sql,
        "env": sql.upper(),
        "password": password,
        "schema": new.schema,
        "namespace": new.namespace,
        "sql_file": sql_file,
        "sql_client": sql_client,
        # In MySQL's GRANT, _ stands for any character.
        "schema_pattern": database.replace("_", r"\_"),
    }
    templates = jinja2.Environment(  # noqa: S701 - what is written is YAML and SQL, not HTML
        loader=jinja2.PackageLoader(__package__, "."), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return ResourceFiles(
        fragment=templates.get_template(f"{new.kind}.yaml.j2").render(values),
        sql=templates.get_template(f"{new.kind}.sql.j2").render(values) if sql_client else None,
        sql_file=sql_file,
        secret=password if kind.has_password else None,
        sql_client=sql_client,
    )


def missing_terms(new: NewResource, defaults: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the terms that neither the resource nor the catalog's `defaults` state."""
    return tuple(name for name in TERMS if getattr(new, name) is None and defaults.get(name) is None)


def _parse_url(new: NewResource) -> SplitResult:
    kind = KINDS[new.kind]
    try:
        where = urlsplit(new.url)
        is_valid = (
            bool(where.hostname)
            and (where.port is None or where.port > 0)
            and new.url.isascii()
            and not set(new.url + unquote(where.query)) & set("\"'{}$ \\")
        )
    except ValueError:
        is_valid, where = False, urlsplit("")
    parameters = {name for name, _ in parse_qsl(where.query, keep_blank_values=True)}
    problems = [
        message
        for message, applies in (
            (f"is not a URL of this kind; write one like {kind.example}", not is_valid or where.scheme not in kind.schemes),
            (
                "must not contain a password: Vault gets it from the environment, and nobody else needs it",
                bool(where.password) or not parameters.isdisjoint({"password", "sslpassword"}),
            ),
            (f"must end in the name of the database, as in {kind.example}", kind.has_database and not where.path.strip("/")),
            (f"must name the user, as in {kind.example}", new.kind == "ssh" and not where.username),
            (
                "must not name a host, port, database or user after the `?`",
                kind.has_database and not parameters.isdisjoint({"host", "hostaddr", "port", "dbname", "user"}),
            ),
            (
                "must name a host, database and user without % and /: write resources with such names by hand",
                "%" in where.netloc or (kind.has_database and not set(where.path.strip("/")).isdisjoint("%/")),
            ),
        )
        if applies
    ]
    raise_problems(f"the URL of {new.name}", (Problem("--url", message) for message in problems[:1]))
    # All of these become names in SQL or YAML.
    wrong = [
        Problem(option, f"{value!r} {rule}")
        for option, value, pattern, rule in (
            ("NAME", new.name, r"[a-z][a-z0-9-]{0,39}", "must be lower-case letters, digits and -, at most 40, and begin with a letter"),
            ("--schema", new.schema, r"[a-z_][a-z0-9_]{0,62}", "must be the name of a schema: lower-case letters, digits and _"),
            ("--namespace", new.namespace, r"[a-z0-9-]{1,63}", "must be the name of a namespace: lower-case letters, digits and -"),
        )
        if not re.fullmatch(pattern, value)
    ]
    raise_problems("a new resource", wrong)
    return where
