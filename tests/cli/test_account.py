"""``overair account``: another account on the same server, in which everything works and which its maker can't look into."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from overair.agent.image_builder import build_image
from overair.cli.ends import CommandEnded, ExitCode
from tests.support.command_line import invoke
from tests.support.field_device import Device, Identity
from tests.support.server_process import ServerProcess

TRIES = 200


@pytest.fixture(autouse=True)
def _own_key_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "OVERAIR_DATA", "OVERAIR_ACCOUNT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def done(server: ServerProcess, *arguments: str | Path) -> Any:
    ran = invoke(*arguments, "--data", server.data, "--json")
    assert ran.exit_code == 0, (ran.output, ran.exception)
    return json.loads(ran.stdout)


def ended(server: ServerProcess, *arguments: str | Path) -> CommandEnded:
    ran = invoke(*arguments, "--data", server.data)
    assert isinstance(ran.exception, CommandEnded), (ran.output, ran.exception)
    return ran.exception


def test_a_device_gets_a_signed_image_in_an_account_of_its_own(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = done(server, "account", "create", "--name", "Second", "--out", "second")
    assert made["account"] != server.endpoints["account"]
    assert stat.S_IMODE((tmp_path / "second" / "root-key.json").stat().st_mode) == 0o600
    assert "secret_access_key" not in made
    for name, value in done(server, "env", "--account", "second").items():
        if name.startswith(("AWS_ACCESS", "AWS_SECRET", "OVERAIR_")):
            monkeypatch.setenv(name, value)
    told = done(server, "device", "enroll", "walled", "--out", tmp_path / "device")
    assert told["thing_arn"].split(":")[4] == made["account"]
    anchor = (tmp_path / "device" / "trust" / "signer.pem").read_text()
    assert anchor == (tmp_path / "second" / "signer.pem").read_text()
    assert anchor != Path(server.endpoints["signer_certificate_file"]).read_text()
    image = tmp_path / "app.zip"
    image.write_bytes(build_image("app", "2.0.0", "posix", self_test="pass"))
    done(server, "ship", image, "--to", "walled")
    identity = Identity(
        thing="walled",
        thing_arn=told["thing_arn"],
        certificate_arn="",
        certificate_id=told["certificate_id"],
        certificate_file=tmp_path / "device" / "identity" / "certificate.pem",
        key_file=tmp_path / "device" / "identity" / "private.key",
        policy="overair-device",
    )
    with Device(server, identity).connect() as device:
        waiting = threading.Event()
        for _ in range(TRIES):
            execution = device.ask(device.jobs("$next/get")).get("execution")
            if execution or waiting.wait(0.1):
                break
    assert execution is not None, "the account's own signer, stream and job have come together"
    # Who made the account sees nothing of it.
    things = [each["thingName"] for each in server.client("iot").list_things()["things"]]
    assert "walled" not in things
    with pytest.raises(server.client("iot").exceptions.ResourceNotFoundException):
        server.client("iot").describe_thing(thingName="walled")
    # And from within, nobody makes or counts accounts.
    for command in (("account", "list"), ("account", "create", "--out", tmp_path / "third")):
        assert ended(server, *command).code is ExitCode.REFUSED
    assert not (tmp_path / "third").exists()


def test_accounts_are_listed_and_a_number_is_given_once(server: ServerProcess, tmp_path: Path) -> None:
    made = done(server, "account", "create", "--account", "314159265358", "--name", "π")
    assert made["directory"] == "overair-account-314159265358"
    listed = {each["account"]: each for each in done(server, "account", "list")["accounts"]}
    assert (listed["314159265358"]["name"], listed["314159265358"]["first"]) == ("π", False)
    assert listed[server.endpoints["account"]]["first"] is True
    assert ended(server, "account", "create", "--account", "314159265358", "--out", tmp_path / "again").code is ExitCode.REFUSED
    assert ended(server, "account", "create", "--account", "012345678901", "--out", tmp_path / "x").code is ExitCode.REFUSED
    assert ended(server, "account", "create", "--account", "12", "--out", tmp_path / "x").code is ExitCode.USAGE
    assert ended(server, "account", "create", "--out", "overair-account-314159265358").code is ExitCode.USAGE
    assert ended(server, "account", "create", "--out", tmp_path / "no" / "where").code is ExitCode.USAGE
    assert ended(server, "env", "--account", tmp_path).code is ExitCode.REFUSED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["overair-account-314159265358"]
