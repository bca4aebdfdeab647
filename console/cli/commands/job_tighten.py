"""`justenough job tighten`: the spec with only the access that past runs needed. The console computes the figures; the YAML is written here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli import terminal
from console.cli.arguments import Since, path_segment, time_argument_text
from console.cli.client.connect import connect_api
from console.cli.completion import complete_job_name
from console.cli.render.output import count_label, emit, join_values, note
from console.presentation.event_text import duration_label

if TYPE_CHECKING:
    from justenough.domain.rightsizing.analysis import Sized


def tighten(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of a job, as in `job list`.", autocompletion=complete_job_name)],
    since: Since = None,
    runs: Annotated[int, typer.Option("--runs", metavar="N", min=1, max=1000, help="Analyse at most this many recent runs.")] = 100,
) -> None:
    """Print a job's spec with only the access that past runs needed. A comment gives the reason for each change. Usage figures go to stderr.

    Examples:
    justenough job tighten refund-triage --since 90d > refund-triage.yaml

    """
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
    analysed = f"{count_label(sizing.runs, 'past run')} analysed, of which {sizing.ran} started their process"
    note(f"{sizing.name}: {analysed}; the newest run is {sizing.newest}.")
    for item in sizing.access:
        note(f"  {item.resource}:{item.action}  {_usage_text(item)}")
    if not sizing.enough:
        note("Fewer than 3 past runs: too few to rely on these figures. Run the job more often, or give an earlier --since.")
    if not any(item.changes for item in sizing.access):
        note("No access to remove or reduce.")
    if folder := sizing.spec["run"].get("workdir"):
        note(f"The job's files are in the folder {folder!r} beside its spec: save this spec there too.")


def _usage_text(item: Sized) -> str:
    from justenough.domain.rightsizing.analysis import What, format_seconds  # noqa: PLC0415 - loads pydantic's models

    used = "use not observable" if item.used is None else f"{item.used} used"
    counts = (
        f"{count_label(item.asked, 'request')} in {count_label(item.runs, 'run')}: {item.granted} granted, {item.issued} issued, {used}"
    )
    ttls = [f"requested {duration_label(item.asked_ttl)}"]
    if item.granted_ttl is not None:
        ttls.append(f"granted {duration_label(item.granted_ttl)} at most")
    if item.used_max is not None and item.used_p50 is not None:
        ttls.append(f"used {format_seconds(item.used_p50)} (p50), {format_seconds(item.used_max)} at most")
    changes = join_values(f"{change.what} {change.to}" for change in item.changes)
    proposal = "not needed" if item.change(What.DROP) else f"sufficient: {changes}" if changes else "no change"
    return f"{counts}; ttl {join_values(ttls)}; {proposal}"
