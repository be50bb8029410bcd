"""Every change that an operator makes over the real door leaves one record in the server's own records; reading leaves none."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from botocore.exceptions import ClientError

from tests.support.server_process import ServerProcess


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
