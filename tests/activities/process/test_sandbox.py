"""A job cannot read the worker, its files or another job, cannot write outside its own folders, and has only its own user's rights."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from activities.delivery.delivery import Delivered
from activities.process.bundles import ensure_unpacked
from activities.process.interpreters import find_interpreter
from activities.process.job_command import JobLaunch, JobPaths, environment_script
from activities.process.sandbox import Sandbox
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.secret import Secret
from justenough.domain.jobs import bundle
from tests.activities.process.job_process import SECRETS, Runner, command_lines, holders_of, is_job_uid, is_root, own_environment, until

READ_EACH = """
import json, pathlib, sys
found = {}
for path in sys.argv[1:]:
    try:
        found[path] = pathlib.Path(path).read_bytes().decode('latin-1')
    except OSError as error:
        found[path] = None
print(json.dumps(found))
"""
WRITE_EACH = """
import json, os, sys
done = []
for path in sys.argv[1:]:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, 'a').close()
        done.append(path)
    except OSError:
        pass
print(json.dumps(done))
"""
LOOK = """
import json, os, resource
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
print(json.dumps({
    'caps': [int(status[name], 16) for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')],
    'no_new_privs': int(status['NoNewPrivs']),
    'uid': [os.getuid(), os.geteuid()],
    'groups': os.getgroups(),
    'core': resource.getrlimit(resource.RLIMIT_CORE),
    'files': resource.getrlimit(resource.RLIMIT_NOFILE),
    'handles': sorted(int(name) for name in os.listdir('/proc/self/fd')),
    'stdin': os.readlink('/proc/self/fd/0'),
    'pids': sorted(int(name) for name in os.listdir('/proc') if name.isdigit()),
    'cwd': os.getcwd(),
    'env': dict(os.environ),
    'hostname': os.uname().nodename,
    'root': sorted(os.listdir('/')),
}))
"""


def read_here(paths: list[str]) -> dict[str, str]:
    return {Path(path).name: Path(path).read_text() for path in paths}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def own_namespace(kind: str) -> str:
    return str(Path("/proc/self/ns", kind).readlink())


def message_queues() -> str:
    """Return the kernel's list of System V message queues: a heading, then a line for each."""
    return Path("/proc/sysvipc/msg").read_text()


@pytest.fixture
def workdir(home: Path) -> Path:
    content = bundle.pack({"job.py": (b"print('from the bundle')\n", False), "run.sh": (b"#!/bin/sh\necho ran $1\n", True)})
    return ensure_unpacked(home, bundle.bundle_digest(content), content)


async def test_the_worker_and_its_files_cannot_be_read(run: Runner, home: Path) -> None:
    files = [str(home / name) for name in SECRETS]
    worker = [f"/proc/{os.getpid()}/{name}" for name in ("environ", "mem", "maps", "cmdline")] + [f"/proc/{os.getppid()}/environ"]
    ran = await run.python(READ_EACH, *files, *worker, "/etc/shadow", "/proc/1/environ", "/etc/passwd")
    found = ran.json_output
    assert "job" in found.pop("/etc/passwd")
    # In a user namespace the first process is the job's own user's, and holds nothing.
    first = found.pop("/proc/1/environ")
    assert first is None or set(first.split("\0")) <= {"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "PWD=/", ""}
    assert found == dict.fromkeys(found)
    # The worker itself reads them all.
    assert read_here(files) == {name: f"the content of {name}" for name in SECRETS}


async def test_the_workers_home_inside_a_folder_that_jobs_see_looks_empty(run: Runner, home: Path) -> None:
    own = run.settings.model_copy(update={"home": Path("/usr/share"), "worker_approle": home / "w", "console_approle": home / "c"})
    hiding = Runner(run.settings, Sandbox.probe(own))
    code = "import os; print(len(os.listdir('/usr/share')))"
    assert (await hiding.python(code)).log == "0\n"
    assert (await run.python(code)).log != "0\n"


@pytest.mark.parametrize("seen_at", ["python", "link to it"])
async def test_logins_of_worker_and_console_inside_a_folder_that_jobs_see_can_be_neither_read_nor_replaced(
    seen_at: str, run: Runner, settings: Settings, tmp_path: Path
) -> None:
    """The folder of the job's Python contains them. The job's path to it may have a symbolic link, as the worker's path to a login may."""
    tree, seen = tmp_path / "python", tmp_path / seen_at
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "python").symlink_to("/usr/bin/python3")
    (tree / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (tmp_path / "link to it").symlink_to(tree)
    names = ["worker/login", "secret/of the worker", "console/login", "console/secrets/of the console", "other/login"]
    for name, secret in zip(names, [names[1], names[1], names[3], names[3], names[4]], strict=True):
        (tree / name).parent.mkdir()
        (tree / name).write_text(json.dumps({"role_id": "r", "secret_id_file": str(tree / secret)}))
    own = {"worker_approle": tree / names[0], "console_approle": tmp_path / "link to it" / names[2], "home": tree / "not made yet"}
    hiding = Runner(settings, Sandbox.probe(settings.model_copy(update=own)))
    python, files = str(seen / "bin" / "python"), [str(seen / name) for name in names]
    found = (await hiding.python(READ_EACH, *files, python=python)).json_output
    assert [name for name, text in found.items() if text is not None] == files[-1:]
    assert (await hiding.python(WRITE_EACH, *files, *(f"{Path(file).parent}/x" for file in files), python=python)).json_output == []
    # The control: a sandbox that hides other folders shows all of them.
    assert None not in (await run.python(READ_EACH, *files, python=python)).json_output.values()


async def test_a_job_shares_no_namespace_with_the_worker_but_that_of_the_network_if_it_may(run: Runner) -> None:
    script = "cd /proc/self/ns; readlink cgroup ipc mnt pid uts net"
    for network in ("host", "none"):
        ran = await run("sh", "-c", script, network=network)
        shared = [link.partition(":")[0] for link in ran.log.split() if link == own_namespace(link.partition(":")[0])]
        assert (len(ran.log.split()), shared) == (6, ["net"] if network == "host" else [])


async def test_message_queues_of_the_host_are_not_the_jobs_and_none_of_the_jobs_outlives_it(run: Runner) -> None:
    made = subprocess.run(["ipcmk", "-Q", "-p", "0666"], capture_output=True, text=True, check=True).stdout.split()[-1]  # noqa: ASYNC221 - it takes a moment
    try:
        before = message_queues()
        assert f" {made} " in before
        ran = await run("sh", "-c", "cat /proc/sysvipc/msg; ipcmk -Q; wc -l </proc/sysvipc/msg")
        heading, created, count = ran.log.splitlines()
        assert heading == before.splitlines()[0]
        assert (created.startswith("Message queue id:"), count.strip()) == (True, "2")
        assert message_queues() == before
    finally:
        subprocess.run(["ipcrm", "-q", made], check=True)  # noqa: ASYNC221 - it takes a moment


async def test_a_job_sees_no_process_outside_its_sandbox(run: Runner) -> None:
    look = (await run.python(LOOK)).json_output
    assert os.getpid() not in look["pids"]
    assert len(look["pids"]) <= 3


async def test_a_job_has_no_capabilities_and_dumps_no_core(run: Runner) -> None:
    look = (await run.python(LOOK)).json_output
    assert look["caps"] == [0, 0, 0, 0, 0]
    assert look["no_new_privs"] == 1
    assert look["core"] == [0, 0]
    assert look["files"][1] <= 4096
    assert look["groups"] in ([], look["uid"][:1], [os.getegid()])
    assert look["uid"] == [look["uid"][0]] * 2
    assert is_job_uid(run.settings, look["uid"][0])


async def test_a_job_inherits_no_file_handle_and_no_environment(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "the worker's own")
    look = (await run.python(LOOK, env={"MODE": "dry 'run' $HOME `id`\nand more"})).json_output
    # The last one is the listing's own.
    assert look["handles"] == [0, 1, 2, 3]
    assert look["stdin"] == "/dev/null"
    assert look["env"].keys() == {
        *("PATH", "HOME", "LANG", "TMPDIR", "USER", "LOGNAME", "PWD", "PYTHONUNBUFFERED"),
        *("MODE", "JUSTENOUGH_JOB_ID", "JUSTENOUGH_FILES"),
    }
    assert look["env"]["MODE"] == "dry 'run' $HOME `id`\nand more"
    assert look["env"]["JUSTENOUGH_JOB_ID"] == "j-dev-test"
    assert look["hostname"] == "job"
    assert "root" not in look["root"]


async def test_a_job_can_write_only_its_own_folders(run: Runner, workdir: Path) -> None:
    refused = ["/usr/bin/x", "/etc/x", "/job/x", "/job/job.py", "/x", "/bin/x", "/lib/x", "/proc/sys/kernel/core_pattern"]
    name = f"x-{workdir.parent.name}"
    allowed = [f"/tmp/{name}", "/home/job/x", "/var/tmp/y", "/dev/shm/x"]
    ran = await run.python(WRITE_EACH, *refused, *allowed, workdir=workdir)
    assert ran.json_output == allowed
    assert names_in(workdir) == ["job.py", "run.sh"]
    assert name not in names_in(Path("/tmp"))


async def test_the_bundle_is_the_working_directory(run: Runner, workdir: Path) -> None:
    assert (await run("python", "job.py", workdir=workdir)).log == "from the bundle\n"
    assert (await run("./run.sh", "well", workdir=workdir)).log == "ran well\n"
    assert (await run("sh", "-c", "pwd; ls -A")).log == "/job\n"


async def test_another_job_cannot_be_seen_read_or_signalled(run: Runner) -> None:
    given = Delivered({"PGPASSWORD": Secret("hers-alone-77")}, {"db.json": Secret("hers-alone-77")})
    uid = run.settings.job_uid_base + 4000 if is_root() else os.geteuid()
    hers = await run.start("sh", "-c", "echo hers > /tmp/mark; exec sleep 4711.25", uid=uid, given=given)
    try:
        await until(lambda: any(line.startswith(b"sleep\x004711.25") for line in command_lines()))
        ran = await run.python(READ_EACH, "/tmp/mark", "/run/justenough/db.json")
        assert ran.json_output == {"/tmp/mark": None, "/run/justenough/db.json": None}
        assert (await run("sh", "-c", "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")).log.find("hers-alone") == -1
        # To everyone that may be signalled: the kernel spares the caller alone.
        await run("sh", "-c", "kill -9 -1")
        assert any(line.startswith(b"sleep\x004711.25") for line in command_lines())
    finally:
        os.close(hers.output)
        await hers.kill()


async def test_secrets_reach_the_job_and_no_command_line_or_foreign_environment(run: Runner) -> None:
    given = Delivered({"PGPASSWORD": Secret("canary-env-4711")}, {"db.json": Secret('{"password": "canary-file-4711"}')})
    script = "cat $JUSTENOUGH_FILES/db.json; echo $PGPASSWORD; exec sleep 4711.5"
    uid = run.settings.job_uid_base + 4001 if is_root() else os.geteuid()
    process = await run.start("sh", "-c", script, uid=uid, given=given)
    try:
        with os.fdopen(process.output, "rb") as output:
            assert output.readline() == b'{"password": "canary-file-4711"}canary-env-4711\n'
            await until(lambda: any(line.startswith(b"sleep\x004711.5") for line in command_lines()))
            assert not any(word in line for line in command_lines() for word in (b"canary-env", b"canary-file"))
            # The planted control: the script itself is in one.
            assert any(b"JUSTENOUGH_FILES/db.json" in line for line in command_lines())
            assert holders_of(b"canary-env-4711") == [b"sleep\x004711.5\x00"]
            assert b"canary" not in own_environment()
    finally:
        await process.kill()


async def test_delivered_files_are_whole_private_and_the_job_s_own(run: Runner) -> None:
    odd = "Ü'\"$(id)`\\ and\ntwo lines, \x01 and a tail without an end"
    given = Delivered({}, {"a.json": Secret(odd), "b": Secret("")}, {"WHERE": ("a.json",)})
    code = """
import json, os
files = {name: os.stat(os.path.join(os.environ['JUSTENOUGH_FILES'], name)) for name in os.listdir(os.environ['JUSTENOUGH_FILES'])}
told = {name: [oct(seen.st_mode & 0o777), seen.st_uid == os.getuid()] for name, seen in files.items()}
print(json.dumps([told, open(os.environ['WHERE'], encoding='utf-8').read()]))
"""
    told, content = (await run.python(code, given=given)).json_output
    assert told == {"a.json": ["0o600", True], "b": ["0o600", True]}
    assert content == odd


async def test_a_job_does_not_start_if_a_delivered_file_cannot_be_written(run: Runner) -> None:
    given = Delivered({}, {"gone/a.json": Secret("x")})
    ran = await run("sh", "-c", "echo started", given=given)
    assert ran.code == 126
    assert "started" not in ran.log
    assert "gone/a.json" in ran.log


CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5); print('connected')"


async def test_with_network_host_a_job_reaches_the_host(run: Runner, listener: int) -> None:
    assert (await run.python(CONNECT, str(listener), network="host")).log == "connected\n"


async def test_with_network_none_a_job_reaches_no_server_and_has_only_loopback(run: Runner, listener: int) -> None:
    ran = await run.python(CONNECT, str(listener), network="none")
    assert ran.code == 1
    assert "ConnectionRefusedError" in ran.log
    assert (await run.python("print(open('/proc/net/route').read().count('\\n'))", network="none")).log == "1\n"
    assert (await run.python("import socket; print([name for _, name in socket.if_nameindex()])", network="none")).log == "['lo']\n"


Doors = list[tuple[socket.socket, str]]
"""Sockets of the host that listen, each with the arguments of REACH."""


@pytest.fixture
def doors(home: Path) -> Iterator[Doors]:
    """One of each kind, on each address that the host has: TCP and UDP, both kinds of abstract Unix sockets, and one with a path."""
    with ExitStack() as stack:
        yield [(stack.enter_context(server), arguments) for server, arguments in _doors(home)]


def _doors(home: Path) -> Iterator[tuple[socket.socket, str]]:
    for family, address in (
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET6, "::1"),
        *((socket.AF_INET, one) for one in outward_addresses()),
    ):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            server = socket.socket(family, kind)
            server.bind((address, 0))
            yield listen_on(server), f"{int(family)} {int(kind)} {address} {server.getsockname()[1]}"
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for path in (f"\0justenough-test-{os.getpid()}-{int(kind)}", str(home / f"socket-{int(kind)}")):
            server = socket.socket(socket.AF_UNIX, kind)
            server.bind(path)
            if not path.startswith("\0"):
                # Any user who finds the socket may use it.
                home.chmod(0o755)
                Path(path).chmod(0o777)
            yield listen_on(server), f"{int(socket.AF_UNIX)} {int(kind)} {path.replace(chr(0), '@')} 0"


