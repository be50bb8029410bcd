"""TUF's own client, unmodified, on a real device port: it follows root chains, finds images and downloads them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.ngclient import Updater

from overair.basics.clock import WallClock
from overair.wire.uptane.keys import Flavour
from tests.support.image_documents import sign_described
from tests.support.image_room import OfflineKey
from tests.support.server_process import ServerProcess
from tests.support.tuf_client import DevicePort, download, updater
from tests.support.uptane_road import USER_REPO, UptaneRoad

DAY_S = 24 * 3600


class TufDevice:
    """A device that knows root 1, and begins anew at each look, as after a reboot."""

    def __init__(self, road: UptaneRoad, name: str) -> None:
        self.folder = road.folder / name
        issued = road.import_files(name, road.fleet().device(name))
        self.tls = {
            "ca_certs": road.server.endpoints["ca_file"],
            "cert_file": str(issued.certificate),
            "key_file": str(issued.private_key),
        }
        self.url = f"{road.device_url}/tuf/"
        self.bootstrap = road.rest.expect(200, "GET", f"{USER_REPO}/1.root.json", query={"flavour": "tuf"}).body
        self.fetcher = DevicePort(**self.tls)

    def updater(self) -> Updater:
        self.fetcher = DevicePort(**self.tls)
        return updater(self.folder, self.url, self.fetcher, self.bootstrap)

    def download(self, name: str) -> bytes | None:
        """The image by name, or None where no document that is believed lists it."""
        return download(self.updater(), name)

    def root_version(self) -> int:
        return int(json.loads((self.folder / "metadata" / "root.json").read_bytes())["signed"]["version"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("ngclient") / "data") as server:
        yield server


@pytest.fixture
def road(server: ServerProcess, tmp_path: Path) -> UptaneRoad:
    return UptaneRoad(server, tmp_path)


def checksum(road: UptaneRoad) -> dict[str, str]:
    reply = road.rest.expect(200, "GET", f"{USER_REPO}/targets.json")
    return {"x-ats-role-checksum": reply.headers["x-ats-role-checksum"]}


def described(road: UptaneRoad, path: str) -> dict[Flavour, dict[str, Any]]:
    """What the server offers to be signed, in both flavours."""
    return {
        flavour: json.loads(road.rest.expect(200, "GET", f"{USER_REPO}/{path}", query={"flavour": flavour.value}).body)
        for flavour in Flavour
    }


def publish(road: UptaneRoad, flavours: tuple[Flavour, ...] = tuple(Flavour), **documents: dict[Flavour, bytes]) -> None:
    body = {flavour.value: {kind: json.loads(each[flavour]) for kind, each in documents.items()} for flavour in flavours}
    path = f"{USER_REPO}/publication"
    road.rest.expect(200, "PUT", path, json_body=body, query={"coSign": "true"}, headers=checksum(road))


def next_targets(road: UptaneRoad) -> dict[Flavour, dict[str, Any]]:
    return {flavour: document["signed"] for flavour, document in described(road, "unsigned/targets.json").items()}


def test_an_image_is_found_and_downloaded_through_every_change_of_keys_and_level(road: UptaneRoad) -> None:
    device = TufDevice(road, "car-tuf")
    name, data = "dir one/app 1.0+2.bin", b"image " * 50_000
    road.upload(name, data)
    assert device.download(name) == data
    assert device.fetcher.asked[:4] == ["2.root.json", "timestamp.json", "snapshot.json", "targets.json"]
    assert device.fetcher.asked[-1] == f"targets/{name}"
    assert device.download("none.bin") is None

    for _ in range(3):
        road.rest.expect(200, "PUT", f"{USER_REPO}/root/rotate")
    second, second_data = road.new_image()
    assert device.download(second) == second_data
    assert device.root_version() == 4

    root_key, targets_key = OfflineKey(), OfflineKey()
    root = described(road, "root")
    for flavour, signed in root.items():
        for role, key in (("root", root_key), ("targets", targets_key)):
            for old in signed["roles"][role]["keyids"]:
                signed["keys"].pop(old)
            signed["keys"][key.public_key.id] = key.public_key.to_json(flavour)
            signed["roles"][role] = {"keyids": [key.public_key.id], "threshold": 1}
    publish(road, root=sign_described(root, [root_key]), targets=sign_described(next_targets(road), [targets_key]))
    assert device.download(name) == data
    assert device.root_version() == 5

    third, third_data = "third.bin", b"third"
    query = {"name": "third", "version": "1", "hardwareIds": "gw-imx8", "targetFormat": "BINARY"}
    road.rest.expect(412, "PUT", f"{USER_REPO}/targets/{third}", body=third_data, query=query)
    assert device.download(third) is None  # pending
    publish(road, targets=sign_described(next_targets(road), [targets_key]))
    assert device.download(third) == third_data

    # The Uptane flavour alone: TUF's clients keep what they have, and lose nothing.
    without = next_targets(road)
    for signed in without.values():
        del signed["targets"][third]
    documents = sign_described(without, [targets_key])
    publish(road, (Flavour.UPTANE,), targets=documents)
    updater = device.updater()
    updater.refresh()
    assert updater.get_targetinfo(third) is not None
    late = {"tuf": {"targets": json.loads(documents[Flavour.TUF])}}
    road.rest.expect(200, "PUT", f"{USER_REPO}/publication", json_body=late, headers=checksum(road))
    assert device.download(third) is None
    assert device.download(second) == second_data

    back = road.rest.expect(412, "PUT", f"{USER_REPO}/root/rotate", query={"online": "true"})
    assert back.json["required_key_ids"] == [root_key.public_key.id]
    publish(road, root=sign_described(described(road, "root"), [root_key]))
    fourth, fourth_data = road.new_image()
    assert device.download(fourth) == fourth_data
    assert device.root_version() == 6


def test_a_delegated_image_is_found_by_its_vendors_signature(road: UptaneRoad) -> None:
    device = TufDevice(road, "car-delegated")
    vendor, data = OfflineKey(), b"dash"
    keys, roles = f"{USER_REPO}/trusted-delegations/keys", f"{USER_REPO}/trusted-delegations"
    road.rest.expect(204, "PUT", keys, json_body=[vendor.public_key.to_json()])
    made = {"name": "vendor-b", "keyids": [vendor.public_key.id], "paths": ["vendor-b/*"], "threshold": 1}
    road.rest.expect(204, "PUT", roles, json_body=[made])
    name = "vendor-b/dash 1.bin"
    road.rest.expect(204, "PUT", f"{USER_REPO}/uploads/{quote(name)}", body=data)
    now = int(WallClock().now() // 1000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 90 * DAY_S))
    entry = {
        "length": len(data),
        "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
        "custom": {
            "name": "dash",
            "version": "1",
            "hardwareIds": ["dash"],
            "targetFormat": "BINARY",
            "cliUploaded": True,
            "createdAt": moment,
            "updatedAt": moment,
        },
    }
    members: dict[str, Any] = {"version": 1, "expires": moment, "targets": {name: entry}}
    signed = {
        Flavour.UPTANE: {"_type": "Targets", **members},
        Flavour.TUF: {"_type": "targets", "spec_version": "1.0.31", **members},
    }
    documents = sign_described(signed, [vendor])
    body = {flavour.value: {"delegations": {"vendor-b": json.loads(documents[flavour])}} for flavour in Flavour}
    road.rest.expect(200, "PUT", f"{USER_REPO}/publication", json_body=body)
    assert device.download(name) == data
    assert device.fetcher.asked[-2:] == ["vendor-b.json", f"targets/{name}"]


def test_a_restarted_server_goes_on_above_every_version_that_clients_have_seen(server: ServerProcess, road: UptaneRoad) -> None:
    device = TufDevice(road, "car-restart")
    name, data = road.new_image()
    assert device.download(name) == data
    before = json.loads((device.folder / "metadata" / "timestamp.json").read_bytes())["signed"]["version"]
    server.kill()
    server.start()
    road = UptaneRoad(server, road.folder / "again")
    device.url = f"{road.device_url}/tuf/"
    device.tls["ca_certs"] = server.endpoints["ca_file"]
    assert device.download(name) == data
    after = json.loads((device.folder / "metadata" / "timestamp.json").read_bytes())["signed"]["version"]
    assert after >= before


def test_nobody_without_a_devices_certificate_reads_anything(road: UptaneRoad) -> None:
    stranger = DevicePort(ca_certs=road.server.endpoints["ca_file"])
    with pytest.raises(DownloadHTTPError) as refused:
        next(stranger.fetch(f"{road.device_url}/tuf/timestamp.json"))
    assert refused.value.status_code == 401


def test_a_client_that_trusts_another_root_believes_nothing(road: UptaneRoad) -> None:
    device = TufDevice(road, "car-elsewhere")
    foreign = json.loads(device.bootstrap)
    key = OfflineKey()
    foreign["signed"]["keys"] = {key.public_key.id: key.public_key.to_json(Flavour.TUF)}
    foreign["signed"]["roles"] = {role: {"keyids": [key.public_key.id], "threshold": 1} for role in foreign["signed"]["roles"]}
    device.bootstrap = sign_described({Flavour.TUF: foreign["signed"]}, [key])[Flavour.TUF]
    with pytest.raises(RepositoryError):
        device.download("none.bin")
