"""Images over HTTPS by presigned link, as HTTP updates fetch them, beside nginx with the same file."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from bench.measure import Measured, Subject, interleaved
from bench.processes import NotRun, Overair
from bench.profiles import Profile
from bench.static_server import StaticServer

IMAGE_SIZE_BYTES = 16 * 1024 * 1024
RANGE_SIZES_BYTES = (4096, 128 * 1024, 1024 * 1024, IMAGE_SIZE_BYTES)
CONNECTIONS = 4
TIMEOUT_S = 60.0
_READ_SIZE_BYTES = 256 * 1024
_HEAD_SIZE_BYTES_MAX = 64 * 1024


@dataclass(slots=True, kw_only=True)
class DownloadResults:
    """What was measured, and what wasn't, with the reason. Each operation is one range."""

    ranges: dict[str, list[Measured]] = field(default_factory=dict)
    """By the range's size in bytes: ours, then nginx."""
    cipher: str = ""
    not_run: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one file is fetched."""

    host: str
    port: int
    path: str
    ca: Path


class Download:
    """One kept connection, read by a thread of its own: a program on a desk would be no slower."""

    def __init__(self, place: Place, offset: int) -> None:
        context = ssl.create_default_context(cafile=str(place.ca))
        plain = socket.create_connection((place.host, place.port), timeout=TIMEOUT_S)
        self._socket = context.wrap_socket(plain, server_hostname=place.host)
        self._head = f"GET {place.path} HTTP/1.1\r\nHost: {place.host}:{place.port}\r\n".encode()
        self._buffer = bytearray(_READ_SIZE_BYTES)
        self._turns = count(offset)

    @property
    def cipher(self) -> str:
        chosen = self._socket.cipher()
        assert chosen is not None
        return f"{chosen[1]}, {chosen[0]}"

    def fetch(self, size_bytes: int, times: int) -> None:
        """That many ranges, one after another, from here and there in the file.

        Raises:
            ConnectionError: an answer that isn't the range.
        """
        parts = IMAGE_SIZE_BYTES // size_bytes
        for _ in range(times):
            first = next(self._turns) % parts * size_bytes
            self._socket.sendall(self._head + b"Range: bytes=%d-%d\r\n\r\n" % (first, first + size_bytes - 1))
            self._take(size_bytes)

    def _take(self, size_bytes: int) -> None:
        head = b""
        while (end := head.find(b"\r\n\r\n")) < 0:
            piece = self._socket.recv(_READ_SIZE_BYTES)
            head += piece
            if not piece or len(head) > _HEAD_SIZE_BYTES_MAX + _READ_SIZE_BYTES:
                raise ConnectionError(f"no answer: {head[:300]!r}")
        if not head.startswith(b"HTTP/1.1 206 "):
            raise ConnectionError(f"answered {head[:600]!r}")
        remaining = size_bytes - (len(head) - end - 4)
        while remaining > 0:
            taken = self._socket.recv_into(self._buffer)
            if taken == 0:
                raise ConnectionError("the body ended early")
            remaining -= taken
        if remaining < 0:
            raise ConnectionError("more came than was asked for")

    def close(self) -> None:
        self._socket.close()


async def measure_downloads(profile: Profile, work: Path) -> DownloadResults:
    """Start the servers, measure, end them."""
    results = DownloadResults()
    image = work / "image.bin"
    image.write_bytes(os.urandom(IMAGE_SIZE_BYTES))
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(CONNECTIONS))
        overair = Overair(work / "downloads")
        stack.callback(overair.stop)
        overair.start()
        places = [("overair, presigned link", overair.pid, _offered(overair, image))]
        try:
            nginx = StaticServer(work, image)
            stack.callback(nginx.stop)
            pid = nginx.start()
            places.append(("nginx, static file", pid, Place(host="localhost", port=nginx.port, path=nginx.path, ca=nginx.ca)))
        except NotRun as reason:
            results.not_run.append(str(reason))
        crowds = []
        for name, pid, place in places:
            crowd = [Download(place, number * 7) for number in range(CONNECTIONS)]
            for download in crowd:
                stack.callback(download.close)
            crowds.append((name, pid, crowd))
        results.cipher = crowds[0][2][0].cipher
        for size_bytes in RANGE_SIZES_BYTES:
            subjects = [_fetching(name, pid, crowd, size_bytes, threads) for name, pid, crowd in crowds]
            results.ranges[str(size_bytes)] = await interleaved(subjects, rounds=profile.rounds, seconds=profile.seconds)
    return results


def _offered(overair: Overair, image: Path) -> Place:
    """The image in the server's bucket, and a link to it that is good for an hour."""
    key = overair.target(tls=True)
    s3 = boto3.client(
        "s3",
        endpoint_url=overair.endpoints["device_url"],
        region_name=key.region,
        aws_access_key_id=key.key_id,
        aws_secret_access_key=key.secret,
        config=Config(signature_version="s3v4"),
    )
    named = {"Bucket": overair.endpoints["bucket"], "Key": "bench-image"}
    overair.target(tls=False).client("s3").put_object(**named, Body=image.read_bytes())
    link = urlsplit(s3.generate_presigned_url("get_object", Params=named, ExpiresIn=3600))
    assert link.hostname is not None
    assert link.port is not None
    return Place(host=link.hostname, port=link.port, path=f"{link.path}?{link.query}", ca=Path(overair.endpoints["ca_file"]))


def _fetching(name: str, pid: int, crowd: list[Download], size_bytes: int, threads: ThreadPoolExecutor) -> Subject:
    wanted = CONNECTIONS

    async def prepare(operations: int) -> None:
        nonlocal wanted
        wanted = operations

    async def run() -> int:
        each = max(1, wanted // CONNECTIONS)
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(threads, download.fetch, size_bytes, each) for download in crowd))
        return each * CONNECTIONS

    return Subject(name=name, pid=pid, run=run, prepare=prepare, first_count=CONNECTIONS * 2, count_max=20_000)
