"""Servers that aren't ours, on every road of the agent: nothing that is worth something leaves the device, and it says why.

Worth something is: a CONNECT (it names the device), an address with its signature, a claim or a device's certificate with the
proof of its key, a request for a certificate, a report.
"""

from __future__ import annotations

import logging
import ssl
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from overair.agent.backoff import Backoff
from overair.agent.claim_provisioning import Newcomer, ProvisioningRefused, ProvisioningUnreachable, provision_by_claim
from overair.agent.claim_session import ClaimSession
from overair.agent.device_directory import DeviceDirectory, DeviceSettings, create_device_directory
from overair.agent.durable import Disk
from overair.agent.http_ranges import HttpRanges
from overair.agent.mqtt_transport import MqttTransport
from overair.agent.sources import RangeUnavailable, UrlNoLongerGood
from overair.agent.tls import tls_context
from overair.agent.uptane.https import HttpClient, Patience, TransportFailed
from overair.agent.uptane.identity import IdentityStore
from overair.agent.uptane.provisioning import ProvisioningFailed, SharedProvisioning
from overair.basics.ids import SeededIds
from overair.wire.mqtt.packets import encode_connack
from tests.support import pki
from tests.support.impostor import HOST, IMPOSTORS, PATIENCE_S, Heard, Impostor, server_certificate

SECRET = "X-Amz-Signature=5ec3e7"
FIRST_BYTE_OF_A_HANDSHAKE = b"\x16"
OUR_CA = pki.authority("Our CA")
DEVICE = pki.device(OUR_CA, "dev-1")


class Listener:
    def connected(self) -> None:
        raise AssertionError("connected to an impostor")

    def received(self, topic: str, payload: bytes) -> None:
        raise AssertionError("an impostor was listened to")


class Road:
    """One way of the agent's to a server: ``go`` tries it once and gives what the agent says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca, self.certificate, self.key = (folder / name for name in ("ca.pem", "device.pem", "device.key"))
        self.ca.write_text(OUR_CA.pem)
        self.certificate.write_text(DEVICE.pem)
        self.key.write_text(DEVICE.key_pem)

    def transport(self, port: int) -> MqttTransport:
        settings = DeviceSettings(thing_name="dev-1", hardware_id="posix", mqtt_host=HOST, mqtt_port=port)
        directory = create_device_directory(
            self.folder / "dev",
            settings,
            certificate_pem=DEVICE.pem.encode(),
            private_key_pem=DEVICE.key_pem.encode(),
            ca_pem=OUR_CA.pem.encode(),
            anchors={},
        )
        return MqttTransport(directory, settings, version="1", chance=Random(1))

    def mqtt(self, port: int) -> str:
        transport, told = self.transport(port), Told()
        logging.getLogger("overair.agent.mqtt").addHandler(told)
        try:
            transport.start(Listener())
            return told.next()
        finally:
            transport.stop()
            logging.getLogger("overair.agent.mqtt").removeHandler(told)

    def claim(self, port: int) -> str:
        newcomer = Newcomer(template="t", hardware_id="posix", mqtt_host=HOST, mqtt_port=port, ca_pem=OUR_CA.pem.encode())
        session = ClaimSession(
            host=HOST,
            port=port,
            client_id="new-1",
            certificate_file=self.certificate,
            private_key_file=self.key,
            ca_file=self.ca,
            monotonic=monotonic,
            chance=Random(1),
            timeout_s=0.2,
        )

        def connected() -> ClaimSession:
            return session.__enter__()

        try:
            provision_by_claim(self.folder / "new", newcomer, session=connected, disk=Disk())
        except (ProvisioningRefused, ProvisioningUnreachable) as error:
            return str(error)
        finally:
            session.__exit__()
        raise AssertionError("provisioned by an impostor")

    def shared_credential(self, port: int) -> str:
        """A device's first call of all: it has a credential that a whole batch shares."""
        none = serialization.NoEncryption()
        bundle = pkcs12.serialize_key_and_certificates(b"shared", DEVICE.key, DEVICE.certificate, [OUR_CA.certificate], none)
        archive, root = self.folder / "credentials.zip", self.folder / "new"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("autoprov_credentials.p12", bundle)
            file.writestr("server_ca.pem", OUR_CA.pem)
        provisioning = SharedProvisioning(
            IdentityStore(DeviceDirectory(root), Disk()),
            credential_file=archive,
            id_file=root / "device-id",
            configured_id="new-1",
            ids=SeededIds(1),
            disk=Disk(),
            client=lambda url, context: self._client(url, context),
        )
        try:
            provisioning.run(gateway=f"https://{HOST}:{port}")
        except (TransportFailed, ProvisioningFailed) as error:
            return str(error)
        raise AssertionError("provisioned by an impostor")

    def image(self, port: int) -> str:
        try:
            HttpRanges(self.ca).fetch(f"https://{HOST}:{port}/bucket/image?{SECRET}", 0, 99)
        except (RangeUnavailable, UrlNoLongerGood) as error:
            return str(error)
        raise AssertionError("an impostor's bytes were taken")

    def report(self, port: int) -> str:
        return self._uptane(port, lambda client, url: client.request("PUT", f"{url}/director/manifest", body=b"report"))

    def certificate_request(self, port: int) -> str:
        enrol = "/.well-known/est/simplereenroll"
        return self._uptane(port, lambda client, url: client.request("POST", url + enrol, body=b"request"))

    def uptane_image(self, port: int) -> str:
        return self._uptane(port, lambda client, url: client.download(f"{url}/a", first_byte=0, size_bytes=9, take=print))

    def _client(self, url: str, context: ssl.SSLContext) -> HttpClient:
        return HttpClient(
            gateway=url,
            context=context,
            foreign_context=tls_context(self.ca),
            pause=lambda _: False,
            chance=Random(1),
            monotonic=monotonic,
            patience=Patience(answer_timeout_s=PATIENCE_S),
        )

    def _uptane(self, port: int, act: Callable[[HttpClient, str], Any]) -> str:
        url = f"https://{HOST}:{port}"
        client = self._client(url, tls_context(self.ca, certificate_file=self.certificate, private_key_file=self.key))
        try:
            act(client, url)
        except TransportFailed as error:
            return str(error)
        finally:
            client.close()
        return "an answer"


