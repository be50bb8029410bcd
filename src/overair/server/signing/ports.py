"""What signing asks of the rooms below it and of its own records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import AccountId, SigningJobId, SigningProfileName
from overair.basics.work import Tx
from overair.server.certificates.model import AcmCertificate
from overair.server.signing.model import JobStatus, Profile, ProfileStatus, SigningJob


class Certificates(Protocol):
    """Whoever keeps imported certificates (ACM)."""

    def describe(self, tx: Tx, place: Place, arn: str) -> AcmCertificate:
        """Raises:
        NotFound: there is none of that ARN.
        """
        ...


class SignatureUsers(Protocol):
    """Whoever sends out what was signed (``updates.signature_watch.SignatureWatch``)."""

    def signatures_revoked(self, tx: Tx, account: AccountId, jobs: Sequence[SigningJobId]) -> None:
        """These signatures count no more, as of this unit."""
        ...


class SigningStore(Protocol):
    """This room's records."""

    def profile(self, tx: Tx, account: AccountId, name: SigningProfileName, version: str | None = None) -> Profile | None: ...
    def profiles(
        self,
        tx: Tx,
        account: AccountId,
        *,
        statuses: Sequence[ProfileStatus],
        platform_id: str | None,
        after: SigningProfileName | None,
        limit: int,
    ) -> Sequence[Profile]: ...
    def add_profile(self, tx: Tx, account: AccountId, profile: Profile) -> None: ...
    def change_profile(self, tx: Tx, account: AccountId, profile: Profile) -> None: ...
    def profiles_using(self, tx: Tx, account: AccountId, certificate_arn: str) -> Sequence[SigningProfileName]: ...
    def set_testing_only(self, tx: Tx, account: AccountId, certificate_arn: str, testing_only: bool) -> None:
        """For the current versions of the profiles that use a certificate."""
        ...

    def testing_only(self, tx: Tx, account: AccountId) -> Sequence[SigningProfileName]: ...

    def job(self, tx: Tx, account: AccountId, job: SigningJobId) -> SigningJob | None: ...
    def job_invoked(self, tx: Tx, invoker: AccountId, job: SigningJobId) -> SigningJob | None:
        """A job that an account started with another one's profile."""
        ...

    def job_of_token(self, tx: Tx, account: AccountId, client_request_token: str) -> SigningJob | None: ...
    def jobs(self, tx: Tx, account: AccountId, query: JobQuery) -> Sequence[SigningJob]: ...
    def add_job(self, tx: Tx, job: SigningJob) -> None: ...
    def take_job(self, tx: Tx, job: SigningJob) -> bool:
        """Claim a waiting job for this unit. False: it has ended."""
        ...

    def signed_by_version(
        self, tx: Tx, account: AccountId, profile: SigningProfileName, version: str, *, since: Instant
    ) -> Sequence[SigningJobId]:
        """The jobs that left a signed object under one version of a profile, ended at ``since`` or later."""
        ...

    def finish_job(self, tx: Tx, job: SigningJob) -> bool: ...
    def change_job(self, tx: Tx, job: SigningJob) -> None: ...
    def unfinished(self, tx: Tx, *, limit: int) -> Sequence[SigningJob]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """Which jobs a listing wants; newest first. ``after`` is the last one of the page before."""

    limit: int
    after: tuple[Instant, SigningJobId] | None = None
    status: JobStatus | None = None
    platform_id: str | None = None
    requested_by: str | None = None
    is_revoked: bool | None = None
    expires_before: Instant | None = None
    expires_after: Instant | None = None
    invoker: AccountId | None = None
    """Only those that this account asked for."""
