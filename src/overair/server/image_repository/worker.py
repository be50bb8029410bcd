"""What goes on by itself: signing anew before anything ends, and ending private keys that somebody left to be deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import OverairError
from overair.basics.ids import AccountId
from overair.basics.work import Tx, Work
from overair.server.image_repository.service import ImageRepositoryService
from overair.server.image_repository.uploads import ImageUploads
from overair.server.roots.erasure import KeyErasure
from overair.server.roots.lifetimes import LIFETIMES
from overair.server.roots.model import RoleExpiry
from overair.server.roots.service import RootsService
from overair.wire.uptane.metadata import Repository, Role

INTERVAL_MS: Final = 60 * 1000
"""How often it is looked whether anything is due."""

logger = structlog.get_logger("overair.uptane")


class MetadataRenewal:
    """A ``workers.Worker``. What it has to do stands in the documents; it looks at them once a minute.

    At its first look it signs anew everything that was signed before it began: a start may follow a restore from a backup, and
    then devices have seen higher versions than these records know.
    """

    name = "metadata-renewal"

    def __init__(
        self,
        *,
        work: Work,
        roots: RootsService,
        images: ImageRepositoryService,
        uploads: ImageUploads,
        erasure: KeyErasure,
        region: str,
        clock: Clock,
        life_began: Instant | None = None,
    ) -> None:
        """``life_began``: of the server, where this process isn't all of it; otherwise now."""
        self._work = work
        self._roots = roots
        self._images = images
        self._uploads = uploads
        self._erasure = erasure
        self._region = region
        self._clock = clock
        self._began = clock.now() if life_began is None else life_began
        self._due = Instant(0)
        self._is_first = True
        self._expiries: dict[AccountId, Sequence[RoleExpiry]] = {}

    @property
    def ends(self) -> Mapping[tuple[str, str], float]:
        """When each document ends (repository, role), in seconds since the epoch; the earliest of all accounts. For metrics."""
        found: dict[tuple[str, str], float] = {}
        for expiries in self._expiries.values():
            for expiry in expiries:
                key = (expiry.repository.value, expiry.role)
                found[key] = min(expiry.expires / 1000, found.get(key, float("inf")))
        return found

    async def run_once(self) -> bool:
        """Sign what is due; False until the next look.

        Raises:
            OverairError: what kept one repository from being signed; the others were looked at all the same.
        """
        now = self._clock.now()
        if now < self._due and not self._is_first:
            return False
        failed: OverairError | None = None
        for account, repository in await self._work.read(self._roots.repositories):
            try:
                await self._keep_up(account, repository)
            except OverairError as error:
                # One account's misery is told, and keeps no other's documents from being signed.
                logger.warning("metadata can't be renewed", account=account, repository=repository.value, why=error.message)
                failed = failed or error
        await self._work.run(lambda tx: self._uploads.give_up_old(tx, now))
        self._expiries = await self._work.read(self._all_expiries)
        self._is_first = False
        self._due = Instant(now + INTERVAL_MS)
        await self._erasure.erase()
        if failed is not None:
            raise failed
        return False

    async def _keep_up(self, account: AccountId, repository: Repository) -> None:
        """Sign what is due of one repository."""
        place = Place(self._region, account)
        if await self._work.read(lambda tx: self._root_is_due(tx, account, repository)):
            await self._work.run(lambda tx: self._roots.renew(tx, place, repository))
            logger.info("root renewed", account=account, repository=repository.value)
        if await self._work.read(lambda tx: self._roots.keys.kept_too_long(tx, account, repository)):
            await self._work.run(lambda tx: self._roots.forget_kept(tx, place, repository))
        if repository is Repository.IMAGE:
            signed_before = self._began if self._is_first else None
            if await self._work.run(lambda tx: self._images.renew_due(tx, place, signed_before=signed_before)):
                logger.info("metadata renewed", account=account)

    def _root_is_due(self, tx: Tx, account: AccountId, repository: Repository) -> bool:
        accepted = self._roots.accepted(tx, account, repository)
        left_ms = accepted.root.expires - self._clock.now()
        is_due = left_ms < LIFETIMES[repository, Role.ROOT].renewed_before_ms
        return is_due and accepted.is_published and self._roots.is_online(tx, account, repository, Role.ROOT)

    def _all_expiries(self, tx: Tx) -> dict[AccountId, Sequence[RoleExpiry]]:
        found: dict[AccountId, list[RoleExpiry]] = {}
        for account, repository in self._roots.repositories(tx):
            told = found.setdefault(account, [])
            if repository is Repository.IMAGE:
                told += self._images.expiries(tx, account)
            else:
                told.append(self._roots.expiry(tx, account, repository))
        return dict(found)
