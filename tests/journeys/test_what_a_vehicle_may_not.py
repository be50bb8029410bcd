"""What a Uptane device that was broken into tries on another of its fleet: each row is refused by name and changes nothing.

The Director's paths name no device: who asks is whoever the certificate names. What is left is to speak of the other's ECUs.
"""

from __future__ import annotations

import json
import ssl
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import urllib3

from overair.wire.mqtt.packets import Connack
from overair.wire.uptane import ecus
from overair.wire.uptane.manifest import UNKNOWN_IMAGE, VersionReport, build_manifest, sign_report
from tests.support import pki
from tests.support.mqtt_over_tls import MqttOverTls
from tests.support.operator_rest import OperatorRest
from tests.support.pki import Held
from tests.support.server_process import ServerProcess
from tests.support.uptane_repository import KeyHolder
from tests.support.uptane_road import HARDWARE_ID, UptaneRoad


@dataclass
class Vehicle:
    """One device with one ECU, over HTTPS by hand."""

    server: ServerProcess
    leaf: Held
    folder: Path
    name: str
    key: KeyHolder = field(default_factory=KeyHolder)
    counter: int = 0

    @property
    def serial(self) -> str:
        return f"{self.name}-gw"

    @property
    def file(self) -> Path:
        path = self.folder / f"{self.name}.pem"
        path.write_text(self.leaf.key_pem + self.leaf.chain_pem)
        return path

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> tuple[int, Any]:
        at, files = self.server.endpoints, str(self.file)
        with urllib3.PoolManager(ca_certs=at["ca_file"], cert_file=files, key_file=files) as pool:
            headers = {"Content-Type": kind} if body else {}
            answer = pool.request(method, at["device_url"] + path, body=body, headers=headers, retries=False, timeout=60)
        return answer.status, answer.json() if answer.data[:1] == b"{" else answer.data

    def registration(self, serial: str | None = None) -> bytes:
        name = serial or self.serial
        return ecus.registration_body(name, [ecus.Ecu(serial=name, hardware_id=HARDWARE_ID, key=self.key.public_key)])

    def manifest(self, serial: str | None = None, *, signer: KeyHolder | None = None, beside: Vehicle | None = None) -> bytes:
        self.counter += 1
        name, key = serial or self.serial, signer or self.key
        reports = [name] if beside is None else [name, beside.serial]
        signed = {
            each: sign_report(VersionReport(ecu=each, installed=UNKNOWN_IMAGE, report_counter=self.counter), key)
            for each in reports
        }
        return build_manifest(name, signed, key)


@dataclass(frozen=True)
class Scene:
    """A victim that has an assignment, an attacker of the same fleet, and what was overheard."""

    server: ServerProcess
    root: Held
    victim: Vehicle
    attacker: Vehicle
    image: str
    overheard: bytes
    """A manifest of the victim's, as it was sent."""

    @property
    def rest(self) -> OperatorRest:
        at, key = self.server.endpoints, self.server.root_key()
        known = {"client_id": key["access_key_id"], "client_secret": key["secret_access_key"]}
        return OperatorRest(at["operator_url"], at["ca_file"], **known)

    def of_the_victim(self) -> Any:
        """What operators see of it: its ECUs with their keys and images, and what is on its way."""
        rest, name = self.rest, self.victim.name
        devices = "/api/v1/director/admin/devices"
        paths = (
            f"{devices}/{name}",
            f"{devices}/{name}/ecus/{self.victim.serial}/public_key",
            f"/api/v1/director/assignments/{name}",
        )
        return [rest.expect(200, "GET", path).json for path in paths]


