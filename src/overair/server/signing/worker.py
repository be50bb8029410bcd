"""The durable step: read an image, sign it, write the signed object.

Reading and writing happen outside any unit of work; the object's record and the job's end are one unit. Cut anywhere before
that unit, the step is done again from the start and its leftover content is collected; cut after it, there is nothing to do.
So a job leaves exactly one signed object.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog

from overair.basics.clock import Clock
from overair.basics.errors import OverairError, Throttled, Unavailable
from overair.basics.ids import KeyId
from overair.basics.work import Tx, Work
from overair.server.audit.service import AuditTrail
from overair.server.keyring.service import Keyring, Signer
from overair.server.objects.contents import ContentStore
from overair.server.objects.model import ObjectVersion, StoredContent
from overair.server.objects.service import ObjectsService
from overair.server.signing.model import (
    Hash,
    ObjectLocation,
    SignedObject,
    SigningJob,
    is_embedded,
    signature_text,
)
from overair.server.signing.service import SigningService
from overair.server.signing.signed_object import detached, embedded

logger = structlog.get_logger("overair.signing")

JOBS_PER_ROUND: Final = 16
SIGNED_OBJECT_CONTENT_TYPE: Final = "application/json"
SIGNED: Final = "signing.signed"
"""The step's name for whoever cuts the process after it."""


class SigningWorker:
    """Signs what waits, oldest first. A ``workers.Worker``."""

    name = "signing"

    def __init__(
        self,
        *,
        work: Work,
        signing: SigningService,
        keyring: Keyring,
        objects: ObjectsService,
        contents: ContentStore,
        clock: Clock,
        after_step: Callable[[str], None] = lambda step: None,
        trail: AuditTrail | None = None,
    ) -> None:
        self._work = work
        self._signing = signing
        self._keyring = keyring
        self._objects = objects
        self._contents = contents
        self._clock = clock
        self._after_step = after_step
        self._trail = trail

    async def run_once(self) -> bool:
        """Do up to ``JOBS_PER_ROUND`` waiting jobs.

        One that can't be signed ends as Failed with the reason. What is our own fault (a disk that doesn't answer) is raised
        once the others had their turn, and the job waits.
        """
        waiting = await self._work.read(lambda tx: self._signing.unfinished(tx, limit=JOBS_PER_ROUND))
        faults: list[Exception] = []
        for job in waiting:
            try:
                await self._do(job)
            except Exception as fault:
                faults.append(fault)
        if faults:
            raise ExceptionGroup("Some images could not be signed now.", faults)
        return bool(waiting)

    async def _do(self, job: SigningJob) -> None:
        try:
            await self._sign(job)
        except (Unavailable, Throttled):
            raise
        except OverairError as error:
            # The certificate expired, the source or the destination bucket was deleted: no second attempt will help.
            logger.warning("signing failed", job=job.id, reason=error.message)
            failed = job.failed(error.message, now=self._clock.now())
            await self._work.run(lambda tx: self._signing.finish(tx, failed))

    async def _sign(self, job: SigningJob) -> None:
        source, signer, key_id = await self._work.read(lambda tx: self._begin(tx, job))
        digest = await self._digest(job, source)
        signature = signature_text(await asyncio.to_thread(signer.sign_digest, digest, algorithm=job.algorithm.keyring_name))
        content = await self._contents.store(self._signed_object(job, source, signature))
        await self._work.run(lambda tx: self._end(tx, job, key_id, content, signature))
        self._after_step(SIGNED)

    def _begin(self, tx: Tx, job: SigningJob) -> tuple[ObjectVersion, Signer, KeyId]:
        assert job.plan is not None, "SignPayload leaves no job unfinished"
        at = job.plan.source
        source = self._objects.find(tx, job.objects_place, at.bucket, at.key, at.version)
        key_id = self._signing.fitness_for(tx, job).key_id
        return source, self._keyring.signer(tx, job.account, key_id), key_id

    def _end(self, tx: Tx, job: SigningJob, key_id: KeyId, content: StoredContent, signature: str) -> None:
        assert job.plan is not None
        if not self._signing.take(tx, job):
            return
        # Asked again: the profile may have been revoked, or the certificate replaced, while the image was read.
        fitness = self._signing.fitness_for(tx, job)
        if fitness.key_id != key_id:
            return  # the next round signs with the new one
        bucket, key = job.plan.destination_bucket, job.key
        written = self._objects.put(tx, job.objects_place, bucket, key, content, content_type=SIGNED_OBJECT_CONTENT_TYPE)
        location = ObjectLocation(bucket=bucket, key=key, version=written.version_id)
        signed = SignedObject(location=location, signature=signature, algorithm=job.algorithm)
        succeeded = job.succeeded(signed, certificate=fitness.signer.signed_by, now=self._clock.now())
        finished = self._signing.finish(tx, succeeded)
        assert finished, "the same unit has claimed it"
        if self._trail is not None:
            job_arn = job.place.signer(f"/signing-jobs/{job.id}")
            self._trail.signed(tx, job.account, job_arn=job_arn, requested_by=job.requested_by)

    async def _digest(self, job: SigningJob, source: ObjectVersion) -> bytes:
        digest = hashlib.sha256() if job.algorithm.hash is Hash.SHA256 else hashlib.sha1(usedforsecurity=False)
        async for piece in self._contents.stream(source.content_id, 0, source.size_bytes):
            await asyncio.to_thread(digest.update, piece)
        return digest.digest()

    def _signed_object(self, job: SigningJob, source: ObjectVersion, signature: str) -> AsyncIterator[bytes]:
        assert job.plan is not None
        size_bytes = source.size_bytes
        if is_embedded(job.image_format):
            image = self._contents.stream(source.content_id, 0, size_bytes)
            return embedded(image, size_bytes=size_bytes, signature=signature, algorithm=job.algorithm)
        return detached(source=job.plan.source, size_bytes=size_bytes, signature=signature, algorithm=job.algorithm)
