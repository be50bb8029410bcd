"""The operator's door to tags (service ``iot``)."""

from __future__ import annotations

from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import read_page_token
from overair.server.devices.tags import TagsService


class TagsOperatorApi:
    """TagResource, UntagResource, ListTagsForResource."""

    def __init__(self, *, work: Work, tags: TagsService) -> None:
        self.work = work
        self.tags = tags

    @operation("iot", "TagResource")
    async def tag_resource(self, caller: Caller, request: Request) -> Members:
        tags = {tag["Key"]: tag.get("Value", "") for tag in request["tags"]}
        await self.work.run(lambda tx: self.tags.add(tx, caller.place, request["resourceArn"], tags))
        return {}

    @operation("iot", "UntagResource")
    async def untag_resource(self, caller: Caller, request: Request) -> Members:
        await self.work.run(lambda tx: self.tags.remove(tx, caller.place, request["resourceArn"], request["tagKeys"]))
        return {}

    @operation("iot", "ListTagsForResource")
    async def list_tags_for_resource(self, caller: Caller, request: Request) -> Members:
        # At most 50 tags: they always fit one page, so no token of ours is ever out.
        read_page_token(request.get("nextToken"), tuple[str])
        found = await self.work.read(lambda tx: self.tags.list(tx, caller.place, request["resourceArn"]))
        return {"tags": [{"Key": key, "Value": value} for key, value in sorted(found.items())]}
