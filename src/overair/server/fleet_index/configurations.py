"""What each account has indexed: told, changed, and remembered where every change of a thing asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from overair.basics.clock import Clock, Instant
from overair.basics.errors import Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.devices.model import DynamicQuery
from overair.server.devices.thing_groups import ThingGroupsService
from overair.server.fleet_index.fields import JOBS, Index, jobs_named, names_connectivity, names_packages, resolve
from overair.server.fleet_index.model import Configuration, IndexState, Phase
from overair.server.fleet_index.ports import SettingsStore
from overair.server.fleet_index.query import Query, parse, refused

REMEMBERED_MS: Final = 1_000
SPREAD_MS: Final = 2 * REMEMBERED_MS
"""How long a change waits for its worker where a server has several processes: by then each goes by it."""
NOTHING: Final = Configuration()


class Configurations:
    """The configurations of all accounts.

    Raises: ``InvalidRequest`` (subjects ``index``, ``query``), ``NotFound(subject="index")``, ``Conflict(subject="index")``.
    """

    def __init__(self, *, store: SettingsStore, groups: ThingGroupsService, clock: Clock, spread_ms: int = 0) -> None:
        self._store = store
        self._groups = groups
        self._clock = clock
        self._spread_ms = spread_ms
        self._remembered: dict[AccountId, tuple[Configuration, Instant]] = {}
        self._changing: set[AccountId] = set()
        self.wake: Callable[[], None] = _nobody
        """Called after a commit that left work for a worker."""

    def of(self, tx: Tx, account: AccountId) -> Configuration:
        """As the records have it."""
        return self._store.configuration(tx, account) or NOTHING

    def remembered(self, tx: Tx, account: AccountId) -> Configuration:
        """The same for a unit that writes, at most a second old: most accounts have nothing indexed, and pay nothing for it."""
        found = self._remembered.get(account)
        now = self._clock.now()
        if found is not None and account not in self._changing and now - found[1] < REMEMBERED_MS:
            return found[0]
        configuration = self.of(tx, account)
        if account not in self._changing:
            self._remembered[account] = configuration, now
        return configuration

    def change(self, tx: Tx, account: AccountId, wanted: Configuration) -> None:
        """Have this indexed from now on; a worker adds what is missing and takes away what isn't wanted any more."""
        before = self.of(tx, account)
        for group in self._groups.dynamic_groups(tx, account):
            assert group.dynamic is not None
            try:
                require_fields(query_of(group.dynamic), wanted)
            except InvalidRequest as missing:
                raise InvalidRequest(
                    f"The dynamic thing group {group.name} needs what this would end: {missing.message} "
                    "Delete the group, or change its query first.",
                    subject="index",
                ) from None
        # Until its commit is sure, nobody remembers what a unit of the same group reads.
        self._changing.add(account)
        self._store.save_configuration(tx, account, wanted)
        for index in Index:
            self._follow(tx, account, index, before, wanted)
        tx.after_commit(lambda: self._changed(account))

    def _changed(self, account: AccountId) -> None:
        self._remembered.pop(account, None)
        self._changing.discard(account)
        self.wake()

    def _follow(self, tx: Tx, account: AccountId, index: Index, before: Configuration, wanted: Configuration) -> None:
        state = self._store.state(tx, account, index)
        due_at = Instant(self._clock.now() + self._spread_ms)
        if not wanted.has(index):
            if state is not None:
                self._store.save_state(tx, replace(state, phase=Phase.EMPTYING, cursor="", due_at=due_at))
        elif state is None:
            self._store.save_state(tx, IndexState(account=account, index=index, phase=Phase.BUILDING, due_at=due_at))
        elif state.phase is not Phase.EMPTYING and index is Index.THINGS and _sources(before) != _sources(wanted):
            phase = Phase.REBUILDING if state.phase is Phase.ACTIVE else state.phase
            self._store.save_state(tx, replace(state, phase=phase, cursor="", due_at=due_at))

    # Indices --------------------------------------------------------------------------------------------------------------

    def state(self, tx: Tx, account: AccountId, index: Index) -> IndexState:
        """An index that is on."""
        state = self._store.state(tx, account, index)
        if state is None or not self.of(tx, account).has(index):
            raise NotFound(
                f"The index {index.value} isn't there: turn it on with UpdateIndexingConfiguration.", subject="index"
            )
        return state

    def searchable(self, tx: Tx, account: AccountId, index: Index) -> Configuration:
        """See that an index can answer."""
        if self.state(tx, account, index).phase in (Phase.BUILDING, Phase.EMPTYING):
            raise Conflict(
                f"The index {index.value} is being built. Ask again when DescribeIndex says ACTIVE.", subject="index"
            )
        return self.of(tx, account)

    def indices(self, tx: Tx, account: AccountId) -> list[Index]:
        """Those that are on."""
        configuration = self.of(tx, account)
        return [index for index in Index if configuration.has(index)]


def _nobody() -> None:
    return None


def query_of(dynamic: DynamicQuery) -> Query:
    """The query of a dynamic group, ready to be asked."""
    return resolve(parse(dynamic.text), Index(dynamic.index_name))


def require_fields(query: Query, configuration: Configuration) -> None:
    """See that what a query of things names is indexed.

    Raises:
        InvalidRequest: it isn't. Subject ``query``.
    """
    if not configuration.things:
        raise refused("things aren't indexed. Set thingIndexingMode to REGISTRY.")
    if names_connectivity(query) and not configuration.connectivity:
        raise refused("connectivity isn't indexed. Set thingConnectivityIndexingMode to STATUS.")
    if names_packages(query) and not configuration.packages:
        raise refused("packages aren't indexed. Set namedShadowIndexingMode to ON, with $package in the filter.")
    for name in jobs_named(query):
        if not configuration.has_job(name):
            raise refused(
                f"{name} isn't indexed. Add a custom field of type String with this name to thingIndexingConfiguration, "
                "or jobs.* for all jobs."
            )


def _sources(configuration: Configuration) -> tuple[object, ...]:
    jobs = frozenset(field.name for field in configuration.fields if field.name.startswith(JOBS))
    return configuration.things, configuration.connectivity, configuration.packages, jobs
