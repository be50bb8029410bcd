"""A new key in place of an old one, by the name of what it is for. Who follows what is done by the rooms above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from overair.basics.arn import Place
from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.keyring.model import FILE, KeyKind, PreparedKey
from overair.server.keyring.service import Keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """What became of it."""

    in_force: bool
    """False: the key is made, and somebody must sign what names it before it counts."""
    told: str
    """What it means and what to do next, for people."""


class KeyRotation(Protocol):
    """A room whose keys are rotated by name."""

    def kinds(self) -> dict[str, Sequence[KeyKind]]:
        """The names that it knows, each with the kinds that its key may have; the first is what is made."""
        ...

    def rotate(self, tx: Tx, place: Place, name: str, prepared: PreparedKey) -> Rotated:
        """Take the new key into use and forget the old one.

        Raises:
            NotFound: with subject ``key-name``: there is none of it in this account.
            Conflict: the server can't do it alone; who must, and how.
        """
        ...


class Rotations:
    """Of every room that has joined."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._rooms: list[KeyRotation] = []

    def done_by(self, *rooms: KeyRotation) -> None:
        """Register, at composition, whose keys are rotated."""
        self._rooms += rooms

    def names(self) -> list[str]:
        return sorted(name for room in self._rooms for name in room.kinds())

    def prepare(self, account: AccountId, name: str, *, holder: str = FILE, kind: str | None = None) -> PreparedKey:
        """The new key, made or found where it is to lie: outside of a unit of work.

        Raises:
            NotFound: with subject ``key-name``.
            InvalidRequest, Conflict: see ``Keyring.hold``; subject ``key-kind``.
        """
        kinds = self._room(name).kinds()[name]
        wanted = kinds[0] if kind is None else next((each for each in kinds if each.value == kind), None)
        if wanted is None:
            raise InvalidRequest(
                f"The key {name} can't be of kind {str(kind)[:40]!r}: {', '.join(each.value for each in kinds)} can.",
                subject="key-kind",
            )
        return self._keyring.hold(account, holder, make=wanted)

    def rotate(self, tx: Tx, place: Place, name: str, prepared: PreparedKey) -> Rotated:
        """See ``KeyRotation.rotate``."""
        return self._room(name).rotate(tx, place, name, prepared)

    def _room(self, name: str) -> KeyRotation:
        for room in self._rooms:
            if name in room.kinds():
                return room
        raise NotFound(
            f"No key {name[:80]!r} is rotated by that name: {', '.join(self.names())} are. The key of a signer certificate "
            "changes with ImportCertificate under the same ARN; the server authority follows another in steps, by `overair "
            "server-ca`.",
            subject="key-name",
        )
