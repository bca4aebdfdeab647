"""The people of `justenough people sync`: who they are, their groups and their login names, from a file or a SCIM 2.0 server (RFC 7643, 7644).

All pages of a SCIM server are fetched, because a person who is missing from the list would seem to be gone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import httpx
from pydantic import Field, StringConstraints, TypeAdapter, field_validator

from justenough.domain.core.base_model import Message, Model
from justenough.domain.core.errors import GiveUp, InvalidInput, Problem, RetryLater, raise_problems, reject_if
from justenough.domain.core.secret import Secret
from justenough.domain.core.untrusted_yaml import read_yaml, validate_model
from justenough.domain.jobs.spec import Name

SCIM_SCHEMA = "urn:ietf:params:scim:"
OUR_NAMES = "je-"
"""Entities whose names begin like this belong to the installation: its console and data scopes."""
PAGE_SIZE = 200
MAX_RESOURCES = 100_000
REQUEST_TIMEOUT_S = 8.0
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
NAME = TypeAdapter(Name)
PersonName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,127}$")]
PERSON_NAME = TypeAdapter(PersonName)
LoginName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,256}$")]
MountName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}(/[A-Za-z0-9_.-]{1,128})*$")]


class PersonEntry(Model):
    groups: tuple[Name, ...] = ()
    logins: Mapping[MountName, LoginName] = {}
    """Login names by auth mount, if they differ from the person's name."""
    active: bool = True
    """False: their identity is disabled in Vault."""


class PeopleFile(Model):
    people: Mapping[PersonName, PersonEntry]

    @field_validator("people")
    @classmethod
    def _has_distinct_names(cls, people: Mapping[str, PersonEntry]) -> Mapping[str, PersonEntry]:
        reject_if(not people, "must name at least one person")
        names: dict[str, str] = {}
        for name in people:
            reject_if(name.startswith(OUR_NAMES), f"{name}: names that begin with {OUR_NAMES} are the installation's own")
            other = names.setdefault(name.casefold(), name)
            reject_if(other != name, f"{other} and {name} are the same name to Vault")
        return people


@dataclass(frozen=True, slots=True)
class ReadPeople:
    people: Mapping[str, PersonEntry]
    ignored_groups: tuple[str, ...] = ()
    """Groups of a SCIM server that approvals.yaml cannot name."""
    ambiguous_groups: tuple[str, ...] = ()
    """Names that several groups of a SCIM server have: whoever can make a group there could make themselves its member."""
    listed_groups: frozenset[str] = frozenset()
    """The groups that a SCIM server lists and approvals.yaml can name, with and without members."""

    def only(self, groups: tuple[str, ...]) -> ReadPeople:
        """Return these groups and the people in them; and everyone who is not active, because they must not keep an identity.

        A group that its last member has left must not stop the sync, or this member would stay in it. Raises InvalidInput if nobody is in a
        group that the source does not list either, which is probably misspelt, or in any of the groups.
        """
        present = {group for entry in self.people.values() for group in entry.groups}
        empty = [name for name in groups if name not in present]
        misspelt = empty if present.isdisjoint(groups) else [name for name in empty if name not in self.listed_groups]
        raise_problems("--group", (Problem("", _reason_without_members(name, self.ignored_groups)) for name in misspelt))
        chosen = {
            name: entry.model_copy(update={"groups": tuple(group for group in entry.groups if group in groups)})
            for name, entry in self.people.items()
        }
        return replace(self, people={name: entry for name, entry in chosen.items() if entry.groups or not entry.active})


class ScimReference(Message):
    """A group of a user, or a member of a group."""

    value: str = ""
    display: str | None = None


class ScimUser(Message):
    id: str = ""
    user_name: str = Field(alias="userName", min_length=1)
    active: bool = True
    groups: tuple[ScimReference, ...] = ()


class ScimGroup(Message):
    """A group. Its members are users and other groups."""

    id: str = ""
    display_name: str = Field(alias="displayName", min_length=1)
    members: tuple[ScimReference, ...] = ()


def _reason_without_members(group: str, ignored_groups: Collection[str]) -> str:
    return f"approvals.yaml cannot name the group {group}" if group in ignored_groups else f"nobody is in the group {group}"


def read_people(what: str, text: bytes, groups: Collection[str] = ()) -> ReadPeople:
    """Parse a file of people (YAML or JSON), or SCIM's JSON. Raises InvalidInput with every problem by path. `groups`: as in `read_scim`."""
    if SCIM_SCHEMA.encode() not in text:
        return ReadPeople(validate_model(what, PeopleFile, read_yaml(what, text)).people)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(what, (Problem("", f"not valid JSON: {error}"),)) from error
    return read_scim(what, value if isinstance(value, list) else [value], groups)


def read_scim(what: str, documents: Iterable[object], only: Collection[str] = ()) -> ReadPeople:
    """Return the people of SCIM's list responses (or single resources). A person's groups include those that contain them. Raises InvalidInput.

    `only`: people in none of these groups, if any are named, are left out if their names cannot be used: nobody who is not synced may
    stop the sync.
    """
    users, groups = [], []
    for resource in _resources(what, documents):
        if "userName" in resource:
            users.append(validate_model(what, ScimUser, resource))
        elif "displayName" in resource:
            groups.append(validate_model(what, ScimGroup, resource))
    by_id = {group.id: group for group in groups if group.id}
    containing: dict[str, list[ScimGroup]] = {}
    for group in groups:
        for member in group.members:
            containing.setdefault(member.value, []).append(group)
    people, ignored = dict[str, Any](), set[str]()
    for user in users:
        names = _group_names(user, by_id, containing)
        usable = {name for name in names if _is_valid(NAME, name)}
        ignored |= names - usable
        if only and not usable & {*only} and (user.user_name.startswith(OUR_NAMES) or not _is_valid(PERSON_NAME, user.user_name)):
            continue
        if user.user_name in people:
            raise InvalidInput(what, (Problem("", f"lists the user {user.user_name} more than once"),))
        people[user.user_name] = {"groups": sorted(usable), "active": user.active}
    entries = validate_model(what, PeopleFile, {"people": people}).people
    listed = frozenset(group.display_name for group in groups if _is_valid(NAME, group.display_name))
    return ReadPeople(entries, tuple(sorted(ignored)), names_of_several_groups(users, groups), listed)


