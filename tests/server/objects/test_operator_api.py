"""S3 as boto3 uses it, with boto3's own defaults, over a real port."""

from __future__ import annotations

import datetime
import hashlib
import io
import os

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from overair.server.objects import uploads
from overair.server.objects.model import PART_SIZE_BYTES_MIN

B = "firmware"


def refused(call, **arguments) -> tuple[int, str]:
    with pytest.raises(ClientError) as error:
        call(**arguments)
    response = error.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


@pytest.fixture
def versioned(s3):
    s3.create_bucket(Bucket=B)
    s3.put_bucket_versioning(Bucket=B, VersioningConfiguration={"Status": "Enabled"})
    return s3


def test_buckets(s3) -> None:
    assert s3.list_buckets()["Buckets"] == []
    assert s3.create_bucket(Bucket=B)["Location"] == "/firmware"
    s3.create_bucket(Bucket=B)
    s3.create_bucket(Bucket="other.bucket")
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == [B, "other.bucket"]
    first = s3.list_buckets(MaxBuckets=1)
    assert [b["Name"] for b in s3.list_buckets(ContinuationToken=first["ContinuationToken"])["Buckets"]] == ["other.bucket"]
    assert s3.head_bucket(Bucket=B)["BucketRegion"] == "us-east-1"
    assert s3.get_bucket_location(Bucket=B)["LocationConstraint"] is None
    assert "Status" not in s3.get_bucket_versioning(Bucket=B)
    s3.put_bucket_versioning(Bucket=B, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=B)["Status"] == "Enabled"
    s3.put_object(Bucket=B, Key="a", Body=b"")
    assert refused(s3.delete_bucket, Bucket=B) == (409, "BucketNotEmpty")
    s3.delete_bucket(Bucket="other.bucket")
    assert refused(s3.head_bucket, Bucket="other.bucket") == (404, "404")
    assert refused(s3.get_bucket_location, Bucket="other.bucket") == (404, "NoSuchBucket")
    assert refused(s3.create_bucket, Bucket="Not_A_Bucket") == (400, "InvalidBucketName")
    west = {"LocationConstraint": "us-west-2"}
    assert refused(s3.create_bucket, Bucket="west", CreateBucketConfiguration=west) == (
        400,
        "IllegalLocationConstraintException",
    )


def test_a_bucket_policy_is_kept_as_it_was_put(s3) -> None:
    s3.create_bucket(Bucket=B)
    assert refused(s3.get_bucket_policy, Bucket=B) == (404, "NoSuchBucketPolicy")
    policy = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "iot.amazonaws.com"}, '
        '"Action": "s3:GetObject",  "Resource": "arn:aws:s3:::firmware/*"}]}'
    )
    s3.put_bucket_policy(Bucket=B, Policy=policy)
    assert s3.get_bucket_policy(Bucket=B)["Policy"] == policy
    assert refused(s3.put_bucket_policy, Bucket=B, Policy='{"Statement": 3}') == (400, "MalformedPolicy")
    for elsewhere in ("*", "arn:aws:s3:::*", "arn:aws:s3:::firm*", "arn:aws:s3:::firmware2/*", "arn:aws:s3:::firmware?/a"):
        foreign = policy.replace("arn:aws:s3:::firmware/*", elsewhere)
        assert refused(s3.put_bucket_policy, Bucket=B, Policy=foreign) == (400, "MalformedPolicy"), elsewhere
    assert s3.get_bucket_policy(Bucket=B)["Policy"] == policy
    for own in ("arn:aws:s3:::firmware", "arn:aws:s3:::firmware/a?/${aws:username}"):
        s3.put_bucket_policy(Bucket=B, Policy=policy.replace("arn:aws:s3:::firmware/*", own))
    s3.delete_bucket_policy(Bucket=B)
    assert refused(s3.get_bucket_policy, Bucket=B) == (404, "NoSuchBucketPolicy")


