"""Acknowledged means durable: the server is killed under load, at any moment, and nothing that it had said becomes untrue."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.field_device import enroll
from tests.support.ledger import Asked, Ledgers, Records, Stand
from tests.support.ledger_clients import LedgerDevice, LedgerOperator
from tests.support.server_process import ServerProcess

DEVICES_COUNT = 4
UPDATES_IN_A_LIFE_MAX = 150
KILLED_WHILE_STARTING = 0.2
START_LASTS_S = 0.4
SOON_S = 0.02
LIFE_TIMEOUT_S = 120.0
DESCRIBED_AT_THE_END_MAX = 40


@pytest.fixture
def killed_server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path / "data")
    yield server
    if server.process is not None:
        server.kill()


class Killer:
    """Lets a server live until its devices were told of some updates, and kills it at a random moment after that."""

    def __init__(self, server: ServerProcess, chance: random.Random) -> None:
        self._server = server
        self._chance = chance
        self._left = 0
        self._enough = asyncio.Event()
        self.acknowledged_count = 0

    def acknowledged(self) -> None:
        self.acknowledged_count += 1
        self._left -= 1
        if self._left <= 0:
            self._enough.set()

    async def while_starting(self) -> None:
        """It doesn't come to live."""
        await asyncio.to_thread(self._server.launch)
        await asyncio.sleep(self._chance.uniform(0, START_LASTS_S))
        await asyncio.to_thread(self._server.kill)

    async def under_load(self) -> None:
        self._left = self._chance.randint(1, UPDATES_IN_A_LIFE_MAX)
        self._enough.clear()
        async with asyncio.timeout(LIFE_TIMEOUT_S):
            await self._enough.wait()
        await asyncio.sleep(self._chance.uniform(0, SOON_S))
        await asyncio.to_thread(self._server.kill)


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_nothing_that_was_acknowledged_is_lost_when_the_server_is_killed_under_load(
    killed_server: ServerProcess, tmp_path: Path, kills: int
) -> None:
    async def bounded() -> None:
        try:
            await kill_again_and_again(killed_server, tmp_path, kills=kills, seed=5)
        finally:
            # The operator's thread goes on as long as there is a server.
            killed_server.kill()

    asyncio.run(bounded())


async def kill_again_and_again(server: ServerProcess, folder: Path, *, kills: int, seed: int) -> None:
    ledgers = Ledgers()
    chance = random.Random(seed)
    killer = Killer(server, chance)
    server.start()
    identities = [enroll(server, folder / "devices", f"dev-{number}") for number in range(DEVICES_COUNT)]
    ledgers.things = {who.thing: Asked(answered=True) for who in identities}
    ca_file = str(server.endpoints["ca_file"])
    devices = [
        LedgerDevice(who, ca_file, ledgers, random.Random(f"{seed} {who.thing}"), killer.acknowledged) for who in identities
    ]
    operator = LedgerOperator({who.thing: who.thing_arn for who in identities}, ledgers, random.Random(f"{seed} operator"))
    for kill in range(kills):
        if kill and chance.random() < KILLED_WHILE_STARTING:
            await killer.while_starting()
        else:
            if kill:
                await asyncio.to_thread(server.start)
            async with asyncio.TaskGroup() as life:
                life.create_task(asyncio.to_thread(operator.live, server))
                for device in devices:
                    life.create_task(device.live(server))
                life.create_task(killer.under_load())
        ledgers.compare(Records.of(server.data, folder / "copy"), targets=DEVICES_COUNT)
    assert killer.acknowledged_count >= kills / 2
    await asyncio.to_thread(server.start)
    await asyncio.to_thread(look_through_the_doors, server, ledgers, chance)


def look_through_the_doors(server: ServerProcess, ledgers: Ledgers, chance: random.Random) -> None:
    """An operator is told what the records hold; what was begun is ended."""
    iot = server.client("iot")
    for job in ledgers.jobs:
        described = iot.describe_job(jobId=job)["job"]
        assert sum(described["jobProcessDetails"].get(f"numberOf{name}Things", 0) for name in COUNTED) == DEVICES_COUNT, (
            described
        )
    executions = sorted(ledgers.executions)
    for thing, job in chance.sample(executions, min(len(executions), DESCRIBED_AT_THE_END_MAX)):
        said = iot.describe_job_execution(jobId=job, thingName=thing)["execution"]
        details = said.get("statusDetails", {}).get("detailsMap", {})
        ledgers.execution(thing, job).found(Stand(said["status"], said["versionNumber"], details), f"{job} on {thing}")


COUNTED = ("Queued", "InProgress", "Succeeded", "Failed", "Rejected", "Removed", "Canceled", "TimedOut")
