"""Devices renew their certificates and the server its authority, steered by boto3 and our own commands."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from random import Random
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from overair.agent.device_directory import DeviceDirectory, read_settings
from overair.agent.identity_keeper import IdentityKeeper
from overair.agent.mqtt_transport import MqttTransport, device_context
from overair.agent.tls import tls_context
from overair.basics.clock import Instant, SettableClock, WallClock
from overair.cli.device import enroll_device
from overair.cli.operator import operator_of
from tests.support import pki
from tests.support.device_process import command, wait_until
from tests.support.server_process import ServerProcess

TIMEOUT_S = 60
YEAR_MS = 365 * 86_400_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One of its own: its authority changes."""
    with ServerProcess(tmp_path_factory.mktemp("renewal") / "data") as served:
        yield served


class Device:
    """Our agent's connection and the keeper of its identity, without the agent between them."""

    def __init__(self, server: ServerProcess, root: Path, name: str) -> None:
        enroll_device(operator_of(server.data), name, root / name)
        self.name = name
        self.directory = DeviceDirectory(root / name)
        self.settings = read_settings(self.directory)
        self.clock = SettableClock(Instant(WallClock().now()))
        self.connections: Queue[None] = Queue()
        self.transport = MqttTransport(self.directory, self.settings, version="1", chance=Random(1))
        self.keeper = IdentityKeeper(
            self.directory, self.settings, clock=self.clock, chance=Random(2), changed=self.transport.identity_changed
        )

    def connect(self) -> Device:
        self.transport.start(self)
        self.connections.get(timeout=TIMEOUT_S)
        return self

    def connected(self) -> None:
        self.connections.put(None)

    def received(self, topic: str, payload: bytes) -> None:
        pass

    def is_in(self) -> bool:
        """Whether the connection that stands carries a message there and its acknowledgement back."""
        topic = f"$aws/things/{self.name}/jobs/get"
        return self.transport.publish(topic, b"{}", qos=1, timeout_s=TIMEOUT_S)

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificates(self.directory.certificate_file.read_bytes())[0]

    @property
    def trusted(self) -> set[x509.Certificate]:
        return set(x509.load_pem_x509_certificates(self.directory.ca_file(self.settings).read_bytes()))

    def stop(self) -> None:
        self.transport.stop()
        self.keeper.stop()


def run(*arguments: object) -> bytes:
    ended = subprocess.run([str(each) for each in arguments], capture_output=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout


def overair(server: ServerProcess, *arguments: object) -> Any:
    return json.loads(command("overair.cli.main", *[str(each) for each in arguments], "--json", "--data", server.data))


def test_our_agent_renews_itself_connects_with_the_new_certificate_and_the_old_one_is_good_meanwhile(
    server: ServerProcess, tmp_path: Path
) -> None:
    device = Device(server, tmp_path, "renewing").connect()
    old = device.certificate
    old_context = device_context(device.directory, device.settings)
    assert not device.keeper.round()
    assert device.certificate == old
    device.clock.set(Instant(device.clock.now() + 20 * YEAR_MS))  # of 23
    assert device.keeper.round()
    assert device.certificate != old
    assert device.certificate.public_key() != old.public_key()
    device.connections.get(timeout=TIMEOUT_S)
    assert device.is_in()
    (found,) = [each for each in overair(server, "renewal", "list")["renewals"] if each["things"] == ["renewing"]]
    assert found["state"] == "overlapping"
    iot = server.client("iot")
    principals = iot.list_thing_principals(thingName="renewing")["principals"]
    assert {each.rpartition("/")[2] for each in principals} == {found["certificate_id"], found["replaces"]}
    policies = [iot.list_attached_policies(target=each)["policies"] for each in principals]
    assert policies[0] == policies[1] != []
    # The old pair, which another copy may still hold, is good until it retires.
    host, port = server.endpoints["device_url"].removeprefix("https://").rsplit(":", 1)
    assert ask(host, int(port), old_context, "/.well-known/est/csrattrs").startswith(b"HTTP/1.1 200")
    device.stop()


def ask(host: str, port: int, context: ssl.SSLContext, path: str) -> bytes:
    with (
        socket.create_connection((host, port), timeout=TIMEOUT_S) as raw,
        context.wrap_socket(raw, server_hostname=host) as tls,
    ):
        tls.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := tls.recv(65_536):
            answer += piece
    return answer


def shown_at(server: ServerProcess) -> str:
    """What the device port shows now."""
    host, port = server.endpoints["device_url"].removeprefix("https://").rsplit(":", 1)
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port))).encode()).fingerprint(SHA256()).hex()


