"""Public access blocked, owners' lists, ownership: what boto3 asks of a bucket, and what is refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

B = "firmware"
OPEN = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::firmware/*"},
        ],
    }
)
ALL = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


def refused(call: Any, **parameters: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


@pytest.fixture
def full(s3: Any) -> Any:
    s3.create_bucket(Bucket=B)
    s3.put_object(Bucket=B, Key="a", Body=b"x")
    return s3


def test_a_new_bucket_blocks_public_access_and_a_public_policy_is_refused_until_that_is_changed(full: Any) -> None:
    def block() -> dict[str, bool]:
        return dict(full.get_public_access_block(Bucket=B)["PublicAccessBlockConfiguration"])

    assert block() == dict.fromkeys(ALL, True)
    assert refused(full.put_bucket_policy, Bucket=B, Policy=OPEN) == (403, "AccessDenied")
    assert refused(full.get_bucket_policy, Bucket=B) == (404, "NoSuchBucketPolicy")

    full.put_public_access_block(Bucket=B, PublicAccessBlockConfiguration={"BlockPublicAcls": True})
    assert block() == {**dict.fromkeys(ALL, False), "BlockPublicAcls": True}
    full.put_bucket_policy(Bucket=B, Policy=OPEN)
    assert full.get_bucket_policy_status(Bucket=B)["PolicyStatus"]["IsPublic"] is True

    full.put_public_access_block(Bucket=B, PublicAccessBlockConfiguration=dict.fromkeys(ALL, True))
    assert full.get_bucket_policy(Bucket=B)["Policy"] == OPEN, "what stands stays"
    assert refused(full.put_bucket_policy, Bucket=B, Policy=OPEN) == (403, "AccessDenied")

    full.delete_public_access_block(Bucket=B)
    assert refused(full.get_public_access_block, Bucket=B) == (404, "NoSuchPublicAccessBlockConfiguration")
    full.put_bucket_policy(Bucket=B, Policy=OPEN)
    for call in (full.get_public_access_block, full.delete_public_access_block, full.get_bucket_policy_status):
        assert refused(call, Bucket="absent") == (404, "NoSuchBucket")


def test_a_policy_that_names_whom_is_taken_and_not_public(full: Any) -> None:
    assert refused(full.get_bucket_policy_status, Bucket=B) == (404, "NoSuchBucketPolicy")
    named = OPEN.replace('"*"', '{"Service": "iot.amazonaws.com"}', 1)
    full.put_bucket_policy(Bucket=B, Policy=named)
    assert full.get_bucket_policy_status(Bucket=B)["PolicyStatus"]["IsPublic"] is False


def test_a_list_has_the_owner_alone(full: Any, place: Any) -> None:
    holder = hashlib.sha256(f"overair/{place.account}".encode()).hexdigest()
    for answer in (full.get_bucket_acl(Bucket=B), full.get_object_acl(Bucket=B, Key="a")):
        assert answer["Owner"]["ID"] == holder
        assert answer["Grants"] == [{"Grantee": {"ID": holder, "Type": "CanonicalUser"}, "Permission": "FULL_CONTROL"}]
    assert refused(full.get_object_acl, Bucket=B, Key="absent") == (404, "NoSuchKey")
    assert refused(full.get_bucket_acl, Bucket="absent") == (404, "NoSuchBucket")


@pytest.mark.parametrize("acl", ["private", "bucket-owner-full-control"])
def test_a_canned_list_that_says_what_is_so_anyway_is_taken(full: Any, acl: str) -> None:
    full.put_object(Bucket=B, Key="b", Body=b"y", ACL=acl)
    full.copy_object(Bucket=B, Key="c", CopySource=f"{B}/b", ACL=acl)
    upload = full.create_multipart_upload(Bucket=B, Key="d", ACL=acl)["UploadId"]
    full.abort_multipart_upload(Bucket=B, Key="d", UploadId=upload)


OTHER_LISTS: list[dict[str, str]] = [
    *({"ACL": acl} for acl in ("public-read", "public-read-write", "authenticated-read", "aws-exec-read", "bucket-owner-read")),
    {"GrantRead": 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'},
    {"GrantFullControl": "id=0123"},
]


def test_every_other_list_is_refused_and_leaves_nothing(full: Any) -> None:
    no_lists = (400, "AccessControlListNotSupported")
    for other in OTHER_LISTS:
        assert refused(full.put_object, Bucket=B, Key="b", Body=b"y", **other) == no_lists
        assert refused(full.copy_object, Bucket=B, Key="b", CopySource=f"{B}/a", **other) == no_lists
        assert refused(full.create_multipart_upload, Bucket=B, Key="b", **other) == no_lists
        assert refused(full.put_object_acl, Bucket=B, Key="a", **other) == no_lists
    assert refused(full.put_bucket_acl, Bucket=B, ACL="private") == no_lists
    assert refused(full.put_bucket_acl, Bucket="absent", ACL="private") == (404, "NoSuchBucket")
    assert [each["Key"] for each in full.list_objects_v2(Bucket=B)["Contents"]] == ["a"]
    assert "Uploads" not in full.list_multipart_uploads(Bucket=B)


def test_a_bucket_is_made_without_a_list_and_belongs_to_its_owner(s3: Any) -> None:
    assert refused(s3.create_bucket, Bucket=B, ACL="public-read") == (400, "InvalidBucketAclWithObjectOwnership")
    assert refused(s3.create_bucket, Bucket=B, ObjectOwnership="ObjectWriter") == (400, "NotImplemented")
    assert s3.list_buckets()["Buckets"] == []
    s3.create_bucket(Bucket=B, ACL="private", ObjectOwnership="BucketOwnerEnforced")
    rules = s3.get_bucket_ownership_controls(Bucket=B)["OwnershipControls"]["Rules"]
    assert rules == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    s3.put_bucket_ownership_controls(Bucket=B, OwnershipControls={"Rules": rules})
    other = {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
    assert refused(s3.put_bucket_ownership_controls, Bucket=B, OwnershipControls=other) == (400, "NotImplemented")
