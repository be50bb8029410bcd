"""A device that isn't what it was gets each CONTINUOUS update of its groups once more: real certificates, boto3 and MQTT."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import invoke
from tests.support.field_device import Device, Identity, enroll
from tests.support.server_process import ServerProcess


@dataclass
class Updated:
    """A device that has accepted 1.2.0, by a CONTINUOUS job of its group."""

    server: ServerProcess
    identity: Identity
    group: str
    job: str

    @property
    def iot(self) -> Any:
        return self.server.client("iot")

    def join(self) -> None:
        self.iot.add_thing_to_thing_group(thingGroupName=self.group, thingName=self.identity.thing)

    def attach(self) -> None:
        """A new certificate, as a factory gives it to a device that comes back."""
        made = self.iot.create_keys_and_certificate(setAsActive=True)
        self.iot.attach_policy(policyName=self.identity.policy, target=made["certificateArn"])
        self.iot.attach_thing_principal(thingName=self.identity.thing, principal=made["certificateArn"])
        self.identity.certificate_file.write_text(made["certificatePem"])
        self.identity.key_file.write_text(made["keyPair"]["PrivateKey"])
        self.identity = replace(self.identity, certificate_arn=made["certificateArn"], certificate_id=made["certificateId"])

    def does(self, device: Device, job: str, status: str, **details: str) -> None:
        answer = device.ask(device.jobs(f"{job}/update"), {"status": status, "statusDetails": details})
        assert answer["_topic"].endswith("/accepted"), answer

    def gets_it_once_more(self, before: str = "1.0.0") -> None:
        with Device(self.server, self.identity) as device:
            execution = device.ask(device.jobs("$next/get"))["execution"]
            assert (execution["jobId"], execution["executionNumber"], execution["status"]) == (self.job, 2, "QUEUED")
            self.does(device, self.job, "SUCCEEDED", reason="accepted  v1.2.0", updatedBy=f"  v{before}")
            assert "execution" not in device.ask(device.jobs("$next/get"))


@pytest.fixture
def updated(server: ServerProcess, tmp_path: Path) -> Updated:
    name = f"again-{uuid.uuid4().hex[:12]}"
    identity, iot = enroll(server, tmp_path, name), server.client("iot")
    group = iot.create_thing_group(thingGroupName=name)["thingGroupArn"]
    updated = Updated(server=server, identity=identity, group=name, job=f"update-{name}")
    updated.join()
    iot.create_job(jobId=updated.job, targets=[group], document="{}", targetSelection="CONTINUOUS")
    with Device(server, identity) as device:
        updated.does(device, updated.job, "SUCCEEDED", reason="accepted  v1.2.0", updatedBy="  v1.0.0")
        assert "execution" not in device.ask(device.jobs("$next/get"))
    return updated


def test_to_one_that_was_reset_and_reports_an_older_version(updated: Updated) -> None:
    other = f"other-{updated.group}"
    updated.iot.create_job(jobId=other, targets=[updated.identity.thing_arn], document="{}")
    with Device(updated.server, updated.identity) as device:
        updated.does(device, other, "IN_PROGRESS", self_test="ready", updatedBy="0x01000000")
        updated.does(device, other, "SUCCEEDED", reason="accepted  v1.1.0", updatedBy="  v1.0.0")
    updated.gets_it_once_more(before="1.1.0")


def test_to_one_that_was_deleted_and_made_again(updated: Updated) -> None:
    identity, iot = updated.identity, updated.iot
    iot.detach_thing_principal(thingName=identity.thing, principal=identity.certificate_arn)
    iot.delete_thing(thingName=identity.thing)
    iot.create_thing(thingName=identity.thing)
    iot.attach_thing_principal(thingName=identity.thing, principal=identity.certificate_arn)
    updated.join()
    updated.gets_it_once_more()


@pytest.mark.parametrize("how", ["detached", "INACTIVE", "REVOKED"])
def test_to_one_that_was_provisioned_again(updated: Updated, how: str) -> None:
    identity, iot = updated.identity, updated.iot
    if how == "detached":
        iot.detach_thing_principal(thingName=identity.thing, principal=identity.certificate_arn)
    else:
        iot.update_certificate(certificateId=identity.certificate_id, newStatus=how)
    updated.attach()
    updated.gets_it_once_more()


def test_not_to_one_whose_certificate_is_renewed_but_where_an_operator_says_so(updated: Updated) -> None:
    updated.attach()
    with Device(updated.server, updated.identity) as device:
        assert "execution" not in device.ask(device.jobs("$next/get"))
    command = ["resend", updated.identity.thing, "--data", str(updated.server.data)]
    said = invoke(*command, "--json")
    assert json.loads(said.stdout) == {"thing": updated.identity.thing, "jobs": [updated.job]}, said.exception
    again = updated.server.client("overair").resend_continuous_jobs(thingName=updated.identity.thing)
    assert again["jobIds"] == [], "it is pending now"
    assert "overair ship IMAGE" in invoke(*command).stdout
    updated.gets_it_once_more()
    assert updated.job in invoke(*command).stdout
