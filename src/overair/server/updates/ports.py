"""What updates ask of the rooms below and of their own records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import AccountId, OtaUpdateId
from overair.basics.work import Tx
from overair.server.updates.model import Update, UpdateStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateQuery:
    """Which updates a listing wants; newest first. ``after`` is the last one of the page before."""

    limit: int
    after: tuple[Instant, OtaUpdateId] | None = None
    status: UpdateStatus | None = None


class UpdatesStore(Protocol):
    """This room's records."""

    def find(self, tx: Tx, account: AccountId, update: OtaUpdateId) -> Update | None: ...
    def add(self, tx: Tx, update: Update) -> None: ...
    def take(self, tx: Tx, update: Update) -> bool:
        """Claim the step that ``update`` is at, for this unit. False: another process has done it."""
        ...

    def save(self, tx: Tx, update: Update) -> None: ...
    def delete(self, tx: Tx, account: AccountId, update: OtaUpdateId) -> None: ...
    def page(self, tx: Tx, account: AccountId, query: UpdateQuery) -> Sequence[Update]: ...
    def unfinished(self, tx: Tx, *, limit: int) -> Sequence[tuple[AccountId, OtaUpdateId]]: ...
    def failed(self, tx: Tx, account: AccountId, *, limit: int) -> Sequence[Update]: ...
    def unsigned(self, tx: Tx, account: AccountId, *, limit: int) -> Sequence[Update]: ...


class Targets(Protocol):
    """Whoever knows things and groups (``devices.service.DevicesService``)."""

    def require_target(self, tx: Tx, place: Place, target_arn: str) -> None:
        """Raises:
        NotFound: no such thing or group.
        InvalidRequest: the ARN names neither.
        """
        ...


class HeldKeys(Protocol):
    """Whoever holds keys that images can be signed with (``certificates.acm.AcmService``)."""

    def holds_key_of(self, tx: Tx, account: AccountId, certificate_pem: str) -> bool:
        """Whether the private key of a certificate is held here, under that certificate or another."""
        ...


class Tags(Protocol):
    """Whoever keeps tags of iot resources (``devices.tags.TagsService``)."""

    def accept(self, kind: str, exists: Callable[[Tx, AccountId, str], bool]) -> None: ...
    def set_new(self, tx: Tx, place: Place, arn: str, tags: Mapping[str, str] | None) -> None: ...
    def forget(self, tx: Tx, place: Place, arn: str) -> None: ...
