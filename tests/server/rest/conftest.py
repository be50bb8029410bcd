"""A room of notes with a door of plain REST: what the engine's tests are about, and nothing that a real room does."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from overair.basics import errors
from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock
from overair.basics.ids import AccountId
from overair.basics.work import Work
from overair.server.access import actions_uptane
from overair.server.access.actions import Need, anything, iot, need
from overair.server.aws_protocol.operations import Caller
from overair.server.rest.operations import RestAnswer, RestRequest, route
from overair.server.rest.ranges import ranged_answer
from overair.server.storage.schema import metadata
from overair.server.storage.work import open_sqlite
from tests.support.listening import EventLoopThread, loop_thread
from tests.support.rest_door import RestWorld, served

NOTE_SIZE_BYTES_MAX = 100_000
UPLOAD_SIZE_BYTES_MAX = 1_000_000
SECRET = "the-inside-of-the-server"  # what no answer may hold

TABLE: dict[tuple[str, str], tuple[Need, ...]] = {
    ("overair", "PutNote"): (need("overair:PutNote", on=iot("uptanenote/{name}")),),
    ("overair", "GetNote"): (need("overair:GetNote", on=iot("uptanenote/{name}")),),
    ("overair", "DescribeRequest"): (need("overair:DescribeRequest", on=iot("uptanenote/{name}")),),
    ("overair", "PutUpload"): (need("overair:PutUpload", on=anything),),
    ("overair", "Fail"): (need("overair:Fail", on=anything),),
}


class Notes:
    """The door."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.notes: dict[str, bytes] = {}
        self.handled: list[str] = []
        self.closed = threading.Event()

    @route("PUT", "/api/v1/notes/{name:path}", operation="PutNote", body_size_bytes_max=NOTE_SIZE_BYTES_MAX)
    async def put(self, caller: Caller, request: RestRequest) -> RestAnswer:
        self.handled.append(caller.principal_arn)
        await self.work.run(lambda tx: None)
        self.notes[request.labels["name"]] = request.body
        return RestAnswer(status=204, headers={"x-note-size": str(len(request.body))})

    @route("GET", "/api/v1/notes/{name:path}", operation="GetNote")
    async def get(self, caller: Caller, request: RestRequest) -> RestAnswer:
        note = self.notes.get(request.labels["name"])
        if note is None:
            raise errors.NotFound("There is no such note.", subject="note", details={"field": "name", "hint": "Put it first."})

        async def read(offset_bytes: int, size_bytes: int) -> AsyncIterator[bytes]:
            for start in range(offset_bytes, offset_bytes + size_bytes, 1000):
                yield note[start : min(start + 1000, offset_bytes + size_bytes)]

        return ranged_answer(request, size_bytes=len(note), read=read, content_type="text/plain", etag="e1")

    @route("GET", "/api/v1/requests/{name}.json", operation="DescribeRequest")
    @route("POST", "/api/v1/requests/{name}.json", operation="DescribeRequest")
    async def describe(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return RestAnswer(
            json={
                "method": request.method,
                "labels": dict(request.labels),
                "query": dict(request.query),
                "body": request.json_object() if request.body else None,
                "principal": caller.principal_arn,
            }
        )

    @route("PUT", "/api/v1/uploads/{name}", operation="PutUpload", streams=True, body_size_bytes_max=UPLOAD_SIZE_BYTES_MAX)
    async def upload(self, caller: Caller, request: RestRequest) -> RestAnswer:
        assert request.stream is not None
        if request.labels["name"] == "refused":
            raise errors.Conflict("It is there already.", subject="upload")
        pieces = [piece async for piece in request.stream]
        await self.work.run(lambda tx: None)
        self.notes[request.labels["name"]] = b"".join(pieces)
        return RestAnswer(json={"length": len(b"".join(pieces)), "declared": request.stream.length_bytes})

    @route("GET", "/api/v1/failures/{how}", operation="Fail")
    async def fail(self, caller: Caller, request: RestRequest) -> RestAnswer:
        match request.labels["how"]:
            case "unforeseen":
                raise RuntimeError(SECRET)
            case "several":
                listed = [{"code": "too_short", "field": "a", "description": "A.", "hint": "Longer."}]
                raise errors.InvalidRequest(
                    "Two rules are broken.", subject="offline-targets", details={"errors": listed, "n": 1}
                )
            case "midway":

                async def broken() -> AsyncIterator[bytes]:
                    yield b"x" * 10
                    raise RuntimeError(SECRET)

                return RestAnswer(stream=broken(), length_bytes=1000)
            case "endless":

                async def endless() -> AsyncIterator[bytes]:
                    try:
                        while True:
                            yield b"x" * 65536
                    finally:
                        self.closed.set()

                return RestAnswer(stream=endless())
            case _:
                return RestAnswer(status=204)


@pytest.fixture(scope="module")
def thread() -> Iterator[EventLoopThread]:
    with loop_thread() as running:
        yield running


@pytest.fixture(scope="module")
def world_and_notes(thread: EventLoopThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RestWorld, Notes]]:
    """The door with its notes, on SQLite; botocore signs by the wall clock, so this one stands at about now."""
    clock = SettableClock(Instant(int(time.time() * 1000)))
    work = open_sqlite(tmp_path_factory.mktemp("rest") / "records.sqlite3", clock=clock)
    metadata.create_all(work.engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actions_uptane, "TABLE", TABLE)
        made = RestWorld(work, Place("us-east-1", AccountId("123456789012")), clock)
    notes = Notes(made.audited)
    with served(thread, made, notes) as running:
        yield running, notes
    work.close()


@pytest.fixture(scope="module")
def world(world_and_notes: tuple[RestWorld, Notes]) -> RestWorld:
    return world_and_notes[0]


@pytest.fixture
def notes(world_and_notes: tuple[RestWorld, Notes]) -> Notes:
    notes = world_and_notes[1]
    notes.notes.clear()
    notes.handled.clear()
    return notes
