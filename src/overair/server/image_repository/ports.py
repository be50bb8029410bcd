"""What the Image repository asks of others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.image_repository.model import ImageUploadId, StoredDocument, StoredTarget, TargetStatus
from overair.server.image_repository.upload_model import ImageUpload, UploadedPart
from overair.server.objects.model import ContentId
from overair.wire.uptane.keys import Flavour


class InUse(Protocol):
    """Which images vehicles need: assigned to them, or installed on them. *director* has it."""

    def targets_in_use(self, tx: Tx, account: AccountId, names: Collection[str]) -> Mapping[str, str]:
        """Those among ``names`` that are assigned or installed anywhere, with words for it: ``installed on 3 ECUs``."""
        ...


class NothingInUse:
    """Where there is no Director."""

    def targets_in_use(self, tx: Tx, account: AccountId, names: Collection[str]) -> Mapping[str, str]:
        return {}


class DocumentStore(Protocol):
    """Signed documents, each version of each flavour."""

    def current(self, tx: Tx, account: AccountId, role: str, flavour: Flavour) -> StoredDocument | None: ...
    def all_current(self, tx: Tx, account: AccountId) -> Sequence[StoredDocument]:
        """The newest version of each role, in each flavour."""
        ...

    def version(self, tx: Tx, account: AccountId, role: str, flavour: Flavour, version: int) -> StoredDocument | None: ...
    def add(self, tx: Tx, account: AccountId, document: StoredDocument, *, keep_versions: int) -> None:
        """Keep it, and of its role and flavour the ``keep_versions`` newest."""
        ...

    def clear(self, tx: Tx, account: AccountId) -> None: ...
    def not_before(self, tx: Tx, account: AccountId) -> Instant | None:
        """Until when, at least, what the server signs is to count."""
        ...

    def set_not_before(self, tx: Tx, account: AccountId, moment: Instant) -> None: ...
    def friendly_name(self, tx: Tx, account: AccountId, delegation: str) -> str | None: ...
    def set_friendly_name(self, tx: Tx, account: AccountId, delegation: str, name: str) -> None: ...


class TargetStore(Protocol):
    """The catalogue."""

    def find(self, tx: Tx, account: AccountId, name: str) -> StoredTarget | None: ...
    def find_all(self, tx: Tx, account: AccountId, names: Collection[str]) -> Mapping[str, StoredTarget]: ...
    def with_status(
        self, tx: Tx, account: AccountId, status: TargetStatus, *, role: str | None = None
    ) -> Sequence[StoredTarget]:
        """By name."""
        ...

    def page(
        self, tx: Tx, account: AccountId, *, statuses: Collection[TargetStatus], name_contains: str, offset: int, limit: int
    ) -> tuple[Sequence[StoredTarget], int]:
        """One page by name, and how many there are in all."""
        ...

    def for_hardware(self, tx: Tx, account: AccountId, hardware_id: str) -> Sequence[StoredTarget]:
        """Listed ones, by name."""
        ...

    def count(self, tx: Tx, account: AccountId, status: TargetStatus) -> int: ...
    def put(self, tx: Tx, account: AccountId, target: StoredTarget) -> None: ...
    def put_all(self, tx: Tx, account: AccountId, targets: Sequence[StoredTarget]) -> None: ...
    def comments(self, tx: Tx, account: AccountId, names: Collection[str] | None) -> Mapping[str, str]:
        """By target; None: all."""
        ...

    def set_comment(self, tx: Tx, account: AccountId, name: str, comment: str, *, now: Instant) -> None: ...
    def named_contents(self, tx: Tx, contents: Sequence[ContentId]) -> set[ContentId]:
        """Those among ``contents`` that an image or a part of an upload names, in whatever account."""
        ...


class ImageUploadStore(Protocol):
    """Unfinished uploads and their parts."""

    def add(self, tx: Tx, account: AccountId, upload: ImageUpload) -> None: ...
    def find(self, tx: Tx, account: AccountId, upload_id: ImageUploadId) -> ImageUpload | None: ...
    def parts(self, tx: Tx, account: AccountId, upload_id: ImageUploadId) -> Sequence[UploadedPart]:
        """By number."""
        ...

    def put_part(self, tx: Tx, account: AccountId, upload_id: ImageUploadId, part: UploadedPart) -> None: ...
    def delete(self, tx: Tx, account: AccountId, upload_id: ImageUploadId) -> None:
        """With its parts."""
        ...

    def begun_before(self, tx: Tx, moment: Instant) -> Sequence[tuple[AccountId, ImageUploadId]]: ...
