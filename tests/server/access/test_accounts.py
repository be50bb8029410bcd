"""Which accounts there are; on both databases."""

from __future__ import annotations

import pytest

from overair.basics.clock import SettableClock
from overair.basics.errors import AlreadyExists, InvalidRequest, LimitExceeded
from overair.basics.ids import AccountId, SeededIds
from overair.server.access import accounts as module
from overair.server.access.account_store import SqlAccountStore
from overair.server.access.accounts import Accounts
from overair.server.storage.work import SqlWork

FIRST, SECOND = AccountId("123456789012"), AccountId("210987654321")


@pytest.fixture
def accounts(clock: SettableClock, ids: SeededIds) -> Accounts:
    return Accounts(SqlAccountStore(), clock=clock, ids=ids)


def test_an_account_is_noted_once_and_listed_by_number(work: SqlWork, accounts: Accounts) -> None:
    for account, name in ((SECOND, "b"), (FIRST, ""), (SECOND, "another name")):
        work.run_blocking(lambda tx, account=account, name=name: accounts.note(tx, account, name=name))
    found = work.read_blocking(accounts.all)
    assert [(known.account, known.name) for known in found] == [(FIRST, ""), (SECOND, "b")]
    page = work.read_blocking(lambda tx: accounts.page(tx, after=FIRST, limit=1))
    assert [known.account for known in page] == [SECOND]


def test_a_new_account_has_a_number_that_nobody_has(work: SqlWork, accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    work.run_blocking(lambda tx: accounts.note(tx, FIRST))

    def require(account: str, name: str = "") -> None:
        work.read_blocking(lambda tx: accounts.require_new(tx, AccountId(account), name=name))

    require(SECOND)
    require(accounts.new_number())
    with pytest.raises(AlreadyExists):
        require(FIRST)
    for wrong in ("012345678901", "12345678901", "1234567890123", "12345678901x", "", "１２３４５６７８９０１２"):
        with pytest.raises(InvalidRequest):
            require(wrong)
    for name in ("a" * 129, "a\n"):
        with pytest.raises(InvalidRequest):
            require(SECOND, name)
    monkeypatch.setattr(module, "ACCOUNTS_MAX", 1)
    with pytest.raises(LimitExceeded):
        require(SECOND)