def _group_names(user: ScimUser, by_id: Mapping[str, ScimGroup], containing: Mapping[str, list[ScimGroup]]) -> set[str]:
    """Return the names of a user's groups, as either side names them, and of those around them. `containing`: the groups by member."""
    listed = [reference.value for reference in user.groups]
    names, waiting, seen = {reference.display for reference in user.groups if reference.display}, [user.id, *listed], set[str]()
    names |= {by_id[each].display_name for each in listed if each in by_id}
    while waiting:
        inner = waiting.pop()
        for group in containing.get(inner, []) if inner and inner not in seen else ():
            names.add(group.display_name)
            waiting.append(group.id)
        seen.add(inner)
    return names


def names_of_several_groups(users: Iterable[ScimUser], groups: Iterable[ScimGroup]) -> tuple[str, ...]:
    """Return the names that groups with different ids have, as listed themselves or by their members."""
    listed = {(group.display_name, group.id) for group in groups}
    listed |= {(reference.display, reference.value) for user in users for reference in user.groups if reference.display}
    # An export may leave out ids.
    counts = Counter(name for name, identity in listed if identity)
    return tuple(sorted(name for name, count in counts.items() if count > 1))


def fetch_scim(address: str, token: Secret) -> list[object]:
    """Return all pages of /Users and /Groups below an address. Raises InvalidInput, GiveUp, RetryLater."""
    try:
        parts = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise InvalidInput("--scim", (Problem("", f"{address} is not a valid address: {error}"),)) from error
    is_loopback = parts.host in LOOPBACK_HOSTS
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback):
        raise InvalidInput("--scim", (Problem("", f"{address} must begin with https://, because the request carries a token"),))
    headers = {"Authorization": f"Bearer {token.reveal()}", "Accept": "application/scim+json"}
    try:
        with httpx.Client(headers=headers, timeout=REQUEST_TIMEOUT_S, trust_env=not is_loopback) as client:
            return [page for kind in ("Users", "Groups") for page in _pages(client, f"{address.rstrip('/')}/{kind}")]
    except httpx.HTTPError as error:
        reason = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
        message = f"the SCIM server at {address} did not answer ({reason}); check the address, its certificate and the network"
        raise RetryLater(message) from error


def _pages(client: httpx.Client, address: str) -> Iterator[object]:
    count, total = 0, 1
    while count < total:
        answer = client.get(address, params={"startIndex": count + 1, "count": PAGE_SIZE})
        if answer.status_code in {401, 403}:
            message = f"{address} answered {answer.status_code}: the token in --token-file is wrong, has expired or may not read this"
            raise GiveUp(message)
        if answer.status_code == 429 or answer.is_server_error:
            raise RetryLater(f"{address} answered {answer.status_code}: the SCIM server is busy or fails; run the command again later")
        if answer.status_code != 200:
            message = f"{address} answered {answer.status_code}, not 200: check the address of --scim, which ends before /Users"
            raise GiveUp(message)
        before = total
        try:
            page = answer.json()
            found, total = len(page.get("Resources") or ()), int(page["totalResults"])
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            message = f"{address} did not answer with a SCIM list response: check the address of --scim"
            raise GiveUp(message) from error
        if count and total != before:
            # Pages are counted from the start, so somebody may have moved from a page that was not read yet to one that was.
            message = f"{address} changed while it was read ({before:,} resources, then {total:,}): run the command again"
            raise RetryLater(message)
        count += found
        if total > MAX_RESOURCES or (found == 0 and count < total):
            # A person who is missing from an incomplete list would be disabled with --remove.
            message = f"{address} reports {total:,} resources, but returned {count:,}; nothing was changed"
            raise GiveUp(message)
        yield page


def _resources(what: str, documents: Iterable[object]) -> Iterator[dict[str, Any]]:
    """Yield the resources of all responses. Raises InvalidInput if some are missing, because their people would seem to be gone."""
    totals: dict[frozenset[str], tuple[int, int]] = {}
    for document in documents:
        if not isinstance(document, dict):
            raise InvalidInput(what, (Problem("", "SCIM's JSON must be an object, or a list of objects"),))
        resources = document.get("Resources", [] if "totalResults" in document else [document])
        if not isinstance(resources, list) or not all(isinstance(resource, dict) for resource in resources):
            raise InvalidInput(what, (Problem("Resources", "must be a list of objects"),))
        yield from resources
        kinds = frozenset("user" if "userName" in resource else "group" for resource in resources)
        count, total = totals.get(kinds, (0, 0))
        try:
            totals[kinds] = count + len(resources), max(total, int(document.get("totalResults") or 0))
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidInput(what, (Problem("totalResults", "must be a number"),)) from error
    for count, total in totals.values():
        if count < total:
            raise InvalidInput(what, (Problem("totalResults", f"has {count} of {total} resources: save all pages, as a JSON list"),))


def _is_valid(kind: TypeAdapter[str], name: str) -> bool:
    try:
        kind.validate_python(name)
    except ValueError:
        return False
    return True
