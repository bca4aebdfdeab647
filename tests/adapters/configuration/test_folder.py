"""The configuration folder is read as one set, and again when a file changes. A broken edit changes nothing and raises an alarm."""

from __future__ import annotations

import codecs
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from justenough.adapters.configuration.bundle_packer import SKIPPED_NAMES
from justenough.adapters.configuration.configured_jobs import list_job_files
from justenough.adapters.configuration.folder import (
    MIN_CHECK_INTERVAL_S,
    ConfigFolder,
    NoConfiguration,
    check_config_folder,
    load_config_folder,
)
from justenough.domain.catalog.mcp_tool_list import build_tool_list
from justenough.domain.jobs.states import Action
from tests.support.domain_samples import SHOP, access_context, job, resource

ENV = {"SHOP_HOST": "127.0.0.1", "SHOP_PORT": "5432", "MODEL_URL": "http://127.0.0.1:65535/v1"}


class Clock:
    """Time that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float = MIN_CHECK_INTERVAL_S) -> None:
        self.now += seconds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy = tmp_path / "shop"
    copy.mkdir()
    for name in ("catalog.yaml", "approvals.yaml"):
        shutil.copy(SHOP / name, copy / name)
    shutil.copytree(SHOP / "policies", copy / "policies")
    return copy


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def config(folder: Path, clock: Clock) -> ConfigFolder:
    return ConfigFolder(folder, ENV, clock=clock)


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


def outcome(config: ConfigFolder) -> str:
    return config.current().policies.decide(job(), "orders-db", resource(), Action.READ, context=access_context()).outcome


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_valid_configuration_folder_is_read_completely_without_an_alarm(config: ConfigFolder) -> None:
    assert config.alarm is None
    assert config.current().tiers.top == 3
    assert config.current().catalog.resources["orders-db"].connect["host"] == "127.0.0.1"
    assert config.current().policies.external == {"export-api"}
    assert outcome(config) == "allowed"


def test_a_changed_file_is_in_force_at_the_next_check_and_not_before(config: ConfigFolder, folder: Path, clock: Clock) -> None:
    before = config.current()
    edit(folder / "policies" / "reads.cedar", "resource.sensitivity <= 2", "resource.sensitivity <= 0")
    assert config.current() is before
    clock.advance()
    assert outcome(config) == "denied"
    assert config.current().digest != before.digest
    assert config.current().policies.digest != before.policies.digest


def test_a_change_is_in_force_after_a_refresh_however_recent_the_last_check_is(config: ConfigFolder, folder: Path) -> None:
    before = config.current()
    config.refresh()
    assert config.current() is before
    edit(folder / "policies" / "reads.cedar", "resource.sensitivity <= 2", "resource.sensitivity <= 0")
    assert config.current() is before
    config.refresh()
    assert config.current().digest != before.digest
    assert outcome(config) == "denied"


def test_a_folder_that_did_not_change_is_not_read_again(config: ConfigFolder, clock: Clock) -> None:
    before = config.current()
    clock.advance(3600)
    assert config.current() is before


def test_a_new_and_a_removed_policy_file_are_seen(config: ConfigFolder, folder: Path, clock: Clock) -> None:
    (folder / "policies" / "stop.cedar").write_text('@id("stop") forbid(principal, action, resource);')
    clock.advance()
    assert outcome(config) == "denied"
    (folder / "policies" / "stop.cedar").unlink()
    clock.advance()
    assert outcome(config) == "allowed"


@pytest.mark.parametrize(
    "name, content, place",
    [
        ("policies/reads.cedar", b"permit(principal, action resource);", "policies/reads.cedar:1:26: unexpected token `resource`"),
        ("policies/reads.cedar", b"\xff\xfe", "policies/reads.cedar: not UTF-8"),
        ("policies/schema.cedarschema", b"entity Job {", "policies/schema.cedarschema:1:12: unexpected end of input"),
        ("approvals.yaml", b"tiers: {1: {name: owner}}", "approvals.yaml:tiers.1.approvers: required"),
        ("approvals.yaml", b"tiers: [", "approvals.yaml: line 1"),
        ("catalog.yaml", b"resources: []", "catalog.yaml:resources"),
        ("catalog.yaml", b"", "catalog.yaml: must be a mapping"),
    ],
)
def test_a_broken_edit_keeps_the_last_good_set_and_raises_an_alarm(
    config: ConfigFolder, folder: Path, clock: Clock, name: str, content: bytes, place: str
) -> None:
    before, good = config.current(), (folder / name).read_bytes()
    (folder / name).write_bytes(content)
    clock.advance()
    assert config.current() is before
    alarm = config.alarm or ""
    assert "the last good configuration stays in force" in alarm
    assert place in alarm

    (folder / name).write_bytes(good)
    clock.advance()
    assert config.alarm is None
    assert config.current().digest == before.digest


def test_a_removed_file_is_a_broken_edit(config: ConfigFolder, folder: Path, clock: Clock) -> None:
    (folder / "policies" / "schema.cedarschema").unlink()
    clock.advance()
    assert outcome(config) == "allowed"
    assert "policies/schema.cedarschema: cannot be read: No such file" in (config.alarm or "")


def test_a_removed_folder_keeps_the_last_good_set(config: ConfigFolder, folder: Path, clock: Clock) -> None:
    shutil.rmtree(folder)
    clock.advance()
    assert outcome(config) == "allowed"
    assert config.alarm


@pytest.mark.parametrize("broken", ["catalog.yaml", "approvals.yaml", "policies/reads.cedar", "policies/schema.cedarschema"])
def test_a_start_with_any_broken_file_denies_everything_until_it_is_fixed(folder: Path, clock: Clock, broken: str) -> None:
    good = (folder / broken).read_bytes()
    (folder / broken).write_bytes(b"{")
    config = ConfigFolder(folder, ENV, clock=clock)
    decision = config.current().policies.decide(job(), "orders-db", resource(), Action.READ, context=access_context())
    assert (decision.outcome, decision.policies) == ("denied", ("no-policies",))
    assert "everything is denied" in (config.alarm or "")
    with pytest.raises(NoConfiguration, match="everything is denied"):
        config.require()

    (folder / broken).write_bytes(good)
    clock.advance()
    assert outcome(config) == "allowed"
    assert config.require() is config.current()
    assert config.alarm is None


def test_without_a_required_configuration_no_decision_is_made(folder: Path, clock: Clock) -> None:
    schema = folder / "policies" / "schema.cedarschema"
    good = schema.read_bytes()
    schema.write_bytes(b"{")
    config = ConfigFolder(folder, ENV, required=True, clock=clock)
    assert config.digest_in_force is None
    with pytest.raises(NoConfiguration, match=r"no jobs are taken until it is fixed: policies/schema\.cedarschema"):
        config.current()
    assert "no jobs are taken" in (config.alarm or "")

    schema.write_bytes(good)
    clock.advance()
    assert outcome(config) == "allowed"
    digest = config.digest_in_force
    schema.write_bytes(b"{")
    clock.advance()
    assert outcome(config) == "allowed"
    assert "the last good configuration stays in force" in (config.alarm or "")
    assert config.digest_in_force == digest


def test_a_start_without_a_folder_denies_everything(tmp_path: Path) -> None:
    config = ConfigFolder(tmp_path / "nowhere", ENV)
    assert outcome(config) == "denied"
    assert config.current().catalog.resources == {}
    assert config.current().tiers.top == 0
    assert config.alarm


def test_a_missing_setting_is_named(folder: Path) -> None:
    config = ConfigFolder(folder, {"SHOP_HOST": "x"})
    assert "SHOP_PORT is missing" in (config.alarm or "")
    assert outcome(config) == "denied"


def test_without_settings_the_catalog_keeps_its_placeholders(folder: Path) -> None:
    assert ConfigFolder(folder).current().catalog.resources["orders-db"].connect["host"] == "${SHOP_HOST}"


def test_an_alarm_is_logged_once_per_change(folder: Path, clock: Clock) -> None:
    with capture_logs() as logs:
        config = ConfigFolder(folder, ENV, clock=clock)
        for content in (b"{", b"["):
            (folder / "approvals.yaml").write_bytes(content)
            for _ in range(3):
                clock.advance()
                assert config.alarm
    assert [entry["event"] for entry in logs] == ["configuration broken"] * 2


def test_check_lists_every_problem_of_every_file_at_once(folder: Path) -> None:
    assert check_config_folder(folder, ENV) == ()
    (folder / "approvals.yaml").write_text("tiers: {2: {name: x, approvers: [], respond_within: 1y}}")
    (folder / "policies" / "reads.cedar").write_text("permit(principal);\npermit(")
    edit(folder / "catalog.yaml", "sensitivity: restricted", "sensitivity: restrictd")
    files = {problem.path.partition(":")[0] for problem in check_config_folder(folder, ENV)}
    assert files == {"catalog.yaml", "approvals.yaml", "policies/reads.cedar"}
    assert len(check_config_folder(folder, ENV)) >= 5


def test_byte_order_marks_change_nothing(folder: Path) -> None:
    before = load_config_folder(folder)
    for name in ("catalog.yaml", "approvals.yaml", "policies/reads.cedar", "policies/schema.cedarschema"):
        (folder / name).write_bytes(codecs.BOM_UTF8 + (folder / name).read_bytes())
    after = load_config_folder(folder)
    assert (after.catalog, after.tiers, after.policies.digest) == (before.catalog, before.tiers, before.policies.digest)


def test_a_huge_file_is_refused_without_being_read_whole(folder: Path) -> None:
    with (folder / "policies" / "huge.cedar").open("wb") as file:
        file.truncate(1 << 34)
    assert [str(problem) for problem in check_config_folder(folder, ENV)] == ["policies/huge.cedar: more than 4,194,304 bytes"]


def test_threads_that_read_the_configuration_while_files_change_never_see_a_partial_set(folder: Path) -> None:
    clock = Clock()
    config = ConfigFolder(folder, ENV, clock=clock)
    allowing = (folder / "policies" / "reads.cedar").read_text()
    seen: set[tuple[str, str]] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            current = config.current()
            seen.add((current.digest, current.policies.digest))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    digests = {(config.current().digest, config.current().policies.digest)}
    for number in range(10):
        (folder / "policies" / "reads.cedar").write_text(f"{allowing}// {number}\n")
        clock.advance()
        current = config.current()
        digests.add((current.digest, current.policies.digest))
    stop.set()
    for thread in threads:
        thread.join()
    assert len(digests) == 11
    assert seen <= digests


# Triggers.

TRIGGER = "triggers:\n  one:\n    on: {type: t}\n    signing_secret: kv/data/one\n    job: jobs/hello.yaml\n    params: {}\n"


@pytest.fixture
def armed_folder(folder: Path) -> Path:
    shutil.copytree(SHOP / "jobs", folder / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "triggers.yaml").write_text(TRIGGER.replace("hello", "refund-triage").replace("{}", '{ticket: "{data.id}"}'))
    return folder


@pytest.mark.parametrize("name", ["catalog.yaml", "triggers.yaml", "jobs/refund-triage.yaml"])
@pytest.mark.parametrize("is_endless", [False, True])
def test_a_pipe_or_a_device_in_place_of_a_file_changes_nothing(armed_folder: Path, clock: Clock, name: str, *, is_endless: bool) -> None:
    config = ConfigFolder(armed_folder, ENV, clock=clock)
    before = config.current()
    (armed_folder / name).unlink()
    if is_endless:
        (armed_folder / name).symlink_to("/dev/zero")
    else:
        os.mkfifo(armed_folder / name)
    clock.advance()

    assert config.current() is before
    assert config.alarm
    assert "not a regular file" in config.alarm


@pytest.mark.parametrize("name", ["policies", "tools", "triggers.yaml"])
def test_a_part_of_the_folder_that_cannot_be_looked_at_changes_nothing(armed_folder: Path, clock: Clock, name: str) -> None:
    (armed_folder / "tools").mkdir(exist_ok=True)
    config = ConfigFolder(armed_folder, ENV, clock=clock)
    before = config.current()
    assert before.triggers
    (armed_folder / name).rename(armed_folder.parent / "moved")
    # The system refuses such a name to everybody, also to root: as it refuses others a folder that they may not enter.
    (armed_folder / name).symlink_to("x" * 300)
    clock.advance()

    assert config.current() is before
    assert config.alarm
    assert f"{name}: cannot be read: File name too long" in config.alarm


def test_triggers_are_optional_and_come_with_their_jobs(armed_folder: Path) -> None:
    found = ConfigFolder(armed_folder, ENV).current()
    assert found.triggers["one"].spec["name"] == "refund-triage"
    assert found.triggers["one"].bundle_digest
    (armed_folder / "triggers.yaml").unlink()
    assert (ConfigFolder(armed_folder, ENV).current().triggers, check_config_folder(armed_folder, ENV)) == ({}, ())


def test_what_no_bundle_contains_is_not_looked_at(armed_folder: Path, clock: Clock) -> None:
    config = ConfigFolder(armed_folder, ENV, clock=clock)
    before, programs = config.current(), armed_folder / "jobs" / "programs"
    for skipped in SKIPPED_NAMES:
        (programs / skipped / "inner").mkdir(parents=True)
        (programs / skipped / "inner" / "file").write_text("x")
    assert not [name for name in list_job_files(armed_folder) if SKIPPED_NAMES & {*Path(name).parts}]
    (programs / "new").mkdir()
    (programs / "new" / "file.py").write_text("x")
    clock.advance()
    assert config.current().triggers["one"].bundle_digest != before.triggers["one"].bundle_digest


def test_a_folder_that_is_replaced_while_it_is_read_is_read_again(armed_folder: Path) -> None:
    link, other = armed_folder.parent / "config", armed_folder.parent / "other"
    shutil.copytree(armed_folder, other)
    edit(other / "triggers.yaml", "type: t", "type: u")
    edit(other / "jobs" / "refund-triage.yaml", 'version: "1.4"', 'version: "1.5"')
    link.symlink_to(armed_folder)

    class ReplacingEnvironment(dict[str, str]):
        """Leads the link to the other folder, as Kubernetes does with a ConfigMap, once the catalog has been read, and before the jobs are."""

        def __getitem__(self, name: str) -> str:
            (link.parent / "new").unlink(missing_ok=True)
            (link.parent / "new").symlink_to(other)
            (link.parent / "new").rename(link)
            return super().__getitem__(name)

    config = ConfigFolder(link, ReplacingEnvironment(ENV))
    assert config.current().digest == ConfigFolder(other, ENV).current().digest
    assert config.current().triggers["one"].trigger.on.type == "u"


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("triggers.yaml", "type: t", "type: u"),
        ("jobs/refund-triage.yaml", 'version: "1.4"', 'version: "1.5"'),
        ("jobs/programs/triage.py", "import", "import os\nimport"),
    ],
)
def test_a_triggers_job_is_read_again_when_it_changes(armed_folder: Path, clock: Clock, file: str, old: str, new: str) -> None:
    config = ConfigFolder(armed_folder, ENV, clock=clock)
    before, text = config.current(), (armed_folder / file).read_text()
    assert old in text
    (armed_folder / file).write_text(text.replace(old, new, 1))
    clock.advance()
    after = config.current()
    assert after.digest != before.digest
    assert after.triggers["one"] != before.triggers["one"]


@pytest.mark.parametrize(
    "old, new, place, message",
    [
        ("refund-triage.yaml", "none.yaml", "triggers.yaml:triggers.one.job", "cannot be read"),
        ("ticket:", "tickets:", "triggers.yaml:triggers.one.params.tickets", "declares no such parameter"),
        ("on:", "in:", "triggers.yaml:triggers.one.on", "required"),
        ("type: t", "type: [", "triggers.yaml", "line"),
    ],
)
def test_a_broken_trigger_is_reported_by_its_place_and_changes_nothing(
    armed_folder: Path, clock: Clock, old: str, new: str, place: str, message: str
) -> None:
    config = ConfigFolder(armed_folder, ENV, clock=clock)
    file = armed_folder / "triggers.yaml"
    file.write_text(file.read_text().replace(old, new))
    first = check_config_folder(armed_folder, ENV)[0]
    assert (first.path, message in first.message) == (place, True), first
    clock.advance()
    assert "one" in config.current().triggers
    assert config.alarm
    assert place in config.alarm


def test_a_job_that_the_catalog_refuses_is_a_problem_of_its_trigger(armed_folder: Path) -> None:
    file = armed_folder / "jobs" / "refund-triage.yaml"
    file.write_text(file.read_text().replace("refunds-db", "refund-db"))
    (found,) = check_config_folder(armed_folder, ENV)
    assert found.path == "triggers.yaml:triggers.one.job"
    assert "jobs/refund-triage.yaml: access[1].resource" in found.message


# Schedules.

SCHEDULE = """schedules:
  nightly:
    cron: "0 2 * * *"
    timezone: Europe/Berlin
    job: jobs/long-running.yaml
    params: {seconds: "5"}
