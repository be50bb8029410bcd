"""Devices come in by a claim, with AWS's own provisioning client (awsiotsdk) and templates made with boto3."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2
import pytest
from awscrt.mqtt_request_response import ClientOptions
from awsiot import V2ServiceException
from awsiot.iotidentity import (
    CreateCertificateFromCsrRequest,
    CreateKeysAndCertificateRequest,
    IotIdentityClientV2,
    RegisterThingRequest,
)
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.crt_client import CrtClient, over_tls
from tests.support.field_device import Identity, own_topics_policy
from tests.support.paho_device import PahoDevice
from tests.support.server_process import ServerProcess

PATIENCE_S = 30.0
HOOK_SECRET = "a secret of thirty-two characters"
OWN_CERTIFICATE = {
    "Type": "AWS::IoT::Certificate",
    "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
}


def body(policy: str, **thing: Any) -> str:
    """A template for a thing that is named by its serial number."""
    return json.dumps(
        {
            "Parameters": {"SerialNumber": {"Type": "String"}, "Colour": {"Type": "String", "Default": "grey"}},
            "Mappings": {"Sites": {"grey": {"url": "https://grey.example"}, "red": {"url": "https://red.example"}}},
            "Resources": {
                "certificate": OWN_CERTIFICATE,
                "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": policy}},
                "thing": {
                    "Type": "AWS::IoT::Thing",
                    "Properties": {
                        "ThingName": {"Fn::Join": ["-", ["meter", {"Ref": "SerialNumber"}]]},
                        "AttributePayload": {"colour": {"Ref": "Colour"}},
                    },
                    **thing,
                },
            },
            "DeviceConfiguration": {"site": {"Fn::FindInMap": ["Sites", {"Ref": "Colour"}, "url"]}},
        }
    )


@dataclass
class Fleet:
    """A template, and what devices need to come in by it."""

    server: ServerProcess
    folder: Path
    template: str
    policy: str
    iot: Any
    clients: list[CrtClient] = field(default_factory=list)

    def claim(self) -> Identity:
        """A temporary claim, as a trusted user's phone gets it."""
        made = self.iot.create_provisioning_claim(templateName=self.template)
        name = made["certificateId"][:12]
        certificate_file, key_file = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate_file.write_text(made["certificatePem"])
        key_file.write_text(made["keyPair"]["PrivateKey"])
        return Identity(
            thing=f"new-{name}",
            thing_arn="",
            certificate_arn="",
            certificate_id=made["certificateId"],
            certificate_file=certificate_file,
            key_file=key_file,
            policy="",
        )

    def identity_client(self, claim: Identity) -> IotIdentityClientV2:
        client = over_tls(self.server, claim)
        client.start()
        self.clients.append(client)
        options = ClientOptions(
            max_request_response_subscriptions=4, max_streaming_subscriptions=2, operation_timeout_in_seconds=30
        )
        return IotIdentityClientV2(client.client, options)

    def connects(self, thing: str, certificate_pem: str, private_key: str) -> None:
        """The new device is let in under its own certificate, and has its policy."""
        certificate = {"certificatePem": certificate_pem, "keyPair": {"PrivateKey": private_key}}
        with PahoDevice(self.server.endpoints, self.folder, thing, certificate) as device:
            assert device.subscribe(f"$aws/things/{thing}/jobs/notify-next") == 1


