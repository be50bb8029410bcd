"""When a key was last used: noted at once, written down once a minute; on both databases."""

from __future__ import annotations

import asyncio

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import Unavailable
from overair.basics.ids import AccessKeyId, AccountId
from overair.server.access import key_uses as module
from overair.server.access.key_uses import KeyUses, KeyUseWriter
from overair.server.access.model import Credential, LastUse
from overair.server.access.store import SqlIdentityStore
from overair.server.storage.work import SqlWork
from tests.support.access import AccessRoom, build_access_room

ACCOUNT = AccountId("123456789012")
MINUTE_MS = module.WRITTEN_EVERY_MS


@pytest.fixture
def room(work: SqlWork, place: Place, clock: SettableClock) -> AccessRoom:
    return build_access_room(work, place, clock)


def writer(room: AccessRoom) -> KeyUseWriter:
    return KeyUseWriter(work=room.work, uses=room.credentials.uses, store=SqlIdentityStore(), clock=room.clock)


def credential(room: AccessRoom, key_id: AccessKeyId) -> Credential:
    found = asyncio.run(room.credentials.fetch(room.work, key_id))
    assert found is not None
    return found


def use(room: AccessRoom, held: Credential, service: str = "iot") -> LastUse:
    now = room.clock.now()
    room.credentials.uses.note(held, service=service, region="us-east-1", now=now)
    return LastUse(at=now, service=service, region="us-east-1")


def written(room: AccessRoom, key_id: AccessKeyId) -> LastUse | None:
    return room.work.read_blocking(lambda tx: room.identities.holder_of_key(tx, ACCOUNT, key_id)).last_use


def test_a_use_is_known_at_once_and_written_down_after_a_minute(room: AccessRoom) -> None:
    key_id = room.user("ann").key_id
    worker, held = writer(room), credential(room, key_id)
    used = use(room, held)
    assert room.credentials.uses.newest(key_id, None) == used
    assert asyncio.run(worker.run_once()) is False
    assert written(room, key_id) is None
    room.clock.advance(milliseconds=MINUTE_MS)
    assert asyncio.run(worker.run_once()) is False
    assert written(room, key_id) == used
    assert room.credentials.uses.take() == []
    later = use(room, held, "s3")
    asyncio.run(worker.run_once())
    assert written(room, key_id) == used, "once a minute at most"
    assert room.credentials.uses.newest(key_id, used) == later


def test_an_older_use_that_another_process_tells_later_changes_nothing(room: AccessRoom) -> None:
    key_id = room.user("ann").key_id
    held, here, there = credential(room, key_id), writer(room), KeyUses()
    there.note(held, service="s3", region="us-east-1", now=room.clock.now())
    other = KeyUseWriter(work=room.work, uses=there, store=SqlIdentityStore(), clock=room.clock)
    room.clock.advance(milliseconds=MINUTE_MS)
    newest = use(room, held)
    for worker in (here, other):
        asyncio.run(worker.run_once())
    assert written(room, key_id) == newest


def test_what_could_not_be_written_down_is_written_the_next_time(room: AccessRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    key_id = room.user("ann").key_id
    worker, used = writer(room), use(room, credential(room, key_id))
    room.clock.advance(milliseconds=MINUTE_MS)

    def fails(*_: object) -> None:
        raise Unavailable("The disk is full.", subject="storage")

    with monkeypatch.context() as failing:
        failing.setattr(SqlIdentityStore, "note_key_use", fails)
        with pytest.raises(Unavailable):
            asyncio.run(worker.run_once())
    asyncio.run(worker.run_once())
    assert written(room, key_id) == used


def test_many_keys_are_written_in_batches_and_memory_is_bounded(room: AccessRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_MAX", 2)
    monkeypatch.setattr(module, "NOTED_MAX", 3)
    ids = [room.user(f"u{number}").key_id for number in range(4)]
    worker = writer(room)
    for key_id in ids:
        use(room, credential(room, key_id))
    room.clock.advance(milliseconds=MINUTE_MS)
    assert asyncio.run(worker.run_once()) is True
    assert asyncio.run(worker.run_once()) is False
    assert [written(room, key_id) is not None for key_id in ids] == [True, True, True, False]


def test_what_a_roles_sessions_and_links_do_is_the_roles_use(room: AccessRoom) -> None:
    trust = '{"Statement":{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"sts:AssumeRole"}}'
    role = room.work.run_blocking(lambda tx: room.identities.create_role(tx, ACCOUNT, "r", trust, path="/team/"))
    worker = writer(room)
    for name in ("s1", "s2"):
        taken = room.work.run_blocking(lambda tx, name=name: room.sessions.assume(tx, room.caller("root"), role.arn, name))
        used = use(room, credential(room, taken.keys.key_id), "s3")
        room.clock.advance(milliseconds=1000)
    assert room.credentials.uses.newest(role.arn, None) == used
    room.clock.advance(milliseconds=MINUTE_MS)
    asyncio.run(worker.run_once())
    found = room.work.read_blocking(lambda tx: room.identities.role(tx, ACCOUNT, "r")).last_use
    assert found is not None
    assert (found.at, found.region) == (used.at, used.region)
