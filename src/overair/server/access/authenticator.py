"""Who sent this request? Signature Version 4 in header or query, Version 2 in the query of a presigned object link.

Windows: the object store takes a request signed up to 15 minutes away, every other service 5; inside the window a repeat is
accepted, as the cloud does. A presigned object request lives for its own Expires. Comparison is in constant time.
"""

from __future__ import annotations

import re
from hashlib import sha256
from hmac import compare_digest
from typing import Final, NoReturn

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant, as_datetime, from_datetime
from overair.basics.errors import NotAuthenticated
from overair.basics.ids import AccountId
from overair.basics.work import Work
from overair.server.access.keys import CredentialDirectory
from overair.server.access.link_keys import LINK_KEY_PREFIX, LinkKeys
from overair.server.access.model import Credential
from overair.server.aws_protocol.authentication import Authentication, HttpRequest
from overair.server.aws_protocol.operations import Caller
from overair.wire import sigv2, sigv4

OBJECT_STORE: Final = "s3"
SKEW_OBJECT_STORE_MS: Final = 15 * 60_000
SKEW_MS: Final = 5 * 60_000
SERVICES: Final = frozenset({"iot", "iotdata", "iot-jobs-data", "signer", "acm", "s3", "iam", "sts", "overair"})
"""Signing names that this door answers to."""
WEBSOCKET_SERVICE: Final = "iotdevicegateway"
"""Signing name of MQTT over WebSockets, and of nothing else."""
GLOBAL_SERVICES: Final = frozenset({"iam", "sts"})
"""Clients sign these for us-east-1, wherever they are."""
GLOBAL_REGION: Final = "us-east-1"

