"""The jobs' data plane on the device port: the operations of ``iot-jobs-data`` under the device's own certificate.

Paths, bodies, answers and refusals are those of the service's model, exactly as on the operator's port (wire reference §2.10);
what differs is the proof. Here it is the certificate of the TLS session and the IoT policies that hang on it: each operation is
an action of its own on the thing, so that a device may read its jobs over HTTPS without a right to any topic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from overair.basics.clock import Clock
from overair.basics.errors import AccessDenied, InvalidRequest, NotAuthenticated, OverairError, Unavailable, Unsupported
from overair.basics.ids import IdSource, ThingName
from overair.server.aws_protocol.asgi import Observe, Scope, Send, header_fields, leaves_too_much, raw_path_of
from overair.server.aws_protocol.body import ClientGone, Receive, read_whole
from overair.server.aws_protocol.errors import error_answer, request_id_headers
from overair.server.aws_protocol.http_binding import Incoming, Outgoing, parse_query
from overair.server.aws_protocol.operations import Answer, Caller, operations_of
from overair.server.aws_protocol.rules import Invalid
from overair.server.aws_protocol.service import BoundOperation, Service
from overair.server.error_codes import INTERNAL_FAILURE, code_for
from overair.server.gateway.authority import DeviceAuthority, DeviceIdentity, Refusal, RefusalCode
from overair.server.gateway.denials import HTTPS, DenialWitness, Unwitnessed, tell_not_admitted
from overair.server.jobs.jobs_data_api import JobsDataOperations

SERVICE: Final = "iot-jobs-data"
ACTIONS: Final[Mapping[str, str]] = {
    # What a device's policy must allow on ``thing/NAME``, by operation. What isn't here is no device's to ask.
    "GetPendingJobExecutions": "iot:GetPendingJobExecutions",
    "StartNextPendingJobExecution": "iot:StartNextPendingJobExecution",
    "DescribeJobExecution": "iot:DescribeJobExecution",
    "UpdateJobExecution": "iot:UpdateJobExecution",
}

_NOBODY: Final = Refusal(reason="there is no client certificate", code=RefusalCode.CERTIFICATE_REQUIRED)

logger = structlog.get_logger("overair.jobs")


class DeviceJobsDoor:
    """An ASGI application for paths below ``/things/`` on the device port."""

    def __init__(
        self,
        *,
        authority: DeviceAuthority,
        operations: JobsDataOperations,
        clock: Clock,
        ids: IdSource,
        observe: Observe | None = None,
        denials: DenialWitness | None = None,
    ) -> None:
        """``operations`` over the work that isn't audited: devices write no audit rows."""
        self._authority = authority
        self._clock = clock
        self._ids = ids
        self._observe = observe
        self._denials = denials or Unwitnessed()
        self._service = Service(SERVICE)
        for service, name, handler in operations_of(operations):
            if service == SERVICE and name in ACTIONS:
                self._service.bind(name, handler)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("Jobs are served over HTTP only.")
        exchange = _Exchange(self, scope, receive)
        begun_s = asyncio.get_running_loop().time()
        try:
            outgoing = await exchange.answer()
        except ClientGone:
            return
        except Invalid as invalid:
            outgoing = exchange.refusal(InvalidRequest(invalid.describe(), subject="validation"))
        except Exception as error:
            outgoing = exchange.refusal(error)
        headers = outgoing.headers + request_id_headers(self._service.model, exchange.request_id)
        headers.append((b"content-length", b"%d" % len(outgoing.body)))
        if not exchange.body_is_read and leaves_too_much(exchange.headers):
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": outgoing.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": outgoing.body})
        if self._observe is not None:
            seconds = asyncio.get_running_loop().time() - begun_s
            self._observe("device", exchange.operation or "-", outgoing.status_code, seconds)


