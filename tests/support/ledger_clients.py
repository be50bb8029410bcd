"""Devices and an operator that load a server until it is killed, and write down what it answered (see ``ledger.py``)."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from overair.wire.mqtt.client import ClientConnection
from overair.wire.mqtt.packets import Connack, Publish, Suback
from tests.support.field_device import Identity
from tests.support.ledger import Asked, ExecutionLedger, Ledgers, Stand, Update
from tests.support.mqtt_over_tls import device_context
from tests.support.server_process import ServerProcess

ENDS = ("SUCCEEDED", "FAILED", "REJECTED")
ALREADY_ENDED = ("InvalidRequestException", "InvalidStateTransitionException", "VersionConflictException")
"""How a cancellation is refused that came too late."""
OPEN_JOBS_MAX = 6
"""A device is told of ten at once."""


class Connection(asyncio.Protocol):
    """One MQTT connection of a device; questions are told apart by their client tokens."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.on_notice: Callable[[Mapping[str, Any]], None] = lambda _: None
        self._wire = ClientConnection()
        self._asked: dict[str, asyncio.Future[tuple[bool, dict[str, Any]]]] = {}
        self._answered: asyncio.Future[Connack | Suback] | None = None
        self._transport: asyncio.Transport
        self._count = 0

    @classmethod
    async def open(cls, server: ServerProcess, identity: Identity, context: ssl.SSLContext) -> Connection:
        """Connect and hear of the thing's queue. Raises OSError: the server is gone."""
        host, port = server.endpoints["mqtt_host"], server.endpoints["mqtt_port"]
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port, ssl=context, server_hostname=host)
        connack = await connection._answer(connection._wire.connect(identity.thing))
        assert isinstance(connack, Connack), connack
        assert connack.return_code == 0, connack
        await connection._answer(connection._wire.subscribe((f"$aws/things/{identity.thing}/jobs/notify", 0)))
        return connection

    async def ask(self, topic: str, **members: Any) -> tuple[bool, dict[str, Any]]:
        """(whether it was accepted, the answer). Raises ConnectionError: the server is gone, and may have taken it."""
        if self.lost.done():
            raise ConnectionError
        self._count += 1
        token = str(self._count)
        answer = self._asked[token] = asyncio.get_running_loop().create_future()
        asked = {name: value for name, value in members.items() if value is not None}
        self._transport.write(self._wire.publish(topic, json.dumps({**asked, "clientToken": token}).encode()))
        return await answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for packet in self._wire.receive(data):
            if isinstance(packet, Publish):
                said = json.loads(packet.payload)
                if packet.topic.endswith(("/accepted", "/rejected")):
                    self._asked.pop(said["clientToken"]).set_result((packet.topic.endswith("/accepted"), said))
                else:
                    self.on_notice(said)
            elif isinstance(packet, (Connack, Suback)) and self._answered is not None:
                self._answered.set_result(packet)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        for each in (*self._asked.values(), self._answered):
            if each is not None and not each.done():
                each.set_exception(ConnectionError("the server is gone"))

    async def _answer(self, data: bytes) -> Connack | Suback:
        if self.lost.done():
            raise ConnectionError
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return await self._answered


