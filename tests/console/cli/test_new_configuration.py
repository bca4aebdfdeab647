"""A new configuration folder, and resources that are added to it, from the command line and without any server."""

from __future__ import annotations

import json
import shlex
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from psycopg.conninfo import conninfo_to_dict

from justenough.adapters.configuration.scaffold import END_USERS_SQL_FILE
from justenough.adapters.configuration.scaffold.new_resource import KINDS
from justenough.domain.catalog.loader import read_catalog
from justenough.domain.core.untrusted_yaml import read_yaml
from justenough.domain.jobs.states import Action
from tests.console.cli.conftest import ROOT, Cli, run_on_terminal

SHOP = ROOT / "examples" / "shop"
NO_DEFAULTS = "# Mine.\nresources: {}\n"


@pytest.fixture
def folder(alone: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new folder, in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    assert alone.run("init", "mine", "--launchers", "launchers").exit_code == 0
    return tmp_path / "mine"


def add(cli: Cli, folder: Path, kind: str, name: str, *more: str, url: str | None = None) -> Any:
    return cli.run("catalog", "add", kind, name, "--url", url or KINDS[kind].example, "--config", folder, *more)


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def refusal(cli: Cli, folder: Path, kind: str, name: str, *more: str, url: str | None = None, code: int = 2) -> str:
    """Return what `catalog add` says on stderr; it must end with this exit code and change no file."""
    before = contents(folder)
    done = add(cli, folder, kind, name, *more, url=url)
    assert (done.exit_code, contents(folder)) == (code, before)
    return str(done.stderr)


def test_a_new_folder_is_valid_and_is_named_in_the_settings_file(alone: Cli, folder: Path) -> None:
    assert (folder.parent / "justenough.toml").read_text() == 'config = "mine"\n'
    assert alone.json("catalog", "check", folder)["resources"] == 0
    assert alone.json("policy", "check", folder)["findings"] == []
    assert read_yaml("", (folder / "approvals.yaml").read_text())["roles"]["launch"] == ["launchers"]
    assert alone.json("policy", "explain", folder / "jobs" / "hello.yaml", "--config", folder)["requests"] == []


def test_on_a_terminal_each_name_that_no_option_gives_is_asked_for(alone: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "asked"
    answers = {"Environment of your resources [prod]": "", "Group that owns resources and approves writes [owners]": "shop-leads"}
    with run_on_terminal(alone, "init", folder, "--launchers", "crew", "--security", "sec") as (process, terminal):
        for question, answer in answers.items():
            terminal.read_until(f"{question}:".encode())
            terminal.write(f"{answer}\n".encode())
        assert process.wait(60) == 0
    roles = (folder / "approvals.yaml").read_text()
    assert all(name in roles for name in ("crew", "shop-leads", "sec"))
    assert "owners" not in read_yaml("", roles)["roles"]
    assert (tmp_path / "justenough.toml").read_text() == f'config = "{folder}"\n'


def test_the_commands_to_run_next_name_a_folder_with_spaces_as_a_shell_reads_it(alone: Cli, folder: Path) -> None:
    said = alone.json("init", "our config")
    ours = folder.parent / "our config"
    added = json.loads(add(alone, ours, "postgres", "billing", "-o", "json").stdout)

    assert shlex.split(said["next"][0]) == ["export", "JUSTENOUGH_CONFIG=our config"]
    assert shlex.split(said["next"][1])[-2:] == ["--config", "our config"]
    assert shlex.split(added["next"][1])[-1] == str(ours / "sql" / "billing.sql")
    assert "justenough job run 'our config'/jobs/hello.yaml" in (ours / "jobs" / "hello.yaml").read_text()


def test_an_existing_settings_file_stays_unchanged(alone: Cli, folder: Path) -> None:
    said = alone.json("init", "other")

    assert (folder.parent / "justenough.toml").read_text() == 'config = "mine"\n'
    assert said["settings"] is None
    assert said["next"][0] == "export JUSTENOUGH_CONFIG=other"


@pytest.mark.parametrize("name", ["null", "true", "2024", "-1", "-"])
def test_names_that_yaml_would_not_read_as_text_make_a_valid_folder(
    alone: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    options = (f"--{option}={name}" for option in ("environment", "launchers", "owners", "security"))

    assert alone.run("init", 'mine "2"', *options).exit_code == 0
    folder = tmp_path / tomllib.loads((tmp_path / "justenough.toml").read_text())["config"]
    assert add(alone, folder, "kv", "billing", f"--environment={name}", f"--owner={name}").exit_code == 0
    assert alone.json("catalog", "check", folder)["resources"] == 1


def test_init_does_not_write_into_a_folder_that_is_not_empty(alone: Cli, folder: Path) -> None:
    before = contents(folder)

    refused = alone.run("init", "mine")

    assert (refused.exit_code, contents(folder)) == (2, before)
    assert "mine already exists and is not empty" in refused.stderr


def test_a_folder_that_could_not_be_written_whole_is_not_left_behind(alone: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = [("catalog.yaml", "resources: {}\n"), ("x" * 300, "longer than a file's name may be")]
    with monkeypatch.context() as patch:
        patch.setattr("justenough.adapters.configuration.scaffold.new_folder.render_folder", lambda _: iter(files))
        assert alone.run("init", "mine").exit_code == 1

    assert alone.run("init", "mine").exit_code == 0


def test_a_folder_that_could_not_be_written_whole_keeps_what_init_did_not_make(
    alone: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (mine := tmp_path / "mine").mkdir(mode=0o750)

    def files(_: object) -> Iterator[tuple[str, str]]:
        yield "policies/a.cedar", ""
        (mine / "mounted.txt").write_text("came meanwhile")
        yield "x" * 300, "longer than a file's name may be"

    monkeypatch.setattr("justenough.adapters.configuration.scaffold.new_folder.render_folder", files)
    assert alone.run("init", "mine").exit_code == 1
    assert [path.name for path in mine.iterdir()] == ["mounted.txt"]
    assert alone.run("init", "new/er").exit_code == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("option", ["environment", "launchers", "owners", "security"])
def test_init_refuses_names_that_approvals_yaml_does_not_allow(
    alone: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(tmp_path)

    refused = alone.run("init", "mine", f"--{option}", "Support Leads")

    assert (refused.exit_code, (tmp_path / "mine").exists()) == (2, False)
    assert f"--{option}: 'Support Leads' must be lower-case letters, digits and -, at most 63" in refused.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_an_added_resource_of_each_kind_is_valid_and_tested(alone: Cli, folder: Path, kind: str) -> None:
    added = add(alone, folder, kind, f"my-{kind}", "--title", 'The "main" one: ours')

    assert added.exit_code == 0, added.stderr
    checked = alone.json("catalog", "check", folder)
    assert (checked["resources"], checked["warnings"]) == (1, [])
    assert alone.json("policy", "test", folder)["failed"] == 0
    catalog = read_yaml("", (folder / "catalog.yaml").read_text())
    assert catalog["resources"][f"my-{kind}"]["title"] == 'The "main" one: ours'


def test_all_kinds_can_be_added_to_the_shop_and_change_nothing_else_in_it(alone: Cli, folder: Path) -> None:
    text = (SHOP / "catalog.yaml").read_text()
    # Some editors end no file with a line break.
    (folder / "catalog.yaml").write_text(text.rstrip("\n"))
    for kind in KINDS:
        assert add(alone, folder, kind, f"my-{kind}").exit_code == 0

    lines = iter((folder / "catalog.yaml").read_text().splitlines())
    assert all(line in lines for line in text.splitlines()), "every line of the shop is still there, in its order"
    assert alone.json("catalog", "check", folder)["resources"] == 10 + len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_added_resource_does_not_inherit_defaults_that_do_not_apply_to_it(alone: Cli, folder: Path, kind: str) -> None:
    catalog = folder / "catalog.yaml"
    target = "{postgres: host=other, observe: database/creds/o, end: database/creds/e}"
    more = f"defaults:\n  target: {target}\n  revocable: never\n  data_scope: [tenant]\n"
    catalog.write_text(catalog.read_text().replace("defaults:\n", more))

    assert add(alone, folder, kind, "mine").exit_code == 0

    mine = read_catalog(catalog.read_text()).resources["mine"]
    assert all(action.data_scope == () for action in mine.actions.values())
    assert all((action.target is not None) == (kind == "postgres") for action in mine.actions.values())
    revocable = {"kv": "never", "http": "never", "ssh": "on_expiry", "kubernetes": "on_expiry"}
    assert {action.revocable for action in mine.actions.values()} == {revocable.get(kind, "now")}


@pytest.mark.parametrize("kind", ["kv", "http"])
def test_the_next_steps_write_a_value_into_kv_after_its_mount_exists(alone: Cli, folder: Path, kind: str) -> None:
    added = add(alone, folder, kind, "billing-api")

    steps = added.stdout[added.stdout.index("Next:") :].splitlines()
    assert [step.split("  #")[0].strip() for step in steps[1:]] == [
        "justenough vault plan",
        "justenough vault apply",
        "bao kv put kv/billing-api token=…",
        "justenough vault try billing-api read",
    ]


@pytest.mark.parametrize("host, is_private", [("10.2.0.9", True), ("api.example", False)])
def test_a_tool_may_call_an_api_whose_private_address_the_url_names(alone: Cli, folder: Path, host: str, is_private: bool) -> None:
    assert add(alone, folder, "http", "dispatch", url=f"https://{host}/v1").exit_code == 0

    http = read_catalog((folder / "catalog.yaml").read_text()).tools["dispatch-get"].http
    assert http is not None
    assert http.allow_private is is_private


def test_the_sql_for_a_database_is_short_and_names_the_schema(alone: Cli, folder: Path) -> None:
    added = add(alone, folder, "postgres", "billing", "--schema", "finance")

    sql = (folder / "sql" / "billing.sql").read_text()
    # Besides what ends users, which is the same in every target.
    assert END_USERS_SQL_FILE.read_text().strip() in sql
    assert len(sql.splitlines()) - len(END_USERS_SQL_FILE.read_text().splitlines()) <= 50
    assert 'GRANT SELECT ON ALL TABLES IN SCHEMA "finance" TO billing_read;' in sql
    assert "export BILLING_VAULT_PASSWORD=" in added.stdout


def test_the_role_of_a_mysql_user_ends_its_sessions_and_names_one_database_exactly(alone: Cli, folder: Path) -> None:
    added = add(alone, folder, "mysql", "billing", url="mysql://db.example/shop_1")

    sql = (folder / "sql" / "billing.sql").read_text()
    assert r"ON `shop\_1`.* TO billing_vault@'%' WITH GRANT OPTION" in sql
    assert "CREATE PROCEDURE justenough.je_end_sessions(" in sql
    assert "mysql --host=db.example --port=3306 --user=OWNER" in added.stdout
    for action in read_catalog((folder / "catalog.yaml").read_text()).resources["billing"].actions.values():
        assert action.role is not None
        assert action.role["revocation_statements"] == [
            "DROP USER IF EXISTS '{{name}}'@'%'",
            "CALL justenough.je_end_sessions('{{name}}')",
        ]
        assert r"ON `shop\_1`.* TO" in action.role["creation_statements"][1]


def test_jobs_verify_the_tls_certificate_of_a_database_as_vault_and_the_worker_do(alone: Cli, folder: Path) -> None:
    query = "sslmode=verify-full&sslrootcert=/etc/ssl/certs/ours.pem"
    assert add(alone, folder, "postgres", "billing", url=f"postgresql://db.example/billing?{query}").exit_code == 0

    billing = read_catalog((folder / "catalog.yaml").read_text()).resources["billing"]
    assert billing.connect == {
        "host": "db.example",
        "port": "5432",
        "dbname": "billing",
        "sslmode": "verify-full",
        "sslrootcert": "/etc/ssl/certs/ours.pem",
    }
    target = billing.actions[Action.READ].target
    assert target is not None
    assert conninfo_to_dict(target.postgres) == billing.connect


def test_a_url_with_encoded_parameters_and_an_ipv6_address_means_the_same_to_jobs_worker_and_vault(alone: Cli, folder: Path) -> None:
    url = "postgresql://[2001:db8::7]/billing?sslmode=verify-full&sslrootcert=%2Fetc%2Fours.pem"
    assert add(alone, folder, "postgres", "billing", url=url).exit_code == 0

    catalog = read_catalog((folder / "catalog.yaml").read_text())
    billing = catalog.resources["billing"]
    assert (billing.connect["host"], billing.connect["sslrootcert"]) == ("2001:db8::7", "/etc/ours.pem")
    target = billing.actions[Action.READ].target
    assert target is not None
    assert conninfo_to_dict(target.postgres) == billing.connect
    (vaults,) = (write.data["connection_url"] for write in catalog.provision if write.path == "database/config/billing")
    assert conninfo_to_dict(vaults.replace("{{username}}:{{password}}@", "")) == billing.connect


@pytest.mark.parametrize(
    "kind, url, connect",
    [
        ("postgres", "postgresql://[::1]/123", {"host": "::1", "port": "5432", "dbname": "123"}),
        ("mysql", "mysql://[::1]/true", {"host": "::1", "port": "3306", "dbname": "true"}),
        ("ssh", "ssh://null@10", {"host": "10", "port": "22", "user": "null"}),
    ],
)
def test_names_that_yaml_would_read_as_something_else_stay_texts(
    alone: Cli, folder: Path, kind: str, url: str, connect: dict[str, str]
) -> None:
    added = add(alone, folder, kind, "mine", url=url)
    assert added.exit_code == 0, added.stderr
    assert read_catalog((folder / "catalog.yaml").read_text()).resources["mine"].connect == connect


def test_generated_policy_tests_state_what_policy_decides_now(alone: Cli, folder: Path) -> None:
    add(alone, folder, "postgres", "people", "--sensitivity", "restricted")

    cases = read_yaml("", (folder / "policies" / "tests" / "people.yaml").read_text())["cases"]
    assert cases == [{"ask": "people:read", "expect": "tier 2"}, {"ask": "people:write", "expect": "tier 2"}]


def test_actions_that_no_policy_permits_are_named(alone: Cli, folder: Path) -> None:
    rules = folder / "policies" / "access.cedar"
    rules.write_text(rules.read_text().replace('Action::"write"', 'Action::"admin"'))

    added = add(alone, folder, "postgres", "billing")

    assert "Policy denies billing:write to everybody" in added.stdout


@pytest.mark.parametrize(
    "kind, url, why",
    [
        ("postgres", "postgresql://db.example/billing?options=%27%22", "is not a URL of this kind"),
        ("postgres", "db.example/billing", "is not a URL of this kind; write one like postgresql://db.example:5432/billing"),
        ("postgres", "mysql://db.example/billing", "is not a URL of this kind"),
        ("postgres", "postgresql://je:secret@db.example/billing", "must not contain a password"),
        ("postgres", "postgresql://db.example/billing?password=secret", "must not contain a password"),
        ("postgres", "postgresql://db.example/billing?host=other", "must not name a host, port, database or user after the `?`"),
        ("postgres", "postgresql://db.example/my%20db", "must name a host, database and user without % and /"),
        ("mysql", "mysql://db.example/a/b", "must name a host, database and user without % and /"),
        ("ssh", "ssh://us%20er@web.example", "must name a host, database and user without % and /"),
        ("postgres", "postgresql://db.example", "must end in the name of the database"),
        ("postgres", 'postgresql://db.example/b"; DROP', "is not a URL of this kind"),
        ("redis", "redis://cache.example:port", "is not a URL of this kind"),
        ("ssh", "ssh://web.example", "must name the user, as in ssh://deploy@web.example"),
        ("http", "http://api.example", "is not a URL of this kind"),
    ],
)
def test_a_wrong_url_is_refused_and_nothing_is_written(alone: Cli, folder: Path, kind: str, url: str, why: str) -> None:
    message = refusal(alone, folder, kind, "billing", url=url)

    assert why in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "words, why",
    [
        (("../x",), "NAME: '../x' must be lower-case letters"),
        (("1st",), "NAME: '1st' must be"),
        (("billing", "--schema", "public; DROP"), "--schema: 'public; DROP' must be the name of a schema"),
        (("billing", "--namespace", "a b"), "--namespace: 'a b' must be the name of a namespace"),
    ],
)
def test_names_with_unsafe_characters_are_refused(alone: Cli, folder: Path, words: tuple[str, ...], why: str) -> None:
    assert why in refusal(alone, folder, "postgres", *words)


def test_a_catalog_that_cannot_be_written_leaves_nothing_behind(alone: Cli, folder: Path) -> None:
    (folder / "sql").write_text("a file, not a folder")
    assert "cannot write" in refusal(alone, folder, "postgres", "billing", code=1)


def test_a_catalog_for_which_there_is_no_space_stays_as_it_was(alone: Cli, folder: Path) -> None:
    catalog = folder / "catalog.yaml"
    catalog.write_text(f"{catalog.read_text()}\n# {'x' * 100_000}\n")
    catalog.chmod(0o640)
    before = contents(folder)
    words = ("catalog", "add", "kv", "billing", "--url", KINDS["kv"].example, "--config", folder)
    command = (sys.executable, "-B", "-m", "console.cli", *map(str, words))

    # A limit for files is like a full disk: the write fails after a part. It would cut off bytecode, too, hence -B above.
    limited = ("sh", "-c", 'ulimit -f 64; exec "$@"', "sh", *command)
    done = subprocess.run(limited, cwd=ROOT, env=alone.env(), capture_output=True, text=True, check=False)
    assert (done.returncode, contents(folder)) == (1, before)
    assert done.stderr == f"error: cannot write {folder}: File too large\n"

    subprocess.run(command, cwd=ROOT, env=alone.env(), check=True, capture_output=True)
    assert "billing" in catalog.read_text()
    assert (stat.S_IMODE(catalog.stat().st_mode), [*folder.glob(".*.part")]) == (0o640, [])


def test_an_export_of_vaults_setup_for_which_there_is_no_space_leaves_no_part_of_it(alone: Cli, tmp_path: Path) -> None:
    command = (sys.executable, "-B", "-m", "console.cli", "vault", "export", str(tmp_path / "new"))
    settings = alone.env(JUSTENOUGH_CONFIG=str(SHOP))
    limited = ("sh", "-c", 'ulimit -f 2; exec "$@"', "sh", *command)
    done = subprocess.run(limited, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    assert (done.returncode, contents(tmp_path / "new")) == (1, {})
    assert done.stderr == f"error: {tmp_path / 'new'} cannot be written: File too large\n"

    subprocess.run(command, cwd=ROOT, env=settings, check=True, capture_output=True)
    assert (tmp_path / "new" / "je-admin.hcl").exists()


def test_a_name_that_is_already_used_is_refused_and_nothing_is_written(alone: Cli, folder: Path) -> None:
    add(alone, folder, "postgres", "billing")
    assert "resources.billing: already exists; choose another name, or remove it first" in refusal(alone, folder, "kv", "billing")


def test_an_existing_file_is_not_overwritten(alone: Cli, folder: Path) -> None:
    (folder / "sql").mkdir()
    (folder / "sql" / "billing.sql").write_text("mine")
    assert "sql/billing.sql already exists" in refusal(alone, folder, "postgres", "billing")


def test_options_without_a_default_in_the_catalog_must_be_given(alone: Cli, folder: Path) -> None:
    (folder / "catalog.yaml").write_text(NO_DEFAULTS)

    refused = add(alone, folder, "kv", "mail", "--owner", "mailers")
    accepted = add(alone, folder, "kv", "mail", "--owner", "mailers", "--environment", "prod", "--sensitivity", "internal")

    assert (refused.exit_code, accepted.exit_code) == (2, 0)
    assert "mail needs --environment, --sensitivity: catalog.yaml has no such `defaults`" in refused.stderr
    assert (folder / "catalog.yaml").read_text().startswith("# Mine.\nresources:\n  mail:\n")


def test_a_catalog_on_one_line_is_refused_and_left_unchanged(alone: Cli, folder: Path) -> None:
    (folder / "catalog.yaml").write_text("{defaults: {environment: prod, sensitivity: internal, owner: o}, resources: {}}\n")
    assert "catalog.yaml" in refusal(alone, folder, "kv", "mail")


@pytest.mark.parametrize("name", ["catalog", "approvals", "triggers", "job"])
def test_the_schemas_for_editors_accept_the_shop_and_refuse_a_wrong_key(folder: Path, name: str) -> None:
    schema = jsonschema.Draft7Validator(json.loads((folder / ".schemas" / f"{name}.json").read_text()))
    files = sorted((SHOP / "jobs").glob("*.yaml")) if name == "job" else [SHOP / f"{name}.yaml"]
    for file in files:
        value = read_yaml(file.name, file.read_text())
        assert [error.message for error in schema.iter_errors(value)] == [], file.name
        assert not schema.is_valid({**value, "ownr": "x"})