LINK_METHODS: Final = frozenset({"GET", "HEAD"})
"""What a key made for a device's download may be used with."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# What may stand beside the signature without being covered: the token may be added after signing, the date stands in the
# string that is signed, and the body's hash is a line of the canonical request.
_NEED_NO_COVER: Final = frozenset({b"x-amz-security-token", b"x-amz-date", b"x-amz-content-sha256"})


class SignatureAuthenticator:
    """The operator door's ``Authenticator``.

    ``clock`` is the wall clock; ``schedule_clock`` is the one by which presigned links end (the same in production);
    ``region`` is the one that this server stands for; ``presigned_v2`` lets Version 2 in for presigned object links.
    """

    def __init__(
        self,
        work: Work,
        credentials: CredentialDirectory,
        *,
        clock: Clock,
        region: str,
        schedule_clock: Clock | None = None,
        presigned_v2: bool = True,
        links: LinkKeys | None = None,
    ) -> None:
        self._work = work
        self._credentials = credentials
        self._clock = clock
        self._schedule_clock = schedule_clock or clock
        self._region = region
        self._presigned_v2 = presigned_v2
        self._links = links

    async def authenticate(self, request: HttpRequest) -> Authentication:
        """See ``aws_protocol.authentication.Authenticator``. Subjects: ``missing-token``, ``malformed-signature``,
        ``malformed-query``, ``two-signatures``, ``undated``, ``unsigned-headers``, ``content-sha256``,
        ``content-sha256-missing``, ``content-sha256-unknown``, ``region``, ``service-scope``, ``access-key``,
        ``session-token``, ``expired-token``, ``time-skew``, ``expired``, ``not-yet-valid``, ``presigned-expired``,
        ``signature``, ``signature-version``; a scope of a presigned object request is told as ``malformed-query``."""
        signable = sigv4.SignableRequest(
            method=request.method, path=request.raw_path, query=request.query_string, headers=request.headers
        )
        now = self._clock.now()
        try:
            claim = sigv4.read_claim(signable)
            if claim is not None:
                return await self._version_4(request, signable, claim, now)
            old = sigv2.read_claim(signable)
            if old is not None:
                return await self._version_2(request, signable, old, now)
        except sigv4.MalformedSignature as error:
            raise NotAuthenticated(str(error), subject=error.subject) from None
        if any(name == b"authorization" and value.startswith(b"AWS ") for name, value in request.headers):
            _refuse_version()
        _refuse(
            "missing-token",
            "Missing Authentication Token: every request to this door is signed with AWS Signature Version 4. "
            "Use the AWS CLI or an SDK with the keys that `overair env` prints.",
        )

    async def _version_4(
        self, request: HttpRequest, signable: sigv4.SignableRequest, claim: sigv4.Claim, now: Instant
    ) -> Authentication:
        scope = claim.scope
        self._check_scope(claim)
        if claim.access_key_id.startswith(LINK_KEY_PREFIX) and not (
            claim.in_query and scope.service == OBJECT_STORE and request.method in LINK_METHODS
        ):
            _refuse("session-token", "A link's key is good for GET and HEAD of an object under its presigned link alone.")
        _check_cover(signable, claim)
        payload = _payload(request, signable, claim)
        _check_moment(claim, now, self._schedule_clock)
        credential = await self._credential(claim.access_key_id, claim.security_token, now)
        holds = sigv4.is_signed_by(
            signable,
            claim,
            secret=credential.secret.reveal(),
            payload=payload,
            normalise=scope.service != OBJECT_STORE,
        )
        if not holds:
            _refuse_signature()
        self._credentials.uses.note(credential, service=scope.service, region=scope.region, now=now)
        chunks = None
        if payload in (sigv4.STREAMING_SIGNED, sigv4.STREAMING_SIGNED_TRAILER):
            chunks = sigv4.chunk_signatures(claim, secret=credential.secret.reveal())
        return Authentication(
            caller=caller_of(request, credential, region=self._region, now=now),
            service=scope.service,
            payload=payload,
            chunks=chunks,
            presigned=claim.in_query,
        )

    async def authenticate_websocket(self, request: HttpRequest) -> Caller:
        """Who asks for MQTT over a WebSocket: Version 4 in the query, for the service ``iotdevicegateway``, its session token
        added after signing (wire reference §8.1).

        Raises:
            NotAuthenticated: by the subjects of ``authenticate``.
        """
        signable = sigv4.SignableRequest(
            method=request.method, path=request.raw_path, query=request.query_string, headers=request.headers
        )
        now = self._clock.now()
        try:
            claim = sigv4.read_claim(signable)
            if claim is None or not claim.in_query:
                _refuse("missing-token", "The query of a WebSocket's request is signed with AWS Signature Version 4.")
            if claim.scope.service != WEBSOCKET_SERVICE:
                _refuse("service-scope", f"A WebSocket's request is signed for {WEBSOCKET_SERVICE}.")
            self._check_region(claim)
            if claim.access_key_id.startswith(LINK_KEY_PREFIX):
                _refuse("session-token", "A link's key is good for GET and HEAD of an object alone.")
            _check_cover(signable, claim)
            _check_moment(claim, now, self._schedule_clock)
            credential = await self._credential(claim.access_key_id, claim.security_token, now)
            secret = credential.secret.reveal()
            if not sigv4.is_signed_by(signable, claim, secret=secret, payload=sigv4.EMPTY_SHA256, normalise=True):
                _refuse_signature()
        except sigv4.MalformedSignature as error:
            raise NotAuthenticated(str(error), subject=error.subject) from None
        self._credentials.uses.note(credential, service=WEBSOCKET_SERVICE, region=claim.scope.region, now=now)
        return caller_of(request, credential, region=self._region, now=now)

    async def _version_2(
        self, request: HttpRequest, signable: sigv4.SignableRequest, claim: sigv2.Claim, now: Instant
    ) -> Authentication:
        if not self._presigned_v2 or request.method not in sigv2.METHODS:
            _refuse_version()
        if claim.access_key_id.startswith(LINK_KEY_PREFIX):
            _refuse("session-token", "A link's key is good under Signature Version 4 alone.")
        if b"/" not in request.raw_path.lstrip(b"/"):
            _refuse("signature-version", "Signature Version 2 is taken for links to objects alone; this path names none.")
        uncovered = sigv2.uncovered_parameter(signable)
        if uncovered is not None:
            # Version 2 leaves most of the query unsigned: whoever holds a link could turn it into another request.
            _refuse("signature", f"The parameter {uncovered[:60]!r} isn't covered by a signature of Version 2.")
        if self._schedule_clock.now() // 1000 > claim.expires_epoch_s:
            _refuse("presigned-expired", "Request has expired")
        credential = await self._credential(claim.access_key_id, claim.security_token, now)
        if not sigv2.is_signed_by(signable, claim, secret=credential.secret.reveal()):
            _refuse_signature()
        self._credentials.uses.note(credential, service=OBJECT_STORE, region=self._region, now=now)
        return Authentication(
            caller=caller_of(request, credential, region=self._region, now=now),
            service=OBJECT_STORE,
            payload=sigv4.UNSIGNED_PAYLOAD,
            presigned=True,
        )

    def _check_scope(self, claim: sigv4.Claim) -> None:
        if claim.scope.service not in SERVICES:
            _refuse(
                "malformed-query" if claim.in_query else "service-scope",
                f"Credential should be scoped to a service of this server, not {claim.scope.service[:60]!r}. "
                f"It has: {', '.join(sorted(SERVICES))}.",
            )
        self._check_region(claim)

    def _check_region(self, claim: sigv4.Claim) -> None:
        scope = claim.scope
        is_global = scope.service in GLOBAL_SERVICES and scope.region == GLOBAL_REGION
        if scope.region != self._region and not is_global:
            raise NotAuthenticated(
                f"Credential should be scoped to a valid region: this server is {self._region!r}, the request is signed for "
                f"{scope.region[:60]!r}. Set AWS_DEFAULT_REGION (or --region) to {self._region}.",
                subject="malformed-query" if claim.in_query and scope.service == OBJECT_STORE else "region",
                details={"Region": self._region},
            )

    async def _credential(self, key_id: str, token: str | None, now: Instant) -> Credential:
        if key_id.startswith(LINK_KEY_PREFIX):
            return self._link(key_id, token)
        credential = self._credentials.remembered(key_id)
        if credential is None and len(key_id) <= 32 and key_id.isascii() and key_id.isalnum():
            credential = await self._credentials.fetch(self._work, key_id)
        if credential is None or not credential.is_active:
            _refuse("access-key", f"The security token included in the request is invalid: no active key {key_id[:40]!r}.")
        if credential.token_sha256 is None:
            if token:
                _refuse("session-token", "The security token included in the request is invalid: this key has no sessions.")
            return credential
        if not token:
            # To the object store such a key doesn't exist; the other services speak of a token that is invalid either way.
            _refuse(
                "access-key", "The security token included in the request is invalid: this key is good with its token alone."
            )
        given = sha256(token.encode("utf-8", "replace")).hexdigest()
        if not compare_digest(given, credential.token_sha256):
            _refuse("session-token", "The security token included in the request is invalid.")
        if credential.expires is not None and now >= credential.expires:
            _refuse("expired-token", "The security token included in the request is expired.")
        return credential

    def _link(self, key_id: str, token: str | None) -> Credential:
        credential = None if self._links is None else self._links.open(key_id, token)
        if credential is None:
            _refuse("session-token", "The security token included in the request is invalid.")
        if credential.expires is not None and self._schedule_clock.now() > credential.expires:
            # In the words that tell an agent to ask for a new link (wire reference §7.7).
            _refuse("presigned-expired", "Request has expired")
        return credential


def caller_of(request: HttpRequest, credential: Credential, *, region: str, now: Instant) -> Caller:
    """Whoever holds a credential, as handlers and policies see him for one request."""
    principal_type = "Account" if credential.is_root else "AssumedRole" if credential.session_name else "User"
    context = {
        "aws:PrincipalArn": (credential.role_arn or credential.principal_arn,),
        "aws:PrincipalAccount": (credential.account,),
        "aws:PrincipalType": (principal_type,),
        "aws:userid": (credential.user_id,),
        "aws:RequestedRegion": (region,),
        "aws:SecureTransport": ("true" if request.secure else "false",),
        "aws:CurrentTime": (as_datetime(now).isoformat(),),
        "aws:EpochTime": (str(now // 1000),),
        "aws:ViaAWSService": ("false",),
    }
    context |= {f"aws:PrincipalTag/{tag}": (value,) for tag, value in credential.tags.items()}
    if request.source_ip:
        context["aws:SourceIp"] = (request.source_ip,)
    if credential.user_name:
        context["aws:username"] = (credential.user_name,)
    for name, value in request.headers:
        if name == b"user-agent":
            context["aws:UserAgent"] = (value.decode("latin-1"),)
    return Caller(
        place=Place(region, AccountId(credential.account)),
        principal_arn=credential.principal_arn,
        user_id=credential.user_id,
        access_key_id=credential.key_id,
        now=now,
        is_root=credential.is_root,
        session_name=credential.session_name,
        source_ip=request.source_ip,
        request_id=request.request_id,
        context=context,
    )


def _refuse(subject: str, message: str) -> NoReturn:
    raise NotAuthenticated(message, subject=subject)


def _refuse_version() -> NoReturn:
    _refuse(
        "signature-version",
        "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256 "
        "(in boto3: Config(signature_version='s3v4')).",
    )


def _refuse_signature() -> NoReturn:
    _refuse(
        "signature",
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and "
        "signing method. Consult the service documentation for details.",
    )


def _check_cover(signable: sigv4.SignableRequest, claim: sigv4.Claim) -> None:
    for name, _ in signable.headers:
        if name.startswith(b"x-amz-") and name not in _NEED_NO_COVER and name.decode("latin-1") not in claim.signed_headers:
            unsigned = name.decode("latin-1")[:100]
            raise NotAuthenticated(
                f"There were headers present in the request which were not signed: {unsigned}",
                subject="unsigned-headers",
                details={"HeadersNotSigned": unsigned},
            )


def _payload(request: HttpRequest, signable: sigv4.SignableRequest, claim: sigv4.Claim) -> str:
    """What the signature says about the body, held against the body where that was read already."""
    values = sigv4.header_values(signable.headers, b"x-amz-content-sha256")
    said = values[0].decode("latin-1").strip() if values else None
    if len(values) > 1:
        _refuse("malformed-signature", "A request carries one x-amz-content-sha256 header, not several.")
    if claim.scope.service != OBJECT_STORE and not request.streamed:
        if request.body_sha256 is None:
            # The engine took it for a request to the object store, and reads every other body before it asks who sent it:
            # the scope can be read in two ways, which no client's can.
            _refuse(
                "malformed-query" if claim.in_query else "malformed-signature",
                "A Credential reads KEYID/YYYYMMDD/region/service/aws4_request.",
            )
        if said is not None and said != request.body_sha256:
            _refuse("content-sha256", "The provided 'x-amz-content-sha256' header does not match what was computed.")
        return request.body_sha256
    if said is None:
        if claim.in_query:
            return sigv4.UNSIGNED_PAYLOAD
        _refuse("content-sha256-missing", "Missing required header for this request: x-amz-content-sha256")
    if _SHA256.fullmatch(said):
        if request.body_sha256 is not None and said != request.body_sha256:
            _refuse("content-sha256", "The provided 'x-amz-content-sha256' header does not match what was computed.")
    elif said != sigv4.UNSIGNED_PAYLOAD and said not in sigv4.STREAMING_PAYLOADS:
        _refuse(
            "content-sha256-unknown",
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING- word of Version 4, or a SHA-256 in hexadecimal.",
        )
    return said


def _check_moment(claim: sigv4.Claim, now: Instant, schedule_clock: Clock) -> None:
    try:
        signed_at = from_datetime(claim.signed_at())
    except sigv4.MalformedSignature as error:
        _refuse("malformed-query" if claim.in_query else "undated", str(error))
    if claim.scope.service == OBJECT_STORE:
        if not claim.in_query:
            if abs(now - signed_at) > SKEW_OBJECT_STORE_MS:
                _refuse("time-skew", "The difference between the request time and the current time is too large.")
            return
        if claim.expires_s is None:
            _refuse("malformed-query", "A presigned object request names X-Amz-Expires, 1 to 604800 seconds.")
        if max(now, schedule_clock.now()) < signed_at - SKEW_OBJECT_STORE_MS:
            _refuse("not-yet-valid", "Request is not valid yet")
        if schedule_clock.now() > signed_at + claim.expires_s * 1000:
            _refuse("presigned-expired", "Request has expired")
        return
    allowed_ms = SKEW_MS if claim.expires_s is None else min(SKEW_MS, claim.expires_s * 1000)
    current = sigv4.format_timestamp(as_datetime(now))
    if signed_at < now - allowed_ms:
        earliest = _text(now - allowed_ms)
        _refuse("expired", f"Signature expired: {claim.timestamp} is now earlier than {earliest} ({current} - 5 min.)")
    if signed_at > now + SKEW_MS:
        latest = _text(now + SKEW_MS)
        _refuse("expired", f"Signature not yet current: {claim.timestamp} is still later than {latest} ({current} + 5 min.)")


def _text(moment_ms: int) -> str:
    return sigv4.format_timestamp(as_datetime(Instant(moment_ms)))
