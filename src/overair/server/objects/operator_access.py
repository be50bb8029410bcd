"""Operations on who may reach a bucket beside its policy: public access blocked, owners, and lists that are read alone.

Whoever owns a bucket owns what is in it, as AWS has it for every new bucket (``BucketOwnerEnforced``): a list has one grant,
the owner's, and can't be changed.
"""

from __future__ import annotations

from typing import Final

from overair.basics.errors import InvalidRequest, NotFound, Unsupported
from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.objects.members import check_supported, no_lists, owner
from overair.server.objects.model import PublicAccessBlock
from overair.server.objects.public_policies import is_public
from overair.server.objects.service import ObjectsService
from overair.server.policy_language.document import Kind, parse_policy

_BLOCK_MEMBERS: Final = {
    "public_acls": "BlockPublicAcls",
    "existing_public_acls": "IgnorePublicAcls",
    "public_policy": "BlockPublicPolicy",
    "public_buckets": "RestrictPublicBuckets",
}
OWNERSHIP: Final = "BucketOwnerEnforced"


class AccessOperations:
    """What keeps strangers out of a bucket."""

    work: Work
    objects: ObjectsService

    @operation("s3", "GetPublicAccessBlock")
    async def get_public_access_block(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        bucket = await self.work.read(lambda tx: self.objects.require_bucket(tx, caller.place, request["Bucket"]))
        block = bucket.public_access_block
        if block is None:
            raise NotFound(
                "The public access block configuration was not found.",
                subject="public-access-block",
                details={"BucketName": bucket.name},
            )
        return {"PublicAccessBlockConfiguration": {member: getattr(block, name) for name, member in _BLOCK_MEMBERS.items()}}

    @operation("s3", "PutPublicAccessBlock")
    async def put_public_access_block(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        given = request["PublicAccessBlockConfiguration"]
        block = PublicAccessBlock(**{name: bool(given.get(member)) for name, member in _BLOCK_MEMBERS.items()})
        await self.work.run(lambda tx: self.objects.set_public_access_block(tx, caller.place, request["Bucket"], block))
        return {}

    @operation("s3", "DeletePublicAccessBlock")
    async def delete_public_access_block(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        await self.work.run(lambda tx: self.objects.set_public_access_block(tx, caller.place, request["Bucket"], None))
        return {}

    @operation("s3", "GetBucketPolicyStatus")
    async def get_bucket_policy_status(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        text = await self.work.read(lambda tx: self.objects.require_policy(tx, caller.place, request["Bucket"]))
        policy = parse_policy(text, Kind.RESOURCE)
        return {"PolicyStatus": {"IsPublic": is_public(policy)}}

    @operation("s3", "GetBucketAcl")
    async def get_bucket_acl(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        await self.work.read(lambda tx: self.objects.require_bucket(tx, caller.place, request["Bucket"]))
        return _owners_list(caller)

    @operation("s3", "GetObjectAcl")
    async def get_object_acl(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        await self.work.read(
            lambda tx: self.objects.find(tx, caller.place, request["Bucket"], request["Key"], request.get("VersionId"))
        )
        return _owners_list(caller)

    @operation("s3", "PutBucketAcl")
    async def put_bucket_acl(self, caller: Caller, request: Request) -> Members:
        await self.work.read(lambda tx: self.objects.require_bucket(tx, caller.place, request["Bucket"]))
        raise no_lists()

    @operation("s3", "PutObjectAcl")
    async def put_object_acl(self, caller: Caller, request: Request) -> Members:
        await self.work.read(lambda tx: self.objects.require_bucket(tx, caller.place, request["Bucket"]))
        raise no_lists()

    @operation("s3", "GetBucketOwnershipControls")
    async def get_bucket_ownership_controls(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        await self.work.read(lambda tx: self.objects.require_bucket(tx, caller.place, request["Bucket"]))
        return {"OwnershipControls": {"Rules": [{"ObjectOwnership": OWNERSHIP}]}}

    @operation("s3", "PutBucketOwnershipControls")
    async def put_bucket_ownership_controls(self, caller: Caller, request: Request) -> Members:
        """The one setting that there is may be put again."""
        check_supported(caller, request)
        await self.work.read(lambda tx: self.objects.require_bucket(tx, caller.place, request["Bucket"]))
        rules = request["OwnershipControls"].get("Rules") or []
        if len(rules) != 1:
            raise InvalidRequest("Ownership controls have exactly one rule.", subject="malformed-body")
        check_ownership(rules[0].get("ObjectOwnership"))
        return {}


def check_ownership(ownership: str | None) -> None:
    """Raises:
    Unsupported: objects would belong to somebody else than their bucket's owner.
    """
    if ownership not in (None, OWNERSHIP):
        raise Unsupported(f"Overair has the object ownership {OWNERSHIP} alone: grant access with a bucket policy.")


def _owners_list(caller: Caller) -> Members:
    holder = owner(caller.place)
    grant = {"Grantee": {**holder, "Type": "CanonicalUser"}, "Permission": "FULL_CONTROL"}
    return {"Owner": holder, "Grants": [grant]}
