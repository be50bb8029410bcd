"""``overair-device provision``: a directory that the agent runs from, by a claim that an operator's template takes."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from overair.cli.device import device_policy
from overair.cli.device_main import main
from tests.support.authority import Authority
from tests.support.paho_device import PahoDevice
from tests.support.server_process import ServerProcess

OWN_CERTIFICATE = {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}


@dataclass
class Batch:
    """A template and a claim, as a factory holds them."""

    server: ServerProcess
    folder: Path
    template: str
    iot: Any

    def arguments(self, out: Path, serial: str, **instead: str) -> list[str]:
        endpoints = self.server.endpoints
        options = {
            "--server": f"{endpoints['mqtt_host']}:{endpoints['mqtt_port']}",
            "--ca": endpoints["ca_file"],
            "--claim-certificate": str(self.folder / "claim.pem"),
            "--claim-key": str(self.folder / "claim.key"),
            "--template": self.template,
            "--parameter": f"SerialNumber={serial}",
            "--trust": endpoints["signer_certificate_file"],
            **{f"--{name.replace('_', '-')}": value for name, value in instead.items()},
        }
        return ["provision", str(out), *(text for pair in options.items() for text in pair), "--json"]


@pytest.fixture
def batch(server: ServerProcess, tmp_path: Path) -> Batch:
    iot, name = server.client("iot"), f"batch-{uuid.uuid4().hex[:8]}"
    region, account = server.endpoints["region"], server.endpoints["account"]
    iot.create_policy(policyName=name, policyDocument=json.dumps(device_policy(region, account)))
    body = {
        "Parameters": {"SerialNumber": {"Type": "String"}},
        "Resources": {
            "certificate": {"Type": "AWS::IoT::Certificate", "Properties": OWN_CERTIFICATE},
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": name}},
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "SerialNumber"}}},
        },
        "DeviceConfiguration": {"site": "north"},
    }
    iot.create_provisioning_template(
        templateName=name,
        templateBody=json.dumps(body),
        provisioningRoleArn=f"arn:aws:iam::{account}:role/overair-ota",
        enabled=True,
    )
    claim = iot.create_provisioning_claim(templateName=name)
    (tmp_path / "claim.pem").write_text(claim["certificatePem"])
    (tmp_path / "claim.key").write_text(claim["keyPair"]["PrivateKey"])
    return Batch(server, tmp_path, name, iot)


def test_a_device_that_came_in_by_a_claim_connects_and_hears_of_its_jobs(
    batch: Batch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, serial = tmp_path / "device", f"meter-{uuid.uuid4().hex[:8]}"
    assert main(batch.arguments(out, serial)) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"thing": serial, "directory": str(out), "configuration": {"site": "north"}}
    pair = {
        "certificatePem": (out / "identity" / "certificate.pem").read_text(),
        "keyPair": {"PrivateKey": (out / "identity" / "private.key").read_text()},
    }
    with PahoDevice(batch.server.endpoints, tmp_path / "paho", serial, pair) as device:
        assert device.subscribe(f"$aws/things/{serial}/jobs/notify-next") == 1
    # Nobody takes a directory twice, and the claim stays where it was.
    assert main(batch.arguments(out, serial)) == 2
    assert "already holds a device" in capsys.readouterr().err
    assert (tmp_path / "claim.key").read_bytes() not in [path.read_bytes() for path in out.rglob("*") if path.is_file()]


def test_refusals_say_what_is_wrong_and_leave_no_device(
    batch: Batch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "device"
    (tmp_path / "other.pem").write_bytes(Authority().pem)
    for instead, status, said in (
        ({"parameter": "Colour=red"}, 2, "SerialNumber"),
        ({"template": "nobodys"}, 2, "doesn't let this claim subscribe"),
        ({"ca": str(tmp_path / "other.pem")}, 2, "isn't the server that was named"),
        ({"ca": str(tmp_path / "missing.pem")}, 2, "can't be read"),
        ({"server": "localhost"}, 2, "is no HOST:PORT"),
    ):
        assert main(batch.arguments(out, "meter-1", **instead)) == status, instead
        assert said in capsys.readouterr().err
        assert not (out / "device.json").exists()
