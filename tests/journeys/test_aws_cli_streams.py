"""The ``aws`` command line runs the stream examples of the 2018 guide, in its region and account, with its output."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.server_process import ServerProcess, clean_environment

AWS = Path(sys.executable).parent / "aws"
ROLE_ARN = "arn:aws:iam::123456789012:role/service-role/my_ota_stream_role"
STREAM_ARN = "arn:aws:iot:us-west-2:123456789012:stream/stream12345"
DESCRIPTION = "This stream is used for Amazon FreeRTOS OTA Update 12345."
KEY = "48c67f3c-63bb-4f92-a98a-4ee0fbc2bef6"


class CommandLine:
    """``aws`` with the environment that ``overair env`` exports."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.folder = folder
        exports = subprocess.run(
            [sys.executable, "-m", "overair.cli.main", "env", "--json", "--data", str(server.data)],
            check=True,
            capture_output=True,
            env=clean_environment(),
        )
        self._environment = clean_environment(**json.loads(exports.stdout), HOME=str(folder), AWS_PAGER="")

    def run(self, *arguments: str) -> Any:
        """The decoded output of a command that succeeds; None for none."""
        done = subprocess.run(
            [str(AWS), *arguments], capture_output=True, text=True, env=self._environment, cwd=self.folder, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.startswith("{") else None

    def refused(self, *arguments: str) -> str:
        """What it says on standard error when it fails."""
        done = subprocess.run(
            [str(AWS), *arguments], capture_output=True, text=True, env=self._environment, cwd=self.folder, check=False
        )
        assert done.returncode != 0, done.stdout
        return done.stderr


def test_the_guides_stream_examples_give_the_guides_output(new_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    if not AWS.exists():
        pytest.skip("not run: the aws command line isn't installed")
    server = new_server("--region", "us-west-2", "--account", "123456789012").start()
    aws = CommandLine(server, tmp_path)
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "iot.amazonaws.com"}, "Action": "sts:AssumeRole"},
        ],
    }
    grant = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::codesign-ota-bucket/*"},
        ],
    }
    iam, s3 = server.client("iam"), server.client("s3")
    iam.create_role(RoleName="my_ota_stream_role", Path="/service-role/", AssumeRolePolicyDocument=json.dumps(trust))
    s3.create_bucket(Bucket="codesign-ota-bucket", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    s3.put_object(Bucket="codesign-ota-bucket", Key=KEY, Body=bytes(70_000))

    stream: dict[str, Any] = {
        "streamId": "stream12345",
        "description": DESCRIPTION,
        "files": [{"fileId": 123, "s3Location": {"bucket": "codesign-ota-bucket", "key": KEY}}],
        "roleArn": ROLE_ARN,
    }
    (tmp_path / "create-stream.json").write_text(json.dumps(stream))
    create = ("iot", "create-stream", "--cli-input-json", "file://create-stream.json")
    # The role may not read the file yet: no stream is made, and the answer says what is missing.
    assert "s3:GetObject" in aws.refused(*create)
    iam.put_role_policy(RoleName="my_ota_stream_role", PolicyName="read", PolicyDocument=json.dumps(grant))
    assert aws.run(*create) == {
        "streamId": "stream12345",
        "streamArn": STREAM_ARN,
        "description": DESCRIPTION,
        "streamVersion": 1,
    }
    assert "ResourceAlreadyExistsException" in aws.refused(*create)

    told = aws.run("iot", "describe-stream", "--stream-id", "stream12345")["streamInfo"]
    assert type(told.pop("createdAt")) in (float, str)
    assert type(told.pop("lastUpdatedAt")) in (float, str)
    assert told == {**stream, "streamArn": STREAM_ARN, "streamVersion": 1}

    (tmp_path / "update-stream.json").write_text(json.dumps(stream))
    assert aws.run("iot", "update-stream", "--cli-input-json", "file://update-stream.json") == {
        "streamId": "stream12345",
        "streamArn": STREAM_ARN,
        "description": DESCRIPTION,
        "streamVersion": 2,
    }
    server.client("iot").create_stream(**{**stream, "streamId": "stream54321"})
    listed = aws.run("iot", "list-streams", "--max-items", "1")
    assert listed["streams"] == [
        {"streamId": "stream12345", "streamArn": STREAM_ARN, "streamVersion": 2, "description": DESCRIPTION}
    ]
    assert listed["NextToken"]
    assert aws.run("iot", "delete-stream", "--stream-id", "stream12345") is None
    assert "ResourceNotFoundException" in aws.refused("iot", "describe-stream", "--stream-id", "stream12345")
