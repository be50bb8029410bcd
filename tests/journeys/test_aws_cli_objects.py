"""``overair env`` and then the aws command line with its own defaults, against the real door with TLS and signatures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess, clean_environment

AWS = Path(sys.executable).parent / "aws"


@pytest.fixture
def aws(server: ServerProcess, tmp_path: Path) -> Callable[..., str]:
    """``aws …`` in the environment that ``overair env`` prints."""
    printed = subprocess.run(
        [sys.executable, "-m", "overair.cli.main", "env", "--json", "--data", str(server.data)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=clean_environment(),
    )
    exports = {name: str(value) for name, value in json.loads(printed.stdout).items()}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [AWS, *arguments],
            env=clean_environment(**exports, HOME=str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_large_file_goes_up_in_parts_comes_down_and_keeps_its_versions(
    server: ServerProcess, aws: Callable[..., str], tmp_path: Path
) -> None:
    bucket, key = server.endpoints["bucket"], f"cli-{uuid.uuid4().hex[:8]}.bin"
    content = os.urandom(9 * 1024 * 1024 + 17)
    (tmp_path / "up.bin").write_bytes(content)
    aws("s3", "cp", "up.bin", f"s3://{bucket}/{key}", "--no-progress")
    aws("s3", "cp", f"s3://{bucket}/{key}", "down.bin", "--no-progress")
    assert (tmp_path / "down.bin").read_bytes() == content
    head = json.loads(aws("s3api", "head-object", "--bucket", bucket, "--key", key, "--output", "json"))
    # The ETag of an upload in parts says how many: with the command line's own threshold of 8 MiB there are two.
    assert head["ETag"].strip('"').endswith("-2")
    assert head["ContentLength"] == len(content)
    (tmp_path / "up.bin").write_bytes(b"small")
    aws("s3", "cp", "up.bin", f"s3://{bucket}/{key}", "--no-progress")
    listed = json.loads(aws("s3api", "list-object-versions", "--bucket", bucket, "--prefix", key, "--output", "json"))
    assert [each["Size"] for each in listed["Versions"]] == [5, len(content)]
    aws("s3", "rm", f"s3://{bucket}/{key}")
    listed = json.loads(aws("s3api", "list-object-versions", "--bucket", bucket, "--prefix", key, "--output", "json"))
    assert listed["DeleteMarkers"][0]["IsLatest"] is True


def test_a_stream_of_unknown_length_goes_up_and_out_again(
    server: ServerProcess, aws: Callable[..., str], tmp_path: Path
) -> None:
    bucket, key = server.endpoints["bucket"], f"piped-{uuid.uuid4().hex[:8]}"
    (tmp_path / "in").write_bytes(b"piped" * 1000)
    source = f'"{AWS}" s3 cp - "s3://{bucket}/{key}" < in'
    environment = json.loads(
        subprocess.run(
            [sys.executable, "-m", "overair.cli.main", "env", "--json", "--data", str(server.data)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env=clean_environment(),
        ).stdout
    )
    subprocess.run(
        ["/bin/sh", "-c", source],
        cwd=tmp_path,
        check=True,
        timeout=60,
        env=clean_environment(**{name: str(value) for name, value in environment.items()}, HOME=str(tmp_path)),
    )
    assert aws("s3", "cp", f"s3://{bucket}/{key}", "-") == "piped" * 1000


def test_a_presigned_link_of_the_command_line_downloads_with_nothing_but_the_link(
    server: ServerProcess, aws: Callable[..., str]
) -> None:
    import urllib3

    bucket, key = server.endpoints["bucket"], f"linked-{uuid.uuid4().hex[:8]}"
    server.client("s3").put_object(Bucket=bucket, Key=key, Body=b"linked")
    link = aws("s3", "presign", f"s3://{bucket}/{key}").strip()
    assert urllib3.PoolManager(ca_certs=server.endpoints["ca_file"]).request("GET", link).data == b"linked"
