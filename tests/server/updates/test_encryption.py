"""Updates whose images this server can't read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from overair.basics.errors import InvalidRequest
from overair.basics.ids import JobId, ThingName
from overair.server.devices.decryption_operator_api import DecryptionOperatorApi
from overair.server.jobs.device_api import JobTopics
from overair.server.jobs.model import Execution, JobPlan, JobStatus
from overair.wire.decryption_messages import Declaration, declare_topic
from overair.wire.job_messages import ExecutionStatus
from overair.wire.key_wrapping import key_id_of
from tests.server.explain.test_why import Room
from tests.support.code_signing import Credential, credential
from tests.support.encrypted import encrypted
from tests.support.jobs_room import FakeConnection, answer
from tests.support.updates_road import UpdatesRoad

IMAGE = b"firmware 2.0.0 " * 1000
KEY, OTHER = (ec.derive_private_key(number, ec.SECP256R1()).public_key() for number in (21, 22))


@pytest.fixture(scope="module")
def offline() -> Credential:
    return credential()


def signed(by: Credential) -> dict[str, Any]:
    """Over the image itself: what is streamed is encrypted."""
    assert isinstance(by.key, ec.EllipticCurvePrivateKey)
    chain = {"certificateName": "/c.pem", "inlineDocument": by.certificate_pem.decode()}
    return {
        "customCodeSigning": {
            "signature": {"inlineDocument": by.key.sign(IMAGE, ec.ECDSA(hashes.SHA256()))},
            "certificateChain": chain,
        }
    }


async def file(road: UpdatesRoad, data: bytes, signing: Any, name: str = "fw") -> dict[str, Any]:
    found = {"fileName": name, "fileLocation": await road.stored(f"{name}.bin", data)}
    return found if signing is None else {**found, "codeSigning": signing}


async def declare(road: UpdatesRoad, thing: str, *keys: ec.EllipticCurvePublicKey) -> dict[str, Any]:
    """As the device does it."""
    topics = JobTopics(work=road.work, jobs=road.jobs.device, clock=road.clock, decryption=road.registry.decryption)
    connection = FakeConnection(place=road.place)
    (reply,) = await answer(topics, connection, declare_topic(thing), Declaration(keys=keys, client_token="t").to_json())
    return {"topic": reply.topic, **json.loads(reply.payload)}


async def execution(road: UpdatesRoad, thing: str, job: str = "AFR_OTA-rel-7") -> Execution | None:
    found = await road.work.read(
        lambda tx: road.jobs.executions.of_thing(
            tx, road.account, ThingName(thing), status=None, job=JobId(job), before=None, limit=9
        )
    )
    return found[0] if found else None


async def test_only_things_that_can_read_it_are_offered_an_encrypted_image(road: UpdatesRoad, offline: Credential) -> None:
    for thing in ("dev-2", "dev-3", "dev-4"):
        road.make_thing(thing)
        await road.work.run(lambda tx, name=thing: road.registry.groups.add(tx, road.account, "fleet", ThingName(name)))  # type: ignore[misc,arg-type]
    assert (await declare(road, "dev-1", KEY, OTHER))["topic"].endswith("/accepted")
    await declare(road, "dev-2", OTHER)
    await declare(road, "dev-3")
    group = road.place.iot("thinggroup", "fleet")
    await road.create(await file(road, encrypted(IMAGE, KEY), signed(offline)), targets=[group])
    await road.drive()
    assert (await road.info())["additionalParameters"] == {"overair:encrypted": "true"}
    document = await road.document()
    assert document.files[0].size_bytes == len(encrypted(IMAGE, KEY))
    assert document.files[0].encryption is not None
    assert document.files[0].encryption.key_ids == (key_id_of(KEY).hex()[:16],)
    job = await road.work.read(lambda tx: road.jobs.find(tx, road.account, JobId("AFR_OTA-rel-7")))
    assert job.encrypted
    assert {status: count for status, count in job.counts.items() if count} == {
        ExecutionStatus.QUEUED: 1,
        ExecutionStatus.REJECTED: 3,
    }
    told = {}
    for thing in ("dev-2", "dev-3", "dev-4"):
        found = await execution(road, thing)
        assert found is not None
        assert (found.status, found.started_at) == (ExecutionStatus.REJECTED, None)
        assert found.status_details["refusedBy"] == "server"
        told[thing] = found.status_details["reason"]
        # The device hears nothing of it.
        assert await road.work.read(lambda tx, name=thing: road.jobs.device.next(tx, road.place, ThingName(name))) is None  # type: ignore[misc]
    assert "none of the keys" in told["dev-2"]
    assert "no decryption key any more" in told["dev-3"]
    assert "never declared" in told["dev-4"]
    pending = await road.work.read(lambda tx: road.jobs.device.next(tx, road.place, ThingName("dev-1")))
    assert pending is not None
    assert pending.document is not None
    # Why says it, to whom has it and to whom hasn't.
    why = Room(road)
    refused = " ".join(await why.why("dev-4"))
    assert "was not given job AFR_OTA-rel-7" in refused
    assert "never declared" in refused
    assert "overair-device decryption" in refused
    assert key_id_of(OTHER).hex()[:16] in " ".join(await why.why("dev-2"))
    assert "decrypts images with" in " ".join(await why.why("dev-1"))


async def test_a_job_that_nobody_can_read_has_ended_when_it_is_made(road: UpdatesRoad, offline: Credential) -> None:
    await road.create(await file(road, encrypted(IMAGE, KEY), signed(offline)))
    await road.drive()
    job = await road.work.read(lambda tx: road.jobs.find(tx, road.account, JobId("AFR_OTA-rel-7")))
    assert job.status is JobStatus.COMPLETED
    assert job.counts[ExecutionStatus.REJECTED] == 1


async def test_a_thing_that_declares_later_is_given_it_by_another_job_over_the_same_document(
    road: UpdatesRoad, offline: Credential
) -> None:
    """``overair retry`` copies the document: what it says of its recipients holds there too."""
    await road.create(await file(road, encrypted(IMAGE, KEY), signed(offline)))
    await road.drive()
    text = await road.work.read(lambda tx: road.jobs.document(tx, road.account, JobId("AFR_OTA-rel-7")))

    async def again(name: str) -> Execution:
        plan = JobPlan(id=JobId(name), targets=(road.thing_arn,), document=text)
        await road.work.run(lambda tx: road.jobs.create(tx, road.place, plan))
        found = await execution(road, "dev-1", name)
        assert found is not None
        return found

    assert (await again("retry-1")).status is ExecutionStatus.REJECTED
    await declare(road, "dev-1", KEY)
    assert (await again("retry-2")).status is ExecutionStatus.QUEUED
    for wrong in ({"format": 1}, {"format": 1, "keyIds": ["x"]}, 1, {"keyIds": ["0" * 16]}):
        document = json.loads(text)
        document["afr_ota"]["files"][0]["encrypted"] = wrong
        plan = JobPlan(id=JobId("wrong"), targets=(road.thing_arn,), document=json.dumps(document))
        with pytest.raises(InvalidRequest, match="encrypted"):
            await road.work.run(lambda tx, plan=plan: road.jobs.create(tx, road.place, plan))  # type: ignore[misc]


async def test_whoever_joins_later_is_judged_then_and_again_when_it_declares_a_key(
    road: UpdatesRoad, offline: Credential
) -> None:
    for thing in ("dev-2", "dev-3"):
        road.make_thing(thing)
    await declare(road, "dev-1", KEY)
    await declare(road, "dev-2", KEY)
    road.registry.groups.watched_by(road.jobs.planner)
    group = road.place.iot("thinggroup", "fleet")
    await road.create(await file(road, encrypted(IMAGE, KEY), signed(offline)), targets=[group], targetSelection="CONTINUOUS")
    await road.drive()
    for thing in ("dev-2", "dev-3"):
        await road.work.run(lambda tx, name=thing: road.registry.groups.add(tx, road.account, "fleet", ThingName(name)))  # type: ignore[misc,arg-type]
    states = {}
    for thing in ("dev-1", "dev-2", "dev-3"):
        found = await execution(road, thing)
        states[thing] = None if found is None else found.status
    assert states == {"dev-1": ExecutionStatus.QUEUED, "dev-2": ExecutionStatus.QUEUED, "dev-3": ExecutionStatus.REJECTED}
    # A new device is in its group before it has ever spoken: as soon as it has a key, the job comes to it.
    await declare(road, "dev-3", OTHER)
    refused = await execution(road, "dev-3")
    assert refused is not None
    assert (refused.status, refused.number) == (ExecutionStatus.REJECTED, 1)
    await declare(road, "dev-3", OTHER, KEY)
    offered = await execution(road, "dev-3")
    assert offered is not None
    assert (offered.status, offered.number, offered.status_details) == (ExecutionStatus.QUEUED, 2, {})
    job = await road.work.read(lambda tx: road.jobs.find(tx, road.account, JobId("AFR_OTA-rel-7")))
    assert {status: count for status, count in job.counts.items() if count} == {ExecutionStatus.QUEUED: 3}


@pytest.mark.parametrize("how", ["unsigned", "profile", "cut off", "another format", "garbage"])
async def test_what_no_device_could_use_is_refused_when_it_is_created(road: UpdatesRoad, offline: Credential, how: str) -> None:
    whole = encrypted(IMAGE, KEY)
    signing: Any = {"unsigned": None, "profile": road.signing_parameter()}.get(how, signed(offline))
    data = {"cut off": whole[:-1], "another format": whole[:7] + b"\2" + whole[8:], "garbage": whole[:12] + bytes(400)}.get(
        how, whole
    )
    words = {"unsigned": "is encrypted and unsigned", "profile": "is encrypted and to be signed here", "cut off": "are stored"}
    with pytest.raises(InvalidRequest, match=words.get(how, "can't be read as one")):
        await road.create(await file(road, data, signing))


async def test_the_signature_of_a_plain_image_is_checked_as_ever(road: UpdatesRoad, offline: Credential) -> None:
    with pytest.raises(InvalidRequest, match="doesn't verify"):
        await road.create(await file(road, IMAGE + b"x", signed(offline)))
    await road.create(
        await file(road, IMAGE, signed(offline)), await file(road, encrypted(IMAGE, KEY), signed(offline), name="second")
    )
    await road.drive()
    document = await road.document()
    assert [each.encryption is None for each in document.files] == [True, False]


async def test_a_declaration_that_can_not_be_read_is_rejected_and_one_of_a_stranger_too(road: UpdatesRoad) -> None:
    topics = JobTopics(work=road.work, jobs=road.jobs.device, clock=road.clock, decryption=road.registry.decryption)
    for payload in (b"{", b'{"keys":[],"formats":[]}'):
        (reply,) = await answer(topics, FakeConnection(place=road.place), declare_topic("dev-1"), payload)
        assert reply.topic.endswith("/declare/rejected")
    assert (await declare(road, "nobody", KEY))["code"] == "ResourceNotFound"
    (reply,) = await answer(
        JobTopics(work=road.work, jobs=road.jobs.device, clock=road.clock),
        FakeConnection(place=road.place),
        declare_topic("dev-1"),
        Declaration(keys=(KEY,)).to_json(),
    )
    assert json.loads(reply.payload)["code"] == "InvalidTopic"


async def test_an_operator_lists_keys_page_by_page_or_of_one_thing(road: UpdatesRoad) -> None:
    for thing in ("a", "b", "c", "d"):
        road.make_thing(thing)
    for thing in ("c", "a", "b"):
        await declare(road, thing, KEY)
    door = DecryptionOperatorApi(work=road.work, decryption=road.registry.decryption)
    first = await door.list_decryption_keys(road.caller(), {"maxResults": 2})
    assert [each["thingName"] for each in first["things"]] == ["a", "b"]
    rest = await door.list_decryption_keys(road.caller(), {"maxResults": 2, "nextToken": first["nextToken"]})
    assert [each["thingName"] for each in rest["things"]] == ["c"]
    assert rest["nextToken"] is None
    (one,) = (await door.list_decryption_keys(road.caller(), {"thingName": "b"}))["things"]
    assert one["keys"][0]["keyId"] == key_id_of(KEY).hex()
    assert (await door.list_decryption_keys(road.caller(), {"thingName": "d"}))["things"] == []