def test_an_object_goes_up_and_comes_down(versioned) -> None:
    s3 = versioned
    content = os.urandom(100_000)
    put = s3.put_object(
        Bucket=B,
        Key="dir/ünï cödé+%20.bin",
        Body=content,
        ContentType="application/x-firmware",
        CacheControl="no-store",
        Metadata={"Version": "1.0.0"},
    )
    assert put["ETag"] == f'"{hashlib.md5(content).hexdigest()}"'
    assert put["ChecksumCRC32"]
    assert put["ChecksumType"] == "FULL_OBJECT"
    got = s3.get_object(Bucket=B, Key="dir/ünï cödé+%20.bin")
    assert got["Body"].read() == content
    assert got["VersionId"] == put["VersionId"]
    assert got["ContentType"] == "application/x-firmware"
    assert got["CacheControl"] == "no-store"
    assert got["Metadata"] == {"version": "1.0.0"}
    assert got["AcceptRanges"] == "bytes"
    assert got["ChecksumCRC32"] == put["ChecksumCRC32"]
    assert got["LastModified"] == datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    head = s3.head_object(Bucket=B, Key="dir/ünï cödé+%20.bin")
    assert (head["ContentLength"], head["ETag"]) == (100_000, put["ETag"])
    overridden = s3.get_object(Bucket=B, Key="dir/ünï cödé+%20.bin", ResponseContentType="text/plain")
    assert overridden["ContentType"] == "text/plain"


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_every_checksum_that_boto3_makes_is_held_and_told(versioned, algorithm: str) -> None:
    put = versioned.put_object(Bucket=B, Key="a", Body=b"image", ChecksumAlgorithm=algorithm)
    head = versioned.head_object(Bucket=B, Key="a", ChecksumMode="ENABLED")
    assert head[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    assert versioned.get_object(Bucket=B, Key="a")["Body"].read() == b"image"
    wrong = {f"Checksum{algorithm}": put[f"Checksum{algorithm}"]}
    assert refused(versioned.put_object, Bucket=B, Key="a", Body=b"other", **wrong) == (400, "BadDigest")
    assert len(versioned.list_object_versions(Bucket=B)["Versions"]) == 1


def test_content_md5_is_held_against_the_bytes(versioned) -> None:
    assert refused(versioned.put_object, Bucket=B, Key="a", Body=b"x", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==") == (
        400,
        "BadDigest",
    )
    assert refused(versioned.put_object, Bucket=B, Key="a", Body=b"x", ContentMD5="nonsense") == (400, "InvalidDigest")


def test_ranges(versioned) -> None:
    s3 = versioned
    content = bytes(range(256))
    s3.put_object(Bucket=B, Key="a", Body=content)

    def ranged(text: str):
        got = s3.get_object(Bucket=B, Key="a", Range=text)
        return got["ResponseMetadata"]["HTTPStatusCode"], got.get("ContentRange"), got["Body"].read()

    assert ranged("bytes=10-19") == (206, "bytes 10-19/256", content[10:20])
    assert ranged("bytes=250-999") == (206, "bytes 250-255/256", content[250:])
    assert ranged("bytes=-3") == (206, "bytes 253-255/256", content[253:])
    assert ranged("bytes=7-") == (206, "bytes 7-255/256", content[7:])
    for whole in ("bytes=5-3", "bytes=0-1,5-6", "lines=1-2", "bytes=x-"):
        assert ranged(whole) == (200, None, content)
    for beyond in ("bytes=256-", "bytes=-0"):
        assert refused(s3.get_object, Bucket=B, Key="a", Range=beyond) == (416, "InvalidRange")
    head = s3.head_object(Bucket=B, Key="a", Range="bytes=0-9")
    assert (head["ResponseMetadata"]["HTTPStatusCode"], head["ContentLength"]) == (206, 10)
    s3.put_object(Bucket=B, Key="empty", Body=b"")
    assert s3.get_object(Bucket=B, Key="empty")["Body"].read() == b""
    assert refused(s3.get_object, Bucket=B, Key="empty", Range="bytes=0-0") == (416, "InvalidRange")


def test_readers_conditions(versioned, clock) -> None:
    s3 = versioned
    etag = s3.put_object(Bucket=B, Key="a", Body=b"1")["ETag"]
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    before, after = now - datetime.timedelta(seconds=1), now + datetime.timedelta(seconds=1)
    for call, unmodified, failed in (
        (s3.get_object, (304, "304"), (412, "PreconditionFailed")),
        (s3.head_object, (304, "304"), (412, "412")),
    ):
        call(Bucket=B, Key="a", IfMatch=etag, IfUnmodifiedSince=before)
        call(Bucket=B, Key="a", IfNoneMatch='"other"', IfModifiedSince=after)
        call(Bucket=B, Key="a", IfModifiedSince=before)
        assert refused(call, Bucket=B, Key="a", IfNoneMatch=etag) == unmodified
        assert refused(call, Bucket=B, Key="a", IfModifiedSince=now) == unmodified
        assert refused(call, Bucket=B, Key="a", IfMatch='"other"') == failed
        assert refused(call, Bucket=B, Key="a", IfUnmodifiedSince=before) == failed


def test_writers_conditions(versioned) -> None:
    s3 = versioned
    etag = s3.put_object(Bucket=B, Key="a", Body=b"1", IfNoneMatch="*")["ETag"]
    assert refused(s3.put_object, Bucket=B, Key="a", Body=b"2", IfNoneMatch="*") == (412, "PreconditionFailed")
    assert refused(s3.put_object, Bucket=B, Key="a", Body=b"2", IfMatch='"other"') == (412, "PreconditionFailed")
    assert refused(s3.put_object, Bucket=B, Key="new", Body=b"2", IfMatch=etag) == (404, "NoSuchKey")
    s3.put_object(Bucket=B, Key="a", Body=b"2", IfMatch=etag)


def test_versions_and_delete_markers(versioned) -> None:
    s3 = versioned
    first = s3.put_object(Bucket=B, Key="a", Body=b"1")["VersionId"]
    second = s3.put_object(Bucket=B, Key="a", Body=b"2")["VersionId"]
    assert s3.get_object(Bucket=B, Key="a", VersionId=first)["Body"].read() == b"1"
    marker = s3.delete_object(Bucket=B, Key="a")
    assert marker["DeleteMarker"] is True
    assert refused(s3.get_object, Bucket=B, Key="a") == (404, "NoSuchKey")
    assert refused(s3.head_object, Bucket=B, Key="a") == (404, "404")
    assert refused(s3.get_object, Bucket=B, Key="a", VersionId=marker["VersionId"]) == (405, "MethodNotAllowed")
    for call, version in ((s3.get_object, {}), (s3.head_object, {}), (s3.get_object, {"VersionId": marker["VersionId"]})):
        with pytest.raises(ClientError) as hidden:
            call(Bucket=B, Key="a", **version)
        told = hidden.value.response["ResponseMetadata"]["HTTPHeaders"]
        assert (told["x-amz-delete-marker"], told["x-amz-version-id"]) == ("true", marker["VersionId"])
    assert refused(s3.get_object, Bucket=B, Key="a", VersionId="nonsense") == (404, "NoSuchVersion")
    assert refused(s3.get_object, Bucket=B, Key="never") == (404, "NoSuchKey")
    listed = s3.list_object_versions(Bucket=B)
    assert [(v["VersionId"], v["IsLatest"]) for v in listed["Versions"]] == [(second, False), (first, False)]
    assert [(v["VersionId"], v["IsLatest"]) for v in listed["DeleteMarkers"]] == [(marker["VersionId"], True)]
    assert "Contents" not in s3.list_objects_v2(Bucket=B)
    s3.delete_object(Bucket=B, Key="a", VersionId=marker["VersionId"])
    assert s3.get_object(Bucket=B, Key="a")["Body"].read() == b"2"
    s3.delete_object(Bucket=B, Key="a", VersionId=second)
    assert s3.get_object(Bucket=B, Key="a")["VersionId"] == first


def test_a_file_that_is_missing_behind_its_record_is_our_fault_and_not_a_missing_key(versioned, contents, tmp_path) -> None:
    s3 = versioned
    s3.put_object(Bucket=B, Key="a", Body=b"1" * 5000)
    lost = [path for path in (tmp_path / "contents").rglob("*") if path.is_file() and path.stat().st_size == 5000]
    for path in lost:
        path.unlink()
    assert lost
    # The copy has to read the bytes, for a checksum that nobody has made yet.
    assert refused(s3.copy_object, Bucket=B, Key="b", CopySource=f"{B}/a", ChecksumAlgorithm="SHA256") == (500, "InternalError")


def test_many_are_deleted_at_once(versioned) -> None:
    s3 = versioned
    version = s3.put_object(Bucket=B, Key="a", Body=b"1")["VersionId"]
    s3.put_object(Bucket=B, Key="b", Body=b"2")
    wanted = [{"Key": "a", "VersionId": version}, {"Key": "b"}, {"Key": "never"}, {"Key": "x" * 1025}]
    answer = s3.delete_objects(Bucket=B, Delete={"Objects": wanted})
    assert [deleted["Key"] for deleted in answer["Deleted"]] == ["a", "b", "never"]
    assert answer["Deleted"][0]["VersionId"] == version
    assert answer["Deleted"][1]["DeleteMarker"] is True
    assert [(error["Key"], error["Code"]) for error in answer["Errors"]] == [("x" * 1025, "KeyTooLongError")]
    quiet = s3.delete_objects(Bucket=B, Delete={"Objects": [{"Key": "b"}], "Quiet": True})
    assert "Deleted" not in quiet


def test_lists_come_in_pages(versioned) -> None:
    s3 = versioned
    keys = ["a&b<c>.bin", "d/1", "d/2", "e+f g", "z"]
    for key in keys:
        s3.put_object(Bucket=B, Key=key, Body=b"")
    for page_size in (1, 2, 1000):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=B, PaginationConfig={"PageSize": page_size})
        assert [item["Key"] for page in pages for item in page.get("Contents", ())] == keys
        pages = s3.get_paginator("list_objects").paginate(Bucket=B, PaginationConfig={"PageSize": page_size})
        assert [item["Key"] for page in pages for item in page.get("Contents", ())] == keys
        pages = s3.get_paginator("list_object_versions").paginate(Bucket=B, PaginationConfig={"PageSize": page_size})
        assert [item["Key"] for page in pages for item in page.get("Versions", ())] == keys
    folded = s3.list_objects_v2(Bucket=B, Delimiter="/")
    assert [prefix["Prefix"] for prefix in folded["CommonPrefixes"]] == ["d/"]
    assert [item["Key"] for item in folded["Contents"]] == ["a&b<c>.bin", "e+f g", "z"]
    assert folded["KeyCount"] == 4
    assert [i["Key"] for i in s3.list_objects_v2(Bucket=B, Prefix="d/", StartAfter="d/1")["Contents"]] == ["d/2"]
    assert refused(s3.list_objects_v2, Bucket=B, ContinuationToken="nonsense") == (400, "InvalidArgument")
    assert refused(s3.list_objects_v2, Bucket="absent") == (404, "NoSuchBucket")


