"""What goes on by itself: the worker that signs anew and counts down."""

from __future__ import annotations

from typing import Any

import pytest

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.errors import Unavailable
from overair.basics.ids import AccountId, SeededIds
from overair.basics.work import Tx
from overair.server.image_repository.endings import MetadataEndings
from overair.server.image_repository.model import VERSION_EPOCH_MS
from overair.server.image_repository.pushing import Push
from overair.server.image_repository.store import SqlImageUploadStore, SqlTargetStore
from overair.server.image_repository.uploads import ImageUploads
from overair.server.image_repository.worker import MetadataRenewal
from overair.server.keyring.endings import Ending
from overair.server.keyring.store import keys
from overair.server.roots.erasure import KeyErasure
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository
from tests.support.image_room import DAY_MS, ImageRoom, OfflineKey, plan, signed
from tests.support.image_view import believed, trusted

ROOT_KEY, TARGETS_KEY = OfflineKey(), OfflineKey()


def worker(room: ImageRoom) -> MetadataRenewal:
    room.run(lambda tx: room.roots.create(tx, room.place, Repository.DIRECTOR))
    uploads = ImageUploads(store=SqlImageUploadStore(), targets=SqlTargetStore(), clock=room.clock, ids=SeededIds(3))
    return MetadataRenewal(
        work=room.work,
        roots=room.roots,
        images=room.images,
        uploads=uploads,
        erasure=KeyErasure(lambda: room.work.scrub(keys)),
        region=room.place.region,
        clock=room.clock,
    )


async def test_at_the_default_level_nobody_has_to_remember_anything_for_years(room: ImageRoom) -> None:
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    renewal = worker(room)
    root = room.root().version
    for _ in range(40):
        room.clock.advance(milliseconds=12 * DAY_MS)
        await renewal.run_once()
        for flavour in Flavour:
            assert set(believed(room, flavour).targets) == {"gateway-1.bin"}
    assert room.root().version > root
    for flavour in Flavour:
        assert trusted(room, flavour, first_root=1).root.version == room.root().version
    director = room.read(lambda tx: room.roots.current(tx, room.account, Repository.DIRECTOR))
    assert director.root.expires > room.clock.now()


async def test_after_years_switched_off_roots_and_targets_are_signed_anew_at_the_first_look(room: ImageRoom) -> None:
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    room.clock.advance(milliseconds=800 * DAY_MS)
    await worker(room).run_once()
    for flavour in Flavour:
        assert set(believed(room, flavour, first_root=1).targets) == {"gateway-1.bin"}


async def test_an_account_that_cant_be_signed_for_keeps_no_other_from_being_signed(
    room: ImageRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Place(room.place.region, AccountId("100000000001"))  # the first to be looked at
    room.run(lambda tx: room.roots.create(tx, other, Repository.IMAGE))
    renewal = worker(room)
    await renewal.run_once()
    before = room.document("timestamp")
    renew_due = room.images.renew_due

    def fails_for_the_other(tx: Tx, place: Place, **options: Any) -> bool:
        if place == other:
            raise Unavailable("The clock went back.", subject="clock")
        return renew_due(tx, place, **options)

    monkeypatch.setattr(room.images, "renew_due", fails_for_the_other)
    room.clock.advance(milliseconds=13 * 3600 * 1000)
    for _ in range(2):  # in whichever order accounts come
        with pytest.raises(Unavailable):
            await renewal.run_once()
        assert room.document("timestamp") != before
        before = b""
        room.clock.advance(milliseconds=DAY_MS)


async def test_a_timestamp_alone_is_signed_anew_while_the_rest_stays_as_it_is(room: ImageRoom) -> None:
    renewal = worker(room)
    await renewal.run_once()
    before = {role: room.document(role) for role in ("targets", "snapshot", "timestamp")}
    room.clock.advance(milliseconds=13 * 3600 * 1000)
    await renewal.run_once()
    after = {role: room.document(role) for role in ("targets", "snapshot", "timestamp")}
    assert [role for role in before if before[role] != after[role]] == ["timestamp"]
    room.clock.advance(milliseconds=1000)
    await renewal.run_once()
    assert room.document("timestamp") == after["timestamp"]


async def test_versions_rise_above_any_that_were_given_before_a_restore(room: ImageRoom) -> None:
    """A backup knows nothing of what was published after it; the first look after a start signs everything anew."""
    versions = room.read(lambda tx: room.images.current(tx, room.account)).versions
    room.clock.advance(milliseconds=DAY_MS // 4)  # meanwhile a lost server has published, at most once a second
    lost = (room.clock.now() - VERSION_EPOCH_MS) // 1000 - 1
    await worker(room).run_once()
    after = room.read(lambda tx: room.images.current(tx, room.account)).versions
    assert versions["root"] == after["root"]
    for role in ("targets", "snapshot", "timestamp"):
        assert after[role] > lost >= versions[role]


async def test_what_only_people_can_sign_is_counted_down_step_by_step_while_the_next_document_stands_ready(
    room: ImageRoom,
) -> None:
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    room.take_offline(ROOT_KEY, TARGETS_KEY)
    renewal, endings = worker(room), MetadataEndings(roots=room.roots, images=room.images)

    def targets() -> Ending:
        [found] = [
            each for each in room.read(lambda tx: list(endings.endings(tx, room.account))) if each.name == "image-targets"
        ]
        return found

    steps: list[int | None] = []
    for _ in range(70):
        await renewal.run_once()
        step = targets().step(room.clock.now())
        if [step] != steps[-1:]:
            steps.append(step)
        room.clock.advance(milliseconds=DAY_MS // 2)
    assert [step for step in steps if step is not None] == [30, 14, 7, 3, 1, 0]
    assert "overair sign renew" in targets().todo
    room.push(Push(targets=signed(room.next_targets(), [TARGETS_KEY]), checksum=room.checksum()))
    await renewal.run_once()
    assert targets().days_left(room.clock.now()) >= 29


async def test_metrics_say_when_each_document_ends(room: ImageRoom) -> None:
    renewal = worker(room)
    await renewal.run_once()
    ends = renewal.ends
    assert set(ends) == {
        ("image", "root"),
        ("image", "targets"),
        ("image", "snapshot"),
        ("image", "timestamp"),
        ("director", "root"),
    }
    assert ends["image", "timestamp"] == (room.clock.now() + DAY_MS) // 1000


async def test_uploads_that_nobody_completes_are_given_up(room: ImageRoom) -> None:
    uploads = ImageUploads(store=SqlImageUploadStore(), targets=SqlTargetStore(), clock=room.clock, ids=SeededIds(4))
    room.run(lambda tx: uploads.begin(tx, room.place, "big.bin", 10**9))
    renewal = worker(room)
    await renewal.run_once()
    store = SqlImageUploadStore()
    assert len(room.read(lambda tx: store.begun_before(tx, Instant(2**50)))) == 1
    room.clock.advance(milliseconds=8 * DAY_MS)
    await renewal.run_once()
    assert room.read(lambda tx: store.begun_before(tx, Instant(2**50))) == []
