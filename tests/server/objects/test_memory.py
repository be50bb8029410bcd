"""An object costs the server little memory, whatever its size."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

MIB = 1024 * 1024
COST_BYTES_MAX = 64 * MIB


class Pattern(io.RawIOBase):
    """A file of many bytes that takes no room: each MiB is another one, so that nothing is stored twice."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def read(self, size: int = -1) -> bytes:
        end = self._size_bytes if size < 0 else min(self._size_bytes, self._at + size)
        pieces = []
        while self._at < end:
            number, begin = divmod(self._at, MIB)
            piece = number.to_bytes(8, "big") * (min(end - self._at, MIB - begin) // 8 + 2)
            taken = piece[begin % 8 :][: min(end - self._at, MIB - begin)]
            pieces.append(taken)
            self._at += len(taken)
        return b"".join(pieces)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.object_server", str(tmp_path)],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    client = boto3.client(
        "s3",
        endpoint_url=process.stdout.readline().strip(),
        region_name="us-east-1",
        aws_access_key_id="AKIATEST",
        aws_secret_access_key="secret",
        config=Config(retries={"max_attempts": 0}),
    )
    yield process, client
    process.stdin.close()
    process.wait(20)
    process.stdout.close()


def peak_bytes(process: subprocess.Popen[str]) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize("size_mib", [96, pytest.param(1024, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
def test_an_object_costs_less_than_64_mib_up_and_down(server: tuple[subprocess.Popen[str], Any], size_mib: int) -> None:
    process, s3 = server
    size_bytes = size_mib * MIB
    s3.create_bucket(Bucket="firmware")
    s3.put_object(Bucket="firmware", Key="warm", Body=b"x" * MIB)
    s3.get_object(Bucket="firmware", Key="warm")["Body"].read()
    before_bytes = peak_bytes(process)

    s3.put_object(Bucket="firmware", Key="whole", Body=Pattern(size_bytes))
    s3.upload_fileobj(
        Pattern(size_bytes), "firmware", "parts", Config=TransferConfig(multipart_chunksize=16 * MIB, max_concurrency=2)
    )
    expected = hashlib.sha256()
    source = Pattern(size_bytes)
    while piece := source.read(MIB):
        expected.update(piece)
    for key in ("whole", "parts"):
        came = hashlib.sha256()
        for piece in s3.get_object(Bucket="firmware", Key=key)["Body"].iter_chunks(MIB):
            came.update(piece)
        assert came.digest() == expected.digest()
    assert peak_bytes(process) - before_bytes < COST_BYTES_MAX
