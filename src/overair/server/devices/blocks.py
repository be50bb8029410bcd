"""Who is kept out: things, certificates, and all that came from one origin. In force at once, for MQTT and HTTPS alike.

A block stands beside the registry, not in it: taking it away brings back exactly what was there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from overair.basics.clock import Clock, Instant
from overair.basics.ids import AccountId, CertificateId, ThingName
from overair.basics.work import Tx
from overair.server.devices.ports import AccessChanged, ThingStore
from overair.server.devices.service import tell_certificates_of_thing

REASON_LENGTH_MAX: Final = 512


class BlockKind(StrEnum):
    """What a block names."""

    THING = "thing"
    """Every certificate that is attached to the thing; a name that is no thing yet is kept from becoming one."""
    CERTIFICATE = "certificate"
    ORIGIN = "origin"
    """Every certificate that came from one shared credential or fleet authority (``DeviceCertificate.origin``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block."""

    account: AccountId
    kind: BlockKind
    name: str
    reason: str
    blocked_at: Instant
    blocked_by: str
    """The operator's ARN."""


class BlockStore(Protocol):
    """The rows of blocks."""

    def find(self, tx: Tx, account: AccountId, kind: BlockKind, name: str) -> Block | None: ...

    def put(self, tx: Tx, block: Block) -> None:
        """Insert, or replace the one of the same kind and name."""
        ...

    def delete(self, tx: Tx, account: AccountId, kind: BlockKind, name: str) -> bool:
        """Whether it was there."""
        ...

    def page(self, tx: Tx, account: AccountId, *, after: tuple[str, str] | None, limit: int) -> Sequence[Block]:
        """By (kind, name)."""
        ...


class BlocksService:
    """Blocks and unblocks. Live connections are cut, and requests refused, once the unit has committed."""

    def __init__(self, *, store: BlockStore, things: ThingStore, access_changed: AccessChanged, clock: Clock) -> None:
        self._store = store
        self._things = things
        self._access_changed = access_changed
        self._clock = clock

    def block(self, tx: Tx, account: AccountId, kind: BlockKind, name: str, *, reason: str, by: str) -> Block:
        """Keep it out; again is fine and changes the reason."""
        block = Block(account=account, kind=kind, name=name, reason=reason, blocked_at=self._clock.now(), blocked_by=by)
        self._store.put(tx, block)
        self._tell(tx, account, kind, name)
        return block

    def unblock(self, tx: Tx, account: AccountId, kind: BlockKind, name: str) -> bool:
        """Let it in again; whether it was blocked."""
        was_blocked = self._store.delete(tx, account, kind, name)
        if was_blocked:
            self._tell(tx, account, kind, name)
        return was_blocked

    def find(self, tx: Tx, account: AccountId, kind: BlockKind, name: str) -> Block | None:
        """The block of this name, if there is one."""
        return self._store.find(tx, account, kind, name)

    def page(self, tx: Tx, account: AccountId, *, after: tuple[str, str] | None, limit: int) -> Sequence[Block]:
        """All blocks, by kind and name."""
        return self._store.page(tx, account, after=after, limit=limit)

    def _tell(self, tx: Tx, account: AccountId, kind: BlockKind, name: str) -> None:
        if kind is BlockKind.CERTIFICATE:
            self._access_changed.certificates(tx, account, [CertificateId(name)])
        elif kind is BlockKind.THING:
            tell_certificates_of_thing(tx, account, ThingName(name), self._things, self._access_changed)
        else:
            self._access_changed.everything(tx, account)
