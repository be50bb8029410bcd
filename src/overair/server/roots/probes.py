"""Which root each thing has, told from what it asks for: a client asks for the version after its own until there is none."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from overair.basics.clock import Clock
from overair.basics.ids import AccountId, ThingName
from overair.basics.work import Tx, Work
from overair.server.roots.model import RootProbe
from overair.server.roots.ports import RootStore
from overair.wire.uptane.metadata import Repository

PROBES_IN_MEMORY_MAX: Final = 100_000


class RootProbes:
    """Notes the highest version that each thing has asked for; a thing that asks the same again costs no write."""

    def __init__(self, *, work: Work, store: RootStore, clock: Clock) -> None:
        self._work = work
        self._store = store
        self._clock = clock
        self._known: OrderedDict[tuple[AccountId, Repository, ThingName], int] = OrderedDict()

    async def note(
        self, account: AccountId, repository: Repository, thing: ThingName, version: int, *, newest_version: int
    ) -> None:
        """A thing has asked for ``version``; ``newest_version`` is the newest that it could be given. What lies further away
        than the next says nothing of what the thing has."""
        key = (account, repository, thing)
        if version > newest_version + 1 or self._known.get(key, 0) >= version:
            return
        now = self._clock.now()
        await self._work.run(lambda tx: self._store.probed(tx, account, repository, thing, version, now=now))
        self._known[key] = version
        self._known.move_to_end(key)
        while len(self._known) > PROBES_IN_MEMORY_MAX:
            self._known.popitem(last=False)

    def all(self, tx: Tx, account: AccountId, repository: Repository) -> Sequence[RootProbe]:
        """By thing."""
        return self._store.probes(tx, account, repository)

    def behind(self, tx: Tx, account: AccountId, repository: Repository, version: int) -> Sequence[RootProbe]:
        """Things that haven't seen root ``version`` yet: a trivial update would bring it to them (Uptane reference §5.2)."""
        return [probe for probe in self._store.probes(tx, account, repository) if probe.client_version < version]
