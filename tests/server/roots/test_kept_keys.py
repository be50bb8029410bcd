"""Private keys that a published root no longer names, kept until whoever pushed it has read it back."""

from __future__ import annotations

import asyncio

import pytest

from overair.basics.errors import Conflict, InvalidRequest, NotFound, Unavailable
from overair.server.roots.erasure import KeyErasure
from overair.server.roots.model import KEPT_KEY_MS, Unsigned
from overair.wire.uptane.metadata import Repository, Role
from tests.server.roots.conftest import RootRoom
from tests.support.image_documents import sign_described
from tests.support.image_room import OfflineKey, signed


def take_offline(room: RootRoom, root_key: OfflineKey, *, keep_keys: bool = True) -> set[str]:
    """The key ids that the server is rid of, or will be."""
    room.create()
    gone = set(room.root().role_keys(Role.ROOT).key_ids) | set(room.root().role_keys(Role.TARGETS).key_ids)
    root = room.next(root=([root_key], 1), targets=([OfflineKey()], 1))
    room.push(signed(root, [root_key]), cosign=True, keep_keys=keep_keys)
    return gone


def kept(room: RootRoom) -> set[str]:
    return {key.key_id for key in room.read(lambda tx: room.roots.keys.kept(tx, room.place.account, room.repository))}


def forget_kept(room: RootRoom) -> int:
    return room.run(lambda tx: room.roots.forget_kept(tx, room.place, room.repository))


def test_a_plain_push_ends_keys_at_once_and_one_that_keeps_them_leaves_them_to_be_deleted(room: RootRoom) -> None:
    gone = take_offline(room, OfflineKey())
    assert kept(room) == gone
    assert gone < room.held()
    for key_id in gone:
        room.run(lambda tx, key_id=key_id: room.roots.delete_private_key(tx, room.place, room.repository, key_id))
        with pytest.raises(NotFound):
            room.run(lambda tx, key_id=key_id: room.roots.delete_private_key(tx, room.place, room.repository, key_id))
    assert not gone & room.held()
    assert len(room.read(lambda tx: room.keyring.list(tx, room.place.account))) == 2


def test_without_the_wish_to_keep_them_they_are_gone(room: RootRoom) -> None:
    gone = take_offline(room, OfflineKey(), keep_keys=False)
    assert not gone & room.held()


def test_a_kept_key_signs_nothing(room: RootRoom) -> None:
    key = OfflineKey()
    room.create()
    old = room.root()
    (old_targets,) = (old.keys[each] for each in old.role_keys(Role.TARGETS).key_ids)
    root = room.next(root=([key], 1), targets=([OfflineKey()], 1))
    room.push(signed(root, [key]), cosign=True, keep_keys=True)
    for role in (Role.ROOT, Role.TARGETS):
        with pytest.raises(Conflict) as offline:
            room.signers(role)
        assert offline.value.subject == "role-keys-offline"
        assert not room.read(lambda tx, role=role: room.roots.is_online(tx, room.place.account, room.repository, role))
        names_it = old.role_keys(role)
        assert not room.read(
            lambda tx, names_it=names_it: room.roots.keys.signers_among(
                tx, room.place.account, room.repository, names_it, old.keys
            )
        )
    # Nor is it offered for the next root, nor added to one that names it again.
    unsigned = room.read(lambda tx: room.roots.unsigned(tx, room.place.account, room.repository))
    assert isinstance(unsigned, Unsigned)
    assert not kept(room) & {key_id for flavour in unsigned.signed.values() for key_id in flavour["keys"]}  # type: ignore[attr-defined]
    with pytest.raises(InvalidRequest):
        room.push(signed(room.next(root=([key], 1)), []), cosign=True)
    assert old_targets.id in kept(room)


def test_nobody_comes_back_and_after_a_day_they_are_gone(room: RootRoom) -> None:
    gone = take_offline(room, OfflineKey())
    room.clock.advance(milliseconds=KEPT_KEY_MS - 1)
    assert forget_kept(room) == 0
    assert kept(room) == gone
    room.clock.advance(milliseconds=1)
    assert forget_kept(room) == 2
    assert not gone & room.held()
    assert forget_kept(room) == 0


def test_the_next_plain_root_ends_what_was_kept(room: RootRoom) -> None:
    key = OfflineKey()
    gone = take_offline(room, key)
    room.push(signed(room.next(), [key]))
    assert not gone & room.held()


def test_a_second_push_that_keeps_them_gives_no_second_day(room: RootRoom) -> None:
    key = OfflineKey()
    take_offline(room, key)
    room.clock.advance(milliseconds=KEPT_KEY_MS // 2)
    room.push(signed(room.next(), [key]), keep_keys=True)
    room.clock.advance(milliseconds=KEPT_KEY_MS // 2)
    assert forget_kept(room) == 2


def test_keys_that_only_the_server_uses_are_never_kept(room: RootRoom) -> None:
    room.repository = Repository.DIRECTOR
    key = OfflineKey()
    room.create()
    room.push(signed(room.next(root=([key], 1)), [key]), cosign=True)
    room.run(lambda tx: room.roots.rotate(tx, room.place, room.repository, roles=(Role.TIMESTAMP,)))
    unsigned = room.read(lambda tx: room.roots.unsigned(tx, room.place.account, room.repository))
    before = room.root().role_keys(Role.TIMESTAMP).key_ids[0]
    room.push(sign_described(unsigned.signed, [key]), keep_keys=True)
    assert before not in room.held()
    assert kept(room) == set()


# The files ------------------------------------------------------------------------------------------------------------------


class Scrubbing:
    """Counts; waits where it is told to; fails where it is told to."""

    def __init__(self) -> None:
        self.times = 0
        self.fails = False
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def __call__(self) -> None:
        self.times += 1
        await self.goes_on.wait()
        if self.fails:
            raise Unavailable("A read lasts.", subject="storage")


async def test_files_are_cleaned_once_after_each_deletion_and_once_after_a_start() -> None:
    scrubbing = Scrubbing()
    erasure = KeyErasure(scrubbing)
    await erasure.erase()  # what the server before may have left
    await erasure.erase()
    assert scrubbing.times == 1
    erasure.note()
    await erasure.erase()
    assert scrubbing.times == 2


async def test_what_could_not_be_cleaned_stays_due() -> None:
    scrubbing = Scrubbing()
    erasure = KeyErasure(scrubbing)
    scrubbing.fails = True
    with pytest.raises(Unavailable):
        await erasure.erase()
    await erasure.erase_now_or_soon()
    assert scrubbing.times == 2
    scrubbing.fails = False
    await erasure.erase()
    await erasure.erase()
    assert scrubbing.times == 3


async def test_a_key_that_is_deleted_while_files_are_cleaned_is_cleaned_away_too() -> None:
    scrubbing = Scrubbing()
    erasure = KeyErasure(scrubbing)
    scrubbing.goes_on.clear()
    first = asyncio.create_task(erasure.erase())
    while not scrubbing.times:
        await asyncio.sleep(0)
    erasure.note()
    second = asyncio.create_task(erasure.erase())
    await asyncio.sleep(0)
    assert not second.done(), "nobody is told that it is gone before it is"
    scrubbing.goes_on.set()
    await asyncio.gather(first, second)
    assert scrubbing.times == 2