def listen_on(server: socket.socket) -> socket.socket:
    server.setblocking(False)
    if server.type == socket.SOCK_STREAM:
        server.listen()
    return server


def outward_addresses() -> list[str]:
    """Return the address by which the host reaches other machines, if it does."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as looking:
        try:
            looking.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [looking.getsockname()[0]]


REACH = """
import socket, sys
for line in sys.argv[1:]:
    family, kind, address, port = line.split()
    there = address.replace('@', chr(0)) if int(family) == socket.AF_UNIX else (address, int(port))
    with socket.socket(int(family), int(kind)) as out:
        out.settimeout(5)
        try:
            out.connect(there)
            out.send(b'x')
        except OSError:
            pass
"""


def was_reached(server: socket.socket) -> bool:
    """Whether anything came in: what goes over the host's own interfaces has arrived by the time that its sender has ended."""
    try:
        if server.type == socket.SOCK_STREAM:
            server.accept()[0].close()
        else:
            server.recv(1)
    except BlockingIOError:
        return False
    return True


async def test_with_network_none_no_socket_of_the_host_is_reached_and_with_host_each_is(run: Runner, doors: Doors) -> None:
    arguments = [argument for _, argument in doors]
    assert (await run.python(REACH, *arguments, network="none")).code == 0
    assert [argument for server, argument in doors if was_reached(server)] == []
    assert (await run.python(REACH, *arguments, network="host")).code == 0
    # A path of the host's is none in the sandbox, whatever its network.
    assert [argument for server, argument in doors if not was_reached(server)] == [one for one in arguments if "/socket-" in one]