class _Exchange:
    """One request on its way to its answer."""

    def __init__(self, door: DeviceJobsDoor, scope: Scope, receive: Receive) -> None:
        self._door = door
        self._scope = scope
        self._receive = receive
        self.headers = header_fields(scope["headers"])
        self.request_id: str = door._ids.uuid()
        self.operation: str | None = None
        self.body_is_read = False

    async def answer(self) -> Outgoing:
        """Prove, route, ask the policies, read, do: nobody without a certificate learns what is there."""
        identity = await self._identity()
        service = self._door._service
        query = parse_query(self._scope["query_string"])
        operation, labels = service.find(self._scope["method"], raw_path_of(self._scope), query, self.headers)
        self.operation = operation.name
        bound = service.bound.get(operation.name)
        if bound is None:
            raise Unsupported(f"The operation {operation.name} isn't a device's: sign it and send it to the operator's port.")
        self._ask(identity, bound, labels.get("thingName", ""))
        body = await read_whole(self._receive, self.headers, size_bytes_max=service.body_size_bytes_max)
        self.body_is_read = True
        request = bound.read(Incoming(labels=labels, query=query, headers=self.headers), body)
        answer = await bound.handler(self._caller(identity), request)
        assert not isinstance(answer, Answer), "no operation of this service streams"
        outgoing = Outgoing(bound.model.status_code)
        bound.write(answer or {}, outgoing)
        return outgoing

    async def _identity(self) -> DeviceIdentity:
        """Who shows the certificate, judged anew at each request: one that was revoked meanwhile opens nothing on a connection
        that is still open.

        Raises:
            NotAuthenticated: there is none; subject ``missing-token``.
            InvalidRequest: it isn't good for a device; subject ``certificate``.
            Unavailable: nobody can tell at the moment.
        """
        state = self._scope.get("state") or {}
        peer_der: bytes | None = state.get("peer_der")
        if not peer_der:
            self._tell_denied(_NOBODY, "")
            raise NotAuthenticated(
                "This path needs a registered device certificate in the TLS handshake; the peer sent none.",
                subject="missing-token",
            )
        chain_der = tuple(state.get("peer_chain_der") or ())[1:]
        verdict = await self._door._authority.admit(
            bytes(peer_der), None, None, self._source_ip, chain_der, state.get("server_name") or ""
        )
        if isinstance(verdict, DeviceIdentity):
            return verdict
        return self._refuse(verdict)

    def _refuse(self, verdict: Refusal) -> DeviceIdentity:
        logger.info(
            "jobs request refused",
            certificate=verdict.certificate_id,
            code=verdict.code,
            why=verdict.reason,
            request_id=self.request_id,
        )
        self._tell_denied(verdict, "")
        if verdict.code is RefusalCode.UNAVAILABLE:
            raise Unavailable("The certificate can't be judged now. Send the request again.", subject="certificate")
        # The reason stands in the log; the code says as much as the device needs to know.
        raise InvalidRequest(
            f"The certificate isn't one that may speak here ({verdict.code}): it must be registered, ACTIVE and "
            "within its dates.",
            subject="certificate",
        )

    def _ask(self, identity: DeviceIdentity, bound: BoundOperation, thing: str) -> None:
        """Raises AccessDenied: the policies don't allow the operation on the thing; subject ``action``."""
        action = ACTIONS[bound.model.name]
        resource = identity.place.iot("thing", ThingName(thing))
        if not identity.policy.allows(action, resource):
            logger.info("jobs request refused", certificate=identity.certificate_id, why=f"no policy allows {action}")
            self._tell_denied(identity, thing)
            raise AccessDenied(
                f"The policies of this device's certificate don't allow {action} on {resource[:256]}.",
                subject="action",
                details={"action": action},
            )

    def _tell_denied(self, verdict: DeviceIdentity | Refusal, thing: str) -> None:
        tell_not_admitted(
            self._door._denials,
            verdict,
            service=HTTPS,
            operation=self.operation or "-",
            kind="thing",
            name=thing,
            source_ip=self._source_ip,
            request_id=self.request_id,
        )

    def _caller(self, identity: DeviceIdentity) -> Caller:
        return Caller(
            place=identity.place,
            principal_arn=identity.place.iot("cert", identity.certificate_id),
            user_id=identity.certificate_id,
            access_key_id="",
            now=self._door._clock.now(),
            source_ip=self._source_ip,
            request_id=self.request_id,
        )

    @property
    def _source_ip(self) -> str:
        client = self._scope.get("client")
        return client[0] if client else ""

    def refusal(self, error: Exception) -> Outgoing:
        """The answer for what went wrong; a fault of the server tells nothing but where the log has it."""
        code = code_for(SERVICE, error)
        if isinstance(error, OverairError) and code != INTERNAL_FAILURE[SERVICE]:
            message, details = error.message, error.details
        else:
            message, details = f"The server failed to do this. Its log tells more under the request id {self.request_id}.", {}
            logger.error("a jobs request failed", request_id=self.request_id, operation=self.operation, exc_info=error)
        return error_answer(
            self._door._service.model,
            code=code,
            message=message,
            details=details,
            request_id=self.request_id,
            head=self._scope["method"] == "HEAD",
        )