def test_a_copy_is_a_version_of_its_own(versioned) -> None:
    s3 = versioned
    first = s3.put_object(Bucket=B, Key="a b", Body=b"1", Metadata={"k": "v"}, ContentType="text/plain")
    s3.put_object(Bucket=B, Key="a b", Body=b"2")
    copied = s3.copy_object(Bucket=B, Key="c", CopySource={"Bucket": B, "Key": "a b", "VersionId": first["VersionId"]})
    assert copied["CopyObjectResult"]["ETag"] == first["ETag"]
    assert copied["CopySourceVersionId"] == first["VersionId"]
    got = s3.get_object(Bucket=B, Key="c")
    assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (b"1", {"k": "v"}, "text/plain")
    source = {"Bucket": B, "Key": "c"}
    s3.copy_object(Bucket=B, Key="c", CopySource=source, MetadataDirective="REPLACE", Metadata={"n": "w"})
    assert s3.head_object(Bucket=B, Key="c")["Metadata"] == {"n": "w"}
    assert refused(s3.copy_object, Bucket=B, Key="c", CopySource=source) == (400, "InvalidRequest")
    assert refused(s3.copy_object, Bucket=B, Key="d", CopySource={"Bucket": B, "Key": "never"}) == (404, "NoSuchKey")
    assert refused(s3.copy_object, Bucket=B, Key="d", CopySource=source, CopySourceIfMatch="x") == (412, "PreconditionFailed")
    summed = s3.copy_object(Bucket=B, Key="d", CopySource=source, ChecksumAlgorithm="SHA256")
    assert summed["CopyObjectResult"]["ChecksumSHA256"]


