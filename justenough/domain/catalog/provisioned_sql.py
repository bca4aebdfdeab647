"""The SQL that Vault executes in PostgreSQL for the catalog: finds calls of functions without a schema. Pure; reads text, knows no database.

PostgreSQL looks for such a function in every schema of the session's search_path, and one with exactly matching argument types wins over a
built-in one. A user who may create functions in one of these schemas can then run code as Vault's login, which creates roles. Text in
string literals, which SQL may execute later, is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from justenough.domain.catalog.loader import CATALOG_FILE
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import Problem, raise_problems
from justenough.domain.core.placeholders import SETTING_PLACEHOLDER, iter_texts

TOKEN = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\*.*?\*/ )
    | (?P<body> \$(?P<tag>[A-Za-z_]\w*|)\$ .*? \$(?P=tag)\$ )
    | (?P<string> [eE]'(?:[^'\\]|\\.|'')*' | (?:[bBnNxX]|[uU]&)?'(?:[^']|'')*' )
    | (?P<quoted> "(?:[^"]|"")*" )
    | (?P<word> [^\W\d][\w$]* )
    | (?P<space> \s+ )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
CALL = re.compile(
    r"""
    (?<! [.:][ ] ) (?<! \bAS[ ] )
    ( "(?:[^"]|"")*" | (?<![\w$]) [^\W\d][\w$]* ) [ ] \(
    (?! [^()]* \) [ ] AS [ ] (?: NOT[ ] )? (?: MATERIALIZED[ ] )? \( )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Matches a name before a parenthesis, except after a dot or a cast, in a list of columns after AS, and in `name(column) AS (` of a WITH."""
NO_CALLS = re.compile(
    r"""
    ALL|AND|ANY|ARRAY|AS|BETWEEN|BY|CASE|CHECK|CONSTRAINT|CUBE|DEFAULT|DISTINCT|ELSE|ELSIF|EXCEPT|EXISTS|FILTER|FOR|
    FOREIGN|FROM|GROUP|GROUPING|HAVING|IF|ILIKE|IN|INCLUDE|INSERT|INTERSECT|INTERVAL|INTO|IS|JOIN|KEY|LATERAL|LIKE|
    LIMIT|LOOP|MATERIALIZED|NOT|OFFSET|ON|OR|ORDER|OVER|PRIMARY|REFERENCES|RETURN|RETURNING|ROLLUP|ROW|SELECT|SET|SETS|SOME|TABLE|
    THEN|UNION|UNIQUE|UPDATE|USING|VALUES|WHEN|WHERE|WHILE|WITH|BIT|CHAR|CHARACTER|DEC|DECIMAL|FLOAT|NUMERIC|TIME|
    TIMESTAMP|VARCHAR|VARYING|CAST|COALESCE|EXTRACT|GREATEST|LEAST|NULLIF|POSITION|TREAT|TRIM|CURRENT_TIME|
    CURRENT_TIMESTAMP|LOCALTIME|LOCALTIMESTAMP
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Words that may precede a parenthesis without calling a function: keywords, types with a length, and expressions that have their own
grammar.
"""
POSTGRESQL_PLUGIN = re.compile(r"(postgresql|redshift)-database-plugin")
REMEDY = "write the schema too (pg_catalog for built-in functions), because a function of the same name in another schema could run as Vault's login instead"


def reject_unqualified_calls(catalog: Catalog) -> None:
    """Raise InvalidInput naming each place in `texts`, `provision` and roles whose SQL for PostgreSQL calls a function without a schema.

    Reading a catalog does not include this check: a worker whose catalog was valid before the check existed must be able to keep it,
    because it has credentials to revoke.
    """
    connections = {write.path for write in catalog.provision if POSTGRESQL_PLUGIN.fullmatch(str(write.data.get("plugin_name")))}
    texts: dict[str, str] = {}
    for where, write in catalog.iter_writes():
        mount, _, role = write.path.partition("/roles/")
        if (f"{mount}/config/{write.data.get('db_name')}" if role else write.path) not in connections:
            continue
        for field in (name for name in write.data if name.endswith("_statements")):
            # Vault accepts one text or a list of texts.
            sql = "\n".join(text for _, text in iter_texts(write.data[field]))
            texts[f"{where}.{field}"] = sql
            # A text that several writes share is named once.
            texts |= {f"texts.{name}": catalog.texts[name] for name in SETTING_PLACEHOLDER.findall(sql) if name in catalog.texts}
    calls = {place: tuple(dict.fromkeys(find_unqualified_calls(sql))) for place, sql in texts.items()}
    raise_problems(
        CATALOG_FILE,
        tuple(
            Problem(place, f"it calls {', '.join(f'{name}(…)' for name in names)} without a schema; {REMEDY}")
            for place, names in calls.items()
            if names
        ),
    )


def find_unqualified_calls(sql: str) -> Iterator[str]:
    """Yield the name of each function that is called without a schema, first those in function bodies (between dollar signs)."""
    tokens = []
    for match in TOKEN.finditer(sql):
        if match["body"]:
            quote = len(match["tag"]) + 2
            yield from find_unqualified_calls(match["body"][quote:-quote])
        elif match["string"]:
            tokens.append("''")
        elif not (match["comment"] or match["space"]):
            # A parenthesis in a quoted name would look like a call.
            tokens.append(match[0].replace("(", "_") if match["quoted"] else match[0])
    yield from (match[1] for match in CALL.finditer(" ".join(tokens)) if not NO_CALLS.fullmatch(match[1]))
