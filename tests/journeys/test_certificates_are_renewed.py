"""Devices renew their certificates over the wire, and the server's authority follows another while they are connected."""

from __future__ import annotations

import json
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
        command("overair.cli.main", "device", "enroll", name, "--out", root / name, "--data", server.data)
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
    command("overair.cli.main", "device", "enroll", "curled", "--out", tmp_path / "d", "--data", server.data)
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


def test_the_server_s_authority_follows_another_without_a_device_lost(server: ServerProcess, tmp_path: Path) -> None:
    iot = server.client("iot")
    for thing in iot.list_things()["things"]:  # of the tests before
        for principal in iot.list_thing_principals(thingName=thing["thingName"])["principals"]:
            iot.update_certificate(certificateId=principal.rpartition("/")[2], newStatus="INACTIVE")
    quick, slow = (Device(server, tmp_path, name).connect() for name in ("quick", "slow"))
    old_bundle = tmp_path / "old-ca.pem"
    old_bundle.write_bytes(Path(server.endpoints["ca_file"]).read_bytes())
    (old,) = quick.trusted

    begun = overair(server, "server-ca", "begin")
    assert (begun["phase"], begun["devices_lacking"]) == ("ahead", 2)
    assert quick.keeper.round()
    assert len(quick.trusted) == 2
    quick.connections.get(timeout=TIMEOUT_S)
    with pytest.raises(ClientError) as caught:
        server.client("overair").rotate_server_authority(step="switch")
    assert caught.value.response["Error"]["Code"] == "ConflictException"
    assert "1 devices" in caught.value.response["Error"]["Message"]
    assert "slow" in caught.value.response["Error"]["Message"]
    assert slow.keeper.round()
    slow.connections.get(timeout=TIMEOUT_S)

    switched = overair(server, "server-ca", "switch")
    assert (switched["phase"], switched["devices_lacking"]) == ("switched", 0)
    assert switched["certificate_id"] != begun["certificate_id"]
    wait_until(lambda: shown_at(server) == switched["certificate_id"], timeout_s=TIMEOUT_S)
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

    retired = overair(server, "server-ca", "retire")
    assert [each["role"] for each in retired["authorities"]] == ["current"]
    for device in (quick, slow):
        assert device.keeper.round()
        (trusted,) = device.trusted
        assert trusted != old
        device.connections.get(timeout=TIMEOUT_S)
        assert device.is_in()
        device.stop()
    # Another leaf of the same authority, by command.
    renewed = overair(server, "server-ca", "renew")
    assert renewed["certificate_id"] != retired["certificate_id"]
    assert overair(server, "server-ca", "status")["phase"] == "steady"
