"""Operators on the message broker: who has signed a WebSocket's request, and what IAM lets him do with MQTT."""

from __future__ import annotations

from collections.abc import Mapping
from hmac import compare_digest
from http import HTTPStatus
from typing import Any, Final

import structlog

from overair.basics.arn import Place
from overair.basics.clock import Clock, as_datetime
from overair.basics.errors import NotAuthenticated, OverairError
from overair.basics.ids import CertificateId, ClientId, IdSource
from overair.basics.work import Work
from overair.server.access.authenticator import WEBSOCKET_SERVICE, SignatureAuthenticator
from overair.server.access.grants import Grants, GrantsDirectory, principal_of
from overair.server.access.keys import CredentialDirectory
from overair.server.access.model import Credential
from overair.server.aws_protocol.authentication import CurrentOperation, HttpRequest, Witness
from overair.server.aws_protocol.operations import Caller
from overair.server.gateway.authority import DeviceIdentity, Refusal, RefusalCode
from overair.server.listeners.websocket import UpgradeRefused, UpgradeRequest
from overair.server.policy_language.conditions import Context, context_of
from overair.server.policy_language.evaluation import Decision, Question

PATH = b"/mqtt"
OPEN: Final = "OpenWebSocket"
"""What the audit calls a proof of a WebSocket's request. What is done over it has rows of its own where it is denied."""

logger = structlog.get_logger("overair.access")


class OperatorPolicy:
    """What one operator's policies say of MQTT. Implements ``gateway.authority.DevicePolicy``.

    Conditions on time are judged as of the connect, or of the last change of anybody's rights.
    """

    __slots__ = ("_context", "_grants", "_place")

    def __init__(self, place: Place, grants: Grants | None, context: Context) -> None:
        """``grants``: None for the account's root, who may do everything."""
        self._place = place
        self._grants = grants
        self._context = context

    def allows_connect(self, client_id: str) -> bool:
        return self.allows("iot:Connect", self._place.iot("client", client_id))

    def allows_publish(self, topic: str) -> bool:
        return self.allows("iot:Publish", self._place.iot("topic", topic))

    def allows_retain(self, topic: str) -> bool:
        return self.allows("iot:RetainPublish", self._place.iot("topic", topic))

    def allows_subscribe(self, topic_filter: str) -> bool:
        return self.allows("iot:Subscribe", self._place.iot("topicfilter", topic_filter))

    def allows_receive(self, topic: str) -> bool:
        return self.allows("iot:Receive", self._place.iot("topic", topic))

    def allows(self, action: str, resource: str) -> bool:
        if self._grants is None:
            return True
        question = Question(action=action, resource=resource, context=self._context)
        return self._grants.decide(question) is Decision.ALLOW


class OperatorProof:
    """A signature that was good when its WebSocket was asked for. Implements ``gateway.authority.Proof``: the key, its holder
    and his policies are looked at again whenever one of them has changed."""

    __slots__ = ("_caller", "_clock", "_credentials", "_grants", "_token_sha256", "_work")

    def __init__(
        self,
        caller: Caller,
        token_sha256: str | None,
        *,
        work: Work,
        credentials: CredentialDirectory,
        grants: GrantsDirectory,
        clock: Clock,
    ) -> None:
        self._caller = caller
        self._token_sha256 = token_sha256
        self._work = work
        self._credentials = credentials
        self._grants = grants
        self._clock = clock

    @property
    def principal_arn(self) -> str:
        return self._caller.principal_arn

    async def admit(self, client_id: ClientId) -> DeviceIdentity | Refusal:
        """See ``gateway.authority.Proof``."""
        caller = self._caller
        credential = await self._credentials.fetch(self._work, caller.access_key_id)
        why = self._gone(credential)
        if credential is None or why is not None:
            return Refusal(reason=why or "", place=caller.place, code=RefusalCode.CERTIFICATE_UNKNOWN)
        key = principal_of(caller)
        grants = None if key is None else await self._grants.fetch(self._work, key)
        now = self._clock.now()
        moment = {"aws:CurrentTime": as_datetime(now).isoformat(), "aws:EpochTime": str(now // 1000)}
        policy = OperatorPolicy(caller.place, grants, context_of({**caller.context, **moment}))
        return DeviceIdentity(
            place=caller.place,
            certificate_id=CertificateId(caller.user_id),
            policy=policy,
            until=credential.expires,
        )

    def _gone(self, credential: Credential | None) -> str | None:
        if credential is None or not credential.is_active:
            return "the access key is gone, or inactive"
        if not compare_digest(credential.token_sha256 or "", self._token_sha256 or ""):
            return "the session is another one"
        if credential.expires is not None and self._clock.now() >= credential.expires:
            return "the session has expired"
        return None


class OperatorProofs:
    """Proves who asks for a WebSocket. ``judge`` is ``listeners.websocket.Judge``."""

    def __init__(
        self,
        *,
        work: Work,
        authenticator: SignatureAuthenticator,
        credentials: CredentialDirectory,
        grants: GrantsDirectory,
        clock: Clock,
        ids: IdSource,
        witness: Witness | None = None,
    ) -> None:
        self._work = work
        self._authenticator = authenticator
        self._credentials = credentials
        self._grants = grants
        self._clock = clock
        self._ids = ids
        self._witness = witness

    async def judge(self, request: UpgradeRequest) -> Mapping[str, Any]:
        """The proof, for the gateway.

        Raises:
            UpgradeRefused: nobody whom we know has signed this.
        """
        asked = HttpRequest(
            method="GET",
            raw_path=request.raw_path,
            query_string=request.query_string,
            headers=request.headers,
            body_sha256=None,
            source_ip=request.source_ip,
            secure=request.secure,
            request_id=self._ids.uuid(),
        )
        try:
            caller = await self._authenticator.authenticate_websocket(asked)
            credential = await self._credentials.fetch(self._work, caller.access_key_id)
        except NotAuthenticated as refusal:
            if self._witness is not None:
                self._witness.denied(
                    None,
                    service=WEBSOCKET_SERVICE,
                    operation=OPEN,
                    path=request.raw_path,
                    request_id=asked.request_id,
                    source_ip=request.source_ip,
                )
            logger.info("a WebSocket was refused", source_ip=request.source_ip, why=str(refusal))
            raise UpgradeRefused(HTTPStatus.FORBIDDEN, str(refusal)) from None
        except OverairError as error:
            logger.warning("no verdict about a WebSocket could be reached", error=str(error))
            raise UpgradeRefused(HTTPStatus.SERVICE_UNAVAILABLE, "The request could not be judged now.") from None
        if self._witness is not None:
            self._witness.read(
                CurrentOperation(
                    caller=caller,
                    service=WEBSOCKET_SERVICE,
                    operation=OPEN,
                    resource=caller.place.iot("client", "*"),
                )
            )
        proof = OperatorProof(
            caller,
            None if credential is None else credential.token_sha256,
            work=self._work,
            credentials=self._credentials,
            grants=self._grants,
            clock=self._clock,
        )
        return {"proof": proof, "peer_der": None}
