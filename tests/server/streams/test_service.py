"""Streams as operators know them."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock
from overair.basics.errors import AccessDenied, AlreadyExists, InvalidRequest, LimitExceeded, NotFound
from overair.basics.ids import StreamId
from overair.server.storage.work import open_sqlite, sql
from overair.server.streams.model import STREAMED_FILE_SIZE_BYTES_MAX, StreamChange, Versions, largest_files
from overair.server.streams.store import streams
from tests.support.streams_room import StreamsRoom, source


def change(room: StreamsRoom, stream: str, **parts: object) -> int:
    wanted = StreamChange(**parts)  # type: ignore[arg-type]
    return room.work.run_blocking(lambda tx: room.streams.change(tx, room.place, StreamId(stream), wanted)).version


def delete(room: StreamsRoom, stream: str) -> None:
    room.work.run_blocking(lambda tx: room.streams.delete(tx, room.place, StreamId(stream)))


def test_a_stream_begins_at_version_one_and_is_found_as_it_was_made(room: StreamsRoom) -> None:
    version = room.buckets.put("b", "k", b"abc")
    made = room.create("s", source(7, "b", "k", version), source(3, "b", "k"), description="d")
    assert made.version == 1
    assert made.arn(room.place) == "arn:aws:iot:us-east-1:123456789012:stream/s"
    assert room.find("s") == made
    assert [file.source.file_id for file in made.files] == [7, 3]
    assert [(file.version, file.size_bytes) for file in made.files] == [(version, 3), (version, 3)]


def test_a_file_without_a_version_is_pinned_when_the_stream_is_made(room: StreamsRoom) -> None:
    first = room.buckets.put("b", "k", b"one")
    room.create("s", source(0, "b", "k"))
    second = room.buckets.put("b", "k", b"three")
    (file,) = room.find("s").files
    assert (file.version, file.size_bytes, file.source.version) == (first, 3, None)
    assert change(room, "s", description="again") == 2
    (file,) = room.find("s").files
    assert (file.version, file.size_bytes) == (second, 5)


def test_an_id_is_taken_once(room: StreamsRoom) -> None:
    room.of(b"abc")
    with pytest.raises(AlreadyExists) as caught:
        room.of(b"abc")
    assert caught.value.details["resourceArn"] == "arn:aws:iot:us-east-1:123456789012:stream/s"


def test_a_deleted_id_never_returns_to_an_old_version(room: StreamsRoom) -> None:
    room.of(b"abc")
    assert change(room, "s", description="x") == 2
    delete(room, "s")
    with pytest.raises(NotFound):
        room.find("s")
    with pytest.raises(NotFound):
        delete(room, "s")
    assert room.of(b"def").version == 3
    delete(room, "s")
    assert room.of(b"ghi").version == 4


def test_the_last_version_has_no_successor(room: StreamsRoom) -> None:
    room.of(b"abc")
    room.work.run_blocking(lambda tx: sql(tx).execute(streams.update().values(version=65535)) and None)
    with pytest.raises(LimitExceeded):
        change(room, "s", description="x")
    delete(room, "s")
    with pytest.raises(LimitExceeded):
        room.of(b"abc")
    assert Versions().after(65534, Instant(0)) == 65535


def test_after_a_restore_no_version_stands_for_two_contents(
    tmp_path: Path, sqlite_template: Callable[[], Path], place: Place, clock: SettableClock
) -> None:
    random = Random(6)
    said: dict[tuple[str, int], bytes] = {}

    def goes_on(room: StreamsRoom, steps: int) -> None:
        """An operator makes, changes and deletes streams; devices see each."""
        for _ in range(steps):
            clock.advance(milliseconds=random.randrange(2000))
            name, data = f"s{random.randrange(4)}", random.randbytes(20)
            if not _has(room, name):
                room.of(data, name)
            elif random.random() < 0.3:
                delete(room, name)
                continue
            else:
                room.buckets.put("b", name, data)
                change(room, name, files=(source(0, "b", name),))
            assert said.setdefault((name, room.find(name).version), data) == data

    file = tmp_path / "0"
    shutil.copyfile(sqlite_template(), file)
    versions = Versions()
    for restores in range(1, 4):
        with closing(open_sqlite(file, clock=clock)) as work:
            room = StreamsRoom(work, place, clock, versions=versions)
            goes_on(room, 30)
            backup = tmp_path / str(restores)
            with closing(sqlite3.connect(file)) as records, closing(sqlite3.connect(backup)) as copy:
                records.backup(copy)
            goes_on(room, 60)  # what the backup knows nothing of
        file = backup
        clock.advance(milliseconds=1)
        versions = Versions(restores=restores, restored_at=clock.now())
    assert len(said) > 150


def _has(room: StreamsRoom, name: str) -> bool:
    page = room.work.read_blocking(lambda tx: room.streams.page(tx, room.place, after=None, limit=9))
    return any(each.id == name for each in page)


@pytest.mark.parametrize("files", [[], [(0, "k"), (0, "k")], [(256, "k")], [(n, "k") for n in range(51)]])
def test_files_are_one_to_fifty_with_ids_of_their_own(room: StreamsRoom, files: list[tuple[int, str]]) -> None:
    room.buckets.put("b", "k", b"abc")
    with pytest.raises(InvalidRequest):
        room.create("s", *(source(number, "b", key) for number, key in files))


def test_fifty_files_are_fine(room: StreamsRoom) -> None:
    room.buckets.put("b", "k", b"abc")
    room.create("s", *(source(number, "b", "k") for number in range(50)))
    assert len(room.find("s").files) == 50


@pytest.mark.parametrize("version", [None, "v9"])
def test_a_missing_object_makes_no_stream(room: StreamsRoom, version: str | None) -> None:
    room.buckets.put("b", "other", b"abc")
    with pytest.raises(NotFound):
        room.create("s", source(0, "b", "k", version))
    with pytest.raises(NotFound):
        room.find("s")


def test_the_role_needs_the_action_that_fits_how_the_file_is_named(room: StreamsRoom) -> None:
    version = room.buckets.put("b", "k", b"abc")
    room.grants.actions = ("s3:GetObject",)
    with pytest.raises(AccessDenied, match="s3:GetObjectVersion"):
        room.create("s", source(0, "b", "k", version))
    room.create("pinned", source(0, "b", "k"))
    room.grants.actions = ("s3:GetObjectVersion",)
    with pytest.raises(AccessDenied, match="s3:GetObject "):
        room.create("s", source(0, "b", "k"))
    room.create("s", source(0, "b", "k", version))


def test_the_buckets_policy_may_grant_and_deny_in_the_roles_place(room: StreamsRoom) -> None:
    version = room.buckets.put("b", "k", b"abc")
    room.grants.actions = ()
    room.buckets.policies["b"] = "allow"
    room.create("s", source(0, "b", "k", version))
    room.grants.actions = ("s3:GetObjectVersion",)
    room.buckets.policies["b"] = "deny"
    with pytest.raises(AccessDenied):
        room.create("t", source(0, "b", "k", version))


def test_a_role_that_cannot_be_assumed_makes_no_stream(room: StreamsRoom) -> None:
    version = room.buckets.put("b", "k", b"abc")
    with pytest.raises(InvalidRequest):
        room.create("s", source(0, "b", "k", version), role_arn="arn:aws:iam::123456789012:role/other")


def test_streams_are_listed_by_id_both_ways(room: StreamsRoom) -> None:
    room.buckets.put("b", "k", b"abc")
    for name in ("b", "a", "c"):
        room.create(name, source(0, "b", "k"))
    delete(room, "b")

    def page(ascending: bool, after: str | None = None) -> list[str]:
        found = room.work.read_blocking(
            lambda tx: room.streams.page(
                tx, room.place, after=None if after is None else StreamId(after), limit=9, ascending=ascending
            )
        )
        return [stream.id for stream in found]

    assert page(True) == ["a", "c"]
    assert page(False) == ["c", "a"]
    assert page(True, "a") == ["c"]


def test_the_largest_file_for_each_block_size_is_stated() -> None:
    stated = {size.block_size_bytes: size for size in largest_files()}
    assert list(stated) == [2**exponent for exponent in range(8, 18)]
    gibibyte = 2**30
    assert stated[4096].with_offset_bytes < gibibyte
    for size in (8192, 16384, 131072):
        assert stated[size].with_offset_bytes >= gibibyte
    # An offset of 98,304 and a bitmap of 12,287 bytes reach block 98,304 + 98,296 - 1.
    assert stated[8192].with_offset_bytes == (98_304 + 12_287 * 8) * 8192
    assert stated[16384].whole_bitmap_bytes >= gibibyte
    assert stated[131072].with_offset_bytes == STREAMED_FILE_SIZE_BYTES_MAX
