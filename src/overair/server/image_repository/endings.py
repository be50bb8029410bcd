"""When signed documents of both repositories end (``keyring.calendar``). What the Director signs for single vehicles isn't
among them: it is made when a vehicle asks."""

from __future__ import annotations

from collections.abc import Iterator

from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.image_repository.service import ImageRepositoryService
from overair.server.keyring.endings import NAME_LENGTH_MAX, Ending, EndingKind
from overair.server.roots.lifetimes import LIFETIMES
from overair.server.roots.model import RoleExpiry
from overair.server.roots.service import RootsService
from overair.wire.uptane.metadata import Repository, Role

OFFLINE = "offline:whoever%20signs%20it"


class MetadataEndings:
    """``keyring.calendar.Endings`` of this room and of ``roots``."""

    def __init__(self, *, roots: RootsService, images: ImageRepositoryService) -> None:
        self._roots = roots
        self._images = images

    def endings(self, tx: Tx, account: AccountId) -> Iterator[Ending]:
        """See ``Endings``."""
        expiries: list[RoleExpiry] = []
        if self._roots.exists(tx, account, Repository.IMAGE):
            expiries += self._images.expiries(tx, account)
        if self._roots.exists(tx, account, Repository.DIRECTOR):
            expiries.append(self._roots.expiry(tx, account, Repository.DIRECTOR))
        held = {repository: self._roots.keys.all(tx, account, repository) for repository in Repository}
        for expiry in expiries:
            keys = [key for key in held[expiry.repository] if key.role.value == expiry.role and key.unlisted_at is None]
            online = expiry.is_online and bool(keys)
            yield Ending(
                kind=EndingKind.METADATA,
                name=f"{expiry.repository}-{expiry.role}"[:NAME_LENGTH_MAX],
                what=f"{expiry.repository} {expiry.role}, version {expiry.version}",
                expires=expiry.expires,
                key_id=keys[-1].keyring_key if online else None,
                holder="" if online else OFFLINE,
                todo=_todo(expiry),
                renewed_before_ms=LIFETIMES[expiry.repository, Role(expiry.role)].renewed_before_ms if online else None,
            )


def _todo(expiry: RoleExpiry) -> str:
    if expiry.is_online:
        return "The server signs it anew by itself: see why it hasn't (overair status)."
    if expiry.role in tuple(Role):
        return "Sign it where its keys are: overair sign renew, then overair sign push."
    return f"Have whoever holds the delegation's keys sign {expiry.role} anew."
