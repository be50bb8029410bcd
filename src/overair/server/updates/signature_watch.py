"""Stops what goes out under a signature that counts no more: at once where it was revoked, on time where its period ends."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

import structlog

from overair.basics.clock import Clock, Instant
from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import AccountId, JobId, OtaUpdateId, SigningJobId
from overair.basics.work import Tx, Work
from overair.server.jobs.model import Job
from overair.server.signing.model import Fault, Standing
from overair.server.updates.model import Update

UPDATES_PER_ROUND: Final = 16

logger = structlog.get_logger("overair.updates")


class Signatures(Protocol):
    """``signing.service.SigningService``."""

    def standing(self, tx: Tx, account: AccountId, job_id: SigningJobId) -> Standing: ...


class Jobs(Protocol):
    """``jobs.service.JobsService``."""

    def cancel(
        self,
        tx: Tx,
        account: AccountId,
        job: JobId,
        *,
        comment: str | None = None,
        reason_code: str | None = None,
        force: bool = False,
    ) -> Job: ...


class SignedUpdates(Protocol):
    """Which updates go out under which signature (``store.SqlUpdatesStore``)."""

    def find(self, tx: Tx, account: AccountId, update: OtaUpdateId) -> Update | None: ...
    def signed_by(self, tx: Tx, account: AccountId, jobs: Sequence[SigningJobId]) -> Sequence[OtaUpdateId]:
        """The whole updates with a file that one of these jobs signed."""
        ...

    def signatures_ended(self, tx: Tx, now: Instant, *, limit: int) -> Sequence[tuple[AccountId, OtaUpdateId]]: ...
    def note_signature_end(self, tx: Tx, account: AccountId, update: OtaUpdateId, ends_at: Instant | None) -> None:
        """When the first signature of an update ends; None once there is nothing left to watch."""
        ...


class SignatureWatch:
    """Cancels the jobs of such updates.

    A revoked signature is taken back from those who are at it too: their executions are cancelled by force, and an image on
    trial goes back. One whose validity period has ended is given to nobody any more; who has begun goes on, since what was
    begun was signed then.
    """

    def __init__(self, *, store: SignedUpdates, signing: Signatures, jobs: Jobs) -> None:
        self._store = store
        self._signing = signing
        self._jobs = jobs

    def signatures_revoked(self, tx: Tx, account: AccountId, jobs: Sequence[SigningJobId]) -> None:
        """See ``signing.ports.SignatureUsers``."""
        for update in self._store.signed_by(tx, account, jobs):
            self.stop(tx, account, update)

    def note(self, tx: Tx, update: Update) -> None:
        """An update is whole: remember when the first of its signatures ends."""
        ends = [standing.job.expires_at for standing in self._standings(tx, update)]
        ends_at = min((moment for moment in ends if moment is not None), default=None)
        self._store.note_signature_end(tx, update.account, update.id, ends_at)

    def stop(self, tx: Tx, account: AccountId, update_id: OtaUpdateId) -> None:
        """Cancel an update's job for what is wrong with its signatures. A job that has ended stays as it is."""
        update = self._store.find(tx, account, update_id)
        if update is None:
            return
        faulty = [standing for standing in self._standings(tx, update) if standing.fault is not None]
        if not faulty:
            return
        worst = next((standing for standing in faulty if standing.fault is Fault.REVOKED), faulty[0])
        assert worst.fault is not None
        with suppress(NotFound, InvalidRequest):  # deleted, or ended
            self._jobs.cancel(
                tx,
                account,
                update.job,
                comment=worst.why,
                reason_code=worst.fault.value,
                force=worst.fault is Fault.REVOKED,
            )
        self._store.note_signature_end(tx, account, update_id, None)
        logger.warning("update stopped", account=account, update=update_id, reason=worst.fault.value)

    def _standings(self, tx: Tx, update: Update) -> list[Standing]:
        found = []
        for progress in update.progress:
            if progress.signing_job is not None:
                with suppress(NotFound):
                    found.append(self._signing.standing(tx, update.account, progress.signing_job))
        return found


class SignatureEnds:
    """A worker (``workers.loop.Worker``): stops updates whose signature's validity period has ended."""

    name = "signature-ends"

    def __init__(self, *, work: Work, store: SignedUpdates, watch: SignatureWatch, clock: Clock) -> None:
        self._work = work
        self._store = store
        self._watch = watch
        self._clock = clock

    async def run_once(self) -> bool:
        """True when at least one was stopped."""
        now = self._clock.now()
        ended = await self._work.read(lambda tx: self._store.signatures_ended(tx, now, limit=UPDATES_PER_ROUND))
        for account, update in ended:
            await self._work.run(lambda tx, a=account, u=update: self._watch.stop(tx, a, u))  # type: ignore[misc]
        return bool(ended)
