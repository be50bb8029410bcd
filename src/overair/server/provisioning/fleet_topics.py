"""Fleet provisioning's topics (wire reference §9.1), in JSON and CBOR.

Answers go to the connection that asked, if it has subscribed and its policy lets it receive. A private key that is made here is
kept nowhere: it leaves in the one answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import cbor2
import msgspec
import structlog

from overair.basics.clock import Clock
from overair.basics.errors import Conflict, InvalidRequest, OverairError, Throttled
from overair.basics.ids import CertificateId
from overair.basics.work import Work
from overair.server.certificates import x509
from overair.server.error_codes import PROVISIONING_STATUSES, code_for
from overair.server.gateway.handlers import Connection, Replies, Reply, topic
from overair.server.provisioning.fleet_provisioning import Claimed, FleetProvisioning
from overair.server.provisioning.hooks import Hooks
from overair.server.provisioning.registration import TAKEN
from overair.server.provisioning.template_functions import TEXT_LENGTH_MAX
from overair.server.provisioning.template_language import PARAMETERS_MAX, PSEUDO_PARAMETERS
from overair.server.provisioning.template_model import REQUESTS_PER_MINUTE, TemplateName
from overair.server.provisioning.templates import KIND
from overair.server.provisioning.token_buckets import TokenBuckets
from overair.wire import strict_cbor, strict_json

PAYLOAD_SIZE_BYTES_MAX: Final = 131_072
KEYS_AT_ONCE_MAX: Final = 2
TEMPLATE_NAME_LENGTH_MAX: Final = 36
_JSON: Final = "json"
_CBOR: Final = "cbor"
_INTERNAL: Final = "The request failed through a fault of the server. It changed nothing; send it again."

logger = structlog.get_logger("overair.provisioning")

Document = dict[str, object]


class FleetProvisioningTopics:
    """The devices' door. ``work`` is not the audited one: devices write no audit rows, and the rows say who came in how."""

    def __init__(self, *, work: Work, fleet: FleetProvisioning, hooks: Hooks, clock: Clock) -> None:
        self._work = work
        self._fleet = fleet
        self._hooks = hooks
        self._buckets = TokenBuckets(clock)
        self._making_keys = asyncio.Semaphore(KEYS_AT_ONCE_MAX)

    @topic("$aws/certificates/create/{format}")
    async def create_keys(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        async def create(_: Document) -> Document:
            async with self._making_keys:
                key = await asyncio.to_thread(x509.new_device_key)
            claimed = await self._work.run(
                lambda tx: self._fleet.give_certificate(tx, connection.place, connection.certificate_id, key.public_key())
            )
            return {**_claimed(claimed), "privateKey": x509.private_key_pem(key)}

        return await self._answer(connection, "$aws/certificates/create", parameters["format"], payload, create)

    @topic("$aws/certificates/create-from-csr/{format}")
    async def create_from_csr(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        async def create(asked: Document) -> Document:
            pem = _text(asked, "certificateSigningRequest")
            request = await asyncio.to_thread(x509.signing_request_from_pem, pem)
            key = x509.accepted_public_key(request, field="certificate signing request")
            subject = request.subject if list(request.subject) else None
            claimed = await self._work.run(
                lambda tx: self._fleet.give_certificate(tx, connection.place, connection.certificate_id, key, subject=subject)
            )
            return _claimed(claimed)

        return await self._answer(connection, "$aws/certificates/create-from-csr", parameters["format"], payload, create)

    @topic("$aws/provisioning-templates/{template}/provision/{format}")
    async def provision(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        name = TemplateName(parameters["template"])

        async def provision(asked: Document) -> Document:
            return await self._provision(connection, name, asked)

        stem = f"$aws/provisioning-templates/{name}/provision"
        return await self._answer(connection, stem, parameters["format"], payload, provision)

    async def _provision(self, connection: Connection, name: TemplateName, asked: Document) -> Document:
        token, given = _text(asked, "certificateOwnershipToken"), _parameters(asked.get("parameters"))
        place, claim = connection.place, connection.certificate_id
        if not 1 <= len(name) <= TEMPLATE_NAME_LENGTH_MAX or not name.isascii() or not name.isprintable():
            raise InvalidRequest("This is no template's name.", subject="parameters")
        candidate = await self._work.read(lambda tx: self._fleet.candidate(tx, place, claim, token, name, given))
        values, hook = dict(candidate.parameters), candidate.template.hook
        if hook is not None:
            answer = await self._hooks.ask(
                hook.target_arn,
                {
                    "claimCertificateId": claim,
                    "certificateId": candidate.certificate_id,
                    "certificatePem": candidate.certificate_pem,
                    "templateArn": place.iot(KIND, name),
                    "clientId": connection.client_id,
                    "parameters": values,
                },
            )
            values |= {key: value for key, value in answer.parameter_overrides.items() if key not in PSEUDO_PARAMETERS}
        try:
            registered = await self._work.run(
                lambda tx: self._fleet.provision(
                    tx,
                    place,
                    claim,
                    token,
                    name,
                    values,
                    allowed_by_hook=None if hook is None else hook.target_arn,
                    source_ip=connection.source_ip,
                )
            )
        except Conflict as refused:
            await self._note_taken(connection, token, candidate.certificate_id, refused)
            raise
        logger.info(
            "device provisioned", template=name, thing=registered.thing, certificate=candidate.certificate_id, claim=claim
        )
        return {"deviceConfiguration": dict(registered.device_configuration), "thingName": registered.thing or ""}

    async def _note_taken(self, connection: Connection, token: str, certificate: CertificateId, refused: Conflict) -> None:
        """A name that another device has: an operator hears of it, who may let this one have it."""
        place, claim = connection.place, connection.certificate_id
        if refused.subject != TAKEN or await self._work.read(lambda tx: self._fleet.is_noted(tx, place.account, certificate)):
            return
        await self._work.run(
            lambda tx: self._fleet.note_taken(tx, place, claim, token, refused, source_ip=connection.source_ip)
        )

    async def _answer(
        self,
        connection: Connection,
        stem: str,
        format: str,
        payload: bytes,
        act: Callable[[Document], Awaitable[Document]],
    ) -> Replies:
        base = f"{stem}/{format}"
        try:
            if format not in (_JSON, _CBOR):
                raise InvalidRequest("Fleet provisioning speaks json and cbor only.", subject="payload")
            asked = _read(payload, format)
            if not self._buckets.take(connection.account, stem.split("/")[1], per_minute=REQUESTS_PER_MINUTE):
                raise Throttled("Too many devices are being provisioned at once. Try again in a second.")
            return [Reply(topic=f"{base}/accepted", payload=_written(await act(asked), format))]
        except OverairError as error:
            code, message = code_for("provisioning_topic", error), error.message
            logger.warning("a provisioning request was refused", topic=base, code=code, claim=connection.certificate_id)
        except Exception:
            code, message = "InternalError", _INTERNAL
            logger.exception("a provisioning request failed", topic=base)
        refusal: Document = {"statusCode": PROVISIONING_STATUSES[code], "errorCode": code, "errorMessage": message}
        return [Reply(topic=f"{base}/rejected", payload=_written(refusal, format))]


def _claimed(claimed: Claimed) -> Document:
    return {
        "certificateId": claimed.certificate.id,
        "certificatePem": claimed.certificate.pem,
        "certificateOwnershipToken": claimed.token.reveal(),
    }


def _read(payload: bytes, format: str) -> Document:
    """The request; nothing at all is an empty one."""
    if not payload:
        return {}
    try:
        if format == _JSON:
            return strict_json.decode_object(payload, size_bytes_max=PAYLOAD_SIZE_BYTES_MAX, depth_max=4)
        decoded = strict_cbor.decode_map(payload, size_bytes_max=PAYLOAD_SIZE_BYTES_MAX, depth_max=4)
    except (strict_json.MalformedJson, strict_cbor.MalformedCbor) as broken:
        raise InvalidRequest(f"The payload can't be read as {format}. {broken}", subject="payload") from None
    if not all(isinstance(key, str) for key in decoded):
        raise InvalidRequest("The keys of the CBOR map must be texts.", subject="payload")
    return {str(key): value for key, value in decoded.items()}


def _written(document: Document, format: str) -> bytes:
    return cbor2.dumps(document) if format == _CBOR else msgspec.json.encode(document)


def _text(asked: Document, name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str) or not value or len(value) > TEXT_LENGTH_MAX:
        raise InvalidRequest(
            f"The request must have {name}, a text of at most {TEXT_LENGTH_MAX} characters.", subject="payload"
        )
    return value


def _parameters(given: object) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict) or len(given) > PARAMETERS_MAX:
        raise InvalidRequest(f"parameters must be an object of at most {PARAMETERS_MAX} texts.", subject="parameters")
    read: dict[str, str] = {}
    for key, value in given.items():
        if not isinstance(key, str) or not isinstance(value, str) or len(value) > TEXT_LENGTH_MAX:
            raise InvalidRequest("Each of the parameters must be a text.", subject="parameters")
        read[key] = value
    return read