class LedgerDevice:
    """One device that works on all its executions at once, one question about each at a time."""

    def __init__(
        self, identity: Identity, ca_file: str, ledgers: Ledgers, chance: random.Random, acknowledged: Callable[[], None]
    ) -> None:
        """``acknowledged``: called for each update that was accepted."""
        self._identity = identity
        self._thing = identity.thing
        self._context = device_context(ca_file, identity.certificate_file, identity.key_file)
        self._ledgers = ledgers
        self._chance = chance
        self._acknowledged = acknowledged
        self._step = 0

    async def live(self, server: ServerProcess) -> None:
        """Connect, look whether everything is as it was, and work until the server is gone."""
        try:
            connection = await Connection.open(server, self._identity, self._context)
            listed = await self._look(connection)
        except OSError:
            return
        known: set[str] = set()
        async with asyncio.TaskGroup() as tasks:

            def learn(jobs: Sequence[str]) -> None:
                for job in jobs:
                    if job not in known:
                        known.add(job)
                        tasks.create_task(self._work_on(connection, job))

            connection.on_notice = lambda said: learn([each["jobId"] for each in _summaries(said["jobs"].values())])
            learn(listed)
            await connection.lost

    async def _look(self, connection: Connection) -> list[str]:
        """The thing's queue: whatever isn't known to have ended is in it, in the version that it had."""
        accepted, said = await connection.ask(f"$aws/things/{self._thing}/jobs/get")
        assert accepted, said
        versions = {each["jobId"]: each["versionNumber"] for each in _summaries((said["inProgressJobs"], said["queuedJobs"]))}
        for job, version in versions.items():
            allowed = list(self._ledger(job).may_stand(at_rest=False))
            assert version in [stand.version for stand in allowed], f"{job} on {self._thing} is at {version}, not {allowed}"
        for job in [job for thing, job in self._ledgers.executions if thing == self._thing and job not in versions]:
            allowed = list(self._ledger(job).may_stand(at_rest=False))
            assert not all(stand.is_pending for stand in allowed), (
                f"{job} isn't in the queue of {self._thing}, and is {allowed}"
            )
        return list(versions)

    async def _work_on(self, connection: Connection, job: str) -> None:
        try:
            while (ledger := self._ledger(job)).stand.is_pending:
                kind = self._chance.random()
                if kind < 0.1:
                    if not await self._describe(connection, job, ledger):
                        return
                elif kind < 0.2:
                    await self._say_with_a_wrong_version(connection, job, ledger)
                else:
                    await self._say(connection, job, ledger)
        except ConnectionError:
            return

    async def _say(self, connection: Connection, job: str, ledger: ExecutionLedger) -> None:
        self._step += 1
        status = "IN_PROGRESS" if self._chance.random() < 0.97 else self._chance.choice(ENDS)
        details = None if self._chance.random() < 0.1 else {"step": str(self._step)}
        expected = ledger.stand.version if self._chance.random() < 0.5 else None
        shown = self._chance.random() < 0.5
        ledger.unanswered = Update(status, details)
        accepted, said = await self._update(connection, job, status, details, expected, shown)
        if not accepted:
            self._refused(job, ledger, said, expected)
            return
        ledger.accepted()
        self._acknowledged()
        if shown:
            ledger.found(_state(said["executionState"]), f"{job} on {self._thing}")

    async def _say_with_a_wrong_version(self, connection: Connection, job: str, ledger: ExecutionLedger) -> None:
        version = ledger.stand.version
        expected = version + 1 if version == 1 else self._chance.choice((version - 1, version + 1))
        accepted, said = await self._update(connection, job, self._chance.choice(ENDS), {"wrong": "yes"}, expected, False)
        assert not accepted, f"{job} on {self._thing} is at {version}, and took an update that expected {expected}"
        self._refused(job, ledger, said, expected)

    async def _describe(self, connection: Connection, job: str, ledger: ExecutionLedger) -> bool:
        """Whether it is still pending."""
        accepted, said = await connection.ask(f"$aws/things/{self._thing}/jobs/{job}/get", includeJobDocument=False)
        self._ledger(job)  # operators may have cancelled the job while the device waited for the answer
        if accepted:
            ledger.found(_state(said["execution"]), f"{job} on {self._thing}")
            return True
        assert said["code"] == "TerminalStateReached", said
        allowed = list(ledger.may_stand(at_rest=False))
        assert not all(stand.is_pending for stand in allowed), f"{job} on {self._thing} has ended; it may be {allowed}"
        return False

    async def _update(
        self,
        connection: Connection,
        job: str,
        status: str,
        details: Mapping[str, str] | None,
        expected: int | None,
        shown: bool,
    ) -> tuple[bool, dict[str, Any]]:
        answer = await connection.ask(
            f"$aws/things/{self._thing}/jobs/{job}/update",
            status=status,
            statusDetails=details,
            expectedVersion=expected,
            includeJobExecutionState=shown or None,
        )
        self._ledger(job)  # as above
        return answer

    def _refused(self, job: str, ledger: ExecutionLedger, said: Mapping[str, Any], expected: int | None) -> None:
        """Only for the version that was expected, or because an operator has cancelled it."""
        assert "executionState" in said, said
        stand = _state(said["executionState"])
        ledger.unanswered = None
        ledger.found(stand, f"{job} on {self._thing}")
        is_other = expected is not None and expected != stand.version
        assert said["code"] == ("VersionMismatch" if is_other else "InvalidStateTransition"), said
        assert is_other or not stand.is_pending, said

    def _ledger(self, job: str) -> ExecutionLedger:
        assert job in self._ledgers.jobs, f"{self._thing} is given {job}, which nobody has made"
        return self._ledgers.execution(self._thing, job)


