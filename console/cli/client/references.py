"""Resolves what a person types in place of an id: the id, its beginning, a job's name (its latest job) or @last (their latest job)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from console.cli.errors import ExitCode, Failure, WrongUsage
from console.cli.render.output import note
from console.cli.render.table import LONG_ID
from console.presentation.status_badges import state_word

if TYPE_CHECKING:
    from console.cli.client.api import ConsoleApiClient
    from console.cli.json_object import Json

LAST = "@last"
ID_OF_KIND = re.compile(r"([jrc])-[a-z0-9]{1,8}-([0-9a-hjkmnp-tv-z]{6,26})(-\d+(\.\d+)?)?")
"""Matches an id, or at least its beginning with kind and time."""
IdKind = Literal["job", "request", "credential"]
KINDS: dict[str, IdKind] = {"j": "job", "r": "request", "c": "credential"}
BEGINNING = re.compile(r"[jrc]-[a-z0-9]{1,8}-[^-]+(?P<number>-\d+(\.\d+)?)?")
"""Matches a text with at least one character of a job's own part of the id. A shorter text would match the only job of an
installation.
"""
MAX_SHOWN = 5
"""Maximum number of ids in the message about an ambiguous beginning."""
MAX_FETCHED = 100


def job_id_of(api: ConsoleApiClient, text: str) -> str:
    """Return the id of the job that a text refers to; the text itself if there is no such job. Raises Failure if the text is ambiguous."""
    if text == LAST:
        name = api.get("/whoami")["name"]
        newest = api.get("/jobs", requester=name, limit=1)["items"]
        if not newest:
            raise Failure(f"{LAST}: you have not launched a job yet", code=ExitCode.NOT_FOUND)
        return _note_meaning(text, newest[0])
    # A name must not shadow the beginning of an id, or the wrong job would be killed.
    found = id_beginning_with(api, "job", text) if text.startswith("j-") else None
    if found in {None, text} and not _is_whole(text) and (named := api.get("/jobs", name=text, limit=1).get("items")):
        return _note_meaning(text, named[0])
    return found or id_beginning_with(api, "job", text)


def _is_whole(text: str) -> bool:
    """Whether there is nothing to look up: the text is a whole id, or empty."""
    return LONG_ID.fullmatch(text) is not None or not text.strip()


def _require_kind(letter: str, text: str) -> None:
    """Raise Failure, with the command to use, if a text is the id of something else, or the beginning of such an id."""
    found = ID_OF_KIND.fullmatch(text)
    if found is None or found[1] == letter:
        return
    # Credentials have no command of their own; the job's shows them.
    command = f"request show {text}" if found[1] == "r" else f"job show j{text[1:].removesuffix(found[3] or '')}"
    message = f"{text} is the id of a {KINDS[found[1]]}, not of a {KINDS[letter]}; see justenough {command}"
    raise Failure(message, code=ExitCode.NOT_FOUND)


def _note_meaning(text: str, job: Json) -> str:
    note(f"{text} is {job['id']} ({job['name']}, {state_word('job', job['state'])}).")
    return str(job["id"])


def id_beginning_with(api: ConsoleApiClient, kind: IdKind, text: str) -> str:
    """Return the only id that begins with a text; the text itself if there is none. Raises Failure if the text is ambiguous.

    In a short id of a request or credential, the number is at the end.
    """
    letter = kind[0]
    _require_kind(letter, text)
    if _is_whole(text):
        return text
    whole = text.lower() if text.startswith(f"{letter}-") else f"{letter}-{api.get('/whoami')['installation']}-{text.lower()}"
    parts = BEGINNING.fullmatch(whole)
    if parts is None:
        return text
    number = parts["number"] or "" if kind != "job" else ""
    beginning = whole.removesuffix(number)
    # A job may have more requests and credentials than one page, so look for the job.
    if number and len(jobs := _ids_beginning(api, "job", f"j{beginning[1:]}")) == 1:
        return f"{letter}{jobs[0][1:]}{number}"
    found = _ids_beginning(api, kind, beginning)
    ids = [name for name in found if name.endswith(number)]
    is_cut = len(found) == MAX_FETCHED
    if len(ids) > 1 or is_cut:
        count = "" if is_cut else f"{len(ids) - MAX_SHOWN} "
        more = f" and {count}more" if len(ids) > MAX_SHOWN else ""
        shown = f": {', '.join(ids[:MAX_SHOWN])}{more}" if ids else ""
        raise WrongUsage(f"several {kind}s begin with {text}{shown}; give more of the id")
    return ids[0] if ids else text


def _ids_beginning(api: ConsoleApiClient, kind: IdKind, beginning: str) -> list[str]:
    """Return the first page of ids with this beginning, sorted."""
    query = {"state": "all"} if kind == "request" else {}
    items = api.get(f"/{kind}s", id=beginning, limit=MAX_FETCHED, **query).get("items", ())
    # A console of an earlier version does not know the filter, and lists everything.
    return sorted(item["id"] for item in items if item["id"].startswith(beginning))
