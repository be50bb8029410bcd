"""TUF's own client, python-tuf's ngclient, on the device port: the Image repository's other flavour, over one state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from tests.support.aktualizr.curl import Curl
from tests.support.aktualizr.device import Aktualizr, Outcome
from tests.support.server_process import ServerProcess
from tests.support.signing_tool import SigningTool
from tests.support.uptane_road import HARDWARE_ID, USER_REPO, UptaneRoad

SIZE_BYTES_MAX = 64 * 1024 * 1024


class OverMutualTls(FetcherInterface):
    """With a device's certificate."""

    def __init__(self, device: Aktualizr) -> None:
        assert device.storage.tls is not None
        self.curl = Curl(device.storage.tls)

    def _fetch(self, url: str) -> Iterator[bytes]:
        response = self.curl.get(url, size_bytes_max=SIZE_BYTES_MAX)
        if response.status != 200:
            raise DownloadHTTPError(f"{url}: {response.status}", response.status)
        yield response.body


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UptaneRoad]:
    folder = tmp_path_factory.mktemp("tuf")
    with ServerProcess(folder / "data") as server:
        yield UptaneRoad(server, folder / "devices")


@pytest.fixture(scope="module")
def device(road: UptaneRoad) -> Aktualizr:
    device = road.own_pki_device(road.fleet(), "car-tuf")
    assert device.cycle() is Outcome.NO_UPDATES
    return device


def updater(device: Aktualizr, folder: Path, first_root: bytes) -> Updater:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    return Updater(
        metadata_dir=str(folder),
        metadata_base_url=f"{device.server_url}/tuf/",
        target_dir=str(folder / "images"),
        target_base_url=f"{device.server_url}/tuf/targets/",
        fetcher=OverMutualTls(device),
        bootstrap=first_root,
    )


def taken(client: Updater, name: str) -> bytes:
    client.refresh()
    info = client.get_targetinfo(name)
    assert info is not None
    return Path(client.download_target(info)).read_bytes()


def test_a_chain_of_roots_keys_offline_and_an_image_as_tufs_client_sees_them(
    road: UptaneRoad, device: Aktualizr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_root = OverMutualTls(device).curl.get(f"{device.server_url}/tuf/1.root.json", size_bytes_max=65536).body
    name, data = road.new_image()
    assert taken(updater(device, tmp_path / "client", first_root), name) == data

    road.rest.expect((200, 204), "PUT", f"{USER_REPO}/root/rotate")
    tool = SigningTool(road.server, tmp_path / "signer", monkeypatch)
    tool.take_offline()
    signed = tool.add("signed", b"signed away from the server", HARDWARE_ID)
    tool.push()

    client = updater(device, tmp_path / "client", first_root)
    assert taken(client, signed) == b"signed away from the server"
    newcomer = updater(device, tmp_path / "newcomer", first_root)
    assert taken(newcomer, name) == data
    assert newcomer._trusted_set.root.version >= 3


def test_both_flavours_say_the_same_of_every_image(road: UptaneRoad, device: Aktualizr, tmp_path: Path) -> None:
    first_root = OverMutualTls(device).curl.get(f"{device.server_url}/tuf/1.root.json", size_bytes_max=65536).body
    client = updater(device, tmp_path / "client", first_root)
    client.refresh()
    said = road.rest.expect(200, "GET", f"{USER_REPO}/targets.json").json["signed"]
    targets = client._trusted_set.targets
    assert targets.version == said["version"]
    assert {name: target.hashes for name, target in targets.targets.items()} == {
        name: entry["hashes"] for name, entry in said["targets"].items()
    }
    assert said["targets"]
    for name in said["targets"]:
        info = client.get_targetinfo(name)
        assert info is not None
        data = Path(client.download_target(info)).read_bytes()
        assert hashlib.sha256(data).hexdigest() == said["targets"][name]["hashes"]["sha256"]
