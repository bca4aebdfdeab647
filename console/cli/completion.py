"""Completes the values of arguments and options: fixed words, and names and ids from the console. Never fails and never prompts.

The console's answers are cached for a few seconds, because people press TAB more than once. Completing local values loads no HTTP client.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from console.cli import private_files, profiles
from console.cli.client.connect import connect_api
from console.cli.errors import Failure
from console.cli.options import options_of, run_with_options
from console.presentation.status_badges import state_word
from justenough.domain.core.errors import JustEnoughError

Completion = Callable[[typer.Context, list[str], str], list[tuple[str, str]]]
"""A completion function as typer calls it: with the context, an always empty list, and the text typed so far.

Returns values, each with a help text.
"""

CACHE_SECONDS = 5.0
TIMEOUT_S = 1.5
"""Short, because a console that does not answer must not hold up the shell."""
MAX_FETCHED = 50


def complete_words(words: Iterable[str]) -> Completion:
    names = tuple(words)

    def complete(_context: typer.Context, _arguments: list[str], typed: str) -> list[tuple[str, str]]:
        return [(name, "") for name in names if name.startswith(typed)]

    return complete


def complete_items(
    path: str, describe: Callable[[dict[str, Any]], str], *, name: str = "id", key: str = "items", **query: Any
) -> Completion:
    """Return a completion of a list's items by their field `name`. `key`: where the console's answer has the list."""

    def complete(context: typer.Context, _arguments: list[str], typed: str) -> list[tuple[str, str]]:
        found = {item[name]: describe(item) for item in fetch_items(context, path, key=key, **query)}
        return [(value, text) for value, text in found.items() if value.startswith(typed)]

    return complete


def complete_job(context: typer.Context, _arguments: list[str], typed: str) -> list[tuple[str, str]]:
    """Complete a job: its id, its name or @last."""
    found = [("@last", "your latest job")]
    for item in fetch_items(context, "/jobs", limit=MAX_FETCHED):
        found += [(item["id"], f"{item['name']}, {state_word('job', item['state'])}"), (item["name"], "latest job of this name")]
    return list({name: text for name, text in found if name.startswith(typed)}.items())


def fetch_items(context: typer.Context, path: str, *, key: str = "items", **query: Any) -> list[dict[str, Any]]:
    """Return the items of a list from the console; none if it does not answer at once."""
    try:
        options = options_of(context)
        cache = private_files.folder() / "completion.cache"
        name = f"{profiles.profile_name(options.profile)} {options.console_url} {path} {sorted(query.items())}"
        known: dict[str, Any] = {}
        with contextlib.suppress(Failure):
            known = private_files.read(cache) or {}
        if known.get("of") == name and time.time() - float(known["at"]) < CACHE_SECONDS:
            return list(known["items"])
        items = list(run_with_options(options, lambda: connect_api().get_once(path, timeout_s=TIMEOUT_S, **query))[key])
        private_files.write(cache, {"of": name, "at": time.time(), "items": items})
    except (JustEnoughError, ValueError, LookupError, TypeError):
        return []
    else:
        return items


complete_action = complete_words(("read", "write", "admin"))
complete_job_name = complete_items("/jobs", lambda _: "", name="name", limit=MAX_FETCHED)
complete_request = complete_items("/requests", lambda item: f"{item['action']} {item['resource']}, {item['job_name']}", limit=MAX_FETCHED)
complete_credential = complete_items("/credentials", lambda item: f"{item['action']} {item['resource']}", live="true", limit=MAX_FETCHED)
complete_resource = complete_items("/catalog", lambda item: item["title"], name="name", key="resources")

JobId = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="A job: its id or the beginning of it, its name (the latest job), or @last, your latest job.",
        autocompletion=complete_job,
    ),
]
OfJob = Annotated[
    str | None,
    typer.Option(
        "--job",
        metavar="JOB",
        help="Only items of this job: its id, a beginning of it, its name (the latest job) or @last.",
        autocompletion=complete_job,
    ),
]
OfResource = Annotated[
    str | None, typer.Option("--resource", metavar="NAME", help="Only items for this resource.", autocompletion=complete_resource)
]
