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

from justenough_job.api import NO_REASON, AccessRequest
from justenough_job.credential import Credential
from justenough_job.errors import Denied, Invalid, JobError, Pending
from justenough_job.types import seconds_of

EXIT_FAILED, EXIT_USAGE, EXIT_DENIED, EXIT_WAITED = 1, 2, 6, 7
"""As those of `justenough`."""
EXIT_CANNOT_RUN, EXIT_NOT_FOUND = 126, 127
"""As a shell's."""
FORWARDED_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH") if hasattr(signal, name)
)
HELP_EPILOG = """\
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


class InterruptedBySignal(BaseException):
    """A signal came before the command was started."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    asked = _parse_arguments(sys.argv[1:] if argv is None else argv)
    try:
        with ExitStack() as stack:
            return _run(asked, stack, stack.enter_context(_relay_signals()))
    except InterruptedBySignal as ended:
        return 128 + ended.number
    except (JobError, ValueError) as error:
        print(f"justenough-access: {error}", file=sys.stderr)
        kinds = ((Denied, EXIT_DENIED), (Pending, EXIT_WAITED), (Invalid, EXIT_USAGE), (ValueError, EXIT_USAGE))
        return next((code for kind, code in kinds if isinstance(error, kind)), EXIT_FAILED)


def _run(arguments: argparse.Namespace, stack: ExitStack, signals: SignalRelay) -> int:
    credential = _obtain(arguments, stack, signals)
    if not arguments.command:
        print(_format(credential, arguments))
        until = credential.expires_at.isoformat(timespec="seconds")
        print(f"justenough-access: {credential.id} lives until {until} or the job's end", file=sys.stderr)
        return 0
    variables = _variables(credential, arguments, stack)
    with signals.defer():
        try:
            child = subprocess.Popen(arguments.command, env={**os.environ, **variables})
        except OSError as error:
            print(f"justenough-access: {arguments.command[0]}: {error.strerror}", file=sys.stderr)
            return EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else EXIT_CANNOT_RUN
        signals.child = child
    code = child.wait()
    return 128 - code if code < 0 else code


def _obtain(arguments: argparse.Namespace, stack: ExitStack, signals: SignalRelay) -> Credential:
    """Obtain a credential; if it is for a command, give it back when the stack ends."""

    def give_back(credential: Credential) -> None:
        with signals.defer(forget=True):
            try:
                credential.release()
            except JobError as error:
                until = credential.expires_at.isoformat(timespec="seconds")
                print(f"justenough-access: not given back ({error}): {credential.id} lives until {until} or the job's end", file=sys.stderr)

    request = AccessRequest.build(arguments.resource, arguments.action, reason=arguments.reason, ttl=arguments.ttl)
    end = None if arguments.wait is None else time.monotonic() + seconds_of(arguments.wait)
    while True:
        # A signal between the broker's answer and our reading it would leave a credential that nobody gives back.
        with signals.defer():
            answer = request.send()
            if isinstance(answer, Credential) and arguments.command:
                stack.callback(give_back, answer)
        if isinstance(answer, Credential):
            return answer
        request.wait_for_answer(answer, end=end)


class SignalRelay:
    """Handles signals: passes them on to the command once there is one; before that they end this program, but not while deferred."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None
        self._keeping = False
        self._deferred: list[int] = []

    def handle(self, number: int, _: FrameType | None) -> None:
        """Handle one signal."""
        if self._keeping:
            self._deferred.append(number)
        elif self.child is not None:
            self.child.send_signal(number)
        elif number != getattr(signal, "SIGWINCH", None):
            raise InterruptedBySignal(number)

    @contextmanager
    def defer(self, *, forget: bool = False) -> Iterator[None]:
        """Defer signals until the block ends; then handle them, or drop them if `forget`."""
        self._keeping = True
        try:
            yield
        finally:
            self._keeping = False
            kept, self._deferred = self._deferred, []
        for number in () if forget else kept:
            self.handle(number, None)


@contextmanager
def _relay_signals() -> Iterator[SignalRelay]:
    signals = SignalRelay()
    # A signal that is ignored stays ignored (nohup).
    before = {number: signal.getsignal(number) for number in FORWARDED_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, signals.handle)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _variables(credential: Credential, arguments: argparse.Namespace, stack: ExitStack) -> dict[str, str]:
    if arguments.format == "dsn":
        return {"DATABASE_URL": credential.dsn()}
    if arguments.format == "json":
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="justenough-")))
        path = folder / "credential.json"
        path.touch(mode=0o600)
        path.write_text(credential.json() + "\n", encoding="utf-8")
        return {"JUSTENOUGH_CREDENTIAL_FILE": str(path)}
    return credential.env(arguments.env)


def _format(credential: Credential, arguments: argparse.Namespace) -> str:
    if arguments.format == "dsn":
        return credential.dsn()
    if arguments.format == "json":
        return credential.json()
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in credential.env(arguments.env).items())


def _parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed arguments; `command` is what follows `--`. Exits with USAGE if they are invalid."""
    own, command = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    parser = argparse.ArgumentParser(
        "justenough-access",
        usage="%(prog)s RESOURCE ACTION [options] [-- COMMAND ...]",
        description="Run a command with a credential that ends with it.",
        epilog=HELP_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("resource", metavar="RESOURCE")
    parser.add_argument("action", metavar="ACTION", help="read, write or admin")
    parser.add_argument("--reason", default=NO_REASON, help="what approvers and the ledger read")
    parser.add_argument("--ttl", help="how long it lives: 5m (default: the order's, else 5m)")
    parser.add_argument("--wait", type=_duration, help="how long to wait for people: 10m, 0 (default: until they have answered)")
    parser.add_argument("--format", choices=("env", "json", "dsn"), default="env")
    parser.add_argument(
        "--env", action="append", type=_parse_env_pair, metavar="NAME=FIELD", help="a variable to make from a field (format env)"
    )
    asked = parser.parse_args(own)
    if "--" in argv and not command:
        parser.error("a command is missing after --")
    if asked.env and asked.format != "env":
        parser.error("--env goes with --format env")
    asked.command, asked.env = list(command), dict(asked.env or ())
    return asked


def _parse_env_pair(text: str) -> tuple[str, str]:
    name, _, field = text.partition("=")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or not field:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=FIELD")
    return name, field


def _duration(text: str) -> float:
    try:
        return seconds_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
