"""`justenough-access`: runs a command with a credential that is revoked when the command ends."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from justenough_job.api import NO_REASON, AccessRequest
from justenough_job.credential import Credential
from justenough_job.errors import Denied, Invalid, JobError, Pending
from justenough_job.types import seconds_of

EXIT_FAILED, EXIT_USAGE, EXIT_DENIED, EXIT_WAITED = 1, 2, 6, 7
"""The same as those of `justenough`."""
EXIT_CANNOT_RUN, EXIT_NOT_FOUND = 126, 127
"""The same as a shell's."""
STDOUT = 1
"""Its file descriptor."""
FORWARDED_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH") if hasattr(signal, name)
)
HELP_EPILOG = """\
formats:
  env   PGHOST PGPORT PGDATABASE PGUSER PGPASSWORD for a PostgreSQL database, else JUSTENOUGH_CREDENTIAL_<FIELD>;
        with --env NAME=FIELD (as often as needed) exactly these
  dsn   DATABASE_URL=postgresql://user:password@host:port/dbname
  json  JUSTENOUGH_CREDENTIAL_FILE names a private file that is deleted when the command ends

Without a command the credential is printed in that format (env: lines for a shell's eval), and is valid until its ttl or the job's end.

exit codes: the command's own (128+n after signal n); 1 failure, 2 usage or an invalid request, 6 denied,
7 people have not answered in time, 126 the command cannot be run, 127 the command does not exist.

  justenough-access orders-db read --reason "Count orders" -- psql -c "SELECT count(*) FROM orders"
  justenough-access helpdesk-api write --env TOKEN=token -- sh -c 'curl -H "Authorization: Bearer $TOKEN" ...'
"""


class InterruptedBySignal(BaseException):
    """A signal arrived before the command was started."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    arguments, signals = _parse_arguments(sys.argv[1:] if argv is None else argv), SignalRelay()
    try:
        with ExitStack() as stack:
            for number in FORWARDED_SIGNALS:
                handler = signal.getsignal(number)
                # A signal that is ignored stays ignored (nohup).
                if handler is not signal.SIG_IGN:
                    stack.callback(signal.signal, number, handler)
                    signal.signal(number, signals.handle)
            return _run(arguments, stack, signals)
    except InterruptedBySignal as interrupted:
        return 128 + interrupted.number
    except (JobError, ValueError) as error:
        print(f"justenough-access: {error}", file=sys.stderr)
        kinds = ((Denied, EXIT_DENIED), (Pending, EXIT_WAITED), (Invalid, EXIT_USAGE), (ValueError, EXIT_USAGE))
        return next((code for kind, code in kinds if isinstance(error, kind)), EXIT_FAILED)


def _run(arguments: argparse.Namespace, stack: ExitStack, signals: SignalRelay) -> int:
    credential = _obtain(arguments, stack, signals)
    if not arguments.command:
        try:
            env = {} if arguments.format != "env" else credential.env(arguments.env)
            exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in env.items())
            text = credential.dsn() if arguments.format == "dsn" else credential.json() if arguments.format == "json" else exports
            # Python's own stream is written when Python ends, which is too late to notice an error.
            with open(STDOUT, "w", closefd=False) as stdout:
                print(text, file=stdout)
        except (Invalid, OSError, UnicodeError) as error:
            # Nobody gets it, so nobody could release it.
            credential.release_or_warn()
            if isinstance(error, Invalid):
                raise
            why = error.strerror if isinstance(error, OSError) else "the locale's encoding lacks one of its characters"
            raise JobError(f"{credential.id} cannot be printed: {why}") from error
        until = credential.expires_at.isoformat(timespec="seconds")
        print(f"justenough-access: {credential.id} is valid until {until} or the job's end", file=sys.stderr)
        return 0
    if arguments.format == "json":
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="justenough-")), "credential.json")
        path.touch(mode=0o600)
        path.write_text(credential.json() + "\n", encoding="utf-8")
        variables = {"JUSTENOUGH_CREDENTIAL_FILE": str(path)}
    else:
        variables = {"DATABASE_URL": credential.dsn()} if arguments.format == "dsn" else credential.env(arguments.env)
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
    """Obtain a credential; if it is for a command, release it when the exit stack ends."""

    def give_back(credential: Credential) -> None:
        with signals.defer(forget=True):
            try:
                credential.release()
            except JobError as error:
                until = credential.expires_at.isoformat(timespec="seconds")
                print(f"justenough-access: {credential.id} not released ({error}); valid until {until} or the job's end", file=sys.stderr)

    def send() -> Credential | str:
        # A signal between the broker's answer and its reading here would leave a credential that nobody gives back.
        with signals.defer():
            answer = request.send()
            if isinstance(answer, Credential) and arguments.command:
                stack.callback(give_back, answer)
        return answer

    request = AccessRequest.build(arguments.resource, arguments.action, reason=arguments.reason, ttl=arguments.ttl)
    return request.obtain(send, wait=arguments.wait)


class SignalRelay:
    """Forwards signals to the command. Before the command runs, a signal ends this program, unless signals are deferred."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None
        self._deferring = False
        self._deferred: list[int] = []

    def handle(self, number: int, _: FrameType | None) -> None:
        if self._deferring:
            self._deferred.append(number)
        elif self.child is not None:
            self.child.send_signal(number)
        elif number != getattr(signal, "SIGWINCH", None):
            raise InterruptedBySignal(number)

    @contextmanager
    def defer(self, *, forget: bool = False) -> Iterator[None]:
        """Defer signals until the block ends; then handle them, or drop them if `forget`."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
            deferred, self._deferred = self._deferred, []
        for number in () if forget else deferred:
            self.handle(number, None)


def _parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed arguments; `command` is what follows `--`. Exits with EXIT_USAGE if they are invalid."""
    own, command = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    parser = argparse.ArgumentParser(
        "justenough-access",
        usage="%(prog)s RESOURCE ACTION [options] [-- COMMAND ...]",
        description="Run a command with a credential that is revoked when the command ends.",
        epilog=HELP_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("resource", metavar="RESOURCE")
    parser.add_argument("action", metavar="ACTION", help="read, write or admin")
    parser.add_argument("--reason", default=NO_REASON, help="the reason that approvers and the ledger read")
    parser.add_argument("--ttl", help="how long it is valid: 5m (default: the order's, else 5m)")
    parser.add_argument("--wait", help="how long to wait for people: 10m, 0 (default: until they have answered)")
    parser.add_argument("--format", choices=("env", "json", "dsn"), default="env")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=FIELD", help="set a variable to a field's value (with --format env)"
    )
    arguments = parser.parse_args(own)
    try:
        arguments.wait = None if arguments.wait is None else seconds_of(arguments.wait)
    except ValueError as error:
        parser.error(f"argument --wait: {error}")
    pairs, arguments.env, arguments.command = arguments.env, {}, list(command)
    for pair in pairs:
        name, _, field = pair.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or not field:
            parser.error(f"argument --env: {pair!r}: write NAME=FIELD")
        arguments.env[name] = field
    if "--" in argv and not command:
        parser.error("a command is missing after --")
    if arguments.env and arguments.format != "env":
        parser.error("--env works only with --format env")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
