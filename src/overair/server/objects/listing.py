"""Pages of keys, versions and uploads, with what lies behind a delimiter folded into common prefixes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from overair.basics.arn import Place
from overair.basics.errors import InvalidRequest
from overair.basics.ids import ObjectKey, VersionId
from overair.basics.work import Tx
from overair.server.objects.model import AnyVersion, UploadId, successor
from overair.server.objects.ports import ObjectStore, Position, UploadStore
from overair.server.objects.service import ObjectsService
from overair.server.objects.upload_model import Upload


class Entry(Protocol):
    """Something with a key."""

    @property
    def key(self) -> ObjectKey: ...


E = TypeVar("E", bound=Entry)
Fetch = Callable[[Position, int], Sequence[E]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[E]):
    """Entries and common prefixes, together at most as many as were asked for."""

    entries: Sequence[E]
    common_prefixes: Sequence[str]
    last_prefix: str | None
    """The common prefix that ended the page; None where an entry did."""
    is_truncated: bool

    @property
    def last_key(self) -> str | None:
        """What the next page comes after."""
        if self.last_prefix is not None:
            return self.last_prefix
        return self.entries[-1].key if self.entries else None


def page_of(
    fetch: Fetch[E], behind: Callable[[E], Position], *, prefix: str, delimiter: str, start: Position, limit: int
) -> Page[E]:
    """Collect one page. ``fetch`` gives entries in order, all below the prefix's end, from a position on; ``behind`` is the
    position after an entry."""
    entries: list[E] = []
    prefixes: list[str] = []
    last_prefix: str | None = None
    at = replace(start, at_least=max(start.at_least, prefix))
    if delimiter and start.after is not None and start.tie is None:
        folded = _folded(start.after, prefix, delimiter)
        if folded == start.after:
            # The last page ended with this common prefix: all that lies behind it was told.
            beyond = successor(folded)
            if beyond is None:
                return Page(entries=(), common_prefixes=(), last_prefix=None, is_truncated=False)
            at = Position(at_least=beyond)
    while True:
        wanted = limit + 1 - len(entries) - len(prefixes)
        rows = fetch(at, wanted)
        for row in rows:
            folded = _folded(row.key, prefix, delimiter)
            if folded is not None and prefixes and prefixes[-1] == folded:
                continue
            if len(entries) + len(prefixes) == limit:
                return Page(entries=entries, common_prefixes=prefixes, last_prefix=last_prefix, is_truncated=limit > 0)
            if folded is None:
                entries.append(row)
            else:
                prefixes.append(folded)
            last_prefix = folded
        if len(rows) < wanted:
            return Page(entries=entries, common_prefixes=prefixes, last_prefix=last_prefix, is_truncated=False)
        # Folding left room after a full fetch: go on behind the last entry, or behind all that the last prefix stands for.
        if last_prefix is None:
            at = replace(behind(rows[-1]), at_least=prefix)
            continue
        beyond = successor(last_prefix)
        if beyond is None:
            return Page(entries=entries, common_prefixes=prefixes, last_prefix=last_prefix, is_truncated=False)
        at = Position(at_least=beyond)


def _folded(key: str, prefix: str, delimiter: str) -> str | None:
    """The common prefix that stands for a key, if any."""
    if not delimiter or not key.startswith(prefix):
        return None
    end = key.find(delimiter, len(prefix))
    return None if end < 0 else key[: end + len(delimiter)]


class ObjectLists:
    """The lists of one bucket."""

    def __init__(self, objects: ObjectsService, store: ObjectStore, uploads: UploadStore) -> None:
        self._objects = objects
        self._store = store
        self._uploads = uploads

    def objects(
        self, tx: Tx, place: Place, bucket: str, *, prefix: str, delimiter: str, after: str | None, limit: int
    ) -> Page[AnyVersion]:
        """Objects as they are now, by key.

        Raises:
            NotFound: with subject ``bucket``.
        """
        owner = self._objects.require_bucket(tx, place, bucket)
        below = successor(prefix)

        def fetch(at: Position, count: int) -> Sequence[AnyVersion]:
            return self._store.current_objects(tx, owner.account, owner.name, at=at, below=below, limit=count)

        return page_of(
            fetch,
            lambda entry: Position(after=entry.key),
            prefix=prefix,
            delimiter=delimiter,
            start=Position(after=after),
            limit=limit,
        )

    def versions(
        self,
        tx: Tx,
        place: Place,
        bucket: str,
        *,
        prefix: str,
        delimiter: str,
        after: str | None,
        after_version: VersionId | None,
        limit: int,
    ) -> Page[AnyVersion]:
        """Versions and delete markers, by key and each key's newest first.

        Raises:
            NotFound: with subject ``bucket``.
            InvalidRequest: with subject ``argument``: a version marker without its key, or of no version.
        """
        owner = self._objects.require_bucket(tx, place, bucket)
        tie: int | None = None
        if after_version is not None:
            if after is None:
                raise InvalidRequest("A version-id marker cannot be specified without a key marker.", subject="argument")
            marked = self._store.version(tx, owner.account, owner.name, ObjectKey(after), after_version)
            if marked is None:
                raise InvalidRequest("Invalid version id specified: the key has no such version.", subject="argument")
            tie = marked.sequence
        below = successor(prefix)

        def fetch(at: Position, count: int) -> Sequence[AnyVersion]:
            return self._store.all_versions(tx, owner.account, owner.name, at=at, below=below, limit=count)

        return page_of(
            fetch,
            lambda entry: Position(after=entry.key, tie=entry.sequence),
            prefix=prefix,
            delimiter=delimiter,
            start=Position(after=after, tie=tie),
            limit=limit,
        )

    def uploads(
        self,
        tx: Tx,
        place: Place,
        bucket: str,
        *,
        prefix: str,
        delimiter: str,
        after: str | None,
        after_upload: UploadId | None,
        limit: int,
    ) -> Page[Upload]:
        """Unfinished uploads, by key and id.

        Raises:
            NotFound: with subject ``bucket``.
        """
        owner = self._objects.require_bucket(tx, place, bucket)
        below = successor(prefix)

        def fetch(at: Position, count: int) -> Sequence[Upload]:
            return self._uploads.uploads(tx, owner.account, owner.name, at=at, below=below, limit=count)

        # As S3 has it, an upload-id marker without a key marker says nothing.
        start = Position(after=after, tie=after_upload if after is not None else None)
        return page_of(
            fetch,
            lambda entry: Position(after=entry.key, tie=entry.upload_id),
            prefix=prefix,
            delimiter=delimiter,
            start=start,
            limit=limit,
        )
