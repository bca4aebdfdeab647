"""`justenough job tighten`: the spec with only the access that past runs needed. The console computes the figures; the YAML is written here."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli import terminal
from console.cli.arguments import path_segment
from console.cli.client.api import connect_api
from console.cli.options import command
from console.cli.render.output import emit, join_values, note
from console.cli.time_arguments import time_argument_text
from console.presentation.event_text import duration_label

if TYPE_CHECKING:
    from justenough.domain.rightsizing.analysis import Sized, Sizing


@command
def tighten(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of a job, as in `job list`.")],
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only runs from this time on: an age (90d), a date or a time.", show_default=False),
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, max=1000, help="Analyse at most this many recent runs.")] = 100,
) -> None:
    """Print a job's spec with only the access that its past runs needed, and the reason on each changed line. Usage figures go to stderr."""
    from justenough.domain.rightsizing.analysis import Sizing  # noqa: PLC0415 - loads pydantic's models
    from justenough.domain.rightsizing.rewrite_spec import to_tightened_yaml  # noqa: PLC0415 - the same

    begin = time_argument_text("--since", since, now=datetime.now(UTC))
    found = connect_api().get(f"/sizing/{path_segment(name)}", since=begin, runs=runs)
    sizing = Sizing.model_validate(found)
    emit(
        found,
        table=lambda _: terminal.write(to_tightened_yaml(sizing)),
        names=lambda _: (f"{item['resource']}:{item['action']}" for item in found["access"]),
    )
    for line in _usage_lines(sizing):
        note(line)


def _usage_lines(sizing: Sizing) -> Iterator[str]:
    """Yield what people should know before they use the spec."""
    yield f"{sizing.name}: {sizing.runs} past runs analysed, of which {sizing.ran} started their process; the newest run is {sizing.newest}."
    for item in sizing.access:
        yield f"  {item.resource}:{item.action}  {_figures(item)}"
    if not sizing.enough:
        yield "Fewer than 3 past runs: the figures say little. Run the job more often, or give an earlier --since."
    if not any(item.changes for item in sizing.access):
        yield "No access to remove or reduce."
    folder = sizing.spec["run"].get("workdir")
    if folder:
        yield f"The job's files are in the folder {folder!r} beside its spec: save this spec there too."


def _figures(item: Sized) -> str:
    used = "use not observable" if item.used is None else f"{item.used} used"
    counts = f"{item.asked} requests in {item.runs} runs: {item.granted} granted, {item.issued} issued, {used}"
    return f"{counts}; ttl {join_values(_ttl_texts(item))}; {_proposal(item)}"


def _ttl_texts(item: Sized) -> Iterator[str]:
    from justenough.domain.rightsizing.analysis import format_seconds  # noqa: PLC0415 - loads pydantic's models

    yield f"requested {duration_label(item.asked_ttl)}"
    if item.granted_ttl is not None:
        yield f"granted {duration_label(item.granted_ttl)} at most"
    if item.used_max is not None and item.used_p50 is not None:
        yield f"used {format_seconds(item.used_p50)} (p50), {format_seconds(item.used_max)} at most"


def _proposal(item: Sized) -> str:
    from justenough.domain.rightsizing.analysis import What  # noqa: PLC0415 - loads pydantic's models

    if item.change(What.DROP):
        return "not needed"
    return f"sufficient: {join_values(f'{change.what} {change.to}' for change in item.changes)}" if item.changes else "no change"