@pytest.fixture(scope="module")
def scene(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder, root = tmp_path_factory.mktemp("fleet"), pki.authority(f"Root {uuid.uuid4().hex[:8]}")
    server.client("overair").register_fleet_certificate_authority(certificatePem=root.pem)
    mark = uuid.uuid4().hex[:8]
    victim, attacker = (
        Vehicle(server, pki.device(root, name), folder, name) for name in (f"victim-{mark}", f"attacker-{mark}")
    )
    for each in (victim, attacker):
        assert each.ask("POST", "/director/ecus", each.registration())[0] == 201
    overheard = victim.manifest()
    assert victim.ask("PUT", "/director/manifest", overheard)[0] == 200
    road = UptaneRoad(server, folder)
    image, content = f"image-{mark}", b"firmware " * 100
    road.upload(image, content, HARDWARE_ID)
    road.assign(road.multi_target_update({HARDWARE_ID: (image, content)}), victim.name)
    return Scene(server, root, victim, attacker, image, overheard)


def test_each_vehicle_is_told_of_its_own_assignment_and_no_query_names_another(scene: Scene) -> None:
    path = "/director/targets.json"
    assert scene.image in scene.victim.ask("GET", path)[1]["signed"]["targets"]
    for asked in (path, f"{path}?device={scene.victim.name}", f"/director/../director/targets.json?id={scene.victim.name}"):
        status, told = scene.attacker.ask("GET", asked)
        assert status == 200
        assert told["signed"]["custom"]["deviceId"] == scene.attacker.name
        assert told["signed"]["targets"] == {}


@pytest.mark.parametrize(
    "path",
    [
        "/director/{victim}/targets.json",
        "/director/devices/{victim}/targets.json",
        "/director/targets.json/{victim}",
        "/core/{victim}",
        "/devices/{victim}",
    ],
)
def test_no_path_leads_to_another_vehicles_documents(scene: Scene, path: str) -> None:
    status, told = scene.attacker.ask("GET", path.format(victim=scene.victim.name))
    assert (status, told["code"]) in ((404, "unknown_path"), (403, "credential_not_allowed_here"))


@pytest.mark.parametrize(
    "path", ["/api/v1/director/admin/devices/{victim}", "/api/v1/director/assignments/{victim}", "/api/v1/user_repo/root.json"]
)
def test_an_operators_path_is_none_at_the_device_port(scene: Scene, path: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        status, _ = scene.attacker.ask(method, path.format(victim=scene.victim.name))
        assert status in (403, 404)


def test_what_another_vehicle_said_is_not_taken_from_this_one(scene: Scene) -> None:
    before = scene.of_the_victim()
    victim, attacker = scene.victim, scene.attacker
    refused = {
        "what was overheard": (scene.overheard, "ecu_not_primary"),
        "of the other's Primary, by the attacker's key": (attacker.manifest(victim.serial), "ecu_not_primary"),
        "of the attacker's Primary, by the other's key": (attacker.manifest(signer=victim.key), "signature_not_valid"),
        "with the other's ECU beside its own": (attacker.manifest(beside=victim), "signature_not_valid"),
    }
    for kind, (manifest, code) in refused.items():
        status, told = attacker.ask("PUT", "/director/manifest", manifest)
        assert (status, told["code"]) == (400, code), kind
    assert scene.of_the_victim() == before


def test_another_vehicles_ecus_are_neither_taken_over_nor_renamed(scene: Scene) -> None:
    """Serials are a device's own: who registers another's name has an ECU of that name, and the other keeps its."""
    before = scene.of_the_victim()
    thief = Vehicle(scene.server, pki.device(scene.root, f"thief-{uuid.uuid4().hex[:8]}"), scene.attacker.folder, "thief")
    assert thief.ask("POST", "/director/ecus", thief.registration(scene.victim.serial))[0] == 201
    assert thief.ask("PUT", "/director/manifest", thief.manifest(scene.victim.serial))[0] == 200
    assert thief.ask("GET", "/director/targets.json")[1]["signed"]["targets"] == {}
    assert scene.of_the_victim() == before


def test_events_and_facts_are_filed_under_who_sent_them(scene: Scene) -> None:
    before = scene.of_the_victim()
    event = {
        "id": str(uuid.uuid4()),
        "deviceTime": "2026-01-01T00:00:00Z",
        "eventType": {"id": "EcuInstallationCompleted", "version": 0},
        "event": {"ecu": scene.victim.serial, "success": False, "correlationId": "urn:here-ota:mtu:1"},
        "deviceUuid": scene.victim.name,
    }
    scene.attacker.ask("POST", "/events", json.dumps([event]).encode())
    scene.attacker.ask("PUT", "/system_info", json.dumps({"id": scene.victim.name}).encode())
    assert scene.of_the_victim() == before


def test_over_mqtt_it_is_nobody_else_either(scene: Scene) -> None:
    at = scene.server.endpoints
    context = ssl.create_default_context(cafile=at["ca_file"])
    context.load_cert_chain(scene.attacker.file)
    connection = MqttOverTls(at["mqtt_host"], at["mqtt_port"], context, scene.victim.name)
    assert connection.connack in (None, Connack(return_code=5))
    connection.close()


def test_after_all_this_the_victim_goes_on(scene: Scene) -> None:
    assert scene.victim.ask("PUT", "/director/manifest", scene.victim.manifest())[0] == 200
    assert scene.image in scene.victim.ask("GET", "/director/targets.json")[1]["signed"]["targets"]
