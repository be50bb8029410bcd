"""``overair devices``: by which way each device came in."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from typer.testing import CliRunner

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.main import app
from tests.support.server_process import ServerProcess


@pytest.fixture(autouse=True)
def _own_key_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "OVERAIR_DATA"):
        monkeypatch.delenv(name, raising=False)


def devices(server: ServerProcess, *options: str) -> Any:
    ran = CliRunner().invoke(app, ["devices", *options, "--data", str(server.data)])
    if ran.exit_code != 0:
        raise ran.exception or AssertionError(ran.output)
    return ran.stdout


def test_devices_are_listed_with_what_let_them_in(server: ServerProcess) -> None:
    name = f"dev-{uuid.uuid4().hex[:8]}"
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, SHA256())
    template = {
        "Resources": {
            "t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": name}},
            "c": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateSigningRequest": request.public_bytes(serialization.Encoding.PEM).decode()},
            },
        }
    }
    server.client("iot").register_thing(templateBody=json.dumps(template))
    told = json.loads(devices(server, "--origin", "operator-template", "--json"))["devices"]
    answered = server.client("overair").list_provisioned_devices(origin="operator-template", maxResults=250)["devices"]
    assert name in {each["thingName"] for each in answered}
    [device] = [each for each in told if each["thing"] == name]
    assert (device["origin"], device["template"], device["blocked"]) == ("operator-template", None, False)
    assert device["from"] == "127.0.0.1"
    lines = devices(server, "--origin", "operator-template").splitlines()
    assert lines[0].split() == ["thing", "since", "(UTC)", "from", "came", "by"]
    [line] = [line for line in lines if line.startswith(name)]
    assert line.split()[-2:] == ["127.0.0.1", "operator-template"]
    assert "No device" in devices(server, "--template", "nothing-came-by-this")
    with pytest.raises(CommandEnded) as ended:
        devices(server, "--template", "t", "--ca", "0" * 64)
    assert ended.value.code is ExitCode.USAGE
