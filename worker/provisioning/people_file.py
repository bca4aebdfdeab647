"""The people of `justenough people sync`: who they are, their groups, and their login names. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import StringConstraints, field_validator

from justenough.domain.core.base_model import Model
from justenough.domain.core.errors import InvalidInput, Problem, raise_problems, reject_if
from justenough.domain.core.untrusted_yaml import read_yaml, validate_model
from justenough.domain.jobs.spec import Name
from worker.provisioning.scim import people_of_scim

SCIM_SCHEMA = "urn:ietf:params:scim:"
OUR_NAMES = "je-"
"""Entities whose names begin like this belong to the installation: its console and data scopes."""


PersonName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,127}$")]
LoginName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,256}$")]
MountName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}(/[A-Za-z0-9_.-]{1,128})*$")]


class PersonEntry(Model):
    """One person."""

    groups: tuple[Name, ...] = ()
    logins: Mapping[MountName, LoginName] = {}
    """Login names by auth mount, if they differ from the person's name."""
    active: bool = True
    """False: their identity is disabled in Vault."""


class PeopleFile(Model):
    """The whole file."""

    people: Mapping[PersonName, PersonEntry]

    @field_validator("people")
    @classmethod
    def _is_somebody(cls, people: Mapping[str, PersonEntry]) -> Mapping[str, PersonEntry]:
        reject_if(not people, "lists nobody")
        names: dict[str, str] = {}
        for name in people:
            reject_if(name.startswith(OUR_NAMES), f"{name}: names that begin with {OUR_NAMES} are the installation's own")
            other = names.setdefault(name.casefold(), name)
            reject_if(other != name, f"{other} and {name} are the same name to Vault")
        return people


@dataclass(frozen=True, slots=True)
class ReadPeople:
    """The people of a file or a server."""

    people: Mapping[str, PersonEntry]
    ignored_groups: tuple[str, ...] = field(default=())
    """Groups of a SCIM server that approvals.yaml cannot name."""
    ambiguous_groups: tuple[str, ...] = field(default=())
    """Names that several groups of a SCIM server have: whoever can make a group there could make themselves its member."""

    def only(self, groups: tuple[str, ...]) -> ReadPeople:
        """Return these groups and the people in them; and everyone who is not active, because they must not keep an identity.

        Raises InvalidInput.
        """
        present = {group for entry in self.people.values() for group in entry.groups}
        raise_problems("--group", (Problem("", f"nobody is in the group {name}") for name in groups if name not in present))
        chosen = {
            name: entry.model_copy(update={"groups": tuple(group for group in entry.groups if group in groups)})
            for name, entry in self.people.items()
        }
        return replace(self, people={name: entry for name, entry in chosen.items() if entry.groups or not entry.active})


def read_people(what: str, text: bytes) -> ReadPeople:
    """Parse a file of people (YAML or JSON), or SCIM's JSON. Raises InvalidInput with every problem by path."""
    if SCIM_SCHEMA.encode() not in text:
        return ReadPeople(validate_model(what, PeopleFile, read_yaml(what, text)).people)
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidInput(what, (Problem("", f"not valid JSON: {error}"),)) from error
    return read_scim(what, value if isinstance(value, list) else [value])


def read_scim(what: str, documents: list[object]) -> ReadPeople:
    """Return the people of SCIM's list responses. Raises InvalidInput."""
    found = people_of_scim(what, documents)
    people = validate_model(what, PeopleFile, {"people": found.people}).people
    return ReadPeople(people, found.ignored_groups, found.ambiguous_groups)
