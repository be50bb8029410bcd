"""Multipart uploads: begun, filled in any order, completed into one version or given up."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import Conflict, InvalidRequest, NotFound
from overair.basics.ids import IdSource
from overair.basics.work import Tx
from overair.server.objects import checksums
from overair.server.objects.model import (
    NO_CONDITIONS,
    OBJECT_SIZE_BYTES_MAX,
    PART_NUMBER_MAX,
    PART_SIZE_BYTES_MIN,
    ChecksumType,
    Conditions,
    ContentId,
    ObjectVersion,
    Properties,
    StoredContent,
    UploadId,
    check_key,
    check_metadata,
)
from overair.server.objects.ports import UploadStore
from overair.server.objects.service import ObjectsService
from overair.server.objects.upload_model import CompletedPart, Part, Upload, check_part_number, checksum_plan

UPLOAD_ID_LENGTH: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What an upload amounts to, worked out before its record is written."""

    parts: tuple[Part, ...]
    etag: str
    size_bytes: int
    checksums: dict[str, str]
    checksum_type: ChecksumType


class UploadsService:
    """Multipart uploads of one account at a time."""

    def __init__(self, objects: ObjectsService, store: UploadStore, *, clock: Clock, ids: IdSource) -> None:
        self._objects = objects
        self._store = store
        self._clock = clock
        self._ids = ids

    def create(
        self,
        tx: Tx,
        place: Place,
        bucket: str,
        key: str,
        *,
        properties: Properties,
        checksum_algorithm: str | None = None,
        checksum_type: ChecksumType | None = None,
    ) -> Upload:
        """Begin an upload.

        Raises:
            NotFound: with subject ``bucket``.
            InvalidRequest: as for ``ObjectsService.put``, and for a checksum that can't be had of parts.
        """
        owner = self._objects.require_bucket(tx, place, bucket)
        object_key = check_key(key)
        check_metadata(properties.metadata)
        algorithm, covers = checksum_plan(checksum_algorithm, checksum_type)
        upload = Upload(
            account=place.account,
            bucket=owner.name,
            key=object_key,
            upload_id=UploadId(self._ids.token(UPLOAD_ID_LENGTH)),
            initiated=self._clock.now(),
            properties=properties,
            checksum_algorithm=algorithm,
            checksum_type=covers,
        )
        self._store.add_upload(tx, upload)
        return upload

    def find(self, tx: Tx, place: Place, bucket: str, key: str, upload_id: str) -> Upload:
        """Raises:
        NotFound: with subject ``bucket`` or ``upload``.
        """
        owner = self._objects.require_bucket(tx, place, bucket)
        upload = self._store.upload(tx, place.account, UploadId(upload_id))
        if upload is None or (upload.bucket, upload.key) != (owner.name, key):
            raise NotFound(
                "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or "
                "completed.",
                subject="upload",
                details={"UploadId": upload_id},
            )
        return upload

    def put_part(
        self, tx: Tx, place: Place, bucket: str, key: str, upload_id: str, number: int, content: StoredContent
    ) -> Part:
        """Record a part over content that is already durable, in place of an earlier one of its number.

        Raises:
            NotFound: with subject ``bucket`` or ``upload``.
            InvalidRequest: with subject ``argument`` for the number; the checksum is of another algorithm than the upload's.
        """
        check_part_number(number)
        upload = self.find(tx, place, bucket, key, upload_id)
        algorithm = upload.checksum_algorithm
        if algorithm is not None and algorithm not in content.checksums:
            raise InvalidRequest(
                f"Checksum Type mismatch occurred, expected checksum Type: {algorithm}, actual checksum Type: "
                f"{', '.join(content.checksums) or 'null'}. Send each part with the checksum that the upload began with."
            )
        part = Part(
            number=number,
            content_id=content.content_id,
            size_bytes=content.size_bytes,
            md5_hex=content.md5_hex,
            modified=self._clock.now(),
            checksums={algorithm: content.checksums[algorithm]} if algorithm is not None else {},
        )
        self._store.put_part(tx, place.account, upload.upload_id, part)
        return part

    def parts(
        self, tx: Tx, place: Place, bucket: str, key: str, upload_id: str, *, after: int, limit: int
    ) -> tuple[Upload, Sequence[Part]]:
        """The parts so far, by number, from the first above ``after`` on.

        Raises:
            NotFound: with subject ``bucket`` or ``upload``.
        """
        upload = self.find(tx, place, bucket, key, upload_id)
        return upload, self._store.parts(tx, place.account, upload.upload_id, after=after, limit=limit)

    def abort(self, tx: Tx, place: Place, bucket: str, key: str, upload_id: str) -> None:
        """Give an upload up.

        Raises:
            NotFound: with subject ``bucket`` or ``upload``.
        """
        upload = self.find(tx, place, bucket, key, upload_id)
        self._store.delete_upload(tx, place.account, upload.upload_id)

    def completed_before(
        self, tx: Tx, place: Place, bucket: str, key: str, asked: Sequence[CompletedPart]
    ) -> ObjectVersion | None:
        """The version that these parts have already become, if it is still the latest: the client didn't hear our answer and
        asks again."""
        try:
            etag = multipart_etag([part.etag for part in asked])
            latest = self._objects.find(tx, place, bucket, key)
        except (NotFound, ValueError):
            return None
        return latest if latest.etag == etag else None

    def plan_completion(
        self, tx: Tx, place: Place, bucket: str, key: str, upload_id: str, asked: Sequence[CompletedPart]
    ) -> Completion:
        """Work out what the upload becomes. Reads only.

        Raises:
            NotFound: with subject ``bucket`` or ``upload``.
            InvalidRequest: with subject ``malformed-body`` (no parts), ``part-order``, ``part`` (missing, or not what
                the client says), ``too-small`` or ``too-large``.
        """
        upload = self.find(tx, place, bucket, key, upload_id)
        if not asked:
            raise InvalidRequest("You must specify at least one part.", subject="malformed-body")
        numbers = [part.number for part in asked]
        if any(second <= first for first, second in itertools.pairwise(numbers)):
            raise InvalidRequest(
                "The list of parts was not in ascending order. Parts must be ordered by part number, each named once.",
                subject="part-order",
            )
        stored = {
            part.number: part for part in self._store.parts(tx, place.account, upload.upload_id, after=0, limit=PART_NUMBER_MAX)
        }
        chosen = [_matching(part, stored.get(part.number)) for part in asked]
        for part in chosen[:-1]:
            if part.size_bytes < PART_SIZE_BYTES_MIN:
                raise InvalidRequest(
                    f"Your proposed upload is smaller than the minimum allowed size: part {part.number} has {part.size_bytes} "
                    f"bytes, and every part but the last needs {PART_SIZE_BYTES_MIN}.",
                    subject="too-small",
                    details={"PartNumber": str(part.number), "ETag": part.md5_hex},
                )
        size_bytes = sum(part.size_bytes for part in chosen)
        if size_bytes > OBJECT_SIZE_BYTES_MAX:
            raise InvalidRequest(f"An object has at most {OBJECT_SIZE_BYTES_MAX} bytes.", subject="too-large")
        return Completion(
            parts=tuple(chosen),
            etag=multipart_etag([part.md5_hex for part in chosen]),
            size_bytes=size_bytes,
            checksums=_whole_checksums(upload, chosen),
            checksum_type=upload.checksum_type or ChecksumType.FULL_OBJECT,
        )

    def complete(
        self,
        tx: Tx,
        place: Place,
        bucket: str,
        key: str,
        upload_id: str,
        asked: Sequence[CompletedPart],
        *,
        planned: Completion,
        content_id: ContentId,
        conditions: Conditions = NO_CONDITIONS,
    ) -> ObjectVersion:
        """Turn the upload into a version.

        Args:
            planned: What ``plan_completion`` said.
            content_id: The planned parts' bytes as one content, already durable.

        Raises:
            Conflict: with subject ``upload``: a part changed since it was planned.
            Others: as ``plan_completion`` and ``ObjectsService.put``.
        """
        upload = self.find(tx, place, bucket, key, upload_id)
        if self.plan_completion(tx, place, bucket, key, upload_id, asked) != planned:
            raise Conflict(
                "A part was uploaded again while the upload was being completed. Complete it again.", subject="upload"
            )
        version = self._objects.put(
            tx,
            place,
            bucket,
            key,
            StoredContent(content_id=content_id, size_bytes=planned.size_bytes, md5_hex=""),
            properties=replace(
                upload.properties,
                checksums=planned.checksums,
                checksum_type=planned.checksum_type,
                part_sizes_bytes=[part.size_bytes for part in planned.parts],
            ),
            conditions=conditions,
            etag=planned.etag,
        )
        self._store.delete_upload(tx, place.account, upload.upload_id)
        return version