"""


@pytest.fixture
def timed_folder(armed_folder: Path) -> Path:
    (armed_folder / "triggers.yaml").write_text(SCHEDULE)
    return armed_folder


def test_schedules_come_with_their_jobs_and_time_zones(timed_folder: Path) -> None:
    found = ConfigFolder(timed_folder, ENV).current().schedules["nightly"]
    assert (found.spec["name"], str(found.zone), bool(found.bundle_digest)) == ("long-running", "Europe/Berlin", True)
    assert found.could_have_made({"seconds": "5"})
    assert not any(found.could_have_made(params) for params in ({}, {"seconds": "6"}, {"seconds": "5", "witness": "x"}))


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("triggers.yaml", "0 2", "0 3"),
        ("jobs/long-running.yaml", "15m", "14m"),
        ("jobs/programs/patient.py", "import", "import os\nimport"),
    ],
)
def test_a_schedules_job_is_read_again_when_it_changes(timed_folder: Path, clock: Clock, file: str, old: str, new: str) -> None:
    config = ConfigFolder(timed_folder, ENV, clock=clock)
    before, text = config.current(), (timed_folder / file).read_text()
    assert old in text
    (timed_folder / file).write_text(text.replace(old, new, 1))
    clock.advance()
    after = config.current()
    assert after.digest != before.digest
    assert after.schedules["nightly"] != before.schedules["nightly"]


@pytest.mark.parametrize(
    "old, new, place, message",
    [
        ("long-running", "none", "triggers.yaml:schedules.nightly.job", "cannot be read"),
        ("Europe/Berlin", "Mars/Olympus", "triggers.yaml:schedules.nightly.timezone", "is not a known time zone"),
        ("Europe/Berlin", "Europe", "triggers.yaml:schedules.nightly.timezone", "is not a known time zone"),
        ('seconds: "5"', 'second: "5"', "triggers.yaml:schedules.nightly.params.second", "declares no such parameter"),
        ('seconds: "5"', 'seconds: "5; rm"', "triggers.yaml:schedules.nightly.params", "seconds"),
        ("0 2 * * *", "0 25 * * *", "triggers.yaml:schedules.nightly.cron", "hour: 25"),
    ],
)
def test_a_broken_schedule_is_reported_by_its_place(timed_folder: Path, old: str, new: str, place: str, message: str) -> None:
    file = timed_folder / "triggers.yaml"
    file.write_text(file.read_text().replace(old, new))
    (found,) = check_config_folder(timed_folder, ENV)
    assert (found.path, message in found.message) == (place, True), found


# Who is notified.

TOLD = {
    "webhooks": [{"name": "siem", "url": "https://siem.example.com/", "events": ["*"], "signing_secret": "kv/data/siem"}],
    "notify": [{"name": "leads", "on": ["approval.opened"], "to": ["kv/data/leads"], "tiers": [1]}],
}


def test_subscriptions_are_part_of_the_configuration_and_are_read_again_after_an_edit(armed_folder: Path, clock: Clock) -> None:
    config = ConfigFolder(armed_folder, ENV, clock=clock)
    assert config.current().subscriptions == {}
    (armed_folder / "triggers.yaml").write_text(json.dumps(TOLD))
    clock.advance()
    assert list(config.current().subscriptions) == ["siem", "leads"]
    (armed_folder / "triggers.yaml").write_text(json.dumps(TOLD).replace("https", "gopher"))
    clock.advance()
    assert list(config.current().subscriptions) == ["siem", "leads"], "a broken edit changes nothing"
    assert "triggers.yaml:webhooks[0].url" in (config.alarm or "")


def test_all_problems_of_notifications_are_reported_at_once(armed_folder: Path) -> None:
    tiers = armed_folder / "approvals.yaml"
    tiers.write_text(tiers.read_text().partition("  3:")[0])
    told = json.dumps(TOLD).replace("[1]", "[1, 3]")
    (armed_folder / "triggers.yaml").write_text(told)
    assert {(one.path, one.message) for one in check_config_folder(armed_folder, ENV) if "notify" in one.path} == {
        ("triggers.yaml:notify[0].tiers", "approvals.yaml has no tier 3")
    }


LISTED = build_tool_list(
    "tools", [{"name": name, "description": "Reads", "inputSchema": {"type": "object"}} for name in ("get_issue", "delete_issue")]
)


def add_upstream(folder: Path, digest: str | None, text: str | None) -> None:
    """Put an MCP server into the catalog, and what was reviewed of it beside it."""
    mcp = {"url": "https://hub.example/mcp", **({"tools": digest} if digest else {})}
    tool = {"uses": {"resource": "orders-db", "action": {"get_*": "read"}}, "mcp": mcp}
    edit(folder / "catalog.yaml", "\ntools:\n", f"\ntools:\n  hub: {json.dumps(tool)}\n")
    if text is not None:
        (folder / "tools").mkdir()
        (folder / "tools" / "hub.json").write_text(text)


def test_the_reviewed_tools_of_an_mcp_server_are_read_with_the_catalog_and_again_after_a_change(
    folder: Path, config: ConfigFolder, clock: Clock
) -> None:
    add_upstream(folder, LISTED.digest, None)
    clock.advance()
    assert "get_issue" not in config.current().catalog.callable
    assert "tools/hub.json next to the catalog" in config.current().catalog.upstreams.withheld["hub"]
    was = config.current().digest
    (folder / "tools").mkdir()
    (folder / "tools" / "hub.json").write_text(LISTED.text)
    clock.advance()
    assert config.current().catalog.callable["get_issue"].uses.action is Action.READ
    assert "delete_issue" not in config.current().catalog.callable
    assert config.current().digest != was
    (folder / "tools" / "hub.json").write_text(LISTED.text.replace("Reads", "Reads. Tell me all"))
    clock.advance()
    assert "get_issue" not in config.current().catalog.callable
    withheld = config.current().catalog.upstreams.withheld
    assert "the tools of hub in tools/hub.json do not match the digest in the catalog" in withheld["hub"]
    assert config.alarm is None


def test_a_reviewed_list_that_cannot_be_read_keeps_the_last_good_set(folder: Path, config: ConfigFolder, clock: Clock) -> None:
    add_upstream(folder, LISTED.digest, LISTED.text)
    clock.advance()
    assert "get_issue" in config.current().catalog.callable
    (folder / "tools" / "hub.json").write_text(LISTED.text[:-20])
    clock.advance()
    assert "get_issue" in config.current().catalog.callable
    assert config.alarm is not None
    assert "tools/hub.json: is not valid JSON" in config.alarm
    assert [problem.path for problem in check_config_folder(folder)] == ["tools/hub.json"]


def test_two_tools_of_one_name_are_a_problem_of_the_catalog(folder: Path) -> None:
    shown = build_tool_list("tools", [{"name": "get_issue", "inputSchema": {"type": "object"}}])
    add_upstream(folder, shown.digest, shown.text)
    edit(folder / "catalog.yaml", "\n  hub:", "\n  gate:")
    (folder / "tools" / "hub.json").rename(folder / "tools" / "gate.json")
    upstream_again = {"uses": {"resource": "orders-db", "action": "read"}, "mcp": {"url": "https://b.example/", "tools": shown.digest}}
    edit(folder / "catalog.yaml", "\ntools:\n", f"\ntools:\n  hub: {json.dumps(upstream_again)}\n")
    (folder / "tools" / "hub.json").write_text(shown.text)
    (problem,) = check_config_folder(folder)
    assert problem.path == "catalog.yaml:tools.gate.mcp"
    assert "get_issue: hub has a tool of this name too" in problem.message
