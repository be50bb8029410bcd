"""The operator's door to groups of users (service ``iam``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from overair.basics.work import Tx, Work
from overair.server.access.groups import UserGroups
from overair.server.access.model import User, UserGroup
from overair.server.access.operator_api import marked, page_of, user_members
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import cut


class UserGroupOperatorApi:
    """Groups, and who is in them. Their policies are in ``policy_operator_api``."""

    def __init__(self, *, work: Work, groups: UserGroups) -> None:
        self.work = work
        self.groups = groups

    @operation("iam", "CreateGroup")
    async def create_group(self, caller: Caller, request: Request) -> Members:
        name, path = request["GroupName"], request.get("Path", "/")
        group = await self.work.run(lambda tx: self.groups.create(tx, caller.account, name, path=path))
        return {"Group": group_members(group)}

    @operation("iam", "GetGroup")
    async def get_group(self, caller: Caller, request: Request) -> Members:
        name = request["GroupName"]
        after, limit = page_of(request)

        def find(tx: Tx) -> tuple[UserGroup, Sequence[User]]:
            group = self.groups.find(tx, caller.account, name)
            return group, self.groups.users_of(tx, caller.account, name, after=after, limit=limit + 1)

        group, users = await self.work.read(find)
        page, marker = cut(users, limit, lambda user: (user.name,))
        return {"Group": group_members(group), "Users": [user_members(user) for user in page], **marked(marker)}

    @operation("iam", "ListGroups")
    async def list_groups(self, caller: Caller, request: Request) -> Members:
        after, limit = page_of(request)
        prefix = request.get("PathPrefix", "/")
        groups = await self.work.read(
            lambda tx: self.groups.list(tx, caller.account, path_prefix=prefix, after=after, limit=limit + 1)
        )
        page, marker = cut(groups, limit, lambda group: (group.name,))
        return {"Groups": [group_members(group) for group in page], **marked(marker)}

    @operation("iam", "ListGroupsForUser")
    async def list_groups_for_user(self, caller: Caller, request: Request) -> Members:
        after, limit = page_of(request)
        groups = await self.work.read(lambda tx: self.groups.groups_of(tx, caller.account, request["UserName"]))
        rest = [group for group in groups if after is None or group.name > after]
        page, marker = cut(rest[: limit + 1], limit, lambda group: (group.name,))
        return {"Groups": [group_members(group) for group in page], **marked(marker)}

    @operation("iam", "UpdateGroup")
    async def update_group(self, caller: Caller, request: Request) -> None:
        name, new_name, new_path = request["GroupName"], request.get("NewGroupName"), request.get("NewPath")
        await self.work.run(lambda tx: self.groups.change(tx, caller.account, name, new_name=new_name, new_path=new_path))

    @operation("iam", "DeleteGroup")
    async def delete_group(self, caller: Caller, request: Request) -> None:
        await self.work.run(lambda tx: self.groups.delete(tx, caller.account, request["GroupName"]))

    @operation("iam", "AddUserToGroup")
    async def add_user_to_group(self, caller: Caller, request: Request) -> None:
        name, user = request["GroupName"], request["UserName"]
        await self.work.run(lambda tx: self.groups.add_user(tx, caller.account, name, user))

    @operation("iam", "RemoveUserFromGroup")
    async def remove_user_from_group(self, caller: Caller, request: Request) -> None:
        name, user = request["GroupName"], request["UserName"]
        await self.work.run(lambda tx: self.groups.remove_user(tx, caller.account, name, user))


def group_members(group: UserGroup) -> dict[str, Any]:
    """A group as answers have it."""
    return {
        "Path": group.path,
        "GroupName": group.name,
        "GroupId": group.group_id,
        "Arn": group.arn,
        "CreateDate": group.created,
    }
