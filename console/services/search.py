"""Searches everything that people may read: ids, credentials' handles, names, words; and suggests names if nothing is found. Blocking, for a thread."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import NamedTuple

from anyio import to_thread

from console.auth.authorization import Caller
from console.concurrency.loops import repeat
from console.presentation.status_badges import shown_credential_state, shown_request_state
from console.services.console import Console
from justenough.adapters.configuration.folder import ConfigSet
from justenough.domain.core.base_model import Message
from justenough.domain.readmodel.search import MAX_QUERY_CHARS, HitKind, SearchHit, id_within, query_words, words_of
from justenough.domain.readmodel.views import JobSummary
from justenough.services.dependencies import Deps

INDEX_INTERVAL_S = 0.5
MAX_SUGGESTIONS = 5
MIN_SIMILARITY = 0.7
"""Minimum similarity of a suggested name to the typed text, from 0 to 1 (difflib's ratio)."""


class SearchResult(Message):
    """What was found, most exact first, without duplicates."""

    query: str
    hits: tuple[SearchHit, ...]
    suggestions: tuple[str, ...] = ()
    """If nothing was found: names that are similar."""
    is_partial: bool = False
    """Whether only the newest jobs were searched for words: those with the rarest word or, for a launcher, the newest of their own."""
    is_indexed: bool = True
    """Whether every entry of the ledger can be found: after an upgrade, indexing takes a while."""


class HitDetail(NamedTuple):
    """What the results page shows about a hit besides its name."""

    state: str
    """The state as which to show it."""
    access: str = ""
    """For a request or credential: `read on orders-db`."""
    matches: tuple[str, ...] = ()
    """For a job: what was found that its name and task do not show: `label team=support`."""


def search(console: Console, caller: Caller, text: str) -> SearchResult:
    """Return the search hits for a text that the caller may read. An empty text finds nothing."""
    query = text.strip()[:MAX_QUERY_CHARS]
    if not query:
        return SearchResult(query="", hits=())
    store, current = console.deps.store, console.deps.config.current()
    in_jobs = [*find_by_id(console, caller, query), *readable(console, caller, store.search.find_handle(query))]
    words = store.search.find_words(query, requester_id=caller.requester_filter)
    names = store.search.find_names(query, reader_id=caller.requester_filter)
    named = (SearchHit.model_validate({"kind": kind, "id": name}) for kind, name in names)
    hits = (*in_jobs, *_resources(current, query), *named, *readable(console, caller, words.hits))
    # A job's id is in its database user's name: both find the same.
    found = tuple({(hit.kind, hit.id): hit for hit in reversed(hits)}.values())[::-1]
    suggestions: tuple[str, ...] = ()
    if not found:
        readable_names = (name for _, name in store.search.names(reader_id=caller.requester_filter))
        suggestions = suggest(query, (*current.catalog.resources, *readable_names))
    return SearchResult(
        query=query,
        hits=found,
        suggestions=suggestions,
        is_partial=words.is_partial,
        is_indexed=store.search.progress().is_nearly_complete,
    )


def describe_hits(deps: Deps, result: SearchResult) -> Mapping[tuple[HitKind, str], HitDetail]:
    """Return the details that the page shows about jobs, requests and credentials, by kind and id. Reads all hits of a kind at once."""
    store, ids = deps.store, {kind: [hit.id for hit in result.hits if hit.kind == kind] for kind in ("job", "request", "credential")}
    jobs, details = store.jobs.by_ids(ids["job"]), dict[tuple[HitKind, str], HitDetail]()
    requested = store.search.resources_of(ids["job"])
    query = result.query.casefold()
    for job in jobs:
        # What was found by its id, or by an id within a pasted text, needs no explanation.
        by_id = id_within(query) is not None or job.id.startswith((query, f"j-{deps.settings.installation}-{query}"))
        matches = () if by_id else _unseen_matches(job, requested.get(job.id, {}), result.query)
        details["job", job.id] = HitDetail(job.state, matches=matches)
    for request in store.requests.by_ids(ids["request"]).values():
        look = shown_request_state(request.state, request.break_glass)
        details["request", request.id] = HitDetail(look, access=f"{request.action} on {request.resource}")
    for credential in store.search.credentials(ids["credential"]):
        look = shown_credential_state(credential.state, credential.revocable)
        details["credential", credential.id] = HitDetail(look, access=f"{credential.action} on {credential.resource}")
    return details


def _unseen_matches(job: JobSummary, resources: Mapping[str, str], query: str) -> tuple[str, ...]:
    """Return where a job has those words of the query that are not in its name or its task: as few places as needed."""
    words = query_words(query)

    def found_in(*texts: str) -> frozenset[str]:
        return frozenset(word for word in words if any(other.startswith(word) for other in words_of(*texts)))

    agent, labels = str((job.agent or {}).get("name") or ""), (f"{key}={value}" for key, value in job.labels.items())
    places = {
        f"agent {agent}": found_in(agent),
        f"launched by {job.requester}": found_in(job.requester),
        f"environment {job.environment}": found_in(job.environment),
        **{f"label {label}": found_in(label) for label in labels},
        **{f"requested {name}, {title}": found_in(name, title) for name, title in resources.items()},
    }
    left, shown = frozenset(words) - found_in(job.name, job.task), list[str]()
    for place, found in sorted(places.items(), key=lambda item: -len(item[1])):
        if found & left:
            shown.append(place)
            left -= found
    # These are the only indexed words that are not compared above.
    return (*shown, *(["a reason, or who decided"] if left else []))


def find_by_id(console: Console, caller: Caller, text: str) -> tuple[SearchHit, ...]:
    """Return the jobs, requests, credentials and entries whose id starts with `text` or occurs in it, and that the caller may read."""
    # The number of hits is limited, so those of other people must not be among them.
    find = partial(console.deps.store.search.find, installation=console.deps.settings.installation, requester_id=caller.requester_filter)
    hits = readable(console, caller, find(text))
    named = id_within(text)
    return hits or (readable(console, caller, find(named)) if named else ())


def readable(console: Console, caller: Caller, hits: Iterable[SearchHit]) -> tuple[SearchHit, ...]:
    """Return the hits whose job the caller may read."""
    return console.job_owners.readable(caller, hits, lambda hit: hit.job)


def suggest(query: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names that are similar to the query, or that contain a word similar to one of its words; the most similar first."""
    whole = {name.casefold(): name for name in names}
    by_word = {word: name for key, name in whole.items() for word in query_words(key)}
    typed = query.casefold()
    close = difflib.get_close_matches(typed, whole, MAX_SUGGESTIONS, MIN_SIMILARITY)
    close_words = (difflib.get_close_matches(word, by_word, MAX_SUGGESTIONS, MIN_SIMILARITY) for word in query_words(typed))
    found = chain((whole[key] for key in close), (by_word[word] for words in close_words for word in words))
    return tuple(dict.fromkeys(found))[:MAX_SUGGESTIONS]


async def run_indexing(deps: Deps) -> None:
    """Index the ledger's new entries every INDEX_INTERVAL_S, until cancelled. Does nothing if another console has already indexed them."""

    async def index() -> None:
        while not (await to_thread.run_sync(deps.store.search.progress)).is_complete:
            await to_thread.run_sync(deps.store.search.index)

    await repeat(index, every_s=INDEX_INTERVAL_S, failure="the ledger cannot be indexed for the search now")


def _resources(current: ConfigSet, query: str) -> Iterator[SearchHit]:
    words, whole = query_words(query), query.casefold()

    def distance(hit: SearchHit) -> int:
        texts = (hit.id.casefold(), hit.text.casefold())
        return 0 if whole in texts else 1 if any(text.startswith(whole) for text in texts) else 2

    titles = {name: resource.title for name, resource in current.catalog.resources.items()}
    found = {name: title for name, title in titles.items() if words and all(word in f"{name} {title}".casefold() for word in words)}
    yield from sorted((SearchHit(kind="resource", id=name, text=title) for name, title in found.items()), key=distance)
