"""Signer's operations. The service's names and members are those of its model (wire reference §6.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import unquote

from overair.basics.arn import Place, parse_arn
from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import AccountId, BucketName, ObjectKey, SigningJobId, SigningProfileName, VersionId
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
from overair.server.signing.permissions import Permission, ProfilePermissions, revision_of, size_bytes_of
from overair.server.signing.platforms import PLATFORMS, Platform, platform_of
from overair.server.signing.ports import JobQuery
from overair.server.signing.service import RevocationQuery, SignedPayload, SigningService

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

    def __init__(self, *, work: Work, signing: SigningService, permissions: ProfilePermissions, access: Access) -> None:
        self._work = work
        self._signing = signing
        self._permissions = permissions
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
        owner, name = _owner(caller, request), SigningProfileName(request["profileName"])

        def unit(tx: Tx) -> Profile:
            self._permissions.require(tx, caller, "signer:GetSigningProfile", owner=owner.account, profile=name)
            return self._signing.profile(tx, owner.account, name)

        profile = await self._work.read(unit)
        revocation = None
        if profile.revoked_at is not None:
            revocation = {
                "revocationEffectiveFrom": profile.revocation_effective_from,
                "revokedAt": profile.revoked_at,
                "revokedBy": profile.revoked_by,
            }
        return {
            **_profile_summary(profile, owner),
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
        owner, plan = _owner(caller, request), _signing_plan(request)

        def unit(tx: Tx) -> SigningJob:
            source = f"arn:aws:s3:::{plan.source.bucket}/{plan.source.key}"
            self._permissions.require(tx, caller, "signer:StartSigningJob", owner=owner.account, profile=plan.profile)
            self._access.require(tx, caller, "s3:GetObjectVersion", source)
            job = self._signing.start(tx, owner, plan, requested_by=caller.principal_arn, invoker=caller.account)
            self._access.require(tx, caller, "s3:PutObject", f"arn:aws:s3:::{plan.destination_bucket}/{job.key}")
            return job

        job = await self._work.run(unit)
        return {"jobId": job.id, "jobOwner": job.account}

    @operation("signer", "DescribeSigningJob")
    async def describe_signing_job(self, caller: Caller, request: Request) -> Members:
        job_id = SigningJobId(request["jobId"])
        job = await self._work.read(lambda tx: self._signing.job_seen_by(tx, caller.account, job_id))
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
            invoker=AccountId(request["jobInvoker"]) if "jobInvoker" in request else None,
        )
        found = await self._work.read(lambda tx: self._signing.jobs(tx, caller.account, query))
        page, token = cut(found, limit, lambda job: (job.created_at, job.id))
        return {"jobs": [_job_summary(job) for job in page], "nextToken": token}

    @operation("signer", "RevokeSignature")
    async def revoke_signature(self, caller: Caller, request: Request) -> Members:
        job_id, owner = SigningJobId(request["jobId"]), AccountId(request.get("jobOwner", caller.account))

        def unit(tx: Tx) -> None:
            if owner != caller.account:
                self._require_of_others(tx, caller, "signer:RevokeSignature", owner, job_id)
            self._signing.revoke_signature(tx, owner, job_id, reason=request["reason"], revoked_by=caller.principal_arn)

        await self._work.run(unit)
        return {}

    @operation("signer", "GetRevocationStatus")
    async def get_revocation_status(self, caller: Caller, request: Request) -> Members:
        """``certificateHashes`` are taken and none is ever revoked: who revokes a signer revokes the profile's version."""
        profile, job = parse_arn(request["profileVersionArn"]), parse_arn(request["jobArn"])
        name, _, version = profile.resource.removeprefix("/signing-profiles/").partition("/")
        if profile.service != "signer" or job.service != "signer" or not version or (profile.account != job.account):
            raise InvalidRequest(
                "profileVersionArn and jobArn are a profile's version and a job that it did, of one account.", subject="jobArn"
            )
        owner = Place(caller.place.region, AccountId(profile.account))
        asked = RevocationQuery(
            signed_at=Instant(request["signatureTimestamp"]),
            platform_id=request["platformId"],
            profile=SigningProfileName(name),
            version=version,
            job=SigningJobId(job.resource.removeprefix("/signing-jobs/")),
        )

        def unit(tx: Tx) -> Sequence[str]:
            if owner.account != caller.account:
                self._require_of_others(tx, caller, "signer:GetSigningProfile", owner.account, asked.job)
            try:
                return self._signing.revoked_entities(tx, owner, asked)
            except NotFound as error:  # the model of this operation has no such error
                raise InvalidRequest(error.message, subject="jobArn") from None

        return {"revokedEntities": list(await self._work.read(unit))}

    @operation("signer", "AddProfilePermission")
    async def add_profile_permission(self, caller: Caller, request: Request) -> Members:
        name = SigningProfileName(request["profileName"])
        permission = Permission(
            statement_id=request["statementId"],
            action=request["action"],
            principal=request["principal"],
            profile_version=request.get("profileVersion"),
        )
        revision = await self._work.run(
            lambda tx: self._permissions.add(tx, caller.account, name, permission, revision=request.get("revisionId"))
        )
        return {"revisionId": revision}

    @operation("signer", "RemoveProfilePermission")
    async def remove_profile_permission(self, caller: Caller, request: Request) -> Members:
        name, statement = SigningProfileName(request["profileName"]), request["statementId"]
        revision = await self._work.run(
            lambda tx: self._permissions.remove(tx, caller.account, name, statement, revision=request["revisionId"])
        )
        return {"revisionId": revision}

    @operation("signer", "ListProfilePermissions")
    async def list_profile_permissions(self, caller: Caller, request: Request) -> Members:
        name = SigningProfileName(request["profileName"])
        position = read_page_token(request.get("nextToken"), tuple[str])
        found = await self._work.read(lambda tx: self._permissions.of(tx, caller.account, name))
        rest = [each for each in found if position is None or each.statement_id > position[0]]
        page, token = cut(rest, PAGE_SIZE_DEFAULT, lambda each: (each.statement_id,))
        return {
            "revisionId": revision_of(found),
            "policySizeBytes": size_bytes_of(found),
            "permissions": [
                {
                    "action": each.action,
                    "principal": each.principal,
                    "statementId": each.statement_id,
                    "profileVersion": each.profile_version,
                }
                for each in page
            ],
            "nextToken": token,
        }

    def _require_of_others(self, tx: Tx, caller: Caller, action: str, owner: AccountId, job_id: SigningJobId) -> None:
        """A right that the profile of another account's job grants. A job that isn't there is refused in the same words."""
        try:
            job = self._signing.job(tx, owner, job_id)
        except NotFound:
            name, version = SigningProfileName("*"), None
        else:
            name, version = job.profile, job.profile_version
        self._permissions.require(tx, caller, action, owner=owner, profile=name, version=version)

    @operation("signer", "SignPayload")
    async def sign_payload(self, caller: Caller, request: Request) -> Members:
        owner, name = _owner(caller, request), SigningProfileName(request["profileName"])
        payload: bytes = request["payload"]

        def unit(tx: Tx) -> SignedPayload:
            self._permissions.require(tx, caller, "signer:SignPayload", owner=owner.account, profile=name)
            who, account = caller.principal_arn, caller.account
            return self._signing.sign_payload(tx, owner, name, payload, requested_by=who, invoker=account)

        signed = await self._work.run(unit)
        return {
            "jobId": signed.job.id,
            "jobOwner": signed.job.account,
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


def _owner(caller: Caller, request: Request) -> Place:
    """Where the profile is that a request names."""
    return Place(caller.place.region, AccountId(request.get("profileOwner", caller.account)))


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
        "jobInvoker": job.invoker,
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
