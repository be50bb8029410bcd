from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.wire.blocks import (
    BLOCK_OFFSET_MAX,
    BlockDownload,
    MakeDurable,
    UnexpectedBlock,
    WriteBlock,
    bitmap_for,
    block_count,
    block_length,
    blocks_named,
    blocks_to_send,
    file_size_bytes_max,
)


@given(st.sets(st.integers(0, 4095), min_size=1), st.integers(0, 9))
def test_a_bitmap_names_exactly_the_blocks_asked_for(wanted: set[int], base: int) -> None:
    shifted = {base + number for number in wanted}
    assert blocks_named(bitmap_for(shifted, base), base) == sorted(shifted)


def test_the_guides_bitmap_names_the_guides_blocks() -> None:
    assert blocks_named(bytes.fromhex("130080"), 20) == [20, 21, 24, 43]


def test_the_downloaders_literal_bitmap_with_a_count_of_one_names_the_block_at_the_offset() -> None:
    def send(offset: int) -> list[int]:
        return list(
            blocks_to_send(
                file_size_bytes=10 * 4096, block_size_bytes=4096, block_offset=offset, block_count_wanted=1, bitmap=b"MQ=="
            )
        )

    assert [send(offset) for offset in range(10)] == [[offset] for offset in range(10)]


@given(
    st.integers(1, 300_000),
    st.sampled_from([256, 1000, 4096, 131_072]),
    st.integers(0, 2000),
    st.none() | st.integers(0, 600),
    st.none() | st.binary(max_size=80),
)
def test_an_answer_is_ascending_inside_the_file_asked_for_and_at_most_128_kib(
    size: int, block_size: int, offset: int, count: int | None, bitmap: bytes | None
) -> None:
    sent = blocks_to_send(
        file_size_bytes=size, block_size_bytes=block_size, block_offset=offset, block_count_wanted=count, bitmap=bitmap
    )
    assert sent == sorted(set(sent))
    assert all(offset <= number < block_count(size, block_size) for number in sent)
    assert sum(block_length(size, block_size, number) for number in sent) <= 131_072
    assert count is None or len(sent) <= count
    if bitmap is not None:
        assert set(sent) <= set(blocks_named(bitmap, offset))


@given(st.sets(st.integers(0, 90_000), min_size=1, max_size=40), st.integers(1, 64))
def test_far_apart_bits_of_a_large_bitmap_are_found_in_order_and_capped(wanted: set[int], count: int) -> None:
    sent = blocks_to_send(
        file_size_bytes=100_000 * 1024,
        block_size_bytes=1024,
        block_offset=3,
        block_count_wanted=count,
        bitmap=bitmap_for(wanted),
    )
    assert sent == [number + 3 for number in sorted(wanted)][:count]


def test_a_gibibyte_fits_from_8_kib_blocks_up() -> None:
    assert file_size_bytes_max(8192) >= 2**30 > file_size_bytes_max(4096)
    assert file_size_bytes_max(4096, offset_used=False) == 98_296 * 4096


@given(st.integers(1, 200_000), st.sampled_from([256, 4096, 1000]), st.integers(1, 40), st.integers(0, 2**32))
def test_a_download_over_a_lossy_line_with_power_cuts_ends_with_the_file(
    size: int, block_size: int, window: int, seed: int
) -> None:
    chance = Random(seed)
    content = chance.randbytes(size)
    disk, stored = bytearray(size), None
    download = BlockDownload(file_size_bytes=size, block_size_bytes=block_size, window_blocks=window)
    cache = bytearray(size)
    rounds = 0
    while not download.complete:
        rounds += 1
        assert rounds < 20_000
        request = download.request()
        named = blocks_to_send(
            file_size_bytes=size,
            block_size_bytes=block_size,
            block_offset=request.offset,
            block_count_wanted=request.count,
            bitmap=request.bitmap,
        )
        assert len(named) == request.count
        arriving = [number for number in named for _ in range(chance.choice((0, 1, 1, 1, 1, 2)))]
        chance.shuffle(arriving)
        for number in arriving:
            for effect in download.receive(number, content[number * block_size : (number + 1) * block_size]):
                if isinstance(effect, WriteBlock):
                    cache[effect.offset_bytes : effect.offset_bytes + len(effect.data)] = effect.data
                else:
                    disk[:], stored = cache, download.durable_bitmap()
                    download.made_durable()
        if chance.random() < 0.05:  # power cut: what wasn't made durable is gone
            cache[:] = disk
            download = BlockDownload(
                file_size_bytes=size, block_size_bytes=block_size, window_blocks=window, durable_bitmap=stored
            )
    assert disk == content


def test_a_repeated_block_and_one_nobody_asked_for_change_nothing() -> None:
    download = BlockDownload(file_size_bytes=10 * 256, block_size_bytes=256, window_blocks=2)
    assert download.receive(5, bytes(256)) == []
    assert download.receive(0, bytes(256)) == [WriteBlock(offset_bytes=0, data=bytes(256))]
    assert download.receive(0, bytes(256)) == []
    assert download.receive(1, bytes(256))[1] == MakeDurable(complete=False)
    assert download.received == 2


@pytest.mark.parametrize(("number", "size"), [(-1, 256), (3, 256), (0, 255), (2, 256), (10**9, 256)])
def test_a_block_that_cannot_belong_to_the_file_is_refused(number: int, size: int) -> None:
    download = BlockDownload(file_size_bytes=2 * 256 + 100, block_size_bytes=256)
    with pytest.raises(UnexpectedBlock):
        download.receive(number, bytes(size))


def test_blocks_beyond_the_largest_offset_are_reached_by_the_bitmap() -> None:
    total = BLOCK_OFFSET_MAX + 500
    done = bytearray(b"\xff" * ((total + 7) // 8))
    done[-1] = (1 << total % 8) - 1 if total % 8 else 0xFF
    done[(total - 1) >> 3] &= ~(1 << ((total - 1) & 7)) & 0xFF
    download = BlockDownload(file_size_bytes=total * 256, block_size_bytes=256, durable_bitmap=bytes(done))
    request = download.request()
    assert (request.offset, request.count) == (BLOCK_OFFSET_MAX, 1)
    assert blocks_named(request.bitmap, request.offset) == [total - 1]


@pytest.mark.parametrize("bitmap", [b"", b"\x00\x00", b"\xf0"])
def test_a_stored_bitmap_of_another_file_is_refused(bitmap: bytes) -> None:
    with pytest.raises(ValueError, match="bitmap"):
        BlockDownload(file_size_bytes=3 * 256, block_size_bytes=256, durable_bitmap=bitmap)
