"""What buckets, versions and delete markers do."""

from __future__ import annotations

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import AlreadyExists, Conflict, InvalidRequest, NotFound, PreconditionFailed
from overair.basics.ids import AccountId
from overair.server.objects.contents import ContentStore
from overair.server.objects.model import Conditions, DeleteMarker, Properties, Versioning
from overair.server.objects.service import ObjectsService
from overair.server.objects.store import SqlObjectStore
from overair.server.objects.upload_store import SqlUploadStore
from overair.server.storage.work import SqlWork


@pytest.fixture
def put(work, objects, contents, place):
    def put(bucket: str, key: str, content: bytes = b"v", **named):
        stored = contents.store_blocking([content])
        return work.run_blocking(lambda tx: objects.put(tx, place, bucket, key, stored, **named))

    return put


def test_a_bucket_is_made_once_and_again_without_error_in_us_east_1(
    work: SqlWork, objects: ObjectsService, clock: SettableClock
) -> None:
    home, west = Place("us-east-1", AccountId("123456789012")), Place("us-west-2", AccountId("123456789012"))
    first = work.run_blocking(lambda tx: objects.create_bucket(tx, home, "firmware"))
    clock.advance(milliseconds=5)
    assert work.run_blocking(lambda tx: objects.create_bucket(tx, home, "firmware")) == first
    with pytest.raises(AlreadyExists):
        work.run_blocking(lambda tx: objects.create_bucket(tx, west, "firmware"))
    assert work.read_blocking(lambda tx: objects.buckets(tx, home)) == [first]


