"""Pages of a bucket, against the plain meaning of prefix and delimiter."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overair.basics.errors import InvalidRequest
from overair.server.objects.listing import ObjectLists, Position, page_of
from overair.server.objects.model import Properties, StoredContent, successor
from overair.server.objects.store import SqlObjectStore
from overair.server.objects.upload_store import SqlUploadStore
from overair.server.objects.uploads import UploadsService

EMPTY = StoredContent(content_id="0" * 64, size_bytes=0, md5_hex="0" * 32)


@pytest.fixture
def lists(objects) -> ObjectLists:
    return ObjectLists(objects, SqlObjectStore(), SqlUploadStore())


def put_all(work, objects, place, bucket, keys) -> None:
    work.run_blocking(lambda tx: [objects.put(tx, place, bucket, key, EMPTY) for key in keys] and None)


def walk(work, lists, place, bucket, *, prefix="", delimiter="", limit=2):
    """All pages: (keys, common prefixes), in the order they came."""
    keys, prefixes, after = [], [], None
    for _ in range(200):
        page = work.read_blocking(
            lambda tx: lists.objects(tx, place, bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)  # noqa: B023
        )
        assert len(page.entries) + len(page.common_prefixes) <= limit
        keys += [entry.key for entry in page.entries]
        prefixes += page.common_prefixes
        if not page.is_truncated:
            return keys, prefixes
        assert page.last_key is not None
        after = page.last_key
    raise AssertionError("the list never ends")


KEYS = ["a", "a/1", "a/2", "a/b/3", "b", "c/1", "c/2", "c/3", "c/4", "d", "ü", "\U0001f600", "ﬀ", "z%_", "zA", "z-"]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("prefix", "delimiter"), [("", ""), ("", "/"), ("a", "/"), ("a/", "/"), ("c/", ""), ("z%", ""), ("x", "/")]
)
def test_pages_together_are_the_whole_list(work, objects, lists, place, bucket, prefix, delimiter, limit) -> None:
    put_all(work, objects, place, bucket, KEYS)
    work.run_blocking(lambda tx: objects.delete(tx, place, bucket, "d"))
    keys, prefixes = walk(work, lists, place, bucket, prefix=prefix, delimiter=delimiter, limit=limit)
    here = sorted((key for key in KEYS if key.startswith(prefix) and key != "d"), key=lambda key: key.encode())
    folded = {key: prefix + key[len(prefix) :].split("/")[0] + "/" for key in here if delimiter and "/" in key[len(prefix) :]}
    assert keys == [key for key in here if key not in folded]
    assert prefixes == sorted(set(folded.values()))


def test_versions_come_newest_first_and_markers_among_them(work, objects, lists, place, bucket) -> None:
    put_all(work, objects, place, bucket, ["a", "b", "a", "a"])
    work.run_blocking(lambda tx: objects.delete(tx, place, bucket, "a"))

    def page(after=None, after_version=None, limit=2):
        return work.read_blocking(
            lambda tx: lists.versions(
                tx, place, bucket, prefix="", delimiter="", after=after, after_version=after_version, limit=limit
            )
        )

    whole = page(limit=100).entries
    assert [(entry.key, entry.sequence, entry.is_latest) for entry in whole] == [
        ("a", 4, True),
        ("a", 3, False),
        ("a", 2, False),
        ("a", 1, False),
        ("b", 1, True),
    ]
    pieces, last = [], None
    while True:
        one = page(*((last.key, last.version_id) if last else ()))
        pieces += one.entries
        if not one.is_truncated:
            break
        last = one.entries[-1]
    assert pieces == list(whole)
    assert [entry.key for entry in page(after="a").entries] == ["b"]
    with pytest.raises(InvalidRequest):
        page(after="a", after_version="nonsense")
    with pytest.raises(InvalidRequest):
        page(after_version=whole[0].version_id)


def test_unfinished_uploads_are_listed_by_key_and_id(work, objects, lists, place, bucket, clock, ids) -> None:
    uploads = UploadsService(objects, SqlUploadStore(), clock=clock, ids=ids)
    for key in ("b", "a", "a", "c/1", "c/2"):
        work.run_blocking(lambda tx, key=key: uploads.create(tx, place, bucket, key, properties=Properties()))
    found, after, after_upload = [], None, None
    prefixes = []
    while True:
        page = work.read_blocking(
            lambda tx: lists.uploads(
                tx,
                place,
                bucket,
                prefix="",
                delimiter="/",
                after=after,  # noqa: B023
                after_upload=after_upload,  # noqa: B023
                limit=1,
            )
        )
        found += page.entries
        prefixes += page.common_prefixes
        if not page.is_truncated:
            break
        after, after_upload = page.last_key, None if page.last_prefix else page.entries[-1].upload_id
    assert [upload.key for upload in found] == ["a", "a", "b"]
    assert prefixes == ["c/"]
    assert len({upload.upload_id for upload in found}) == 3


class Named:
    def __init__(self, key: str) -> None:
        self.key = key


@given(
    keys=st.sets(st.text(alphabet="ab/c", min_size=1, max_size=6), max_size=25),
    prefix=st.text(alphabet="ab/", max_size=2),
    delimiter=st.sampled_from(["", "/", "ab", "c"]),
    limit=st.integers(1, 6),
)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_every_key_is_told_once_whatever_the_page_size(keys, prefix, delimiter, limit) -> None:
    ordered = sorted(keys)
    below = successor(prefix)

    def fetch(at: Position, count: int):
        rows = [key for key in ordered if key >= at.at_least and (below is None or key < below)]
        return [Named(key) for key in rows if at.after is None or key > at.after][:count]

    told, folded, after = [], [], None
    while True:
        page = page_of(
            fetch,
            lambda entry: Position(after=entry.key),
            prefix=prefix,
            delimiter=delimiter,
            start=Position(after=after),
            limit=limit,
        )
        assert len(page.entries) + len(page.common_prefixes) <= limit
        told += [entry.key for entry in page.entries]
        folded += page.common_prefixes
        if not page.is_truncated:
            break
        after = page.last_key
    mine = [key for key in ordered if key.startswith(prefix)]
    stands_for = {
        key: key[: key.index(delimiter, len(prefix)) + len(delimiter)]
        for key in mine
        if delimiter and delimiter in key[len(prefix) :]
    }
    assert told == [key for key in mine if key not in stands_for]
    assert folded == sorted(set(stands_for.values()))