class LedgerOperator:
    """Makes and cancels jobs and makes things, one request at a time, in a thread of its own."""

    def __init__(self, targets: Mapping[str, str], ledgers: Ledgers, chance: random.Random) -> None:
        """``targets``: the devices' things, with their ARNs."""
        self._targets = dict(targets)
        self._ledgers = ledgers
        self._chance = chance
        self._count = 0
        self._iot: Any = None

    def live(self, server: ServerProcess) -> None:
        """Ask until the server is gone."""
        self._iot = server.client("iot")
        try:
            while True:
                self._act()
        except (HTTPClientError, BotoCoreError):
            return
        finally:
            self._iot.close()

    def _act(self) -> None:
        open_jobs = self._open_jobs()
        kind = self._chance.random()
        if len(open_jobs) < OPEN_JOBS_MAX and (kind < 0.5 or not open_jobs):
            self._make_a_job()
        elif kind < 0.6 and open_jobs:
            self._cancel(self._chance.choice(open_jobs))
        elif kind < 0.8 and open_jobs:
            self._cancel_on_one(self._chance.choice(open_jobs), self._chance.choice(list(self._targets)))
        else:
            name = self._name("thing")
            asked = self._ledgers.things[name] = Asked()
            self._iot.create_thing(thingName=name)
            asked.answered = True

    def _make_a_job(self) -> None:
        job = self._name("job")
        asked = self._ledgers.jobs[job] = Asked()
        self._iot.create_job(jobId=job, targets=list(self._targets.values()), document="{}")
        asked.answered = True

    def _cancel(self, job: str) -> None:
        asked = self._ledgers.job_cancellations[job] = Asked()
        if self._refused(lambda: self._iot.cancel_job(jobId=job, force=True)):
            # It had ended by itself.
            del self._ledgers.job_cancellations[job]
        else:
            asked.answered = True

    def _cancel_on_one(self, job: str, thing: str) -> None:
        ledger = self._ledgers.execution(thing, job)
        if ledger.cancellation is not None:
            return
        asked = ledger.cancellation = Asked(details={"cancelled": self._name("by")})
        expected = {"expectedVersion": ledger.stand.version} if self._chance.random() < 0.3 else {}
        cancel = lambda: self._iot.cancel_job_execution(  # noqa: E731
            jobId=job, thingName=thing, force=True, statusDetails=asked.details, **expected
        )
        if self._refused(cancel):
            ledger.cancellation = None
        else:
            asked.answered = True

    def _refused(self, ask: Callable[[], Any]) -> bool:
        try:
            ask()
        except ClientError as error:
            if error.response["Error"]["Code"] not in ALREADY_ENDED:
                raise
            return True
        return False

    def _open_jobs(self) -> list[str]:
        """Those that some device hasn't ended yet, as far as is known."""
        ledgers = self._ledgers
        return [
            job
            for job in list(ledgers.jobs)
            if job not in ledgers.job_cancellations
            and any(ledgers.execution(thing, job).stand.is_pending for thing in self._targets)
        ]

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count}"


def _summaries(lists: Any) -> list[dict[str, Any]]:
    return [summary for each in lists for summary in each]


def _state(said: Mapping[str, Any]) -> Stand:
    return Stand(said["status"], said["versionNumber"], said.get("statusDetails", {}))
