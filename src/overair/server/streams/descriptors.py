"""What GetStream needs to serve a block without asking the database.

A descriptor is made of a stream's version and the contents of its files, all immutable, so it may be kept until something is
taken away: the stream, an object's version, a bucket policy, a role's grant. Then it is dropped before the caller who took it
away is answered. Everything here runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from overair.basics.ids import AccountId, BucketName, ObjectKey, StreamId
from overair.basics.work import News, Tx
from overair.server.objects.model import ContentId, ObjectVersion
from overair.wire.stream_messages import RefusalCode

DESCRIPTORS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """A file that may be served: its content is there and the role may read it."""

    content_id: ContentId
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedFile:
    """A file that may not be served now, and why."""

    code: RefusalCode
    message: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """One version of a stream, ready to be served."""

    stream: StreamId
    version: int
    description: str
    files: Mapping[int, OpenFile | ClosedFile]
    sources: frozenset[tuple[BucketName, ObjectKey]]


class Descriptors:
    """A bounded set of descriptors by (account, stream)."""

    def __init__(self, *, capacity: int = DESCRIPTORS_MAX) -> None:
        self._capacity = capacity
        self._held: dict[tuple[AccountId, StreamId], Descriptor] = {}
        self._generation = 0
        self.get = self._held.get
        """(account, stream) → descriptor or None: the hot path is one dictionary look-up."""

    @property
    def generation(self) -> int:
        """Changes with every eviction: what was read before one must not be kept after it."""
        return self._generation

    def keep(self, account: AccountId, descriptor: Descriptor, *, generation: int) -> bool:
        """Hold a descriptor that was read while ``generation`` was current. False: an eviction came between, read again."""
        if generation != self._generation:
            return False
        key = (account, descriptor.stream)
        self._held.pop(key, None)
        while len(self._held) >= self._capacity:
            del self._held[next(iter(self._held))]
        self._held[key] = descriptor
        return True

    # Who takes something away says so inside the unit that does it; what is held goes at its commit, before the caller hears.

    def stream_changed(self, tx: Tx, account: AccountId, stream: StreamId) -> None:
        """A stream has another version, or is gone."""
        tx.after_commit(lambda: self._evict_stream(account, stream))
        tx.tell_nodes(News("descriptors", ("stream", account, stream)))

    def object_gone(self, tx: Tx, version: ObjectVersion) -> None:
        """A version of an object was deleted or replaced (``objects.service.ObjectGone``)."""
        tx.after_commit(lambda: self._evict_object(version.account, version.bucket, version.key))
        tx.tell_nodes(News("descriptors", ("object", version.account, version.bucket, version.key)))

    def bucket_policy_changed(self, tx: Tx, account: AccountId, bucket: BucketName) -> None:
        """A bucket's policy was put, changed or deleted."""
        tx.after_commit(lambda: self._evict_bucket(account, bucket))
        tx.tell_nodes(News("descriptors", ("bucket", account, bucket)))

    def heard(self, parts: Sequence[str]) -> None:
        """Another node has taken something away (``nodes.switchboard``)."""
        match parts:
            case ["stream", account, stream]:
                self._evict_stream(AccountId(account), StreamId(stream))
            case ["object", account, bucket, key]:
                self._evict_object(AccountId(account), BucketName(bucket), ObjectKey(key))
            case ["bucket", account, bucket]:
                self._evict_bucket(AccountId(account), BucketName(bucket))
            case _:
                self.evict()

    def evict(self) -> None:
        """Drop everything, on the event loop: some role or policy has changed. That is seldom, and reading again is cheap."""
        self._generation += 1
        self._held.clear()

    def _evict_stream(self, account: AccountId, stream: StreamId) -> None:
        self._generation += 1
        self._held.pop((account, stream), None)

    def _evict_object(self, account: AccountId, bucket: BucketName, key: ObjectKey) -> None:
        self._drop(account, lambda descriptor: (bucket, key) in descriptor.sources)

    def _evict_bucket(self, account: AccountId, bucket: BucketName) -> None:
        self._drop(account, lambda descriptor: any(source[0] == bucket for source in descriptor.sources))

    def _drop(self, account: AccountId, touched: Callable[[Descriptor], bool]) -> None:
        self._generation += 1
        for held, descriptor in list(self._held.items()):
            if held[0] == account and touched(descriptor):
                del self._held[held]
