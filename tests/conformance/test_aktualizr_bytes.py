"""The test client that stands for aktualizr is held against literals, written by hand from the reference's examples.

It is what the server's journeys are proved with, so it is proved first, without the server. Its facts stand in
``docs/aktualizr-wire.md``.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.support.aktualizr import jsoncpp
from tests.support.aktualizr.configuration import Configuration
from tests.support.aktualizr.credentials import OwnPki, SharedCredentials
from tests.support.aktualizr.device import Aktualizr, Outcome
from tests.support.aktualizr.errors import (
    BadEcuId,
    BadHardwareId,
    BadKeyId,
    ExpiredMetadata,
    IllegalThreshold,
    InvalidMetadata,
    NonUniqueSignatures,
    SecurityException,
    TargetContentMismatch,
    TargetMismatch,
    UnmetThreshold,
)
from tests.support.aktualizr.keys import EcuKey, PublicKey
from tests.support.aktualizr.secondary import VirtualSecondary
from tests.support.authority import Authority
from tests.support.scripted_https import Answer, Received, ScriptedHttps

HERE = Path(__file__).parents[1] / "support" / "aktualizr"
SEED = bytes(range(32))
PUBLIC_HEX = "03A107BFF3CE10BE1D70DD18E74BC09967E4D6309BA50D5F1DDC8664125531B8"
"""Of ``SEED``: what RFC 8032's algorithm gives, in capitals."""
LATER = "2038-01-19T03:14:07Z"


def fixed_key() -> EcuKey:
    return EcuKey(ed25519.Ed25519PrivateKey.from_private_bytes(SEED))


def test_the_client_imports_nothing_of_the_server_it_is_pointed_at() -> None:
    for path in HERE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in named if name.partition(".")[0] == "overair"], path
    loaded = "import sys, tests.support.aktualizr.device; print(sorted(m for m in sys.modules if m.startswith('overair')))"
    printed = subprocess.run([sys.executable, "-c", loaded], cwd=HERE.parents[2], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None, "x"], "B": {}}, '{"B":{},"a":[true,null,"x"],"b":1}'),
        ('a"b\\c/d', '"a\\"b\\\\c/d"'),
        ("\b\f\n\r\t\x01\x7f", '"\\b\\f\\n\\r\\t\\u0001\x7f"'),
        ("Gerät 🚗", '"Ger\\u00e4t \\ud83d\\ude97"'),
        ([], "[]"),
    ],
)
def test_json_is_spelt_as_jsoncpp_spells_it(value: object, text: str) -> None:
    assert jsoncpp.text_of(value) == text


def test_an_ed25519_ecu_key_is_told_in_capitals_and_named_by_the_hash_of_its_quoted_text() -> None:
    public = fixed_key().public
    assert public.to_uptane() == {"keytype": "ED25519", "keyval": {"public": PUBLIC_HEX}}
    assert public.key_id == hashlib.sha256(f'"{PUBLIC_HEX}"'.encode()).hexdigest()


def test_an_rsa_ecu_key_is_a_pem_named_without_its_last_line_end() -> None:
    public = EcuKey.generate("RSA2048").public
    assert public.value.startswith("-----BEGIN PUBLIC KEY-----\n")
    assert public.value.endswith("-----END PUBLIC KEY-----\n")
    escaped = public.value.removesuffix("\n").replace("\n", "\\n")
    assert public.key_id == hashlib.sha256(f'"{escaped}"'.encode()).hexdigest()


