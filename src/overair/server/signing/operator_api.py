"""Signer's operations. The service's names and members are those of its model (wire reference §6.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import unquote

from overair.basics.arn import Place, parse_arn
from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest, NotFound, Unsupported
from overair.basics.ids import BucketName, ObjectKey, SigningJobId, SigningProfileName, VersionId
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import cut, read_page_token
from overair.server.signing.model import (
    Encryption,
    Hash,
    ImageFormat,
    JobStatus,
    ObjectLocation,
    Profile,
    ProfilePlan,
    ProfileStatus,
    SigningJob,
    SigningPlan,
    Validity,
)
from overair.server.signing.platforms import PLATFORMS, Platform, platform_of
from overair.server.signing.ports import JobQuery
from overair.server.signing.service import SigningService

PAGE_SIZE_DEFAULT: Final = 25


class Access(Protocol):
    """Whoever decides what an operator may do beyond the operation itself."""

    def require(self, tx: Tx, caller: Caller, action: str, resource: str) -> None:
        """Raises:
        AccessDenied: no policy of the caller allows it, or one denies it.
        """
        ...


class SigningOperations:
    """Signer, for operators."""

    def __init__(self, *, work: Work, signing: SigningService, access: Access) -> None:
        self._work = work
        self._signing = signing
        self._access = access

    @operation("signer", "PutSigningProfile")
    async def put_signing_profile(self, caller: Caller, request: Request) -> Members:
        name = SigningProfileName(request["profileName"])
        plan = _profile_plan(request)
        tags = request.get("tags", {})
        profile = await self._work.run(lambda tx: self._signing.put_profile(tx, caller.place, name, plan, tags=tags))
        return {
            "arn": profile.arn(caller.place),
            "profileVersion": profile.version,
            "profileVersionArn": profile.version_arn(caller.place),
        }

    @operation("signer", "GetSigningProfile")
    async def get_signing_profile(self, caller: Caller, request: Request) -> Members:
        _refuse_other_owner(caller, request.get("profileOwner"))
        name = SigningProfileName(request["profileName"])
        profile = await self._work.read(lambda tx: self._signing.profile(tx, caller.account, name))
        revocation = None
        if profile.revoked_at is not None:
            revocation = {
                "revocationEffectiveFrom": profile.revocation_effective_from,
                "revokedAt": profile.revoked_at,
                "revokedBy": profile.revoked_by,
            }
        return {
            **_profile_summary(profile, caller.place),
            "overrides": _overrides(profile.plan),
            "statusReason": profile.status_reason,
            "revocationRecord": revocation,
        }

    @operation("signer", "ListSigningProfiles")
    async def list_signing_profiles(self, caller: Caller, request: Request) -> Members:
        statuses = [ProfileStatus(status) for status in request.get("statuses", [])] or [ProfileStatus.ACTIVE]
        if request.get("includeCanceled") and ProfileStatus.CANCELED not in statuses:
            statuses.append(ProfileStatus.CANCELED)
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        position = read_page_token(request.get("nextToken"), tuple[str])
        after = SigningProfileName(position[0]) if position else None
        found = await self._work.read(
            lambda tx: self._signing.profiles(
                tx,
                caller.account,
                statuses=statuses,
                platform_id=request.get("platformId"),
                after=after,
                limit=limit + 1,
            )
        )
        page, token = cut(found, limit, lambda profile: (profile.name,))
        return {"profiles": [_profile_summary(profile, caller.place) for profile in page], "nextToken": token}

    @operation("signer", "CancelSigningProfile")
    async def cancel_signing_profile(self, caller: Caller, request: Request) -> Members:
        name = SigningProfileName(request["profileName"])
        await self._work.run(lambda tx: self._signing.cancel_profile(tx, caller.account, name))
        return {}

    @operation("signer", "RevokeSigningProfile")
    async def revoke_signing_profile(self, caller: Caller, request: Request) -> Members:
        name = SigningProfileName(request["profileName"])
        await self._work.run(
            lambda tx: self._signing.revoke_profile(
                tx,
                caller.account,
                name,
                version=request["profileVersion"],
                reason=request["reason"],
                effective_from=Instant(request["effectiveTime"]),
                revoked_by=caller.principal_arn,
            )
        )
        return {}

    @operation("signer", "StartSigningJob")
    async def start_signing_job(self, caller: Caller, request: Request) -> Members:
        """The signed object is written, and the image read, with the caller's own rights: the caller needs both."""
        _refuse_other_owner(caller, request.get("profileOwner"))
        plan = _signing_plan(request)

        def unit(tx: Tx) -> SigningJob:
            source = f"arn:aws:s3:::{plan.source.bucket}/{plan.source.key}"
            self._access.require(tx, caller, "s3:GetObjectVersion", source)
            job = self._signing.start(tx, caller.place, plan, requested_by=caller.principal_arn)
            self._access.require(tx, caller, "s3:PutObject", f"arn:aws:s3:::{plan.destination_bucket}/{job.key}")
            return job

        job = await self._work.run(unit)
        return {"jobId": job.id, "jobOwner": caller.account}

    @operation("signer", "DescribeSigningJob")
    async def describe_signing_job(self, caller: Caller, request: Request) -> Members:
        job_id = SigningJobId(request["jobId"])
        job = await self._work.read(lambda tx: self._signing.job(tx, caller.account, job_id))
        revocation = None
        if job.revoked_at is not None:
            revocation = {"reason": job.revocation_reason, "revokedAt": job.revoked_at, "revokedBy": job.revoked_by}
        return {
            **_job_summary(job),
            "overrides": {
                "signingConfiguration": {
                    "encryptionAlgorithm": job.algorithm.encryption.value,
                    "hashAlgorithm": job.algorithm.hash.value,
                },
                "signingImageFormat": job.image_format.value,
            },
            "signingParameters": job.parameters,
            "completedAt": job.completed_at,
            "requestedBy": job.requested_by,
            "statusReason": job.status_reason,
            "revocationRecord": revocation,
            "isRevoked": None,
        }

    @operation("signer", "ListSigningJobs")
    async def list_signing_jobs(self, caller: Caller, request: Request) -> Members:
        invoker = request.get("jobInvoker")
        if invoker is not None and invoker != caller.account:
            return {"jobs": []}
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        position = read_page_token(request.get("nextToken"), tuple[int, str])
        query = JobQuery(
            limit=limit + 1,
            after=(Instant(position[0]), SigningJobId(position[1])) if position else None,
            status=JobStatus(request["status"]) if "status" in request else None,
            platform_id=request.get("platformId"),
            requested_by=request.get("requestedBy"),
            is_revoked=request.get("isRevoked"),
            expires_before=request.get("signatureExpiresBefore"),
            expires_after=request.get("signatureExpiresAfter"),
        )
        found = await self._work.read(lambda tx: self._signing.jobs(tx, caller.account, query))
        page, token = cut(found, limit, lambda job: (job.created_at, job.id))
        return {"jobs": [_job_summary(job) for job in page], "nextToken": token}

    @operation("signer", "RevokeSignature")
    async def revoke_signature(self, caller: Caller, request: Request) -> Members:
        _refuse_other_owner(caller, request.get("jobOwner"))
        job_id = SigningJobId(request["jobId"])
        await self._work.run(
            lambda tx: self._signing.revoke_signature(
                tx, caller.account, job_id, reason=request["reason"], revoked_by=caller.principal_arn
            )
        )
        return {}

    @operation("signer", "SignPayload")
    async def sign_payload(self, caller: Caller, request: Request) -> Members:
        _refuse_other_owner(caller, request.get("profileOwner"))
        name = SigningProfileName(request["profileName"])
        payload: bytes = request["payload"]
        signed = await self._work.run(
            lambda tx: self._signing.sign_payload(tx, caller.place, name, payload, requested_by=caller.principal_arn)
        )
        return {
            "jobId": signed.job.id,
            "jobOwner": caller.account,
            "metadata": {"signatureAlgorithm": signed.job.algorithm.signer_name},
            "signature": signed.signature,
        }

    @operation("signer", "GetSigningPlatform")
    async def get_signing_platform(self, caller: Caller, request: Request) -> Members:
        return _platform_members(platform_of(request["platformId"], asked_by_name=True))

    @operation("signer", "ListSigningPlatforms")
    async def list_signing_platforms(self, caller: Caller, request: Request) -> Members:
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        position = read_page_token(request.get("nextToken"), tuple[str])
        found = [
            platform
            for platform in sorted(PLATFORMS.values(), key=lambda platform: platform.id)
            if (position is None or platform.id > position[0])
            and request.get("category") in (None, platform.category)
            and request.get("partner") in (None, platform.partner)
            and request.get("target") in (None, platform.target)
        ]
        page, token = cut(found, limit, lambda platform: (platform.id,))
        return {"platforms": [_platform_members(platform) for platform in page], "nextToken": token}

    @operation("signer", "TagResource")
    async def tag_resource(self, caller: Caller, request: Request) -> Members:
        name = _tagged_profile(caller, request["resourceArn"])
        tags: Mapping[str, str] = request["tags"]
        await self._work.run(lambda tx: self._signing.tag_profile(tx, caller.account, name, add=tags))
        return {}

    @operation("signer", "UntagResource")
    async def untag_resource(self, caller: Caller, request: Request) -> Members:
        name = _tagged_profile(caller, request["resourceArn"])
        keys: list[str] = request["tagKeys"]
        await self._work.run(lambda tx: self._signing.tag_profile(tx, caller.account, name, add={}, remove=keys))
        return {}

    @operation("signer", "ListTagsForResource")
    async def list_tags_for_resource(self, caller: Caller, request: Request) -> Members:
        name = _tagged_profile(caller, request["resourceArn"])
        profile = await self._work.read(lambda tx: self._signing.profile(tx, caller.account, name))
        return {"tags": profile.tags}


