"""Whom a device trusts follows the server: it asks over a connection that it trusts, stores the answer, and says so.

What the server named last is remembered apart: an authority that it names no longer goes, and what else is in ``ca.pem`` stays.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from overair.agent.durable import Disk
from overair.agent.uptane.https import Answer
from overair.agent.uptane.identity import UNREADABLE, BadIdentity, certificates_in, chain_to_pem

LOG = logging.getLogger("overair.agent.identity")

PATH: Final = "/.well-known/est/server/cacerts"
FILE_NAME: Final = "server-authorities.pem"


class ServerTrust:
    """The authorities of one device's server. ``ask`` asks for ``PATH`` with an entity tag, or with none where it is empty."""

    def __init__(self, ca_file: Path, disk: Disk, ask: Callable[[str], Answer]) -> None:
        self._ca_file = ca_file
        self._handed_out = ca_file.with_name(FILE_NAME)
        self._disk = disk
        self._ask = ask

    def refresh(self) -> bool:
        """One look; whether the device trusts others now.

        Raises:
            BadIdentity: the answer or ``ca.pem`` can't be read.
            TransportFailed, NoIdentity: of ``ask``.
        """
        before = certificates_in(self._ca_file.read_bytes())
        handed_out = self._stored(before)
        answer = self._ask(_tag(handed_out))
        if answer.status != 200:
            return False
        named = _certificates(answer.body)
        others = [each for each in before if each not in (*handed_out, *named)]
        # The wider file first: a power cut between the two leaves an authority too many, never one too few.
        self._disk.write_whole(self._ca_file, chain_to_pem([*named, *others]), mode=0o644)
        self._disk.write_whole(self._handed_out, chain_to_pem(named), mode=0o644)
        self._ask(_tag(named))
        is_new = set(before) != {*named, *others}
        if is_new:
            LOG.info("the server names %d authorities to trust: they are stored", len(named))
        return is_new

    def _stored(self, trusted: Sequence[x509.Certificate]) -> Sequence[x509.Certificate]:
        """What the server named last; nothing where somebody has taken some of it out of ``ca.pem`` since."""
        try:
            found = certificates_in(self._handed_out.read_bytes())
        except (FileNotFoundError, BadIdentity):
            return ()
        return found if all(each in trusted for each in found) else ()


def _certificates(body: bytes) -> Sequence[x509.Certificate]:
    """Those of a certs-only PKCS #7 in Base64.

    Raises:
        BadIdentity
    """
    try:
        found = pkcs7.load_der_pkcs7_certificates(base64.b64decode(b"".join(body.split()), validate=True))
    except (*UNREADABLE, binascii.Error) as error:
        raise BadIdentity(f"The answer holds no certificates that can be read: {error}") from None
    if not found:
        raise BadIdentity("The answer names nobody to trust.")
    return found


def _tag(certificates: Sequence[x509.Certificate]) -> str:
    """As the server names what it has handed out: whatever the order, which a certs-only message doesn't keep."""
    if not certificates:
        return ""
    ders = b"".join(sorted(each.public_bytes(serialization.Encoding.DER) for each in certificates))
    return f'"{hashlib.sha256(ders).hexdigest()}"'
