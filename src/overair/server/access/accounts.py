"""Accounts of this server: the first one, which its first start made, and those that the first one's operators make.

An account is a wall: everything belongs to one, and no principal of one reads or changes anything of another. So whoever makes
an account gets its root's key once, and has no power over it afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from overair.basics.clock import Clock, Instant
from overair.basics.errors import AlreadyExists, InvalidRequest, LimitExceeded
from overair.basics.ids import AccountId, IdSource
from overair.basics.work import Tx

ACCOUNTS_MAX: Final = 1000
NAME_LENGTH_MAX: Final = 128
_DIGITS: Final = "0123456789"
_NUMBER: Final = re.compile(r"[1-9]\d{11}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAccount:
    """One account of the server."""

    account: AccountId
    name: str
    """For people; need not be unique."""
    created: Instant


def new_account(ids: IdSource) -> AccountId:
    """Twelve random digits, the first not zero."""
    return AccountId(ids.token(1, _DIGITS[1:]) + ids.token(11, _DIGITS))


class AccountStore(Protocol):
    """Where accounts are written down."""

    def add(self, tx: Tx, known: KnownAccount) -> None: ...
    def find(self, tx: Tx, account: AccountId) -> KnownAccount | None: ...
    def count(self, tx: Tx) -> int: ...
    def page(self, tx: Tx, *, after: str, limit: int) -> Sequence[KnownAccount]: ...


class Accounts:
    """Which accounts there are. What an account has from its start is made by ``first_start``."""

    def __init__(self, store: AccountStore, *, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    def new_number(self) -> AccountId:
        """A number that chance makes."""
        return new_account(self._ids)

    def is_known(self, tx: Tx, account: AccountId) -> bool:
        """Whether there is such an account."""
        return self._store.find(tx, account) is not None

    def note(self, tx: Tx, account: AccountId, *, name: str = "") -> None:
        """It is there. A repeat changes nothing."""
        if self._store.find(tx, account) is None:
            self._store.add(tx, KnownAccount(account=account, name=name, created=self._clock.now()))

    def require_new(self, tx: Tx, account: AccountId, *, name: str) -> None:
        """Return if an account of this number and name can be made.

        Raises:
            InvalidRequest: number or name (subject ``account``). AlreadyExists: the number is taken. LimitExceeded.
        """
        if not _NUMBER.fullmatch(account):
            raise InvalidRequest(f"{account[:40]!r} is no account: twelve digits, the first not zero.", subject="account")
        if len(name) > NAME_LENGTH_MAX or not name.isprintable():
            raise InvalidRequest(
                f"An account's name has at most {NAME_LENGTH_MAX} characters, no control characters.", subject="account"
            )
        if self._store.find(tx, account) is not None:
            raise AlreadyExists(f"Account {account} is there already.", subject="account")
        if self._store.count(tx) >= ACCOUNTS_MAX:
            raise LimitExceeded(f"A server has at most {ACCOUNTS_MAX} accounts.", subject="account")

    def page(self, tx: Tx, *, after: str, limit: int) -> Sequence[KnownAccount]:
        """By number."""
        return self._store.page(tx, after=after, limit=limit)

    def all(self, tx: Tx) -> Sequence[KnownAccount]:
        """Every account of the server, by number."""
        return self._store.page(tx, after="", limit=ACCOUNTS_MAX + 1)
