"""The catalog's tools: what is read, and what is refused by its YAML path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from justenough.domain.catalog.loader import read_catalog, with_settings
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import InvalidInput
from justenough.domain.jobs.states import Action
from tests.support.domain_samples import with_value

SHOP = Path(__file__).parents[3] / "examples" / "shop" / "catalog.yaml"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"order_id": {"type": "integer"}, "title": {"type": "string"}},
    "required": ["order_id"],
}
FIND: dict[str, Any] = {
    "description": "Look an order up",
    "uses": {"resource": "orders-db", "action": "read"},
    "input": SCHEMA,
    "sql": {"dsn": "host=${SHOP_HOST} dbname=shop", "statement": "SELECT * FROM orders WHERE id = %(order_id)s AND tenant = %(tenant)s"},
}
FILE: dict[str, Any] = {
    "description": "File a ticket",
    "uses": {"resource": "orders-db", "action": "read"},
    "input": SCHEMA,
    "http": {
        "method": "POST",
        "url": "https://helpdesk.example/{tenant}/orders/{order_id}",
        "headers": {"Authorization": "Bearer {token}"},
        "json": {"title": "{title}"},
    },
}
CATALOG: dict[str, Any] = {
    "resources": {
        "orders-db": {
            "title": "Orders",
            "environment": "prod",
            "sensitivity": "confidential",
            "owner": "support-leads",
            "actions": {
                "read": {"issue": {"path": "database/creds/orders-read-{tenant}"}, "max_ttl": "30m", "data_scope": ["tenant"]},
                "admin": {"issue": {"path": "database/creds/orders-admin"}, "max_ttl": "10m", "lock": "control_group"},
            },
        }
    },
    "scopes": [{"tenant": "acme"}],
    "tools": {"find": FIND, "file": FILE},
}


def catalog_with(path: str = "", value: Any = None) -> Catalog:
    """CATALOG with one value of its tools replaced (None: left out), by its path."""
    return read_catalog(json.dumps({**CATALOG, "tools": with_value(CATALOG["tools"], path, value)}))


def problems_of(path: str, value: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        catalog_with(path, value)
    return "\n".join(map(str, caught.value.problems))


def test_a_tools_definition_is_read_with_the_access_it_uses_and_its_implementation() -> None:
    tools = with_settings(catalog_with(), {"SHOP_HOST": "db.example"}).tools
    find, file = tools["find"], tools["file"]
    assert (find.kind, find.uses.action, find.sql and find.sql.dsn) == ("sql", Action.READ, "host=db.example dbname=shop")
    assert find.sql
    assert find.sql.parameters == ("order_id", "tenant")
    assert (file.kind, file.http and file.http.body) == ("http", {"title": "{title}"})
    assert find.schema_of_input["additionalProperties"] is False


def test_the_shop_has_its_tools() -> None:
    tools = with_settings(
        read_catalog(SHOP.read_bytes()), {"SHOP_HOST": "127.0.0.1", "SHOP_PORT": "5432", "MODEL_URL": "http://127.0.0.1:8080/v1"}
    ).tools
    assert {name: (tool.uses.resource, tool.uses.action) for name, tool in tools.items()} == {
        "find-order": ("orders-db", Action.READ),
        "list-tickets": ("orders-db", Action.READ),
        "refund-order": ("refunds-db", Action.WRITE),
        "find-customer": ("customers-db", Action.READ),
        "export-customers": ("export-api", Action.WRITE),
    }


HUB: dict[str, Any] = {"uses": {"resource": "orders-db", "action": {"*": "read"}}, "mcp": {"url": "https://hub.example/mcp"}}


@pytest.mark.parametrize(
    "path, value, problem",
    [
        ("find/uses/resource", "order-db", "tools.find.uses.resource: unknown resource 'order-db'; did you mean 'orders-db'?"),
        ("find/uses/action", "write", "tools.find.uses.action: orders-db does not offer write; it offers admin, read"),
        ("find/uses/action", "own", "tools.find.uses.action"),
        ("find/uses/action", "admin", "tools.find.uses.action: admin on orders-db is behind a Vault control group"),
        ("find/uses/action", {"get_*": "read"}, "tools.find: uses.action: patterns are only for upstream MCP servers"),
        ("find/description", None, "tools.find: needs a description"),
        ("find/sql", None, "tools.find: has none; a tool needs exactly one of sql, http, mcp"),
        ("find/http", FILE["http"], "tools.find: has sql and http; a tool needs exactly one of sql, http, mcp"),
        ("find/sql/statment", "x", "tools.find.sql.statment: unknown key; did you mean 'statement'?"),
        ("find/sql/statement", "SELECT %(order)s", "tools.find.sql.statement: %(order)s is not a property of `input` or a `data_scope` of the action; did you mean 'order_id'?"),
        ("find/sql/statement", "SELECT %s", "tools.find.sql: statement: '%s' is not a parameter"),
        ("find/sql/statement", "SELECT 100 % 3", "write %(name)s, or %% for a percent sign"),
        ("find/sql/statement", "SELECT '%(order_id)s'", "a parameter in quotes would be literal text"),
        ("find/sql/dsn", "host=x user=postgres", "tools.find.sql: dsn: must not contain user="),
        ("find/sql/dsn", "postgresql://a:b@x/shop", "tools.find.sql: dsn: must not contain ://"),
        ("find/sql/rows", 5000, "tools.find.sql.rows"),
        ("find/sql/timeout", "5m", "tools.find.sql.timeout"),
        ("find/input", {"type": "array"}, "tools.find.input.type: must be `object`"),
        ("find/input/properties", ["order_id"], "tools.find.input.properties: must be a mapping"),
        ("find/input/properties/order_id", {"type": "integr"}, "tools.find.input.properties.order_id.type: is not a valid JSON Schema"),
        ("find/input/properties/order_id", {"$ref": "https://evil.example/x"}, "tools.find.input.properties.order_id.$ref: refers to another document"),
        ("find/input/properties/Order", {"type": "integer"}, "tools.find.input.properties.Order: a name must begin with"),
        ("find/input/properties/tenant", {"type": "string"}, "tools.find.input.properties.tenant: this key comes from the job's data scope"),
        ("file/http/url", "https://{title}.example/x", "tools.file.http: url: the host must not contain a placeholder"),
        ("file/http/url", "http://helpdesk.example/", "tools.file.http: url: must begin with https://"),
        ("file/http/url", "https://169.254.169.254/latest", "tools.file.http: url: 169.254.169.254 is a cloud metadata service"),
        ("file/http/url", "https://10.0.0.1/x", "is in a private network; `allow_private: true` allows it"),
        ("file/http/url", "https://helpdesk.example/{title}", "tools.file.http.url: {title} must be in `input.required`"),
        ("file/http/json", {"title": "{titel}"}, "tools.file.http.json: {titel} is not a property of `input`; did you mean 'title'?"),
        ("file/http/slashes", ["title"], "tools.file.http.slashes: title is not an input in the url's path"),
        ("file/http/method", "GET", "tools.file.http: json: a GET request must not have a body"),
        ("file/http/headers", {"X Y": "a"}, "tools.file.http: headers.X Y: the name of a header may contain only letters"),
        ("file/http/headers", {"X": "a\r\nb"}, "headers.X: must be printable ASCII"),
        ("Find It", FIND, "tools.Find It"),
        ("hub", {**HUB, "mcp": {"url": "https://hub.example/{tenant}"}}, "tools.hub.mcp: url: must not contain placeholders"),
        ("hub", {**HUB, "mcp": {"url": "https://hub.example/", "prefix": "hub."}}, "tools.hub.mcp.prefix"),
        ("hub", {**HUB, "mcp": {"url": "https://hub.example/", "tools": "sha256:1"}}, "tools.hub.mcp.tools"),
        ("hub", {**HUB, "uses": {"resource": "orders-db", "action": {"*": "write"}}}, "tools.hub.uses.action: orders-db does not offer write"),
    ],
)  # fmt: skip
def test_a_wrong_tool_is_refused_by_its_path(path: str, value: Any, problem: str) -> None:
    assert problem in problems_of(path, value)


def test_the_hint_for_an_unknown_key_is_a_key_that_is_allowed_there() -> None:
    assert problems_of("find/sql/url", "https://helpdesk.example").endswith("tools.find.sql.url: unknown key")


def test_the_hint_for_an_unknown_key_does_not_depend_on_its_tools_name() -> None:
    assert problems_of("sql", {"descripton": "-"}).endswith("tools.sql.descripton: unknown key; did you mean 'description'?")
