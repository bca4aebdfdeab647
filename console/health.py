"""Whether the systems that the console needs answer, and how fast. Looks only; repairs nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
from anyio import to_thread

from activities.store import Store
from console.gateway import Gateway
from justenough.errors import GiveUp, JustEnoughError
from justenough.model import Message

TIMEOUT = 3.0
"""Seconds for each look."""


class Check(Message):
    """What one look at one system found."""

    name: str
    ok: bool
    ms: float
    detail: str = ""


class VaultSilent(GiveUp):
    """Vault does not answer, or is sealed."""


class Health:
    """Looks at store, Temporal and Vault, at the same time and each bounded."""

    def __init__(self, *, store: Store, gateway: Gateway, vault_addr: str, client: httpx.AsyncClient) -> None:
        self._store = store
        self._gateway = gateway
        self._vault_addr = vault_addr
        self._client = client

    async def checks(self) -> tuple[Check, ...]:
        """Return one finding per system."""
        looks = {"store": self._look_at_store, "temporal": self._gateway.ping, "vault": self._look_at_vault}
        return tuple(await asyncio.gather(*(_timed(name, look) for name, look in looks.items())))

    async def _look_at_store(self) -> None:
        await to_thread.run_sync(self._store.ping, abandon_on_cancel=True)

    async def _look_at_vault(self) -> None:
        answer = await self._client.get(f"{self._vault_addr}/v1/sys/health", params={"standbyok": "true"}, timeout=TIMEOUT)
        if answer.status_code != 200:
            raise VaultSilent(f"answered {answer.status_code}: sealed, or not set up")


async def _timed(name: str, look: Callable[[], Awaitable[None]]) -> Check:
    began, detail = time.perf_counter(), ""
    try:
        async with asyncio.timeout(TIMEOUT):
            await look()
    except TimeoutError:
        detail = f"no answer in {TIMEOUT:g} s"
    except JustEnoughError as error:
        detail = str(error)
    except httpx.HTTPError as error:
        detail = f"does not answer ({type(error).__name__})"
    return Check(name=name, ok=not detail, ms=round((time.perf_counter() - began) * 1000, 1), detail=detail)
