"""No two running jobs on one machine share a user id, whichever worker runs them.

The tests' ranges do not overlap the default one, from which other test processes lend ids at the same time.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from activities.process import process_tree
from activities.process.uid_pool import CLOSED_UIDS, MAX_UIDS, NoFreeUid, end_leftovers, lend_uid
from justenough.adapters.configuration.settings import Settings
from tests.activities.process.job_process import is_alive, is_root, until
from tests.support.child_process import run_child

REPOSITORY = Path(__file__).resolve().parents[3]
ELSEWHERE = """
import sys
from pathlib import Path
from activities.process.uid_pool import lend_uid
from justenough.adapters.configuration.settings import Settings
with lend_uid(Settings(home=Path(sys.argv[1]), job_uid_base=int(sys.argv[2]))) as uid:
    print(uid, flush=True)
    sys.stdin.read()
"""


def test_user_ids_lent_at_the_same_time_differ_and_are_lent_again_after_their_return(settings: Settings) -> None:
    mine = settings.model_copy(update={"job_uid_base": 740_000})
    with lend_uid(mine) as first, lend_uid(mine) as second:
        assert (first == second) is not is_root()
        assert (first == os.geteuid()) is not is_root()
    with lend_uid(mine) as third:
        assert third == first


def test_a_job_that_may_reach_vault_gets_a_user_id_that_the_firewall_does_not_block(settings: Settings) -> None:
    with lend_uid(settings) as closed, lend_uid(settings, reaches_vault=True) as open_to_vault:
        if not is_root():
            assert (closed, open_to_vault) == (os.geteuid(), os.geteuid())
            return
        # Other workers of this machine lend ids of the same range.
        first = settings.job_uid_base
        assert (closed in range(first, first + CLOSED_UIDS), open_to_vault in range(first + CLOSED_UIDS, first + MAX_UIDS)) == (True, True)


def test_the_error_says_how_to_get_more_ids_if_every_id_is_taken(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.process.uid_pool.CLOSED_UIDS", 1)
    mine = settings.model_copy(update={"job_uid_base": 750_000})
    with lend_uid(mine) as first:
        if not is_root():
            assert first == os.geteuid(), "only root lends ids"
            return
        with (
            pytest.raises(NoFreeUid, match="all 1 user ids from 750000 on are in use; set JUSTENOUGH_JOB_UID_BASE to a free range"),
            lend_uid(mine),
        ):
            pass


@pytest.mark.parametrize(
    "limit, reason",
    [
        (resource.RLIMIT_FSIZE, r"71\d{4}, the lock of a user id, cannot be written: File too large"),
        (resource.RLIMIT_NOFILE, r"71\d{4}, the lock of a user id, cannot be opened: Too many open files"),
    ],
)
def test_a_lock_that_cannot_be_made_is_named_with_the_reason(settings: Settings, limit: int, reason: str) -> None:
    if not is_root():
        return
    before = resource.getrlimit(limit)
    resource.setrlimit(limit, (0, before[1]))
    try:
        with pytest.raises(NoFreeUid, match=reason), lend_uid(settings):
            pass
    finally:
        resource.setrlimit(limit, before)
    with lend_uid(settings):
        """It can be lent now."""


def test_locks_are_not_kept_in_a_folder_of_another_user(settings: Settings, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_root():
        return
    own, other = home / "run" / "uids", home / "locks"
    for folder in (own, other):
        folder.mkdir(parents=True)
        os.chown(folder, 1, 1)
    monkeypatch.setattr("activities.process.uid_pool.LOCK_FOLDER", other)
    why = f"neither {other} nor {own} can be used for the locks of user ids: make root the owner of one of them"
    with pytest.raises(NoFreeUid, match=why), lend_uid(settings):
        pass
    os.chown(own, 0, 0)
    with lend_uid(settings):
        """It can be lent now."""


def test_a_user_id_that_another_worker_lent_is_not_lent_again(settings: Settings, home: Path) -> None:
    mine = settings.model_copy(update={"job_uid_base": 720_000})
    with lend_uid(mine) as first:
        pass
    with run_child(
        [sys.executable, "-c", ELSEWHERE, str(home), "720000"], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        theirs = int(other.stdout.readline())
        with lend_uid(mine) as ours:
            assert (ours == theirs) is not is_root()
        other.communicate("")
    assert theirs == first


def test_workers_in_containers_of_one_host_do_not_begin_with_the_same_user_id(settings: Settings, home: Path) -> None:
    """The kernel counts a user's processes in all containers together: a job would use up what another one may start."""
    if not is_root():
        return
    with lend_uid(settings.model_copy(update={"job_uid_base": 755_000})) as uid:
        lent = {uid}
    enter = ["unshare", "--pid", "--fork", "--mount", "--mount-proc", sys.executable, "-c", ELSEWHERE, str(home), "755000"]
    # By chance, two of them may begin with the same id.
    for _ in range(3):
        lent.add(int(subprocess.run(enter, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout))
    assert len(lent) > 2


async def test_a_user_id_with_running_processes_is_not_lent(settings: Settings) -> None:
    mine = settings.model_copy(update={"job_uid_base": 730_000})
    with lend_uid(mine) as first:
        pass
    drop = ["setpriv", "--reuid", str(first), "--regid", str(first), "--clear-groups"] if is_root() else []
    with run_child([*drop, "sleep", "100"]):
        await until(lambda: process_tree.anyone_runs_as(first))
        with lend_uid(mine) as uid:
            assert (uid == first) is not is_root()


LEFT = """
import os, subprocess, sys
from pathlib import Path
from activities.process.uid_pool import lend_uid
from justenough.adapters.configuration.settings import Settings
with lend_uid(Settings(home=Path(sys.argv[1]), job_uid_base=int(sys.argv[2]))) as uid:
    drop = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "env", "-i"]
    print(subprocess.Popen([*drop, "setsid", "sleep", "27185.25"]).pid, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("by", ["the next start of a worker", "the next job"])
async def test_processes_left_by_a_dead_workers_job_are_ended_and_its_user_id_is_free_again(
    settings: Settings, home: Path, by: str
) -> None:
    mine = settings.model_copy(update={"job_uid_base": 740_000})
    if not is_root():
        assert end_leftovers(mine) == (), "only root lends ids"
        return
    with lend_uid(mine) as first:
        pass
    subprocess.run([sys.executable, "-c", LEFT, str(home), "740000"], cwd=REPOSITORY, check=False, stdout=subprocess.DEVNULL)  # noqa: ASYNC221 - it takes a moment
    await until(lambda: is_alive("sleep\x0027185.25"))
    if by == "the next start of a worker":
        assert end_leftovers(mine) == (first,)
        assert not is_alive("sleep\x0027185.25")
    with lend_uid(mine) as uid:
        assert uid == first
        assert not is_alive("sleep\x0027185.25")
    assert end_leftovers(mine) == ()


async def test_processes_that_a_dead_workers_job_left_are_ended_although_the_program_that_kills_all_of_them_cannot_be_started(
    settings: Settings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_root():
        return
    mine = settings.model_copy(update={"job_uid_base": 735_000})
    subprocess.run([sys.executable, "-c", LEFT, str(home), "735000"], cwd=REPOSITORY, check=False, stdout=subprocess.DEVNULL)  # noqa: ASYNC221 - it takes a moment
    await until(lambda: is_alive("sleep\x0027185.25"))
    monkeypatch.setattr(process_tree, "drop_rights_command", lambda _: ("/no/such/program",))
    assert len(end_leftovers(mine)) == 1
    assert not is_alive("sleep\x0027185.25")
