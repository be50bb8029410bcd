"""What an account sees is the same whatever its neighbour does: twins ask the same, one alone, one amid a neighbour's work.

The twins are furnished alike. The first one asks while nobody else is there; then a neighbour is furnished, and works between
any two requests of the second. Each answer to the second must be the first one's, but for what is an account's own or chance
(numbers of accounts, ids, moments, keys, tokens). Workers are stopped before, since how far they are would be a matter of time.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from overair.basics.ids import AccountId
from tests.support.accounts import Accounts, furnish, server_of_accounts
from tests.support.model_walk import ModelWalk, Wire

FIRST, ALONE, AMID = AccountId("100000000001"), AccountId("111122223333"), AccountId("444455556666")
SECRET = "only-the-neighbours"
ENDS_A_TWIN = {"DeleteAccessKey", "UpdateAccessKey"}
"""What a root may do to its own key."""
FOLLOWS_THE_CLOCK = {"ListAuditChain", "ListAuditRecords", "SignAuditHead"}
"""How many rows an account's own reads have is a matter of time: equal ones within half a second are one. That nobody else's
are among them is shown by ``test_two_accounts.py``."""

_CHANCE = re.compile(
    rb"-----BEGIN [^-]*-----.*?-----END [^-]*-----"  # certificates and keys
    rb"|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    rb"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z| UTC|\+00:00)"
    rb"|[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"
    rb"|\b[12]\d{9}(?:\.\d+)?\b|\b1[789]\d{11}\b|\b2[1-9]\d{7}\b"  # moments as numbers, also since 2020
    rb"|\b[0-9a-f]{16}(?=\xe2\x80\xa6)|\b[0-9a-f]{32,}\b|\b(?:AKIA|ASIA|AIDA|AROA|AGPA|ANPA)[A-Z0-9]{12,}"
    rb"|\b\d+ s left\b"
    rb"|(?:[0-9a-f]{2}:){12,}[0-9a-f]{2}"  # serial numbers
    rb'|(?<="profileVersion":")\w{10}'
    rb"|[A-Za-z0-9+/_=-]{24,}",  # secrets, tokens, ids of versions and of uploads
    re.DOTALL,
)


def masked(body: bytes, account: AccountId) -> bytes:
    return _CHANCE.sub(b"~", body.replace(account.encode(), b"ACCOUNT"))


def in_any_order(body: bytes) -> Counter[bytes]:
    return Counter(re.split(rb"[\s,{}\[\]]+", body))


class Twin:
    """One of the twins, who draws the same requests as the other."""

    def __init__(self, accounts: Accounts, account: AccountId) -> None:
        self.accounts, self.account = accounts, account
        self.names = furnish(accounts, account, prefix="twins", secret="twins-own")

    def requests(self, seed: int, count: int) -> list[tuple[str, str, Wire]]:
        """Of every door: well-formed requests, those that read among the ones that change, in an order by chance."""
        chance = random.Random(seed)
        walk = ModelWalk(self.names, random.Random(seed), spoils=False)
        left_out = ENDS_A_TWIN | FOLLOWS_THE_CLOCK
        bound = [(service, operation) for service, operation in self.accounts.bound(walk) if operation not in left_out]
        drawn = [
            (operation, walk.models[service].signing_name, walk.request(service, operation))
            for service, operation in chance.choices(bound, k=count)
        ]
        reads = [(what, "overair", wire) for what, wire in self.accounts.rest_requests(self.names, reads_alone=True)]
        every = [*drawn, *chance.sample(reads, min(len(reads), count // 4))]
        chance.shuffle(every)
        return every


def where_they_part(then: tuple[int, bytes], now: tuple[int, bytes]) -> str:
    """What is around the first difference, for a reader."""
    pairs = enumerate(zip(then[1], now[1], strict=False))
    at = max(next((place for place, (left, right) in pairs if left != right), min(len(then[1]), len(now[1]))) - 60, 0)
    return f"{then[0]} {then[1][at : at + 160]!r} but {now[0]} {now[1][at : at + 160]!r}"


def differences(twins: tuple[Twin, Twin], seed: int, count: int) -> list[str]:
    alone, amid = twins
    accounts = alone.accounts

    def ask(twin: Twin, service: str, wire: Wire) -> tuple[int, bytes]:
        answer = accounts.send(wire, twin.account, service=service)
        assert SECRET.encode() not in answer.body
        return answer.status, masked(answer.body, twin.account)

    first = [(what, ask(alone, service, wire)) for what, service, wire in alone.requests(seed, count)]
    neighbour = AccountId(str(777788880000 + seed))
    accounts.add(neighbour)
    names = furnish(accounts, neighbour, prefix=f"next-{seed}", secret=SECRET, sign=False)
    # He knows the twins' names too, and says them.
    theirs = ModelWalk({**names, "thingname": "twins-thing", "bucket": f"overair-{AMID}"}, random.Random(seed + 1))
    own = ModelWalk(names, random.Random(seed + 2), spoils=False)
    chance = random.Random(seed + 3)
    bound = [(service, operation) for service, operation in accounts.bound(own) if operation not in ENDS_A_TWIN]
    found = []
    for (what, then), (_, service, wire) in zip(first, amid.requests(seed, count), strict=True):
        walk = chance.choice((own, own, theirs))
        his_service, his_operation = chance.choice(bound)
        his = walk.request(his_service, his_operation)
        accounts.send(his, neighbour, service=walk.models[his_service].signing_name)
        now = ask(amid, service, wire)
        # Lists in the order of ids are in the order of chance: what counts is that the same words are there, as often.
        if (now[0], in_any_order(now[1])) != (then[0], in_any_order(then[1])):
            found.append(f"{what}: {where_they_part(then, now)}")
    return found


@pytest.mark.timeout(300)
def test_an_account_sees_the_same_with_and_without_its_neighbours_work(tmp_path: Path) -> None:
    with server_of_accounts(tmp_path / "data", FIRST, ALONE, AMID) as accounts:
        twins = (Twin(accounts, ALONE), Twin(accounts, AMID))
        accounts.thread.run(accounts.server.joined.workers.stop())
        found = differences(twins, 1, 120)
        assert not found, "\n".join(found)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_twenty_neighbours_change_nothing(tmp_path: Path) -> None:
    with server_of_accounts(tmp_path / "data", FIRST, ALONE, AMID) as accounts:
        twins = (Twin(accounts, ALONE), Twin(accounts, AMID))
        accounts.thread.run(accounts.server.joined.workers.stop())
        for seed in range(2, 22):
            found = differences(twins, seed, 400)
            assert not found, f"seed {seed}\n" + "\n".join(found)