def test_a_connection_goes_on_after_an_upload_that_was_refused_before_it_was_sent(versioned) -> None:
    for _ in range(3):
        assert refused(versioned.put_object, Bucket=B, Key="a", Body=b"x" * 1000, StorageClass="GLACIER") == (
            400,
            "NotImplemented",
        )
        assert "Contents" not in versioned.list_objects_v2(Bucket=B)


def test_what_overair_does_not_do_is_refused_not_forgotten(versioned) -> None:
    s3 = versioned
    for promised in (
        {"ServerSideEncryption": "AES256"},
        {"Tagging": "a=b"},
        {"StorageClass": "GLACIER"},
        {"ObjectLockMode": "GOVERNANCE"},
    ):
        assert refused(s3.put_object, Bucket=B, Key="a", Body=b"", **promised) == (400, "NotImplemented")
    assert refused(s3.put_object, Bucket=B, Key="a", Body=b"", ExpectedBucketOwner="999999999999") == (403, "AccessDenied")
    assert refused(s3.put_object, Bucket=B, Key="a", Body=b"", Metadata={"k": "v" * 3000}) == (400, "MetadataTooLarge")
    assert refused(s3.put_object, Bucket="absent", Key="a", Body=b"") == (404, "NoSuchBucket")
    assert refused(s3.get_object_tagging, Bucket=B, Key="a") == (400, "NotImplemented")


