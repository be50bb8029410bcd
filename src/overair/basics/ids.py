"""Ids: a type for each kind, and one source that makes new ones."""

from __future__ import annotations

import secrets
import string
import uuid
from random import Random
from typing import NewType, Protocol

AccountId = NewType("AccountId", str)
"""Twelve digits."""
ThingName = NewType("ThingName", str)
GroupName = NewType("GroupName", str)
ThingTypeName = NewType("ThingTypeName", str)
CertificateId = NewType("CertificateId", str)
"""SHA-256 of the certificate's DER: 64 lower-case hexadecimal digits."""
PolicyName = NewType("PolicyName", str)
ClientId = NewType("ClientId", str)
JobId = NewType("JobId", str)
StreamId = NewType("StreamId", str)
OtaUpdateId = NewType("OtaUpdateId", str)
BucketName = NewType("BucketName", str)
ObjectKey = NewType("ObjectKey", str)
VersionId = NewType("VersionId", str)
"""Of an object in a bucket; the string ``null`` where the bucket keeps no versions."""
SigningProfileName = NewType("SigningProfileName", str)
SigningJobId = NewType("SigningJobId", str)
AccessKeyId = NewType("AccessKeyId", str)
KeyId = NewType("KeyId", str)
"""Of a private key held by the keyring."""
EcuSerial = NewType("EcuSerial", str)
"""Unique within one vehicle."""
MultiTargetUpdateId = NewType("MultiTargetUpdateId", str)
CampaignId = NewType("CampaignId", str)

UPPER_AND_DIGITS = string.ascii_uppercase + "234567"
ALPHANUMERIC = string.ascii_letters + string.digits


class IdSource(Protocol):
    """Where a part of the program gets a new identity from."""

    def uuid(self) -> str:
        """A random UUID (version 4) as 36 characters."""
        ...

    def token(self, length: int, alphabet: str = ALPHANUMERIC) -> str:
        """``length`` characters drawn from ``alphabet``."""
        ...

    def secret_bytes(self, size_bytes: int) -> bytes:
        """Random bytes fit for a key."""
        ...


class RandomIds:
    """Ids from the operating system's generator."""

    def uuid(self) -> str:
        return str(uuid.uuid4())

    def token(self, length: int, alphabet: str = ALPHANUMERIC) -> str:
        return "".join(secrets.choice(alphabet) for _ in range(length))

    def secret_bytes(self, size_bytes: int) -> bytes:
        return secrets.token_bytes(size_bytes)


class SeededIds:
    """Repeatable ids for tests and simulation. Never for anything that must be secret."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def token(self, length: int, alphabet: str = ALPHANUMERIC) -> str:
        return "".join(self._random.choice(alphabet) for _ in range(length))

    def secret_bytes(self, size_bytes: int) -> bytes:
        return self._random.randbytes(size_bytes)
