"""What goes on without the operator's keys, and what waits for them."""

from __future__ import annotations

import pytest

from overair.basics.errors import Conflict
from overair.server.image_repository.model import TargetStatus
from overair.server.image_repository.pushing import Push
from overair.server.roots.model import StoredRoot, Unsigned
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role
from tests.support.image_documents import sign_described
from tests.support.image_room import DAY_MS, ImageRoom, OfflineKey, plan, signed
from tests.support.image_view import believed, trusted

ROOT_KEY, TARGETS_KEY = OfflineKey(), OfflineKey()


@pytest.fixture
def offline(room: ImageRoom) -> ImageRoom:
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin", b"one")))
    room.take_offline(ROOT_KEY, TARGETS_KEY)
    return room


def pending(room: ImageRoom) -> list[str]:
    return [target.name for target in room.read(lambda tx: room.images.catalogue.pending(tx, room.account))]


def test_an_uploaded_image_waits_and_stands_in_the_document_that_is_ready_to_sign(offline: ImageRoom) -> None:
    changed = offline.run(lambda tx: offline.images.add_target(tx, offline.place, plan("gateway-2.bin", b"two")))
    assert changed.published is None
    assert changed.unsigned is not None
    assert changed.unsigned.required_key_ids == (TARGETS_KEY.public_key.id,)
    assert changed.unsigned.threshold == 1
    assert pending(offline) == ["gateway-2.bin"]
    assert set(believed(offline).targets) == {"gateway-1.bin"}
    assert offline.read(lambda tx: offline.images.find_target(tx, offline.account, "gateway-2.bin")) is None

    unsigned = offline.read(lambda tx: offline.images.unsigned(tx, offline.account))
    offline.push(Push(targets=sign_described(unsigned.signed, [TARGETS_KEY]), checksum=offline.checksum()))
    for flavour in Flavour:
        assert set(believed(offline, flavour).targets) == {"gateway-1.bin", "gateway-2.bin"}
    assert pending(offline) == []
    found = offline.read(lambda tx: offline.images.find_target(tx, offline.account, "gateway-2.bin"))
    assert found is not None
    assert found.content_id == plan("gateway-2.bin", b"two").content_id


def test_taking_an_image_away_or_changing_it_gives_what_to_sign_and_changes_nothing_before(offline: ImageRoom) -> None:
    changed = offline.run(lambda tx: offline.images.delete_target(tx, offline.place, "gateway-1.bin"))
    assert changed.unsigned is not None
    assert set(believed(offline).targets) == {"gateway-1.bin"}
    edited = offline.run(lambda tx: offline.images.edit_target(tx, offline.place, "gateway-1.bin", {"version": "1.1"}))
    assert edited.unsigned is not None
    assert believed(offline).targets["gateway-1.bin"].custom["version"] == "1.0"
    offline.push(Push(targets=sign_described(changed.unsigned.signed, [TARGETS_KEY]), checksum=offline.checksum()))
    assert believed(offline).targets == {}


def test_a_pending_image_may_be_changed_and_taken_back_without_any_key(offline: ImageRoom) -> None:
    offline.run(lambda tx: offline.images.add_target(tx, offline.place, plan("gateway-2.bin", b"two")))
    offline.run(lambda tx: offline.images.edit_target(tx, offline.place, "gateway-2.bin", {"version": "2.0"}))
    offline.run(lambda tx: offline.images.delete_target(tx, offline.place, "gateway-2.bin"))
    assert pending(offline) == []


def test_bytes_without_words_can_be_taken_back_and_not_described_by_halves(offline: ImageRoom) -> None:
    whole = plan("gateway-2.bin", b"two")
    content_id = whole.content_id
    assert content_id is not None
    for _ in range(2):  # a tool that didn't hear the answer sends again
        offline.run(
            lambda tx: offline.images.uploaded(
                tx, offline.place, whole.name, sha256=whole.sha256, length=3, content_id=content_id
            )
        )
    with pytest.raises(Conflict):
        offline.run(lambda tx: offline.images.edit_target(tx, offline.place, whole.name, {"name": "x", "version": "1"}))
    offline.run(lambda tx: offline.images.delete_target(tx, offline.place, whole.name))
    found, _ = offline.read(
        lambda tx: offline.images.page(tx, offline.account, statuses=[TargetStatus.UPLOADED], offset=0, limit=9)
    )
    assert found == []


def test_snapshot_and_timestamp_stay_fresh_without_the_operators_keys_as_long_as_targets_count(offline: ImageRoom) -> None:
    targets = offline.document("targets")
    for _ in range(30):
        offline.clock.advance(milliseconds=DAY_MS)
        offline.run(lambda tx: offline.images.renew_due(tx, offline.place))
        assert set(believed(offline).targets) == {"gateway-1.bin"}
    assert offline.document("targets") == targets
    offline.clock.advance(milliseconds=2 * DAY_MS)
    before = offline.document("timestamp")
    assert not offline.run(lambda tx: offline.images.renew_due(tx, offline.place))
    assert offline.document("timestamp") == before  # nothing is signed above what clients refuse


def test_thresholds_count_different_keys(room: ImageRoom) -> None:
    keys = [OfflineKey() for _ in range(3)]
    root = room.next_root(root=([ROOT_KEY], 1), targets=(keys, 2))
    room.push(
        Push(
            root=signed(root, [ROOT_KEY, *room.server_signers(Role.ROOT)]),
            targets=signed(room.next_targets(), keys[1:]),
            checksum=room.checksum(),
        )
    )
    assert believed(room, first_root=1).targets == {}
    unsigned = room.read(lambda tx: room.images.unsigned(tx, room.account))
    assert (len(unsigned.required_key_ids), unsigned.threshold) == (3, 2)


def test_back_at_the_default_level_the_server_signs_again_with_what_was_pending(offline: ImageRoom) -> None:
    offline.run(lambda tx: offline.images.add_target(tx, offline.place, plan("gateway-2.bin", b"two")))
    unsigned = offline.run(lambda tx: offline.roots.rotate(tx, offline.place, Repository.IMAGE, also_offline=True))
    assert isinstance(unsigned, Unsigned)
    offline.push(Push(root=sign_described(unsigned.signed, [ROOT_KEY]), cosign=True))
    for flavour in Flavour:
        assert trusted(offline, flavour, first_root=1).root.version == 3
        assert set(believed(offline, flavour, first_root=1).targets) == {"gateway-1.bin", "gateway-2.bin"}
    rotated = offline.run(lambda tx: offline.roots.rotate(tx, offline.place, Repository.IMAGE))
    assert isinstance(rotated, StoredRoot)
    offline.take_offline(ROOT_KEY, TARGETS_KEY)
    for flavour in Flavour:
        assert trusted(offline, flavour, first_root=1).root.version == 5
