"""Stream operations of the ``iot`` service (wire reference §4.8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from overair.basics.arn import Place
from overair.basics.ids import BucketName, ObjectKey, StreamId, VersionId
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.streams.model import FileSource, Stream, StreamChange, StreamFile, StreamPlan
from overair.server.streams.service import StreamsService


class CallerRights(Protocol):
    """What this door asks of the callers' policies (``access.service.AccessService``)."""

    def require_pass_role(self, tx: Tx, caller: Caller, role_arn: str) -> None: ...


class StreamOperations:
    """The operator's door to streams."""

    def __init__(self, *, work: Work, streams: StreamsService, rights: CallerRights) -> None:
        self.work = work
        self._streams = streams
        self._rights = rights

    @operation("iot", "CreateStream")
    async def create_stream(self, caller: Caller, request: Request) -> Members:
        plan = StreamPlan(
            id=StreamId(request["streamId"]),
            files=_sources(request["files"]),
            role_arn=request["roleArn"],
            description=request.get("description", ""),
            tags={tag["Key"]: tag.get("Value", "") for tag in request.get("tags", ())},
        )

        def create(tx: Tx) -> Stream:
            self._rights.require_pass_role(tx, caller, plan.role_arn)
            return self._streams.create(tx, caller.place, plan)

        return _made(caller.place, await self.work.run(create))

    @operation("iot", "UpdateStream")
    async def update_stream(self, caller: Caller, request: Request) -> Members:
        change = StreamChange(
            files=_sources(request["files"]) if "files" in request else None,
            role_arn=request.get("roleArn"),
            description=request.get("description"),
        )

        def update(tx: Tx) -> Stream:
            if change.role_arn is not None:
                self._rights.require_pass_role(tx, caller, change.role_arn)
            return self._streams.change(tx, caller.place, StreamId(request["streamId"]), change)

        return _made(caller.place, await self.work.run(update))

    @operation("iot", "DescribeStream")
    async def describe_stream(self, caller: Caller, request: Request) -> Members:
        stream = await self.work.read(lambda tx: self._streams.find(tx, caller.place, StreamId(request["streamId"])))
        return {
            "streamInfo": {
                "streamId": stream.id,
                "streamArn": stream.arn(caller.place),
                "streamVersion": stream.version,
                "description": stream.description or None,
                "files": [_file(file) for file in stream.files],
                "createdAt": stream.created_at,
                "lastUpdatedAt": stream.last_updated_at,
                "roleArn": stream.role_arn,
            }
        }

    @operation("iot", "ListStreams")
    async def list_streams(self, caller: Caller, request: Request) -> Members:
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        position = read_page_token(request.get("nextToken"), tuple[str])
        after = None if position is None else StreamId(position[0])
        ascending = request.get("ascendingOrder", True)
        found = await self.work.read(
            lambda tx: self._streams.page(tx, caller.place, after=after, limit=limit + 1, ascending=ascending)
        )
        page, token = cut(found, limit, lambda stream: (stream.id,))
        return {"streams": [_made(caller.place, stream) for stream in page], "nextToken": token}

    @operation("iot", "DeleteStream")
    async def delete_stream(self, caller: Caller, request: Request) -> Members:
        await self.work.run(lambda tx: self._streams.delete(tx, caller.place, StreamId(request["streamId"])))
        return {}


def _sources(files: Sequence[Any]) -> tuple[FileSource, ...]:
    sources = []
    for file in files:
        location = file.get("s3Location", {})
        version = location.get("version")
        sources.append(
            FileSource(
                file_id=file.get("fileId", 0),
                bucket=BucketName(location.get("bucket", "")),
                key=ObjectKey(location.get("key", "")),
                # An empty version is what command lines send for none.
                version=VersionId(version) if version else None,
            )
        )
    return tuple(sources)


def _file(file: StreamFile) -> Members:
    """As the operator named it; a version that was only pinned isn't shown, so that an update can send this back as it is."""
    source = file.source
    return {"fileId": source.file_id, "s3Location": {"bucket": source.bucket, "key": source.key, "version": source.version}}


def _made(place: Place, stream: Stream) -> Members:
    return {
        "streamId": stream.id,
        "streamArn": stream.arn(place),
        "description": stream.description or None,
        "streamVersion": stream.version,
    }
