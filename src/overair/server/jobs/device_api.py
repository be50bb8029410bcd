"""Jobs topics (wire reference §2.1).

Every answer goes to the connection that asked, subscribed or not, and never through the broker; the topic of an answer is the
topic of its request with ``/accepted`` or ``/rejected``, so that ``$next`` stays ``$next``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol, TypeVar

import msgspec
import structlog

from overair.basics.clock import Clock, epoch_seconds
from overair.basics.errors import OverairError
from overair.basics.ids import JobId, ThingName
from overair.basics.work import Tx, Work
from overair.server.devices.decryption import DecryptionService
from overair.server.error_codes import code_for
from overair.server.gateway.handlers import Connection, Replies, Reply, topic
from overair.server.jobs.device_jobs import Described, DeviceJobs, names_next
from overair.server.jobs.model import Report
from overair.server.jobs.namespaces import namespace_of_level
from overair.server.jobs.request_rates import RequestRates
from overair.server.jobs.views import state, summaries, view
from overair.wire.decryption_messages import Declaration, declare_topic, parse_declaration
from overair.wire.job_message_parsing import (
    parse_describe_request,
    parse_pending_request,
    parse_start_next_request,
    parse_update_request,
)
from overair.wire.job_messages import (
    DescribeRequest,
    ExecutionReply,
    ExecutionState,
    MalformedMessage,
    PendingReply,
    PendingRequest,
    Rejection,
    RejectionCode,
    StartNextRequest,
    UpdateReply,
    UpdateRequest,
    accepted,
    describe_topic,
    pending_topic,
    rejected,
    start_next_topic,
    update_topic,
)

logger = structlog.get_logger("overair.jobs")

_INTERNAL_MESSAGE: Final = "The request failed through a fault of the server. It changed nothing; send it again."


class _Request(Protocol):
    @property
    def client_token(self) -> str | None: ...


Asked = TypeVar("Asked", bound=_Request)


class JobTopics:
    """The devices' door to jobs. ``work`` is not the audited one: devices write no audit rows."""

    def __init__(
        self,
        *,
        work: Work,
        jobs: DeviceJobs,
        clock: Clock,
        decryption: DecryptionService | None = None,
        rates: RequestRates | None = None,
    ) -> None:
        """``decryption``: who takes what devices say of their keys; None: nobody does."""
        self._decryption = decryption
        self._work = work
        self._jobs = jobs
        self._clock = clock
        self._rates = rates or RequestRates(clock=clock)

    @topic("$aws/things/{thing}/jobs/get")
    async def get_pending(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        thing = ThingName(parameters["thing"])
        asked = pending_topic(thing)

        async def answer(request: PendingRequest) -> bytes:
            self._rates.read(connection.account)
            queue = await self._work.read(lambda tx: self._jobs.pending(tx, connection.place, thing))
            in_progress, queued = summaries(queue)
            return PendingReply(
                timestamp_s=self._now_s(), in_progress=in_progress, queued=queued, client_token=request.client_token
            ).to_json()

        return await self._answered(asked, payload, parse_pending_request, answer)

    @topic("$aws/things/{thing}/jobs/start-next")
    async def start_next(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        thing = ThingName(parameters["thing"])
        asked = start_next_topic(thing)

        async def answer(request: StartNextRequest) -> bytes:
            self._rates.write(connection.account)
            started = await self._work.run(
                lambda tx: self._jobs.start_next(
                    tx,
                    connection.place,
                    thing,
                    status_details=request.status_details,
                    step_timeout_minutes=request.step_timeout_minutes,
                )
            )
            return self._execution(started, request.client_token, with_thing_name=False)

        return await self._answered(asked, payload, parse_start_next_request, answer)

    @topic("$aws/things/{thing}/jobs/{job}/get")
    async def describe(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        thing, job = ThingName(parameters["thing"]), parameters["job"]
        return await self._describe(connection, thing, job, None, payload)

    @topic("$aws/things/{thing}/jobs/{job}/{namespace}/get")
    async def describe_in_namespace(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        namespace = namespace_of_level(parameters["namespace"])
        if namespace is None:
            return self._no_operation(
                f"$aws/things/{parameters['thing']}/jobs/{parameters['job']}/{parameters['namespace']}/get"
            )
        return await self._describe(connection, ThingName(parameters["thing"]), parameters["job"], namespace, payload)

    async def _describe(
        self, connection: Connection, thing: ThingName, job: str, namespace: str | None, payload: bytes
    ) -> Replies:
        asked = describe_topic(thing, job, namespace=namespace)

        async def answer(request: DescribeRequest) -> bytes:
            self._rates.read(connection.account)
            include_document = request.include_job_document

            def find(tx: Tx) -> Described | None:
                if names_next(job):
                    return self._jobs.next(tx, connection.place, thing, namespace=namespace, include_document=include_document)
                if namespace is not None:
                    self._jobs.require_namespace(tx, connection.place, thing, JobId(job), namespace)
                return self._jobs.describe(
                    tx,
                    connection.place,
                    thing,
                    JobId(job),
                    number=request.execution_number,
                    include_document=include_document,
                )

            described = await self._work.read(find)
            return self._execution(described, request.client_token, with_thing_name=not names_next(job))

        return await self._answered(asked, payload, parse_describe_request, answer)

    @topic("$aws/things/{thing}/jobs/{job}/update")
    async def update(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        thing, job = ThingName(parameters["thing"]), JobId(parameters["job"])
        return await self._update(connection, thing, job, None, payload)

    @topic("$aws/things/{thing}/jobs/{job}/{namespace}/update")
    async def update_in_namespace(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        namespace = namespace_of_level(parameters["namespace"])
        thing, job = ThingName(parameters["thing"]), JobId(parameters["job"])
        if namespace is None:
            return self._no_operation(f"$aws/things/{thing}/jobs/{job}/{parameters['namespace']}/update")
        return await self._update(connection, thing, job, namespace, payload)

    async def _update(
        self, connection: Connection, thing: ThingName, job: JobId, namespace: str | None, payload: bytes
    ) -> Replies:
        asked = update_topic(thing, job, namespace=namespace)

        async def answer(request: UpdateRequest) -> bytes:
            self._rates.write(connection.account)
            report = Report(
                status=request.status,
                status_details=request.status_details,
                expected_version=request.expected_version,
                execution_number=request.execution_number,
                step_timeout_minutes=request.step_timeout_minutes,
            )

            def take(tx: Tx) -> Described | None:
                if namespace is not None and not names_next(job):
                    self._jobs.require_namespace(tx, connection.place, thing, job, namespace)
                reported = self._jobs.report(tx, connection.place, thing, job, report)
                if not (request.include_job_execution_state or request.include_job_document):
                    return None
                include_document = request.include_job_document
                return self._jobs.stands(tx, connection.place, thing, job, reported, include_document=include_document)

            described = await self._work.run(take)
            shown = described is not None and request.include_job_execution_state
            return UpdateReply(
                timestamp_s=self._now_s(),
                client_token=request.client_token,
                execution_state=state(described.execution) if described is not None and shown else None,
                job_document=described.document if described is not None else None,
            ).to_json()

        return await self._answered(asked, payload, parse_update_request, answer)

    @topic("$aws/things/{thing}/jobs/$decryption/declare")
    async def declare(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        """Which encrypted images the device can read. A word of ours, where AWS has none."""
        thing = ThingName(parameters["thing"])
        asked, decryption = declare_topic(thing), self._decryption
        if decryption is None:
            return self._no_operation(asked)

        async def answer(request: Declaration) -> bytes:
            self._rates.write(connection.account)
            account = connection.account
            if await self._work.read(lambda tx: decryption.says_something_new(tx, account, thing, request)):
                await self._work.run(lambda tx: decryption.declare(tx, account, thing, request))
            told: dict[str, object] = {"timestamp": self._now_s(), "keys": len(request.keys)}
            if request.client_token is not None:
                told["clientToken"] = request.client_token
            return msgspec.json.encode(told)

        return await self._answered(asked, payload, parse_declaration, answer)

    @topic("$aws/things/{thing}/jobs/{rest+}")
    def unknown_topic(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        return self._no_operation(f"$aws/things/{parameters['thing']}/jobs/{parameters['rest']}")

    # ----------------------------------------------------------------------------------------------------------------------

    def _no_operation(self, asked: str) -> Replies:
        rejection = Rejection(
            timestamp_s=self._now_s(),
            code=RejectionCode.INVALID_TOPIC,
            message="This topic names no Jobs operation: they are get, start-next, JOB/get and JOB/update; of a job in a "
            "namespace, JOB/namespace-NS/get and JOB/namespace-NS/update.",
        )
        return _rejected(asked, rejection)

    async def _answered(
        self,
        asked: str,
        payload: bytes,
        parse: Callable[[bytes], Asked],
        answer: Callable[[Asked], Awaitable[bytes]],
    ) -> Replies:
        """Answer, or turn whatever goes wrong into a rejection with the code of this plane."""
        token: str | None = None
        stands: object = None
        try:
            request = parse(payload)
            token = request.client_token
            return [Reply(topic=accepted(asked), payload=await answer(request), implicit=True)]
        except MalformedMessage as error:
            code, message, token = str(error.code), error.message, error.client_token
        except OverairError as error:
            code, message = code_for("jobs_topic", error), error.message
            stands = error.details.get("execution_state")
        except Exception as error:
            logger.exception("a jobs request failed", topic=asked)
            code, message = code_for("jobs_topic", error), _INTERNAL_MESSAGE
        rejection = Rejection(
            timestamp_s=self._now_s(),
            code=code,
            message=message,
            client_token=token,
            execution_state=stands if isinstance(stands, ExecutionState) else None,
        )
        return _rejected(asked, rejection)

    def _execution(self, described: Described | None, client_token: str | None, *, with_thing_name: bool) -> bytes:
        now = self._clock.now()
        shown = None
        if described is not None:
            shown = view(described.execution, now=now, document=described.document, with_thing_name=with_thing_name)
        return ExecutionReply(timestamp_s=epoch_seconds(now), execution=shown, client_token=client_token).to_json()

    def _now_s(self) -> int:
        return epoch_seconds(self._clock.now())


def _rejected(asked: str, rejection: Rejection) -> Replies:
    return [Reply(topic=rejected(asked), payload=rejection.to_json(), implicit=True)]
