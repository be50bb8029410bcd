"""The ways in, and out again, on a real server over mutual TLS: both levels, the way between them, and whoever is kept out."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import sqlite3
import ssl
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    pkcs7,
    pkcs12,
)

from overair.wire.mqtt.packets import Connack
from tests.support import pki
from tests.support.mqtt_over_tls import MqttOverTls
from tests.support.operator_rest import OperatorRest
from tests.support.pki import Held
from tests.support.server_process import ServerProcess

AT_ONCE_S = 1.0


class Peer:
    """A device with a certificate, its chain and its key, over the ssl module."""

    def __init__(self, server: ServerProcess, folder: Path, leaf: Held | Any, *, chain_pem: str = "") -> None:
        self.server = server
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / f"{uuid.uuid4().hex}.pem"
        self.file.write_text(leaf.key_pem + (chain_pem or leaf.chain_pem))

    @classmethod
    def of_pkcs12(cls, server: ServerProcess, folder: Path, bundle: bytes) -> Peer:
        """Whoever was handed a bundle."""
        opened = pkcs12.load_pkcs12(bundle, b"")
        assert opened.cert is not None
        return cls(server, folder, Held(opened.cert.certificate, opened.key))  # type: ignore[arg-type]

    @property
    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.server.endpoints["ca_file"])
        context.load_cert_chain(self.file)
        return context

    def ask(self, method: str, path: str, body: bytes | dict[str, Any] | None = None) -> tuple[int, bytes]:
        """One request in a TLS session of its own."""
        at = urlsplit(self.server.endpoints["device_url"])
        assert at.hostname is not None
        connection = http.client.HTTPSConnection(at.hostname, at.port, context=self.context, timeout=20)
        try:
            connection.request(method, path, json.dumps(body).encode() if isinstance(body, dict) else body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def refusal(self, method: str = "GET", path: str = "/director/targets.json", body: Any = None) -> tuple[int, str]:
        """The status and the code of a refusal."""
        status, content = self.ask(method, path, body)
        return status, json.loads(content)["code"]

    def is_in(self) -> bool:
        """Whether the door knows the device: it has no targets yet, but a root is there for whoever may come in."""
        return self.ask("GET", "/director/1.root.json")[0] == 200

    def mqtt(self, client_id: str) -> MqttOverTls:
        """An MQTT connection with the same certificate."""
        endpoints = self.server.endpoints
        return MqttOverTls(endpoints["mqtt_host"], endpoints["mqtt_port"], self.context, client_id)


@cache
def _client(service: str, _url: str, make: Callable[[str], Any]) -> Any:
    return make(service)


def operator(server: ServerProcess, service: str = "overair") -> Any:
    """A boto3 client, made once for each life of a server: reading the models is what takes long."""
    return _client(service, server.endpoints["operator_url"], server.client)


def accepted(connection: MqttOverTls) -> bool:
    return isinstance(connection.connack, Connack) and connection.connack.return_code == 0


def cut_within_s(connection: MqttOverTls) -> float:
    """How long a live connection lasts from now on."""
    begun = time.monotonic()
    assert connection.next(timeout_s=10) is None
    return time.monotonic() - begun


def credential(server: ServerProcess, folder: Path, **options: Any) -> tuple[Any, Peer]:
    made = operator(server).create_provisioning_credential(**options)
    return made, Peer.of_pkcs12(server, folder, made["pkcs12"])


def device_of(server: ServerProcess, folder: Path, shared: Peer, name: str) -> Peer:
    status, bundle = shared.ask("POST", "/devices", {"deviceId": name, "ttl": "36000"})
    assert status == 200, bundle
    return Peer.of_pkcs12(server, folder, bundle)


def mqtt_policy(server: ServerProcess) -> str:
    """A device policy for MQTT under one's own name."""
    at = server.endpoints
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "iot:Connect",
                "Resource": f"arn:aws:iot:{at['region']}:{at['account']}:client/${{iot:Connection.Thing.ThingName}}",
            },
            {
                "Effect": "Allow",
                "Action": ["overair:Director*", "overair:Device*"],
                "Resource": f"arn:aws:iot:{at['region']}:{at['account']}:thing/${{iot:Connection.Thing.ThingName}}",
            },
        ],
    }
    name = f"mqtt-{uuid.uuid4().hex[:8]}"
    operator(server, "iot").create_policy(policyName=name, policyDocument=json.dumps(document))
    return name


