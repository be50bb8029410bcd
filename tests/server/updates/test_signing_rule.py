"""A group that takes only images which were signed away from the server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from overair.basics.errors import InvalidRequest
from overair.basics.ids import GroupName, JobId, ThingName
from overair.server.devices.model import SIGNING_RULE_ATTRIBUTE
from overair.server.devices.thing_groups import GroupSettings
from overair.server.jobs.model import JobPlan, TargetSelection
from tests.support.code_signing import Credential, credential
from tests.support.updates_road import UpdatesRoad

IMAGE = b"firmware 2.0.0 " * 100
RULED, FREE = GroupName("ruled"), GroupName("free")
AFR_OTA = json.dumps({"afr_ota": {"protocols": ["MQTT"], "files": []}})


@pytest.fixture(scope="module")
def offline() -> Credential:
    """Nobody has given this one's key to a server."""
    return credential()


def rule(value: str) -> GroupSettings:
    return GroupSettings(attributes={SIGNING_RULE_ATTRIBUTE: value})


def group(road: UpdatesRoad, name: str, *, parent: str | None = None, ruled: bool = False) -> str:
    """A group; its ARN."""
    road.work.run_blocking(
        lambda tx: road.registry.groups.create(
            tx,
            road.place,
            GroupName(name),
            parent=None if parent is None else GroupName(parent),
            settings=rule("offline") if ruled else None,
        )
    )
    return road.place.iot("thinggroup", name)


def join(road: UpdatesRoad, thing: str, name: str, *, guarded: bool = False) -> None:
    road.work.run_blocking(
        lambda tx: road.registry.groups.add(tx, road.account, GroupName(name), ThingName(thing), guarded=guarded)
    )


@pytest.fixture
def arns(road: UpdatesRoad) -> Mapping[str, str]:
    """``dev-r`` is in ``ruled`` by way of ``child``, and in ``mixed`` too; ``dev-1`` is in none of them."""
    road.registry.groups.watched_by(road.jobs.planner)
    road.registry.groups.guarded_by(road.jobs.signing_rule)
    found = {"above": group(road, "above"), "ruled": group(road, "ruled", parent="above", ruled=True)}
    found |= {"child": group(road, "child", parent="ruled"), "mixed": group(road, "mixed"), "free": group(road, "free")}
    found["thing"] = road.make_thing("dev-r")
    join(road, "dev-r", "child")
    join(road, "dev-r", "mixed")
    return found


def signed(by: Credential, *, inline: bool = True) -> dict[str, Any]:
    assert isinstance(by.key, ec.EllipticCurvePrivateKey)
    chain = {"certificateName": "/c.pem"} | ({"inlineDocument": by.certificate_pem.decode()} if inline else {})
    signature = {"inlineDocument": by.key.sign(IMAGE, ec.ECDSA(hashes.SHA256()))}
    return {"customCodeSigning": {"signature": signature, "certificateChain": chain}}


async def file(road: UpdatesRoad, signing: Mapping[str, Any] | None) -> dict[str, Any]:
    found = {"fileName": "fw", "fileLocation": await road.stored("fw.bin", IMAGE)}
    return found if signing is None else {**found, "codeSigning": signing}


async def executions(road: UpdatesRoad, thing: str) -> int:
    found = await road.work.read(
        lambda tx: road.jobs.executions.of_thing(
            tx, road.account, ThingName(thing), status=None, job=None, before=None, limit=9
        )
    )
    return len(found)


@pytest.mark.parametrize("target", ["ruled", "child", "above", "mixed", "thing"])
async def test_what_reaches_the_group_is_refused_by_name_unless_it_was_signed_elsewhere(
    road: UpdatesRoad, arns: Mapping[str, str], offline: Credential, target: str
) -> None:
    refusals = {
        "is unsigned": None,
        "by this server, with the signing profile ota_profile": road.signing_parameter(),
        "without its certificate": signed(offline, inline=False),
        "a key that this server holds": signed(road.signer),
    }
    for words, signing in refusals.items():
        with pytest.raises(InvalidRequest, match=words) as refused:
            await road.create(await file(road, signing), targets=[road.thing_arn, arns[target]])
        assert "thing group ruled" in refused.value.message
        assert arns[target] in refused.value.message
    await road.create(await file(road, signed(offline)), targets=[arns[target]])
    await road.drive()
    assert (await road.info())["otaUpdateStatus"] == "CREATE_COMPLETE"
    assert await executions(road, "dev-r") == 1


