"""`justenough-access`: runs a command with a credential that ends with it."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from justenough_job.api import UNSAID, Wish
from justenough_job.credential import Credential
from justenough_job.errors import Denied, Invalid, JobError, Pending
from justenough_job.types import seconds_of

FAILED, USAGE, DENIED, WAITED = 1, 2, 6, 7
"""As those of `justenough`."""
CANNOT_RUN, NOT_FOUND = 126, 127
"""As a shell's."""
PASSED_ON = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH") if hasattr(signal, name)
)
EXPLAINED = """\
formats:
  env   PGHOST PGPORT PGDATABASE PGUSER PGPASSWORD for a PostgreSQL database, else JUSTENOUGH_CREDENTIAL_<FIELD>;
        with --env NAME=FIELD (as often as needed) exactly these
  dsn   DATABASE_URL=postgresql://user:password@host:port/dbname
  json  JUSTENOUGH_CREDENTIAL_FILE names a private file that is gone when the command has ended

Without a command the credential is printed in that format (env: lines for a shell's eval), and lives until its ttl or the job's end.

exit codes: the command's own (128+n after signal n); 1 failure, 2 usage or nothing that can be asked for, 6 denied,
7 people have not answered in time, 126 the command cannot be run, 127 it is not there.

  justenough-access orders-db read --reason "Count orders" -- psql -c "SELECT count(*) FROM orders"
  justenough-access helpdesk-api write --env TOKEN=token -- sh -c 'curl -H "Authorization: Bearer $TOKEN" ...'
"""


class Signalled(BaseException):
    """A signal came before the command was started."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    asked = _parsed(sys.argv[1:] if argv is None else argv)
    try:
        with ExitStack() as stack:
            return _run(asked, stack, stack.enter_context(_signals()))
    except Signalled as ended:
        return 128 + ended.number
    except (JobError, ValueError) as error:
        print(f"justenough-access: {error}", file=sys.stderr)
        return _exit_code(error)


def _run(asked: argparse.Namespace, stack: ExitStack, signals: Signals) -> int:
    credential = _obtained(asked, stack, signals)
    if not asked.command:
        print(_printed(credential, asked))
        until = credential.expires_at.isoformat(timespec="seconds")
        print(f"justenough-access: {credential.id} lives until {until} or the job's end", file=sys.stderr)
        return 0
    variables = _variables(credential, asked, stack)
    with signals.kept():
        try:
            child = subprocess.Popen(asked.command, env={**os.environ, **variables})
        except OSError as error:
            print(f"justenough-access: {asked.command[0]}: {error.strerror}", file=sys.stderr)
            return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
        signals.child = child
    code = child.wait()
    return 128 - code if code < 0 else code


def _obtained(asked: argparse.Namespace, stack: ExitStack, signals: Signals) -> Credential:
    """Return a credential that is given back when the stack ends, if it is for a command."""
    wish = Wish.new(asked.resource, asked.action, reason=asked.reason, ttl=asked.ttl)
    end = None if asked.wait is None else time.monotonic() + seconds_of(asked.wait)
    while True:
        # A signal that came between the broker's answer and our reading it would leave a credential that nobody gives back.
        with signals.kept():
            found = wish.made()
            if isinstance(found, Credential) and asked.command:
                stack.callback(_given_back, found, signals)
        if isinstance(found, Credential):
            return found
        wish.until_answered(found, end=end)


def _given_back(credential: Credential, signals: Signals) -> None:
    with signals.kept(forget=True):
        try:
            credential.release()
        except JobError as error:
            until = credential.expires_at.isoformat(timespec="seconds")
            print(f"justenough-access: not given back ({error}): {credential.id} lives until {until} or the job's end", file=sys.stderr)


class Signals:
    """What is done about a signal: passed on once there is a command; before that it ends us, but not while something is kept."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None
        self._keeping = False
        self._kept: list[int] = []

    def got(self, number: int, _: FrameType | None) -> None:
        """Handle one."""
        if self._keeping:
            self._kept.append(number)
        elif self.child is not None:
            self.child.send_signal(number)
        elif number != getattr(signal, "SIGWINCH", None):
            raise Signalled(number)

    @contextmanager
    def kept(self, *, forget: bool = False) -> Iterator[None]:
        """Keep what comes during a block until its end; then act on it, or forget it where it is too late for that."""
        self._keeping = True
        try:
            yield
        finally:
            self._keeping = False
            kept, self._kept = self._kept, []
        for number in () if forget else kept:
            self.got(number, None)


@contextmanager
def _signals() -> Iterator[Signals]:
    signals = Signals()
    # What is ignored stays so (nohup).
    before = {number: signal.getsignal(number) for number in PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, signals.got)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _variables(credential: Credential, asked: argparse.Namespace, stack: ExitStack) -> dict[str, str]:
    if asked.format == "dsn":
        return {"DATABASE_URL": credential.dsn()}
    if asked.format == "json":
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="justenough-")))
        path = folder / "credential.json"
        path.touch(mode=0o600)
        path.write_text(credential.json() + "\n", encoding="utf-8")
        return {"JUSTENOUGH_CREDENTIAL_FILE": str(path)}
    return credential.env(asked.env)


def _printed(credential: Credential, asked: argparse.Namespace) -> str:
    if asked.format == "dsn":
        return credential.dsn()
    if asked.format == "json":
        return credential.json()
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in credential.env(asked.env).items())


def _exit_code(error: Exception) -> int:
    kinds = ((Denied, DENIED), (Pending, WAITED), (Invalid, USAGE), (ValueError, USAGE))
    return next((code for kind, code in kinds if isinstance(error, kind)), FAILED)


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """Return what was asked for; `command` is what stands after `--`. Ends the program with USAGE where that is not readable."""
    own, command = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    parser = argparse.ArgumentParser(
        "justenough-access",
        usage="%(prog)s RESOURCE ACTION [options] [-- COMMAND ...]",
        description="Run a command with a credential that ends with it.",
        epilog=EXPLAINED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("resource", metavar="RESOURCE")
    parser.add_argument("action", metavar="ACTION", help="read, write or admin")
    parser.add_argument("--reason", default=UNSAID, help="what approvers and the ledger read")
    parser.add_argument("--ttl", help="how long it lives: 5m (default: the order's, else 5m)")
    parser.add_argument("--wait", type=_duration, help="how long to wait for people: 10m, 0 (default: until they have answered)")
    parser.add_argument("--format", choices=("env", "json", "dsn"), default="env")
    parser.add_argument("--env", action="append", type=_named, metavar="NAME=FIELD", help="a variable to make from a field (format env)")
    asked = parser.parse_args(own)
    if "--" in argv and not command:
        parser.error("a command is missing after --")
    if asked.env and asked.format != "env":
        parser.error("--env goes with --format env")
    asked.command, asked.env = list(command), dict(asked.env or ())
    return asked


def _named(text: str) -> tuple[str, str]:
    name, _, field = text.partition("=")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or not field:
        message = f"{text!r}: write NAME=FIELD"
        raise argparse.ArgumentTypeError(message)
    return name, field


def _duration(text: str) -> float:
    try:
        return seconds_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