@pytest.mark.parametrize("name", ["", "ab", "A-Bucket", "-ab", "ab-", "a..b", "192.168.0.1", "x" * 64, "a_b", "ü-bucket"])
def test_names_that_no_bucket_has_are_refused(work: SqlWork, objects: ObjectsService, place: Place, name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        work.run_blocking(lambda tx: objects.create_bucket(tx, place, name))
    assert refused.value.subject == "bucket-name"


def test_the_latest_version_is_found_and_older_ones_by_their_id(work, objects, place, bucket, put) -> None:
    first = put(bucket, "a.bin", b"1")
    second = put(bucket, "a.bin", b"22")
    assert first.version_id != second.version_id
    assert work.read_blocking(lambda tx: objects.find(tx, place, bucket, "a.bin")) == second
    found = work.read_blocking(lambda tx: objects.find(tx, place, bucket, "a.bin", first.version_id))
    assert (found.size_bytes, found.is_latest, found.etag) == (1, False, "c4ca4238a0b923820dcc509a6f75849b")


def test_a_delete_marker_hides_the_object_and_taking_it_away_brings_it_back(work, objects, place, bucket, put) -> None:
    version = put(bucket, "a.bin")
    deletion = work.run_blocking(lambda tx: objects.delete(tx, place, bucket, "a.bin"))
    assert deletion.is_marker
    with pytest.raises(NotFound) as refused:
        work.read_blocking(lambda tx: objects.find(tx, place, bucket, "a.bin"))
    assert refused.value.subject == "key"
    with pytest.raises(NotFound) as refused:
        work.read_blocking(lambda tx: objects.find(tx, place, bucket, "a.bin", deletion.version_id))
    assert refused.value.subject == "version"
    assert isinstance(work.read_blocking(lambda tx: objects.look(tx, place, bucket, "a.bin")), DeleteMarker)
    assert work.read_blocking(lambda tx: objects.find(tx, place, bucket, "a.bin", version.version_id)).content_id

    undone = work.run_blocking(lambda tx: objects.delete(tx, place, bucket, "a.bin", deletion.version_id))
    assert undone.is_marker
    assert work.read_blocking(lambda tx: objects.find(tx, place, bucket, "a.bin")) == version


def test_taking_the_latest_version_away_makes_the_one_before_it_the_latest(work, objects, place, bucket, put) -> None:
    first, second = put(bucket, "a", b"1"), put(bucket, "a", b"2")
    work.run_blocking(lambda tx: objects.delete(tx, place, bucket, "a", second.version_id))
    assert work.read_blocking(lambda tx: objects.find(tx, place, bucket, "a")).version_id == first.version_id
    work.run_blocking(lambda tx: objects.delete(tx, place, bucket, "a", first.version_id))
    with pytest.raises(NotFound):
        work.read_blocking(lambda tx: objects.find(tx, place, bucket, "a"))
    # Once more is no error.
    assert work.run_blocking(lambda tx: objects.delete(tx, place, bucket, "a", first.version_id)).is_marker is False


def test_a_bucket_that_never_kept_versions_overwrites_and_deletes(work, objects, place, put) -> None:
    work.run_blocking(lambda tx: objects.create_bucket(tx, place, "plain"))
    assert put("plain", "a", b"1").version_id == "null"
    assert put("plain", "a", b"2").version_id == "null"
    assert work.read_blocking(lambda tx: objects.find(tx, place, "plain", "a")).etag == "c81e728d9d4c2f636f067f89cc14862c"
    assert work.run_blocking(lambda tx: objects.delete(tx, place, "plain", "a")).version_id is None
    work.run_blocking(lambda tx: objects.delete_bucket(tx, place, "plain"))


def test_a_suspended_bucket_replaces_the_null_version_alone(work, objects, place, bucket, put) -> None:
    kept = put(bucket, "a", b"1")
    work.run_blocking(lambda tx: objects.set_versioning(tx, place, bucket, Versioning.SUSPENDED))
    put(bucket, "a", b"2")
    put(bucket, "a", b"3")
    assert work.read_blocking(lambda tx: objects.find(tx, place, bucket, "a", kept.version_id)).size_bytes == 1
    deletion = work.run_blocking(lambda tx: objects.delete(tx, place, bucket, "a"))
    assert (deletion.version_id, deletion.is_marker) == ("null", True)
    work.run_blocking(lambda tx: objects.delete(tx, place, bucket, "a", "null"))
    assert work.read_blocking(lambda tx: objects.find(tx, place, bucket, "a")).version_id == kept.version_id


def test_a_bucket_with_anything_in_it_stays(work, objects, place, bucket, put) -> None:
    put(bucket, "a")
    work.run_blocking(lambda tx: objects.delete(tx, place, bucket, "a"))
    with pytest.raises(Conflict) as refused:
        work.run_blocking(lambda tx: objects.delete_bucket(tx, place, bucket))
    assert refused.value.subject == "bucket-not-empty"


def test_writers_conditions_hold_or_nothing_changes(work, objects, place, bucket, put) -> None:
    with pytest.raises(NotFound):
        put(bucket, "a", b"1", conditions=Conditions(if_match="c4ca4238a0b923820dcc509a6f75849b"))
    put(bucket, "a", b"1", conditions=Conditions(if_none_match="*"))
    with pytest.raises(PreconditionFailed):
        put(bucket, "a", b"2", conditions=Conditions(if_none_match="*"))
    with pytest.raises(PreconditionFailed):
        put(bucket, "a", b"2", conditions=Conditions(if_match='"0"'))
    changed = put(bucket, "a", b"2", conditions=Conditions(if_match='"c4ca4238a0b923820dcc509a6f75849b"'))
    assert work.read_blocking(lambda tx: objects.find(tx, place, bucket, "a")) == changed
    work.run_blocking(lambda tx: objects.delete(tx, place, bucket, "a"))
    # Behind a delete marker there is no object.
    put(bucket, "a", b"3", conditions=Conditions(if_none_match="*"))


def test_what_the_writer_said_comes_back_whole(work, objects, place, bucket, put) -> None:
    properties = Properties(content_type="text/plain", metadata={"version": "1.0.0"}, checksums={"crc32": "AAAAAA=="})
    put(bucket, "a", properties=properties)
    assert work.read_blocking(lambda tx: objects.find(tx, place, bucket, "a")).properties == properties
    put(bucket, "b", content_type="application/json")
    assert work.read_blocking(lambda tx: objects.find(tx, place, bucket, "b")).properties.content_type == "application/json"


@pytest.mark.parametrize(
    ("key", "subject"), [("", "key"), ("a\x00", "key"), ("a\x07", "key"), ("ü" * 513, "key-too-long"), ("\ud800", "key")]
)
def test_keys_that_no_object_has_are_refused(work, objects, place, bucket, put, key: str, subject: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        put(bucket, key)
    assert refused.value.subject == subject
    put(bucket, "ü" * 512)


def test_another_account_sees_no_bucket(work, objects, bucket, put) -> None:
    put(bucket, "a")
    stranger = Place("us-east-1", AccountId("999999999999"))
    for attempt in (
        lambda tx: objects.find(tx, stranger, bucket, "a"),
        lambda tx: objects.delete(tx, stranger, bucket, "a"),
        lambda tx: objects.delete_bucket(tx, stranger, bucket),
        lambda tx: objects.set_policy(tx, stranger, bucket, "{}"),
    ):
        with pytest.raises(NotFound) as refused:
            work.run_blocking(attempt)
        assert refused.value.subject == "bucket"
    assert work.read_blocking(lambda tx: objects.bucket_policy(tx, stranger, bucket)) is None


def test_who_holds_copies_hears_of_a_version_that_goes(work, place, clock, ids, contents: ContentStore) -> None:

    gone = []

    class Listener:
        def object_gone(self, tx, version) -> None:
            gone.append(version.version_id)

        def bucket_policy_changed(self, tx, account, bucket) -> None:
            gone.append(bucket)

    objects = ObjectsService(SqlObjectStore(), SqlUploadStore(), clock=clock, ids=ids, when_gone=(Listener(),))
    work.run_blocking(lambda tx: objects.create_bucket(tx, place, "abc", versioning=Versioning.ENABLED))
    stored = contents.store_blocking([b"1"])
    version = work.run_blocking(lambda tx: objects.put(tx, place, "abc", "a", stored))
    work.run_blocking(lambda tx: objects.delete(tx, place, "abc", "a"))
    assert gone == []
    work.run_blocking(lambda tx: objects.delete(tx, place, "abc", "a", version.version_id))
    assert gone == [version.version_id]
    work.run_blocking(lambda tx: objects.set_policy(tx, place, "abc", "{}"))
    work.run_blocking(lambda tx: objects.set_policy(tx, place, "abc", None))
    assert gone == [version.version_id, "abc", "abc"]
