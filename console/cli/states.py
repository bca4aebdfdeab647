"""States on the command line: the pages' words in tables and for TAB; `--state` accepts these and the API's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from console.cli.completion import complete_words
from console.cli.errors import WrongUsage
from console.presentation.status_badges import find_state, typed_word
from justenough.domain.jobs.states import CredentialState, JobState, RequestState, RevocationState

FILTER_STATES: Mapping[str, tuple[str, ...]] = {
    "job": tuple(JobState),
    "request": tuple(RequestState),
    "credential": tuple(CredentialState),
    "revocation": tuple(state for state in RevocationState if state is not RevocationState.NONE),
}
"""The states by which lists can be filtered, by kind of badge."""


def state_words(kind: str) -> tuple[str, ...]:
    return tuple(typed_word(kind, state) for state in FILTER_STATES[kind])


def state_option(kind: str, sentence: str) -> Any:
    """Return an option that takes one of these states. `sentence`: the beginning of its help."""
    words = state_words(kind)
    help_text = f"{sentence}: {', '.join(words)}; or the API's name of the state."
    return typer.Option(metavar="STATE", help=help_text, autocompletion=complete_words(words))


def parse_state_option(option: str, kind: str, text: str | None) -> str | None:
    """Return the API's name for the state that a text names; None for None. Raises Failure."""
    if text is None:
        return None
    state = find_state(kind, text, FILTER_STATES[kind])
    if state is None:
        raise WrongUsage(f"{option}: there is no state {text!r}; the states are {', '.join(state_words(kind))}")
    return state
