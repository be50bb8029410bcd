"""When signed documents end and who signs them next; keys of roles by name."""

from __future__ import annotations

import pytest

from overair.basics.errors import Conflict
from overair.server.image_repository.endings import MetadataEndings
from overair.server.keyring.endings import Ending
from overair.server.roots.rotation import RoleKeyRotation
from overair.wire.uptane.metadata import Role
from tests.support.image_room import ImageRoom, OfflineKey
from tests.support.image_view import believed


def listed(room: ImageRoom) -> dict[str, Ending]:
    endings = MetadataEndings(roots=room.roots, images=room.images)
    return {ending.name: ending for ending in room.read(lambda tx: list(endings.endings(tx, room.account)))}


def test_what_the_server_signs_renews_itself_and_what_people_sign_says_so(room: ImageRoom) -> None:
    found = listed(room)
    assert set(found) == {f"image-{role}" for role in Role}
    assert all(ending.renews_itself and ending.key_id for ending in found.values())
    room.take_offline(OfflineKey(), OfflineKey())
    found = listed(room)
    assert {name for name, ending in found.items() if not ending.renews_itself} == {"image-root", "image-targets"}
    assert found["image-root"].key_id is None
    assert found["image-root"].holder.startswith("offline:")
    assert "overair sign" in found["image-targets"].todo


@pytest.mark.parametrize("role", list(Role))
def test_a_role_has_a_new_key_and_clients_follow(room: ImageRoom, role: Role) -> None:
    rotation = RoleKeyRotation(room.roots)
    prepared = room.keyring.prepare("ed25519")
    before = room.root()
    done = room.run(lambda tx: rotation.rotate(tx, room.place, f"image-{role}", prepared))
    assert done.in_force
    root = room.root()
    assert root.version == before.version + 1
    changed = {name for name, keys in root.roles.items() if keys != before.roles[name]}
    assert changed == {role.value}
    (key_id,) = root.role_keys(role).key_ids
    assert root.keys[key_id].spki_der == prepared.public_key_der
    assert believed(room).targets == {}


def test_keys_that_are_offline_are_named_and_not_rotated_here(room: ImageRoom) -> None:
    rotation = RoleKeyRotation(room.roots)
    assert list(room.read(lambda tx: list(rotation.offline_keys(tx, room.account)))) == []
    root_key, targets_key = OfflineKey(), OfflineKey()
    room.take_offline(root_key, targets_key)
    before = room.root()
    with pytest.raises(Conflict, match="overair sign rotate"):
        room.run(lambda tx: rotation.rotate(tx, room.place, "image-targets", room.keyring.prepare("ed25519")))
    assert room.root() == before
    offline = room.read(lambda tx: list(rotation.offline_keys(tx, room.account)))
    assert {(name, key_id) for name, key_id, _ in offline} == {
        ("image-root", root_key.public_key.id),
        ("image-targets", targets_key.public_key.id),
    }
    # The server's own keys are rotated all the same: the root that names them waits for the root's keys.
    held = len(room.read(lambda tx: room.keyring.list(tx, room.account)))
    done = room.run(lambda tx: rotation.rotate(tx, room.place, "image-timestamp", room.keyring.prepare("ed25519")))
    assert (done.in_force, root_key.public_key.id in done.told) == (False, True)
    assert room.root() == before
    assert len(room.read(lambda tx: room.keyring.list(tx, room.account))) == held + 1
