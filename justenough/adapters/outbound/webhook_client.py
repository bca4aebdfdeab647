"""Posts signed events to one receiver. Reads no response body."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus

import httpx

from justenough.adapters.outbound.dns_guard import ForbiddenAddress, UnknownHost
from justenough.adapters.outbound.pinned_client import open_client
from justenough.domain.integrations.retry_policy import DeliveryFault, DeliveryOutcome, outcome_of_answer

REQUEST_TIMEOUT_S = 10.0
"""Seconds from the name lookup to the response's headers."""


class WebhookClient:
    """One receiver of events."""

    def __init__(self, url: str, *, private: bool) -> None:
        self._url = url
        self._client = open_client(private=private, timeout=REQUEST_TIMEOUT_S)

    async def post(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> DeliveryOutcome:
        """Send an event once and return the outcome. Receiver errors become an outcome; they are not raised."""
        try:
            async with (
                asyncio.timeout(REQUEST_TIMEOUT_S),
                self._client.stream("POST", self._url, content=body, headers=dict(headers)) as response,
            ):
                status, retry_after = response.status_code, response.headers.get("retry-after")
                # The receiver's own reason phrase is not passed on.
                phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
                return outcome_of_answer(status, phrase, retry_after=retry_after, now=now)
        except ForbiddenAddress as error:
            return DeliveryOutcome(DeliveryFault.REFUSED, str(error))
        except UnknownHost as error:
            return DeliveryOutcome(DeliveryFault.AWAY, str(error))
        except (TimeoutError, httpx.TimeoutException):
            return DeliveryOutcome(DeliveryFault.AWAY, f"no answer in {REQUEST_TIMEOUT_S:g} s")
        except httpx.ConnectError as error:
            # The type of the innermost error names an invalid certificate, and no text of the receiver's is passed on.
            cause: BaseException = error
            while (inner := cause.__cause__ or cause.__context__) is not None:
                cause = inner
            return DeliveryOutcome(DeliveryFault.AWAY, f"no connection ({type(cause).__name__})")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return DeliveryOutcome(DeliveryFault.AWAY, f"no answer ({type(error).__name__})")

    async def close(self) -> None:
        await self._client.aclose()