def _refuse_other_owner(caller: Caller, owner: str | None) -> None:
    if owner is not None and owner != caller.account:
        raise Unsupported(
            f"Profiles are not shared between accounts here: leave profileOwner out or give {caller.account}.",
            subject="profileOwner",
        )


def _tagged_profile(caller: Caller, resource_arn: str) -> SigningProfileName:
    arn = parse_arn(unquote(resource_arn))
    kind, _, name = arn.resource.removeprefix("/").partition("/")
    if arn.service != "signer" or kind != "signing-profiles" or not name:
        raise InvalidRequest(f"{resource_arn} is no signing profile. Only profiles carry tags.", subject="tags")
    if arn.account != caller.account or arn.region != caller.place.region:
        raise NotFound(f"There is no {resource_arn} here.", subject="tags")
    return SigningProfileName(name.partition("/")[0])


def _profile_plan(request: Request) -> ProfilePlan:
    material = request.get("signingMaterial")
    if material is None:
        raise InvalidRequest(
            "A profile needs signingMaterial.certificateArn: the code-signing certificate, imported with ImportCertificate.",
            subject="signing profile",
        )
    overrides: Mapping[str, Any] = request.get("overrides", {})
    configuration: Mapping[str, Any] = overrides.get("signingConfiguration", {})
    encryption, hash_name = configuration.get("encryptionAlgorithm"), configuration.get("hashAlgorithm")
    image_format = overrides.get("signingImageFormat")
    return ProfilePlan(
        platform_id=request["platformId"],
        certificate_arn=material["certificateArn"],
        parameters=dict(request.get("signingParameters", {})),
        encryption=Encryption(encryption) if encryption else None,
        hash=Hash(hash_name) if hash_name else None,
        image_format=ImageFormat(image_format) if image_format else None,
        validity=_validity(request.get("signatureValidityPeriod")),
    )


