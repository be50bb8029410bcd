"""The operator's door to users, roles and keys (services ``iam`` and ``sts``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from overair.basics.errors import InvalidRequest, Unsupported
from overair.basics.work import Tx, Work
from overair.server.access.identities import Identities
from overair.server.access.key_uses import KeyUses
from overair.server.access.model import KeyStatus, NewKeys, Owner, OwnerKind, Role, User
from overair.server.access.sessions import Sessions
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import cut, read_page_token

MAX_ITEMS_DEFAULT: Final = 100
MAX_ITEMS_MAX: Final = 1000


class IdentityOperatorApi:
    """Users, roles, access keys; who am I; taking on a role."""

    def __init__(self, *, work: Work, identities: Identities, sessions: Sessions, uses: KeyUses) -> None:
        self.work = work
        self.identities = identities
        self.sessions = sessions
        self.uses = uses

    # Users ------------------------------------------------------------------------------------------------------------

    @operation("iam", "CreateUser")
    async def create_user(self, caller: Caller, request: Request) -> Members:
        user = await self.work.run(
            lambda tx: self.identities.create_user(
                tx,
                caller.account,
                request["UserName"],
                path=request.get("Path", "/"),
                boundary_arn=request.get("PermissionsBoundary"),
                tags=tags_of(request),
            )
        )
        return {"User": user_members(user)}

    @operation("iam", "GetUser")
    async def get_user(self, caller: Caller, request: Request) -> Members:
        if "UserName" not in request and caller.is_root:
            root = {"UserId": caller.account, "Arn": caller.principal_arn, "CreateDate": caller.now}
            return {"User": {"Path": "/", "UserName": "root", **root}}
        name = _user_name(caller, request)
        return {"User": user_members(await self.work.read(lambda tx: self.identities.user(tx, caller.account, name)))}

    @operation("iam", "ListUsers")
    async def list_users(self, caller: Caller, request: Request) -> Members:
        after, limit = page_of(request)
        users = await self.work.read(
            lambda tx: self.identities.list_users(
                tx, caller.account, path_prefix=request.get("PathPrefix", "/"), after=after, limit=limit + 1
            )
        )
        page, marker = cut(users, limit, lambda user: (user.name,))
        return {"Users": [user_members(user) for user in page], **marked(marker)}

    @operation("iam", "UpdateUser")
    async def update_user(self, caller: Caller, request: Request) -> None:
        name, new_name, new_path = request["UserName"], request.get("NewUserName"), request.get("NewPath")
        await self.work.run(
            lambda tx: self.identities.change_user(tx, caller.account, name, new_name=new_name, new_path=new_path)
        )

    @operation("iam", "DeleteUser")
    async def delete_user(self, caller: Caller, request: Request) -> None:
        await self.work.run(lambda tx: self.identities.delete_user(tx, caller.account, request["UserName"]))

    # Boundaries and tags, of users and roles -----------------------------------------------------------------------------

    @operation("iam", "PutUserPermissionsBoundary")
    @operation("iam", "PutRolePermissionsBoundary")
    async def put_boundary(self, caller: Caller, request: Request) -> None:
        owner, arn = owner_of(request), request["PermissionsBoundary"]
        await self.work.run(lambda tx: self.identities.set_boundary(tx, caller.account, owner, arn))

    @operation("iam", "DeleteUserPermissionsBoundary")
    @operation("iam", "DeleteRolePermissionsBoundary")
    async def delete_boundary(self, caller: Caller, request: Request) -> None:
        owner = owner_of(request)
        await self.work.run(lambda tx: self.identities.set_boundary(tx, caller.account, owner, None))

    @operation("iam", "TagUser")
    @operation("iam", "TagRole")
    async def tag(self, caller: Caller, request: Request) -> None:
        owner, tags = owner_of(request), tags_of(request)
        await self.work.run(lambda tx: self.identities.tag(tx, caller.account, owner, tags))

    @operation("iam", "UntagUser")
    @operation("iam", "UntagRole")
    async def untag(self, caller: Caller, request: Request) -> None:
        owner, keys = owner_of(request), request["TagKeys"]
        await self.work.run(lambda tx: self.identities.untag(tx, caller.account, owner, keys))

    @operation("iam", "ListUserTags")
    @operation("iam", "ListRoleTags")
    async def list_tags(self, caller: Caller, request: Request) -> Members:
        owner = owner_of(request)
        return tags_page(await self.work.read(lambda tx: self.identities.tags_of(tx, caller.account, owner)), request)

    # Access keys ------------------------------------------------------------------------------------------------------

    @operation("iam", "CreateAccessKey")
    async def create_access_key(self, caller: Caller, request: Request) -> Members:
        name = _user_name(caller, request)
        keys = await self.work.run(lambda tx: self.identities.create_key(tx, caller.account, name))
        return {
            "AccessKey": {
                "UserName": name or "root",
                "AccessKeyId": keys.key_id,
                "Status": KeyStatus.ACTIVE.value,
                "SecretAccessKey": keys.secret.reveal(),
                "CreateDate": keys.created,
            }
        }

    @operation("iam", "ListAccessKeys")
    async def list_access_keys(self, caller: Caller, request: Request) -> Members:
        name = _user_name(caller, request)
        keys = await self.work.read(lambda tx: self.identities.keys_of(tx, caller.account, name))
        listed = [
            {
                "UserName": name or "root",
                "AccessKeyId": key.key_id,
                "Status": key.status.value,
                "CreateDate": key.created,
            }
            for key in keys
        ]
        return {"AccessKeyMetadata": listed, "IsTruncated": False}

    @operation("iam", "GetAccessKeyLastUsed")
    async def get_access_key_last_used(self, caller: Caller, request: Request) -> Members:
        key_id = request["AccessKeyId"]
        key = await self.work.read(lambda tx: self.identities.holder_of_key(tx, caller.account, key_id))
        use = self.uses.newest(key.key_id, key.last_use)
        used: dict[str, Any] = {"ServiceName": "N/A", "Region": "N/A"}
        if use is not None:
            used = {"LastUsedDate": use.at, "ServiceName": use.service, "Region": use.region}
        return {"UserName": key.user_name or "root", "AccessKeyLastUsed": used}

    @operation("iam", "UpdateAccessKey")
    async def update_access_key(self, caller: Caller, request: Request) -> None:
        name = _user_name(caller, request)
        try:
            status = KeyStatus(request["Status"])
        except ValueError:
            raise InvalidRequest("Status must be Active or Inactive.", subject="iam-input") from None
        await self.work.run(lambda tx: self.identities.set_key_status(tx, caller.account, name, request["AccessKeyId"], status))

    @operation("iam", "DeleteAccessKey")
    async def delete_access_key(self, caller: Caller, request: Request) -> None:
        name = _user_name(caller, request)
        await self.work.run(lambda tx: self.identities.delete_key(tx, caller.account, name, request["AccessKeyId"]))

    # Roles ------------------------------------------------------------------------------------------------------------

    @operation("iam", "CreateRole")
    async def create_role(self, caller: Caller, request: Request) -> Members:
        role = await self.work.run(
            lambda tx: self.identities.create_role(
                tx,
                caller.account,
                request["RoleName"],
                request["AssumeRolePolicyDocument"],
                path=request.get("Path", "/"),
                description=request.get("Description", ""),
                session_s_max=request.get("MaxSessionDuration", 3600),
                boundary_arn=request.get("PermissionsBoundary"),
                tags=tags_of(request),
            )
        )
        return {"Role": role_members(role)}

    @operation("iam", "GetRole")
    async def get_role(self, caller: Caller, request: Request) -> Members:
        role = await self.work.read(lambda tx: self._role(tx, caller, request))
        return {"Role": role_members(replace(role, last_use=self.uses.newest(role.arn, role.last_use)))}

    @operation("iam", "ListRoles")
    async def list_roles(self, caller: Caller, request: Request) -> Members:
        after, limit = page_of(request)
        roles = await self.work.read(
            lambda tx: self.identities.list_roles(
                tx, caller.account, path_prefix=request.get("PathPrefix", "/"), after=after, limit=limit + 1
            )
        )
        page, marker = cut(roles, limit, lambda role: (role.name,))
        return {"Roles": [role_members(role) for role in page], **marked(marker)}

    @operation("iam", "UpdateAssumeRolePolicy")
    async def update_assume_role_policy(self, caller: Caller, request: Request) -> None:
        name, document = request["RoleName"], request["PolicyDocument"]
        await self.work.run(lambda tx: self.identities.set_trust(tx, caller.account, name, document))

    @operation("iam", "UpdateRole")
    async def update_role(self, caller: Caller, request: Request) -> Members:
        name, described, seconds = request["RoleName"], request.get("Description"), request.get("MaxSessionDuration")
        await self.work.run(
            lambda tx: self.identities.change_role(tx, caller.account, name, description=described, session_s_max=seconds)
        )
        return {}

    @operation("iam", "UpdateRoleDescription")
    async def update_role_description(self, caller: Caller, request: Request) -> Members:
        name, described = request["RoleName"], request["Description"]
        role = await self.work.run(lambda tx: self.identities.change_role(tx, caller.account, name, description=described))
        return {"Role": role_members(role)}

    @operation("iam", "DeleteRole")
    async def delete_role(self, caller: Caller, request: Request) -> None:
        await self.work.run(lambda tx: self.identities.delete_role(tx, caller.account, request["RoleName"]))

    def _role(self, tx: Tx, caller: Caller, request: Request) -> Role:
        return self.identities.role(tx, caller.account, request["RoleName"])

    # STS --------------------------------------------------------------------------------------------------------------

    @operation("sts", "GetCallerIdentity")
    async def get_caller_identity(self, caller: Caller, request: Request) -> Members:
        return {"UserId": caller.user_id, "Account": caller.account, "Arn": caller.principal_arn}

    @operation("sts", "AssumeRole")
    async def assume_role(self, caller: Caller, request: Request) -> Members:
        for member in ("SourceIdentity", "SerialNumber", "TokenCode", "ProvidedContexts"):
            if request.get(member):
                raise Unsupported(f"AssumeRole with {member} isn't available here; leave it out.", subject="member")
        assumed = await self.work.run(
            lambda tx: self.sessions.assume(
                tx,
                caller,
                request["RoleArn"],
                request["RoleSessionName"],
                duration_s=request.get("DurationSeconds"),
                policy_document=request.get("Policy"),
                policy_arns=[each.get("arn", "") for each in request.get("PolicyArns", ())],
                external_id=request.get("ExternalId"),
                tags=session_tags_of(request),
                transitive_keys=request.get("TransitiveTagKeys", ()),
            )
        )
        return {
            "Credentials": _credentials(assumed.keys),
            "AssumedRoleUser": {"AssumedRoleId": assumed.role_session_id, "Arn": assumed.session_arn},
        }

    @operation("sts", "GetSessionToken")
    async def get_session_token(self, caller: Caller, request: Request) -> Members:
        for member in ("SerialNumber", "TokenCode"):
            if request.get(member):
                raise Unsupported(f"GetSessionToken with {member} isn't available here: there is no MFA.", subject="member")
        keys = await self.work.run(lambda tx: self.sessions.for_user(tx, caller, duration_s=request.get("DurationSeconds")))
        return {"Credentials": _credentials(keys)}


def _credentials(keys: NewKeys) -> Members:
    return {
        "AccessKeyId": keys.key_id,
        "SecretAccessKey": keys.secret.reveal(),
        "SessionToken": keys.token.reveal() if keys.token else None,
        "Expiration": keys.expires,
    }


def session_tags_of(request: Request) -> dict[str, str]:
    """``Tags`` of a session: keys are one whatever their case.

    Raises:
        InvalidRequest: a key comes twice. Subject ``sts-input``.
    """
    tags = tags_of(request)
    if len({key.lower() for key in tags}) != len(request.get("Tags", ())):
        raise InvalidRequest("Duplicate tag keys found. Please note that Tag keys are case insensitive.", subject="sts-input")
    return tags


def tags_of(request: Request) -> dict[str, str]:
    """``Tags`` as a mapping."""
    return {tag["Key"]: tag["Value"] for tag in request.get("Tags", ())}


def tag_members(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as answers have them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tags_page(tags: Mapping[str, str], request: Request) -> Members:
    """The answer of an operation that lists tags, by key."""
    after, limit = page_of(request)
    rest = sorted(key for key in tags if after is None or key > after)
    page, marker = cut(rest[: limit + 1], limit, lambda key: (key,))
    return {"Tags": tag_members({key: tags[key] for key in page}), **marked(marker)}


def owner_of(request: Request) -> Owner:
    """The user, group or role that a request is about."""
    for kind in OwnerKind:
        name = request.get(f"{kind.value.capitalize()}Name")
        if name is not None:
            return Owner(kind=kind, name=name)
    raise InvalidRequest("The request names no user, group or role.", subject="iam-name")


def page_of(request: Request) -> tuple[str | None, int]:
    """(the name to go on after, how many) from ``Marker`` and ``MaxItems``."""
    position = read_page_token(request.get("Marker"), tuple[str], name="Marker")
    return (position[0] if position else None), min(request.get("MaxItems", MAX_ITEMS_DEFAULT), MAX_ITEMS_MAX)


def marked(marker: str | None) -> dict[str, Any]:
    """The end of a list: ``IsTruncated``, and ``Marker`` where more follows."""
    return {"IsTruncated": marker is not None, "Marker": marker}


def _user_name(caller: Caller, request: Request) -> str:
    """The user that a request is about: named, or else the caller; empty for the root."""
    name: str | None = request.get("UserName")
    if name is not None:
        return name
    if caller.is_root:
        return ""
    if caller.session_name:
        raise InvalidRequest("Must specify userName when calling with non-User credentials", subject="iam-name")
    return caller.principal_arn.rpartition("/")[2]


def _boundary(arn: str | None) -> Mapping[str, str] | None:
    return None if arn is None else {"PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": arn}


def user_members(user: User) -> dict[str, Any]:
    """A user as answers have it."""
    return {
        "Path": user.path,
        "UserName": user.name,
        "UserId": user.user_id,
        "Arn": user.arn,
        "CreateDate": user.created,
        "PermissionsBoundary": _boundary(user.boundary_arn),
        "Tags": tag_members(user.tags) or None,
    }


def role_members(role: Role) -> dict[str, Any]:
    """A role as answers have it."""
    return {
        "Path": role.path,
        "RoleName": role.name,
        "RoleId": role.role_id,
        "Arn": role.arn,
        "CreateDate": role.created,
        # Documents travel percent-encoded inside the XML; clients decode them.
        "AssumeRolePolicyDocument": quote(role.trust_document, safe=""),
        "Description": role.description or None,
        "MaxSessionDuration": role.session_s_max,
        "RoleLastUsed": {"LastUsedDate": role.last_use.at, "Region": role.last_use.region} if role.last_use else None,
        "PermissionsBoundary": _boundary(role.boundary_arn),
        "Tags": tag_members(role.tags) or None,
    }
