"""Bucket policies, remembered until one changes: the dispatcher asks for them at every request on an object."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from overair.basics.arn import Place
from overair.basics.ids import AccountId, BucketName
from overair.basics.work import News, Tx, Work
from overair.server.access.stores import ResourcePolicies

REMEMBERED_MAX: Final = 10_000


class BucketPolicyMemory:
    """What buckets' policies say, by account and bucket; that a bucket has none is remembered too.

    It listens to *objects* (``objects.service.ObjectGone``) and forgets at the commit that changes a policy, before that change
    is acknowledged. A deleted bucket's policy is forgotten when its name is used again: until then there is nothing to guard.
    """

    def __init__(self) -> None:
        self._remembered: dict[tuple[AccountId, str], str | None] = {}
        self._generation = 0
        self._gate = threading.Lock()

    async def fetch(self, work: Work, source: ResourcePolicies, place: Place, buckets: Collection[str]) -> Mapping[str, str]:
        """The policies of those of the buckets that have one."""
        keys = [(place.account, bucket) for bucket in buckets]
        found = {key: self._remembered[key] for key in keys if key in self._remembered}
        missing = [key for key in keys if key not in found]
        if missing:
            generation = self._generation
            read = await work.read(
                lambda tx: {(account, bucket): source.bucket_policy(tx, place, bucket) for account, bucket in missing}
            )
            with self._gate:
                # A policy changed while we read: what was read may be the past.
                if generation == self._generation:
                    if len(self._remembered) + len(read) > REMEMBERED_MAX:
                        self._remembered.clear()
                    self._remembered.update(read)
            found.update(read)
        return {bucket: policy for (_, bucket), policy in found.items() if policy is not None}

    def forget(self, account: AccountId, bucket: str) -> None:
        """Ask the records again at the next request."""
        with self._gate:
            self._generation += 1
            self._remembered.pop((account, bucket), None)

    def bucket_policy_changed(self, tx: Tx, account: AccountId, bucket: BucketName) -> None:
        """A bucket's policy was put, changed or deleted in this unit."""
        tx.after_commit(lambda: self.forget(account, bucket))
        tx.tell_nodes(News("bucket-policy", (account, bucket)))

    def heard(self, parts: Sequence[str]) -> None:
        """Another node has changed a policy (``nodes.switchboard``)."""
        if parts:
            self.forget(AccountId(parts[0]), parts[1])
            return
        with self._gate:
            self._generation += 1
            self._remembered.clear()

    def object_gone(self, tx: Tx, version: object) -> None:
        """Objects come and go without touching their bucket's policy."""