def multipart_etag(part_etags: Sequence[str]) -> str:
    """The MD5 of the parts' MD5s, and how many there were.

    Raises:
        ValueError: one is no hexadecimal.
    """
    digest = hashlib.md5(b"".join(bytes.fromhex(etag.strip('"')) for etag in part_etags), usedforsecurity=False)
    return f"{digest.hexdigest()}-{len(part_etags)}"


def _matching(asked: CompletedPart, stored: Part | None) -> Part:
    differs = stored is None or stored.md5_hex != asked.etag.strip('"').lower()
    if stored is not None and not differs:
        differs = any(
            algorithm in stored.checksums and stored.checksums[algorithm] != value
            for algorithm, value in asked.checksums.items()
        )
    if stored is None or differs:
        raise InvalidRequest(
            f"One or more of the specified parts could not be found: part {asked.number} may not have been uploaded, or its "
            "entity tag or checksum is another one.",
            subject="part",
            details={"PartNumber": str(asked.number), "ETag": asked.etag},
        )
    return stored


def _whole_checksums(upload: Upload, parts: Sequence[Part]) -> dict[str, str]:
    algorithm = upload.checksum_algorithm
    if algorithm is None:
        return {}
    if upload.checksum_type is ChecksumType.FULL_OBJECT:
        crcs = [(part.checksums[algorithm], part.size_bytes) for part in parts]
        return {algorithm: checksums.full_object_crc(algorithm, crcs)}
    return {algorithm: checksums.composite(algorithm, [part.checksums[algorithm] for part in parts])}
