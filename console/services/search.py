"""Searches everything that people may read: ids, credentials' handles, names, words; and suggests names if nothing is found. Blocking, for a thread."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from itertools import chain

from anyio import to_thread

from console.auth.authorization import Caller
from console.concurrency.loops import repeat
from console.services.console import Console
from justenough.adapters.configuration.folder import ConfigSet
from justenough.domain.core.base_model import Message
from justenough.domain.readmodel.search import MAX_QUERY_CHARS, SearchHit, id_within, query_words
from justenough.services.dependencies import Deps

INDEX_INTERVAL_S = 0.5
MAX_SUGGESTIONS = 5
MIN_SIMILARITY = 0.7
"""From 0 to 1: how much of a suggested name is like what was typed (difflib's ratio)."""


class SearchResult(Message):
    """What was found, most exact first; each thing once."""

    query: str
    hits: tuple[SearchHit, ...]
    suggestions: tuple[str, ...] = ()
    """If nothing was found: names that are similar."""
    is_partial: bool = False
    """Whether only the newest jobs were searched for words: of those that have the rarest one, or, for a launcher, of their own."""
    is_indexed: bool = True
    """Whether every entry of the ledger can be found: after an upgrade, indexing takes a while."""


def search(console: Console, caller: Caller, text: str) -> SearchResult:
    """Return the search hits for a text that the caller may read. An empty text finds nothing."""
    query = text.strip()[:MAX_QUERY_CHARS]
    if not query:
        return SearchResult(query="", hits=())
    store, current = console.deps.store, console.deps.config.current()
    in_jobs = [*find_by_id(console, caller, query), *readable(console, caller, store.search.find_handle(query))]
    words = store.search.find_words(query, requester_id=caller.requester_filter)
    names = store.search.find_names(query, reader_id=caller.requester_filter)
    hits = (*in_jobs, *_resources(current, query), *_name_hits(names), *readable(console, caller, words.hits))
    # A job's id is in its database user's name: both find the same.
    found = tuple({(hit.kind, hit.id): hit for hit in reversed(hits)}.values())[::-1]
    return SearchResult(
        query=query,
        hits=found,
        suggestions=() if found else suggest(query, _known_names(console, caller, current)),
        is_partial=words.is_partial,
        is_indexed=store.search.progress().is_nearly_complete,
    )


def find_by_id(console: Console, caller: Caller, text: str) -> tuple[SearchHit, ...]:
    """Return the jobs, requests, credentials and entries whose id starts with `text`, or is within it, and that the caller may read."""
    find, installation = console.deps.store.search.find, console.deps.settings.installation
    hits = readable(console, caller, find(text, installation=installation))
    named = id_within(text)
    return hits or (readable(console, caller, find(named, installation=installation)) if named else ())


def readable(console: Console, caller: Caller, hits: Iterable[SearchHit]) -> tuple[SearchHit, ...]:
    """Return the hits whose job the caller may read."""
    found = tuple(hits)
    console.job_owners.preload(hit.job for hit in found)
    return tuple(hit for hit in found if console.job_owners.can_read(caller, hit.job))


def suggest(query: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names that are like the query, or that have a word like one of its words; the most similar first."""
    whole = {name.casefold(): name for name in names}
    by_word = {word: name for key, name in whole.items() for word in query_words(key)}
    typed = query.casefold()
    close = difflib.get_close_matches(typed, whole, MAX_SUGGESTIONS, MIN_SIMILARITY)
    close_words = (difflib.get_close_matches(word, by_word, MAX_SUGGESTIONS, MIN_SIMILARITY) for word in query_words(typed))
    found = chain((whole[key] for key in close), (by_word[word] for words in close_words for word in words))
    return tuple(dict.fromkeys(found))[:MAX_SUGGESTIONS]


async def run_indexing(deps: Deps) -> None:
    """Index the ledger's new entries every INDEX_INTERVAL_S, until cancelled. If another console has indexed them, there are none."""

    async def index() -> None:
        while not (await to_thread.run_sync(deps.store.search.progress)).is_complete:
            await to_thread.run_sync(deps.store.search.index)

    await repeat(index, every_s=INDEX_INTERVAL_S, failure="the ledger cannot be indexed for the search now")


def _resources(current: ConfigSet, query: str) -> Iterator[SearchHit]:
    words = query_words(query)
    for name, resource in current.catalog.resources.items():
        if words and all(word in f"{name} {resource.title}".casefold() for word in words):
            yield SearchHit(kind="resource", id=name, text=resource.title)


def _name_hits(names: Iterable[tuple[str, str]]) -> Iterator[SearchHit]:
    for kind, name in names:
        yield SearchHit.model_validate({"kind": kind, "id": name})


def _known_names(console: Console, caller: Caller, current: ConfigSet) -> Iterator[str]:
    yield from current.catalog.resources
    yield from (name for _, name in console.deps.store.search.names(reader_id=caller.requester_filter))