def own(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:8]}"


# Own PKI --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6])
def test_a_device_five_deep_below_a_root_comes_in_at_its_first_contact_and_one_six_deep_doesnt(
    server: ServerProcess, tmp_path: Path, depth: int
) -> None:
    root, lowest = pki.deep(depth)
    operator(server).register_fleet_certificate_authority(certificatePem=root.pem)
    device = Peer(server, tmp_path, pki.device(lowest, own("vin")))
    if depth > 5:
        assert device.refusal() == (403, "certificate_chain_too_deep")
    else:
        assert device.is_in()


def test_mqtt_and_https_let_the_same_device_in_by_the_same_rule(server: ServerProcess, tmp_path: Path) -> None:
    root, lowest = pki.deep(3)
    operator(server).register_fleet_certificate_authority(certificatePem=root.pem, rule={"policyName": mqtt_policy(server)})
    name = own("vin")
    device = Peer(server, tmp_path, pki.device(lowest, name))
    connection = device.mqtt(name)
    assert accepted(connection)
    assert operator(server, "iot").describe_thing(thingName=name)["thingName"] == name
    assert not accepted(device.mqtt("somebody-else"))
    assert device.is_in()
    foreign = Peer(server, tmp_path, pki.device(pki.authority("Nobody's"), own("vin")))
    assert not accepted(foreign.mqtt(name))
    connection.close()


def test_several_common_names_and_none_are_refused_by_name_over_tls(server: ServerProcess, tmp_path: Path) -> None:
    root = pki.authority()
    operator(server).register_fleet_certificate_authority(certificatePem=root.pem)
    for subject, code in (
        (pki.names(organisation="Acme"), "certificate_without_common_name"),
        (pki.names("vin-a", "vin-b"), "certificate_with_several_common_names"),
        (pki.names("vin *"), "certificate_common_name_invalid"),
    ):
        assert Peer(server, tmp_path, pki.device(root, subject)).refusal() == (403, code)
    server_purpose = pki.device(root, own("vin"), purposes=pki.SERVER)
    assert Peer(server, tmp_path, server_purpose).refusal() == (403, "certificate_wrong_purpose")


def test_a_root_that_comes_with_its_key_is_refused_and_not_stored(server: ServerProcess) -> None:
    overair, root = operator(server), pki.authority(own("Root"))
    with pytest.raises(overair.exceptions.InvalidRequestException) as caught:
        overair.register_fleet_certificate_authority(certificatePem=root.pem + root.key_pem)
    assert "PRIVATE KEY" in caught.value.response["Error"]["Message"]
    subjects = {each["subject"] for each in overair.list_fleet_certificate_authorities()["authorities"]}
    assert root.certificate.subject.rfc4514_string() not in subjects


# Kept out -------------------------------------------------------------------------------------------------------------------


