"""What is remembered of keys and grants is never older than the last change that was acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import AccountId, BucketName
from overair.basics.work import Tx, Work
from overair.server.access import grants as grants_module
from overair.server.access import keys as keys_module
from overair.server.access.authoriser import PolicyAuthoriser
from overair.server.access.bucket_policies import BucketPolicyMemory
from overair.server.access.grants import PrincipalKey
from overair.server.access.model import KeyStatus, Owner, OwnerKind
from overair.server.policy_language.conditions import context_of
from overair.server.policy_language.evaluation import Decision, Question
from overair.server.storage.work import SqlWork
from tests.support.access import AccessRoom, build_access_room

T = TypeVar("T")
ACCOUNT = AccountId("123456789012")
ANN = Owner(kind=OwnerKind.USER, name="ann")
ALLOW = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:ListThings","Resource":"*"}]}'
LIST_THINGS = Question(action="iot:ListThings", resource="*", context=context_of({}))


@pytest.fixture
def room(work: SqlWork, place: Place, clock: SettableClock) -> AccessRoom:
    return build_access_room(work, place, clock)


class SlowReader:
    """Reads, and then waits while something else happens, as a reader thread may."""

    def __init__(self, work: SqlWork, meanwhile: Callable[[], None]) -> None:
        self._work = work
        self._meanwhile = meanwhile
        self.reads = 0

    async def run(self, unit: Callable[[Tx], T]) -> T:
        raise AssertionError("nothing is written here")

    async def read(self, query: Callable[[Tx], T]) -> T:
        self.reads += 1
        found = self._work.read_blocking(query)
        self._meanwhile()
        return found


def test_grants_that_were_read_before_a_change_are_not_kept_after_it(room: AccessRoom) -> None:
    room.user("ann", p=ALLOW)
    key = PrincipalKey(ACCOUNT, ANN)

    def take_away() -> None:
        room.work.run_blocking(lambda tx: room.policies.delete_inline(tx, ACCOUNT, ANN, "p"))

    overtaken = SlowReader(room.work, take_away)
    asyncio.run(room.grants.fetch(overtaken, key))
    calm = SlowReader(room.work, lambda: None)
    for _ in range(2):
        assert asyncio.run(room.grants.fetch(calm, key)).decide(LIST_THINGS) is Decision.IMPLICIT_DENY
    assert calm.reads == 1, "what nothing overtook is remembered"


def test_keys_that_were_read_before_a_change_are_not_kept_after_it(room: AccessRoom) -> None:
    keys = room.user("ann")

    def switch_off() -> None:
        room.work.run_blocking(lambda tx: room.identities.set_key_status(tx, ACCOUNT, "ann", keys.key_id, KeyStatus.INACTIVE))

    asyncio.run(room.credentials.fetch(SlowReader(room.work, switch_off), keys.key_id))
    assert room.credentials.remembered(keys.key_id) is None
    calm = SlowReader(room.work, lambda: None)
    found = asyncio.run(room.credentials.fetch(calm, keys.key_id))
    assert found is not None
    assert not found.is_active


def test_what_a_unit_sees_before_its_commit_is_not_remembered(room: AccessRoom) -> None:
    room.user("ann")
    key = PrincipalKey(ACCOUNT, ANN)

    class Undone(Exception):
        pass

    def grants_for_a_moment(tx: Tx) -> None:
        room.policies.put_inline(tx, ACCOUNT, ANN, "p", ALLOW)
        assert room.grants.of(tx, key).decide(LIST_THINGS) is Decision.ALLOW
        raise Undone

    with pytest.raises(Undone):
        room.work.run_blocking(grants_for_a_moment)
    assert room.work.read_blocking(lambda tx: room.grants.of(tx, key)).decide(LIST_THINGS) is Decision.IMPLICIT_DENY
    assert asyncio.run(room.grants.fetch(room.work, key)).decide(LIST_THINGS) is Decision.IMPLICIT_DENY


def test_memory_is_bounded_and_unknown_keys_take_none(room: AccessRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants_module, "REMEMBERED_MAX", 3)
    monkeypatch.setattr(keys_module, "REMEMBERED_MAX", 3)
    made = [room.user(f"u{number}") for number in range(5)]

    async def ask() -> None:
        for number, keys in enumerate(made):
            await room.grants.fetch(room.work, PrincipalKey(ACCOUNT, Owner(kind=OwnerKind.USER, name=f"u{number}")))
            await room.credentials.fetch(room.work, keys.key_id)
            assert await room.credentials.fetch(room.work, f"AKIAUNKNOWN{number}") is None

    asyncio.run(ask())
    assert len(room.grants._remembered) <= 3
    assert len(room.credentials._remembered) <= 3
    assert all(key.startswith("AKIA") and "UNKNOWN" not in key for key in room.credentials._remembered)


# Buckets' policies ------------------------------------------------------------------------------------------------------

DENY = '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::*"}]}'


def fetch(room: AccessRoom, memory: BucketPolicyMemory, *buckets: str, work: Work | None = None) -> dict[str, str]:
    return dict(asyncio.run(memory.fetch(work or room.work, room.buckets, room.place, buckets)))


def test_a_buckets_policy_is_read_once_until_it_changes(room: AccessRoom) -> None:
    memory = BucketPolicyMemory()
    room.buckets.policies["b"] = DENY
    for _ in range(3):
        assert fetch(room, memory, "b", "without") == {"b": DENY}
    assert room.buckets.reads == 2
    del room.buckets.policies["b"]
    room.work.run_blocking(lambda tx: memory.bucket_policy_changed(tx, ACCOUNT, BucketName("b")))
    assert fetch(room, memory, "b", "without") == {}
    assert room.buckets.reads == 3


def test_a_policy_that_came_while_another_was_read_is_not_overlooked(room: AccessRoom) -> None:
    memory = BucketPolicyMemory()
    assert fetch(room, memory, "known") == {}

    def put() -> None:
        for bucket in ("known", "b"):
            room.buckets.policies[bucket] = DENY
            room.work.run_blocking(lambda tx, bucket=bucket: memory.bucket_policy_changed(tx, ACCOUNT, BucketName(bucket)))

    fetch(room, memory, "known", "b", work=SlowReader(room.work, put))
    assert fetch(room, memory, "known", "b") == {"known": DENY, "b": DENY}


def test_a_unit_that_fails_forgets_nothing_and_a_new_bucket_begins_without_a_policy(room: AccessRoom) -> None:
    memory = BucketPolicyMemory()
    authoriser = PolicyAuthoriser(room.work, room.grants, room.buckets, memory)
    room.buckets.policies["b"] = DENY
    assert fetch(room, memory, "b") == {"b": DENY}

    def fails(tx: Tx) -> None:
        memory.bucket_policy_changed(tx, ACCOUNT, BucketName("b"))
        raise ValueError

    with pytest.raises(Exception):  # noqa: B017  storage tells it in its own words
        room.work.run_blocking(fails)
    fetch(room, memory, "b")
    assert room.buckets.reads == 1
    del room.buckets.policies["b"]  # the bucket was deleted, with its policy
    asyncio.run(authoriser.authorise(room.caller("root"), "s3", "CreateBucket", {"Bucket": "b"}))
    asyncio.run(authoriser.authorise(room.caller("root"), "s3", "GetObject", {"Bucket": "b", "Key": "k"}))
