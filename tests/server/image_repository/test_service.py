"""The Image repository at the default level: what is listed, published and taken away."""

from __future__ import annotations

import pytest

from overair.basics.errors import AlreadyExists, Conflict, InvalidRequest, NotFound
from overair.server.image_repository.model import TargetStatus
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role
from tests.support.image_room import DAY_MS, ImageRoom, plan
from tests.support.image_view import believed


def test_a_new_account_serves_an_empty_repository_that_clients_of_both_flavours_believe(room: ImageRoom) -> None:
    for flavour in Flavour:
        assert believed(room, flavour).targets == {}


def test_a_listed_image_is_published_in_both_flavours_with_one_version(room: ImageRoom) -> None:
    changed = room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    assert changed.published is not None
    bodies = [believed(room, flavour) for flavour in Flavour]
    assert bodies[0] == bodies[1]
    assert set(bodies[0].targets) == {"gateway-1.bin"}
    assert bodies[0].version == changed.published.versions["targets"]
    custom = bodies[0].targets["gateway-1.bin"].custom
    assert custom["hardwareIds"] == ["gw-imx8"]
    assert custom["createdAt"] == "2026-01-01T00:00:00Z"
    assert custom["cliUploaded"] is True
    assert [target.name for target in room.read(lambda tx: room.images.targets_for(tx, room.account, "gw-imx8"))] == [
        "gateway-1.bin"
    ]
    assert room.published  # whoever holds documents in memory was told


def test_the_same_plan_again_changes_nothing(room: ImageRoom) -> None:
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    before = room.checksum()
    room.clock.advance(milliseconds=DAY_MS)
    changed = room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    assert changed.published is None
    assert room.checksum() == before


def test_a_name_stands_for_the_same_bytes_for_ever(room: ImageRoom) -> None:
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    before = room.checksum()
    other = plan("gateway-1.bin", b"other bytes")
    with pytest.raises(AlreadyExists):
        room.run(lambda tx: room.images.add_target(tx, room.place, other))
    assert room.checksum() == before
    room.run(lambda tx: room.images.delete_target(tx, room.place, "gateway-1.bin"))
    with pytest.raises(AlreadyExists, match="deleted since"):
        room.run(lambda tx: room.images.add_target(tx, room.place, other))
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    assert set(room.targets().targets) == {"gateway-1.bin"}


def test_an_image_that_a_vehicle_needs_goes_only_by_force(room: ImageRoom) -> None:
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    room.in_use.names["gateway-1.bin"] = "installed on 3 ECUs"
    with pytest.raises(Conflict, match="installed on 3 ECUs"):
        room.run(lambda tx: room.images.delete_target(tx, room.place, "gateway-1.bin"))
    assert set(believed(room).targets) == {"gateway-1.bin"}
    room.run(lambda tx: room.images.delete_target(tx, room.place, "gateway-1.bin", force=True))
    assert believed(room).targets == {}
    assert room.read(lambda tx: room.images.find_target(tx, room.account, "gateway-1.bin")) is None
    with pytest.raises(NotFound):
        room.run(lambda tx: room.images.delete_target(tx, room.place, "gateway-1.bin"))


@pytest.mark.parametrize("name", ["", "a/../b", "/a", "a//b", "a/", "naïve", "tab\t", "back\\slash", "x" * 254])
def test_a_name_that_could_lead_astray_is_refused(room: ImageRoom, name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        room.run(lambda tx: room.images.add_target(tx, room.place, plan(name)))
    assert refused.value.subject == "target-name"


def test_what_is_said_of_an_image_is_changed_member_by_member(room: ImageRoom) -> None:
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    room.clock.advance(milliseconds=5000)
    room.run(lambda tx: room.images.edit_target(tx, room.place, "gateway-1.bin", {"acme": {"build": 7, "line": "a"}}, own=True))
    room.run(lambda tx: room.images.edit_target(tx, room.place, "gateway-1.bin", {"acme": {"line": None}}, own=True))
    room.run(lambda tx: room.images.edit_target(tx, room.place, "gateway-1.bin", {"hardwareIds": ["gw-imx8", "gw-imx9"]}))
    custom = believed(room).targets["gateway-1.bin"].custom
    assert custom["acme"] == {"build": 7}
    assert custom["updatedAt"] == "2026-01-01T00:00:05Z"
    assert len(room.read(lambda tx: room.images.targets_for(tx, room.account, "gw-imx9"))) == 1
    for members in ({"name": 7}, {"hardwareIds": []}, {"acme": 1.5}):
        with pytest.raises(InvalidRequest):
            room.run(lambda tx: room.images.edit_target(tx, room.place, "gateway-1.bin", members))  # noqa: B023
    with pytest.raises(InvalidRequest):
        room.run(lambda tx: room.images.edit_target(tx, room.place, "gateway-1.bin", {"version": "2"}, own=True))


def test_a_renewed_root_takes_the_repository_along(room: ImageRoom) -> None:
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    targets = room.document("targets")
    room.run(lambda tx: room.roots.renew(tx, room.place, Repository.IMAGE))
    room.run(lambda tx: room.roots.renew(tx, room.place, Repository.IMAGE))
    assert room.document("targets") == targets
    for flavour in Flavour:
        assert set(believed(room, flavour, first_root=1).targets) == {"gateway-1.bin"}


def test_rotated_keys_sign_everything_anew(room: ImageRoom) -> None:
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    before = room.root()
    room.run(lambda tx: room.roots.rotate(tx, room.place, Repository.IMAGE, roles=Role))
    after = room.root()
    assert not before.keys.keys() & after.keys.keys()
    assert len(room.read(lambda tx: room.keyring.list(tx, room.account))) == 4
    for flavour in Flavour:
        assert set(believed(room, flavour, first_root=1).targets) == {"gateway-1.bin"}


def test_the_catalogue_is_paged_and_searched(room: ImageRoom) -> None:
    for number in range(5):
        room.run(lambda tx: room.images.add_target(tx, room.place, plan(f"gateway-{number}.bin", b"%d" % number)))  # noqa: B023
    page, total = room.read(lambda tx: room.images.page(tx, room.account, statuses=[TargetStatus.LISTED], offset=1, limit=2))
    assert ([target.name for target in page], total) == (["gateway-1.bin", "gateway-2.bin"], 5)
    page, total = room.read(
        lambda tx: room.images.page(tx, room.account, statuses=[TargetStatus.LISTED], name_contains="-4", offset=0, limit=9)
    )
    assert ([target.name for target in page], total) == (["gateway-4.bin"], 1)