def test_a_block_cuts_live_connections_and_refuses_requests_at_once_and_outlives_a_restart(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = new_server().start()
    overair, root = operator(server), pki.authority()
    overair.register_fleet_certificate_authority(certificatePem=root.pem, rule={"policyName": mqtt_policy(server)})
    device, other = (Peer(server, tmp_path, pki.device(root, name)) for name in ("vin-1", "vin-2"))
    live, spared = device.mqtt("vin-1"), other.mqtt("vin-2")
    assert accepted(live)
    assert accepted(spared)

    overair.block_device(thingName="vin-1", reason="stolen")
    assert cut_within_s(live) < AT_ONCE_S
    assert device.refusal() == (403, "device_blocked")
    assert not accepted(device.mqtt("vin-1"))
    assert spared.before_ping_answer() == []

    server.kill()
    server.start()
    assert device.refusal() == (403, "device_blocked")
    assert other.is_in()
    (block,) = operator(server).list_blocks()["blocks"]
    assert (block["kind"], block["name"], block["reason"]) == ("thing", "vin-1", "stolen")

    operator(server).unblock_device(thingName="vin-1")
    again = device.mqtt("vin-1")
    assert accepted(again)
    certificate = operator(server, "iot").list_thing_principals(thingName="vin-1")["principals"][0].rpartition("/")[2]
    operator(server).block_certificate(certificateId=certificate, reason="lost")
    assert cut_within_s(again) < AT_ONCE_S
    assert device.refusal() == (403, "device_blocked")
    operator(server).unblock_certificate(certificateId=certificate)
    assert device.is_in()


def test_withdrawing_an_authority_or_revoking_a_credential_with_its_devices_cuts_them_at_once(
    server: ServerProcess, tmp_path: Path
) -> None:
    overair, policy = operator(server), mqtt_policy(server)
    root, names = pki.authority(), (own("vin"), own("vin"))
    made = overair.register_fleet_certificate_authority(certificatePem=root.pem, rule={"policyName": policy})
    theirs = Peer(server, tmp_path, pki.device(root, names[0]))
    issued, shared = credential(server, tmp_path, policyName=policy)
    ours = device_of(server, tmp_path, shared, names[1])
    live = theirs.mqtt(names[0]), ours.mqtt(names[1])
    assert all(accepted(each) for each in live)

    overair.withdraw_fleet_certificate_authority(authorityId=made["authorities"][0]["authorityId"])
    assert cut_within_s(live[0]) < AT_ONCE_S
    assert theirs.refusal() == (403, "certificate_authority_withdrawn")
    assert live[1].before_ping_answer() == []

    identity = issued["credential"]["credentialId"]
    overair.revoke_provisioning_credential(credentialId=identity, blockDevices=True)
    assert cut_within_s(live[1]) < AT_ONCE_S
    assert ours.refusal() == (403, "device_blocked")
    assert shared.refusal("POST", "/devices", {"deviceId": own("vin")}) == (403, "credential_revoked")
    overair.unblock_devices_of_credential(credentialId=identity)
    assert accepted(ours.mqtt(names[1]))


def test_a_revocation_list_cuts_whom_it_names_at_once_and_keeps_out_whom_nobody_has_seen(
    server: ServerProcess, tmp_path: Path
) -> None:
    overair, policy = operator(server), mqtt_policy(server)
    root, names = pki.authority(), (own("vin"), own("vin"), own("vin"))
    made = overair.register_fleet_certificate_authority(certificatePem=root.pem, rule={"policyName": policy})
    authority = made["authorities"][0]["authorityId"]
    listed, other, unseen = (pki.device(root, name) for name in names)
    live = [Peer(server, tmp_path, leaf).mqtt(name) for leaf, name in zip((listed, other), names, strict=False)]
    assert all(accepted(each) for each in live)

    told = overair.put_fleet_revocation_list(
        authorityId=authority, revocationListPem=pki.revocation_list(root, listed, unseen, number=7)
    )
    assert cut_within_s(live[0]) < AT_ONCE_S
    assert len(told["revokedCertificateIds"]) == 1
    for leaf in (listed, unseen):
        assert Peer(server, tmp_path, leaf).refusal() == (403, "certificate_revoked")
    assert live[1].before_ping_answer() == []

    with pytest.raises(ClientError, match="only a newer one") as caught:
        overair.put_fleet_revocation_list(authorityId=authority, revocationListPem=pki.revocation_list(root, number=6))
    assert caught.value.response["Error"]["Code"] == "ConflictException"
    stale = pki.revocation_list(root, number=8, next_update=pki.BORN + timedelta(days=1))
    with pytest.raises(ClientError, match="stale") as caught:
        overair.put_fleet_revocation_list(authorityId=authority, revocationListPem=stale)
    assert caught.value.response["Error"]["Code"] == "InvalidRequestException"
    (kept,) = overair.list_fleet_revocation_lists(authorityId=authority)["revocationLists"]
    assert (kept["number"], kept["entries"]) == ("7", 2)


# Shared credentials ---------------------------------------------------------------------------------------------------------


def test_a_credential_asks_no_faster_than_it_may(server: ServerProcess, tmp_path: Path) -> None:
    _, shared = credential(server, tmp_path, devicesPerMinute=2)
    answers = [shared.ask("POST", "/devices", {"deviceId": own("vin"), "ttl": 5})[0] for _ in range(3)]
    assert answers == [200, 200, 429]


def test_a_device_renews_its_certificate_over_its_old_one(server: ServerProcess, tmp_path: Path) -> None:
    _, shared = credential(server, tmp_path)
    name, key = own("vin"), pki.new_key()
    device = device_of(server, tmp_path, shared, name)
    request = x509.CertificateSigningRequestBuilder().subject_name(pki.names(name)).sign(key, hashes.SHA256())
    body = base64.encodebytes(request.public_bytes(Encoding.DER))
    status, answer = device.ask("POST", "/.well-known/est/simplereenroll", body)
    assert status == 200
    (fresh,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer))
    renewed = Peer(server, tmp_path, Held(fresh, key))
    assert renewed.is_in()
    assert device.is_in()
    other = x509.CertificateSigningRequestBuilder().subject_name(pki.names(own("vin"))).sign(key, hashes.SHA256())
    body = base64.encodebytes(other.public_bytes(Encoding.DER))
    assert renewed.refusal("POST", "/.well-known/est/simplereenroll", body) == (400, "certificate_signing_request_invalid")


