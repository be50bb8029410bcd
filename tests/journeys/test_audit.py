"""Every change that an operator makes over the real door leaves one record in the server's own records; reading leaves none."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.support.server_process import ServerProcess


def heard(server: ServerProcess, **query: object) -> list[tuple[str, str]]:
    """(operation, resource) as the server lists them: the newest first."""
    records = server.client("overair").list_audit_records(**query)["records"]
    return [(f"{each['service']}:{each['operation']}", each["resource"]) for each in records]


def recorded(data: Path) -> list[tuple[str, str, str]]:
    """(operation, resource, principal) in the order of time."""
    (path,) = [file for file in data.rglob("*") if file.suffix in (".sqlite3", ".sqlite", ".db")]
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        query = "SELECT service || ':' || operation, resource, principal_arn FROM audit_records ORDER BY at, record_id"
        return connection.execute(query).fetchall()


def test_each_change_leaves_its_record_and_reading_leaves_none(new_server: Callable[..., ServerProcess]) -> None:
    with new_server() as server:
        place = server.endpoints
        iot, s3, iam = (server.client(service) for service in ("iot", "s3", "iam"))
        arn = f"arn:aws:iot:{place['region']}:{place['account']}:"
        iot.create_thing(thingName="seen")
        iot.describe_thing(thingName="seen")
        iot.list_things()
        s3.put_object(Bucket=place["bucket"], Key="k", Body=b"top secret content")
        s3.get_object(Bucket=place["bucket"], Key="k")["Body"].read()
        iot.create_job(jobId="j", targets=[arn + "thing/seen"], document='{"token":"top secret content"}')
        iam.create_user(UserName="ann")
        secret = iam.create_access_key(UserName="ann")["AccessKey"]["SecretAccessKey"]
        for refused in (
            lambda: iot.create_thing(thingName="seen", attributePayload={"attributes": {"a": "b"}}),
            lambda: iot.delete_thing(thingName="seen", expectedVersion=77),
        ):
            try:
                refused()
            except ClientError:
                continue
            raise AssertionError("this should have been refused")
        root = f"arn:aws:iam::{place['account']}:root"
        rows = recorded(server.data)
        assert sorted(rows) == sorted(
            [
                ("iot:CreateThing", arn + "thing/seen", root),
                ("s3:PutObject", f"arn:aws:s3:::{place['bucket']}/k", root),
                ("iot:CreateJob", arn + "job/j", root),
                ("iam:CreateUser", f"arn:aws:iam::{place['account']}:user/ann", root),
                ("iam:CreateAccessKey", f"arn:aws:iam::{place['account']}:user/ann", root),
            ]
        )
        assert secret not in repr(rows)
        assert "top secret" not in repr(rows)


def test_operators_read_the_records_in_pages_and_only_who_may(server: ServerProcess) -> None:
    arn = f"arn:aws:iot:{server.endpoints['region']}:{server.endpoints['account']}:thing/"
    iot, iam, overair = server.client("iot"), server.client("iam"), server.client("overair")
    for name in ("audited-1", "audited-2", "audited-3"):
        iot.create_thing(thingName=name)
    newest = [("iot:CreateThing", f"{arn}audited-{number}") for number in (3, 2, 1)]
    assert heard(server, maxResults=3) == newest
    page = overair.list_audit_records(maxResults=2)
    rest = overair.list_audit_records(maxResults=1, nextToken=page["nextToken"])["records"]
    assert [each["resource"] for each in (*page["records"], *rest)] == [resource for _, resource in newest]
    record = page["records"][0]
    assert record["principalArn"].endswith(":root")
    assert record["accessKeyId"] == server.root_key()["access_key_id"]
    assert record["sourceIp"] == "127.0.0.1"
    since = page["records"][-1]["time"]
    assert newest[2] not in heard(server, since=since + timedelta(milliseconds=1)) or since == rest[0]["time"]
    assert newest[0] in heard(server, since=since)
    with pytest.raises(ClientError, match="InvalidRequestException"):
        overair.list_audit_records(nextToken="bm90IG91cnM=")
    iam.create_user(UserName="auditor")
    key = iam.create_access_key(UserName="auditor")["AccessKey"]
    secrets = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    with pytest.raises(ClientError, match="overair:ListAuditRecords"):
        server.client("overair", **secrets).list_audit_records()


def test_retaining_and_clearing_a_message_leave_records_and_passing_one_on_leaves_none(server: ServerProcess) -> None:
    data = server.client("iot-data")
    topic = f"arn:aws:iot:{server.endpoints['region']}:{server.endpoints['account']}:topic/audited/topic"
    data.publish(topic="audited/topic", payload=b"1", retain=True, qos=1)
    assert heard(server, maxResults=1) == [("iot-data:Publish", topic)]
    assert data.get_retained_message(topic="audited/topic")["payload"] == b"1"
    data.publish(topic="audited/topic", payload=b"2", qos=1)
    data.publish(topic="audited/topic", payload=b"", retain=True)
    assert heard(server, maxResults=3)[:2] == [("iot-data:Publish", topic)] * 2
    assert [each for each in heard(server, maxResults=250) if each[1] == topic] == [("iot-data:Publish", topic)] * 2
