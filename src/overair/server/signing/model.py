"""Profiles and signing jobs. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Instant, as_datetime
from overair.basics.errors import InvalidStateTransition
from overair.basics.ids import AccountId, BucketName, ObjectKey, SigningJobId, SigningProfileName, VersionId

DAY_MS: Final = 24 * 3600 * 1000
VALIDITY_DEFAULT_DAYS: Final = 135 * 30
"""Signer's default of 135 months, when a profile names no period."""
VALIDITY_DAYS_MAX: Final = 100 * 366
PROFILE_VERSION_LENGTH: Final = 10
PARAMETERS_PER_PROFILE_MAX: Final = 50
PARAMETER_LENGTH_MAX: Final = 1024
PREFIX_LENGTH_MAX: Final = 900
"""An object's key has at most 1024 bytes; the job's id and a margin go behind the prefix."""
PAYLOAD_SIZE_BYTES_MAX: Final = 4096
"""Of SignPayload (Signer API reference)."""
CERTIFICATE_NAME_PARAMETER: Final = "certname"
"""The profile parameter that names the verification certificate on the device (wire reference §6.3)."""


class Encryption(StrEnum):
    """The family of the signing key, in Signer's word for it."""

    RSA = "RSA"
    ECDSA = "ECDSA"


class Hash(StrEnum):
    SHA1 = "SHA1"
    SHA256 = "SHA256"


class ImageFormat(StrEnum):
    """How signature and image are put together (wire reference §6.4). ``JSON`` means embedded."""

    JSON = "JSON"
    JSON_EMBEDDED = "JSONEmbedded"
    JSON_DETACHED = "JSONDetached"


class ProfileStatus(StrEnum):
    ACTIVE = "Active"
    CANCELED = "Canceled"
    REVOKED = "Revoked"


class JobStatus(StrEnum):
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    SUCCEEDED = "Succeeded"


JOB_MAY_BECOME: Final[Mapping[JobStatus, frozenset[JobStatus]]] = {
    JobStatus.IN_PROGRESS: frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
}

PROFILE_MAY_BECOME: Final[Mapping[ProfileStatus, frozenset[ProfileStatus]]] = {
    ProfileStatus.ACTIVE: frozenset({ProfileStatus.CANCELED, ProfileStatus.REVOKED}),
    ProfileStatus.CANCELED: frozenset({ProfileStatus.CANCELED}),
    ProfileStatus.REVOKED: frozenset({ProfileStatus.CANCELED, ProfileStatus.REVOKED}),
}
"""Absent means refused. Nothing leads back to Active: a name stays taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """What a signature is made with."""

    encryption: Encryption
    hash: Hash

    @property
    def signer_name(self) -> str:
        """``SHA256withECDSA``: the word in the signed object."""
        return f"{self.hash}with{self.encryption}"

    @property
    def keyring_name(self) -> str:
        """``ecdsa-sha256``, ``rsa-pkcs1-sha256``: the keyring's word."""
        family = "ecdsa" if self.encryption is Encryption.ECDSA else "rsa-pkcs1"
        return f"{family}-{self.hash.lower()}"

    @property
    def document_key(self) -> str:
        """``sig-sha256-ecdsa``: the key of the signature in an ``afr_ota`` document (wire reference §5.1)."""
        return f"sig-{self.hash.lower()}-{self.encryption.lower()}"


