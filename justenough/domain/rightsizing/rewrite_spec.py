"""The spec that a job's past runs would have needed: as a mapping, and as YAML with a comment on each changed line. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from justenough.domain.jobs.spec import Access, Agent, JobSpec, RunSpec
from justenough.domain.rightsizing.analysis import Change, Sized, Sizing, What

NESTED_MODELS: dict[str, type[BaseModel]] = {"agent": Agent, "run": RunSpec}
"""Parts of a spec that have an order of their own."""


def tighten_spec(sizing: Sizing) -> dict[str, Any]:
    """Return the newest run's spec with what past runs did not need taken away; its parameters stay to be filled in."""
    pairs = zip(sizing.spec.get("access") or (), sizing.access, strict=True)
    kept = [_tighten_item(raw, sized) for raw, sized in pairs if sized.change(What.DROP) is None]
    return {**sizing.spec, **({"access": kept} if sizing.access else {})}


def to_tightened_yaml(sizing: Sizing) -> str:
    """Return it as YAML, which reads as `tighten_spec` says. What is dropped stays as a comment."""
    lines = [f"# {sizing.name} as its past runs would have needed it: {sizing.runs} looked at, the newest run is {sizing.newest}."]
    for name, value in _in_spec_order(tighten_spec(sizing), JobSpec).items():
        lines += _access_lines(sizing) if name == "access" and sizing.access else _dump_lines(name, value)
    return "\n".join(lines) + "\n"


def _access_lines(sizing: Sizing) -> Iterator[str]:
    pairs = list(zip(sizing.spec["access"], sizing.access, strict=True))
    all_dropped = all(sized.change(What.DROP) for _, sized in pairs)
    yield "access: []" if all_dropped else "access:"
    for raw, sized in pairs:
        dropped = sized.change(What.DROP)
        if dropped:
            yield f"# dropped: {dropped.why}"
            yield from (f"# {line}" for line in _item_lines(raw, sized))
        else:
            yield from _item_lines(raw, sized)


def _item_lines(raw: Mapping[str, Any], sized: Sized) -> Iterator[str]:
    """Yield the lines of one access item, changed ones with why."""
    start = "- "
    for name, value in _in_spec_order(_tighten_item(raw, sized), Access).items():
        change = _change_of(name, sized)
        first, *others = _dump_lines(name, value)
        yield f"{start}{first}{f'  # {change.why}' if change else ''}"
        yield from (f"  {line}" for line in others)
        start = "  "


def _tighten_item(raw: Mapping[str, Any], sized: Sized) -> dict[str, Any]:
    return {name: change.to if (change := _change_of(name, sized)) else value for name, value in raw.items()}


def _change_of(name: str, sized: Sized) -> Change | None:
    return sized.change(What(name)) if name in {What.ACTION, What.TTL} else None


def _in_spec_order(raw: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Return a part of a spec in the order in which people write it: the ledger keeps keys sorted."""
    names = [*(name for name in model.model_fields if name in raw), *(name for name in raw if name not in model.model_fields)]
    return {
        name: _in_spec_order(raw[name], NESTED_MODELS[name]) if name in NESTED_MODELS and isinstance(raw[name], dict) else raw[name]
        for name in names
    }


def _dump_lines(name: str, value: Any) -> list[str]:
    """Return a key and its value as lines of YAML; what cannot be seen is written as escapes."""
    text = _yaml(name, value, plain=True)
    shows = all(character.isprintable() or character == "\n" for character in text)
    return (text if shows else _yaml(name, value, plain=False)).rstrip("\n").split("\n")


def _yaml(name: str, value: Any, *, plain: bool) -> str:
    # None: what holds no other list or mapping stands on one line.
    flow = None if isinstance(value, dict | list) else False
    text: str = yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=plain, width=float("inf"), default_flow_style=flow)
    return text
