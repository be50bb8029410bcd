"""The qualification's good images: newer, signed and whole, one is installed whatever the blocks and the protocol."""

from __future__ import annotations

import os
from collections.abc import Callable

from overair.agent.sources import RANGE_SIZE_BYTES_MAX
from overair.wire.blocks import WINDOW_SPAN_BLOCKS_MAX, block_count
from overair.wire.job_document import TransferProtocol
from tests.support.qualification import Board, Operator, Way, accepted, image, later, scenario, with_one_bit_flipped

EVERY_WAY = ("cbor", "json", "http")


@scenario("GreaterVersion", briefly=EVERY_WAY)
def test_greater_version(board: Board, way: Way) -> None:
    board.updates_to(later(board.version))


@scenario("BackToBackDownloads")
def test_back_to_back_downloads(board: Board, way: Way) -> None:
    pids = [board.image_pid]
    for _ in range(3):
        board.updates_to(later(board.version))
        pids.append(board.image_pid)
    assert len(set(pids)) == 4, "each new image is a process of its own"


@scenario("AnyFile", briefly=EVERY_WAY)
def test_any_file(board: Board, way: Way) -> None:
    pid, version, content = board.image_pid, board.version, os.urandom(300_001)
    job = board.send(content, file_name="models/voice.bin", file_type=7)
    board.ended(
        job, "SUCCEEDED", {"reason": "accepted  v0.0.7", "updatedBy": "  v0.0.0"}, updates=1 + 300_001 // 4096 // 64 + 1
    )
    assert (board.directory.files / "models/voice.bin").read_bytes() == content
    assert (board.image_pid, board.version) == (pid, version), "nothing restarts for a file"


@scenario("MinBlockConfig")
def test_min_block_config(new_board: Callable[..., Board], operator: Operator, way: Way) -> None:
    board = new_board(operator, way, block_size_bytes=256)
    blocks, ranges = operator.blocks_sent(), operator.ranges_sent()
    content = board.updates_to(later(board.version))
    assert came(operator, blocks, ranges) == expected_of(way, len(content), 256)


@scenario("MaxBlockConfig")
def test_max_block_config(new_board: Callable[..., Board], operator: Operator, way: Way) -> None:
    board = new_board(operator, way, block_size_bytes=131_072)
    blocks, ranges, version = operator.blocks_sent(), operator.ranges_sent(), board.version
    content = image(later(version), size_bytes=1_000_000)
    job = board.send(content)
    board.ended(job, "SUCCEEDED", accepted(later(version), version), updates=1 + 3)
    board.runs(content, later(version))
    assert came(operator, blocks, ranges) == expected_of(way, len(content), 131_072)


def came(operator: Operator, blocks: int, ranges: int) -> tuple[int, int]:
    """Blocks and ranges that the server has sent since it had sent so many."""
    return operator.blocks_sent() - blocks, operator.ranges_sent() - ranges


def expected_of(way: Way, size_bytes: int, block_size_bytes: int) -> tuple[int, int]:
    """Each block once; over HTTP a window of them is one range."""
    blocks = block_count(size_bytes, block_size_bytes)
    if way.protocol is TransferProtocol.MQTT:
        return blocks, 0
    return 0, -(-blocks // min(RANGE_SIZE_BYTES_MAX // block_size_bytes, WINDOW_SPAN_BLOCKS_MAX))


@scenario("BackToBackSwitchProtocol")
def test_back_to_back_switch_protocol(board: Board, way: Way) -> None:
    """Over each protocol a bad signature first, then a good image over the other: a failure leaves no protocol behind."""
    first = way.protocol
    second = TransferProtocol.HTTP if first is TransferProtocol.MQTT else TransferProtocol.MQTT
    for bad, good in ((first, second), (second, first)):
        content = image(later(board.version))
        signature = board.operator.signed_elsewhere(board.operator.signature_of(with_one_bit_flipped(content)))
        board.refuses(content, "0x000000e3: 0x00000000", protocols=[bad.value], code_signing=signature)
        board.updates_to(later(board.version), protocols=[good.value])


@scenario("DefaultDataProtocol")
def test_default_data_protocol(new_board: Callable[..., Board], operator: Operator, way: Way) -> None:
    """Of two protocols the board's primary one is taken; the new image comes with the other as its primary."""
    board, first = new_board(operator, way), way.protocol
    second = TransferProtocol.HTTP if first is TransferProtocol.MQTT else TransferProtocol.MQTT
    board.change_settings(primary_protocol=second)  # what runs has read its settings already; the next image reads these
    for expected in (first, second):
        blocks, ranges = operator.blocks_sent(), operator.ranges_sent()
        board.updates_to(later(board.version), protocols=["MQTT", "HTTP"])
        over = tuple(count > 0 for count in came(operator, blocks, ranges))
        assert over == (expected is TransferProtocol.MQTT, expected is TransferProtocol.HTTP)
