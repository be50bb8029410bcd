"""A device comes in by a claim, whatever the power, the server and the disk do meanwhile."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from overair.agent.claim_provisioning import (
    Newcomer,
    ProvisioningRefused,
    ProvisioningUnreachable,
    Session,
    provision_by_claim,
)
from overair.agent.device_directory import BadDeviceDirectory, DeviceDirectory, read_settings
from overair.agent.durable import Disk
from overair.wire.fleet_provisioning import CREATE_FROM_CSR
from tests.support.power_cut import FailingDisk, PowerCut

PROVISION = "$aws/provisioning-templates/meters/provision/json"
NEWCOMER = Newcomer(
    template="meters",
    parameters={"SerialNumber": "7"},
    hardware_id="posix",
    mqtt_host="localhost",
    mqtt_port=8883,
    ca_pem=b"an authority",
    anchors={"signer.pem": b"a signer"},
)


class Server:
    """Gives certificates and makes things as the real one does: each token is good once."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.given: dict[str, bytes] = {}
        self.things: list[str] = []
        self.asked: list[str] = []
        self.another_key = False
        self.refusal: dict[str, object] | None = None
        self.answer: bytes | None = None
        self.dies_before_it_answers = False

    def ask(self, topic: str, payload: bytes) -> tuple[bool, bytes]:
        self.asked.append(topic)
        if self.refusal is not None:
            return False, json.dumps(self.refusal).encode()
        if self.answer is not None:
            return True, self.answer
        asked = json.loads(payload)
        return self._certificate(asked) if topic == CREATE_FROM_CSR else self._thing(topic, asked)

    def _certificate(self, asked: dict[str, str]) -> tuple[bool, bytes]:
        request = x509.load_pem_x509_csr(asked["certificateSigningRequest"].encode())
        assert request.is_signature_valid
        key = self.key.public_key() if self.another_key else request.public_key()
        now = datetime(2026, 1, 1, tzinfo=UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(request.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=365))
            .sign(self.key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        token = f"token {len(self.given)}"
        self.given[token] = pem
        members = {"certificateId": "c" * 64, "certificatePem": pem.decode(), "certificateOwnershipToken": token}
        return True, json.dumps(members).encode()

    def _thing(self, topic: str, asked: dict[str, object]) -> tuple[bool, bytes]:
        assert topic == PROVISION
        if str(asked["certificateOwnershipToken"]) not in self.given:
            stale = {"statusCode": 400, "errorCode": "InvalidCertificateOwnershipToken", "errorMessage": "It was used."}
            return False, json.dumps(stale).encode()
        self.certificate = self.given.pop(str(asked["certificateOwnershipToken"]))
        self.things.append(json.dumps(asked["parameters"]))
        if self.dies_before_it_answers:
            self.dies_before_it_answers = False
            raise ProvisioningUnreachable("it is gone")
        return True, json.dumps({"thingName": "meter-7", "deviceConfiguration": {"site": "grey"}}).encode()


def provision(root: Path, server: Server, disk: Disk | None = None) -> DeviceDirectory:
    session: Callable[[], Session] = lambda: server  # noqa: E731
    directory, provisioned = provision_by_claim(root, NEWCOMER, session=session, disk=disk or Disk())
    assert provisioned.thing_name == "meter-7"
    return directory


def check(directory: DeviceDirectory, server: Server) -> None:
    settings = read_settings(directory)
    assert (settings.thing_name, settings.mqtt_host, settings.mqtt_port) == ("meter-7", "localhost", 8883)
    certificate = x509.load_pem_x509_certificate(directory.certificate_file.read_bytes())
    key = serialization.load_pem_private_key(directory.private_key_file.read_bytes(), password=None)
    assert certificate.public_key() == key.public_key()
    assert directory.certificate_file.read_bytes() == server.certificate
    assert directory.private_key_file.stat().st_mode & 0o777 == 0o600
    assert directory.ca_file(settings).read_bytes() == b"an authority"
    assert directory.anchor_file("signer").read_bytes() == b"a signer"
    assert json.loads((directory.root / "configuration.json").read_text()) == {"site": "grey"}
    assert not list(directory.root.rglob("claimed.json"))


def test_a_device_is_laid_out_with_what_it_was_given(tmp_path: Path) -> None:
    server = Server()
    check(provision(tmp_path / "d", server), server)
    assert server.asked == [CREATE_FROM_CSR, PROVISION]
    assert server.things == ['{"SerialNumber": "7"}']


def test_power_that_is_cut_at_any_step_leaves_a_newcomer_or_a_whole_device(tmp_path: Path) -> None:
    for step in itertools.count():
        root, server = tmp_path / str(step), Server()
        disk = FailingDisk(step, seed=step)
        try:
            provision(root, server, disk)
        except PowerCut:
            if (root / "device.json").exists():
                with pytest.raises(BadDeviceDirectory, match="already holds a device"):
                    provision(root, server)
                read_settings(DeviceDirectory(root))
            else:
                check(provision(root, server), server)
            continue
        break
    assert step > 10


def test_a_token_that_the_server_used_up_without_our_hearing_of_it_is_followed_by_another(tmp_path: Path) -> None:
    server = Server()
    server.dies_before_it_answers = True
    with pytest.raises(ProvisioningUnreachable):
        provision(tmp_path / "d", server)
    key = (tmp_path / "d" / "identity" / "private.key").read_bytes()
    check(provision(tmp_path / "d", server), server)
    assert server.asked == [CREATE_FROM_CSR, PROVISION, PROVISION, CREATE_FROM_CSR, PROVISION]
    assert (tmp_path / "d" / "identity" / "private.key").read_bytes() == key


def test_who_was_refused_because_the_server_was_busy_goes_on_with_the_certificate_it_has(tmp_path: Path) -> None:
    server = Server()
    real = server._thing
    busy = {"statusCode": 429, "errorCode": "ResourceThrottled", "errorMessage": "Too many at once."}
    server._thing = lambda topic, asked: (False, json.dumps(busy).encode())  # type: ignore[method-assign]
    with pytest.raises(ProvisioningUnreachable, match="Too many at once"):
        provision(tmp_path / "d", server)
    server._thing = real  # type: ignore[method-assign]
    check(provision(tmp_path / "d", server), server)
    assert server.asked.count(CREATE_FROM_CSR) == 1


def test_a_refusal_is_told_in_the_servers_words(tmp_path: Path) -> None:
    server = Server()
    server.refusal = {"statusCode": 403, "errorCode": "AccessDenied", "errorMessage": "The hook said no."}
    with pytest.raises(ProvisioningRefused, match=r"AccessDenied: The hook said no\."):
        provision(tmp_path / "d", server)
    assert not (tmp_path / "d" / "device.json").exists()


def test_a_certificate_for_another_key_is_not_taken(tmp_path: Path) -> None:
    server = Server()
    server.another_key = True
    with pytest.raises(ProvisioningRefused, match="isn't for this device's key"):
        provision(tmp_path / "d", server)
    assert server.asked == [CREATE_FROM_CSR]


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"thingName": 7}', b'{"certificatePem": "x"}', b"\xff"])
def test_an_answer_that_is_none_is_refused(tmp_path: Path, answer: bytes) -> None:
    server = Server()
    server.answer = answer
    with pytest.raises(ProvisioningRefused, match="can't be read"):
        provision(tmp_path / "d", server)


def test_a_thing_whose_name_can_not_be_used_is_no_device(tmp_path: Path) -> None:
    server = Server()
    named = json.dumps({"thingName": "../../etc", "deviceConfiguration": {}}).encode()
    server._thing = lambda topic, asked: (True, named)  # type: ignore[method-assign]
    with pytest.raises(BadDeviceDirectory, match="thing_name"):
        provision(tmp_path / "d", server)
    assert not (tmp_path / "d" / "device.json").exists()


def test_a_kept_certificate_that_can_not_be_used_is_asked_for_again(tmp_path: Path) -> None:
    server = Server()
    (tmp_path / "d" / "identity").mkdir(parents=True)
    (tmp_path / "d" / "identity" / "claimed.json").write_bytes(b'{"certificateId": "x"')
    check(provision(tmp_path / "d", server), server)


def test_a_key_that_can_not_be_used_is_told_and_left_alone(tmp_path: Path) -> None:
    key_file = tmp_path / "d" / "identity" / "private.key"
    key_file.parent.mkdir(parents=True)
    key_file.write_bytes(b"not a key")
    with pytest.raises(BadDeviceDirectory, match="can't be used as a private key"):
        provision(tmp_path / "d", Server())
    assert key_file.read_bytes() == b"not a key"