PART = b"\x01" * PART_SIZE_BYTES_MIN


def test_a_transfer_manager_uploads_in_parts_and_downloads_by_ranges(versioned) -> None:
    s3 = versioned
    content = os.urandom(2 * PART_SIZE_BYTES_MIN + 1234)
    config = TransferConfig(multipart_threshold=PART_SIZE_BYTES_MIN, multipart_chunksize=PART_SIZE_BYTES_MIN)
    s3.upload_fileobj(io.BytesIO(content), B, "big", Config=config)
    head = s3.head_object(Bucket=B, Key="big", ChecksumMode="ENABLED")
    assert head["ETag"].endswith('-3"')
    assert head["ChecksumCRC32"].endswith("-3")
    assert head["ChecksumType"] == "COMPOSITE"
    came = io.BytesIO()
    s3.download_fileobj(B, "big", came, Config=config)
    assert came.getvalue() == content
    part = s3.get_object(Bucket=B, Key="big", PartNumber=3)
    assert (part["PartsCount"], part["Body"].read()) == (3, content[2 * PART_SIZE_BYTES_MIN :])
    s3.copy({"Bucket": B, "Key": "big"}, B, "copied", Config=config)
    assert s3.get_object(Bucket=B, Key="copied")["Body"].read() == content


def test_attributes_are_told_without_the_bytes(versioned) -> None:
    s3 = versioned
    put = s3.put_object(Bucket=B, Key="a", Body=b"image", ChecksumAlgorithm="SHA256")
    wanted = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
    told = s3.get_object_attributes(Bucket=B, Key="a", ObjectAttributes=wanted)
    assert (told["ETag"], told["ObjectSize"], told["VersionId"]) == (put["ETag"].strip('"'), 5, put["VersionId"])
    assert told["Checksum"] == {"ChecksumSHA256": put["ChecksumSHA256"], "ChecksumType": "FULL_OBJECT"}
    assert "ObjectParts" not in told
    only = s3.get_object_attributes(Bucket=B, Key="a", ObjectAttributes=["ObjectSize"])
    assert "ETag" not in only
    assert refused(s3.get_object_attributes, Bucket=B, Key="absent", ObjectAttributes=["ETag"]) == (404, "NoSuchKey")


def test_an_upload_by_hand(versioned) -> None:
    s3 = versioned
    upload = s3.create_multipart_upload(Bucket=B, Key="big", ContentType="a/b", Metadata={"k": "v"})["UploadId"]
    on = {"Bucket": B, "Key": "big", "UploadId": upload}
    s3.upload_part(**on, PartNumber=2, Body=b"old tail")
    one = s3.upload_part(**on, PartNumber=1, Body=PART)["ETag"]
    two = s3.upload_part(**on, PartNumber=2, Body=b"tail")["ETag"]
    listed = s3.list_parts(**on)
    assert [(part["PartNumber"], part["Size"], part["ETag"]) for part in listed["Parts"]] == [
        (1, PART_SIZE_BYTES_MIN, one),
        (2, 4, two),
    ]
    assert [part["PartNumber"] for part in s3.list_parts(**on, PartNumberMarker=1)["Parts"]] == [2]
    assert s3.list_parts(**on, MaxParts=1)["IsTruncated"] is True
    assert [found["UploadId"] for found in s3.list_multipart_uploads(Bucket=B)["Uploads"]] == [upload]
    assert refused(s3.get_object, Bucket=B, Key="big") == (404, "NoSuchKey")

    def complete(*parts):
        return {"MultipartUpload": {"Parts": [{"PartNumber": number, "ETag": etag} for number, etag in parts]}}

    finish = s3.complete_multipart_upload
    assert refused(finish, **on, **complete((2, two), (1, one))) == (400, "InvalidPartOrder")
    assert refused(finish, **on, **complete((1, one), (3, two))) == (400, "InvalidPart")
    assert refused(finish, **on, **complete((1, two))) == (400, "InvalidPart")
    assert refused(finish, **on, **complete()) == (400, "MalformedXML")
    assert refused(finish, **on, **complete((1, one)), MpuObjectSize=5) == (400, "InvalidRequest")
    done = finish(**on, **complete((1, one), (2, two)))
    digests = hashlib.md5(PART).digest() + hashlib.md5(b"tail").digest()
    assert done["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-2"'
    got = s3.get_object(Bucket=B, Key="big")
    assert (got["Body"].read(), got["ContentType"], got["Metadata"]) == (PART + b"tail", "a/b", {"k": "v"})
    # A client that didn't hear the answer asks again.
    assert finish(**on, **complete((1, one), (2, two)))["VersionId"] == done["VersionId"]
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=B)
    assert refused(s3.upload_part, **on, PartNumber=1, Body=b"") == (404, "NoSuchUpload")


