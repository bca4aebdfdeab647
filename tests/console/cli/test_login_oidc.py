"""`login --method oidc`: a browser, a listener on loopback, and OpenBao's own provider as the identity provider."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.console.cli.conftest import ROOT, Cli
from tests.console.pages.oidc_provider import MOUNT, Provider, write_vault
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers

LOGIN = ("--profile", "lead", "login", "--method", "oidc", "--mount", MOUNT, "--role", "pages")


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
async def provider(whole: Stack, port: int) -> AsyncIterator[Provider]:
    headers = {"X-Vault-Token": whole.admin_token_file.read_text().strip()}
    async with httpx.AsyncClient(base_url=f"{whole.vault}/v1/", headers=headers, timeout=60, trust_env=False) as admin:
        passwords = {name: user.password for name, user in whole.users.items()}
        elsewhere = {"role_type": "oidc", "user_claim": "username", "allowed_redirect_uris": ["https://je.example/callback"]}
        made = await Provider.provision(admin, [f"http://localhost:{port}/oidc/callback"], passwords)
        await write_vault(admin, f"auth/{MOUNT}/role/elsewhere", **elsewhere)
        yield made


@contextlib.asynccontextmanager
async def run_command(cli: Cli, *arguments: str, **env: str) -> AsyncIterator[Process]:
    """The command as a process of its own."""
    words = [sys.executable, "-m", "console.cli", *arguments]
    plain = {name: value for name, value in cli.env().items() if name not in {"BROWSER", "DISPLAY", "WAYLAND_DISPLAY"}}
    process = await asyncio.create_subprocess_exec(*words, cwd=ROOT, env={**plain, **env}, stdout=PIPE, stderr=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def login_address(process: Process) -> str:
    """The address that the command asks to open."""
    assert process.stderr
    while line := (await process.stderr.readline()).decode().strip():
        if line.startswith("http"):
            return line
    raise AssertionError


async def visit(address: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as browser:
        return await browser.get(address.replace("//localhost:", "//127.0.0.1:"))


async def test_a_login_by_provider_is_a_login_like_any_other(fresh: Cli, provider: Provider, port: int) -> None:
    async with run_command(fresh, *LOGIN, "--port", str(port), "--no-browser", "-o", "json", "--debug") as process:
        back, _ = await provider.redirect(await login_address(process), await provider.log_in("lead"))
        assert (await visit(back.replace("state=st_", "state=st_x"))).status_code == 404, "another state is not waited for"
        assert (await visit(f"http://127.0.0.1:{port}/")).status_code == 404
        seen = await visit(back)
        assert (seen.status_code, "close this window" in seen.text) == (200, True)
        out, errors = await process.communicate()
    assert process.returncode == 0, errors
    kept = json.loads(fresh.login_file("lead").read_text())
    assert json.loads(out)["name"] == "lead"
    assert kept["token"] not in (out + errors).decode()
    assert f"auth/{MOUNT}/oidc/callback 200" in errors.decode()
    (code,) = parse_qs(urlsplit(back).query)["code"]
    assert [secret for secret in (code, "client_nonce") if secret in errors.decode()] == []
    named = await asyncio.to_thread(fresh.json, "whoami", who="lead")
    assert (named["name"], named["groups"]) == ("lead", ["support-leads"])


async def test_the_next_login_is_at_the_same_provider(fresh: Cli, provider: Provider, whole: Stack, port: int) -> None:
    async with run_command(fresh, *LOGIN, "--port", str(port), "--no-browser") as process:
        back, _ = await provider.redirect(await login_address(process), await provider.log_in("lead"))
        await visit(back)
        assert await process.wait() == 0
    first = fresh.login_file("lead").read_text()

    async with run_command(fresh, "--profile", "lead", "login", "--port", str(port), "--no-browser") as process:
        back, _ = await provider.redirect(await login_address(process), await provider.log_in("lead"))
        await visit(back)
        assert await process.wait() == 0
    by_password = await asyncio.to_thread(
        fresh.run, "login", "--user", "lead", "--password-stdin", who="lead", stdin=whole.users["lead"].password
    )

    assert json.loads(first)["method"] == {"kind": "oidc", "mount": MOUNT, "role": "pages"}
    assert by_password.exit_code == 0, by_password.stderr


async def test_the_browser_is_opened_at_the_provider(fresh: Cli, provider: Provider, port: int, tmp_path: Path) -> None:
    opened, program = tmp_path / "opened", tmp_path / "browser"
    os.mkfifo(opened)
    program.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}\n')
    program.chmod(0o700)
    async with run_command(fresh, *LOGIN, "--port", str(port), BROWSER=str(program)) as process:
        address = await login_address(process)
        assert await asyncio.to_thread(opened.read_text) == address
        back, _ = await provider.redirect(address, await provider.log_in("lead"))
        await visit(back)
        _, errors = await process.communicate()
    assert (process.returncode, b"Logged in as lead" in errors) == (0, True)


async def test_a_login_that_the_provider_refuses_logs_nobody_in(fresh: Cli, provider: Provider, port: int) -> None:
    async with run_command(fresh, *LOGIN, "--port", str(port), "--no-browser") as process:
        address = await login_address(process)
        state = address.partition("state=")[2].partition("&")[0]
        await visit(f"http://127.0.0.1:{port}/oidc/callback?error=access_denied&state={state}")
        _, errors = await process.communicate()
    assert process.returncode == 4
    assert b"your identity provider did not log you in (access_denied)" in errors
    assert not fresh.login_file("lead").exists()


async def test_a_code_that_vault_does_not_accept_logs_nobody_in(fresh: Cli, provider: Provider, port: int) -> None:
    async with run_command(fresh, *LOGIN, "--port", str(port), "--no-browser") as process:
        state = (await login_address(process)).partition("state=")[2].partition("&")[0]
        await visit(f"http://127.0.0.1:{port}/oidc/callback?code=made-up&state={state}")
        _, errors = await process.communicate()
    assert process.returncode == 4
    assert b"did not accept your identity provider's answer" in errors


async def test_missing_setup_of_the_oidc_login_is_named(fresh: Cli, provider: Provider, port: int) -> None:
    del provider
    cases = {
        ("--mount", "nowhere", "--role", "x"): "has no OIDC login at nowhere/ with a role x",
        ("--mount", MOUNT, "--role", "nobody"): f"has no OIDC login at {MOUNT}/ with a role nobody",
        ("--mount", MOUNT, "--role", "elsewhere"): "Add it to the role's allowed_redirect_uris",
    }
    for arguments, said in cases.items():
        done = await asyncio.to_thread(fresh.run, "login", "--method", "oidc", "--no-browser", *arguments)
        assert done.exit_code == 1
        assert said in done.stderr
    with socket.create_server(("127.0.0.1", port)):
        done = await asyncio.to_thread(fresh.run, *LOGIN[2:], "--port", port, "--no-browser")
    assert done.exit_code == 1
    assert f"port {port} on this machine is in use" in done.stderr
    done = await asyncio.to_thread(fresh.run, "login", "--method", "oidc", "--user", "lead")
    assert done.exit_code == 2
    assert "your identity provider asks for your name" in done.stderr
