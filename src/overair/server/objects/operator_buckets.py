"""Operations on buckets."""

from __future__ import annotations

from typing import Final

from overair.basics.errors import InvalidRequest, Unsupported
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import page_token, read_page_token
from overair.server.objects.members import check_supported, owner, showable
from overair.server.objects.model import BUCKETS_MAX, Versioning, bucket_arn
from overair.server.objects.operator_access import OWNERSHIP, check_ownership
from overair.server.objects.public_policies import check_resources, is_public
from overair.server.objects.service import ObjectsService
from overair.server.policy_language.document import Kind, parse_policy

HOME_REGION: Final = "us-east-1"
"""The region whose buckets have no location constraint."""


class BucketOperations:
    """Making, describing and deleting buckets."""

    work: Work
    objects: ObjectsService

    @operation("s3", "ListBuckets")
    async def list_buckets(self, caller: Caller, request: Request) -> Members:
        position = read_page_token(request.get("ContinuationToken"), tuple[str], name="continuation-token")
        limit = min(max(int(request.get("MaxBuckets", BUCKETS_MAX)), 1), BUCKETS_MAX)
        after = position[0] if position else ""
        prefix = request.get("Prefix", "")
        found = await self.work.read(
            lambda tx: self.objects.buckets(tx, caller.place, prefix=prefix, after=after, limit=limit + 1)
        )
        shown = found[:limit]
        return {
            "Buckets": [
                {
                    "Name": bucket.name,
                    "CreationDate": bucket.created,
                    "BucketRegion": bucket.region,
                    "BucketArn": bucket_arn(bucket.name),
                }
                for bucket in shown
            ],
            "Owner": owner(caller.place),
            "Prefix": showable(request.get("Prefix")),
            "ContinuationToken": page_token((shown[-1].name,)) if len(found) > limit else None,
        }

    @operation("s3", "CreateBucket")
    async def create_bucket(self, caller: Caller, request: Request) -> Members:
        if request.get("ACL", "private") != "private":
            raise InvalidRequest(
                f"Bucket cannot have ACLs set with ObjectOwnership's {OWNERSHIP} setting.", subject="bucket-acl"
            )
        check_supported(caller, request)
        check_ownership(request.get("ObjectOwnership"))
        place = caller.place
        location = (request.get("CreateBucketConfiguration") or {}).get("LocationConstraint") or HOME_REGION
        if location != place.region:
            raise InvalidRequest(
                f"The {location} location constraint is incompatible for the region specific endpoint this request was sent "
                f"to. This server's region is {place.region}.",
                subject="location",
            )
        bucket = await self.work.run(lambda tx: self.objects.create_bucket(tx, place, request["Bucket"]))
        return {"Location": f"/{bucket.name}", "BucketArn": bucket_arn(bucket.name)}

    @operation("s3", "HeadBucket")
    async def head_bucket(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        bucket = await self.work.read(lambda tx: self.objects.require_bucket(tx, caller.place, request["Bucket"]))
        return {"BucketRegion": bucket.region, "BucketArn": bucket_arn(bucket.name), "AccessPointAlias": False}

    @operation("s3", "DeleteBucket")
    async def delete_bucket(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        await self.work.run(lambda tx: self.objects.delete_bucket(tx, caller.place, request["Bucket"]))
        return {}

    @operation("s3", "GetBucketLocation")
    async def get_bucket_location(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        bucket = await self.work.read(lambda tx: self.objects.require_bucket(tx, caller.place, request["Bucket"]))
        return {"LocationConstraint": "" if bucket.region == HOME_REGION else bucket.region}

    @operation("s3", "GetBucketVersioning")
    async def get_bucket_versioning(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        bucket = await self.work.read(lambda tx: self.objects.require_bucket(tx, caller.place, request["Bucket"]))
        return {"Status": bucket.versioning.value or None}

    @operation("s3", "PutBucketVersioning")
    async def put_bucket_versioning(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        configuration = request["VersioningConfiguration"]
        if configuration.get("MFADelete") == "Enabled":
            raise Unsupported("Multi-factor deletion (MFADelete) isn't implemented by Overair. Leave it out.")
        try:
            versioning = Versioning(configuration.get("Status", ""))
        except ValueError:
            raise InvalidRequest(
                "The versioning status of a bucket is Enabled or Suspended.", subject="malformed-body"
            ) from None
        await self.work.run(lambda tx: self.objects.set_versioning(tx, caller.place, request["Bucket"], versioning))
        return {}

    @operation("s3", "GetBucketPolicy")
    async def get_bucket_policy(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        return {"Policy": await self.work.read(lambda tx: self.objects.require_policy(tx, caller.place, request["Bucket"]))}

    @operation("s3", "PutBucketPolicy")
    async def put_bucket_policy(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        policy = request["Policy"]
        document = parse_policy(policy, Kind.RESOURCE)
        bucket, public = request["Bucket"], is_public(document)

        def put(tx: Tx) -> None:
            self.objects.set_policy(tx, caller.place, bucket, policy, is_public=public)
            # Last: whoever has no such bucket hears of that, not of what his policy should have said.
            check_resources(document, bucket)

        await self.work.run(put)
        return {}

    @operation("s3", "DeleteBucketPolicy")
    async def delete_bucket_policy(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        await self.work.run(lambda tx: self.objects.set_policy(tx, caller.place, request["Bucket"], None))
        return {}
