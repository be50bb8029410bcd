"""The fleet is searched and counted, and a CONTINUOUS job on a dynamic group reaches whoever an attribute brings into it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.device_process import wait_until
from tests.support.field_device import Device, enroll
from tests.support.server_process import ServerProcess

FIELDS = [{"name": "attributes.size", "type": "Number"}, {"name": "jobs.*", "type": "String"}]
DOCUMENT = '{"operation":"reboot"}'


@pytest.fixture(scope="module")
def iot(server: ServerProcess) -> Iterator[Any]:
    """With things, connections, groups and the statuses of jobs indexed."""
    client = server.client("iot")
    client.update_indexing_configuration(
        thingIndexingConfiguration={
            "thingIndexingMode": "REGISTRY",
            "thingConnectivityIndexingMode": "STATUS",
            "customFields": FIELDS,
        },
        thingGroupIndexingConfiguration={"thingGroupIndexingMode": "ON"},
    )
    for index in ("AWS_Things", "AWS_ThingGroups"):
        wait_until(lambda index=index: client.describe_index(indexName=index)["indexStatus"] == "ACTIVE")
    yield client
    client.update_indexing_configuration(
        thingIndexingConfiguration={"thingIndexingMode": "OFF"},
        thingGroupIndexingConfiguration={"thingGroupIndexingMode": "OFF"},
    )


def names(iot: Any, query: str) -> list[str]:
    return [thing["thingName"] for thing in iot.search_index(queryString=query)["things"]]


def is_active(iot: Any, group: str) -> bool:
    return bool(iot.describe_thing_group(thingGroupName=group)["status"] == "ACTIVE")


def test_things_and_groups_are_searched_and_counted(iot: Any) -> None:
    iot.create_thing_type(thingTypeName="search-pump")
    for number in range(5):
        attributes = {"attributes": {"size": str(number * 10), "site": "Search-North" if number < 3 else "search-south"}}
        iot.create_thing(thingName=f"search-{number}", thingTypeName="search-pump", attributePayload=attributes)
    iot.create_thing_group(thingGroupName="search-plant", thingGroupProperties={"thingGroupDescription": "By the river"})
    iot.create_thing_group(thingGroupName="search-hall", parentGroupName="search-plant")
    iot.add_thing_to_thing_group(thingGroupName="search-hall", thingName="search-1")

    assert iot.list_indices()["indexNames"] == ["AWS_ThingGroups", "AWS_Things"]
    query = "attributes.site:search-north AND attributes.size>0"
    first = iot.search_index(queryString=query, maxResults=1)
    (thing,) = first["things"]
    assert (thing["thingName"], thing["thingTypeName"], thing["attributes"]["size"]) == ("search-1", "search-pump", "10")
    assert thing["thingGroupNames"] == ["search-hall", "search-plant"]
    assert thing["connectivity"] == {"connected": False}
    second = iot.search_index(queryString=query, maxResults=1, nextToken=first["nextToken"])
    assert [thing["thingName"] for thing in second["things"]] == ["search-2"]
    assert "nextToken" not in second
    (group,) = iot.search_index(indexName="AWS_ThingGroups", queryString="thingGroupDescription:river")["thingGroups"]
    assert (group["thingGroupName"], group["thingGroupDescription"]) == ("search-plant", "By the river")

    mine = {"queryString": "thingName:search-*", "aggregationField": "attributes.size"}
    statistics = iot.get_statistics(**mine)["statistics"]
    assert (statistics["count"], statistics["average"], statistics["maximum"]) == (5, 20.0, 40.0)
    assert statistics["stdDeviation"] == pytest.approx(200**0.5)
    assert iot.get_cardinality(**mine)["cardinality"] == 5
    assert iot.get_percentiles(**mine, percents=[50])["percentiles"] == [{"percent": 50.0, "value": 20.0}]
    buckets = iot.get_buckets_aggregation(
        queryString="thingName:search-*",
        aggregationField="registry.thingGroupNames",
        bucketsAggregationType={"termsAggregation": {"maxBuckets": 5}},
    )
    assert buckets["totalCount"] == 5
    assert {bucket["keyValue"]: bucket["count"] for bucket in buckets["buckets"]} == {"search-hall": 1, "search-plant": 1}
    told = iot.get_indexing_configuration()["thingIndexingConfiguration"]
    assert told["customFields"] == FIELDS
    assert {"name": "connectivity.connected", "type": "Boolean"} in told["managedFields"]


@pytest.mark.parametrize(
    ("operation", "members", "code"),
    [
        ("search_index", {"queryString": "shadow.reported.x:1"}, "InvalidQueryException"),
        ("search_index", {"queryString": "(a"}, "InvalidQueryException"),
        ("search_index", {"queryString": "a", "indexName": "Other"}, "InvalidRequestException"),
        ("search_index", {"queryString": "a", "queryVersion": "2016-01-01"}, "InvalidQueryException"),
        ("get_statistics", {"queryString": "*", "aggregationField": "attributes.no"}, "InvalidAggregationException"),
        ("create_dynamic_thing_group", {"thingGroupName": "bad", "queryString": "a:"}, "InvalidQueryException"),
        (
            "update_indexing_configuration",
            {"thingIndexingConfiguration": {"thingIndexingMode": "REGISTRY_AND_SHADOW"}},
            "InvalidRequestException",
        ),
    ],
)
def test_what_is_not_here_is_refused_by_name(iot: Any, operation: str, members: dict[str, Any], code: str) -> None:
    with pytest.raises(ClientError) as refused:
        getattr(iot, operation)(**members)
    assert refused.value.response["Error"]["Code"] == code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_a_continuous_job_on_a_dynamic_group_reaches_a_thing_that_an_attribute_brings_in(
    server: ServerProcess, iot: Any, tmp_path: Path
) -> None:
    identity = enroll(server, tmp_path, "joins-by-attribute")
    query = "attributes.channel:beta AND NOT jobs.joins-done:SUCCEEDED"
    made = iot.create_dynamic_thing_group(thingGroupName="joins-beta", queryString=query)
    assert (made["indexName"], made["queryVersion"]) == ("AWS_Things", "2017-09-30")
    wait_until(lambda: is_active(iot, "joins-beta"))
    iot.create_job(jobId="joins-job", targets=[made["thingGroupArn"]], document=DOCUMENT, targetSelection="CONTINUOUS")
    with Device(server, identity) as device:
        device.subscribe(device.jobs("notify-next"))
        wait_until(lambda: identity.thing in names(iot, "connectivity.connected:true"))
        iot.update_thing(thingName=identity.thing, attributePayload={"attributes": {"channel": "beta"}, "merge": True})
        told = json.loads(device.next_message(device.jobs("notify-next"))[1])
        assert told["execution"]["jobId"] == "joins-job"
        assert iot.list_things_in_thing_group(thingGroupName="joins-beta")["things"] == [identity.thing]
        assert names(iot, "jobs.joins-job:QUEUED") == [identity.thing]
        iot.update_thing(thingName=identity.thing, attributePayload={"attributes": {"channel": "stable"}, "merge": True})
        assert "execution" not in json.loads(device.next_message(device.jobs("notify-next"))[1])
        assert names(iot, "jobs.joins-job:REMOVED") == [identity.thing]
        # Another query lets it in again.
        iot.update_dynamic_thing_group(
            thingGroupName="joins-beta", thingGroupProperties={}, queryString="attributes.channel:stable"
        )
        wait_until(lambda: is_active(iot, "joins-beta"))
        told = json.loads(device.next_message(device.jobs("notify-next"))[1])
        assert told["execution"]["jobId"] == "joins-job"
        answer = device.ask(device.jobs("joins-job/update"), {"status": "SUCCEEDED"})
        assert answer["_topic"].endswith("/accepted")
        assert names(iot, "jobs.joins-job:SUCCEEDED") == [identity.thing]
    wait_until(lambda: names(iot, f"connectivity.disconnectReason:* AND thingName:{identity.thing}") == [identity.thing])
    with pytest.raises(ClientError, match="is a dynamic thing group"):
        iot.add_thing_to_thing_group(thingGroupName="joins-beta", thingName=identity.thing)
    iot.delete_dynamic_thing_group(thingGroupName="joins-beta")
    with pytest.raises(ClientError, match="not found"):
        iot.describe_thing_group(thingGroupName="joins-beta")
