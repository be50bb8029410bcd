"""``overair device enroll``: a thing, a certificate and a policy for its own topics alone, and the device's directory."""

from __future__ import annotations

import json
import stat
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from overair.cli.device import enroll_device, own_topics_policy
from overair.cli.operator import operator_of
from tests.support.field_device import ANSWER_TIMEOUT_S, Device, Identity
from tests.support.server_process import ServerProcess, overair


def enroll(server: ServerProcess, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return overair("device", "enroll", *arguments, "--data", server.data)


def enrolled(server: ServerProcess, folder: Path, name: str, *flags: str) -> Identity:
    done = enroll(server, name, "--out", folder, "--json", *flags)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return Identity(
        thing=told["thing"],
        thing_arn=told["thing_arn"],
        certificate_arn="",
        certificate_id=told["certificate_id"],
        certificate_file=folder / "identity" / "certificate.pem",
        key_file=folder / "identity" / "private.key",
        policy="overair-device",
    )


def test_a_device_is_brought_into_the_registry_with_its_directory(server: ServerProcess, tmp_path: Path) -> None:
    out, iot = tmp_path / "device", server.client("iot")
    identity = enrolled(server, out, "enrolled-1", "--group", "enrolled-group", "--hardware-id", "board-7")
    assert identity.thing_arn == iot.describe_thing(thingName="enrolled-1")["thingArn"]
    [principal] = iot.list_thing_principals(thingName="enrolled-1")["principals"]
    assert principal.endswith(f":cert/{identity.certificate_id}")
    [attached] = iot.list_thing_principals_v2(thingName="enrolled-1")["thingPrincipalObjects"]
    assert attached["thingPrincipalType"] == "EXCLUSIVE_THING"
    assert iot.list_things_in_thing_group(thingGroupName="enrolled-group")["things"] == ["enrolled-1"]
    settings = json.loads((out / "device.json").read_bytes())
    assert (settings["thing_name"], settings["hardware_id"]) == ("enrolled-1", "board-7")
    assert settings["mqtt_port"] == server.endpoints["mqtt_port"]
    assert {path.name for path in out.iterdir()} >= {"device.json", "identity", "trust", "slots"}
    signer = Path(server.endpoints["signer_certificate_file"])
    assert (out / "trust" / signer.name).read_bytes() == signer.read_bytes()
    assert stat.S_IMODE((out / "identity" / "private.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((out / "identity").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "topic",
    ["$aws/things/enrolled-3/jobs/$next/get", "$aws/things/enrolled-3/streams/s/get/cbor", "anything/else", "$aws/rules/r/x"],
)
def test_its_policy_lets_it_speak_for_itself_alone(server: ServerProcess, tmp_path: Path, topic: str) -> None:
    identity = enrolled(server, tmp_path / "own", f"enrolled-{uuid.uuid4().hex[:8]}")
    with Device(server, identity) as device:
        assert "execution" not in device.ask(device.jobs("$next/get"))
        device.publish(topic, b"{}")
        device.disconnected.get(timeout=ANSWER_TIMEOUT_S)


def over_https(server: ServerProcess, identity: Identity) -> Any:
    """boto3 as a device has it: no key, no signature, its certificate in the handshake."""
    certificate = (str(identity.certificate_file), str(identity.key_file))
    config = Config(signature_version=UNSIGNED, client_cert=certificate, retries={"total_max_attempts": 1}, read_timeout=60)
    return server.client("iot-jobs-data", endpoint_url=server.endpoints["device_url"], config=config)


def test_it_does_its_own_jobs_over_https_and_nobody_elses(server: ServerProcess, tmp_path: Path) -> None:
    identity = enrolled(server, tmp_path / "own", f"own-{uuid.uuid4().hex[:8]}")
    other = enroll_device(operator_of(server.data), f"other-{uuid.uuid4().hex[:8]}", tmp_path / "other")
    device, jobs = over_https(server, identity), [f"over-https-{uuid.uuid4().hex}" for _ in range(2)]
    for job in jobs:
        server.client("iot").create_job(jobId=job, targets=[identity.thing_arn, other.thing_arn], document="{}")
    thing = identity.thing
    assert [each["jobId"] for each in device.get_pending_job_executions(thingName=thing)["queuedJobs"]] == jobs
    assert device.start_next_pending_job_execution(thingName=thing)["execution"]["jobId"] == jobs[0]
    assert device.describe_job_execution(thingName=thing, jobId=jobs[0])["execution"]["status"] == "IN_PROGRESS"
    device.update_job_execution(thingName=thing, jobId=jobs[0], status="SUCCEEDED")
    assert device.describe_job_execution(thingName=thing, jobId="$next")["execution"]["jobId"] == jobs[1]
    for call in (device.get_pending_job_executions, device.start_next_pending_job_execution):
        with pytest.raises(ClientError, match="AccessDenied"):
            call(thingName=other.thing)


@pytest.mark.parametrize("edited", [False, True])
def test_the_policy_of_an_earlier_version_gets_what_it_lacked_and_one_that_somebody_wrote_stays(
    server: ServerProcess, tmp_path: Path, edited: bool
) -> None:
    iot = server.client("iot")
    document = own_topics_policy(server.endpoints["region"], server.endpoints["account"])
    if edited:
        document["Statement"] = document["Statement"][:2]
    enroll_device(operator_of(server.data), f"first-{uuid.uuid4().hex[:8]}", tmp_path / "first")
    before = iot.create_policy_version(policyName="overair-device", policyDocument=json.dumps(document), setAsDefault=True)
    enroll_device(operator_of(server.data), f"next-{uuid.uuid4().hex[:8]}", tmp_path / "next")
    now = iot.get_policy(policyName="overair-device")
    try:
        assert (now["defaultVersionId"] == before["policyVersionId"]) is edited
        assert ("iot:UpdateJobExecution" in now["policyDocument"]) is not edited
    finally:
        iot.set_default_policy_version(policyName="overair-device", policyVersionId="1")
        for version in iot.list_policy_versions(policyName="overair-device")["policyVersions"]:
            if not version["isDefaultVersion"]:
                iot.delete_policy_version(policyName="overair-device", policyVersionId=version["versionId"])


def test_it_may_not_connect_under_another_name(server: ServerProcess, tmp_path: Path) -> None:
    identity = enrolled(server, tmp_path / "own", "enrolled-4")
    with pytest.raises(AssertionError, match="Not authorized"):
        Device(server, identity, client_id="enrolled-5").connect()


def test_a_directory_that_holds_a_device_and_a_name_that_breaks_the_rule_are_refused(
    server: ServerProcess, tmp_path: Path
) -> None:
    enrolled(server, tmp_path / "taken", "enrolled-6")
    again = enroll(server, "enrolled-7", "--out", tmp_path / "taken")
    assert (again.returncode, again.stdout) == (1, "")
    assert "already holds a device" in again.stderr
    odd = enroll(server, "not a name", "--out", tmp_path / "odd")
    assert odd.returncode == 2
    assert not (tmp_path / "odd").exists()


def test_a_directory_that_cannot_be_made_registers_nobody(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    refused = enroll(server, "enrolled-8", "--out", tmp_path / "file" / "device")
    assert refused.returncode == 1
    assert "can't be made" in refused.stderr
    things = server.client("iot").list_things()["things"]
    assert "enrolled-8" not in {thing["thingName"] for thing in things}


def test_why_names_the_statement_that_allows_and_says_what_no_statement_allows(server: ServerProcess, tmp_path: Path) -> None:
    name = f"asked-{uuid.uuid4().hex[:8]}"
    enrolled(server, tmp_path / "device", name)

    def why(*arguments: str) -> subprocess.CompletedProcess[str]:
        return overair("why", name, *arguments, "--data", server.data)

    own = f"$aws/things/{name}/jobs/j/update"
    told = json.loads(why("--may", "publish", "--on", own, "--json").stdout)
    [right] = told["rights"]
    assert (right["decision"], right["thingName"], right["certificateStatus"]) == ("ALLOWED", name, "ACTIVE")
    [deciding] = [each for each in right["statements"] if each["applies"]]
    assert (deciding["policyName"], deciding["effect"]) == ("overair-device", "Allow")
    foreign = why("--may", "publish", "--on", own.replace(name, "another"))
    assert foreign.returncode == 0, foreign.stderr
    shown = " ".join(foreign.stdout.split())
    assert "not allowed by any statement" in shown
    assert f"line {deciding['line']}) doesn't apply: it is about other resources" in shown
    assert why("--on", own).returncode == 1