class Told(logging.Handler):
    """The first warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said = threading.Event()
        self._text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self._text = self._text or record.getMessage()
        self._said.set()

    def next(self) -> str:
        assert self._said.wait(PATIENCE_S), "the agent said nothing"
        return self._text


ROADS = ["mqtt", "claim", "shared_credential", "image", "report", "certificate_request", "uptane_image"]


@pytest.fixture(params=ROADS)
def go(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[int], str]:
    return getattr(Road(tmp_path), request.param)  # type: ignore[no-any-return]


def nothing_left(heard: Heard) -> None:
    assert heard.certificate_der is None
    assert heard.data == b""


@pytest.mark.parametrize("kind", IMPOSTORS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_a_server_that_cannot_prove_itself_gets_nothing(
    tmp_path: Path, go: Callable[[int], str], kind: str, version: ssl.TLSVersion
) -> None:
    # It asks for whatever certificate it can get.
    with Impostor(tmp_path / "server", IMPOSTORS[kind](OUR_CA), version=version, trusts=OUR_CA) as impostor:
        told = go(impostor.port)
        nothing_left(impostor.next())
    assert HOST in told
    assert any(words in told for words in ("can't prove", "isn't the server that was named", "certificate verify failed"))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=["1.0", "1.1"])
def test_nobody_talks_the_agent_down_to_an_old_tls(tmp_path: Path, go: Callable[[int], str], version: ssl.TLSVersion) -> None:
    with Impostor(tmp_path / "server", server_certificate(OUR_CA, HOST), version=version, trusts=OUR_CA) as impostor:
        assert HOST in go(impostor.port)
        nothing_left(impostor.next())


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", encode_connack(0)])
def test_nobody_talks_the_agent_down_to_plain_text(tmp_path: Path, go: Callable[[int], str], says: bytes) -> None:
    with Impostor(tmp_path, None, says=says or b"\0", speaks_first=True) as impostor:
        assert HOST in go(impostor.port)
        heard = impostor.next()
    assert heard.data[:1] == FIRST_BYTE_OF_A_HANDSHAKE
    for worth in (b"dev-1", b"new-1", SECRET.encode(), b"bucket", b"report", b"request", DEVICE.der):
        assert worth not in heard.data


def test_an_impostor_is_met_again_with_growing_waits_and_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(Backoff, "wait_s", lambda backoff, failures: waits.append(backoff.limit_s(failures)) or 0.0)
    with Impostor(tmp_path / "server", IMPOSTORS["self-signed"](OUR_CA), trusts=OUR_CA) as impostor:
        transport = Road(tmp_path).transport(impostor.port)
        transport.start(Listener())
        for _ in range(3):
            nothing_left(impostor.next())
        transport.stop()
    assert waits[:2] == [1.0, 2.0]
    told = [record.getMessage() for record in caplog.records if "can't prove" in record.getMessage()]
    assert len(told) == 1
    assert "nothing was told to it" in told[0]


WHOLE_ANSWER = "Content-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("road", ["shared_credential", "image", "report", "certificate_request"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_our_own_server_may_not_send_a_request_elsewhere(tmp_path: Path, road: str, status: int) -> None:
    proved = server_certificate(OUR_CA, HOST)
    with Impostor(tmp_path / "elsewhere", proved, trusts=OUR_CA) as elsewhere:
        says = f"HTTP/1.1 {status} Elsewhere\r\nLocation: https://{HOST}:{elsewhere.port}/\r\n{WHOLE_ANSWER}"
        with Impostor(tmp_path / "server", proved, trusts=OUR_CA, says=says.encode()) as server:
            told = getattr(Road(tmp_path), road)(server.port)
            assert server.next().data
        assert f"status {status}" in told or "leads elsewhere" in told
        assert elsewhere.heard.empty()


@pytest.mark.parametrize("road", ["shared_credential", "image", "report", "certificate_request", "uptane_image"])
@pytest.mark.parametrize(("status", "header"), [(401, "WWW-Authenticate"), (407, "Proxy-Authenticate")])
def test_whoever_asks_for_credentials_after_the_handshake_gets_none(
    tmp_path: Path, road: str, status: int, header: str
) -> None:
    schemes = ("Basic realm=x", "Negotiate", "NTLM", "Digest realm=x, nonce=y", "Bearer", "AWS4-HMAC-SHA256")
    asks = "".join(f"{header}: {scheme}\r\n" for scheme in schemes)
    says = f"HTTP/1.1 {status} Who are you?\r\n{asks}{WHOLE_ANSWER}"
    with Impostor(tmp_path / "server", server_certificate(OUR_CA, HOST), trusts=OUR_CA, says=says.encode()) as server:
        assert getattr(Road(tmp_path), road)(server.port)
        heard = server.next()
        assert server.heard.empty()
    assert heard.data
    assert b"authorization" not in heard.data.lower()
