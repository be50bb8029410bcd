"""Routers, timestamps, patterns, XML and query strings, each on its own."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.server.aws_protocol import models
from overair.server.aws_protocol.http_binding import parse_query
from overair.server.aws_protocol.models import load_model
from overair.server.aws_protocol.router import BadPath, Router
from overair.server.aws_protocol.rules import Invalid, string_check
from overair.server.aws_protocol.timestamps import INSTANT_MAX, INSTANT_MIN, NotATimestamp, from_text, to_http_date, to_iso
from overair.server.aws_protocol.xml_documents import Element, escape, read_xml

S3 = Router(load_model("s3"))
IOT = Router(load_model("iot"))
JOBS_DATA = Router(load_model("iot-jobs-data"))


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "operation"),
    [
        ("GET", b"/", {}, {}, "ListBuckets"),
        ("GET", b"/b", {}, {}, "ListObjects"),
        ("GET", b"/b/", {}, {}, "ListObjects"),
        ("GET", b"/b", {"list-type": ["2"]}, {}, "ListObjectsV2"),
        ("GET", b"/b", {"list-type": ["3"]}, {}, "ListObjects"),
        ("GET", b"/b", {"versions": [""]}, {}, "ListObjectVersions"),
        ("GET", b"/b", {"uploads": [""]}, {}, "ListMultipartUploads"),
        ("GET", b"/b", {"lifecycle": [""]}, {}, "GetBucketLifecycleConfiguration"),
        ("PUT", b"/b", {"versioning": [""]}, {}, "PutBucketVersioning"),
        ("PUT", b"/b", {}, {}, "CreateBucket"),
        ("PUT", b"/b/k", {}, {}, "PutObject"),
        ("PUT", b"/b//k//", {}, {}, "PutObject"),
        ("PUT", b"/b/k", {}, {"x-amz-copy-source": "/a/b"}, "CopyObject"),
        ("PUT", b"/b/k", {"partNumber": ["1"], "uploadId": ["u"]}, {}, "UploadPart"),
        ("PUT", b"/b/k", {"partNumber": ["1"], "uploadId": ["u"]}, {"x-amz-copy-source": "/a/b"}, "UploadPartCopy"),
        ("GET", b"/b/k", {"uploadId": ["u"]}, {}, "ListParts"),
        ("DELETE", b"/b/k", {"uploadId": ["u"]}, {}, "AbortMultipartUpload"),
        ("POST", b"/b/k", {"uploadId": ["u"]}, {}, "CompleteMultipartUpload"),
        ("POST", b"/b/k", {"uploads": [""]}, {}, "CreateMultipartUpload"),
        ("HEAD", b"/b/k/l", {}, {}, "HeadObject"),
        ("POST", b"/b", {"delete": [""]}, {}, "DeleteObjects"),
    ],
)
def test_object_store_operations_are_told_apart(
    method: str, path: bytes, query: dict[str, list[str]], headers: dict[str, str], operation: str
) -> None:
    found = S3.route(method, path, query, headers)
    assert found is not None
    assert found[0].name == operation


def test_keys_keep_their_slashes_and_are_decoded_once() -> None:
    found = S3.route("PUT", b"/b/a//b%2Fc%2520/", {}, {})
    assert found is not None
    assert found[1] == {"Bucket": "b", "Key": "a//b/c%20/"}


def test_segments_are_decoded_after_splitting() -> None:
    found = IOT.route("GET", b"/things/a%3Ab%2Fc", {}, {})
    assert found is not None
    assert (found[0].name, found[1]) == ("DescribeThing", {"thingName": "a:b/c"})


def test_a_literal_wins_over_a_label_and_only_where_it_leads_somewhere() -> None:
    for path, method, operation in (
        (b"/things/t/jobs/$next", "PUT", "StartNextPendingJobExecution"),
        (b"/things/t/jobs/%24next", "PUT", "StartNextPendingJobExecution"),
        (b"/things/t/jobs/%24next", "GET", "DescribeJobExecution"),
        (b"/things/t/jobs/j", "POST", "UpdateJobExecution"),
    ):
        found = JOBS_DATA.route(method, path, {}, {})
        assert found is not None
        assert found[0].name == operation


@pytest.mark.parametrize("path", [b"/nothing/here", b"/things//jobs", b"", b"/things/t/jobs/j/k/l", b"//"])
def test_a_path_of_no_operation_leads_nowhere(path: bytes) -> None:
    assert JOBS_DATA.route("GET", path, {}, {}) is None


def test_a_path_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(BadPath):
        S3.route("GET", b"/b/%ff", {}, {})


@given(path=st.binary(max_size=60), method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "BREW"]))
def test_a_router_meets_any_path(path: bytes, method: str) -> None:
    for router in (S3, IOT):
        with contextlib.suppress(BadPath):
            router.route(method, b"/" + path, {}, {})


@given(instant=st.integers(0, INSTANT_MAX).map(Instant))
def test_every_spelling_of_a_moment_is_read_back(instant: Instant) -> None:
    assert from_text(to_iso(instant)) == instant
    assert from_text(to_http_date(instant)) == instant - instant % 1000


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2026-01-01T00:00:00Z", 1_767_225_600_000),
        ("2026-01-01T01:30:00+01:30", 1_767_225_600_000),
        ("20260101T000000Z", 1_767_225_600_000),
        ("2026-01-01", 1_767_225_600_000),
        ("1767225600.5", 1_767_225_600_500),
        ("Thu, 01 Jan 2026 00:00:00 GMT", 1_767_225_600_000),
    ],
)
def test_moments_are_read_in_every_spelling(text: str, milliseconds: int) -> None:
    assert from_text(text) == milliseconds


@given(text=st.text(max_size=70))
def test_a_timestamp_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(NotATimestamp):
        assert INSTANT_MIN <= from_text(text) <= INSTANT_MAX


def test_patterns_cover_the_whole_value() -> None:
    check = string_check({"type": "string", "pattern": "[a-zA-Z0-9:_-]+", "min": 1, "max": 128})
    check("dev:1")
    for wrong in ("", "a b", "a\n", "a" * 129):
        with pytest.raises(Invalid):
            check(wrong)
    letters = string_check({"type": "string", "pattern": r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*"})
    letters("Über 漢字 ٣ a_b")
    with pytest.raises(Invalid):
        letters("a<b")
    printable = string_check({"type": "string", "pattern": r"[^\p{C}]*"})
    printable("any thing 💥")
    with pytest.raises(Invalid):
        printable("a\x07b")


@given(text=st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=50))
def test_escaped_text_is_read_back(text: str) -> None:
    kept = "".join(character for character in text if character not in "\ufffe\uffff")
    assert read_xml(f'<a b="{escape(kept)}">{escape(kept)}</a>'.encode()) == Element("a", {"b": kept}, kept)


@given(data=st.binary(max_size=200) | st.text(alphabet="<>/a&;!? \"'=", max_size=60).map(str.encode))
def test_xml_is_read_or_refused_in_our_own_words(data: bytes) -> None:
    try:
        read_xml(data)
    except InvalidRequest as refused:
        if refused.subject != "malformed-body":
            raise


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<a>",
        b"<!DOCTYPE a><a/>",
        b'<!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>',
        b"<a>" * 40 + b"</a>" * 40,
        b"<a>&undefined;</a>",
        b'<?xml version="1.0" encoding="nonsense"?><a/>',
    ],
)
def test_documents_that_do_more_than_say_values_are_refused(document: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_xml(document)


@given(raw=st.binary(max_size=100))
def test_a_query_string_is_read_or_refused(raw: bytes) -> None:
    with contextlib.suppress(Invalid):
        parse_query(raw)


def test_our_own_model_names_nothing_twice() -> None:
    """A second shape of one name takes the first one's place without a word, and answers become internal failures."""

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in pairs]
        assert sorted(set(names)) == sorted(names)
        return dict(pairs)

    for path in (Path(models.__file__).parent / "models" / "overair").rglob("*.json"):
        json.loads(path.read_text(), object_pairs_hook=once)
