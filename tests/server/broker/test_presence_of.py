"""Whether a client is here, asked by other rooms."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from overair.basics.clock import SettableClock
from overair.basics.ids import AccountId, ClientId, SeededIds
from overair.server.broker.model import ClientPresence
from overair.server.storage.work import SqlWork
from tests.support.gateway_world import World, certificate_of


@pytest.fixture
async def world(work: SqlWork, clock: SettableClock, ids: SeededIds) -> AsyncIterator[World]:
    world = World(work, clock, ids)
    await world.start()
    yield world
    await world.stop()


async def test_a_client_is_known_as_here_gone_since_or_never_seen(world: World, clock: SettableClock) -> None:
    device = await world.client("dev", certificate=b"c2")
    [account] = {link for link, _ in world.broker._sessions}
    certificates = [certificate_of(b"c2")]

    def presence(client: str, of: list[str]) -> ClientPresence:
        return world.broker.presence_of(account, ClientId(client), of)  # type: ignore[arg-type]

    assert presence("dev", []) == ClientPresence(connected=True)
    assert presence("other-name", certificates) == ClientPresence(connected=True)
    assert presence("other-name", []) == ClientPresence(connected=False)
    assert world.broker.presence_of(AccountId("999999999999"), ClientId("dev"), []) == ClientPresence(connected=False)
    device.abort()
    await world.gone("dev")
    left = clock.now()
    clock.advance(milliseconds=5000)
    assert presence("dev", certificates) == ClientPresence(connected=False, gone_since=left)
