"""States on the command line: the pages' words in tables and for TAB; `--state` accepts these and the API's names. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from console.cli.errors import ExitCode, Failure
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
    """Return the words of these states, as people type them."""
    return tuple(typed_word(kind, state) for state in FILTER_STATES[kind])


def state_help(kind: str, sentence: str) -> str:
    """Return the help of an option that takes one of these states."""
    return f"{sentence}: {', '.join(state_words(kind))}; or the API's name of the state."


def parse_state_option(option: str, kind: str, text: str | None) -> str | None:
    """Return the API's name for the state that a text names; None for None. Raises Failure."""
    if text is None:
        return None
    state = find_state(kind, text, FILTER_STATES[kind])
    if state is None:
        raise Failure(f"{option}: there is no state {text!r}; the states are {', '.join(state_words(kind))}", code=ExitCode.USAGE)
    return state
