"""What a console counts in the background, from a store that the test writes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from console.services.background_reads import WHOLE_CATALOG, BackgroundReads
from console.temporal.client import TemporalGateway
from justenough.adapters.store import Store
from justenough.domain.rightsizing.usage import AccessKey
from justenough.services.dependencies import Deps
from tests.adapters.store.event_samples import access_request, submission


@dataclass(frozen=True)
class World:
    """What counting needs: a store."""

    store: Store

    def now(self) -> datetime:
        return datetime.now(UTC)


async def test_every_action_that_was_used_is_counted_however_many_there_are(own_store: Path) -> None:
    with closing(Store(f"sqlite:///{own_store}")) as store:
        now, names = datetime.now(UTC), [f"db-{number:03}" for number in range(1, 251)]
        store.ledger.append(
            [submission(at=now), *(access_request(number=place, at=now, resource=name) for place, name in enumerate(names, start=1))]
        )
        reads = BackgroundReads(cast("Deps", World(store)), cast("TemporalGateway", None))
        uses = await reads.uses.result(WHOLE_CATALOG, by="lead")
        assert uses.keys() == {AccessKey(name, "write") for name in names}
        assert {use.asked for use in uses.values()} == {1}
