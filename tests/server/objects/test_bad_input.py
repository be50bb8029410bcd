"""No input makes the object store's door fail: each operation with each of its members set to something unpleasant."""

from __future__ import annotations

from typing import Any

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config

from overair.server.aws_protocol.operations import operations_of
from overair.server.objects.operator_api import ObjectsApi
from tests.support.operator_door import operator_door

UNPLEASANT = {
    "string": ["", "\x00", "a\x00b", "\x07", "\U0010ffff", "x" * 3000, "..", "/", "%00", "null", "-1", "ü\u2028", "*"],
    "integer": [-1, 0, 2**31, 2**63 - 1, 2**63, 2**80],
    "long": [-1, 0, 2**63, 2**80],
    "boolean": [True, False],
    "timestamp": [0, 253402300799],
    "map": [{}, {"k": "\x07"}, {"": "x"}, {"\x01": "y"}],
}
VALID: dict[str, Any] = {
    "Bucket": "firmware",
    "Key": "a",
    "Body": b"x",
    "CopySource": "firmware/a",
    "PartNumber": 1,
    "UploadId": "u",
    "Delete": {"Objects": [{"Key": "absent"}]},
    "VersioningConfiguration": {"Status": "Enabled"},
    "Policy": "{}",
    "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": "x"}]},
}
STRUCTURES: dict[str, list[Any]] = {
    "Delete": [
        {"Objects": [{"Key": ""}, {"Key": "a\x00"}, {"Key": "x" * 2000}, {"Key": "a", "VersionId": "\x01"}]},
        {"Objects": []},
        {"Objects": [{"Key": "k", "ETag": "\x07"}] * 1001},
    ],
    "MultipartUpload": [
        {},
        {"Parts": []},
        {"Parts": [{"PartNumber": -5, "ETag": "zz"}]},
        {"Parts": [{"PartNumber": 2**70, "ETag": "\x07"}]},
        {"Parts": [{"ETag": "x"}, {"PartNumber": 1}]},
    ],
    "VersioningConfiguration": [{}, {"Status": "Maybe"}, {"Status": "Enabled", "MFADelete": "Enabled"}],
    "CreateBucketConfiguration": [{}, {"LocationConstraint": "\x07"}, {"LocationConstraint": "EU"}],
}


@pytest.fixture
def client(api: ObjectsApi, place, clock):
    with operator_door(place, clock, api) as door:
        client = boto3.client(
            "s3",
            endpoint_url=door.url,
            region_name="us-east-1",
            aws_access_key_id="AKIATEST",
            aws_secret_access_key="secret",
            config=Config(retries={"max_attempts": 0}, parameter_validation=False, read_timeout=60),
        )
        client.create_bucket(Bucket="firmware")
        client.put_object(Bucket="firmware", Key="a", Body=b"image")
        yield client


def test_no_member_of_any_operation_makes_the_door_fail(client, api: ObjectsApi) -> None:
    asked, failures, answers = 0, [], {}
    for _, operation, _ in sorted(operations_of(api), key=lambda mark: mark[1]):
        if operation == "DeleteBucket":
            continue
        model = client.meta.service_model.operation_model(operation)
        base = {name: VALID[name] for name in model.input_shape.required_members if name in VALID} if model.input_shape else {}
        if operation in ("PutObject", "UploadPart"):
            base["Body"] = b"x"
        for name, shape in (model.input_shape.members if model.input_shape else {}).items():
            if name == "ContentLength":
                # A length that isn't the body's keeps every server waiting for the rest.
                continue
            values = STRUCTURES.get(name, UNPLEASANT.get(shape.type_name, []))
            for value in values:
                try:
                    client._make_api_call(operation, {**base, name: value})
                    status = 200
                except botocore.exceptions.ClientError as error:
                    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                except botocore.exceptions.HTTPClientError as error:
                    # Never an answer at all: broken off, or kept waiting.
                    failures.append((operation, name, value, error))
                    continue
                except Exception:
                    # What botocore itself can't put on the wire.
                    continue
                asked += 1
                answers[status] = answers.get(status, 0) + 1
                if status >= 500:
                    failures.append((operation, name, value, status))
    assert failures == []
    assert asked > 1000
    # The walk meets both what is taken and what is refused.
    assert answers[200] > 100
    assert answers[400] > 100