def _validity(period: Mapping[str, Any] | None) -> Validity | None:
    if not period:
        return None
    if "value" not in period or "type" not in period:
        raise InvalidRequest("signatureValidityPeriod needs both value and type.", subject="signatureValidityPeriod")
    return Validity(value=period["value"], unit=period["type"])


def _signing_plan(request: Request) -> SigningPlan:
    source = request["source"].get("s3")
    if source is None:
        raise InvalidRequest("source.s3 with bucketName, key and version is needed.", subject="source")
    destination = request["destination"].get("s3", {})
    return SigningPlan(
        profile=SigningProfileName(request["profileName"]),
        source=ObjectLocation(
            bucket=BucketName(source["bucketName"]),
            key=ObjectKey(source["key"]),
            version=VersionId(source["version"]),
        ),
        destination_bucket=BucketName(destination.get("bucketName") or source["bucketName"]),
        destination_prefix=destination.get("prefix", ""),
        client_request_token=request["clientRequestToken"],
    )


def _overrides(plan: ProfilePlan) -> Members | None:
    configuration = {
        "encryptionAlgorithm": plan.encryption.value if plan.encryption else None,
        "hashAlgorithm": plan.hash.value if plan.hash else None,
    }
    if plan.encryption is None and plan.hash is None and plan.image_format is None:
        return None
    return {
        "signingConfiguration": configuration if plan.encryption or plan.hash else None,
        "signingImageFormat": plan.image_format.value if plan.image_format else None,
    }


