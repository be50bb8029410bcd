"""A new certificate before the old one ends: asked for at two thirds of its life, with a new key (Uptane reference §12.5)."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import pkcs7

from overair.agent.uptane.https import Answer, TransportFailed
from overair.agent.uptane.identity import (
    UNREADABLE,
    BadIdentity,
    IdentityStore,
    NoIdentity,
    Pending,
    chain_to_pem,
    new_private_key,
    signing_request,
)
from overair.agent.uptane.provisioning import error_of
from overair.basics.clock import Instant

LOG = logging.getLogger("overair.uptane")

AGAIN_AFTER_S: Final = 24 * 3600.0
"""How long an answer is left alone, a refusal or a certificate: a server that issues old ones isn't asked in every round."""
RETRY_AFTER_S_DEFAULT: Final = 3600.0
RETRY_AFTER_S_MAX: Final = 7 * 86_400.0


class Asks(Protocol):
    """Who carries the request: ``uptane.gateway.Gateway``, or the agent's ``IdentityKeeper``."""

    def renew(self, request: bytes) -> Answer:
        """Raises TransportFailed, NoIdentity."""
        ...


class Renewal:
    """Asks when it is time, and not again soon where the answer was no. A request that waits for an authority elsewhere (202)
    is kept with its key, and made again as it was (RFC 7030 §4.2.3)."""

    def __init__(
        self, identities: IdentityStore, gateway: Asks, *, monotonic: Callable[[], float], spread: float = 0.0
    ) -> None:
        """``spread``: how much of a certificate's life after two thirds of it this device waits."""
        self._identities = identities
        self._gateway = gateway
        self._monotonic = monotonic
        self._spread = spread
        self._not_before_s = monotonic()

    def run_if_due(self, now: Instant) -> bool:
        """Whether a new identity lies ready now. Failures are told in the log: the old certificate still holds."""
        present = self._identities.current()
        if present is None or not present.due_for_renewal(now, self._spread) or self._identities.next() is not None:
            return False
        if self._monotonic() < self._not_before_s:
            return False
        pending = self._identities.pending() or _new_request(present.name)
        try:
            answer = self._gateway.renew(base64.b64encode(pending.request_der))
            if answer.status == 202:
                return self._wait(answer, pending)
            if not answer.ok:
                self._identities.drop_pending()
                raise BadIdentity(f"the gateway renews nothing: {' '.join(error_of(answer)).strip()}")
            chain = chain_in(answer.body, pending.public_key)
            self._identities.propose(private_key_pem=pending.private_key_pem, chain_pem=chain_to_pem(chain), name=present.name)
            self._identities.drop_pending()  # its key lies in next.pem by now
        except (TransportFailed, NoIdentity) as error:
            LOG.warning("the certificate isn't renewed yet: %s", error)
            return False
        except BadIdentity as error:
            LOG.warning("the certificate isn't renewed: %s", error)
            self._not_before_s = self._monotonic() + AGAIN_AFTER_S
            return False
        self._not_before_s = self._monotonic() + AGAIN_AFTER_S
        LOG.info("a new certificate came; it is tried at the next call")
        return True

    def _wait(self, answer: Answer, pending: Pending) -> bool:
        text = answer.headers.get("retry-after", "")
        wait_s = float(text) if text.isascii() and text.isdigit() and len(text) < 10 else RETRY_AFTER_S_DEFAULT
        self._not_before_s = self._monotonic() + min(wait_s, RETRY_AFTER_S_MAX)
        self._identities.keep_pending(pending)
        LOG.info("the certificate isn't renewed yet: an authority elsewhere has to; asked again in %.0f s", wait_s)
        return False


def _new_request(name: str) -> Pending:
    key, key_pem = new_private_key()
    return Pending(private_key_pem=key_pem, request_der=signing_request(name, key), public_key=key.public_key())


def chain_in(answer: bytes, key: PublicKeyTypes) -> Sequence[x509.Certificate]:
    """The certificate for this key first, whatever else came after it: from PKCS #7 (in Base64 or not), or from PEM.

    Raises:
        BadIdentity
    """
    try:
        if b"-----BEGIN CERTIFICATE-----" in answer:
            found = x509.load_pem_x509_certificates(answer)
        elif b"-----BEGIN" in answer:
            found = pkcs7.load_pem_pkcs7_certificates(answer)
        else:
            found = pkcs7.load_der_pkcs7_certificates(_decoded(answer))
        mine = [certificate for certificate in found if certificate.public_key() == key]
    except UNREADABLE as error:
        raise BadIdentity(f"The answer holds no certificates that can be read: {error}") from None
    if not mine:
        raise BadIdentity("The answer holds no certificate for the key that was asked for.")
    return [mine[0], *(certificate for certificate in found if certificate != mine[0])]


def _decoded(answer: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(answer.split()), validate=True)
    except (ValueError, binascii.Error):
        return answer
