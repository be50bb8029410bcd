"""The aws command line with its own defaults: multipart copies up and down, lists, synchronising, removing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

AWS = Path(sys.executable).parent / "aws"


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Callable[..., str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.object_server", str(tmp_path)],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        "AWS_MAX_ATTEMPTS": "1",
    }

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [AWS, *arguments], env=environment, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run
    process.stdin.close()
    process.wait(20)
    process.stdout.close()


def test_files_go_up_come_down_are_listed_and_removed(aws: Callable[..., str], tmp_path: Path) -> None:
    large, small = tmp_path / "large.bin", tmp_path / "small.bin"
    large.write_bytes(os.urandom(20 * 1024 * 1024 + 3))
    small.write_bytes(b"small")
    assert "make_bucket: firmware" in aws("s3", "mb", "s3://firmware")
    aws("s3api", "put-bucket-versioning", "--bucket", "firmware", "--versioning-configuration", "Status=Enabled")
    aws("s3", "cp", "large.bin", "s3://firmware/images/large.bin", "--no-progress")
    aws("s3", "cp", "small.bin", "s3://firmware/small.bin", "--no-progress")
    aws("s3", "cp", "s3://firmware/images/large.bin", "down.bin", "--no-progress")
    assert (tmp_path / "down.bin").read_bytes() == large.read_bytes()
    listed = aws("s3", "ls", "s3://firmware/")
    assert "PRE images/" in listed
    assert "5 small.bin" in listed
    aws("s3", "cp", "s3://firmware/images/large.bin", "s3://firmware/copy.bin", "--no-progress")
    aws("s3", "sync", "s3://firmware", "synced", "--no-progress")
    assert (tmp_path / "synced" / "copy.bin").read_bytes() == large.read_bytes()
    assert (tmp_path / "synced" / "small.bin").read_bytes() == b"small"
    aws("s3", "rm", "s3://firmware", "--recursive")
    assert aws("s3", "ls", "s3://firmware/", "--recursive") == ""
    assert '"DeleteMarkers"' in aws("s3api", "list-object-versions", "--bucket", "firmware", "--output", "json")
