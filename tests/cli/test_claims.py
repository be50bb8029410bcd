"""``overair credentials claim`` and ``overair device policy``: what an operator makes for a batch of devices."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from typer.testing import CliRunner

from overair.agent.device_directory import DeviceDirectory, read_settings
from overair.agent.identity_keeper import IdentityKeeper
from overair.basics.clock import SettableClock, from_datetime
from overair.cli.credentials import app as credentials
from overair.cli.device import app as device
from overair.cli.device_main import main
from tests.support.server_process import ServerProcess

BODY = {
    "Parameters": {"SerialNumber": {"Type": "String"}},
    "Resources": {
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
        },
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "overair-device"}},
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {"ThingName": {"Ref": "SerialNumber"}, "ThingPrincipalType": "EXCLUSIVE_THING"},
        },
    },
}


@pytest.fixture
def template(server: ServerProcess) -> str:
    name = f"batch-{uuid.uuid4().hex[:8]}"
    shown = CliRunner().invoke(device, ["policy", "--data", str(server.data), "--json"])
    assert json.loads(shown.stdout)["policy"] == "overair-device", shown.output
    server.client("iot").create_provisioning_template(
        templateName=name,
        templateBody=json.dumps(BODY),
        provisioningRoleArn=server.endpoints["ota_role_arn"],
        enabled=True,
    )
    return name


@pytest.mark.parametrize("flags", [[], ["--temporary"]], ids=["lasting", "temporary"])
def test_a_batch_comes_in_by_a_folder_that_one_command_made(
    server: ServerProcess, template: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    out = tmp_path / "claim"
    asked = ["claim", "--template", template, "--out", str(out), "--data", str(server.data), "--json", *flags]
    made = CliRunner().invoke(credentials, asked)
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    assert (told["template"], told["expires_at"] is None) == (template, not flags)
    assert (out / "claim.key").stat().st_mode & 0o777 == 0o600
    for serial in (f"meter-{uuid.uuid4().hex[:8]}", f"meter-{uuid.uuid4().hex[:8]}"):
        device_directory = tmp_path / serial
        assert main(["provision", str(device_directory), "--claim", str(out), "--parameter", f"SerialNumber={serial}"]) == 0
        assert f"is {serial}, a device of" in capsys.readouterr().out
        assert (device_directory / "trust" / "signer.pem").read_bytes() == (out / "trust" / "signer.pem").read_bytes()
        assert server.client("iot").list_thing_principals(thingName=serial)["principals"]


def test_a_device_that_came_in_by_a_claim_renews_its_certificate(
    server: ServerProcess, template: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, serial = tmp_path / "claim", f"meter-{uuid.uuid4().hex[:8]}"
    asked = ["claim", "--template", template, "--out", str(out), "--data", str(server.data)]
    assert CliRunner().invoke(credentials, asked).exit_code == 0
    directory = DeviceDirectory(tmp_path / serial)
    assert main(["provision", str(directory.root), "--claim", str(out), "--parameter", f"SerialNumber={serial}"]) == 0
    before = x509.load_pem_x509_certificate(directory.certificate_file.read_bytes())
    life = before.not_valid_after_utc - before.not_valid_before_utc
    clock = SettableClock(from_datetime(before.not_valid_before_utc + life * 0.9))
    told: list[None] = []
    keeper = IdentityKeeper(
        directory, read_settings(directory), clock=clock, chance=Random(1), changed=lambda: told.append(None)
    )
    assert keeper.round()
    after = x509.load_pem_x509_certificate(directory.certificate_file.read_bytes())
    assert (after != before, after.public_key() != before.public_key(), told) == (True, True, [None])
    assert len(server.client("iot").list_thing_principals(thingName=serial)["principals"]) == 2


def test_a_claim_that_was_ended_lets_nobody_in(
    server: ServerProcess, template: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "claim"
    made = CliRunner().invoke(
        credentials, ["claim", "--template", template, "--out", str(out), "--data", str(server.data), "--json"]
    )
    certificate = json.loads(made.stdout)["certificate_id"]
    server.client("iot").update_certificate(certificateId=certificate, newStatus="INACTIVE")
    device_directory = tmp_path / "device"
    asked = ["provision", str(device_directory), "--claim", str(out), "--parameter", "SerialNumber=meter-x"]
    assert main([*asked, "--timeout-s", "1"]) in (2, 5)
    assert not (device_directory / "device.json").exists()


def test_a_claim_that_can_not_be_made_leaves_nothing(server: ServerProcess, tmp_path: Path) -> None:
    for flags in ([], ["--temporary"]):
        asked = ["claim", "--template", "nobodys", "--out", str(tmp_path / "claim"), "--data", str(server.data), *flags]
        refused = CliRunner().invoke(credentials, asked)
        assert refused.exit_code != 0
        assert not (tmp_path / "claim").exists()
    (tmp_path / "claim").mkdir()
    again = CliRunner().invoke(credentials, ["claim", "--template", "t", "--out", str(tmp_path / "claim")])
    assert again.exit_code != 0
    assert (tmp_path / "claim").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "JSON"),
        ('{"format": 2}', "format"),
        ('{"format": 1, "host": "a b", "port": 1, "template": "t"}', "host must be"),
        ('{"format": 1, "host": "a", "port": 0, "template": "t"}', "host must be"),
        ('{"format": 1, "host": "a", "port": 1, "template": 1}', "template must be"),
    ],
)
def test_a_folder_that_is_no_claim_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str) -> None:
    (tmp_path / "claim.json").write_text(text)
    assert main(["provision", str(tmp_path / "d"), "--claim", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_without_a_folder_everything_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["provision", str(tmp_path / "d"), "--server", "localhost:8883"]) == 2
    assert "--ca, --claim-certificate, --claim-key, --template" in capsys.readouterr().err