# The way to the production level and back -----------------------------------------------------------------------------------


def secrets_of(data: Path) -> list[bytes]:
    """The server's own fleet keys as its disk holds them: sealed, and what they are once opened with the wrapping key."""
    wrapping = base64.b64decode(json.loads((data / "wrapping.key").read_bytes())["key"])
    records = sqlite3.connect(f"file:{data / 'records.sqlite3'}?mode=ro", uri=True)
    rows = records.execute(
        "SELECT account, key_id, sealed FROM keyring_keys WHERE purpose IN ('fleet-authority', 'credential-authority')"
    ).fetchall()
    records.close()
    assert len(rows) == 2
    found = []
    for account, key_id, sealed in rows:
        opened = AESGCM(wrapping).decrypt(sealed[1:13], sealed[13:], f"private-key/{account}/{key_id}".encode())
        key: Any = load_der_private_key(opened, None)
        found += [
            sealed,
            sealed[1:13],
            sealed[-16:],
            opened,
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            key.private_numbers().private_value.to_bytes(32, "big"),
        ]
    return found


def found_in(directory: Path, secrets: list[bytes]) -> list[str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    return [path.name for path in files if any(secret in path.read_bytes() for secret in secrets)]


def test_shared_provisioning_off_leaves_the_key_nowhere_on_the_disk_and_the_fleet_goes_on(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = new_server().start()
    overair = operator(server)
    assert overair.describe_server()["provisioning"]["level"] == "default"
    _, shared = credential(server, tmp_path)
    inside = device_of(server, tmp_path, shared, "vin-1")
    root = pki.authority()
    overair.register_fleet_certificate_authority(certificatePem=root.pem)
    assert "your own are trusted" in " ".join(overair.describe_server()["warnings"])
    secrets = secrets_of(server.data)
    backup, begun_s = tmp_path / "backup", time.time()
    shutil.copytree(server.data, backup, ignore=shutil.ignore_patterns("run"))
    assert found_in(server.data, secrets)

    told = overair.set_shared_provisioning(enabled=False)

    assert found_in(server.data, secrets) == []
    assert (told["level"], told["sharedProvisioning"]) == ("production", False)
    # What can't be reached is named: the backup does hold the keys, and was made within the time that is told.
    assert found_in(backup, secrets)
    assert {key["purpose"] for key in told["destroyedKeys"]} == {"fleet-authority", "credential-authority"}
    for key in told["destroyedKeys"]:
        assert key["createdAt"].timestamp() < begun_s < key["destroyedAt"].timestamp()
    assert overair.describe_server()["provisioning"]["level"] == "production"
    assert any("Destroy those backups" in each for each in overair.describe_server()["warnings"])

    # Minting fails by name; the device that is in goes on; own authorities let others in; nothing comes back by a restart.
    assert shared.refusal("POST", "/devices", {"deviceId": "vin-2"}) == (403, "shared_provisioning_off")
    with pytest.raises(ClientError) as caught:
        overair.create_provisioning_credential()
    assert caught.value.response["Error"]["Code"] == "ConflictException"
    assert "Shared provisioning is off" in caught.value.response["Error"]["Message"]
    server.kill()
    server.start()
    overair = operator(server)
    assert inside.is_in()
    request = x509.CertificateSigningRequestBuilder().subject_name(pki.names("vin-1")).sign(pki.new_key(), hashes.SHA256())
    body = base64.encodebytes(request.public_bytes(Encoding.DER))
    assert inside.refusal("POST", "/.well-known/est/simplereenroll", body) == (404, "renewal_not_offered")
    assert Peer(server, tmp_path, pki.device(root, "vin-9")).is_in()
    assert found_in(server.data, secrets) == []

    # And back: with a key of its own, under which the old credential stays dead.
    overair.set_shared_provisioning(enabled=True)
    assert overair.describe_provisioning()["level"] == "default"
    assert shared.refusal("POST", "/devices", {"deviceId": "vin-2"}) == (403, "credential_revoked")
    _, fresh = credential(server, tmp_path)
    assert device_of(server, tmp_path, fresh, "vin-2").is_in()
    assert inside.is_in()
    assert found_in(server.data, secrets) == []


# Operators ------------------------------------------------------------------------------------------------------------------


def test_operators_see_and_steer_all_of_it_with_boto3(server: ServerProcess, tmp_path: Path) -> None:
    overair = operator(server)
    issued, shared = credential(server, tmp_path, name="line 7", usesMax=2, expiresDays=1)
    identity, name = issued["credential"]["credentialId"], own("vin")
    device_of(server, tmp_path, shared, name)
    assert overair.describe_provisioning_credential(credentialId=identity)["credential"]["uses"] == 1
    assert "line 7" in {each["name"] for each in overair.list_provisioning_credentials()["credentials"]}
    (device,) = overair.list_devices_of_credential(credentialId=identity)["devices"]
    assert (device["thingName"], device["blocked"], device["reissues"]) == (name, False, 0)

    root = pki.authority()
    made = overair.register_fleet_certificate_authority(certificatePem=root.pem, rule={"firstContact": "deny"})
    authority = made["authorities"][0]["authorityId"]
    assert overair.describe_fleet_certificate_authority(authorityId=authority)["authority"]["devices"] == 0
    stranger, unknown = pki.device(root, own("vin")), pki.device(root, own("vin"))
    for leaf in (stranger, unknown):
        assert Peer(server, tmp_path, leaf).refusal() == (403, "device_not_registered")
    noted = {each["certificatePem"]: each for each in overair.list_device_anomalies()["anomalies"]}
    overair.approve_device_certificate(certificateId=noted[stranger.pem]["certificateId"])
    assert Peer(server, tmp_path, stranger).is_in()
    overair.dismiss_device_anomaly(certificateId=noted[unknown.pem]["certificateId"])
    changed = overair.update_fleet_certificate_authority(authorityId=authority, rule={"firstContact": "allow"})
    assert changed["authority"]["rule"]["firstContact"] == "allow"
    assert Peer(server, tmp_path, unknown).is_in()
    assert overair.describe_fleet_certificate_authority(authorityId=authority)["authority"]["devices"] == 2
    records = operator(server).list_audit_records(maxResults=100)["records"]
    assert {"RegisterFleetCertificateAuthority", "ApproveDeviceCertificate"} <= {each["operation"] for each in records}


def test_ota_connects_tools_register_and_delete_a_device_by_rest(server: ServerProcess, tmp_path: Path) -> None:
    key = server.root_key()
    rest = OperatorRest(
        server.endpoints["operator_url"],
        server.endpoints["ca_file"],
        client_id=key["access_key_id"],
        client_secret=key["secret_access_key"],
    )
    name = own("vin")
    leaf = pki.device(pki.authority("Nobody's"), name)
    device = Peer(server, tmp_path, leaf)
    assert device.refusal() == (403, "foreign_certificate_authority")
    body = {"deviceId": name, "deviceName": "my car", "deviceType": "Vehicle", "credentials": leaf.pem}
    told = rest.expect(200, "PUT", "/api/v1/devices", json_body=body).json
    assert device.is_in()
    assert rest.expect(200, "GET", f"/api/v1/devices/{told}/public_credentials").json["credentials"] == leaf.pem
    assert rest.expect(200, "GET", f"/api/v1/devices/{told}").json["deviceName"] == "my car"
    assert rest.ask("PUT", "/api/v1/devices", json_body={**body, "credentials": leaf.key_pem + leaf.pem}).status == 400
    assert rest.ask("PUT", "/api/v1/devices", json_body=body).status == 409
    rest.expect(202, "DELETE", f"/api/v1/devices/{told}")
    assert device.refusal()[0] == 403
    assert rest.ask("GET", f"/api/v1/devices/{told}").status == 404
    assert rest.ask("PUT", "/api/v1/devices", json_body=body).status == 409
    operator(server).unblock_device(thingName=name)
    rest.expect(200, "PUT", "/api/v1/devices", json_body=body)
    assert device.is_in()
