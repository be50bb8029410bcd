"""Another server's repositories, taken over whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from overair.basics.clock import Instant
from overair.basics.errors import Conflict, InvalidRequest
from overair.server.image_repository.importing import Imported, ImportState, RepositoryImport, RepositoryImports
from overair.server.image_repository.model import TargetStatus
from overair.server.image_repository.store import SqlDocumentStore, SqlTargetStore
from overair.server.objects.model import ContentId
from overair.server.roots.importing import ChainImports, ImportedChain
from overair.server.roots.service import Rehearsed
from overair.wire.uptane.keys import Flavour, PublicKey
from overair.wire.uptane.metadata import Repository, Role, Root
from overair.wire.uptane.metadata_writing import payload, sign_payload
from overair.wire.uptane.trust import TrustedSet
from overair.wire.uptane.verdicts import Accepted, Refused
from tests.support.image_room import DAY_MS, ImageRoom, OfflineKey, plan
from tests.support.old_server import OldServer, described, in_both
from tests.support.uptane_repository import UptaneRepository


@dataclass
class Move:
    """One account that takes an old server over."""

    room: ImageRoom
    old: OldServer
    imports: RepositoryImports

    def run(self, asked: RepositoryImport) -> Imported:
        return self.room.run(lambda tx: self.imports.take_over(tx, self.room.place, asked))

    def rehearse(self, asked: RepositoryImport) -> Imported:
        with pytest.raises(Rehearsed) as rehearsed:
            self.run(replace(asked, dry_run=True))
        assert isinstance(rehearsed.value.outcome, Imported)
        return rehearsed.value.outcome

    def errors(self, asked: RepositoryImport) -> dict[str, str]:
        """Code → field, of a refusal. Nothing was changed by it."""
        before = self.state()
        with pytest.raises(InvalidRequest) as refused:
            self.run(asked)
        assert refused.value.subject == "import"
        assert self.state() == before
        errors: Any = refused.value.details["errors"]
        return {each["code"]: each["field"] for each in errors}

    def state(self) -> object:
        """All that clients could see of the Image repository."""
        served = [self.root(each) for each in Repository]
        return served, [self.room.document(role) for role in ("targets", "snapshot", "timestamp")]

    def root(self, repository: Repository, version: int | None = None, flavour: Flavour = Flavour.UPTANE) -> bytes:
        """As it is served."""
        room = self.room
        return room.read(lambda tx: room.roots.document(tx, room.account, repository, version, flavour))

    def own_keys(self, repository: Repository, *roles: Role) -> dict[Role, PublicKey]:
        room = self.room
        root = room.read(lambda tx: room.roots.current(tx, room.account, repository)).root
        return {role: root.keys[root.role_keys(role).key_ids[0]] for role in roles or tuple(Role)}

    def upload_all(self) -> None:
        for name, content in self.old.contents.items():
            self.upload(name, content)

    def upload(self, name: str, content: bytes) -> None:
        room, digest = self.room, hashlib.sha256(content).hexdigest()
        room.run(
            lambda tx: room.images.uploaded(
                tx, room.place, name, sha256=digest, length=len(content), content_id=ContentId(digest)
            )
        )

    def asked(self, *, roles: Mapping[Repository, tuple[Role, ...]] | None = None) -> RepositoryImport:
        """With next roots that hand over these roles; all of them unless told otherwise."""
        nexts = {}
        for repository in Repository:
            own = self.own_keys(repository, *(roles[repository] if roles is not None else ()))
            nexts[repository] = in_both(self.old.next_root(repository, own), self.old.root_keys(repository))
        return replace(self.unsigned(), next_roots=nexts)

    def unsigned(self) -> RepositoryImport:
        files = self.old.image.files
        documents = {role: {Flavour.UPTANE: files[f"{role}.json"]} for role in ("targets", "snapshot", "timestamp")}
        documents |= {name: {Flavour.UPTANE: files[f"delegations/{name}.json"]} for name in self.old.image.delegated}
        return RepositoryImport(
            image=self.chain(Repository.IMAGE), director=self.chain(Repository.DIRECTOR), documents=documents
        )

    def chain(self, repository: Repository) -> ImportedChain:
        roots = tuple({Flavour.UPTANE: root} for root in self.old.roots(repository))
        return ImportedChain(repository=repository, documents=roots)


OFFLINE_ROLES = {
    Repository.IMAGE: (Role.SNAPSHOT, Role.TIMESTAMP),
    Repository.DIRECTOR: (Role.TARGETS, Role.SNAPSHOT, Role.TIMESTAMP),
}


@pytest.fixture
def move(room: ImageRoom) -> Move:
    room.run(lambda tx: room.roots.create(tx, room.place, Repository.DIRECTOR))
    imports = RepositoryImports(
        roots=room.roots,
        chains=ChainImports(roots=room.roots, probes=room.probes),
        images=room.images,
        pushes=room.pushes,
        documents=SqlDocumentStore(),
        targets=SqlTargetStore(),
        clock=room.clock,
    )
    return Move(room, OldServer(room.clock.now()), imports)


def device_of(old: UptaneRepository, root_version: int) -> TrustedSet:
    """A client that stopped at this root of the old server, with what it had stored at the end."""
    trusted = TrustedSet.begin(old.files[f"{root_version}.root.json"], repository=old.kind)
    if root_version == old.root.version:
        trusted.adopt({name: old.files[name] for name in ("timestamp.json", "snapshot.json", "targets.json")}, now=old.now())
    return trusted


def follow(move: Move, trusted: TrustedSet) -> TrustedSet:
    """Roots until there are no more, then everything."""
    room, now = move.room, move.room.clock.now()
    while True:
        version = trusted.root.version + 1
        newest = room.read(lambda tx: room.roots.newest_version(tx, room.account, trusted.repository, Flavour.UPTANE))
        if version > newest:
            break
        data = move.root(trusted.repository, version)
        assert isinstance(trusted.update_root(data), Accepted)
    assert not isinstance(trusted.check_root_expiry(now), Refused)
    if trusted.repository is Repository.IMAGE:
        for verdict in (
            trusted.update_timestamp(room.document("timestamp"), now=now),
            trusted.update_snapshot(room.document("snapshot"), now=now),
            trusted.update_targets(room.document("targets"), now=now),
        ):
            assert isinstance(verdict, Accepted), verdict
    return trusted


def test_devices_at_any_root_follow_to_this_server_and_believe_all_that_the_old_one_listed(move: Move) -> None:
    move.upload_all()
    imported = move.run(move.asked())
    assert imported.state is ImportState.PUBLISHED
    assert not imported.was_there
    assert imported.versions["root"] == imported.director_root == 4
    for repository in Repository:
        for version, root in enumerate(move.old.roots(repository), start=1):
            assert move.root(repository, version) == root
            follow(move, device_of(move.old.of(repository), version))
    for role in ("targets", "snapshot", "timestamp"):
        assert imported.versions[role] > getattr(move.old.image, role).version
    targets = move.room.targets()
    assert targets.targets == move.old.image.targets.targets
    assert targets.delegations == move.old.image.targets.delegations
    assert move.room.document("vendor-b") == move.old.image.files["delegations/vendor-b.json"]


def test_images_stand_in_the_catalogue_with_their_bytes_or_their_address(move: Move) -> None:
    move.upload_all()
    move.run(move.asked())
    room = move.room

    def find(name: str) -> Any:
        return room.read(lambda tx: room.images.find_target(tx, room.account, name))

    assert find("gateway-1").content_id == hashlib.sha256(b"gateway one").hexdigest()
    assert (find("dash-7").uri, find("dash-7").content_id) == ("https://images.example/dash-7", None)
    assert (find("vendor-b/radio-3").role, find("vendor-b/radio-3").length) == ("vendor-b", len(b"radio three"))
    # And it goes on from there.
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-3", b"gateway three")))
    assert set(room.targets().targets) == {"gateway-1", "gateway-2", "dash-7", "gateway-3"}
    follow(move, device_of(move.old.image, 3))


def test_the_tuf_flavour_begins_at_the_first_root_of_this_server_with_the_same_number(move: Move) -> None:
    move.upload_all()
    move.run(move.asked())
    room = move.room
    first = move.root(Repository.IMAGE, 4, Flavour.TUF)
    trusted = TrustedSet.begin(first, repository=Repository.IMAGE, flavour=Flavour.TUF)
    now = room.clock.now()
    for role, update in (
        ("timestamp", trusted.update_timestamp),
        ("snapshot", trusted.update_snapshot),
        ("targets", trusted.update_targets),
    ):
        assert isinstance(update(room.document(role, Flavour.TUF), now=now), Accepted)
    assert room.read(lambda tx: room.roots.newest_version(tx, room.account, Repository.IMAGE, Flavour.TUF)) == 4


def test_the_same_import_again_changes_nothing(move: Move) -> None:
    move.upload_all()
    asked = move.asked()
    move.run(asked)
    before = move.state()
    again = move.run(asked)
    assert again.was_there
    assert again.state is ImportState.PUBLISHED
    assert move.run(move.unsigned()).was_there  # whoever has lost the signed roots may ask too
    assert move.state() == before


def test_without_the_next_roots_everything_else_is_examined_and_nothing_stays(move: Move) -> None:
    move.upload_all()
    before = move.state()
    assert move.rehearse(move.unsigned()).state is ImportState.NEEDS_ROOTS
    assert set(move.errors(move.unsigned())) == {"next_root_missing"}
    assert move.rehearse(move.asked()).state is ImportState.PUBLISHED
    assert move.state() == before


def test_keys_that_stay_elsewhere_go_on_signing_targets(move: Move) -> None:
    move.upload_all()
    imported = move.run(move.asked(roles=OFFLINE_ROLES))
    assert imported.versions["targets"] == move.old.image.targets.version
    assert move.room.document("targets") == move.old.image.files["targets.json"]
    follow(move, device_of(move.old.image, 2))
    held = move.room.read(lambda tx: move.room.roots.keys.all(tx, move.room.account, Repository.IMAGE))
    assert {key.role for key in held} == {Role.SNAPSHOT, Role.TIMESTAMP}  # what no root names is deleted
    found = move.room.read(lambda tx: move.room.images.find_target(tx, move.room.account, "gateway-1"))
    assert found is not None
    assert found.content_id is not None


def test_targets_that_are_signed_anew_with_the_root_are_there_in_both_flavours_at_once(move: Move) -> None:
    move.upload_all()
    asked = replace(
        move.asked(roles=OFFLINE_ROLES),
        next_targets=in_both(move.old.next_targets(), move.old.image.keys[Role.TARGETS]),
    )
    imported = move.run(asked)
    assert imported.versions["targets"] == move.old.image.targets.version + 1
    follow(move, device_of(move.old.image, 3))
    assert move.room.document("targets", Flavour.TUF)


def test_targets_that_have_ended_are_signed_anew_by_this_server_or_refused_where_it_cannot(move: Move) -> None:
    move.upload_all()
    move.room.clock.set(Instant(move.room.clock.now() + 60 * DAY_MS))
    move.old.now = move.room.clock.now()
    assert move.errors(move.asked(roles=OFFLINE_ROLES)) == {"expired_metadata": "targets.signed.expires"}
    move.run(move.asked())
    follow(move, device_of(move.old.image, 1))


@pytest.mark.parametrize("dry_run", [False, True])
def test_every_broken_rule_is_told_in_one_answer(move: Move, dry_run: bool) -> None:
    old = move.old
    old.put("gateway-9", b"never uploaded")
    move.upload("gateway-1", b"other bytes")
    old.image.add_target(replace(described("short-1", b"x"), hashes={"sha512": hashlib.sha512(b"x").hexdigest()}))
    good = move.asked()
    broken = json.loads(good.image.documents[1][Flavour.UPTANE])
    broken["signed"]["expires"] = "2029-01-01T00:00:00Z"
    root = {Flavour.UPTANE: json.dumps(broken).encode()}
    nexts = {
        **good.next_roots,
        Repository.DIRECTOR: in_both(old.next_root(Repository.DIRECTOR, move.own_keys(Repository.DIRECTOR)), [OfflineKey()]),
    }
    told = move.errors(replace(good, next_roots=nexts, dry_run=dry_run))
    assert told["sha256_missing"] == "targets.signed.targets.short-1.hashes"
    assert told["target_content_changed"] == "targets.signed.targets.gateway-1"
    assert told["binary_missing"].startswith("targets.signed.targets.")
    assert told["current_root_threshold_unmet"] == "director.next.signatures"
    chain = ImportedChain(repository=Repository.IMAGE, documents=(good.image.documents[0], root, good.image.documents[2]))
    told = move.errors(replace(good, image=chain, dry_run=dry_run))
    assert any(field.startswith("image.roots[1].uptane") for field in told.values())


def test_images_without_bytes_come_over_only_when_that_is_said(move: Move) -> None:
    move.upload_all()
    move.old.put("lost-1", b"lost")
    assert set(move.errors(move.asked())) == {"binary_missing"}
    imported = move.run(replace(move.asked(), may_lack_images=True))
    assert list(imported.missing) == ["lost-1"]
    assert [warning.code for warning in imported.warnings if "lost-1" in warning.field] == ["binary_missing"]


def test_a_root_that_names_keys_this_server_does_not_have_is_refused(move: Move) -> None:
    move.upload_all()
    strangers = {role: OfflineKey().public_key for role in (Role.SNAPSHOT, Role.TIMESTAMP)}
    root = move.old.next_root(Repository.IMAGE, strangers)
    nexts = {**move.asked().next_roots, Repository.IMAGE: in_both(root, move.old.root_keys(Repository.IMAGE))}
    assert "not_the_servers_key" in move.errors(replace(move.asked(), next_roots=nexts))


def test_documents_of_different_moments_are_refused(move: Move) -> None:
    move.upload_all()
    asked = move.asked()
    move.old.put("gateway-4", b"meanwhile")
    mixed = {**asked.documents, "targets": {Flavour.UPTANE: move.old.image.files["targets.json"]}}
    assert set(move.errors(replace(asked, documents=mixed))) == {"metadata_hash_mismatch"}


def test_a_delegation_that_is_missing_is_told(move: Move) -> None:
    move.upload_all()
    asked = move.asked()
    without = {name: each for name, each in asked.documents.items() if name != "vendor-b"}
    assert move.errors(replace(asked, documents=without)) == {"document_missing": "vendor-b"}


def own_image(move: Move) -> None:
    move.room.run(lambda tx: move.room.images.add_target(tx, move.room.place, plan("own-1")))


def own_root(move: Move) -> None:
    move.room.run(lambda tx: move.room.roots.renew(tx, move.room.place, Repository.DIRECTOR))


@pytest.mark.parametrize("lives", [own_image, own_root])
def test_an_account_with_a_life_of_its_own_takes_nothing_over(move: Move, lives: Callable[[Move], None]) -> None:
    move.upload_all()
    asked = move.asked()
    lives(move)
    before = move.state()
    for each in (asked, replace(asked, dry_run=True)):
        with pytest.raises(Conflict) as refused:
            move.run(each)
        assert refused.value.subject == "import"
    assert move.state() == before


async def test_an_account_whose_devices_have_begun_to_follow_takes_nothing_over(move: Move) -> None:
    room = move.room
    await room.probes.note(room.account, Repository.IMAGE, "car-1", 2, newest_version=1)  # type: ignore[arg-type]
    with pytest.raises(Conflict):
        move.run(move.asked())


def test_what_this_server_signed_in_both_flavours_goes_on_in_both(move: Move, room: ImageRoom) -> None:
    """Between servers of ours the TUF flavour moves too."""
    move.upload_all()
    tuf = UptaneRepository(Repository.IMAGE, now=lambda: move.old.now, flavour=Flavour.TUF, keys=dict(move.old.image.keys))
    assert tuf.root.version == 1
    uptane = UptaneRepository(Repository.IMAGE, now=lambda: move.old.now, keys=dict(move.old.image.keys))
    for repository in (tuf, uptane):
        repository.put_targets(described("gateway-1", b"gateway one"))
    move.old.image = uptane
    asked = move.asked()
    both = {Flavour.UPTANE: uptane.files["1.root.json"], Flavour.TUF: tuf.files["1.root.json"]}
    documents = {
        role: {Flavour.UPTANE: uptane.files[f"{role}.json"], Flavour.TUF: tuf.files[f"{role}.json"]}
        for role in ("targets", "snapshot", "timestamp")
    }
    chain = ImportedChain(repository=Repository.IMAGE, documents=(both,))
    imported = move.run(replace(asked, image=chain, documents=documents))
    assert imported.versions["root"] == 2
    client = TrustedSet.begin(tuf.files["1.root.json"], repository=Repository.IMAGE, flavour=Flavour.TUF)
    following = move.root(Repository.IMAGE, 2, Flavour.TUF)
    assert isinstance(client.update_root(following), Accepted)
    assert isinstance(client.update_timestamp(room.document("timestamp", Flavour.TUF), now=room.clock.now()), Accepted)


def test_flavours_of_a_chain_that_say_different_things_are_refused(move: Move) -> None:
    move.upload_all()
    asked = move.asked()
    stranger = UptaneRepository(Repository.DIRECTOR, now=lambda: move.old.now, flavour=Flavour.TUF)
    stranger.publish_root(also_by=stranger.keys[Role.ROOT])
    stranger.publish_root(also_by=stranger.keys[Role.ROOT])
    documents = tuple(
        {**each, Flavour.TUF: stranger.files[f"{version}.root.json"]}
        for version, each in enumerate(asked.director.documents, start=1)
    )
    chain = ImportedChain(repository=Repository.DIRECTOR, documents=documents)
    assert "flavours_differ" in move.errors(replace(asked, director=chain))


def test_a_stranger_cannot_hand_over(move: Move) -> None:
    move.upload_all()
    asked = move.asked()
    root: Root = move.old.next_root(Repository.IMAGE, move.own_keys(Repository.IMAGE))
    forged = {flavour: sign_payload(payload(root, flavour), [OfflineKey()], flavour) for flavour in Flavour}
    told = move.errors(replace(asked, next_roots={**asked.next_roots, Repository.IMAGE: forged}))
    assert told["current_root_threshold_unmet"] == "image.next.signatures"


def test_uploads_that_are_no_part_of_it_stay_uploads(move: Move) -> None:
    move.upload_all()
    move.upload("other-1", b"other")
    move.run(move.asked())
    room = move.room
    status = room.read(lambda tx: room.images.catalogue.find(tx, room.account, "other-1")).status
    assert status is TargetStatus.UPLOADED
