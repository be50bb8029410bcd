"""Lists of objects and versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from overair.basics.ids import VersionId
from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import page_token, read_page_token
from overair.server.objects.listing import ObjectLists, Page
from overair.server.objects.members import check_supported, described, encoded, owner, showable
from overair.server.objects.model import LIST_KEYS_MAX, AnyVersion, DeleteMarker, ObjectVersion


class ListOperations:
    """What a bucket holds."""

    work: Work
    lists: ObjectLists

    @operation("s3", "ListObjectsV2")
    async def list_objects_v2(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        position = read_page_token(request.get("ContinuationToken"), tuple[str], name="continuation-token")
        after = position[0] if position else request.get("StartAfter") or None
        page = await self._objects_page(caller, request, after)
        with_owner = owner(caller.place) if request.get("FetchOwner") else None
        return {
            **_echo(request, "Prefix", "Delimiter", "StartAfter"),
            "Contents": _contents(page.entries, request, with_owner),
            "CommonPrefixes": _prefixes(page, request),
            "IsTruncated": page.is_truncated,
            "KeyCount": len(page.entries) + len(page.common_prefixes),
            "ContinuationToken": request.get("ContinuationToken"),
            "NextContinuationToken": page_token((page.last_key,)) if page.is_truncated and page.last_key else None,
        }

    @operation("s3", "ListObjects")
    async def list_objects(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        page = await self._objects_page(caller, request, request.get("Marker") or None)
        # As S3 has it: without a delimiter the client goes on from the last key it saw.
        is_told = page.is_truncated and request.get("Delimiter")
        return {
            **_echo(request, "Prefix", "Delimiter", "Marker"),
            "Marker": encoded(request.get("Marker", ""), request),
            "Contents": _contents(page.entries, request, owner(caller.place)),
            "CommonPrefixes": _prefixes(page, request),
            "IsTruncated": page.is_truncated,
            "NextMarker": encoded(page.last_key, request) if is_told else None,
        }

    @operation("s3", "ListObjectVersions")
    async def list_object_versions(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        after_version = VersionId(request["VersionIdMarker"]) if request.get("VersionIdMarker") else None
        page = await self.work.read(
            lambda tx: self.lists.versions(
                tx,
                caller.place,
                request["Bucket"],
                prefix=request.get("Prefix", ""),
                delimiter=request.get("Delimiter", ""),
                after=request.get("KeyMarker") or None,
                after_version=after_version,
                limit=_limit(request),
            )
        )
        versions, markers = [], []
        account_owner = owner(caller.place)
        for entry in page.entries:
            shown: dict[str, Any] = {
                "Key": encoded(entry.key, request),
                "VersionId": entry.version_id,
                "IsLatest": entry.is_latest,
                "LastModified": entry.modified,
                "Owner": account_owner,
            }
            if isinstance(entry, DeleteMarker):
                markers.append(shown)
            else:
                versions.append({**shown, **described(entry)})
        goes_on = page.is_truncated and page.last_key is not None
        ended_with_entry = goes_on and page.last_prefix is None
        return {
            **_echo(request, "Prefix", "Delimiter", "KeyMarker"),
            "KeyMarker": encoded(request.get("KeyMarker", ""), request),
            "VersionIdMarker": showable(request.get("VersionIdMarker", "")),
            "Versions": versions,
            "DeleteMarkers": markers,
            "CommonPrefixes": _prefixes(page, request),
            "IsTruncated": page.is_truncated,
            "NextKeyMarker": encoded(page.last_key, request) if goes_on else None,
            "NextVersionIdMarker": page.entries[-1].version_id if ended_with_entry else None,
        }

    async def _objects_page(self, caller: Caller, request: Request, after: str | None) -> Page[AnyVersion]:
        return await self.work.read(
            lambda tx: self.lists.objects(
                tx,
                caller.place,
                request["Bucket"],
                prefix=request.get("Prefix", ""),
                delimiter=request.get("Delimiter", ""),
                after=after,
                limit=_limit(request),
            )
        )


def _limit(request: Request) -> int:
    return max(0, min(int(request.get("MaxKeys", LIST_KEYS_MAX)), LIST_KEYS_MAX))


def _echo(request: Request, *members: str) -> dict[str, Any]:
    """What every list repeats of the request."""
    return {
        "Name": request["Bucket"],
        "MaxKeys": _limit(request),
        "EncodingType": request.get("EncodingType"),
        "Prefix": encoded(request.get("Prefix", ""), request),
        **{member: encoded(request[member], request) for member in members if request.get(member)},
    }


def _contents(entries: Sequence[AnyVersion], request: Request, with_owner: dict[str, str] | None) -> list[dict[str, Any]]:
    return [
        {"Key": encoded(entry.key, request), **described(entry), "Owner": with_owner}
        for entry in entries
        if isinstance(entry, ObjectVersion)
    ]


def _prefixes(page: Page[Any], request: Request) -> list[dict[str, str | None]]:
    return [{"Prefix": encoded(prefix, request)} for prefix in page.common_prefixes]
