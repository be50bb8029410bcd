"""Operators' routes of campaigns (Uptane reference §11). A campaign is a job: ``campaign-ID``."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Final

from overair.basics.errors import InvalidRequest
from overair.basics.ids import GroupName
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller
from overair.server.devices.model import ThingGroup
from overair.server.director.campaign_model import Campaign, CampaignStatus, MetadataType
from overair.server.director.campaigns import Stats
from overair.server.director.rest_devices import ThingGroups
from overair.server.director.rest_support import Labels, member, moment, page_of, texts
from overair.server.director.service import CampaignPlan, DirectorService
from overair.server.jobs.model import TARGETS_MAX
from overair.server.rest.operations import RestAnswer, RestRequest, route

READ: Final = "overair:DescribeCampaign"
LAUNCH: Final = "overair:LaunchCampaign"
ROWS_AT_ONCE: Final = 500
_CAMPAIGNS: Final = "/api/v1/campaigns"
_CAMPAIGN: Final = "/api/v1/campaigns/{campaign}"
_NO_CONTENT: Final = RestAnswer(status=204)


class CampaignsRestApi:
    """Campaigns, as OTA Connect's Campaigner has them. ``work`` is the audited one."""

    def __init__(self, *, work: Work, director: DirectorService, groups: ThingGroups, labels: Labels) -> None:
        self._work = work
        self._director = director
        self._groups = groups
        self._labels = labels

    @route("POST", _CAMPAIGNS, operation="CreateCampaign")
    async def create(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """``update`` is the id of a multi-target update."""
        members = request.json_object()
        name, update = member(members, "name", str), member(members, "update", str)
        said = texts(members.get("groups"), "groups", most=TARGETS_MAX)
        metadata = _metadata(members.get("metadata"))
        approval_needed = member(members, "approvalNeeded", bool, default=False)

        def unit(tx: Tx) -> Campaign:
            groups = tuple(self._labels.group(tx, caller, group, "overair:CreateCampaign", in_path=False) for group in said)
            plan = CampaignPlan(name=name, update=update, groups=groups, metadata=metadata, approval_needed=approval_needed)
            return self._director.campaigns.create(tx, caller.account, plan)

        return RestAnswer(status=201, json=(await self._work.run(unit)).id)

    @route("GET", _CAMPAIGNS, operation="ListCampaigns")
    async def list_campaigns(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Ids, newest first."""
        page = page_of(request)
        said = request.query.get("status")
        if said is not None and said not in set(CampaignStatus):
            raise InvalidRequest(f"status is one of {', '.join(CampaignStatus)}.", subject="page", details={"field": "status"})
        total, found = await self._work.read(
            lambda tx: self._director.campaigns.page(
                tx,
                caller.account,
                status=None if said is None else CampaignStatus(said),
                name_contains=request.query.get("nameContains", ""),
                by_name=request.query.get("sortBy", "createdAt").lower() == "name",
                offset=page.offset,
                limit=page.limit,
            )
        )
        return RestAnswer(json=page.of(total, found, lambda campaign: campaign.id))

    @route("GET", _CAMPAIGNS + "/count", operation="ListCampaigns")
    async def count(self, caller: Caller, request: RestRequest) -> RestAnswer:
        counted = await self._work.read(lambda tx: self._director.campaigns.count_by_status(tx, caller.account))
        return RestAnswer(json={status.value: count for status, count in counted.items()})

    @route("GET", _CAMPAIGN, operation="DescribeCampaign")
    async def describe(self, caller: Caller, request: RestRequest) -> RestAnswer:
        def query(tx: Tx) -> dict[str, object]:
            campaigns = self._director.campaigns
            found = campaigns.find(tx, caller.account, request.labels["campaign"])
            groups = [self._groups.find(tx, caller.account, name) for name in self._there(tx, caller, found.groups)]
            retries = campaigns.retries_of(tx, caller.account, found)
            return _shown(found, campaigns.status(tx, caller.account, found), caller, groups, retries)

        return RestAnswer(json=await self._work.read(query))

    @route("PUT", _CAMPAIGN, operation="UpdateCampaign")
    async def change(self, caller: Caller, request: RestRequest) -> RestAnswer:
        members = request.json_object()
        name = member(members, "name", str)
        metadata = None if members.get("metadata") is None else _metadata(members["metadata"])
        campaigns = self._director.campaigns
        await self._work.run(
            lambda tx: campaigns.change(tx, caller.account, request.labels["campaign"], name=name, metadata=metadata)
        )
        return RestAnswer(json={})

    @route("POST", _CAMPAIGN + "/launch", operation="LaunchCampaign")
    async def launch(self, caller: Caller, request: RestRequest) -> RestAnswer:
        def unit(tx: Tx) -> Campaign:
            campaign = request.labels["campaign"]
            for group in self._director.campaigns.find(tx, caller.account, campaign).groups:
                self._labels.require(tx, caller, LAUNCH, caller.place.iot("thinggroup", group))
            return self._director.campaigns.launch(tx, caller.place, campaign)

        return RestAnswer(json={"jobId": (await self._work.run(unit)).job})

    @route("POST", _CAMPAIGN + "/cancel", operation="CancelCampaign")
    async def cancel(self, caller: Caller, request: RestRequest) -> RestAnswer:
        await self._work.run(lambda tx: self._director.campaigns.cancel(tx, caller.account, request.labels["campaign"]))
        return RestAnswer(json={})

    @route("DELETE", _CAMPAIGN + "/devices/{device}", operation="CancelCampaignDevice")
    async def cancel_device(self, caller: Caller, request: RestRequest) -> RestAnswer:
        def unit(tx: Tx) -> None:
            thing = self._labels.thing(tx, caller, request.labels["device"], "overair:CancelCampaignDevice")
            self._director.campaigns.cancel_device(tx, caller.account, request.labels["campaign"], thing)

        await self._work.run(unit)
        return _NO_CONTENT

    @route("GET", _CAMPAIGN + "/stats", operation="DescribeCampaign")
    async def stats(self, caller: Caller, request: RestRequest) -> RestAnswer:
        campaign = request.labels["campaign"]
        found = await self._work.read(lambda tx: self._director.campaigns.stats(tx, caller.account, campaign))
        return RestAnswer(json=_stats(campaign, found))

    @route("POST", _CAMPAIGN + "/retry-failed", operation="RetryCampaign")
    async def retry_failed(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """A campaign of its own for those that failed with ``failureCode``, launched at once."""
        code = member(request.json_object(), "failureCode", str)

        def unit(tx: Tx) -> Campaign:
            campaign = request.labels["campaign"]
            for group in self._director.campaigns.find(tx, caller.account, campaign).groups:
                self._labels.require(tx, caller, LAUNCH, caller.place.iot("thinggroup", group))
            return self._director.campaigns.retry_failed(tx, caller.place, campaign, code)

        return RestAnswer(status=201, json=(await self._work.run(unit)).id)

    @route("GET", _CAMPAIGN + "/failed-installations.csv", operation="DescribeCampaign")
    async def failed_installations(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Of one ``failureCode``, or of all."""
        campaign, code = request.labels["campaign"], request.query.get("failureCode")

        def query(tx: Tx) -> list[tuple[str, str, str]]:
            rows: list[tuple[str, str, str]] = []
            after = None
            while found := self._director.campaigns.failed_devices(
                tx, caller.account, campaign, code, after=after, limit=ROWS_AT_ONCE
            ):
                rows += [(each.thing, each.result_code, each.correlation_id) for each in found]
                after = found[-1].thing
            return rows

        text = io.StringIO()
        writer = csv.writer(text, delimiter=";", lineterminator="\n")
        writer.writerow(("Device ID", "Failure Code", "Correlation ID"))
        writer.writerows(await self._work.read(query))
        return RestAnswer(body=text.getvalue().encode(), content_type="text/csv; charset=utf-8")

    def _there(self, tx: Tx, caller: Caller, groups: Sequence[GroupName]) -> list[GroupName]:
        """Those of a campaign's groups that haven't been deleted."""
        return [group for group in groups if self._labels.has_group(tx, caller.account, group)]


def _metadata(value: object) -> Mapping[MetadataType, str]:
    if value is None:
        return {}
    found: dict[MetadataType, str] = {}
    for number, item in enumerate(value if isinstance(value, list) else [None]):
        kind, text = (item.get("type"), item.get("value")) if isinstance(item, dict) else (None, None)
        if kind not in set(MetadataType) or not isinstance(text, str) or MetadataType(kind) in found:
            raise InvalidRequest(
                f'metadata is a list of {{"type", "value"}}, each of {", ".join(MetadataType)} at most once.',
                subject="member",
                details={"field": f"metadata[{number}]"},
            )
        found[MetadataType(kind)] = text
    return found


def _shown(
    campaign: Campaign,
    status: CampaignStatus,
    caller: Caller,
    groups: Sequence[ThingGroup],
    retries: Sequence[Campaign],
) -> dict[str, object]:
    return {
        "namespace": caller.account,
        "id": campaign.id,
        "name": campaign.name,
        "update": campaign.update,
        "status": status.value,
        "createdAt": moment(campaign.created_at),
        "updatedAt": moment(campaign.updated_at),
        "groups": [group.id for group in groups],
        "metadata": [{"type": kind.value, "value": value} for kind, value in campaign.metadata.items()],
        "autoAccept": not campaign.approval_needed,
        "mainCampaignId": campaign.main_campaign,
        "retryCampaignIds": [retry.id for retry in retries],
        "jobId": campaign.job,
    }


def _stats(campaign: str, stats: Stats) -> dict[str, object]:
    return {
        "campaign": campaign,
        "status": stats.status.value,
        "processed": stats.processed,
        "affected": stats.affected,
        "cancelled": stats.cancelled,
        "finished": stats.finished,
        "failed": stats.failed,
        "successful": stats.successful,
        "failures": [
            {
                "code": failure.code,
                "count": failure.count,
                "retryStatus": "not_launched" if failure.retry is None else failure.retry.value,
            }
            for failure in stats.failures
        ],
    }
