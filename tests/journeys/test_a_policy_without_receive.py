"""A device whose policy lacks ``iot:Receive`` gets nothing: through the whole agent, and "why?" names the policy's gap."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from overair.agent.image_builder import build_image
from tests.support.device_process import DeviceProcess, command, wait_until
from tests.support.server_process import ServerProcess

QUIET_S = 2.0
"""How long the device is given to do what it must not do."""


def test_a_device_whose_policy_lacks_receive_sees_no_job_and_why_names_the_policy(
    server: ServerProcess, tmp_path: Path
) -> None:
    iot = server.client("iot")
    first, second = (build_image("deaf", version, "posix", payload=os.urandom(20_000)) for version in ("1.0.0", "2.0.0"))
    device = DeviceProcess(server, "deaf", tmp_path / "deaf").enroll(first)
    [certificate] = iot.list_thing_principals(thingName="deaf")["principals"]
    [policy] = iot.list_attached_policies(target=certificate)["policies"]
    document = json.loads(iot.get_policy(policyName=policy["policyName"])["policyDocument"])
    for statement in document["Statement"]:
        if "iot:Receive" in statement["Action"]:
            statement["Action"] = ["iot:Publish"]
    iot.create_policy(policyName="deaf", policyDocument=json.dumps(document))
    iot.attach_policy(policyName="deaf", target=certificate)
    iot.detach_policy(policyName=policy["policyName"], target=certificate)
    try:
        device.boot()

        def reasons() -> list[str]:
            return list(json.loads(command("overair.cli.main", "why", "deaf", "--json", "--data", server.data))["reasons"])

        wait_until(lambda: any("is connected" in reason for reason in reasons()), what=device.log)
        job = device.ship(second)
        time.sleep(QUIET_S)  # nothing happens, and nothing tells of it
        execution = device.execution(job)
        assert (execution["status"], execution["versionNumber"]) == ("QUEUED", 1)
        status = device.status()
        assert (status["version"], status["state"], status["job"]) == ("1.0.0", "valid", None)
        assert not list(device.directory.slots.glob("receiving*"))
        told = reasons()
        assert any(job in reason for reason in told), told
        gap = [reason for reason in told if "iot:Receive" in reason]
        assert gap, told
        assert "topic/$aws/things/deaf/jobs/" in gap[0]

        # Given back, the device takes its work: the policy was the only reason.
        iot.attach_policy(policyName=policy["policyName"], target=certificate)
        device.kill_image()  # a restart asks at once
        assert device.wait_for_end(job, timeout_s=90)["status"] == "SUCCEEDED", device.log()
        assert device.status()["version"] == "2.0.0"
    finally:
        device.stop()