def test_openssl_and_curl_renew_a_certificate(server: ServerProcess, tmp_path: Path) -> None:
    enroll_device(operator_of(server.data), "curled", tmp_path / "d")
    identity, url = tmp_path / "d" / "identity", f"{server.endpoints['device_url']}/.well-known/est"
    curl = ("curl", "-sS", "--fail", "--cacert", identity / "ca.pem")
    shown = ("--cert", identity / "certificate.pem", "--key", identity / "private.key")
    key, request = tmp_path / "new.key", tmp_path / "new.csr"
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    run("openssl", "req", "-new", "-key", key, "-subj", "/CN=curled", "-outform", "DER", "-out", tmp_path / "new.der")
    run("openssl", "base64", "-in", tmp_path / "new.der", "-out", request)
    sent = ("-H", "Content-Type: application/pkcs10", "--data-binary", f"@{request}")
    answer = run(*curl, *shown, *sent, f"{url}/simplereenroll")
    (tmp_path / "answer.b64").write_bytes(answer)
    run("openssl", "base64", "-d", "-in", tmp_path / "answer.b64", "-out", tmp_path / "answer.p7")
    pem = run("openssl", "pkcs7", "-inform", "DER", "-in", tmp_path / "answer.p7", "-print_certs")
    (tmp_path / "new.pem").write_bytes(pem)
    renewed = ("--cert", tmp_path / "new.pem", "--key", key)
    authorities = run(*curl, *renewed, f"{url}/cacerts")
    (tmp_path / "ca.b64").write_bytes(authorities)
    run("openssl", "base64", "-d", "-in", tmp_path / "ca.b64", "-out", tmp_path / "ca.p7")
    named = run("openssl", "pkcs7", "-inform", "DER", "-in", tmp_path / "ca.p7", "-print_certs")
    assert named.count(b"BEGIN CERTIFICATE") == 2  # who vouches for the server, and who issued the device's
    assert b"Overair server authority" in named


def test_in_production_an_operator_carries_requests_to_his_own_authority_and_the_device_gets_the_answer(
    server: ServerProcess, tmp_path: Path
) -> None:
    device = Device(server, tmp_path, "relayed")
    old = device.certificate
    client = server.client("overair")
    client.set_shared_provisioning(enabled=False)
    try:
        assert overair(server, "renewal", "rule", "--relay", "--retry-after", "1")["relay"] is True
        device.clock.set(Instant(device.clock.now() + 20 * YEAR_MS))
        assert not device.keeper.round()
        pending = (device.directory.certificate_file.with_name("pending.pem")).read_bytes()
        told = overair(server, "why", "relayed")["reasons"]
        assert any("an authority of yours must issue" in reason for reason in told)
        told = overair(server, "renewal", "requests", "--export", tmp_path / "requests")
        assert told["files"] == [str(tmp_path / "requests" / "relayed.csr")]
        root = pki.authority("The user's own")
        (tmp_path / "root.pem").write_text(root.pem)
        (tmp_path / "root.key").write_text(root.key_pem)
        run(
            *("openssl", "x509", "-req", "-in", tmp_path / "requests" / "relayed.csr", "-CA", tmp_path / "root.pem"),
            *("-CAkey", tmp_path / "root.key", "-CAcreateserial", "-days", "90", "-out", tmp_path / "issued.pem"),
        )
        told = overair(server, "renewal", "answer", "relayed", tmp_path / "issued.pem")
        # A power cut since: whatever was asked is asked again with the same key.
        again = IdentityKeeper(device.directory, device.settings, clock=device.clock, chance=Random(3), changed=lambda: None)
        assert (device.directory.certificate_file.with_name("pending.pem")).read_bytes() == pending
        assert again.round()
        assert device.certificate != old
        assert device.certificate == x509.load_pem_x509_certificate((tmp_path / "issued.pem").read_bytes())
        assert not (device.directory.certificate_file.with_name("pending.pem")).exists()
        assert Device.connect(device).is_in()
    finally:
        client.set_shared_provisioning(enabled=True)
        client.update_renewal_rule(relay=False)
        device.stop()


