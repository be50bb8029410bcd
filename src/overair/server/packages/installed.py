"""The record of what jobs have put on things: what the cloud keeps in the reserved shadow ``$package``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from overair.basics.clock import Instant
from overair.basics.errors import NotFound
from overair.basics.ids import AccountId, GroupName, JobId, ThingName
from overair.basics.work import Tx
from overair.server.packages.model import ABSENT, Installed
from overair.server.packages.ports import PackagesChanged, PackageStore, Things

logger = structlog.get_logger("overair.packages")


class NobodySearches:
    """``ports.PackagesChanged`` where there is no index."""

    def packages_changed(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """Nobody hears of it."""


class InstalledPackages:
    """Written by jobs that succeed, where the account's configuration wants it; read by operators."""

    def __init__(self, *, store: PackageStore, things: Things) -> None:
        self._store = store
        self._things = things
        self._searched_by: PackagesChanged = NobodySearches()

    def searched_by(self, index: PackagesChanged) -> None:
        """Register, at composition, the index that must know of changes."""
        self._searched_by = index

    def succeeded(
        self, tx: Tx, account: AccountId, thing: ThingName, job: JobId, versions: Sequence[tuple[str, str]], *, now: Instant
    ) -> None:
        """A job that was to put these versions on a thing has succeeded there: write it down, if the account wants it. A
        version that is gone meanwhile isn't written, as in the cloud."""
        if not self._store.configuration(tx, account).enabled:
            return
        changes: dict[str, str | None] = {}
        for package, version in versions:
            if version == ABSENT:
                changes[package] = None
            elif self._store.find_version(tx, account, package, version) is not None:
                changes[package] = version
            else:
                logger.warning("a package version is gone and isn't written down", thing=thing, job=job, package=package)
        if changes:
            self._store.set_installed(tx, account, thing, changes, job=job, now=now)
            self._searched_by.packages_changed(tx, account, thing)

    def versions_on(self, tx: Tx, account: AccountId, thing: ThingName) -> Mapping[str, str]:
        """What is on a thing now: version by package."""
        found = self._store.installed(tx, account, thing)
        return {each.package: each.version for each in found if each.version is not None}

    def of_thing(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[Installed]:
        """A thing's record, by package: what jobs have put on it and taken off it.

        Raises:
            NotFound: there is no such thing, or nothing was ever written of it. Subjects ``thing``, ``shadow``.
        """
        if not self._things.has_thing(tx, account, thing):
            raise NotFound(f"There is no thing {thing!r} in this account.", subject="thing")
        found = self._store.installed(tx, account, thing)
        if not found:
            raise NotFound(f"No job has written down a package on {thing}.", subject="shadow")
        return found

    # ``devices.ports.MembershipChanged``: what is on a thing goes with it -------------------------------------------------

    def joined(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None:
        """Nothing hangs on groups."""

    def left(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None:
        """Nothing hangs on groups."""

    def thing_deleted(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """Another of its name has nothing on it yet."""
        self._store.forget_thing(tx, account, thing)
