"""`justenough demo`: the shop's jobs on real servers, told by the very commands that a user types; exit 0 only if every ending is proven."""

from __future__ import annotations

from console.cli.demo.stage import DemoFailed, Stage
from console.cli.demo.story import tell

__all__ = ["run"]


def run() -> int:
    """Run the demo; return 0 where every credential was seen to work and then to be dead, 1 otherwise."""
    try:
        with Stage.opened() as stage:
            return tell(stage)
    except DemoFailed as failed:
        print(f"\ndemo failed: {failed}", flush=True)  # noqa: T201 - the demo's output is its product
        return 1