def test_small_parts_but_the_last_are_refused(versioned) -> None:
    s3 = versioned
    upload = s3.create_multipart_upload(Bucket=B, Key="big")["UploadId"]
    on = {"Bucket": B, "Key": "big", "UploadId": upload}
    parts = [{"PartNumber": n, "ETag": s3.upload_part(**on, PartNumber=n, Body=b"small")["ETag"]} for n in (1, 2)]
    assert refused(s3.complete_multipart_upload, **on, MultipartUpload={"Parts": parts}) == (400, "EntityTooSmall")
    s3.abort_multipart_upload(**on)
    assert refused(s3.abort_multipart_upload, **on) == (404, "NoSuchUpload")
    assert refused(s3.upload_part, **on, PartNumber=10_001, Body=b"")[0] in (400, 404)


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME"])
def test_the_whole_objects_crc_follows_from_its_parts(versioned, monkeypatch: pytest.MonkeyPatch, algorithm: str) -> None:
    # Two of the three are computed in Python: parts of the least size would take seconds, and show nothing more.
    monkeypatch.setattr(uploads, "PART_SIZE_BYTES_MIN", 1000)
    s3, body_of_part = versioned, PART[:1001]
    upload = s3.create_multipart_upload(Bucket=B, Key="big", ChecksumAlgorithm=algorithm, ChecksumType="FULL_OBJECT")
    on = {"Bucket": B, "Key": "big", "UploadId": upload["UploadId"]}
    parts = []
    for number, body in enumerate((body_of_part, b"tail"), 1):
        sent = s3.upload_part(**on, PartNumber=number, Body=body, ChecksumAlgorithm=algorithm)
        name = f"Checksum{algorithm}"
        parts.append({"PartNumber": number, "ETag": sent["ETag"], name: sent[name]})
    done = s3.complete_multipart_upload(**on, MultipartUpload={"Parts": parts}, ChecksumType="FULL_OBJECT")
    whole = s3.put_object(Bucket=B, Key="whole", Body=body_of_part + b"tail", ChecksumAlgorithm=algorithm)
    assert done[f"Checksum{algorithm}"] == whole[f"Checksum{algorithm}"]
    assert s3.get_object(Bucket=B, Key="big", ChecksumMode="ENABLED")["Body"].read() == body_of_part + b"tail"
    mismatch = {"ChecksumAlgorithm": "SHA256", "ChecksumType": "FULL_OBJECT"}
    assert refused(s3.create_multipart_upload, Bucket=B, Key="x", **mismatch) == (400, "InvalidRequest")


def test_parts_are_copied_from_ranges_of_objects(versioned) -> None:
    s3 = versioned
    s3.put_object(Bucket=B, Key="source", Body=PART + b"0123456789")
    upload = s3.create_multipart_upload(Bucket=B, Key="big")["UploadId"]
    on = {"Bucket": B, "Key": "big", "UploadId": upload}
    source = {"Bucket": B, "Key": "source"}
    one = s3.upload_part_copy(**on, PartNumber=1, CopySource=source)["CopyPartResult"]["ETag"]
    ranged = f"bytes={PART_SIZE_BYTES_MIN}-{PART_SIZE_BYTES_MIN + 3}"
    two = s3.upload_part_copy(**on, PartNumber=2, CopySource=source, CopySourceRange=ranged)["CopyPartResult"]["ETag"]
    outside = f"bytes=0-{2 * PART_SIZE_BYTES_MIN}"
    assert refused(s3.upload_part_copy, **on, PartNumber=3, CopySource=source, CopySourceRange=outside)[0] == 400
    parts = [{"PartNumber": 1, "ETag": one}, {"PartNumber": 2, "ETag": two}]
    s3.complete_multipart_upload(**on, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=B, Key="big")["Body"].read() == PART + b"01234567890123"