def test_operators_see_and_steer_all_of_it_with_boto3(server: ServerProcess, tmp_path: Path) -> None:
    overair = server.client("overair")
    assert overair.describe_renewal_rule()["overlapDays"] == 30
    assert overair.update_renewal_rule(overlapDays=3)["overlapDays"] == 3
    assert overair.update_renewal_rule(overlapDays=30)["relay"] is False
    assert {tuple(each["thingNames"]) for each in overair.list_renewals()["renewals"]} >= {("renewing",), ("curled",)}
    (answered,) = overair.list_renewal_requests(state="answered")["requests"]
    assert answered["thingName"] == "relayed"
    root = pki.authority()
    for refused in (
        lambda: overair.answer_renewal_request(thingName="nobody", certificatePem=pki.device(root, "nobody").pem),
        lambda: overair.refuse_renewal_request(thingName="nobody", reason="scrapped"),
    ):
        with pytest.raises(overair.exceptions.ResourceNotFoundException):
            refused()
    with pytest.raises(overair.exceptions.ConflictException):
        overair.refuse_renewal_request(thingName="relayed")
    before = overair.describe_server_certificate()
    after = overair.renew_server_certificate()
    assert after["certificateId"] != before["certificateId"]
    assert after["authorities"] == before["authorities"]
    wait_until(lambda: shown_at(server) == after["certificateId"], timeout_s=TIMEOUT_S)
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)  # it looks again, and goes on
    assert overair.describe_server_certificate() | {"ResponseMetadata": None} == after | {"ResponseMetadata": None}
    with pytest.raises(overair.exceptions.ConflictException, match="steady"):
        overair.rotate_server_authority(step="retire")
    made = overair.create_account(name="Tenant")
    tenant = server.client("overair", aws_access_key_id=made["accessKeyId"], aws_secret_access_key=made["secretAccessKey"])
    for denied in (tenant.describe_server_certificate, tenant.renew_server_certificate):
        with pytest.raises(ClientError, match="AccessDenied"):
            denied()


def test_the_server_s_authority_follows_another_without_a_device_lost(server: ServerProcess, tmp_path: Path) -> None:
    iot = server.client("iot")
    for thing in iot.list_things()["things"]:  # of the tests before
        for principal in iot.list_thing_principals(thingName=thing["thingName"])["principals"]:
            iot.update_certificate(certificateId=principal.rpartition("/")[2], newStatus="INACTIVE")
    quick, slow = (Device(server, tmp_path, name).connect() for name in ("quick", "slow"))
    old_bundle = tmp_path / "old-ca.pem"
    old_bundle.write_bytes(Path(server.endpoints["ca_file"]).read_bytes())
    (old,) = quick.trusted

    client = server.client("overair")
    begun = client.rotate_server_authority(step="begin")
    assert (begun["phase"], begun["devicesLacking"], set(begun["lackingNamed"])) == ("ahead", 2, {"quick", "slow"})
    assert quick.keeper.round()
    assert len(quick.trusted) == 2
    quick.connections.get(timeout=TIMEOUT_S)
    with pytest.raises(ClientError) as caught:
        client.rotate_server_authority(step="switch")
    assert caught.value.response["Error"]["Code"] == "ConflictException"
    assert "1 devices" in caught.value.response["Error"]["Message"]
    assert "slow" in caught.value.response["Error"]["Message"]
    assert slow.keeper.round()
    slow.connections.get(timeout=TIMEOUT_S)

    switched = client.rotate_server_authority(step="switch")
    assert (switched["phase"], switched["devicesLacking"]) == ("switched", 0)
    assert switched["certificateId"] != begun["certificateId"]
    wait_until(lambda: shown_at(server) == switched["certificateId"], timeout_s=TIMEOUT_S)
    for device in (quick, slow):
        assert device.is_in()  # the connection from before
        device.transport.identity_changed()  # and a new one, to the new certificate
        device.connections.get(timeout=TIMEOUT_S)
        assert device.is_in()
    host, port = server.endpoints["device_url"].removeprefix("https://").rsplit(":", 1)
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(host, int(port), tls_context(old_bundle), "/")
    for device in (quick, slow):
        device.keeper.round()

    retired = client.rotate_server_authority(step="retire")
    assert [each["role"] for each in retired["authorities"]] == ["current"]
    for device in (quick, slow):
        assert device.keeper.round()
        (trusted,) = device.trusted
        assert trusted != old
        device.connections.get(timeout=TIMEOUT_S)
        assert device.is_in()
        device.stop()
    assert overair(server, "server-ca", "status")["phase"] == "steady"
