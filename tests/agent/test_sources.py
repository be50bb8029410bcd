"""Blocks by URL: which ranges are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from overair.agent.download import FileDownload
from overair.agent.platform import FileContext
from overair.agent.sources import RANGE_SIZE_BYTES_MAX, Asked, RangeUnavailable, UrlNoLongerGood, UrlSource
from overair.wire.blocks import bitmap_for, block_count
from overair.wire.job_document import DocumentFile

URL = "https://server/image?signature"
BLOCK = 4096


class Disk:
    """As much of a platform as a download needs: some blocks are there from before."""

    def __init__(self, size_bytes: int, have: Iterable[int] = ()) -> None:
        self.content = bytearray(size_bytes)
        self.durable = 0
        self._bitmap = bitmap_for(have).ljust((block_count(size_bytes, BLOCK) + 7) // 8, b"\0")

    def create_file(self, context: FileContext) -> bytes:
        return self._bitmap

    def write_block(self, context: FileContext, offset_bytes: int, data: bytes) -> None:
        self.content[offset_bytes : offset_bytes + len(data)] = data

    def make_durable(self, context: FileContext, bitmap: bytes) -> None:
        self.durable += 1

    def abort(self, context: FileContext) -> None:
        raise AssertionError("nothing is given up here")


class Server:
    """Serves one image, but for what ``wrong`` says."""

    def __init__(self, image: bytes) -> None:
        self.image = image
        self.asked: list[tuple[int, int]] = []
        self.wrong: Exception | None = None

    def fetch(self, url: str, first_byte: int, last_byte: int) -> bytes:
        assert url == URL
        if self.wrong is not None:
            raise self.wrong
        self.asked.append((first_byte, last_byte))
        return self.image[first_byte : last_byte + 1]


def download_of(disk: Disk, size_bytes: int, *, block: int = BLOCK) -> FileDownload:
    file = DocumentFile(path="image", size_bytes=size_bytes, file_id=0, certificate_path="certificate.pem")
    return FileDownload(disk, file, block_size_bytes=block, answer_size_bytes_max=UrlSource.answer_size_bytes_max)  # type: ignore[arg-type]


def fetch_all(server: Server, download: FileDownload) -> None:
    while not download.complete:
        came: list[bytes] = []
        source = UrlSource(server, url=URL, deliver=came.append)
        assert source.ask(download) is Asked.SENT
        for message in came:
            download.take(message)


def test_a_whole_file_comes_in_ranges_of_half_a_mebibyte() -> None:
    image = bytes(range(251)) * 5000
    server, disk = Server(image), Disk(len(image))
    fetch_all(server, download_of(disk, len(image)))
    assert bytes(disk.content) == image
    step = RANGE_SIZE_BYTES_MAX
    assert server.asked == [(at, min(at + step, len(image)) - 1) for at in range(0, len(image), step)]
    assert disk.durable == len(server.asked)


@settings(deadline=None)
@given(size=st.integers(1, 400 * BLOCK), have=st.sets(st.integers(0, 399), max_size=40))
def test_neighbouring_missing_blocks_are_one_range_and_nothing_is_fetched_twice_or_for_nothing(
    size: int, have: set[int]
) -> None:
    total = block_count(size, BLOCK)
    have = {number for number in have if number < total}
    image = bytes(number * 7 % 251 for number in range(size % 5000)).ljust(size, b"\x5a")
    server, disk = Server(image), Disk(size, have)
    fetch_all(server, download_of(disk, size))
    asked = [(first // BLOCK, last // BLOCK) for first, last in server.asked]
    assert [number for first, last in asked for number in range(first, last + 1)] == sorted(set(range(total)) - have)
    assert all(first % BLOCK == 0 for first, _ in server.asked)
    assert all(last - first < RANGE_SIZE_BYTES_MAX for first, last in server.asked)
    # Two ranges that touch would have been one, but for the end of a window.
    touching = sum(last + 1 == first for (_, last), (first, _) in pairwise(asked))
    assert touching <= total * BLOCK // RANGE_SIZE_BYTES_MAX
    assert all(
        disk.content[number * BLOCK : (number + 1) * BLOCK] == image[number * BLOCK : (number + 1) * BLOCK]
        for number in set(range(total)) - have
    )


def test_what_came_before_a_range_that_failed_is_kept() -> None:
    image = bytes(20 * BLOCK)
    server, disk = Server(image), Disk(len(image), have=[5])
    download = download_of(disk, len(image))
    came: list[bytes] = []

    def deliver(message: bytes) -> None:
        came.append(message)
        server.wrong = RangeUnavailable("cut")

    assert UrlSource(server, url=URL, deliver=deliver).ask(download) is Asked.SENT
    assert len(came) == 5
    for message in came:
        download.take(message)
    server.wrong = UrlNoLongerGood("status 403")
    assert UrlSource(server, url=URL, deliver=came.append).ask(download) is Asked.JOB_NEEDED
    server.wrong = None
    fetch_all(server, download)
    assert server.asked == [(0, 5 * BLOCK - 1), (6 * BLOCK, 20 * BLOCK - 1)]
