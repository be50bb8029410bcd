"""The server and the network of one device, in memory: Jobs and streams as the wire reference has them, without durability."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from overair.agent.transport import TransportListener
from overair.wire.decryption_messages import Declaration, declare_topic, parse_declaration
from overair.wire.job_document import DocumentFile, OtaDocument, TransferProtocol, build
from overair.wire.job_message_parsing import parse_describe_request, parse_update_request
from overair.wire.job_messages import ExecutionReply, ExecutionStatus, ExecutionView, UpdateRequest
from overair.wire.stream_messages import (
    BlockEncoder,
    Dialect,
    RefusalCode,
    StreamRequestRefused,
    decode_get_stream,
    encode_refusal,
)

THING = "dev-1"
STREAM = "AFR_OTA-stream"


@dataclass
class Execution:
    job_id: str
    document: str
    number: int = 1
    status: ExecutionStatus = ExecutionStatus.QUEUED
    details: dict[str, str] = field(default_factory=dict)
    history: list[UpdateRequest] = field(default_factory=list)

    @property
    def final(self) -> bool:
        return self.status not in (ExecutionStatus.QUEUED, ExecutionStatus.IN_PROGRESS)


class FakeCloud:
    """Implements ``Transport``. Answers are queued by ``publish`` and delivered at once, but for what the faults take."""

    def __init__(self) -> None:
        self.executions: list[Execution] = []
        self.files: dict[int, bytes] = {}
        self.subscriptions: set[str] = set()
        self.listener: TransportListener | None = None
        self.online = True
        self.published: list[tuple[str, bytes]] = []
        self.blocks_sent = 0
        self.declared: Declaration | None = None
        self.chance: Random | None = None
        self.block_hook: Any = None
        self.acknowledging = True
        """False: what is published arrives, and its acknowledgement is lost."""
        self.lost: Callable[[], bool] = lambda: False
        """Asked for each message in either direction."""

    # what a test does

    def ship(self, job_id: str, *files: tuple[DocumentFile, bytes], protocols: Any = (TransferProtocol.MQTT,)) -> Execution:
        for entry, data in files:
            self.files[entry.file_id] = data
        document = build(OtaDocument(protocols=protocols, files=tuple(entry for entry, _ in files), stream_name=STREAM))
        return self.queue(job_id, document)

    def queue(self, job_id: str, document: str) -> Execution:
        """A new execution; the next attempt where the job is known."""
        number = 1 + sum(execution.job_id == job_id for execution in self.executions)
        execution = Execution(job_id=job_id, document=document, number=number)
        self.executions.append(execution)
        if self.next is execution:
            self.notify_next()
        return execution

    def notify_next(self) -> None:
        if f"$aws/things/{THING}/jobs/notify-next" in self.subscriptions:
            self._deliver(f"$aws/things/{THING}/jobs/notify-next", self._reply(None).to_json())

    @property
    def next(self) -> Execution | None:
        pending = [execution for execution in self.executions if not execution.final]
        return min(pending, key=lambda execution: execution.status is not ExecutionStatus.IN_PROGRESS, default=None)

    # Transport

    def start(self, listener: TransportListener) -> None:
        self.listener = listener
        self.subscriptions.clear()
        if self.online:
            listener.connected()

    def stop(self) -> None:
        self.listener = None

    def subscribe(self, topic_filter: str, *, qos: int) -> None:
        self.subscriptions.add(topic_filter)

    def publish(self, topic: str, payload: bytes, *, qos: int, timeout_s: float = 0) -> bool:
        if not self.online:
            return False
        self.published.append((topic, payload))
        if self.lost():
            return qos == 0
        if topic == f"$aws/things/{THING}/jobs/$next/get":
            token = parse_describe_request(payload).client_token
            self._deliver(f"{topic}/accepted", self._reply(token).to_json())
        elif topic == declare_topic(THING):
            self.declared = parse_declaration(payload)
            self._deliver(f"{topic}/accepted", b"{}")
        elif match := re.fullmatch(rf"\$aws/things/{THING}/jobs/([^/]+)/update", topic):
            self._update(match[1], payload)
        elif topic == f"$aws/things/{THING}/streams/{STREAM}/get/cbor":
            self._send_blocks(payload)
        else:
            raise AssertionError(f"the agent published to {topic}")
        return self.acknowledging

    def _reply(self, token: str | None) -> ExecutionReply:
        execution = self.next
        view = None
        if execution is not None:
            view = ExecutionView(
                job_id=execution.job_id,
                status=execution.status,
                queued_at_s=1,
                last_updated_at_s=1,
                execution_number=execution.number,
                version_number=1 + len(execution.history),
                status_details=execution.details,
                job_document=execution.document,
            )
        return ExecutionReply(timestamp_s=1, execution=view, client_token=token)

    def _update(self, job_id: str, payload: bytes) -> None:
        request = parse_update_request(payload)
        attempts = [execution for execution in self.executions if execution.job_id == job_id]
        if not attempts:
            return  # a job that nobody made, or that is gone
        execution = attempts[(request.execution_number or len(attempts)) - 1]
        if execution.final:
            return
        execution.history.append(request)
        execution.status = request.status
        if request.status_details is not None:
            execution.details = dict(request.status_details)
        if execution.final:
            self.notify_next()

    def _send_blocks(self, payload: bytes) -> None:
        data_topic = f"$aws/things/{THING}/streams/{STREAM}/data/cbor"
        assert data_topic in self.subscriptions
        try:
            request = decode_get_stream(payload, Dialect.CBOR)
            if request.file_id not in self.files:
                raise StreamRequestRefused(RefusalCode.RESOURCE_NOT_FOUND, "no such file", request.echo)
            data = self.files[request.file_id]
            numbers = list(request.blocks_to_send(len(data)))
        except StreamRequestRefused as refused:
            self._deliver(f"$aws/things/{THING}/streams/{STREAM}/rejected/cbor", encode_refusal(refused, Dialect.CBOR))
            return
        size = request.block_size_bytes
        encoder = BlockEncoder(dialect=Dialect.CBOR, file_id=request.file_id, block_size_bytes=size, echo=request.echo)
        if self.chance is not None:
            numbers = [number for number in numbers for _ in range(self.chance.choice((0, 1, 1, 1, 2)))]
            self.chance.shuffle(numbers)
        for number in numbers:
            self.blocks_sent += 1
            if self.block_hook is not None:
                self.block_hook(self.blocks_sent)
            self._deliver(data_topic, encoder.write(number, data[number * size : (number + 1) * size]))

    def _deliver(self, topic: str, payload: bytes) -> None:
        if self.listener is not None and not self.lost():
            self.listener.received(topic, payload)
