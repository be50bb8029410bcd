"""One provisioning for both families of devices: what lets vehicles in lets AWS's devices in, and the other way round.

Of the four pairs two are shown elsewhere (AWS's ways for AWS's devices: ``test_fleet_provisioning.py``,
``test_certificate_authorities.py``; Uptane's ways for vehicles: ``test_aktualizr_gets_in.py``); here are the other two.
"""

from __future__ import annotations

import http.client
import json
import ssl
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

from overair.cli import device_main
from overair.cli.device import DEVICE_POLICY
from tests.journeys.test_a_gateway_with_hooks import Gateway
from tests.support import pki
from tests.support.device_process import wait_until
from tests.support.field_device import own_topics_policy
from tests.support.gateway_machine import image
from tests.support.paho_device import PahoDevice
from tests.support.pki import Held
from tests.support.server_process import ServerProcess

UPTANE_POLICY = "overair-uptane-device"


@pytest.fixture
def name() -> str:
    return f"dev-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def topics_policy(server: ServerProcess, name: str) -> str:
    document = own_topics_policy(server.endpoints["region"], server.endpoints["account"])
    server.client("iot").create_policy(policyName=f"topics-{name}", policyDocument=document)
    return f"topics-{name}"


def does_a_job(server: ServerProcess, folder: Path, thing: str, certificate: dict[str, Any]) -> None:
    """As AWS's devices do: over MQTT, from notify-next to SUCCEEDED."""
    iot, stem = server.client("iot"), f"$aws/things/{thing}/jobs"
    with PahoDevice(server.endpoints, folder, thing, certificate) as device:
        assert device.subscribe(f"{stem}/notify-next") == 1
        assert device.subscribe(f"{stem}/+/update/+") == 1
        iot.create_job(jobId=thing, targets=[iot.describe_thing(thingName=thing)["thingArn"]], document='{"do": "it"}')
        execution = json.loads(device.message()[1])["execution"]
        assert (execution["jobId"], execution["jobDocument"]) == (thing, {"do": "it"})
        device.publish(f"{stem}/{thing}/update", b'{"status": "SUCCEEDED"}')
        assert device.message()[0] == f"{stem}/{thing}/update/accepted"
    assert iot.describe_job_execution(jobId=thing, thingName=thing)["execution"]["status"] == "SUCCEEDED"


def becomes_a_vehicle(server: ServerProcess, folder: Path, thing: str, certificate: str, key: str, **asked: str) -> None:
    """Our own Primary takes the certificate as its identity, registers its ECUs and has nothing to do."""
    folder.mkdir(exist_ok=True)
    (folder / "own.pem").write_text(certificate)
    (folder / "own.key").write_text(key)
    own = ["--certificate", str(folder / "own.pem"), "--private-key", str(folder / "own.key")]
    gateway = ["--ca", server.endpoints["ca_file"], "--server", server.endpoints["device_url"]]
    vehicle = str(folder / "vehicle")
    arguments = [*own, *gateway, "--hardware-id", "gw", "--ecu-serial", f"{thing}-gw", "--install-file", "firmware.bin"]
    assert device_main.main(["uptane", "provision", vehicle, *arguments]) == 0
    assert device_main.main(["uptane", "once", vehicle]) == 0
    [device] = server.client("overair").list_provisioned_devices(**asked)["devices"]
    assert device["thingName"] == thing
    assert device["registeredAt"] is not None


def vehicle_template(thing: Any) -> str:
    """A template for vehicles: the thing is the certificate's alone, and may use its own paths."""
    return json.dumps(
        {
            "Parameters": {
                "AWS::IoT::Certificate::Id": {"Type": "String"},
                **({"Vin": {"Type": "String"}} if thing == {"Ref": "Vin"} else {}),
            },
            "Resources": {
                "c": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}},
                "p": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": UPTANE_POLICY}},
                "t": {
                    "Type": "AWS::IoT::Thing",
                    "Properties": {"ThingName": thing, "ThingPrincipalType": "EXCLUSIVE_THING"},
                },
            },
        }
    )


def updates_itself(server: ServerProcess, folder: Path, thing: str, identity: Callable[[], dict[str, Any]]) -> None:
    """Our own agent, a gateway with its own programs, comes in with another identity than ``enroll`` gave and installs an
    image."""
    iot = server.client("iot")
    gateway = Gateway(server, thing, folder)
    [enrolled] = iot.list_thing_principals(thingName=thing)["principals"]
    iot.detach_thing_principal(thingName=thing, principal=enrolled)
    iot.delete_thing(thingName=thing)
    pair = identity()
    gateway.directory.certificate_file.write_text(pair["certificatePem"])
    gateway.directory.private_key_file.write_text(pair["keyPair"]["PrivateKey"])
    gateway.start()
    try:
        wait_until(lambda: has_come_in(iot, thing), what=gateway.log)
        job = gateway.ship(image("2.0.0", size_bytes=20_000))
        gateway.start_again_after_75()
        assert gateway.wait_for_end(job)["status"] == "SUCCEEDED", gateway.log()
    finally:
        gateway.stop()


def has_come_in(iot: Any, thing: str) -> bool:
    try:
        return bool(iot.list_thing_principals(thingName=thing)["principals"])
    except iot.exceptions.ResourceNotFoundException:
        return False


