"""`justenough demo`: the shop's jobs on real servers, told by the very commands that a user types; exit 0 only if every ending is proven."""

from __future__ import annotations

import queue
import signal

from console.cli.addresses import home
from console.cli.demo.leaving import tell_what_runs
from console.cli.demo.stage import DemoFailed, Stage, say
from console.cli.demo.story import tell

__all__ = ["run"]


def run(*, stays: bool = False) -> int:
    """Run the demo; return 0 where every credential was seen to work and then to be dead, 1 otherwise.

    With `stays` the servers run on in JUSTENOUGH_HOME, whatever came of it. KeyboardInterrupt, which SIGTERM is too, stops what was started.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = 1
    try:
        with Stage.opened(stays=stays) as stage:
            code = tell(stage)
    except DemoFailed as failed:
        say(f"\ndemo failed: {failed}")
    except queue.Empty:
        say("\ndemo failed: a job did not hand its login over")
    if stays:
        tell_what_runs(home().absolute())
    return code
