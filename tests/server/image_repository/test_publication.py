"""One publication is one unit of work: whole or not at all, looked at as clients would before anybody sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from overair.basics.errors import InvalidRequest, Unavailable
from overair.server.image_repository.publication import Change
from overair.server.image_repository.store import SqlDocumentStore
from overair.server.image_repository.verification import Follower, Followers
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository
from overair.wire.uptane.trust import Refused
from tests.support.image_room import ImageRoom, OfflineKey, plan
from tests.support.image_view import believed, trusted

pytestmark = pytest.mark.parametrize("work", ["sqlite"], indirect=True)
"""What these tests are about isn't SQL; other files of this room run on both databases."""


def state(room: ImageRoom) -> list[bytes]:
    return [room.document(role, flavour) for role in ("targets", "snapshot", "timestamp") for flavour in Flavour]


class Cut(Exception):
    """Power is lost."""


@pytest.mark.parametrize("after_documents", range(6))
def test_a_publication_that_is_cut_between_signing_and_its_end_leaves_nothing(
    room: ImageRoom, monkeypatch: pytest.MonkeyPatch, after_documents: int
) -> None:
    before = state(room)
    written: list[str] = []
    add = SqlDocumentStore.add

    def cut(self: SqlDocumentStore, *arguments: Any, **named: Any) -> None:
        if len(written) == after_documents:
            raise Cut
        written.append(arguments[2].role)
        add(self, *arguments, **named)

    monkeypatch.setattr(SqlDocumentStore, "add", cut)
    with pytest.raises(Cut):
        room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    monkeypatch.undo()
    assert state(room) == before
    assert room.read(lambda tx: room.images.find_target(tx, room.account, "gateway-1.bin")) is None
    changed = room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    assert changed.published is not None
    for flavour in Flavour:
        assert set(believed(room, flavour).targets) == {"gateway-1.bin"}


def test_versions_of_several_publications_in_one_second_rise_all_the_same(room: ImageRoom) -> None:
    seen = []
    for number in range(4):
        room.run(lambda tx: room.images.add_target(tx, room.place, plan(f"{number}.bin", b"%d" % number)))  # noqa: B023
        seen.append(room.read(lambda tx: room.images.current(tx, room.account)).versions)
    for role in ("targets", "snapshot", "timestamp"):
        versions = [each[role] for each in seen]
        assert versions == sorted(set(versions))


def test_what_a_client_would_refuse_is_told_in_its_words_and_not_published(room: ImageRoom) -> None:
    """A root whose end has come: nothing below it is believed."""
    before = state(room)
    root_key = OfflineKey()
    room.take_offline(root_key, OfflineKey())
    after = state(room)
    assert before != after
    room.clock.set(room.in_days(400))
    with pytest.raises(InvalidRequest) as refused:
        room.run(lambda tx: room.images._publisher.publish(tx, room.place, Change()))
    assert refused.value.subject == "client-refuses"
    errors = refused.value.details["errors"]
    assert isinstance(errors, Sequence)
    assert [error["code"] for error in errors] == ["expired_metadata"]
    assert state(room) == after


def test_nothing_is_published_by_a_clock_that_went_back(room: ImageRoom) -> None:
    room.clock.advance(milliseconds=3_600_000)
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    before = state(room)
    room.clock.set(room.in_days(-1))
    with pytest.raises(Unavailable):
        room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-2.bin", b"two")))
    assert state(room) == before


def test_only_the_newest_versions_stay_readable_by_their_number(room: ImageRoom) -> None:
    versions = []
    for number in range(7):
        room.run(lambda tx: room.images.add_target(tx, room.place, plan(f"{number}.bin", b"%d" % number)))  # noqa: B023
        versions.append(room.targets().version)
    store = SqlDocumentStore()
    kept = [
        version
        for version in versions
        if room.read(lambda tx: store.version(tx, room.account, "targets", Flavour.UPTANE, version)) is not None  # noqa: B023
    ]
    assert kept == versions[-4:]


@pytest.mark.parametrize("flavour", Flavour)
def test_a_follower_who_is_remembered_answers_as_one_who_reads_everything_again(room: ImageRoom, flavour: Flavour) -> None:
    root = room.read(lambda tx: room.roots.document(tx, room.account, Repository.IMAGE, 1, flavour))

    def files() -> dict[str, bytes]:
        return {f"{role}.json": room.document(role, flavour) for role in ("targets", "snapshot", "timestamp")}

    now, before = room.clock.now(), files()
    followers = Followers()
    begun = followers.of(room.account, flavour, root, {}, now=now)
    assert isinstance(begun, Follower)
    assert begun.refusal([], {}, before, now=now) is None
    followers.keep(room.account, flavour, begun)
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    after = files()
    remembered = followers.of(room.account, flavour, root, before, now=now)
    assert isinstance(remembered, Follower)
    assert remembered.refusal([], before, after, now=now) is None
    forged = {**after, "targets.json": after["targets.json"].replace(b"gateway-1", b"gateway-9")}
    again = followers.of(room.account, flavour, root, before, now=now)
    assert isinstance(again, Follower)
    refused = again.refusal([], before, forged, now=now)
    assert isinstance(refused, Refused)
    # One who has followed refuses to go back; what he had stored is asked for by its bytes.
    assert isinstance(remembered.refusal([], after, before, now=now), Refused)
    assert begun.has_stored(root, before)
    assert not begun.has_stored(root, after)


def test_a_set_that_is_copied_goes_its_own_way(room: ImageRoom) -> None:
    client = trusted(room)
    other = client.copy()
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    now = room.clock.now()
    other.update_timestamp(room.document("timestamp"), now=now)
    other.update_snapshot(room.document("snapshot"), now=now)
    other.update_targets(room.document("targets"), now=now)
    assert client.targets is not None
    assert client.targets.targets == {}
    assert other.targets is not None
    assert set(other.targets.targets) == {"gateway-1.bin"}