@pytest.fixture
def make_fleet(server: ServerProcess, tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    made: list[Fleet] = []

    def make(of: ServerProcess = server, **template: Any) -> Fleet:
        iot, unique = of.client("iot"), uuid.uuid4().hex[:8]
        document = own_topics_policy(of.endpoints["region"], of.endpoints["account"])
        iot.create_policy(policyName=f"meters-{unique}", policyDocument=document)
        thing = template.pop("thing", {})
        iot.create_provisioning_template(
            templateName=f"meters-{unique}",
            templateBody=body(f"meters-{unique}", **thing),
            provisioningRoleArn=f"arn:aws:iam::{of.endpoints['account']}:role/overair-ota",
            **{"enabled": True, **template},
        )
        fleet = Fleet(of, tmp_path, f"meters-{unique}", f"meters-{unique}", iot)
        made.append(fleet)
        return fleet

    yield make
    for fleet in made:
        for client in fleet.clients:
            client.stop()


def register(client: IotIdentityClientV2, fleet: Fleet, token: str, **parameters: str) -> Any:
    request = RegisterThingRequest(template_name=fleet.template, certificate_ownership_token=token, parameters=parameters)
    return client.register_thing(request).result(PATIENCE_S)


def refusal(client: IotIdentityClientV2, fleet: Fleet, token: str, **parameters: str) -> Any:
    with pytest.raises(V2ServiceException) as refused:
        register(client, fleet, token, **parameters)
    return refused.value.modeled_error


def test_the_sdks_client_is_given_keys_and_a_certificate_and_becomes_a_thing(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet()
    serial = uuid.uuid4().hex[:8]
    client = fleet.identity_client(fleet.claim())
    keys = client.create_keys_and_certificate(CreateKeysAndCertificateRequest()).result(PATIENCE_S)
    waiting = fleet.iot.describe_certificate(certificateId=keys.certificate_id)["certificateDescription"]
    assert waiting["status"] == "PENDING_ACTIVATION"

    made = register(client, fleet, keys.certificate_ownership_token, SerialNumber=serial, Colour="red")
    assert (made.thing_name, made.device_configuration) == (f"meter-{serial}", {"site": "https://red.example"})
    now = fleet.iot.describe_certificate(certificateId=keys.certificate_id)["certificateDescription"]
    assert now["status"] == "ACTIVE"
    assert fleet.iot.describe_thing(thingName=made.thing_name)["attributes"] == {"colour": "red"}
    attached = fleet.iot.list_thing_principals(thingName=made.thing_name)["principals"]
    assert attached == [now["certificateArn"]]
    fleet.connects(made.thing_name, keys.certificate_pem, keys.private_key)

    # The token was good once.
    again = refusal(client, fleet, keys.certificate_ownership_token, SerialNumber=serial)
    assert (again.status_code, again.error_code) == (400, "InvalidCertificateOwnershipToken")


def test_the_sdks_client_brings_a_key_of_its_own(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a meter")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    pem = request.public_bytes(serialization.Encoding.PEM).decode()
    client = fleet.identity_client(fleet.claim())
    given = client.create_certificate_from_csr(CreateCertificateFromCsrRequest(certificate_signing_request=pem)).result(
        PATIENCE_S
    )
    made = register(client, fleet, given.certificate_ownership_token, SerialNumber=uuid.uuid4().hex[:8])
    assert made.device_configuration == {"site": "https://grey.example"}
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    fleet.connects(
        made.thing_name, given.certificate_pem, key.private_bytes(encoding, form, serialization.NoEncryption()).decode()
    )


def test_refusals_say_what_is_wrong_in_aws_words(make_fleet: Callable[..., Fleet]) -> None:
    fleet, other = make_fleet(), make_fleet()
    client, stranger = fleet.identity_client(fleet.claim()), fleet.identity_client(fleet.claim())
    token = client.create_keys_and_certificate(CreateKeysAndCertificateRequest()).result(PATIENCE_S).certificate_ownership_token
    missing = refusal(client, fleet, token)
    assert (missing.status_code, missing.error_code) == (400, "InvalidParameters")
    assert "SerialNumber" in missing.error_message
    # A token is of its claim alone.
    assert refusal(stranger, fleet, token, SerialNumber="x").error_code == "InvalidCertificateOwnershipToken"
    bad = CreateCertificateFromCsrRequest(certificate_signing_request="none")
    with pytest.raises(V2ServiceException) as refused:
        client.create_certificate_from_csr(bad).result(PATIENCE_S)
    assert refused.value.modeled_error.error_code == "InvalidCertificateSigningRequest"
    fleet.iot.update_provisioning_template(templateName=fleet.template, enabled=False)
    disabled = refusal(client, fleet, token, SerialNumber="x")
    assert (disabled.status_code, disabled.error_code) == (403, "AccessDenied")
    with pytest.raises(ClientError):
        fleet.iot.create_provisioning_claim(templateName=fleet.template)
    assert other.template != fleet.template


def test_a_claim_may_do_nothing_but_what_its_policy_says(make_fleet: Callable[..., Fleet], tmp_path: Path) -> None:
    fleet, other = make_fleet(), make_fleet()
    for topic in (f"$aws/provisioning-templates/{other.template}/provision/json", "room/1", "$aws/things/x/jobs/get"):
        claim = fleet.claim()
        certificate = {
            "certificatePem": claim.certificate_file.read_text(),
            "keyPair": {"PrivateKey": claim.key_file.read_text()},
        }
        with PahoDevice(fleet.server.endpoints, tmp_path / "cut", claim.thing, certificate) as device:
            device.publish(topic, b"{}")
            assert device.cut.wait(PATIENCE_S), topic


def test_a_name_that_is_taken_is_refused_unless_the_template_says_what_happens_then(make_fleet: Callable[..., Fleet]) -> None:
    strict = make_fleet()
    merging = make_fleet(thing={"OverrideSettings": {"AttributePayload": "MERGE"}})
    serial = uuid.uuid4().hex[:8]
    for fleet, refused in ((strict, False), (strict, True), (merging, False)):
        client = fleet.identity_client(fleet.claim())
        keys = client.create_keys_and_certificate(CreateKeysAndCertificateRequest()).result(PATIENCE_S)
        if refused:
            taken = refusal(client, fleet, keys.certificate_ownership_token, SerialNumber=serial)
            assert (taken.status_code, taken.error_code) == (409, "ResourceConflict")
            # An operator hears of it, and may let this very certificate have the name: the device asks again.
            overair = fleet.server.client("overair")
            noted = {each["certificateId"]: each for each in overair.list_device_anomalies(maxResults=250)["anomalies"]}
            assert (noted[keys.certificate_id]["kind"], noted[keys.certificate_id]["thingName"]) == (
                "reused-id",
                f"meter-{serial}",
            )
            overair.approve_device_certificate(certificateId=keys.certificate_id)
            register(client, fleet, keys.certificate_ownership_token, SerialNumber=serial)
        else:
            register(client, fleet, keys.certificate_ownership_token, SerialNumber=serial, Colour="red")
    assert len(strict.iot.list_thing_principals(thingName=f"meter-{serial}")["principals"]) == 3


def test_cbor_has_the_same_members(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet()
    claim = fleet.claim()
    client = over_tls(fleet.server, claim)
    client.start()
    fleet.clients.append(client)
    provision = f"$aws/provisioning-templates/{fleet.template}/provision/cbor"
    assert client.subscribe("$aws/certificates/create/cbor/+", f"{provision}/+") == [1, 1]
    client.publish("$aws/certificates/create/cbor", b"")
    given = client.message()
    assert given.topic == "$aws/certificates/create/cbor/accepted"
    keys = cbor2.loads(given.payload)
    assert keys.keys() == {"certificateId", "certificatePem", "privateKey", "certificateOwnershipToken"}
    assert len(keys["certificateOwnershipToken"]) <= 512
    serial = uuid.uuid4().hex[:8]
    asked = {"certificateOwnershipToken": keys["certificateOwnershipToken"], "parameters": {"SerialNumber": serial}}
    client.publish(provision, cbor2.dumps(asked))
    made = cbor2.loads(client.message().payload)
    assert made == {"thingName": f"meter-{serial}", "deviceConfiguration": {"site": "https://grey.example"}}
    client.publish(provision, b"\xff")
    assert cbor2.loads(client.message().payload)["errorCode"] == "InvalidPayload"


@dataclass
class Gate:
    """A pre-provisioning hook that answers as it is told."""

    answers: list[dict[str, Any]] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)
    signatures_hold: list[bool] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)


@pytest.fixture
def gate() -> Iterator[tuple[Gate, int]]:
    held = Gate()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            payload = self.rfile.read(int(self.headers["Content-Length"]))
            moment, once, digest = (part.split("=", 1)[1] for part in self.headers["X-Overair-Signature"].split(","))
            wanted = hmac.new(HOOK_SECRET.encode(), f"{moment}.{once}.".encode() + payload, hashlib.sha256).hexdigest()
            is_fresh = abs(time.time() - int(moment) / 1000) < 300 and once not in held.ids
            held.signatures_hold.append(hmac.compare_digest(digest, wanted) and is_fresh)
            held.ids.add(once)
            held.heard.append(json.loads(payload))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(held.answers.pop(0)).encode())

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing on standard error."""

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield held, listening.server_address[1]
    listening.shutdown()
    thread.join(PATIENCE_S)
    listening.server_close()


def test_a_hook_is_asked_with_a_signature_and_decides(
    make_fleet: Callable[..., Fleet], new_server: Callable[..., ServerProcess], gate: tuple[Gate, int], tmp_path: Path
) -> None:
    held, port = gate
    arn = "arn:aws:lambda:us-east-1:123456789012:function:gate"
    own = new_server("--account", "123456789012").start()
    own.stop()
    hooks = own.data / "provisioning-hooks.toml"
    hooks.touch(mode=0o600)
    hooks.write_text(f'["{arn}"]\nurl = "http://127.0.0.1:{port}/ask?x=1"\nsecret = "{HOOK_SECRET}"\n')
    own.start()
    with pytest.raises(ClientError, match="provisioning-hooks"):
        make_fleet(own, preProvisioningHook={"targetArn": arn.replace("gate", "other")})
    fleet = make_fleet(own, preProvisioningHook={"targetArn": arn})
    claim = fleet.claim()
    client = fleet.identity_client(claim)
    keys = client.create_keys_and_certificate(CreateKeysAndCertificateRequest()).result(PATIENCE_S)
    held.answers += [{"allowProvisioning": False}, {"allowProvisioning": True, "parameterOverrides": {"Colour": "red"}}]
    denied = refusal(client, fleet, keys.certificate_ownership_token, SerialNumber="7")
    assert (denied.status_code, denied.error_code) == (403, "ACCESS_DENIED")
    made = register(client, fleet, keys.certificate_ownership_token, SerialNumber="7")
    assert (made.thing_name, made.device_configuration) == ("meter-7", {"site": "https://red.example"})
    assert held.signatures_hold == [True, True]
    question = held.heard[-1]
    assert question["claimCertificateId"] == claim.certificate_id
    assert question["certificateId"] == keys.certificate_id
    assert question["parameters"] == {"SerialNumber": "7"}
    assert question["templateArn"].endswith(f":provisioningtemplate/{fleet.template}")
    assert question["clientId"] == claim.thing


def test_templates_have_versions_and_register_thing_carries_one_out(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet()
    iot, name = fleet.iot, fleet.template
    second = iot.create_provisioning_template_version(templateName=name, templateBody=body(fleet.policy), setAsDefault=True)
    assert (second["versionId"], second["isDefaultVersion"]) == (2, True)
    listed = iot.list_provisioning_template_versions(templateName=name)["versions"]
    assert [(each["versionId"], each["isDefaultVersion"]) for each in listed] == [(2, True), (1, False)]
    assert iot.describe_provisioning_template(templateName=name)["defaultVersionId"] == 2
    assert iot.describe_provisioning_template_version(templateName=name, versionId=1)["isDefaultVersion"] is False
    with pytest.raises(iot.exceptions.DeleteConflictException):
        iot.delete_provisioning_template(templateName=name)
    with pytest.raises(iot.exceptions.DeleteConflictException):
        iot.delete_provisioning_template_version(templateName=name, versionId=2)
    iot.delete_provisioning_template_version(templateName=name, versionId=1)
    assert name in {each["templateName"] for each in iot.list_provisioning_templates()["templates"]}

    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    own = json.loads(body(fleet.policy))
    own["Parameters"]["CSR"] = {"Type": "String"}
    own["Resources"]["certificate"]["Properties"] = {"CertificateSigningRequest": {"Ref": "CSR"}}
    serial = uuid.uuid4().hex[:8]
    made = iot.register_thing(
        templateBody=json.dumps(own),
        parameters={"SerialNumber": serial, "CSR": request.public_bytes(serialization.Encoding.PEM).decode()},
    )
    assert made["resourceArns"].keys() == {"certificate", "policy", "thing"}
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    fleet.connects(
        f"meter-{serial}", made["certificatePem"], key.private_bytes(encoding, form, serialization.NoEncryption()).decode()
    )
    iot.delete_provisioning_template(templateName=name)
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.describe_provisioning_template(templateName=name)
