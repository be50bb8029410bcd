"""Root chains: what the server makes, signs anew, hands out and forgets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from overair.basics.errors import Conflict, InvalidRequest, NotFound, Unavailable
from overair.server.roots.chains import Level
from overair.server.roots.model import StoredRoot, Unsigned
from overair.server.roots.service import Rehearsed
from overair.wire.uptane.keys import Flavour, KeyType
from overair.wire.uptane.metadata import Repository, Role
from overair.wire.uptane.metadata_reading import check_signatures, read_document, read_root
from overair.wire.uptane.trust import Accepted, TrustedSet
from tests.server.roots.conftest import RootRoom
from tests.support.image_documents import sign_described
from tests.support.image_room import DAY_MS, OfflineKey, signed


def follow(room: RootRoom, flavour: Flavour = Flavour.UPTANE) -> int:
    """The version that a client which has root 1 comes to."""
    client = TrustedSet.begin(room.document(1, flavour), repository=room.repository, flavour=flavour)
    while True:
        try:
            document = room.document(client.root.version + 1, flavour)
        except NotFound:
            return client.root.version
        assert isinstance(client.update_root(document), Accepted)


@pytest.mark.parametrize("repository", Repository)
def test_a_new_account_has_a_root_in_both_flavours_with_a_key_of_its_own_for_each_role(
    room: RootRoom, repository: Repository
) -> None:
    room.repository = repository
    room.create()
    room.create()
    root = room.root()
    assert root.version == 1
    assert len({keys.key_ids for keys in root.roles.values()}) == 4
    assert len(room.held()) == 4
    for flavour in Flavour:
        document = read_document(room.document(1, flavour), Role.ROOT, flavour=flavour)
        assert read_root(document) == root
        check_signatures(document, root.keys, root.role_keys(Role.ROOT))
    for role in Role:
        assert [signer.public_key.id for signer in room.signers(role)] == list(root.role_keys(role).key_ids)


def test_an_account_may_begin_with_rsa_keys_that_sign_with_pss(room: RootRoom) -> None:
    prepared = room.roots.prepare("RSA")
    room.create(key_type="RSA", prepared=prepared)
    root = room.root()
    assert {key.type for key in root.keys.values()} == {KeyType.RSA}
    assert follow(room) == 1
    signer = room.signers(Role.TARGETS)[0]
    assert signer.public_key.verifies(signer.sign(b"targets"), b"targets")


def test_no_other_kind_of_key_is_made(room: RootRoom) -> None:
    with pytest.raises(InvalidRequest) as refused:
        room.create(key_type="ECDSA")
    assert refused.value.subject == "key-type"


def test_what_isnt_there_is_never_anything_but_not_found(room: RootRoom) -> None:
    room.create()
    for version in (0, 2, 2**31, 10**12):
        with pytest.raises(NotFound) as missing:
            room.document(version)
        assert missing.value.subject == "root-role"


def test_every_root_stays_readable_for_ever(room: RootRoom) -> None:
    room.create()
    documents = [room.document(1)]
    for _ in range(4):
        room.run(lambda tx: room.roots.renew(tx, room.place, room.repository))
        documents.append(room.document(None))
    assert [room.document(version) for version in range(1, 6)] == documents
    assert follow(room) == follow(room, Flavour.TUF) == 5


def test_rotated_keys_are_vouched_for_by_the_old_ones_which_are_then_deleted(room: RootRoom) -> None:
    room.create()
    before = room.root()
    rotated = room.run(lambda tx: room.roots.rotate(tx, room.place, room.repository))
    assert isinstance(rotated, StoredRoot)
    after = room.root()
    for role in (Role.ROOT, Role.TARGETS):
        assert not set(before.role_keys(role).key_ids) & set(after.role_keys(role).key_ids)
    for role in (Role.SNAPSHOT, Role.TIMESTAMP):
        assert before.role_keys(role) == after.role_keys(role)
    assert room.held() == set(after.keys)
    assert len(room.read(lambda tx: room.keyring.list(tx, room.place.account))) == 4
    assert follow(room) == follow(room, Flavour.TUF) == 2


def test_with_the_root_offline_a_rotation_comes_back_as_a_root_to_sign(room: RootRoom) -> None:
    room.create()
    key = OfflineKey()
    room.push(signed(room.next(root=([key], 1)), [key, *room.signers()]))
    before = room.root()
    unsigned = room.run(
        lambda tx: room.roots.rotate(tx, room.place, room.repository, roles=(Role.TIMESTAMP, Role.SNAPSHOT, Role.TARGETS))
    )
    assert isinstance(unsigned, Unsigned)
    assert unsigned.required_key_ids == (key.public_key.id,)
    assert room.root() == before  # the old keys sign until the new root is there
    again = room.read(lambda tx: room.roots.unsigned(tx, room.place.account, room.repository))
    assert again.signed == unsigned.signed
    room.push(sign_described(unsigned.signed, [key]))
    assert not set(before.keys) - {key.public_key.id} & set(room.root().keys)
    assert room.held() == set(room.root().keys) - {key.public_key.id}
    assert follow(room) == 3


def test_keys_come_back_to_the_server_by_a_root_that_both_have_signed(room: RootRoom) -> None:
    room.create()
    key, targets_key = OfflineKey(), OfflineKey()
    room.push(signed(room.next(root=([key], 1), targets=([targets_key], 1)), [key, *room.signers()]))
    assert room.read(lambda tx: room.roots.level(tx, room.place.account)) is Level.PRODUCTION
    unsigned = room.run(lambda tx: room.roots.rotate(tx, room.place, room.repository, also_offline=True))
    assert isinstance(unsigned, Unsigned)
    room.push(sign_described(unsigned.signed, [key]), cosign=True)
    assert room.read(lambda tx: room.roots.level(tx, room.place.account)) is Level.DEFAULT
    assert follow(room) == follow(room, Flavour.TUF) == 3


def test_levels_follow_who_signs(room: RootRoom) -> None:
    room.create()
    assert room.read(lambda tx: room.roots.level(tx, room.place.account)) is Level.DEFAULT
    key = OfflineKey()
    room.push(signed(room.next(root=([key], 1)), [key, *room.signers()]))
    assert room.read(lambda tx: room.roots.level(tx, room.place.account)) is Level.MIXED


def test_an_offline_role_says_which_keys_must_sign(room: RootRoom) -> None:
    room.create()
    keys = [OfflineKey(), OfflineKey(), OfflineKey()]
    room.push(signed(room.next(targets=(keys, 2)), room.signers()))
    with pytest.raises(Conflict) as offline:
        room.signers(Role.TARGETS)
    assert offline.value.subject == "role-keys-offline"
    assert offline.value.details == {"required_key_ids": [key.public_key.id for key in keys], "threshold": 2}


# Keys that are taken out ------------------------------------------------------------------------------------------------


def test_a_key_is_handed_out_as_signing_tools_keep_it_and_deleted_on_demand(room: RootRoom) -> None:
    room.create()
    key_id = room.root().role_keys(Role.ROOT).key_ids[0]
    pair = room.run(lambda tx: room.roots.export_private_key(tx, room.place, room.repository, key_id))
    assert "…" in repr(pair)
    told = pair.reveal()
    assert told["keytype"] == "ED25519"
    keyval = told["keyval"]
    assert isinstance(keyval, dict)
    private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(keyval["private"])[:32])
    assert private.public_key().public_bytes_raw().hex() == keyval["public"] == keyval["private"][64:]
    assert OfflineKey(private).public_key.id == key_id
    room.run(lambda tx: room.roots.delete_private_key(tx, room.place, room.repository, key_id))
    assert key_id not in room.held()
    with pytest.raises(NotFound):
        room.run(lambda tx: room.roots.export_private_key(tx, room.place, room.repository, key_id))
    # garage-sign's order: the key is gone before the root that replaces it is pushed.
    room.push(signed(room.next(root=([OfflineKey(private)], 1)), [OfflineKey(private)]))
    assert follow(room) == 2


def test_the_only_copy_of_a_key_that_the_root_names_is_deleted_by_force_alone(room: RootRoom) -> None:
    room.create()
    key_id = room.root().role_keys(Role.ROOT).key_ids[0]
    with pytest.raises(Conflict, match="nobody has taken a copy"):
        room.run(lambda tx: room.roots.delete_private_key(tx, room.place, room.repository, key_id))
    assert key_id in room.held()
    room.run(lambda tx: room.roots.delete_private_key(tx, room.place, room.repository, key_id, force=True))
    assert key_id not in room.held()


@pytest.mark.parametrize(
    ("repository", "role"),
    [
        (Repository.IMAGE, Role.SNAPSHOT),
        (Repository.IMAGE, Role.TIMESTAMP),
        (Repository.DIRECTOR, Role.TARGETS),
        (Repository.DIRECTOR, Role.SNAPSHOT),
        (Repository.DIRECTOR, Role.TIMESTAMP),
    ],
)
def test_a_key_that_the_server_needs_never_leaves_it(room: RootRoom, repository: Repository, role: Role) -> None:
    room.repository = repository
    room.create()
    key_id = room.root().role_keys(role).key_ids[0]
    with pytest.raises(Conflict):
        room.run(lambda tx: room.roots.export_private_key(tx, room.place, repository, key_id))
    with pytest.raises(Conflict):
        room.run(lambda tx: room.roots.delete_private_key(tx, room.place, repository, key_id, force=True))
    assert key_id in room.held()


def test_a_key_means_nothing_in_the_other_repository(room: RootRoom) -> None:
    room.create()
    key_id = room.root().role_keys(Role.ROOT).key_ids[0]
    room.repository = Repository.DIRECTOR
    room.create()
    with pytest.raises(NotFound):
        room.run(lambda tx: room.roots.export_private_key(tx, room.place, Repository.DIRECTOR, key_id))


# The clock --------------------------------------------------------------------------------------------------------------


def test_nothing_is_signed_by_a_clock_that_went_back(room: RootRoom) -> None:
    room.create()
    room.clock.advance(milliseconds=DAY_MS)
    room.run(lambda tx: room.roots.renew(tx, room.place, room.repository))
    room.clock.set(room.in_days(-0.5))
    with pytest.raises(Unavailable) as refused:
        room.run(lambda tx: room.roots.renew(tx, room.place, room.repository))
    assert refused.value.subject == "clock"
    assert follow(room) == 2


def test_a_small_correction_of_the_clock_signs_at_the_last_moment_again(room: RootRoom) -> None:
    room.create()
    start = room.clock.now()
    room.clock.set(type(start)(start - 5000))
    instant = room.run(lambda tx: room.roots.signing_instant(tx, room.place.account, room.repository))
    assert instant == start


# Another server's chain ---------------------------------------------------------------------------------------------------


def test_another_servers_chain_is_followed_to_a_root_that_names_this_servers_keys(room: RootRoom) -> None:
    room.create()
    own = room.held()
    old_root, others = OfflineKey(), [OfflineKey() for _ in range(3)]
    chain_root = room.next(
        root=([old_root], 1), targets=([others[0]], 1), snapshot=([others[1]], 1), timestamp=([others[2]], 1)
    )
    first = signed(replace(chain_root, version=1), [old_root], [Flavour.UPTANE])
    second = signed(replace(chain_root, version=2), [old_root], [Flavour.UPTANE])
    room.run(lambda tx: room.roots.adopt_chain(tx, room.place, room.repository, [first, second]))
    assert follow(room) == 2
    assert room.held() == own  # the next root names them
    unsigned = room.read(lambda tx: room.roots.unsigned(tx, room.place.account, room.repository))
    assert unsigned.required_key_ids == (old_root.public_key.id,)
    room.push(sign_described(unsigned.signed, [old_root]), cosign=True)
    assert follow(room) == 3
    assert room.document(1) == first[Flavour.UPTANE]
    assert set(room.root().keys) == room.held() == own
    # TUF's clients are given a root to begin with: their chain may begin here.
    assert room.read(lambda tx: room.roots.newest_version(tx, room.place.account, room.repository, Flavour.TUF)) == 3
    with pytest.raises(Conflict):
        room.run(lambda tx: room.roots.adopt_chain(tx, room.place, room.repository, [first]))


def test_a_dry_run_changes_nothing(room: RootRoom) -> None:
    room.create()
    key = OfflineKey()
    held = room.held()
    with pytest.raises(Rehearsed) as rehearsed:
        room.push(signed(room.next(root=([key], 1)), [key, *room.signers()]), dry_run=True)
    assert rehearsed.value.outcome.stored.version == 2  # type: ignore[attr-defined]
    assert follow(room) == 1
    assert room.held() == held
