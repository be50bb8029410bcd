"""CA certificates made with plain openssl: registered with boto3, and their devices come in by themselves, with paho."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tests.support.field_device import own_topics_policy
from tests.support.paho_device import PahoDevice
from tests.support.server_process import ServerProcess

AT_ONCE_S = 3.0
"""Within a second, and something for a machine with too much to do."""
JITP = {
    "Parameters": {"AWS::IoT::Certificate::CommonName": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {"ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"}},
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
        },
    },
}


@dataclass
class OpenSsl:
    """A CA in a folder, as AWS's guide makes one."""

    folder: Path

    def run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=60)

    def make_ca(self, name: str) -> str:
        key = ("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out")
        self.run(*key, f"{name}.key")
        self.run(
            "req",
            "-x509",
            "-new",
            "-key",
            f"{name}.key",
            "-sha256",
            "-days",
            "365",
            "-subj",
            f"/CN={name}",
            "-out",
            f"{name}.pem",
        )
        return (self.folder / f"{name}.pem").read_text()

    def issue(self, ca: str, common_name: str) -> dict[str, Any]:
        """A certificate with its key, in the shape of CreateKeysAndCertificate's answer."""
        self.run("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "leaf.key")
        self.run("req", "-new", "-key", "leaf.key", "-subj", f"/CN={common_name}", "-out", "leaf.csr")
        (self.folder / "leaf.ext").write_text("basicConstraints = CA:FALSE\n")
        signing = ("-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days", "30", "-sha256")
        self.run("x509", "-req", "-in", "leaf.csr", *signing, "-extfile", "leaf.ext", "-out", "leaf.pem")
        pem, key = (self.folder / "leaf.pem").read_text(), (self.folder / "leaf.key").read_text()
        return {"certificatePem": pem, "keyPair": {"PrivateKey": key}}


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSsl:
    folder = tmp_path / "pki"
    folder.mkdir()
    return OpenSsl(folder)


@pytest.fixture
def iot(server: ServerProcess) -> Any:
    return server.client("iot")


@pytest.fixture
def listener(server: ServerProcess, iot: Any, tmp_path: Path) -> Iterator[PahoDevice]:
    """A device that hears of newcomers."""
    made = iot.create_keys_and_certificate(setAsActive=True)
    name = f"listener-{uuid.uuid4().hex[:8]}"
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
    iot.create_policy(policyName=name, policyDocument=json.dumps(document))
    iot.attach_policy(policyName=name, target=made["certificateArn"])
    with PahoDevice(server.endpoints, tmp_path / "listener", name, made) as device:
        yield device


def register(iot: Any, openssl: OpenSsl, name: str, **more: Any) -> str:
    """With the proof that AWS asks for."""
    pem = openssl.make_ca(name)
    proof = openssl.issue(name, iot.get_registration_code()["registrationCode"])["certificatePem"]
    made = iot.register_ca_certificate(caCertificate=pem, verificationCertificate=proof, setAsActive=True, **more)
    return str(made["certificateId"])


def test_a_newcomer_is_registered_told_of_and_let_in_once_it_is_activated(
    server: ServerProcess, iot: Any, openssl: OpenSsl, listener: PahoDevice, tmp_path: Path
) -> None:
    unique = uuid.uuid4().hex[:8]
    ca = register(iot, openssl, f"ca-{unique}", allowAutoRegistration=True)
    assert listener.subscribe(f"$aws/events/certificates/registered/{ca}") == 1
    certificate = openssl.issue(f"ca-{unique}", f"jitr-{unique}")
    device = PahoDevice(server.endpoints, tmp_path / "device", f"jitr-{unique}", certificate)
    assert not device.connect()
    device.close()
    event = json.loads(listener.message()[1])
    assert (event["caCertificateId"], event["certificateStatus"]) == (ca, "PENDING_ACTIVATION")
    assert event["awsAccountId"] == server.endpoints["account"]
    [listed] = iot.list_certificates_by_ca(caCertificateId=ca)["certificates"]
    assert (listed["certificateId"], listed["status"]) == (event["certificateId"], "PENDING_ACTIVATION")

    document = own_topics_policy(server.endpoints["region"], server.endpoints["account"])
    iot.create_policy(policyName=f"policy-{unique}", policyDocument=document)
    iot.create_thing(thingName=f"jitr-{unique}")
    iot.attach_policy(policyName=f"policy-{unique}", target=listed["certificateArn"])
    iot.attach_thing_principal(thingName=f"jitr-{unique}", principal=listed["certificateArn"])
    iot.update_certificate(certificateId=event["certificateId"], newStatus="ACTIVE")
    with PahoDevice(server.endpoints, tmp_path / "again", f"jitr-{unique}", certificate) as activated:
        assert activated.subscribe(f"$aws/things/jitr-{unique}/jobs/notify") == 1
        iot.update_certificate(certificateId=event["certificateId"], newStatus="REVOKED")
        assert activated.cut.wait(60)
        assert not activated.connect()


def test_a_newcomer_is_provisioned_by_the_template_of_its_ca(
    server: ServerProcess, iot: Any, openssl: OpenSsl, tmp_path: Path
) -> None:
    unique = uuid.uuid4().hex[:8]
    document = own_topics_policy(server.endpoints["region"], server.endpoints["account"])
    iot.create_policy(policyName=f"jitp-{unique}", policyDocument=document)
    body = json.loads(json.dumps(JITP))
    body["Resources"]["policy"] = {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": f"jitp-{unique}"}}
    role = f"arn:aws:iam::{server.endpoints['account']}:role/overair-ota"
    iot.create_provisioning_template(
        templateName=f"jitp-{unique}", templateBody=json.dumps(body), provisioningRoleArn=role, type="JITP", enabled=True
    )
    config = {"templateName": f"jitp-{unique}"}
    ca = register(iot, openssl, f"ca-{unique}", allowAutoRegistration=True, registrationConfig=config)
    certificate = openssl.issue(f"ca-{unique}", f"dev-{unique}")
    with PahoDevice(server.endpoints, tmp_path / "device", f"dev-{unique}", certificate) as device:
        assert device.subscribe(f"$aws/things/dev-{unique}/jobs/notify") == 1
    assert iot.describe_thing(thingName=f"dev-{unique}")["thingName"] == f"dev-{unique}"
    # A second certificate of the same name is another device's, or a thief's: the template doesn't say that it may take over.
    clone = PahoDevice(server.endpoints, tmp_path / "clone", f"dev-{unique}", openssl.issue(f"ca-{unique}", f"dev-{unique}"))
    assert not clone.connect()
    clone.close()
    assert len(iot.list_certificates_by_ca(caCertificateId=ca)["certificates"]) == 1
    with pytest.raises(iot.exceptions.DeleteConflictException):
        iot.delete_provisioning_template(templateName=f"jitp-{unique}")


def test_a_ca_certificate_is_proved_changed_and_deleted(iot: Any, openssl: OpenSsl) -> None:
    unique = uuid.uuid4().hex[:8]
    pem = openssl.make_ca(f"ca-{unique}")
    wrong = openssl.issue(f"ca-{unique}", "no code")["certificatePem"]
    iot.get_registration_code()
    with pytest.raises(iot.exceptions.RegistrationCodeValidationException):
        iot.register_ca_certificate(caCertificate=pem, verificationCertificate=wrong)
    with pytest.raises(iot.exceptions.CertificateValidationException):
        iot.register_ca_certificate(caCertificate=pem)
    leaf = openssl.issue(f"ca-{unique}", f"dev-{unique}")["certificatePem"]
    with pytest.raises(iot.exceptions.CertificateValidationException):
        iot.register_ca_certificate(caCertificate=leaf, certificateMode="SNI_ONLY")
    with pytest.raises(iot.exceptions.CertificateValidationException):
        iot.register_certificate(certificatePem=leaf)

    tags = [{"Key": "line", "Value": "seven"}]
    registered = iot.register_ca_certificate(caCertificate=pem, certificateMode="SNI_ONLY", tags=tags)
    ca, arn = registered["certificateId"], registered["certificateArn"]
    iot.tag_resource(resourceArn=arn, tags=[{"Key": "site", "Value": "x"}])
    assert {tag["Key"] for tag in iot.list_tags_for_resource(resourceArn=arn)["tags"]} == {"line", "site"}
    with pytest.raises(iot.exceptions.ResourceAlreadyExistsException):
        iot.register_ca_certificate(caCertificate=pem, certificateMode="SNI_ONLY")
    described = iot.describe_ca_certificate(certificateId=ca)["certificateDescription"]
    assert (described["status"], described["autoRegistrationStatus"]) == ("INACTIVE", "DISABLE")
    assert described["certificateMode"] == "SNI_ONLY"
    with pytest.raises(iot.exceptions.CertificateStateException):
        iot.register_certificate(certificatePem=leaf)
    iot.update_ca_certificate(certificateId=ca, newStatus="ACTIVE", newAutoRegistrationStatus="ENABLE")
    made = iot.register_certificate(certificatePem=leaf, caCertificatePem=pem, setAsActive=True)
    [listed] = iot.list_certificates_by_ca(caCertificateId=ca)["certificates"]
    assert (listed["certificateId"], listed["status"]) == (made["certificateId"], "ACTIVE")
    shown = iot.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]
    assert (shown["caCertificateId"], shown["certificateMode"], shown["customerVersion"]) == (ca, "DEFAULT", 1)
    assert shown["validity"]["notAfter"] > shown["validity"]["notBefore"]
    uuid.UUID(shown["generationId"])
    assert {"ownedBy", "creationDate", "lastModifiedDate", "certificatePem", "certificateArn"} <= shown.keys()
    assert ca in {each["certificateId"] for each in iot.list_ca_certificates()["certificates"]}
    with pytest.raises(iot.exceptions.CertificateStateException):
        iot.delete_ca_certificate(certificateId=ca)
    iot.update_ca_certificate(certificateId=ca, newStatus="INACTIVE")
    iot.delete_ca_certificate(certificateId=ca)
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.list_tags_for_resource(resourceArn=arn)
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.describe_ca_certificate(certificateId=ca)
    before = iot.get_registration_code()["registrationCode"]
    iot.delete_registration_code()
    assert iot.get_registration_code()["registrationCode"] != before


def test_a_ca_that_takes_no_newcomers_lets_nobody_in(server: ServerProcess, iot: Any, openssl: OpenSsl, tmp_path: Path) -> None:
    unique = uuid.uuid4().hex[:8]
    ca = register(iot, openssl, f"ca-{unique}")
    certificate = openssl.issue(f"ca-{unique}", f"dev-{unique}")
    device = PahoDevice(server.endpoints, tmp_path, f"dev-{unique}", certificate)
    assert not device.connect()
    device.close()
    assert iot.list_certificates_by_ca(caCertificateId=ca)["certificates"] == []


def test_a_cas_revocation_list_cuts_whom_it_names_within_a_second(
    server: ServerProcess, iot: Any, openssl: OpenSsl, tmp_path: Path
) -> None:
    unique = uuid.uuid4().hex[:8]
    document = own_topics_policy(server.endpoints["region"], server.endpoints["account"])
    iot.create_policy(policyName=f"jitp-{unique}", policyDocument=document)
    body = json.loads(json.dumps(JITP))
    body["Resources"]["policy"] = {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": f"jitp-{unique}"}}
    config = {"templateBody": json.dumps(body), "roleArn": server.endpoints["ota_role_arn"]}
    ca = register(iot, openssl, f"ca-{unique}", allowAutoRegistration=True, registrationConfig=config)
    listed, unseen = (openssl.issue(f"ca-{unique}", f"{name}-{unique}") for name in ("dev", "new"))
    with PahoDevice(server.endpoints, tmp_path / "device", f"dev-{unique}", listed) as device:
        told = put_revocation_list(server, openssl, f"ca-{unique}", ca, listed, unseen)
        answered = time.monotonic()
        assert device.cut.wait(60)
        assert time.monotonic() - answered < AT_ONCE_S
        [revoked] = told["revokedCertificateIds"]
        assert iot.describe_certificate(certificateId=revoked)["certificateDescription"]["status"] == "REVOKED"
        assert not device.connect()
    stranger = PahoDevice(server.endpoints, tmp_path / "new", f"new-{unique}", unseen)
    assert not stranger.connect()
    stranger.close()
    with pytest.raises(iot.exceptions.CertificateStateException):
        iot.register_certificate(certificatePem=unseen["certificatePem"], setAsActive=True)


def put_revocation_list(server: ServerProcess, openssl: OpenSsl, name: str, ca: str, *listed: dict[str, Any]) -> dict[str, Any]:
    """A list of a CA made with openssl, handed in under the id that AWS's operations know it by."""
    root = x509.load_pem_x509_certificate((openssl.folder / f"{name}.pem").read_bytes())
    key = serialization.load_pem_private_key((openssl.folder / f"{name}.key").read_bytes(), None)
    now = datetime.now(UTC)
    crl = x509.CertificateRevocationListBuilder(root.subject, now - timedelta(hours=1), now + timedelta(days=9))
    crl = crl.add_extension(x509.CRLNumber(1), critical=False)
    for each in listed:
        serial_number = x509.load_pem_x509_certificate(each["certificatePem"].encode()).serial_number
        crl = crl.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial_number).revocation_date(now).build()
        )
    pem = crl.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    overair = server.client("overair")
    authorities = overair.list_fleet_certificate_authorities()["authorities"]
    [authority] = [each["authorityId"] for each in authorities if each["fingerprint"] == ca]
    told: dict[str, Any] = overair.put_fleet_revocation_list(authorityId=authority, revocationListPem=pem)
    return told
