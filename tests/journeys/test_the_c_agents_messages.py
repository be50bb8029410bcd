"""The literal messages of FreeRTOS's C agent from a job to its end, and what it must and must not hear in return.

Each payload is spelt as the agent spells it (wire reference §1.2, §4.4, §7.3); the agent subscribes to two topics only.
"""

from __future__ import annotations

import json
import queue
import uuid
from pathlib import Path

import cbor2
import pytest

from overair.wire.blocks import bitmap_for
from tests.support.device_process import wait_until
from tests.support.field_device import Device, Identity, enroll
from tests.support.server_process import ServerProcess

IMAGE = bytes(range(256)) * 1030 + b"the end"
BLOCK_SIZE_BYTES = 1024
TOTAL = -(-len(IMAGE) // BLOCK_SIZE_BYTES)
QUIET_S = 0.3


def ship(server: ServerProcess, identity: Identity) -> str:
    iot, endpoints, update = server.client("iot"), server.endpoints, f"c-{uuid.uuid4().hex[:8]}"
    version = server.client("s3").put_object(Bucket=endpoints["bucket"], Key=update, Body=IMAGE)["VersionId"]
    iot.create_ota_update(
        otaUpdateId=update,
        targets=[identity.thing_arn],
        roleArn=endpoints["ota_role_arn"],
        files=[
            {
                "fileName": "/device/updates",
                "fileLocation": {"s3Location": {"bucket": endpoints["bucket"], "key": update, "version": version}},
                "codeSigning": {"startSigningJobParameter": {"signingProfileName": endpoints["signing_profile"]}},
            }
        ],
    )

    def created() -> bool:
        info = iot.get_ota_update(otaUpdateId=update)["otaUpdateInfo"]
        assert info["otaUpdateStatus"] != "CREATE_FAILED", info
        return bool(info["otaUpdateStatus"] == "CREATE_COMPLETE")

    wait_until(created, what=server.log)
    return f"AFR_OTA-{update}"


def next_job(device: Device, token: str) -> dict[str, object]:
    """``$next/get`` with the agent's odd token; the answer comes under ``$next``, unsubscribed."""
    device.publish(device.jobs("$next/get"), json.dumps({"clientToken": token}, separators=(",", ":")).encode(), qos=1)
    _, raw = device.next_message(device.jobs("$next/get/accepted"))
    reply: dict[str, object] = json.loads(raw)
    assert reply["clientToken"] == token
    assert type(reply["timestamp"]) is int
    assert 1_700_000_000 < reply["timestamp"] < 10_000_000_000, "seconds, not milliseconds"
    assert len(raw) <= BLOCK_SIZE_BYTES + 1530
    return reply


def test_the_c_agents_road_from_a_job_to_its_end(server: ServerProcess, tmp_path: Path) -> None:
    identity = enroll(server, tmp_path, f"c-agent-{uuid.uuid4().hex[:8]}")
    with Device(server, identity) as device:
        device.subscribe(device.jobs("notify-next"), qos=1)
        assert set(next_job(device, f":{identity.thing}"[:54])) == {"clientToken", "timestamp"}, "nothing to do"
        job = ship(server, identity)
        told = json.loads(device.next_message(device.jobs("notify-next"))[1])
        assert told["execution"]["jobId"] == job
        execution = next_job(device, f":{identity.thing}"[:54])["execution"]
        assert isinstance(execution, dict)
        assert (execution["jobId"], execution["status"]) == (job, "QUEUED")
        assert "statusDetails" not in execution, "self_test in a fresh execution would start a self-test"
        stream = execution["jobDocument"]["afr_ota"]["streamname"]
        assert execution["jobDocument"]["afr_ota"]["files"][0]["filesize"] == len(IMAGE)

        base = f"$aws/things/{identity.thing}/streams/{stream}"
        device.subscribe(f"{base}/data/cbor", qos=0)
        missing, received = set(range(TOTAL)), b""
        while missing:
            bitmap = bitmap_for(missing).ljust(-(-TOTAL // 8), b"\0")
            # A map of six in the agent's order, its integers in their shortest form.
            request = b"\xa6accrdyaf\x00al\x19\x04\x00ao\x00ab" + cbor2.dumps(bitmap) + b"an\x01"
            device.publish(f"{base}/get/cbor", request)
            topic, raw = device.next_message()
            block = cbor2.loads(raw)
            assert (topic, block["i"], block["f"], block["c"]) == (f"{base}/data/cbor", min(missing), 0, "rdy")
            assert block["l"] == len(block["p"]) == min(BLOCK_SIZE_BYTES, len(IMAGE) - block["i"] * BLOCK_SIZE_BYTES)
            received += block["p"]
            missing.remove(block["i"])
            done = TOTAL - len(missing)
            if done == 1 or done % 64 == 0:
                progress = f'{{"status":"IN_PROGRESS","statusDetails":{{"receive":"{done}/{TOTAL}"}}}}'
                device.publish(device.jobs(f"{job}/update"), progress.encode())
                answer = json.loads(device.next_message(device.jobs(f"{job}/update/accepted"))[1])
                assert set(answer) == {"timestamp"}
        assert received == IMAGE
        ready = b'{"status":"IN_PROGRESS","statusDetails":{"self_test":"ready","updatedBy":"0x01000000"}}'
        device.publish(device.jobs(f"{job}/update"), ready, qos=1)
        device.next_message(device.jobs(f"{job}/update/accepted"))
        with pytest.raises(queue.Empty):  # no block too many, no notify-next of the same job: either would spoil its work
            device.next_message(timeout_s=QUIET_S)

    with Device(server, identity) as device:  # the new image
        device.subscribe(device.jobs("notify-next"), qos=1)
        execution = next_job(device, f":{identity.thing}"[:54])["execution"]
        assert isinstance(execution, dict)
        assert execution["statusDetails"] == {"self_test": "ready", "updatedBy": "0x01000000"}
        for payload in (
            b'{"status":"IN_PROGRESS","statusDetails":{"self_test":"active","updatedBy":"0x02000000"}}',
            b'{"status":"SUCCEEDED","statusDetails":{"reason":"accepted  v2.0.0","updatedBy":"  v1.0.0"}}',
        ):
            device.publish(device.jobs(f"{job}/update"), payload, qos=1)
        assert json.loads(device.next_message(device.jobs("notify-next"))[1]).get("execution", {}) == {}
    assert server.client("iot").describe_job(jobId=job)["job"]["status"] == "COMPLETED"


def test_an_update_of_an_empty_job_id_is_refused_and_the_connection_stays(server: ServerProcess, tmp_path: Path) -> None:
    """What the agent publishes when a block comes too late (checklist 63)."""
    identity = enroll(server, tmp_path, f"c-late-{uuid.uuid4().hex[:8]}")
    with Device(server, identity) as device:
        device.publish(device.jobs("/update"), b'{"status":"FAILED","statusDetails":{"reason":"rejected: 0x00000000"}}', qos=1)
        topic, raw = device.next_message()
        assert (topic, json.loads(raw)["code"]) == (device.jobs("/update/rejected"), "ResourceNotFound")
        assert "execution" not in next_job(device, "1:x")
        assert device.disconnected.empty()


def test_a_plain_job_of_a_wrong_progress_goes_on(server: ServerProcess, tmp_path: Path) -> None:
    """A rejected progress report stops nothing (checklist 57)."""
    identity = enroll(server, tmp_path, f"c-plain-{uuid.uuid4().hex[:8]}")
    job = f"job-{uuid.uuid4().hex[:8]}"
    server.client("iot").create_job(jobId=job, targets=[identity.thing_arn], document="{}")
    with Device(server, identity) as device:
        assert device.ask(device.jobs(f"{job}/update"), {"status": "IN_PROGRESS"})["_topic"].endswith("accepted")
        refused = device.ask(device.jobs(f"{job}/update"), {"status": "IN_PROGRESS", "expectedVersion": "1"})
        assert (refused["code"], refused["executionState"]["versionNumber"]) == ("VersionMismatch", 2)
        assert device.ask(device.jobs(f"{job}/update"), {"status": "SUCCEEDED", "expectedVersion": "2"})["_topic"].endswith(
            "accepted"
        )
