"""``overair device enroll``: a thing, a certificate and a policy for its own topics alone, and the device's directory."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.support.field_device import ANSWER_TIMEOUT_S, Device, Identity
from tests.support.server_process import ServerProcess, clean_environment


def enroll(server: ServerProcess, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "overair.cli.main", "device", "enroll", *map(str, arguments), "--data", str(server.data)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=clean_environment(),
    )


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
