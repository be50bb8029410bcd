"""Plain REST on the ports of a whole server, beside everything that was there before it."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest
import urllib3
from botocore.config import Config

from tests.support.listening import new_identity
from tests.support.operator_rest import OperatorRest
from tests.support.server_process import ServerProcess, new_client

PATHS_OF_DEVICES = [
    "/director/targets.json",
    "/repo/1.root.json",
    "/tuf/timestamp.json",
    "/core/installed",
    "/system_info",
    "/system_info/network",
    "/events",
    "/campaigner/campaigns",
    "/devices",
    "/.well-known/est/simplereenroll",
]


@pytest.fixture(scope="module")
def operator(server: ServerProcess) -> OperatorRest:
    iam = server.client("iam")
    iam.create_user(UserName="rest-operator")
    key = iam.create_access_key(UserName="rest-operator")["AccessKey"]
    return OperatorRest(
        server.endpoints["operator_url"],
        server.endpoints["ca_file"],
        client_id=key["AccessKeyId"],
        client_secret=key["SecretAccessKey"],
    )


def device_port(server: ServerProcess, **options: Any) -> urllib3.PoolManager:
    context = ssl.create_default_context(cafile=server.endpoints["ca_file"])
    if "files" in options:
        context.load_cert_chain(*options["files"])
    return urllib3.PoolManager(ssl_context=context, retries=False)


def test_an_operator_gets_a_token_and_is_known_by_it(operator: OperatorRest) -> None:
    reply = operator.ask("GET", "/api/v1/no/such/path")
    assert (reply.status, reply.code) == (404, "unknown_path")
    assert operator.ask("GET", "/api/v1/no/such/path", headers={"Authorization": "Bearer x"}).code == "invalid_token"


def test_buckets_named_like_plain_rests_paths_go_on_working(server: ServerProcess) -> None:
    """Header, query and Version 2 signatures for the object store lead there, whatever the path."""
    s3 = server.client("s3")
    for bucket, key in (("api", "v1/user_repo/root.json"), ("oauth2", "token")):
        s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key=key, Body=b"an object")
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"an object"
        http = urllib3.PoolManager(ssl_context=ssl.create_default_context(cafile=server.endpoints["ca_file"]), retries=False)
        for version in ("s3v4", "s3"):
            link = presigning(server, version).generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})
            assert http.request("GET", link).data == b"an object", version
        assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] == 9
        s3.delete_object(Bucket=bucket, Key=key)
        s3.delete_bucket(Bucket=bucket)


def presigning(server: ServerProcess, version: str, endpoint: str = "operator_url") -> Any:
    like = server.client("s3")
    keys = like._request_signer._credentials
    return new_client(
        "s3",
        endpoint_url=server.endpoints[endpoint],
        region_name=server.endpoints["region"],
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        config=Config(signature_version=version, s3={"addressing_style": "path"}),
    )


@pytest.mark.parametrize("bucket", ["repo", "devices", "director"])
def test_links_to_buckets_named_like_the_devices_paths_go_on_working(server: ServerProcess, bucket: str) -> None:
    s3 = server.client("s3")
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="image.bin", Body=b"an image")
    for version in ("s3v4", "s3"):
        presigner = presigning(server, version, "device_url")
        link = presigner.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "image.bin"})
        answer = device_port(server).request("GET", link)
        assert (answer.status, answer.data) == (200, b"an image"), version
    s3.delete_object(Bucket=bucket, Key="image.bin")
    s3.delete_bucket(Bucket=bucket)


@pytest.mark.parametrize("path", PATHS_OF_DEVICES)
def test_a_peer_without_a_certificate_is_refused_in_the_words_that_devices_read(server: ServerProcess, path: str) -> None:
    for method in ("GET", "PUT", "POST"):
        answer = device_port(server).request(method, server.endpoints["device_url"] + path, body=b"{}")
        told = json.loads(answer.data)
        assert (answer.status, told["code"]) == (401, "certificate_required")
        assert {"code", "description", "cause", "errorId"} <= set(told)


def test_a_certificate_that_nobody_here_issued_is_refused_with_its_code(server: ServerProcess, tmp_path: Path) -> None:
    stranger = device_port(server, files=new_identity("stranger").write(tmp_path))
    answer = stranger.request("GET", server.endpoints["device_url"] + "/director/1.root.json")
    assert answer.status in (401, 403)
    assert json.loads(answer.data)["code"].startswith(("certificate_", "foreign_"))


def test_other_paths_of_the_device_port_are_still_the_object_stores(server: ServerProcess) -> None:
    for path in ("/bucket/key", "/devices-of-others/key", "/repository/key"):
        answer = device_port(server).request("GET", server.endpoints["device_url"] + path)
        assert (answer.status, b"<Error>" in answer.data) == (403, True)
