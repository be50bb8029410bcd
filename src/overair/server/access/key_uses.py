"""When was a key last used? Noted in memory at each request, written down at most once a minute, in batches.

A request must not wait for a write only because somebody may ask this one day. So what is written down may lag by a minute, and
a process that ends takes its last minute with it.
"""

from __future__ import annotations

import threading
from itertools import islice
from typing import Final

from overair.basics.clock import Clock, Instant
from overair.basics.work import Tx, Work
from overair.server.access.model import Credential, LastUse
from overair.server.access.stores import IdentityStore

NOTED_MAX: Final = 10_000
"""Keys in memory that weren't written down yet. Beyond that, uses of further keys wait for the next minute's."""
WRITTEN_EVERY_MS: Final = 60_000
BATCH_MAX: Final = 500


class KeyUses:
    """The newest use of each long-lived key and each role since it was last written down. Any thread may note."""

    def __init__(self) -> None:
        self._noted: dict[str, tuple[Credential, LastUse]] = {}
        self._gate = threading.Lock()

    def note(self, credential: Credential, *, service: str, region: str, now: Instant) -> None:
        """A request was proved by this key."""
        who = _holder(credential)
        noted = self._noted.get(who)
        if noted is not None and noted[1].at // 1000 == now // 1000 and noted[1].service == service:
            return
        with self._gate:
            if noted is not None or len(self._noted) < NOTED_MAX:
                self._noted[who] = (credential, LastUse(at=now, service=service, region=region))

    def newest(self, holder: str, written: LastUse | None) -> LastUse | None:
        """What is in memory of a key's id or a role's ARN if it is newer than what is written, else that."""
        noted = self._noted.get(holder)
        if noted is None or (written is not None and written.at > noted[1].at):
            return written
        return noted[1]

    def take(self) -> list[tuple[Credential, LastUse]]:
        """A batch to write down. It stays known until ``written``."""
        with self._gate:
            return list(islice(self._noted.values(), BATCH_MAX))

    def written(self, batch: list[tuple[Credential, LastUse]]) -> None:
        """A batch is written down: forget it, but for keys that were used again."""
        with self._gate:
            for credential, use in batch:
                who = _holder(credential)
                if self._noted.get(who, (credential, None))[1] is use:
                    del self._noted[who]


def _holder(credential: Credential) -> str:
    """Keys of sessions come and go: what they were used for is their role's."""
    return credential.role_arn or credential.key_id


class KeyUseWriter:
    """The worker that writes uses down. Each process that lets operators in has its own."""

    name = "key-uses"

    def __init__(self, *, work: Work, uses: KeyUses, store: IdentityStore, clock: Clock) -> None:
        self._work = work
        self._uses = uses
        self._store = store
        self._clock = clock
        self._due = clock.now() + WRITTEN_EVERY_MS

    async def run_once(self) -> bool:
        """Write one batch if a minute has passed; True where more waits."""
        if self._clock.now() < self._due:
            return False
        batch = self._uses.take()
        if batch:
            await self._work.run(lambda tx: self._write(tx, batch))
            self._uses.written(batch)
        if len(batch) < BATCH_MAX:
            self._due = self._clock.now() + WRITTEN_EVERY_MS
            return False
        return True

    def _write(self, tx: Tx, batch: list[tuple[Credential, LastUse]]) -> None:
        for credential, use in batch:
            if credential.role_arn:
                self._store.note_role_use(tx, credential.account, credential.role_arn.rpartition("/")[2], use)
            else:
                self._store.note_key_use(tx, credential.account, credential.key_id, use)