def pair_of(leaf: Held) -> dict[str, Any]:
    return {"certificatePem": leaf.chain_pem, "keyPair": {"PrivateKey": leaf.key_pem}}


def of_shared_credential(server: ServerProcess, folder: Path, name: str, policy: str) -> dict[str, Any]:
    """A certificate that the server made for whoever showed a shared credential."""
    made = server.client("overair").create_provisioning_credential(policyName=policy)
    status, bundle = ask(server, folder, pkcs12_pem(made["pkcs12"]), "POST", "/devices", {"deviceId": name, "ttl": 90})
    assert status == 200, bundle
    opened = pkcs12.load_pkcs12(bundle, b"")
    assert opened.cert is not None
    return pair_of(Held(opened.cert.certificate, opened.key))  # type: ignore[arg-type]


def of_own_pki(server: ServerProcess, name: str, policy: str) -> dict[str, Any]:
    """A certificate with its chain, of an authority that is trusted from now on."""
    root = pki.authority()
    server.client("overair").register_fleet_certificate_authority(certificatePem=root.pem, rule={"policyName": policy})
    return pair_of(pki.device(pki.authority("Issuing", root), name))


def test_a_shared_credential_lets_awss_devices_in(server: ServerProcess, tmp_path: Path, name: str, topics_policy: str) -> None:
    does_a_job(server, tmp_path, name, of_shared_credential(server, tmp_path, name, topics_policy))


def test_an_own_pki_lets_awss_devices_in(server: ServerProcess, tmp_path: Path, name: str, topics_policy: str) -> None:
    pair = of_own_pki(server, name, topics_policy)
    with PahoDevice(server.endpoints, tmp_path, name, pair):
        pass  # its first contact makes it a thing
    does_a_job(server, tmp_path, name, pair)


@pytest.mark.long
def test_our_agent_comes_in_by_a_shared_credential_and_updates_itself(server: ServerProcess, tmp_path: Path, name: str) -> None:
    updates_itself(server, tmp_path, name, lambda: of_shared_credential(server, tmp_path, name, DEVICE_POLICY))


@pytest.mark.long
def test_our_agent_comes_in_by_an_own_pki_and_updates_itself(server: ServerProcess, tmp_path: Path, name: str) -> None:
    updates_itself(server, tmp_path, name, lambda: of_own_pki(server, name, DEVICE_POLICY))


def test_a_claim_lets_vehicles_in(server: ServerProcess, tmp_path: Path, name: str) -> None:
    iot, template = server.client("iot"), f"vehicles-{name}"
    role = server.endpoints["ota_role_arn"]
    iot.create_provisioning_template(
        templateName=template, templateBody=vehicle_template({"Ref": "Vin"}), provisioningRoleArn=role, enabled=True
    )
    claim = iot.create_provisioning_claim(templateName=template)
    provision = f"$aws/provisioning-templates/{template}/provision/json"
    with PahoDevice(server.endpoints, tmp_path, f"new-{name}", claim) as device:
        assert device.subscribe("$aws/certificates/create-from-csr/json/+") == 1
        assert device.subscribe(f"{provision}/+") == 1
        # A vehicle knows itself by its certificate's common name: so it brings a request that has one.
        key, signing_request = pki.new_key(), x509.CertificateSigningRequestBuilder().subject_name(pki.names(name))
        pem = signing_request.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()
        device.publish("$aws/certificates/create-from-csr/json", json.dumps({"certificateSigningRequest": pem}).encode())
        given = json.loads(device.message()[1])
        asked = {"certificateOwnershipToken": given["certificateOwnershipToken"], "parameters": {"Vin": name}}
        device.publish(provision, json.dumps(asked).encode())
        topic, answer = device.message()
        assert topic == f"{provision}/accepted", answer
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    becomes_a_vehicle(server, tmp_path / name, name, given["certificatePem"], key_pem, templateName=template)


def test_a_ca_certificate_with_a_template_lets_vehicles_in(server: ServerProcess, tmp_path: Path, name: str) -> None:
    root = pki.authority()
    made = server.client("iot").register_ca_certificate(
        caCertificate=root.pem,
        certificateMode="SNI_ONLY",
        setAsActive=True,
        allowAutoRegistration=True,
        registrationConfig={
            "templateBody": vehicle_template({"Ref": "AWS::IoT::Certificate::CommonName"}),
            "roleArn": server.endpoints["ota_role_arn"],
        },
    )
    leaf = pki.device(root, name)
    becomes_a_vehicle(server, tmp_path / name, name, leaf.pem, leaf.key_pem, authorityId=made["certificateId"])


def ask(server: ServerProcess, folder: Path, identity: str, method: str, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    """One request at the device door."""
    (folder / "peer.pem").write_text(identity)
    context = ssl.create_default_context(cafile=server.endpoints["ca_file"])
    context.load_cert_chain(folder / "peer.pem")
    at = urlsplit(server.endpoints["device_url"])
    connection = http.client.HTTPSConnection(str(at.hostname), at.port, context=context, timeout=30)
    try:
        connection.request(method, path, json.dumps(body).encode())
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def pkcs12_pem(bundle: bytes) -> str:
    """Key and certificate of whoever was handed a bundle."""
    opened = pkcs12.load_pkcs12(bundle, b"")
    assert opened.cert is not None
    held = Held(opened.cert.certificate, opened.key)  # type: ignore[arg-type]
    return held.key_pem + held.pem
