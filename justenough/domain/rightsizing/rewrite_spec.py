"""Rewrites a spec so that it requests only the access that past runs needed: as a mapping, and as YAML with a comment on each changed line.
No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from justenough.domain.jobs.spec import Access, Agent, JobSpec, RunSpec
from justenough.domain.rightsizing.analysis import Change, Sized, Sizing, What

NESTED_MODELS: dict[str, type[BaseModel]] = {"agent": Agent, "run": RunSpec}
"""The parts of a spec whose keys have a usual order."""


def tighten_spec(sizing: Sizing) -> dict[str, Any]:
    """Return the newest run's spec without the access that past runs did not need. Its parameters are not filled in."""
    pairs = zip(sizing.spec.get("access") or (), sizing.access, strict=True)
    remaining = [_tighten_item(raw, sized) for raw, sized in pairs if sized.change(What.DROP) is None]
    return {**sizing.spec, **({"access": remaining} if sizing.access else {})}


def to_tightened_yaml(sizing: Sizing) -> str:
    """Return the result of `tighten_spec` as YAML, with dropped items as comments."""
    lines = [f"# {sizing.name}, reduced to what its past runs needed: {sizing.runs} analysed, the newest run is {sizing.newest}."]
    for name, value in _in_spec_order(tighten_spec(sizing), JobSpec).items():
        if name != "access" or not sizing.access:
            lines += _dump_lines(name, value)
            continue
        lines.append("access:" if value else "access: []")
        for raw, sized in zip(sizing.spec["access"], sizing.access, strict=True):
            dropped = sized.change(What.DROP)
            if dropped:
                lines += [f"# dropped: {dropped.why}", *(f"# {line}" for line in _item_lines(raw, sized))]
            else:
                lines += _item_lines(raw, sized)
    return "\n".join(lines) + "\n"


def _item_lines(raw: Mapping[str, Any], sized: Sized) -> Iterator[str]:
    """Yield the lines of an access item, with a comment on each changed one."""
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
    """Return a part of a spec in the usual order of its keys, because the ledger sorts them."""
    names = [*(name for name in model.model_fields if name in raw), *(name for name in raw if name not in model.model_fields)]
    return {
        name: _in_spec_order(raw[name], NESTED_MODELS[name]) if name in NESTED_MODELS and isinstance(raw[name], dict) else raw[name]
        for name in names
    }


def _dump_lines(name: str, value: Any) -> Iterator[str]:
    """Yield a key and its value as lines of YAML; escapes replace non-ASCII characters if some are unprintable."""
    # None: write a list or mapping without nested ones on one line.
    flow, text = None if isinstance(value, dict | list) else False, ""
    for unicode in (True, False):
        text = yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=unicode, width=float("inf"), default_flow_style=flow)
        if all(character.isprintable() or character == "\n" for character in text):
            break
    yield from text.rstrip("\n").split("\n")