async def test_who_is_under_no_rule_gets_what_the_server_signed(road: UpdatesRoad, arns: Mapping[str, str]) -> None:
    await road.create(await file(road, road.signing_parameter()), targets=[road.thing_arn, arns["free"]])
    await road.drive()
    assert (await road.info())["otaUpdateStatus"] == "CREATE_COMPLETE"


async def test_a_rule_that_comes_while_the_update_is_made_ends_it(road: UpdatesRoad, arns: Mapping[str, str]) -> None:
    await road.create(await file(road, None), targets=[arns["free"]])
    await road.work.run(lambda tx: road.registry.groups.update(tx, road.account, FREE, rule("offline"), expected_version=None))
    await road.drive()
    info = await road.info()
    assert info["otaUpdateStatus"] == "CREATE_FAILED"
    assert "thing group free" in info["errorInfo"]["message"]


async def test_a_job_whose_images_nobody_has_looked_at_is_refused(road: UpdatesRoad, arns: Mapping[str, str]) -> None:
    def plan(name: str, document: str, target: str) -> JobPlan:
        return JobPlan(id=JobId(name), targets=(target,), document=document, target_selection=TargetSelection.CONTINUOUS)

    with pytest.raises(InvalidRequest, match="isn't known here"):
        await road.work.run(lambda tx: road.jobs.create(tx, road.place, plan("a", AFR_OTA, arns["ruled"])))
    await road.work.run(lambda tx: road.jobs.create(tx, road.place, plan("b", '{"note": "afr_ota"}', arns["ruled"])))
    await road.work.run(lambda tx: road.jobs.create(tx, road.place, plan("c", AFR_OTA, arns["free"])))
    with pytest.raises(InvalidRequest, match="thing group ruled"):
        await road.work.run(lambda tx: road.jobs.associate(tx, road.place, JobId("c"), [arns["mixed"]], comment=None))
    assert await executions(road, "dev-r") == 1


async def test_whoever_comes_under_the_rule_is_given_nothing_else_by_a_job_that_follows_a_group(
    road: UpdatesRoad, arns: Mapping[str, str], offline: Credential
) -> None:
    by_server = await file(road, road.signing_parameter())
    await road.create(by_server, targets=[arns["free"]], targetSelection="CONTINUOUS")
    await road.create(await file(road, signed(offline)), update="rel-8", targets=[arns["child"]], targetSelection="CONTINUOUS")
    await road.drive()
    assert await executions(road, "dev-r") == 1
    # An operator is told, and nothing has changed.
    with pytest.raises(InvalidRequest, match="AFR_OTA-rel-7 brings to thing group free"):
        join(road, "dev-r", "free", guarded=True)
    groups = await road.work.read(lambda tx: road.registry.groups.all_groups_of(tx, road.account, ThingName("dev-r")))
    assert FREE not in groups
    # Where a query or a template decides, the thing is in the group and is left out.
    join(road, "dev-r", "free")
    assert await executions(road, "dev-r") == 1
    # Others get theirs; and so does who joins, by what was signed elsewhere.
    road.make_thing("dev-2")
    join(road, "dev-2", "free", guarded=True)
    assert await executions(road, "dev-2") == 1
    road.make_thing("dev-3")
    join(road, "dev-3", "child", guarded=True)
    assert await executions(road, "dev-3") == 1


async def test_a_misspelt_rule_is_refused_and_an_empty_one_takes_it_away(road: UpdatesRoad, arns: Mapping[str, str]) -> None:
    def change(value: str) -> None:
        road.work.run_blocking(
            lambda tx: road.registry.groups.update(tx, road.account, RULED, rule(value), expected_version=None)
        )

    with pytest.raises(InvalidRequest, match="is misspelt"):
        change("ofline")
    with pytest.raises(InvalidRequest):
        await road.create(await file(road, None), targets=[arns["ruled"]])
    change("")
    await road.create(await file(road, None), targets=[arns["ruled"]])