def test_signatures_are_over_the_canonical_text_with_the_method_that_aktualizr_names() -> None:
    signed = fixed_key().signed({"b": 1, "a": "ä"})
    (signature,) = signed["signatures"]  # type: ignore[misc]
    assert signature["method"] == "ed25519"
    public = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(PUBLIC_HEX))
    public.verify(base64.b64decode(signature["sig"]), b'{"a":"\\u00e4","b":1}')

    key = EcuKey.generate("RSA2048")
    (signature,) = key.signed({"a": 1})["signatures"]  # type: ignore[misc]
    assert signature["method"] == "rsassa-pss"
    loaded = serialization.load_pem_public_key(key.public.value.encode())
    loaded.verify(base64.b64decode(signature["sig"]), b'{"a":1}', padding.PSS(padding.MGF1(SHA256()), 32), SHA256())  # type: ignore[union-attr,call-arg]


class World:
    """A server that says what a test wants, and a device with its own PKI."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority()
        self.folder = folder
        self.answers: dict[str, list[Answer] | Answer] = {}
        self.server = ScriptedHttps(self.authority, self._answer)

    def _answer(self, received: Received) -> Answer:
        found = self.answers.get(received.path, Answer(404, b'{"code":"missing_entity"}'))
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found

    def accept_reports(self) -> None:
        for path in (
            "/director/ecus",
            "/director/manifest",
            "/system_info",
            "/system_info/network",
            "/system_info/config",
            "/core/installed",
            "/events",
        ):
            self.answers[path] = Answer(200)

    def device(self, *secondaries: VirtualSecondary, name: str = "car-1") -> Aktualizr:
        certificate, key = self.authority.issue(name)
        paths = [self.folder / f"{name}.{kind}" for kind in ("ca", "pem", "key")]
        for path, data in zip(paths, (self.authority.pem, certificate, key), strict=True):
            path.write_bytes(data)
        configuration = Configuration(
            server_url=self.server.url,
            credentials=OwnPki(*paths),
            hardware_id="gw-imx8",
            primary_serial="a1b2",
            key_type="ED25519",
            retry_pause_s=0.0,
        )
        device = Aktualizr(configuration, secondaries)
        device.storage.primary_key = device.provisioner.key = fixed_key()
        return device

    def paths(self) -> list[str]:
        return [f"{received.method} {received.path}" for received in self.server.received]

    def head_of(self, path: str) -> str:
        (received,) = [each for each in self.server.received if each.path == path]
        return received.raw.partition(b"\r\n\r\n")[0].decode().replace(self.server.url.removeprefix("https://"), "HOST")

    def body_of(self, path: str) -> bytes:
        return [each.body for each in self.server.received if each.path == path][-1]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    with world.server:
        yield world  # type: ignore[misc]


def test_requests_carry_libcurls_headers_in_its_order_and_nothing_else(world: World) -> None:
    world.accept_reports()
    world.device().cycle()
    assert world.head_of("/director/1.root.json") == (
        "GET /director/1.root.json HTTP/1.1\r\nHost: HOST\r\nUser-Agent: Aktualizr/2025.10\r\nAccept: */*"
    )
    body = world.body_of("/director/ecus")
    assert world.head_of("/director/ecus") == (
        "POST /director/ecus HTTP/1.1\r\nHost: HOST\r\nUser-Agent: Aktualizr/2025.10\r\nAccept: */*\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}"
    )
    assert "Content-Type: application/toml" in world.head_of("/system_info/config")


def test_each_call_has_a_tls_session_of_its_own(world: World) -> None:
    world.accept_reports()
    world.device().cycle()
    assert len(world.server.received) >= 6
    assert not any(received.is_resumed_session for received in world.server.received)
    assert {received.alpn for received in world.server.received} == {"http/1.1"}


def test_a_registration_is_the_references_example(world: World) -> None:
    world.accept_reports()
    world.device().cycle()
    assert world.body_of("/director/ecus") == (
        b'{"ecus":[{"clientKey":{"keytype":"ED25519","keyval":{"public":"' + PUBLIC_HEX.encode() + b'"}},'
        b'"ecu_serial":"a1b2","hardware_identifier":"gw-imx8"}],"primary_ecu_serial":"a1b2"}'
    )


def test_a_virtual_secondary_registers_an_rsa_key(world: World) -> None:
    world.accept_reports()
    secondary = VirtualSecondary("dash-7", "cluster-s32", lambda: "2026-01-01T00:00:00Z")
    world.device(secondary).cycle()
    told = json.loads(world.body_of("/director/ecus"))["ecus"][1]
    assert told["clientKey"]["keytype"] == "RSA"
    assert (told["ecu_serial"], told["hardware_identifier"]) == ("dash-7", "cluster-s32")


def test_a_first_manifest_is_the_references_example(world: World) -> None:
    world.accept_reports()
    world.device().cycle()
    first = next(received.body for received in world.server.received if received.path == "/director/manifest")
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    report = (
        '{"attacks_detected":"","ecu_serial":"a1b2","installed_image":{"fileinfo":{"hashes":{"sha256":"'
        + nothing
        + '"},"length":0},"filepath":"unknown"},"previous_timeserver_time":"1970-01-01T00:00:00Z",'
        '"report_counter":"1","timeserver_time":"1970-01-01T00:00:00Z"}'
    )
    key_id = fixed_key().public.key_id
    inner_signature = base64.b64encode(ed25519.Ed25519PrivateKey.from_private_bytes(SEED).sign(report.encode())).decode()
    inner = f'{{"signatures":[{{"keyid":"{key_id}","method":"ed25519","sig":"{inner_signature}"}}],"signed":{report}}}'
    body = f'{{"ecu_version_manifests":{{"a1b2":{inner}}},"primary_ecu_serial":"a1b2"}}'
    signature = base64.b64encode(ed25519.Ed25519PrivateKey.from_private_bytes(SEED).sign(body.encode())).decode()
    assert first == (
        f'{{"signatures":[{{"keyid":"{key_id}","method":"ed25519","sig":"{signature}"}}],"signed":{body}}}'.encode()
    )


def test_the_counter_rises_with_every_manifest_also_with_one_that_was_refused(world: World) -> None:
    world.accept_reports()
    world.answers["/director/manifest"] = Answer(400, b"{}")
    world.device().cycle()
    counters = [
        json.loads(each.body)["signed"]["ecu_version_manifests"]["a1b2"]["signed"]["report_counter"]
        for each in world.server.received
        if each.path == "/director/manifest"
    ]
    assert counters == ["1", "2"]


def test_a_device_tells_about_itself_once_and_then_only_what_has_changed(world: World) -> None:
    world.accept_reports()
    device = world.device()
    device.cycle()
    assert world.paths()[1:5] == [
        "PUT /system_info",
        "PUT /core/installed",
        "PUT /system_info/network",
        "POST /system_info/config",
    ]
    assert world.body_of("/core/installed") == b'[{"name":"fake-package","version":"1.0"}]'
    world.server.received.clear()
    device.restart().cycle()
    assert not [path for path in world.paths() if "/system_info" in path or "/core" in path]


def test_a_failure_of_the_server_is_asked_three_times_and_a_refusal_once(world: World) -> None:
    world.accept_reports()
    world.answers["/director/manifest"] = Answer(500)
    world.device().cycle()
    assert world.paths().count("PUT /director/manifest") == 6  # before the check, and after it failed
    assert world.paths().count("GET /director/1.root.json") == 1


# Shared credentials.


def shared_archive(world: World, path: Path) -> Path:
    certificate, key = world.authority.issue("provisioning")
    path.write_bytes(b"")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("autoprov.url", world.server.url + "\n")
        archive.writestr("autoprov_credentials.p12", p12(world, certificate, key))
        archive.writestr("treehub.json", "{}")
        archive.writestr("server_ca.pem", world.authority.pem)
    return path


def p12(world: World, certificate: bytes, key: bytes, *, with_ca: bool = True) -> bytes:
    return pkcs12.serialize_key_and_certificates(
        b"device",
        serialization.load_pem_private_key(key, None),  # type: ignore[arg-type]
        x509.load_pem_x509_certificate(certificate),
        [x509.load_pem_x509_certificate(world.authority.pem)] if with_ca else None,
        serialization.NoEncryption(),
    )


def shared_device(world: World, path: Path, *, device_id: str = "") -> Aktualizr:
    credentials = SharedCredentials(shared_archive(world, path))
    return Aktualizr(
        Configuration(
            server_url=credentials.server_url,
            credentials=credentials,
            hardware_id="gw-imx8",
            device_id=device_id,
            key_type="ED25519",
            retry_pause_s=0.0,
        )
    )


def test_a_shared_credential_asks_with_id_and_ttl_as_strings_and_is_then_taken_out_of_the_archive(
    world: World, tmp_path: Path
) -> None:
    world.accept_reports()
    world.answers["/devices"] = Answer(200, p12(world, *world.authority.issue("car-1")))
    device = shared_device(world, tmp_path / "credentials.zip", device_id="car-1")
    assert device.provision()
    assert world.body_of("/devices") == b'{"deviceId":"car-1","ttl":"36000"}'
    with zipfile.ZipFile(tmp_path / "credentials.zip") as archive:
        assert sorted(archive.namelist()) == ["autoprov.url", "server_ca.pem"]
    assert world.paths() == ["POST /devices", "POST /director/ecus"]


def test_a_taken_id_is_dropped_for_a_random_one_unless_it_is_configured(world: World, tmp_path: Path) -> None:
    world.answers["/devices"] = Answer(409, b'{"code":"device_already_registered","description":"taken"}')
    device = shared_device(world, tmp_path / "a.zip")
    assert not device.provision()
    assert not device.provision()
    asked = [json.loads(each.body)["deviceId"] for each in world.server.received]
    assert len(set(asked)) == 2

    configured = shared_device(world, tmp_path / "b.zip", device_id="car-1")
    assert not configured.provision()
    assert not configured.provision()
    assert [json.loads(each.body)["deviceId"] for each in world.server.received[2:]] == ["car-1", "car-1"]
    assert configured.refusal is not None
    assert configured.refusal.code == "device_already_registered"


def test_a_container_without_a_ca_never_provisions(world: World, tmp_path: Path) -> None:
    world.answers["/devices"] = Answer(200, p12(world, *world.authority.issue("car-1"), with_ca=False))
    device = shared_device(world, tmp_path / "credentials.zip", device_id="car-1")
    assert not device.provision()
    assert device.provisioner.malformed is not None


# Metadata, signed by hand.


class Signed:
    """Documents of one repository with one key for every role."""

    def __init__(self) -> None:
        self.key = EcuKey.generate("ED25519")

    def root(self, version: int = 1, *, expires: str = LATER, threshold: int = 1, old: Signed | None = None) -> bytes:
        keys = {self.key.public.key_id: self.key.public.to_uptane()}
        role = {"keyids": [self.key.public.key_id], "threshold": threshold}
        signed = {
            "_type": "Root",
            "consistent_snapshot": False,
            "expires": expires,
            "version": version,
            "keys": keys,
            "roles": dict.fromkeys(("root", "targets", "snapshot", "timestamp"), role) | {"offline-updates": role},
        }
        document = self.key.signed(signed)
        if old is not None:
            document["signatures"] += old.key.signed(signed)["signatures"]  # type: ignore[operator]
        return jsoncpp.bytes_of(document)

    def targets(self, version: int = 1, *, kind: str = "Targets", expires: str = LATER, **targets: object) -> bytes:
        signed = {"_type": kind, "expires": expires, "version": version, "targets": targets}
        signed["custom"] = {"correlationId": f"urn:here-ota:mtu:{version}"}
        return jsoncpp.bytes_of(self.key.signed(signed))

    def rest(self, targets: bytes, *, version: int = 1) -> tuple[bytes, bytes]:
        meta = {"version": json.loads(targets)["signed"]["version"], "length": len(targets)}
        meta["hashes"] = {"sha256": hashlib.sha256(targets).hexdigest()}
        snapshot = jsoncpp.bytes_of(
            self.key.signed({"_type": "Snapshot", "expires": LATER, "version": version, "meta": {"targets.json": meta}})
        )
        named = {"version": version, "length": len(snapshot), "hashes": {"sha256": hashlib.sha256(snapshot).hexdigest()}}
        timestamp = {"_type": "Timestamp", "expires": LATER, "version": version, "meta": {"snapshot.json": named}}
        return snapshot, jsoncpp.bytes_of(self.key.signed(timestamp))


IMAGE = b"firmware " * 1000
NAME = "gateway 2.1+ä.bin"
PATH = "/repo/targets/gateway%202.1%2B%C3%A4.bin"


def entry(custom: object, *, content: bytes = IMAGE) -> dict[str, object]:
    return {"length": len(content), "hashes": {"sha256": hashlib.sha256(content).hexdigest()}, "custom": custom}


def for_ecus(**ecus: str) -> dict[str, object]:
    return entry({"ecuIdentifiers": {serial: {"hardwareId": hardware_id} for serial, hardware_id in ecus.items()}, "uri": None})


def offer(world: World, director: Signed, image: Signed, director_targets: bytes, **image_targets: object) -> None:
    world.accept_reports()
    targets = image.targets(1, **image_targets)
    snapshot, timestamp = image.rest(targets)
    world.answers |= {
        "/director/1.root.json": Answer(200, director.root()),
        "/director/targets.json": Answer(200, director_targets),
        "/repo/1.root.json": Answer(200, image.root()),
        "/repo/timestamp.json": Answer(200, timestamp),
        "/repo/snapshot.json": Answer(200, snapshot),
        "/repo/targets.json": Answer(200, targets),
        PATH: Answer(200, IMAGE),
    }


def offer_update(world: World) -> tuple[Signed, Signed]:
    director, image = Signed(), Signed()
    offer(
        world,
        director,
        image,
        director.targets(1, **{NAME: for_ecus(a1b2="gw-imx8")}),
        **{NAME: entry({"hardwareIds": ["gw-imx8"]})},
    )
    return director, image


def test_one_update_is_asked_for_in_the_order_that_was_observed(world: World) -> None:
    offer_update(world)
    device = world.device()
    assert device.cycle() is Outcome.INSTALLED, device.last_error
    assert world.paths() == [
        "POST /director/ecus",
        "PUT /system_info",
        "PUT /core/installed",
        "PUT /system_info/network",
        "POST /system_info/config",
        "PUT /director/manifest",
        "GET /director/1.root.json",
        "GET /director/2.root.json",
        "GET /director/targets.json",
        "GET /repo/1.root.json",
        "GET /repo/2.root.json",
        "GET /repo/timestamp.json",
        "GET /repo/snapshot.json",
        "GET /repo/targets.json",
        f"GET {PATH}",
        "POST /events",
        "POST /events",
        "PUT /director/manifest",
    ]
    assert device.installed_image() == NAME


def test_an_installation_report_is_the_references_example(world: World) -> None:
    offer_update(world)
    world.device().cycle()
    signed = json.loads(world.body_of("/director/manifest"))["signed"]
    assert signed["installation_report"] == {
        "content_type": "application/vnd.com.here.otac.installationReport.v1",
        "report": {
            "correlation_id": "urn:here-ota:mtu:1",
            "raw_report": "Installation succesful",
            "result": {"success": True, "code": "OK", "description": "Device has been successfully installed"},
            "items": [
                {"ecu": "a1b2", "result": {"success": True, "code": "OK", "description": "Installing package was successful"}}
            ],
        },
    }
    installed = signed["ecu_version_manifests"]["a1b2"]["signed"]["installed_image"]
    assert installed == {
        "filepath": NAME,
        "fileinfo": {"length": len(IMAGE), "hashes": {"sha256": hashlib.sha256(IMAGE).hexdigest()}},
    }


def test_events_tell_of_each_step_with_the_correlation_id(world: World) -> None:
    offer_update(world)
    world.device().cycle()
    events = [event for each in world.server.received if each.path == "/events" for event in json.loads(each.body)]
    assert [event["eventType"]["id"] for event in events] == [
        "EcuDownloadStarted",
        "EcuDownloadCompleted",
        "EcuInstallationStarted",
        "EcuInstallationCompleted",
    ]
    assert {event["event"]["correlationId"] for event in events} == {"urn:here-ota:mtu:1"}
    assert events[1]["event"] == {"ecu": "a1b2", "correlationId": "urn:here-ota:mtu:1", "success": True}
    assert len({event["id"] for event in events}) == 4


def test_one_image_goes_to_a_primary_and_a_secondary(world: World) -> None:
    director, image = Signed(), Signed()
    both = director.targets(1, **{NAME: for_ecus(a1b2="gw-imx8", **{"dash-7": "cluster-s32"})})
    offer(world, director, image, both, **{NAME: entry({"hardwareIds": ["gw-imx8", "cluster-s32"]})})
    secondary = VirtualSecondary("dash-7", "cluster-s32", lambda: "2026-01-01T00:00:00Z")
    device = world.device(secondary)
    assert device.cycle() is Outcome.INSTALLED
    assert secondary.image == IMAGE
    manifests = json.loads(world.body_of("/director/manifest"))["signed"]["ecu_version_manifests"]
    inner = manifests["dash-7"]["signed"]
    assert inner["installed_image"]["filepath"] == NAME
    assert "report_counter" not in inner


def test_a_wrong_hardware_id_in_the_image_repository_is_reported(world: World) -> None:
    director, image = Signed(), Signed()
    named = director.targets(1, **{NAME: for_ecus(a1b2="gw-imx8")})
    offer(world, director, image, named, **{NAME: entry({"hardwareIds": ["another"]})})
    device = world.device()
    assert device.cycle() is Outcome.CHECK_FAILED
    assert isinstance(device.last_error, TargetMismatch)
    report = json.loads(world.body_of("/director/manifest"))["signed"]["installation_report"]["report"]
    assert report["result"]["code"] == "VERIFICATION_FAILED"
    assert report["items"] == []
    assert device.storage.director.roles == {}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda director: director.targets(1, kind="targets"), InvalidMetadata),
        (lambda director: director.targets(1, expires="2020-01-01T00:00:00Z"), ExpiredMetadata),
        (lambda director: director.targets(1, expires="2038-01-19T03:14:07.5Z"), InvalidMetadata),
        (lambda director: Signed().targets(1), BadKeyId),
        (lambda director: director.targets(1, **{NAME: for_ecus(other="gw-imx8")}), BadEcuId),
        (lambda director: director.targets(1, **{NAME: for_ecus(a1b2="other")}), BadHardwareId),
        (
            lambda director: director.targets(1, **{NAME: for_ecus(a1b2="gw-imx8"), "b": for_ecus(a1b2="gw-imx8")}),
            InvalidMetadata,
        ),
        (lambda director: twice_signed(director), NonUniqueSignatures),
        (lambda director: with_method(director, "ecdsa"), SecurityException),
    ],
)
def test_the_director_is_refused_as_aktualizr_refuses_it(
    world: World, change: Callable[[Signed], bytes], error: type[Exception]
) -> None:
    director, image = Signed(), Signed()
    offer(world, director, image, change(director))
    device = world.device()
    assert device.cycle() is Outcome.CHECK_FAILED
    assert type(device.last_error) is error


def twice_signed(director: Signed) -> bytes:
    document = json.loads(director.targets(1))
    document["signatures"] *= 2
    return jsoncpp.bytes_of(document)


def with_method(director: Signed, method: str) -> bytes:
    document = json.loads(director.targets(1))
    document["signatures"][0]["method"] = method
    return jsoncpp.bytes_of(document)


def test_thresholds_of_nought_and_of_more_than_there_are_signatures_are_refused(world: World) -> None:
    director, image = Signed(), Signed()
    offer(world, director, image, director.targets(1))
    for threshold, error in ((0, IllegalThreshold), (1001, IllegalThreshold), (2, UnmetThreshold)):
        world.answers["/director/1.root.json"] = Answer(200, director.root(threshold=threshold))
        device = world.device()
        assert device.cycle() is Outcome.CHECK_FAILED
        assert type(device.last_error) is error


def test_a_chain_of_roots_is_walked_and_any_failure_ends_it(world: World) -> None:
    director, _ = offer_update(world)
    world.answers["/director/2.root.json"] = Answer(200, director.root(2))
    world.answers["/director/3.root.json"] = Answer(403)
    device = world.device()
    assert device.cycle() is Outcome.INSTALLED
    assert sorted(device.storage.director.roots) == [1, 2]
    new = Signed()
    world.answers["/director/3.root.json"] = Answer(200, new.root(3, old=director))
    world.answers["/director/targets.json"] = Answer(200, new.targets(1))
    assert device.cycle() is Outcome.NO_UPDATES, device.last_error


def test_a_newer_empty_document_does_not_cancel_what_was_stored_before(world: World) -> None:
    director, _ = offer_update(world)
    device = world.device()
    assert [target.name for target in device.check_updates().updates] == [NAME]
    world.answers["/director/targets.json"] = Answer(200, director.targets(2))
    assert device.cycle() is Outcome.INSTALLED


def test_a_document_that_names_what_runs_cancels_and_another_map_of_ecus_is_another_target(world: World) -> None:
    director, _ = offer_update(world)
    device = world.device()
    device.cycle()
    stay = for_ecus(a1b2="gw-imx8")
    world.answers["/director/targets.json"] = Answer(200, director.targets(3, **{NAME: stay}))
    assert device.cycle() is Outcome.NO_UPDATES
    secondary = VirtualSecondary("dash-7", "cluster-s32", lambda: "2026-01-01T00:00:00Z")
    device = device.restart(secondaries=[secondary])
    wider = for_ecus(a1b2="gw-imx8", **{"dash-7": "cluster-s32"})
    world.answers["/director/targets.json"] = Answer(200, director.targets(4, **{NAME: wider}))
    assert device.cycle() is Outcome.CHECK_FAILED
    assert isinstance(device.last_error, TargetContentMismatch)


def test_a_lower_version_is_a_rollback(world: World) -> None:
    director, image = Signed(), Signed()
    offer(world, director, image, director.targets(5))
    device = world.device()
    assert device.cycle() is Outcome.NO_UPDATES
    world.answers["/director/targets.json"] = Answer(200, director.targets(4))
    assert device.cycle() is Outcome.CHECK_FAILED
    assert isinstance(device.last_error, SecurityException)


def test_an_interrupted_download_goes_on_where_it_stopped(world: World) -> None:
    offer_update(world)
    rest = Answer(206, IMAGE[100:], {"Content-Range": f"bytes 100-{len(IMAGE) - 1}/{len(IMAGE)}"})
    world.answers[PATH] = [Answer(200, IMAGE, cut_after_bytes=100), rest]
    assert world.device().cycle() is Outcome.INSTALLED
    asked = [received for received in world.server.received if received.path == PATH]
    assert b"\r\nRange: bytes=100-\r\nUser-Agent:" in asked[1].raw
    assert "range" not in asked[0].headers


def test_a_server_without_ranges_is_asked_for_the_whole_again(world: World) -> None:
    offer_update(world)
    world.answers[PATH] = [Answer(200, IMAGE, cut_after_bytes=100), Answer(200, IMAGE)]
    assert world.device().cycle() is Outcome.INSTALLED
    asked = [received.headers.get("range") for received in world.server.received if received.path == PATH]
    assert asked == [None, "bytes=100-", None]


def test_the_body_of_a_refusal_is_taken_for_the_image_and_costs_a_try(world: World) -> None:
    offer_update(world)
    rest = Answer(206, IMAGE[19:], {"Content-Range": f"bytes 19-{len(IMAGE) - 1}/{len(IMAGE)}"})
    world.answers[PATH] = [Answer(503, b'{"code":"try_later"'), rest, Answer(200, IMAGE)]
    assert world.device().cycle() is Outcome.INSTALLED
    assert world.paths().count(f"GET {PATH}") == 3


def test_more_bytes_than_the_metadata_says_are_refused_and_told(world: World) -> None:
    offer_update(world)
    world.answers[PATH] = Answer(200, IMAGE + b"more")
    device = world.device()
    assert device.cycle() is Outcome.DOWNLOAD_FAILED
    report = json.loads(world.body_of("/director/manifest"))["signed"]["installation_report"]["report"]
    assert report["result"] == {"code": "DOWNLOAD_FAILED", "description": "Target download failed.", "success": False}


def test_a_redirect_of_an_image_is_followed(world: World) -> None:
    offer_update(world)
    world.answers[PATH] = Answer(302, b"elsewhere", {"Location": f"{world.server.url}/elsewhere"})
    world.answers["/elsewhere"] = Answer(200, IMAGE)
    assert world.device().cycle() is Outcome.INSTALLED


def test_an_image_that_waits_for_a_reboot_is_reported_by_the_process_that_follows(world: World) -> None:
    offer_update(world)
    device = world.device()
    device.package_manager.needs_reboot = True
    assert device.cycle() is Outcome.NEEDS_REBOOT
    count = world.paths().count("PUT /director/manifest")
    device.cycle()
    assert world.paths().count("PUT /director/manifest") == count  # silent until the reboot
    device = device.restart()
    device.cycle()
    report = json.loads([each.body for each in world.server.received if each.path == "/director/manifest"][count])
    assert report["signed"]["installation_report"]["report"]["result"]["code"] == "OK"


def test_events_are_kept_until_they_are_taken_halved_on_413_and_dropped_on_404(world: World) -> None:
    world.accept_reports()
    device = world.device()
    device.cycle()
    for number in range(4):
        device._queue.enqueue("DevicePaused", correlation_id=str(number))
    world.answers["/events"] = [Answer(500), Answer(500), Answer(500), Answer(413), Answer(200), Answer(200)]
    for _ in range(4):
        device.flush_events()
    assert [len(json.loads(each.body)) for each in world.server.received if each.path == "/events"] == [4, 4, 4, 4, 2, 2]
    assert device.flush_events() is None
    device._queue.enqueue("DevicePaused", correlation_id="x")
    world.answers["/events"] = Answer(404)
    assert device.flush_events() == 404
    assert device.flush_events() is None


def test_a_server_under_another_authority_is_told_nothing(world: World) -> None:
    world.accept_reports()
    device = world.device()
    with ScriptedHttps(Authority(), lambda _: Answer(200)) as impostor:
        configuration = Configuration(
            server_url=impostor.url,
            credentials=device.configuration.credentials,
            hardware_id="gw-imx8",
            key_type="ED25519",
            retry_pause_s=0.0,
        )
        assert Aktualizr(configuration).cycle() is Outcome.NOT_PROVISIONED
        assert impostor.received == []


def test_an_unusable_key_is_unknown() -> None:
    assert PublicKey.read({"keytype": "RSA", "keyval": {"public": "no PEM"}}).type == "unknown"
    assert not PublicKey("unknown", "").verifies("AA==", b"")
