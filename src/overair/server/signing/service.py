"""Signing profiles and jobs: the verbs. The signing itself is a durable step of ``worker.py``."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from overair.basics.arn import Place, parse_arn
from overair.basics.clock import Clock, Instant
from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import AccountId, IdSource, KeyId, SigningJobId, SigningProfileName
from overair.basics.work import News, Tx
from overair.server.keyring.service import Keyring
from overair.server.objects.service import ObjectsService
from overair.server.signing.code_signing_certificate import CodeSigner, check_code_signing_certificate
from overair.server.signing.limits import check_name, check_plan, check_tags
from overair.server.signing.model import (
    PAYLOAD_SIZE_BYTES_MAX,
    PREFIX_LENGTH_MAX,
    PROFILE_VERSION_LENGTH,
    Algorithm,
    JobStatus,
    Profile,
    ProfilePlan,
    ProfileStatus,
    SigningJob,
    SigningPlan,
    Standing,
    expiry,
    standing_of,
)
from overair.server.signing.platforms import Platform, choose_algorithm, platform_of
from overair.server.signing.ports import Certificates, JobQuery, SignatureUsers, SigningStore

__all__ = ["Certificates", "Fitness", "JobQuery", "SignatureUsers", "SignedPayload", "SigningService", "SigningStore"]

CLIENT_REQUEST_TOKEN_LENGTH_MAX: Final = 512
REASON_LENGTH_MAX: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitness:
    """A profile's certificate, checked for use now."""

    signer: CodeSigner
    platform: Platform
    algorithm: Algorithm
    key_id: KeyId


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPayload:
    job: SigningJob
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationQuery:
    """What GetRevocationStatus asks about."""

    signed_at: Instant
    platform_id: str
    profile: SigningProfileName
    version: str
    job: SigningJobId


