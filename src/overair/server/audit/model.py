"""What is written down, and how one row vouches for those before it. Pure.

Each account has one chain. A row's hash is taken over the hash of the row before it and the row itself, so whoever holds one
hash holds all that came before it: nothing of it can be changed, taken away or put elsewhere unseen (ADR 0020).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from hashlib import sha256
from operator import attrgetter
from typing import Final

from overair.basics.clock import Instant
from overair.basics.ids import AccountId

CHAIN_FORMAT: Final = "overair-audit-1"
RESTORED: Final = ("overair", "Restore")
"""Service and operation of the row that a restored server writes at its first start."""


class AuditKind(StrEnum):
    """What a row tells of."""

    CHANGE = "change"
    """An operator changed something: written in the change's own transaction."""
    READ = "read"
    DENIAL = "denial"
    """Somebody wasn't let in, or wasn't allowed to."""
    KEY_USE = "key-use"
    """A private key of the keyring was taken into use."""
    ENROLMENT = "enrolment"
    """A certificate became a device's own: written in the same transaction."""
    SIGNATURE = "signature"
    """An image was signed: written in the transaction that keeps the signature."""
    EXPIRY = "expiry"
    """Something ends soon, or has ended: written in the transaction that notes it as told."""
    LOST = "lost"
    """More came at once than is kept: how many reads, denials and uses of keys have no row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """Who did what, when, from where. Never what was in the request: that may be a secret."""

    account: AccountId
    at: Instant
    record_id: str
    """A UUID."""
    principal_arn: str
    access_key_id: str
    service: str
    operation: str
    resource: str
    """The ARN (or ``*``) that the operation was authorised for."""
    request_id: str
    source_ip: str
    kind: str = AuditKind.CHANGE
    """An ``AuditKind``, or whatever somebody has put in its place."""
    times: int = 1
    """How often within the second that a row of reads, denials or uses stands for."""
    sequence: int = 0
    """The place in the account's chain, from 1 on; 0 for rows of a version that had no chain."""
    chain_hash: str = ""
    """See ``link``; hexadecimal. Empty for rows before the chain, which its beginning vouches for."""


_hashed = attrgetter(*sorted(field.name for field in fields(AuditRecord) if field.name != "chain_hash"))


def link(previous: str, record: AuditRecord) -> str:
    """The hash of a row that follows the one with the hash ``previous``: over it and all of the row's own columns."""
    return _hash([CHAIN_FORMAT, previous, *_hashed(record)])


def beginning(account: AccountId, earlier: Iterable[AuditRecord]) -> str:
    """What the first row follows: it vouches for the account and for the rows of an earlier version, in the order of their time
    and id."""
    reached = _hash([CHAIN_FORMAT, account])
    for record in earlier:
        reached = link(reached, record)
    return reached


def _hash(parts: list[object]) -> str:
    return sha256(json.dumps(parts, separators=(",", ":")).encode("ascii")).hexdigest()


class ChainBroken(Exception):
    """The rows aren't the ones that were written. ``sequence`` is the first place that shows it."""

    def __init__(self, sequence: int, reason: str) -> None:
        super().__init__(reason)
        self.sequence = sequence
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A place in a chain."""

    account: AccountId
    sequence: int
    chain_hash: str


class ChainWalk:
    """Follows a chain from its beginning, one row after the other, in the order of (sequence, time, id)."""

    def __init__(self, expected: Reached) -> None:
        """``expected``: what the auditor holds. The rows must lead there, and on."""
        self._expected = expected
        self._reached = beginning(expected.account, ())
        self._is_met = False
        self.sequence = 0

    def follow(self, record: AuditRecord) -> None:
        """Take the next row.

        Raises:
            ChainBroken
        """
        if record.account != self._expected.account:
            raise ChainBroken(record.sequence, f"The row {record.record_id} is of another account.")
        if record.sequence == 0 and self.sequence == 0:
            self._reached = link(self._reached, record)
            return
        if self.sequence == 0:
            self._meet()
        if record.sequence != self.sequence + 1:
            raise ChainBroken(
                self.sequence + 1,
                f"After row {self.sequence} comes row {record.sequence}: one was taken away, put in, or moved.",
            )
        try:
            reached = link(self._reached, record)
        except TypeError:
            reached = ""  # a value of another type than was ever written
        if reached != record.chain_hash or not reached:
            raise ChainBroken(
                record.sequence,
                f"Row {record.sequence} isn't the one that was written, or one before it isn't: its hash doesn't follow.",
            )
        self.sequence, self._reached = record.sequence, reached
        self._meet()

    def end(self) -> None:
        """There are no more rows.

        Raises:
            ChainBroken
        """
        if self.sequence == 0:
            self._meet()
        if not self._is_met:
            raise ChainBroken(
                self.sequence + 1,
                f"The rows end with {self.sequence}; the head was signed when there were {self._expected.sequence}.",
            )

    def _meet(self) -> None:
        if self.sequence == self._expected.sequence:
            if self._reached != self._expected.chain_hash:
                raise ChainBroken(
                    self.sequence,
                    f"The rows up to {self.sequence} lead to another hash than the head's: they were written anew.",
                )
            self._is_met = True
