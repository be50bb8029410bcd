"""Uploads of images in parts: begun, filled in any order, completed into one content under a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import AlreadyExists, Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId, IdSource
from overair.basics.work import Tx
from overair.server.image_repository.model import ImageUploadId, TargetStatus, check_name
from overair.server.image_repository.ports import ImageUploadStore, TargetStore
from overair.server.image_repository.upload_model import (
    GIVEN_UP_AFTER_MS,
    IMAGE_SIZE_BYTES_MAX,
    PART_NUMBER_MAX,
    PART_SIZE_BYTES_DEFAULT,
    UPLOAD_ID_LENGTH,
    ImageUpload,
    UploadedPart,
)
from overair.server.objects.model import StoredContent


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What an upload amounts to, worked out before its bytes are read through once."""

    upload: ImageUpload
    parts: Sequence[UploadedPart]


class ImageUploads:
    """Of one account at a time."""

    def __init__(self, *, store: ImageUploadStore, targets: TargetStore, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._targets = targets
        self._clock = clock
        self._ids = ids

    def begin(self, tx: Tx, place: Place, name: str, size_bytes: int, *, again: bool = False) -> tuple[ImageUpload, int]:
        """A new upload, and the size in bytes that its parts should have.

        Args:
            again: Though there is an image of this name: its bytes must turn out to be the same.

        Raises:
            InvalidRequest: with subject ``target-name`` or ``too-large``, or the size isn't one.
            AlreadyExists: with subject ``target``.
        """
        check_name(name)
        if size_bytes < 1:
            raise InvalidRequest("An image has at least one byte.", details={"field": "fileSize"})
        if size_bytes > IMAGE_SIZE_BYTES_MAX:
            raise InvalidRequest(f"An image has at most {IMAGE_SIZE_BYTES_MAX} bytes.", subject="too-large")
        standing = self._targets.find(tx, place.account, name)
        if standing is not None and standing.status is not TargetStatus.DELETED and not again:
            raise AlreadyExists(
                f"There is an image {name} already. Names stand for the same bytes for ever: choose another, or say force=true "
                "to send the same bytes again.",
                subject="target",
                details={"field": "filename"},
            )
        upload = ImageUpload(
            upload_id=ImageUploadId(self._ids.token(UPLOAD_ID_LENGTH)),
            name=name,
            size_bytes=size_bytes,
            created_at=self._clock.now(),
        )
        self._store.add(tx, place.account, upload)
        return upload, max(PART_SIZE_BYTES_DEFAULT, -(-size_bytes // PART_NUMBER_MAX))

    def find(self, tx: Tx, account: AccountId, upload_id: str, *, name: str | None = None) -> ImageUpload:
        """Raises:
        NotFound: with subject ``upload``.
        """
        upload = self._store.find(tx, account, ImageUploadId(upload_id)) if len(upload_id) <= UPLOAD_ID_LENGTH else None
        if upload is None or (name is not None and upload.name != name):
            raise NotFound(
                f"There is no upload {upload_id[:UPLOAD_ID_LENGTH]!r}{f' of {name[:80]}' if name is not None else ''}: it was "
                "completed, or given up after a week. Begin another.",
                subject="upload",
                details={"field": "uploadId"},
            )
        return upload

    def put_part(self, tx: Tx, place: Place, upload_id: str, number: int, content: StoredContent) -> UploadedPart:
        """One part over content that is already durable, in place of an earlier one of its number.

        Raises:
            NotFound: with subject ``upload``.
            InvalidRequest: the number isn't one of a part.
        """
        upload = self.find(tx, place.account, upload_id)
        check_part_number(number)
        part = UploadedPart(
            number=number, content_id=content.content_id, size_bytes=content.size_bytes, md5_hex=content.md5_hex
        )
        self._store.put_part(tx, place.account, upload.upload_id, part)
        return part

    def plan(self, tx: Tx, account: AccountId, name: str, upload_id: str, etags: Mapping[int, str]) -> Planned:
        """The parts of a whole upload, in order. Reads only.

        Args:
            etags: What the client says of each part, by number.

        Raises:
            NotFound: with subject ``upload``.
            InvalidRequest: with subject ``parts``: one is missing or another than the client's, or they aren't the whole file.
        """
        upload = self.find(tx, account, upload_id, name=name)
        parts = self._store.parts(tx, account, upload.upload_id)
        stored = {part.number: part.md5_hex for part in parts}
        given = {number: etag.strip('"').lower() for number, etag in etags.items()}
        differing = sorted(number for number in given.keys() | stored.keys() if given.get(number) != stored.get(number))
        if differing:
            raise InvalidRequest(
                f"Part {differing[0]} isn't the one that was sent, or wasn't sent. Send it again, then complete the upload.",
                subject="parts",
                details={"field": "partETags"},
            )
        size_bytes = sum(part.size_bytes for part in parts)
        if size_bytes != upload.size_bytes:
            raise InvalidRequest(
                f"The parts have {size_bytes} bytes together; the upload was begun for {upload.size_bytes}.",
                subject="parts",
                details={"field": "partETags"},
            )
        return Planned(upload=upload, parts=parts)

    def complete(self, tx: Tx, place: Place, planned: Planned) -> None:
        """The upload has become an image.

        Raises:
            NotFound: with subject ``upload``.
            Conflict: with subject ``upload``: a part changed since it was planned.
        """
        upload = self.find(tx, place.account, planned.upload.upload_id)
        if list(self._store.parts(tx, place.account, upload.upload_id)) != list(planned.parts):
            raise Conflict("A part was sent again while the upload was completed. Complete it again.", subject="upload")
        self._store.delete(tx, place.account, upload.upload_id)

    def give_up_old(self, tx: Tx, now: Instant) -> int:
        """Forget uploads that nobody has completed for long; how many."""
        old = self._store.begun_before(tx, Instant(now - GIVEN_UP_AFTER_MS))
        for account, upload_id in old:
            self._store.delete(tx, account, upload_id)
        return len(old)


def check_part_number(number: int) -> None:
    """Raises:
    InvalidRequest: it isn't one.
    """
    if not 1 <= number <= PART_NUMBER_MAX:
        raise InvalidRequest(f"Parts are numbered from 1 to {PART_NUMBER_MAX}.", details={"field": "part"})
