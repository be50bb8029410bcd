"""The qualification's disturbances: a lost connection, a withdrawn update, a link that ended."""

from __future__ import annotations

from collections.abc import Callable

from overair.agent.sources import RANGE_SIZE_BYTES_MAX
from overair.wire.blocks import ANSWER_SIZE_BYTES_MAX
from overair.wire.job_document import TransferProtocol
from tests.support.qualification import (
    LARGE_SIZE_BYTES,
    Board,
    Operator,
    Way,
    accepted,
    image,
    later,
    progress_reports,
    scenario,
)
from tests.support.server_process import ServerProcess

BLOCK_SIZE_BYTES = 4096
WINDOW_BLOCKS = ANSWER_SIZE_BYTES_MAX // BLOCK_SIZE_BYTES


def updates_of_a_resumed_download(content: bytes, *, lost: int = 0) -> range:
    """A whole download's, but for what was said to nobody; a block that came twice may be told of twice. Then ready, active and
    the end."""
    whole = progress_reports(len(content)) + 3
    return range(whole - lost, whole + 2)


@scenario("DisconnectAndResume", briefly=("cbor", "json", "http"))
def test_disconnect_and_resume(board: Board, way: Way) -> None:
    """Another client takes the board's id away; it comes back, and asks for what it hasn't got."""
    before, version = board.version, later(board.version)
    content = image(version, size_bytes=LARGE_SIZE_BYTES)
    total = -(-len(content) // BLOCK_SIZE_BYTES)
    blocks, ranges = board.operator.blocks_sent(), board.operator.ranges_sent()
    with board.holding_its_next_download() as held:
        job = board.send(content)
        held()
        board.is_taken_over()
    # Over HTTP the download goes on while the board is away, and its progress is told to nobody.
    lost = 1 if way.protocol is TransferProtocol.MQTT else progress_reports(len(content)) - 1
    board.ended(job, "SUCCEEDED", accepted(version, before), updates=updates_of_a_resumed_download(content, lost=lost))
    board.runs(content, version)
    blocks, ranges = board.operator.blocks_sent() - blocks, board.operator.ranges_sent() - ranges
    if way.protocol is TransferProtocol.MQTT:
        assert total <= blocks <= total + WINDOW_BLOCKS, "what lay on the disk was asked for again"
        assert "the connection was lost" in board.whole_log()
    else:
        windows = -(-len(content) // RANGE_SIZE_BYTES_MAX)
        assert windows <= ranges <= windows + 1, "what lay on the disk was asked for again"


@scenario("DisconnectCancelUpdate")
def test_disconnect_cancel_update(board: Board, way: Way) -> None:
    """The update is withdrawn while the board is cut off; back again it gives it up, and takes the next."""
    with board.holding_its_next_download() as held:
        job = board.send(image(later(board.version), size_bytes=LARGE_SIZE_BYTES))
        held()
        board.is_taken_over()
        board.is_canceled(job)
    board.updates_to(later(board.version, 2))
    board.has_given_up()
    assert board.execution(job)["status"] == "CANCELED"


@scenario("TwoUpdatesCancelFirst")
def test_two_updates_cancel_first(board: Board, way: Way) -> None:
    """Two wait; the first is withdrawn during its download, and the board turns to the second."""
    before, version = board.version, later(board.version, 2)
    with board.holding_its_next_download() as held:
        first = board.send(image(later(before), size_bytes=LARGE_SIZE_BYTES))
        held()
        content = image(version)
        second = board.send(content)
        assert board.execution(second)["status"] == "QUEUED"
        board.is_canceled(first)
    board.ended(second, "SUCCEEDED", accepted(version, before), updates=progress_reports(len(content)) + 3)
    board.runs(content, version)
    board.has_given_up()
    assert board.execution(first)["status"] == "CANCELED"


@scenario("CancelThenUpdate", briefly=("cbor", "http"))
def test_cancel_then_update(board: Board, way: Way) -> None:
    """The only update is withdrawn during its download; the board comes to rest, and takes one that is made later."""
    version = board.version
    with board.holding_its_next_download() as held:
        job = board.send(image(later(version), size_bytes=LARGE_SIZE_BYTES))
        held()
        board.is_canceled(job)
    board.has_given_up()
    assert board.version == version
    board.updates_to(later(version, 2))


@scenario("PresignedUrlExpired", over=["http"], briefly=["http"])
def test_presigned_url_expired(new_server: Callable[..., ServerProcess], new_board: Callable[..., Board], way: Way) -> None:
    """The link ends in the middle of the download; the board asks for its job again, and goes on by the new link."""
    server = new_server(driven=True).start()
    board = new_board(Operator(server), way)
    before, version = board.version, later(board.version)
    content = image(version, size_bytes=LARGE_SIZE_BYTES)
    with board.holding_its_next_download() as held:
        job = board.send(content, url_expires_s=60)
        held()
        server.tell(advance_ms=61_000)
    board.ended(job, "SUCCEEDED", accepted(version, before), updates=updates_of_a_resumed_download(content))
    board.runs(content, version)
    assert board.operator.ranges_sent(403) == 1, "the link had not ended"
    windows = -(-len(content) // RANGE_SIZE_BYTES_MAX)
    assert windows <= board.operator.ranges_sent() <= windows + 1, "what lay on the disk was asked for again"
