"""Each setting that changes what the server does, seen from outside: by a client, a device or the one line of a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import urllib3
from botocore.config import Config

from tests.support.field_device import Device, enroll
from tests.support.server_process import ServerProcess, overair

NewServer = Callable[..., ServerProcess]


def refused(*arguments: str) -> str:
    """The one line that ``overair up`` ends with; its exit status is 2 (refused)."""
    ended = overair("up", "--operator-port", "0", "--mqtt-port", "0", "--device-port", "0", *arguments)
    lines = ended.stderr.strip().splitlines()
    assert (ended.returncode, len(lines)) == (2, 1), ended.stderr
    return lines[0]


def granted(server: ServerProcess, folder: Path, filters: int) -> list[Any]:
    """What a device hears that subscribes to so many filters in one packet."""
    identity = enroll(server, folder, "wide")
    with Device(server, identity) as device:
        return device.subscribe(*(f"$aws/things/wide/jobs/{number}/get/accepted" for number in range(filters)))


def test_limits_aws_holds_devices_to_the_quotas_and_the_default_does_not(new_server: NewServer, tmp_path: Path) -> None:
    generous = new_server(name="generous").start()
    assert len(granted(generous, tmp_path / "g", 9)) == 9
    quotas = new_server("--limits", "aws", name="quotas").start()
    identity = enroll(quotas, tmp_path / "q", "wide")
    with Device(quotas, identity) as device:
        assert len(device.subscribe(*(f"$aws/things/wide/jobs/{number}/get/accepted" for number in range(8)))) == 8
        # A ninth filter in one packet is over AWS's quota: the connection is closed.
        device.client.subscribe([(f"$aws/things/wide/jobs/{number}/get/rejected", 1) for number in range(9)])
        assert device.disconnected.get(timeout=60) is not None


def test_a_passphrase_wraps_the_keys_and_only_it_opens_them(new_server: NewServer, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("correct horse battery staple\n")
    wrong.write_text("incorrect horse battery staple\n")
    server = new_server("--key-passphrase-file", str(right)).start()
    assert "file permissions" not in json.dumps(server.client("overair").describe_server()["warnings"])
    certificate = server.client("iot").create_keys_and_certificate()["certificateArn"]
    assert server.stop() == 0
    line = refused("--data", str(server.data), "--key-passphrase-file", str(wrong))
    assert "passphrase" in line
    assert "horse" not in line
    # Without any passphrase the keys stay shut too.
    assert "passphrase" in refused("--data", str(server.data))
    assert "passphrase" in refused("--data", str(server.data), "--key-passphrase-file", str(tmp_path / "absent"))
    server.start()
    assert server.client("iot").list_certificates()["certificates"][0]["certificateArn"] == certificate
    assert server.client("iot").create_keys_and_certificate()["certificatePem"]


def test_a_server_without_a_passphrase_says_that_file_permissions_are_all(new_server: NewServer) -> None:
    server = new_server().start()
    assert "file permissions" in json.dumps(server.client("overair").describe_server()["warnings"])


def test_links_signed_the_old_way_can_be_switched_off(new_server: NewServer) -> None:
    server = new_server("--no-presigned-v2").start()
    bucket = server.endpoints["bucket"]
    server.client("s3").put_object(Bucket=bucket, Key="k", Body=b"content")
    pool = urllib3.PoolManager(ca_certs=server.endpoints["ca_file"])
    old = server.client("s3", config=Config(signature_version="s3")).generate_presigned_url
    new = server.client("s3", config=Config(signature_version="s3v4")).generate_presigned_url
    link = old("get_object", Params={"Bucket": bucket, "Key": "k"})
    assert "AWSAccessKeyId=" in link
    answer = pool.request("GET", link)
    # As a region of AWS that never spoke Signature Version 2 says it.
    assert (answer.status, b"<Code>InvalidRequest</Code>" in answer.data) == (400, True)
    assert b"AWS4-HMAC-SHA256" in answer.data
    assert pool.request("GET", new("get_object", Params={"Bucket": bucket, "Key": "k"})).data == b"content"


def test_a_settings_file_is_read_and_flags_win_over_it(new_server: NewServer, tmp_path: Path) -> None:
    file = tmp_path / "overair.toml"
    file.write_text('region = "eu-central-1"\naccount = "210987654321"\nlog = "json"\nhost = ["127.0.0.1"]\n')
    server = new_server("--config", str(file), "--account", "111122223333").start()
    assert (server.endpoints["region"], server.endpoints["account"]) == ("eu-central-1", "111122223333")
    assert server.endpoints["operator_url"].startswith("https://127.0.0.1:")
    server.stop()
    assert all(json.loads(line) for line in server.log().splitlines())


def test_a_settings_file_with_an_unknown_name_is_a_usage_error(tmp_path: Path) -> None:
    file = tmp_path / "overair.toml"
    file.write_text('regoin = "eu-central-1"\n')
    ended = overair("up", "--data", tmp_path / "d", "--config", file)
    assert ended.returncode == 1
    assert "Did you mean region" in ended.stderr


def test_the_environment_sets_what_flags_leave_open(new_server: NewServer) -> None:
    server = new_server(OVERAIR_REGION="ap-south-1", OVERAIR_HOST="localhost,127.0.0.1,gateway.example").start()
    assert server.endpoints["region"] == "ap-south-1"


def test_download_links_in_documents_name_the_address_that_devices_see(new_server: NewServer) -> None:
    server = new_server("--download-url", "https://downloads.example:8443").start()
    endpoints = server.endpoints
    version = server.client("s3").put_object(Bucket=endpoints["bucket"], Key="image", Body=b"1")["VersionId"]
    thing = server.client("iot").create_thing(thingName="behind-a-balancer")["thingArn"]
    placeholder = f"${{aws:iot:s3-presigned-url:https://s3.amazonaws.com/{endpoints['bucket']}/image?versionId={version}}}"
    server.client("iot").create_job(
        jobId="linked",
        targets=[thing],
        document=json.dumps({"link": placeholder}),
        presignedUrlConfig={"roleArn": endpoints["ota_role_arn"], "expiresInSec": 3600},
    )
    data = server.client("iot-jobs-data")
    execution: dict[str, Any] = {}
    for _ in range(200):
        execution = data.describe_job_execution(jobId="$next", thingName="behind-a-balancer", includeJobDocument=True)
        if execution.get("execution"):
            break
    assert json.loads(execution["execution"]["jobDocument"])["link"].startswith("https://downloads.example:8443/")


@pytest.mark.parametrize(("flag", "value"), [("--limits", "some"), ("--log", "xml"), ("--region", "moon"), ("--account", "12")])
def test_a_value_that_a_setting_does_not_take_is_a_usage_error(tmp_path: Path, flag: str, value: str) -> None:
    ended = overair("up", "--data", tmp_path / "d", flag, value)
    assert ended.returncode == 1
    assert flag.strip("-") in ended.stderr
    assert not (tmp_path / "d").exists()