async def test_no_program_with_privileges_sees_the_variables_of_a_job(run: Runner) -> None:
    """glibc loads converters from GCONV_PATH; a program that still is root must not see it."""
    env = {"GCONV_PATH": "/job", "LOCPATH": "/job", "OUTPUT_CHARSET": "EVIL"}
    process = await run.start("sleep", "4711.75", uid=run.settings.job_uid_base + 4002 if is_root() else os.geteuid(), env=env)
    try:
        await until(lambda: any(line.startswith(b"sleep\x004711.75") for line in command_lines()))
        assert holders_of(b"GCONV_PATH=/job") == [b"sleep\x004711.75\x00"]
    finally:
        os.close(process.output)
        await process.kill()


async def test_common_library_calls_work_inside_the_sandbox(run: Runner) -> None:
    code = """
import getpass, multiprocessing, os, pwd, socket, ssl, tempfile
assert getpass.getuser() == pwd.getpwuid(os.getuid()).pw_name == 'job'
assert os.path.expanduser('~') == '/home/job'
multiprocessing.get_context('spawn').Lock()
tempfile.NamedTemporaryFile().close()
socket.getaddrinfo('localhost', 80)
ssl.create_default_context()
print('well')
"""
    assert (await run.python(code)).log == "well\n"


def test_no_repr_shows_what_is_delivered(settings: Settings) -> None:
    given = Delivered({"A": Secret("hunter22")}, {"b": Secret("hunter22")})
    launch = JobLaunch("j-dev-test", ("true",), 1, find_interpreter(settings, None), env={"B": "hunter22"}, files=given.files)
    assert "hunter22" not in repr(given) + repr(launch) + repr(environment_script(launch, JobPaths()))