def _profile_summary(profile: Profile, place: Place) -> dict[str, Any]:
    validity = profile.plan.validity
    return {
        "profileName": profile.name,
        "profileVersion": profile.version,
        "profileVersionArn": profile.version_arn(place),
        "signingMaterial": {"certificateArn": profile.plan.certificate_arn},
        "signatureValidityPeriod": {"value": validity.value, "type": validity.unit} if validity else None,
        "platformId": profile.plan.platform_id,
        "platformDisplayName": PLATFORMS[profile.plan.platform_id].display_name,
        "signingParameters": profile.plan.parameters or None,
        "status": profile.status.value,
        "arn": profile.arn(place),
        "tags": profile.tags or None,
    }


def _job_summary(job: SigningJob) -> dict[str, Any]:
    source = signed = None
    if job.plan is not None:
        at = job.plan.source
        source = {"s3": {"bucketName": at.bucket, "key": at.key, "version": at.version}}
    if job.signed is not None:
        signed = {"s3": {"bucketName": job.signed.location.bucket, "key": job.signed.location.key}}
    return {
        "jobId": job.id,
        "source": source,
        "signedObject": signed,
        "signingMaterial": {"certificateArn": job.certificate_arn},
        "createdAt": job.created_at,
        "status": job.status.value,
        "isRevoked": job.revoked_at is not None,
        "profileName": job.profile,
        "profileVersion": job.profile_version,
        "platformId": job.platform_id,
        "platformDisplayName": PLATFORMS[job.platform_id].display_name,
        "signatureExpiresAt": job.expires_at,
        "jobOwner": job.account,
        "jobInvoker": job.account,
    }


def _platform_members(platform: Platform) -> dict[str, Any]:
    return {
        "platformId": platform.id,
        "displayName": platform.display_name,
        "partner": platform.partner,
        "target": platform.target,
        "category": platform.category,
        "signingConfiguration": {
            "encryptionAlgorithmOptions": {
                "allowedValues": [encryption.value for encryption in platform.encryptions],
                "defaultValue": platform.encryptions[0].value,
            },
            "hashAlgorithmOptions": {
                "allowedValues": [hash_name.value for hash_name in platform.hashes],
                "defaultValue": platform.hashes[0].value,
            },
        },
        "signingImageFormat": {
            "supportedFormats": [image_format.value for image_format in platform.image_formats],
            "defaultFormat": platform.image_formats[0].value,
        },
        "maxSizeInMB": platform.image_size_bytes_max // (1024 * 1024),
        "revocationSupported": True,
    }
