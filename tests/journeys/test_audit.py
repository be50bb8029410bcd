"""Every change that an operator makes over the real door leaves one record in the server's own records; reads and denials are
written down beside them; and whoever kept a signed head can check them all."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import urllib3
from botocore.exceptions import ClientError

from overair.cli.device import device_policy
from tests.support.device_process import wait_until
from tests.support.field_device import enroll
from tests.support.mqtt_over_tls import MqttOverTls, device_context
from tests.support.server_process import ServerProcess, overair


def heard(server: ServerProcess, **query: object) -> list[tuple[str, str]]:
    """(operation, resource) as the server lists them: the newest first."""
    records = server.client("overair").list_audit_records(**query)["records"]
    return [(f"{each['service']}:{each['operation']}", each["resource"]) for each in records]


def overair_command(*arguments: str, status: int = 0) -> str:
    """Standard output, and standard error where the command is to fail."""
    ended = overair(*arguments)
    assert ended.returncode == status, ended.stderr
    return ended.stdout if status == 0 else ended.stderr


def recorded(data: Path) -> list[tuple[str, str, str]]:
    """(operation, resource, principal) in the order of time."""
    (path,) = [file for file in data.rglob("*") if file.suffix in (".sqlite3", ".sqlite", ".db")]
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        query = (
            "SELECT service || ':' || operation, resource, principal_arn FROM audit_records WHERE kind = 'change' "
            "ORDER BY sequence"
        )
        return connection.execute(query).fetchall()


def test_each_change_leaves_its_record_and_reading_leaves_none(new_server: Callable[..., ServerProcess]) -> None:
    with new_server() as server:
        place = server.endpoints
        iot, s3, iam = (server.client(service) for service in ("iot", "s3", "iam"))
        arn = f"arn:aws:iot:{place['region']}:{place['account']}:"
        iot.create_thing(thingName="seen")
        iot.describe_thing(thingName="seen")
        iot.list_things()
        s3.put_object(Bucket=place["bucket"], Key="k", Body=b"top secret content")
        s3.get_object(Bucket=place["bucket"], Key="k")["Body"].read()
        iot.create_job(jobId="j", targets=[arn + "thing/seen"], document='{"token":"top secret content"}')
        iam.create_user(UserName="ann")
        secret = iam.create_access_key(UserName="ann")["AccessKey"]["SecretAccessKey"]
        for refused in (
            lambda: iot.create_thing(thingName="seen", attributePayload={"attributes": {"a": "b"}}),
            lambda: iot.delete_thing(thingName="seen", expectedVersion=77),
        ):
            try:
                refused()
            except ClientError:
                continue
            raise AssertionError("this should have been refused")
        root = f"arn:aws:iam::{place['account']}:root"
        rows = recorded(server.data)
        assert sorted(rows) == sorted(
            [
                ("iot:CreateThing", arn + "thing/seen", root),
                ("s3:PutObject", f"arn:aws:s3:::{place['bucket']}/k", root),
                ("iot:CreateJob", arn + "job/j", root),
                ("iam:CreateUser", f"arn:aws:iam::{place['account']}:user/ann", root),
                ("iam:CreateAccessKey", f"arn:aws:iam::{place['account']}:user/ann", root),
            ]
        )
        assert secret not in repr(rows)
        assert "top secret" not in repr(rows)


def test_operators_read_the_records_in_pages_and_only_who_may(server: ServerProcess) -> None:
    arn = f"arn:aws:iot:{server.endpoints['region']}:{server.endpoints['account']}:thing/"
    iot, iam, overair = server.client("iot"), server.client("iam"), server.client("overair")
    for name in ("audited-1", "audited-2", "audited-3"):
        iot.create_thing(thingName=name)
    newest = [("iot:CreateThing", f"{arn}audited-{number}") for number in (3, 2, 1)]
    assert heard(server, maxResults=3) == newest
    page = overair.list_audit_records(maxResults=2)
    rest = overair.list_audit_records(maxResults=1, nextToken=page["nextToken"])["records"]
    assert [each["resource"] for each in (*page["records"], *rest)] == [resource for _, resource in newest]
    record = page["records"][0]
    assert record["principalArn"].endswith(":root")
    assert record["accessKeyId"] == server.root_key()["access_key_id"]
    assert record["sourceIp"] == "127.0.0.1"
    since = page["records"][-1]["time"]
    assert newest[2] not in heard(server, since=since + timedelta(milliseconds=1)) or since == rest[0]["time"]
    assert newest[0] in heard(server, since=since)
    with pytest.raises(ClientError, match="InvalidRequestException"):
        overair.list_audit_records(nextToken="bm90IG91cnM=")
    iam.create_user(UserName="auditor")
    key = iam.create_access_key(UserName="auditor")["AccessKey"]
    secrets = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    with pytest.raises(ClientError, match="overair:ListAuditRecords"):
        server.client("overair", **secrets).list_audit_records()


def test_retaining_and_clearing_a_message_leave_records_and_passing_one_on_leaves_none(server: ServerProcess) -> None:
    data = server.client("iot-data")
    topic = f"arn:aws:iot:{server.endpoints['region']}:{server.endpoints['account']}:topic/audited/topic"
    data.publish(topic="audited/topic", payload=b"1", retain=True, qos=1)
    assert heard(server, maxResults=1) == [("iot-data:Publish", topic)]
    assert data.get_retained_message(topic="audited/topic")["payload"] == b"1"
    data.publish(topic="audited/topic", payload=b"2", qos=1)
    data.publish(topic="audited/topic", payload=b"", retain=True)
    assert heard(server, maxResults=3)[:2] == [("iot-data:Publish", topic)] * 2
    assert [each for each in heard(server, maxResults=250) if each[1] == topic] == [("iot-data:Publish", topic)] * 2


def test_reads_denials_and_key_uses_are_written_down_within_a_second_or_so(server: ServerProcess) -> None:
    iot, overair = server.client("iot"), server.client("overair")
    arn = f"arn:aws:iot:{server.endpoints['region']}:{server.endpoints['account']}:thing/only-read"
    iot.create_thing(thingName="only-read")
    iot.describe_thing(thingName="only-read")
    iam = server.client("iam")
    iam.create_user(UserName="nobody")
    key = iam.create_access_key(UserName="nobody")["AccessKey"]
    secrets = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    with pytest.raises(ClientError):
        server.client("iot", **secrets).delete_thing(thingName="only-read")
    secrets["aws_secret_access_key"] = "wrong" * 8
    with pytest.raises(ClientError):
        server.client("iot", **secrets).delete_thing(thingName="only-read")
    overair.sign_audit_head()

    def told(kind: str) -> list[tuple[str, str, str]]:
        found = overair.list_audit_records(kind=kind, maxResults=250)["records"]
        return [(each["operation"], each["resource"], each["principalArn"].rpartition("/")[2]) for each in found]

    def is_there() -> bool:
        root = f"arn:aws:iam::{server.endpoints['account']}:root"
        return (
            ("DescribeThing", arn, root) in told("read")
            and ("DeleteThing", "/things/only-read", "nobody") in told("denial")
            and any(who == "stranger" for _, _, who in told("denial"))
            and any(what.startswith("audit-head/") for _, what, _ in told("key-use"))
        )

    wait_until(is_there)
    chain = overair.list_audit_chain(maxResults=3)["records"]
    assert [each["sequence"] for each in chain] == [1, 2, 3]
    assert ("DeleteThing", arn) not in [(operation.partition(":")[2], resource) for operation, resource in heard(server)]


def test_what_devices_arent_let_do_and_what_links_fetch_is_written_down(server: ServerProcess, tmp_path: Path) -> None:
    iot, overair, endpoints = server.client("iot"), server.client("overair"), server.endpoints
    stem = f"arn:aws:iot:{endpoints['region']}:{endpoints['account']}:"
    name = f"denied-{uuid.uuid4().hex[:8]}"
    document = json.dumps(device_policy(endpoints["region"], endpoints["account"]))
    device = enroll(server, tmp_path / "device", name, policy_document=document)

    def connect(client_id: str) -> MqttOverTls:
        context = device_context(endpoints["ca_file"], device.certificate_file, device.key_file)
        return MqttOverTls(endpoints["mqtt_host"], endpoints["mqtt_port"], context, client_id)

    assert connect("somebody-else").connack.return_code != 0
    client = connect(name)
    client.publish("others/topic", b"x", qos=1)
    assert client.next() is None
    assert connect(name).subscribe(("others/#", 1)) is None
    with urllib3.PoolManager(
        ca_certs=endpoints["ca_file"], cert_file=str(device.certificate_file), key_file=str(device.key_file)
    ) as pool:

        def ask(method: str, url: str) -> int:
            return pool.request(method, url, body=b"" if method == "POST" else None, retries=False, timeout=60).status

        device_url = endpoints["device_url"]
        assert ask("POST", f"{device_url}/topics/others?qos=1") == 403
        assert ask("GET", f"{device_url}/things/others/jobs") == 403
        assert ask("GET", f"{device_url}/director/root.json") == 403
        s3 = server.client("s3", endpoint_url=device_url)
        server.client("s3").put_object(Bucket=endpoints["bucket"], Key=name, Body=b"content")
        link = s3.generate_presigned_url("get_object", Params={"Bucket": endpoints["bucket"], "Key": name}, ExpiresIn=60)
        assert ask("GET", link) == 200
        assert ask("GET", link + "0") == 403
    iot.update_certificate(certificateId=device.certificate_arn.rpartition("/")[2], newStatus="INACTIVE")
    assert connect(name).connack is None or connect(name).connack.return_code != 0

    def told() -> set[tuple[str, str, str]]:
        found = overair.list_audit_records(kind="denial", maxResults=250)["records"]
        mine = [each for each in found if each["principalArn"] == device.certificate_arn]
        assert {each["sourceIp"] for each in mine} <= {"127.0.0.1"}
        return {(each["service"], each["operation"], each["resource"].removeprefix(stem)) for each in mine}

    wanted = {
        ("mqtt", "Connect", "client/somebody-else"),
        ("mqtt", "Publish", "topic/others/topic"),
        ("mqtt", "Subscribe", "topicfilter/others/#"),
        ("device-https", "Publish", "topic/others"),
        ("device-https", "GetPendingJobExecutions", "thing/others"),
        ("device-https", "-", "/director/root.json"),
        ("mqtt", "Connect", f"client/{name}"),
    }
    wait_until(lambda: wanted <= told())
    strangers = overair.list_audit_records(kind="denial", maxResults=250)["records"]
    assert any((each["principalArn"], each["service"]) == ("stranger", "s3") for each in strangers)
    reads = overair.list_audit_records(kind="read", maxResults=250)["records"]
    assert f"arn:aws:s3:::{endpoints['bucket']}/{name}" in {
        each["resource"] for each in reads if each["operation"] == "GetObject"
    }


def test_an_auditor_checks_a_running_server_and_a_stopped_ones_file(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    kept = tmp_path / "head.json"
    with new_server() as server:
        server.client("iot").create_thing(thingName="seen")
        kept.write_text(overair_command("audit", "head", "--data", str(server.data)))
        server.client("iot").create_thing(thingName="seen-later")
        assert "holds" in overair_command("audit", "verify", "--head", str(kept), "--data", str(server.data))
        data = server.data
    offline = ("audit", "verify", "--head", str(kept), "--records", str(data / "records.sqlite3"))
    assert "holds" in overair_command(*offline)
    with closing(sqlite3.connect(data / "records.sqlite3")) as connection:
        connection.execute("UPDATE audit_records SET principal_arn = 'somebody else' WHERE operation = 'CreateThing'")
        connection.commit()
    assert "doesn't hold" in overair_command(*offline, status=2)