class SigningService:
    """Profiles, jobs and payload signatures of one server.

    ``wake`` is called after the commit of anything that gives a worker something to do.
    """

    def __init__(
        self,
        *,
        store: SigningStore,
        clock: Clock,
        ids: IdSource,
        certificates: Certificates,
        keyring: Keyring,
        objects: ObjectsService,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._certificates = certificates
        self._keyring = keyring
        self._objects = objects
        self._wake = wake
        self._users: list[SignatureUsers] = []

    def signatures_used_by(self, users: SignatureUsers) -> None:
        """Register, at composition, a room above that sends out what was signed."""
        self._users.append(users)

    # Profiles

    def put_profile(
        self, tx: Tx, place: Place, name: SigningProfileName, plan: ProfilePlan, *, tags: Mapping[str, str]
    ) -> Profile:
        """Make a profile, or a new version of one. The same plan again is the same version.

        Raises:
            NotFound: there is no such certificate.
            InvalidRequest: the certificate isn't fit to sign code, platform and key don't go together, a limit is broken, or
                the profile was cancelled or revoked: its name stays taken.
        """
        check_name(name)
        check_plan(plan)
        check_tags(tags)
        present = self._store.profile(tx, place.account, name)
        if present is not None and present.status is not ProfileStatus.ACTIVE:
            raise InvalidRequest(
                f"Signing profile {name} is {present.status} and its name stays taken. Make one with another name.",
                subject="signing profile",
            )
        fitness = self.fitness(tx, place, plan)
        if present is not None and present.plan == plan:
            return present
        profile = Profile(
            name=name,
            version=self._ids.token(PROFILE_VERSION_LENGTH),
            plan=plan,
            status=ProfileStatus.ACTIVE,
            status_reason=None,
            created_at=self._clock.now(),
            testing_only=fitness.signer.self_signed,
            tags=tags or (present.tags if present is not None else {}),
        )
        self._store.add_profile(tx, place.account, profile)
        return profile

    def profile(self, tx: Tx, account: AccountId, name: SigningProfileName) -> Profile:
        """The current version of a profile, cancelled ones included.

        Raises:
            NotFound: there is none of that name.
        """
        profile = self._store.profile(tx, account, name)
        if profile is None:
            raise NotFound(f"There is no signing profile {name}. Make one with PutSigningProfile.", subject="signing profile")
        return profile

    def profiles(
        self,
        tx: Tx,
        account: AccountId,
        *,
        statuses: Sequence[ProfileStatus] = (ProfileStatus.ACTIVE,),
        platform_id: str | None = None,
        after: SigningProfileName | None = None,
        limit: int,
    ) -> Sequence[Profile]:
        """Current versions by name."""
        return self._store.profiles(tx, account, statuses=statuses, platform_id=platform_id, after=after, limit=limit)

    def cancel_profile(self, tx: Tx, account: AccountId, name: SigningProfileName) -> Profile:
        """No new job may use it; what was signed stays valid. Cancelling again changes nothing.

        Raises:
            NotFound: there is none of that name.
        """
        profile = self.profile(tx, account, name)
        if profile.status is ProfileStatus.CANCELED:
            return profile
        canceled = profile.become(ProfileStatus.CANCELED, reason="Canceled by request.")
        self._store.change_profile(tx, account, canceled)
        return canceled

    def revoke_profile(
        self,
        tx: Tx,
        account: AccountId,
        name: SigningProfileName,
        *,
        version: str,
        reason: str,
        effective_from: Instant,
        revoked_by: str,
    ) -> Profile:
        """Take back one version: whatever it signed since ``effective_from`` no longer counts.

        Raises:
            NotFound: no profile of that name, or no such version.
            InvalidRequest: ``effective_from`` lies in the future.
        """
        profile = self._store.profile(tx, account, name, version)
        if profile is None:
            raise NotFound(f"There is no version {version} of signing profile {name}.", subject="signing profile")
        now = self._clock.now()
        if effective_from > now:
            raise InvalidRequest("A revocation takes effect now or in the past.", subject="effectiveTime")
        revoked = replace(
            profile.become(ProfileStatus.REVOKED, reason=reason),
            revoked_at=now,
            revoked_by=revoked_by,
            revocation_effective_from=effective_from,
        )
        self._store.change_profile(tx, account, revoked)
        self._tell_revoked(tx, account, self._store.signed_by_version(tx, account, name, version, since=effective_from))
        return revoked

    def tag_profile(
        self, tx: Tx, account: AccountId, name: SigningProfileName, *, add: Mapping[str, str], remove: Sequence[str] = ()
    ) -> Profile:
        """Raises:
        NotFound: no such profile.
        InvalidRequest: more than 50 tags.
        """
        profile = self.profile(tx, account, name)
        tags = {key: value for key, value in {**profile.tags, **add}.items() if key not in remove}
        check_tags(tags)
        tagged = replace(profile, tags=tags)
        self._store.change_profile(tx, account, tagged)
        return tagged

    def tags_of(self, tx: Tx, account: AccountId, arn: str) -> Mapping[str, str]:
        """What conditions ask (``aws:ResourceTag``) of a profile's ARN, of one of its versions too. Raises nothing."""
        kind, _, name = arn.split(":", 5)[-1].removeprefix("/").partition("/")
        if kind != "signing-profiles" or not name:
            return {}
        found = self._store.profile(tx, account, SigningProfileName(name.partition("/")[0]))
        return {} if found is None else found.tags

    def users_of_certificate(self, tx: Tx, place: Place, certificate_arn: str) -> Sequence[str]:
        """ARNs of the active profiles that would stop working without this certificate: ACM doesn't delete it meanwhile."""
        names = self._store.profiles_using(tx, place.account, certificate_arn)
        return [place.signer(f"/signing-profiles/{name}") for name in names]

    def certificate_replaced(self, tx: Tx, place: Place, certificate_arn: str, *, self_signed: bool) -> None:
        """Profiles go on with what stands under the same ARN now."""
        self._store.set_testing_only(tx, place.account, certificate_arn, self_signed)

    def testing_only_profiles(self, tx: Tx, account: AccountId) -> Sequence[SigningProfileName]:
        """The active profiles whose certificate is self-signed, for status."""
        return self._store.testing_only(tx, account)

    def fitness(self, tx: Tx, place: Place, plan: ProfilePlan) -> Fitness:
        """Check a plan's certificate, key and platform for use at this moment.

        Raises:
            NotFound: no such certificate.
            InvalidRequest: what ``check_code_signing_certificate`` and ``choose_algorithm`` refuse; a key that isn't the
                certificate's.
            Conflict: with subject ``key-offline``: its key isn't held here.
        """
        platform = platform_of(plan.platform_id)
        if parse_arn(plan.certificate_arn).service != "acm":
            raise InvalidRequest(
                f"{plan.certificate_arn} is no ACM certificate. Import the code-signing certificate with ImportCertificate.",
                subject="certificate",
            )
        held = self._certificates.describe(tx, place, plan.certificate_arn)
        signer = check_code_signing_certificate(
            held.pem.encode(), held.chain_pem.encode(), name=plan.certificate_arn, now=self._clock.now()
        )
        held_key = self._keyring.describe(tx, place.account, held.key_id)
        self._keyring.require_here(held_key)
        if not hmac.compare_digest(signer.public_key_der, held_key.public_key_der):
            raise InvalidRequest(
                f"Certificate {plan.certificate_arn} can't sign code: the key kept with it belongs to another certificate. "
                "Import it again together with its own key.",
                subject="certificate",
            )
        algorithm = choose_algorithm(platform, signer.encryption, encryption=plan.encryption, hash=plan.hash)
        return Fitness(signer=signer, platform=platform, algorithm=algorithm, key_id=held.key_id)

    # Jobs

    def start(
        self, tx: Tx, place: Place, plan: SigningPlan, *, requested_by: str, invoker: AccountId | None = None
    ) -> SigningJob:
        """Accept a signing job; a worker does it. The same token with the same plan is the same job.

        ``place`` is the profile's. ``invoker`` is whose buckets are meant: another account, where the profile permits that.

        Raises:
            NotFound: no such profile, certificate, source object version or destination bucket.
            InvalidRequest: the profile isn't active, its certificate no longer fit, the object too large, the token used
                for something else, or a limit broken.
        """
        if not 1 <= len(plan.client_request_token) <= CLIENT_REQUEST_TOKEN_LENGTH_MAX:
            raise InvalidRequest(
                f"clientRequestToken has 1 to {CLIENT_REQUEST_TOKEN_LENGTH_MAX} characters.", subject="clientRequestToken"
            )
        if len(plan.destination_prefix.encode()) > PREFIX_LENGTH_MAX:
            raise InvalidRequest(f"The destination prefix has at most {PREFIX_LENGTH_MAX} bytes.", subject="prefix")
        invoker = invoker or place.account
        if invoker != place.account:
            # A stranger's tokens never meet the owner's own.
            token = f"{invoker}-{hashlib.sha256(plan.client_request_token.encode()).hexdigest()}"
            plan = replace(plan, client_request_token=token)
        present = self._store.job_of_token(tx, place.account, plan.client_request_token)
        if present is not None:
            if present.plan != plan:
                raise InvalidRequest(
                    f"clientRequestToken {plan.client_request_token!r} already started another job, {present.id}. "
                    "Use a new token for a new request.",
                    subject="clientRequestToken",
                )
            return present
        profile, fitness = self._usable(tx, place, plan.profile)
        objects_place = Place(place.region, invoker)
        source = self._objects.find(tx, objects_place, plan.source.bucket, plan.source.key, plan.source.version)
        if source.size_bytes > fitness.platform.image_size_bytes_max:
            raise InvalidRequest(
                f"The image has {source.size_bytes} bytes; {profile.plan.platform_id} signs at most "
                f"{fitness.platform.image_size_bytes_max}.",
                subject="source",
            )
        self._objects.require_bucket(tx, objects_place, plan.destination_bucket)
        job = self._new_job(place, plan.profile, profile, fitness, plan=plan, requested_by=requested_by, invoker=invoker)
        self._store.add_job(tx, job)
        tx.after_commit(self._wake)
        tx.tell_nodes(News("wake"))
        return job

    def sign_payload(
        self,
        tx: Tx,
        place: Place,
        name: SigningProfileName,
        payload: bytes,
        *,
        requested_by: str,
        invoker: AccountId | None = None,
    ) -> SignedPayload:
        """Sign a few bytes at once.

        Raises:
            NotFound: no such profile.
            InvalidRequest: the profile can't be used now, or the payload isn't 1 to 4096 bytes.
        """
        if not 1 <= len(payload) <= PAYLOAD_SIZE_BYTES_MAX:
            raise InvalidRequest(f"A payload has 1 to {PAYLOAD_SIZE_BYTES_MAX} bytes.", subject="payload")
        profile, fitness = self._usable(tx, place, name)
        signature = self._keyring.sign(tx, place.account, fitness.key_id, payload, algorithm=fitness.algorithm.keyring_name)
        started = self._new_job(
            place, name, profile, fitness, plan=None, requested_by=requested_by, invoker=invoker or place.account
        )
        job = started.succeeded(None, certificate=fitness.signer.signed_by, now=started.created_at)
        self._store.add_job(tx, job)
        return SignedPayload(job=job, signature=signature)

    def job(self, tx: Tx, account: AccountId, job_id: SigningJobId) -> SigningJob:
        """Raises:
        NotFound: there is none of that id.
        """
        job = self._store.job(tx, account, job_id)
        if job is None:
            raise NotFound(f"There is no signing job {job_id}.", subject="signing job")
        return job

    def job_seen_by(self, tx: Tx, account: AccountId, job_id: SigningJobId) -> SigningJob:
        """A job of the account's, or one that it asked another account's profile for.

        Raises:
            NotFound: there is none of that id.
        """
        return self._store.job_invoked(tx, account, job_id) or self.job(tx, account, job_id)

    def revoked_entities(self, tx: Tx, place: Place, asked: RevocationQuery) -> Sequence[str]:
        """Which of a profile's version and a job were revoked, for what was signed at a moment: ARNs (GetRevocationStatus).

        Raises:
            NotFound: there is no such version or job.
            InvalidRequest: the job wasn't done by that version.
        """
        profile = self._store.profile(tx, place.account, asked.profile, asked.version)
        if profile is None:
            raise NotFound(
                f"There is no version {asked.version} of signing profile {asked.profile}.", subject="signing profile"
            )
        job = self.job(tx, place.account, asked.job)
        if (job.profile, job.profile_version, job.platform_id) != (asked.profile, asked.version, asked.platform_id):
            raise InvalidRequest(
                f"Signing job {job.id} was done by version {job.profile_version} of {job.profile} for {job.platform_id}.",
                subject="jobArn",
            )
        since = profile.revocation_effective_from
        revoked = [profile.version_arn(place)] if since is not None and asked.signed_at >= since else []
        return [*revoked, place.signer(f"/signing-jobs/{job.id}")] if job.revoked_at is not None else revoked

    def jobs(self, tx: Tx, account: AccountId, query: JobQuery) -> Sequence[SigningJob]:
        """Newest first."""
        return self._store.jobs(tx, account, query)

    def revoke_signature(self, tx: Tx, account: AccountId, job_id: SigningJobId, *, reason: str, revoked_by: str) -> SigningJob:
        """Mark a signature as taken back. A second time changes nothing.

        Raises:
            NotFound: no such job.
            InvalidRequest: the job hasn't succeeded, so there is no signature; or the reason is too long.
        """
        if not 1 <= len(reason) <= REASON_LENGTH_MAX:
            raise InvalidRequest(f"A reason has 1 to {REASON_LENGTH_MAX} characters.", subject="reason")
        job = self.job(tx, account, job_id)
        if job.status is not JobStatus.SUCCEEDED:
            raise InvalidRequest(f"Signing job {job_id} is {job.status}: it has no signature to revoke.", subject="signing job")
        if job.revoked_at is not None:
            return job
        revoked = replace(job, revoked_at=self._clock.now(), revoked_by=revoked_by, revocation_reason=reason)
        self._store.change_job(tx, revoked)
        self._tell_revoked(tx, account, [job_id])
        return revoked

    def standing(self, tx: Tx, account: AccountId, job_id: SigningJobId) -> Standing:
        """Whether a signature counts now.

        Raises:
            NotFound: there is no job of that id.
        """
        job = self.job(tx, account, job_id)
        profile = self._store.profile(tx, account, job.profile, job.profile_version)
        return standing_of(job, profile, now=self._clock.now())

    def require_counted(self, tx: Tx, account: AccountId, job_id: SigningJobId) -> None:
        """Refuse to send out what was signed by a signature that counts no more.

        Raises:
            NotFound: there is no job of that id.
            InvalidRequest: it, or its profile, was revoked, or its validity period has ended.
        """
        standing = self.standing(tx, account, job_id)
        if standing.fault is not None:
            raise InvalidRequest(f"{standing.why.rstrip('.')}. Sign the image again.", subject="files")

    def _tell_revoked(self, tx: Tx, account: AccountId, jobs: Sequence[SigningJobId]) -> None:
        for users in self._users:
            users.signatures_revoked(tx, account, jobs)

    # For the worker

    def unfinished(self, tx: Tx, *, limit: int) -> Sequence[SigningJob]:
        """The oldest jobs of all accounts that still wait for their signature."""
        return self._store.unfinished(tx, limit=limit)

    def fitness_for(self, tx: Tx, job: SigningJob) -> Fitness:
        """The key that makes this job's signature and its certificate, if that is still fit. A job that was accepted goes on
        though its profile was cancelled since, as with AWS; not once the profile's version was revoked.

        Raises:
            NotFound: the certificate was deleted meanwhile.
            InvalidRequest: it expired, its key now is of another family than the job was accepted with, or the version of the
                profile was revoked.
        """
        profile = self._store.profile(tx, job.account, job.profile, job.profile_version)
        if profile is None:
            raise NotFound(f"Signing profile {job.profile} version {job.profile_version} is gone.", subject="signing profile")
        if profile.revoked_at is not None:
            raise InvalidRequest(
                f"Version {job.profile_version} of signing profile {job.profile} was revoked: {profile.status_reason}",
                subject="signing profile",
            )
        fitness = self.fitness(tx, job.place, profile.plan)
        if fitness.algorithm != job.algorithm:
            raise InvalidRequest(
                f"Certificate {job.certificate_arn} was replaced by one for {fitness.algorithm.signer_name} while the job "
                f"was accepted for {job.algorithm.signer_name}. Start the job again.",
                subject="certificate",
            )
        return fitness

    def take(self, tx: Tx, job: SigningJob) -> bool:
        """Claim a waiting job for this unit. False: another worker was faster, and nothing of ours may be kept."""
        return self._store.take_job(tx, job)

    def finish(self, tx: Tx, job: SigningJob) -> bool:
        """Record a job's end. False when it had ended already."""
        finished = self._store.finish_job(tx, job)
        if finished:
            tx.after_commit(self._wake)
            tx.tell_nodes(News("wake"))
        return finished

    def _usable(self, tx: Tx, place: Place, name: SigningProfileName) -> tuple[Profile, Fitness]:
        profile = self.profile(tx, place.account, name)
        if profile.status is not ProfileStatus.ACTIVE:
            raise InvalidRequest(
                f"Signing profile {name} is {profile.status} and signs nothing any more. Use or make another one.",
                subject="signing profile",
            )
        return profile, self.fitness(tx, place, profile.plan)

    def _new_job(
        self,
        place: Place,
        name: SigningProfileName,
        profile: Profile,
        fitness: Fitness,
        *,
        plan: SigningPlan | None,
        requested_by: str,
        invoker: AccountId,
    ) -> SigningJob:
        now = self._clock.now()
        return SigningJob(
            account=place.account,
            region=place.region,
            id=SigningJobId(self._ids.uuid()),
            plan=plan,
            profile=name,
            profile_version=profile.version,
            platform_id=profile.plan.platform_id,
            certificate_arn=profile.plan.certificate_arn,
            parameters=profile.plan.parameters,
            algorithm=fitness.algorithm,
            image_format=profile.plan.image_format or fitness.platform.image_formats[0],
            requested_by=requested_by,
            invoker=invoker,
            status=JobStatus.IN_PROGRESS,
            status_reason=None,
            created_at=now,
            expires_at=expiry(now, profile.plan.validity),
        )
