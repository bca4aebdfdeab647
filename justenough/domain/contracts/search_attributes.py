"""The search attributes of a job's workflow in Temporal, all of type Keyword. Their values contain no secrets."""

from __future__ import annotations

STATE = "JustEnoughState"
ENVIRONMENT = "JustEnoughEnvironment"
REQUESTER = "JustEnoughRequester"
SEARCH_ATTRIBUTES = (STATE, ENVIRONMENT, REQUESTER)