def algorithm_of(signer_name: str) -> Algorithm:
    """The reverse of ``signer_name``. The text comes from our own records: another one is a bug."""
    hash_name, _, encryption = signer_name.partition("with")
    return Algorithm(encryption=Encryption(encryption), hash=Hash(hash_name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """How long signatures of a profile count: ``value`` times ``unit`` (``DAYS``, ``MONTHS``, ``YEARS``)."""

    value: int
    unit: str

    @property
    def days(self) -> int:
        """Months are counted as 30 days, years as 365."""
        return self.value * {"DAYS": 1, "MONTHS": 30, "YEARS": 365}[self.unit]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilePlan:
    """What an operator asks a profile to be; two equal plans are the same version."""

    platform_id: str
    certificate_arn: str
    parameters: Mapping[str, str]
    encryption: Encryption | None = None
    hash: Hash | None = None
    image_format: ImageFormat | None = None
    validity: Validity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One version of a signing profile."""

    name: SigningProfileName
    version: str
    """Ten letters and digits."""
    plan: ProfilePlan
    status: ProfileStatus
    status_reason: str | None
    created_at: Instant
    testing_only: bool
    """The certificate is self-signed: fine on a bench, no proof of who signed in a fleet."""
    tags: Mapping[str, str]
    revoked_at: Instant | None = None
    revoked_by: str | None = None
    revocation_effective_from: Instant | None = None

    def become(self, status: ProfileStatus, *, reason: str) -> Profile:
        """Raises:
        InvalidStateTransition: the table above doesn't allow it.
        """
        if status not in PROFILE_MAY_BECOME[self.status]:
            raise InvalidStateTransition(
                f"Signing profile {self.name} is {self.status} and can't become {status}. Make a profile with another name.",
                subject="signing profile",
            )
        return replace(self, status=status, status_reason=reason)

    def arn(self, place: Place) -> str:
        return place.signer(f"/signing-profiles/{self.name}")

    def version_arn(self, place: Place) -> str:
        return place.signer(f"/signing-profiles/{self.name}/{self.version}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectLocation:
    """One version of one object."""

    bucket: BucketName
    key: ObjectKey
    version: VersionId


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningPlan:
    """What StartSigningJob asks for."""

    profile: SigningProfileName
    source: ObjectLocation
    destination_bucket: BucketName
    destination_prefix: str
    client_request_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedObject:
    """What a job leaves behind."""

    location: ObjectLocation
    """Where the signed object stands: the version that holds Signer's JSON."""
    signature: str
    """Base64 of the DER (ECDSA) or PKCS#1 (RSA) signature over the image's bytes."""
    algorithm: Algorithm

    @property
    def signature_bytes(self) -> bytes:
        """The signature itself."""
        return base64.b64decode(self.signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedBy:
    """The certificate whose key made a signature."""

    sha256: str
    """Of its DER: what devices and agents call its fingerprint."""
    not_after: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningJob:
    account: AccountId
    region: str
    id: SigningJobId
    plan: SigningPlan | None
    """None for SignPayload, which has neither source nor destination."""
    profile: SigningProfileName
    profile_version: str
    platform_id: str
    certificate_arn: str
    parameters: Mapping[str, str]
    algorithm: Algorithm
    image_format: ImageFormat
    requested_by: str
    invoker: AccountId
    """Whose principal asked, and whose buckets source and destination are. Another account than the profile's owner, where the
    profile permits it."""
    status: JobStatus
    status_reason: str | None
    created_at: Instant
    completed_at: Instant | None = None
    expires_at: Instant | None = None
    signed: SignedObject | None = None
    certificate: SignedBy | None = None
    """What signed it, as the certificate stood then; None until it is signed, and for jobs of an older version of Overair."""
    revoked_at: Instant | None = None
    revoked_by: str | None = None
    revocation_reason: str | None = None

    @property
    def place(self) -> Place:
        return Place(self.region, self.account)

    @property
    def objects_place(self) -> Place:
        """Where source and destination are."""
        return Place(self.region, self.invoker)

    @property
    def key(self) -> ObjectKey:
        """``{prefix}{job id}``, with no extension (wire reference §6.4)."""
        return ObjectKey(f"{self.plan.destination_prefix if self.plan else ''}{self.id}")

    def succeeded(self, signed: SignedObject | None, *, certificate: SignedBy, now: Instant) -> SigningJob:
        self._require(JobStatus.SUCCEEDED)
        return replace(
            self, status=JobStatus.SUCCEEDED, signed=signed, certificate=certificate, completed_at=now, status_reason=None
        )

    def failed(self, reason: str, *, now: Instant) -> SigningJob:
        self._require(JobStatus.FAILED)
        return replace(self, status=JobStatus.FAILED, completed_at=now, status_reason=reason)

    def _require(self, status: JobStatus) -> None:
        if status not in JOB_MAY_BECOME[self.status]:
            raise InvalidStateTransition(f"Signing job {self.id} is already {self.status}.", subject="signing job")


class Fault(StrEnum):
    """Why a signature doesn't count any more; the word is the ``reasonCode`` of the job that it stops."""

    REVOKED = "SIGNATURE_REVOKED"
    EXPIRED = "SIGNATURE_EXPIRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Whether a signature counts now. The certificate's own end is no fault: what was signed before it stays signed."""

    job: SigningJob
    fault: Fault | None = None
    why: str = ""
    """As a sentence."""


def standing_of(job: SigningJob, profile: Profile | None, *, now: Instant) -> Standing:
    """By Signer's own rules: a signature counts until its validity period ends, unless it, or the version of the profile that
    made it, was revoked. ``profile``: that version."""
    if job.revoked_at is not None:
        told = f"The signature of signing job {job.id} was revoked at {_moment(job.revoked_at)}: {job.revocation_reason}"
        return Standing(job=job, fault=Fault.REVOKED, why=told)
    since = None if profile is None else profile.revocation_effective_from
    if profile is not None and since is not None and (job.completed_at or job.created_at) >= since:
        told = (
            f"Version {profile.version} of signing profile {profile.name} was revoked for all that it signed since "
            f"{_moment(since)}, signing job {job.id} included: {profile.status_reason}"
        )
        return Standing(job=job, fault=Fault.REVOKED, why=told)
    if job.expires_at is not None and now > job.expires_at:
        told = f"The validity period of the signature of signing job {job.id} ended at {_moment(job.expires_at)}."
        return Standing(job=job, fault=Fault.EXPIRED, why=told)
    return Standing(job=job)


def _moment(instant: Instant) -> str:
    return as_datetime(instant).strftime("%Y-%m-%d %H:%M:%S UTC")


def expiry(now: Instant, validity: Validity | None) -> Instant:
    """When a signature made now stops counting."""
    days = validity.days if validity is not None else VALIDITY_DEFAULT_DAYS
    return Instant(now + days * DAY_MS)


def signature_text(signature: bytes) -> str:
    """Base64 with the standard alphabet, as the signed object and the job document carry it."""
    return base64.b64encode(signature).decode()


def is_embedded(image_format: ImageFormat) -> bool:
    """Whether the signed object holds the image itself; plain ``JSON`` does."""
    return image_format is not ImageFormat.JSON_DETACHED
