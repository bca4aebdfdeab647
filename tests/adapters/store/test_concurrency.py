"""Many concurrent writers: no forked chain, no lost entry, no refused writer."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TextIO

import pytest

from justenough.adapters.store import Store
from justenough.domain.readmodel.views import EntryView
from tests.adapters.store.conftest import administer, database
from tests.adapters.store.event_samples import JOB, NOW, job_id, job_refusal, later, submission
from tests.support.claims import claim_job

ROOT = Path(__file__).resolve().parents[3]
PROCESSES, EVENTS = 4, 100


def all_entries(store: Store) -> list[EntryView]:
    found: list[EntryView] = []
    after = 0
    while page := store.ledger.entries(after=after, limit=500).items:
        found += page
        after = page[-1].position
    return found


def race(count: int, run: Callable[[int], object]) -> list[object]:
    """Let threads do the same at the same moment; return what each got."""
    barrier = threading.Barrier(count)
    results: list[object] = [None] * count

    def one(index: int) -> None:
        barrier.wait()
        results[index] = run(index)

    threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture(scope="module")
def recorders() -> Iterator[Sequence[TextIO]]:
    """Connections to processes that record events into one store after the other."""
    with ExitStack() as opened:
        pairs = [socket.socketpair() for _ in range(PROCESSES)]
        theirs = [opened.enter_context(other).fileno() for _, other in pairs]
        command = [sys.executable, "-W", "error", "-m", "tests.adapters.store.recorder_process", str(EVENTS), *map(str, theirs)]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, pass_fds=theirs)
        opened.close()
        connections = [(opened.enter_context(own), opened.enter_context(own.makefile("rw")))[1] for own, _ in pairs]
        yield connections
        for own, _ in pairs:
            own.shutdown(socket.SHUT_RDWR)
        assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)


def tell(recorders: Sequence[TextIO], line: str, *, answer: str) -> None:
    """Write a line to all processes, then see that each answers."""
    for recorder in recorders:
        recorder.write(f"{line}\n")
        recorder.flush()
    for recorder in recorders:
        assert recorder.readline() == f"{answer}\n"


@pytest.mark.timeout(300)
def test_four_processes_write_one_ledger_without_a_fork_or_a_lost_entry(recorders: Sequence[TextIO], empty_url: str) -> None:
    """All processes migrate the store at the same moment, too."""
    tell(recorders, empty_url, answer="ready")
    tell(recorders, "go", answer="done")
    with closing(Store(empty_url)) as store:
        entries = all_entries(store)
        report = store.ledger.verify()
    assert report.problems == ()
    own = Counter(entry.data["why"] for entry in entries if entry.type == "job.refused")
    assert own == {f"p{index}": EVENTS for index in range(PROCESSES)}
    # Five jobs, each submitted, issued and started once, whoever was first.
    assert len(entries) == report.entries == PROCESSES * EVENTS + 5 * 3


def test_threads_that_record_the_same_event_record_it_once(store: Store) -> None:
    results = race(12, lambda _: len(store.ledger.append([submission()])))
    assert sorted(map(str, results)) == ["0"] * 11 + ["1"]


def test_a_reader_that_tails_the_ledger_misses_no_entry_while_others_write(store: Store) -> None:
    """A position never becomes visible before a lower one."""
    writers = 4
    done = threading.Event()
    seen: list[str] = []

    def tail() -> None:
        after = 0
        while not (finished := done.is_set()) or store.ledger.entries(after=after).items:
            for entry in store.ledger.entries(after=after).items:
                seen.append(entry.id)
                after = entry.position
            if finished and not store.ledger.entries(after=after).items:
                return

    reader = threading.Thread(target=tail)
    reader.start()
    race(writers, lambda index: [store.ledger.append([job_refusal("x", job=job_id(index), about=str(number))]) for number in range(25)])
    done.set()
    reader.join()
    assert len(seen) == len(set(seen)) == writers * 25


@pytest.mark.servers
@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_database_with_stricter_isolation_by_default_turns_no_writer_away(
    postgres_port: int, ready_database: str, isolation: str
) -> None:
    with database(postgres_port, like=ready_database) as url:
        administer(postgres_port, f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_isolation = '{isolation}'")
        with closing(Store(url)) as one, closing(Store(url)) as other:
            stores = (one, other)

            def write(index: int) -> None:
                for number in range(25):
                    stores[index % 2].ledger.append([job_refusal("x", job=job_id(index), about=str(number))])
                    stores[index % 2].claims.take_place(job_id(100 * index + number), launcher="e-ops", places=5)

            race(4, write)
            assert one.ledger.verify().entries == 4 * 25
            assert not one.claims.may_take_place(JOB, launcher="e-ops", places=5)
            assert one.claims.may_take_place(JOB, launcher="e-ops", places=6)


def test_exactly_one_of_many_concurrent_claims_of_a_job_succeeds(store: Store) -> None:
    results = race(16, lambda index: claim_job(store, JOB, run=f"run-{index}", owner=f"owner-{index}", now=NOW))
    assert Counter(results) == {True: 1, False: 15}
    claim = store.claims.get(JOB)
    assert claim is not None
    assert claim.owner == f"owner-{results.index(True)}"
    assert claim.run == f"run-{results.index(True)}"


def test_concurrent_jobs_take_exactly_as_many_places_as_there_are(store: Store) -> None:
    results = race(16, lambda index: store.claims.take_place(job_id(index), launcher="e-ops", places=5))
    assert Counter(results) == {True: 5, False: 11}


def test_closing_and_claiming_at_once_leaves_the_claim_closed(store: Store) -> None:
    for number in range(10):
        job = job_id(number)
        race(
            4,
            lambda index, job=job: (  # type: ignore[misc]
                claim_job(store, job, run="r", owner="o", now=NOW) if index % 2 else store.claims.close(job, later(1))
            ),
        )
        claim = store.claims.get(job)
        assert claim is not None
        assert not claim.open
        assert not store.claims.renew(job, "o", later(2))
