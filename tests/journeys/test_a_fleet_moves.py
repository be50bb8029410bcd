"""A fleet moves from one server to another: exported over OTA Connect's REST, imported with its root chain, and followed there
by devices of every kind that nobody has touched but for the address of their server and its CA."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from overair.basics.clock import WallClock
from overair.cli.ends import CommandEnded
from overair.cli.main import app
from overair.cli.migrate.importing import Importer, ImportOptions
from overair.cli.migrate.layout import ExportDirectory
from overair.cli.migrate.target import TargetServer
from overair.cli.operator import operator_of
from tests.support.aktualizr.curl import TlsCredentials
from tests.support.aktualizr.device import Aktualizr, Outcome
from tests.support.server_process import ServerProcess
from tests.support.signing_tool import SigningTool
from tests.support.tuf_client import DevicePort, download, updater
from tests.support.uptane_road import DIRECTOR, HARDWARE_ID, USER_REPO, UptaneRoad
from tests.support.vehicle_on_hand import VehicleOnHand

_COMMAND = get_command(app)
REPOSITORIES = (USER_REPO, f"{DIRECTOR}/admin/repo")
HELD = (f"{USER_REPO}/root/private_keys", f"{DIRECTOR}/admin/repo/private_keys")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UptaneRoad]:
    """The server that the fleet leaves, with root chains of three and an image that lies elsewhere."""
    folder = tmp_path_factory.mktemp("old")
    with ServerProcess(folder / "data") as server:
        yield UptaneRoad(server, folder / "devices")


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UptaneRoad]:
    """A server that nobody has used."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with ServerProcess(tmp_path / "new") as server:
        yield road_of(server, tmp_path / "moved")


def road_of(server: ServerProcess, folder: Path) -> UptaneRoad:
    """Its images have names that the old server's haven't."""
    road = UptaneRoad(server, folder)
    road._count = 1000
    return road


def told(*words: str | Path, code: int = 0) -> str:
    """``overair migrate …``: what it prints, and the line that it ends with."""
    said, ended, message = io.StringIO(), 0, ""
    with contextlib.redirect_stdout(said):
        try:
            _COMMAND.main(["migrate", *(str(word) for word in words)], standalone_mode=False)
        except CommandEnded as end:
            ended, message = int(end.code), end.message
    assert ended == code, f"{words}: {ended}: {message}\n{said.getvalue()}"
    return said.getvalue() + message


def migrate(*words: str | Path, code: int = 0) -> Any:
    """The same with ``--json``."""
    return json.loads(told(*words, "--json", code=code))


def bundle(road: UptaneRoad, path: Path) -> Path:
    """What OTA Connect gives its operators."""
    key = road.server.root_key()
    url = str(road.server.endpoints["operator_url"])
    oauth2 = {
        "server": f"{url}/oauth2",
        "client_id": key["access_key_id"],
        "client_secret": key["secret_access_key"],
        "scope": "none",
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tufrepo.url", url)
        archive.writestr("api_gateway.url", url)
        archive.writestr("treehub.json", json.dumps({"oauth2": oauth2, "no_auth": False}))
        archive.writestr("server_ca.pem", Path(road.server.endpoints["ca_file"]).read_bytes())
    return path


def root_keys(road: UptaneRoad, folder: Path) -> list[Path]:
    """The old root keys of both repositories, as ``root/private_keys`` hands them out."""
    folder.mkdir()
    paths = []
    for repository, held in zip(REPOSITORIES, HELD, strict=True):
        root = road.rest.expect(200, "GET", f"{repository}/root.json").json["signed"]
        for key_id in root["roles"]["root"]["keyids"]:
            path = folder / f"{key_id}.json"
            path.write_bytes(road.rest.expect(200, "GET", f"{held}/{key_id}").body)
            paths.append(path)
    return paths


def moved(device: Aktualizr, road: UptaneRoad) -> Aktualizr:
    """The device's next process: the address and the CA of its server are others, and nothing else."""
    assert device.storage.tls is not None
    anchors = Path(road.server.endpoints["ca_file"]).read_text()
    credentials = device.configuration.credentials
    if hasattr(credentials, "anchors"):
        credentials.anchors.write_text(anchors)
    else:
        tls = device.storage.tls
        device.storage.tls = TlsCredentials(anchors, tls.certificate_chain, tls.private_key)
    return device.restart(configuration=replace(device.configuration, server_url=road.device_url))


def device_port(device: Aktualizr, folder: Path) -> DevicePort:
    """With the same device's certificate, key and CA."""
    assert device.storage.tls is not None
    folder.mkdir()
    texts = {
        "ca_certs": device.storage.tls.anchors,
        "cert_file": device.storage.tls.certificate_chain,
        "key_file": device.storage.tls.private_key,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return DevicePort(**{name: str(folder / name) for name in texts})


def versions_followed(device: Aktualizr) -> tuple[list[int], list[int]]:
    return sorted(device.storage.director.roots), sorted(device.storage.image.roots)


def test_every_kind_of_device_follows_to_the_new_server_and_installs_there(
    old: UptaneRoad, new: UptaneRoad, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = old.fleet(deviceIdPattern="fleet-*")
    secondary = old.secondary("fleet-car-dash", "cluster-s32")
    own = old.own_pki_device(fleet, "fleet-car", secondaries=[secondary])
    shared = old.shared_device(old.credentials_zip(), device_id="shared-car")
    for device in (own, shared):
        device.cycle()
        old.send(device)
        assert device.cycle() is Outcome.INSTALLED, device.last_error
    stolen = old.own_pki_device(fleet, "fleet-stolen")
    stolen.cycle()
    old.operator.block_device(thingName="fleet-stolen", reason="stolen")
    ours = VehicleOnHand(old.server, "our-car", tmp_path).provision()
    tuf_root = old.rest.expect(200, "GET", f"{USER_REPO}/1.root.json", query={"flavour": "tuf"}).body
    first_image = own.installed_image()
    for _ in range(2):
        for repository in REPOSITORIES:
            old.rest.expect(200, "PUT", f"{repository}/root/rotate")
    # The last device that it hears of before it moves; the others sleep through the rotations.
    old.send(shared)
    assert shared.cycle() is Outcome.INSTALLED, shared.last_error

    export = tmp_path / "export"
    exported = migrate("export", "--from", bundle(old, tmp_path / "credentials.zip"), "--out", export)
    assert exported["roots"] == {"image": 3, "director": 3}
    assert (exported["devices"], exported["devices_kept_out"]) == (4, ["fleet-stolen"])
    assert exported["devices_without_certificate"] == []
    assert exported["flavours"] == {"image": ["uptane", "tuf"], "director": ["uptane", "tuf"]}

    data = ("--data", new.server.data)
    plan = migrate("import", export, "--dry-run", *data)["plan"]
    assert plan["errors"] == []
    waiting = migrate("import", export, *data, code=2)
    assert waiting["state"] == "needs-roots"
    assert len(waiting["requests"]) == 2
    assert migrate("status", export)["import"] == "needs-roots"
    assert new.rest.expect(200, "GET", f"{USER_REPO}/root.json").json["signed"]["version"] == 1
    keys = [word for path in root_keys(old, tmp_path / "keys") for word in ("--key", path)]
    done = migrate("import", export, *keys, *data)
    assert done["state"] == "done"
    assert done["devices"] == {"imported": 3, "blocked": 1}
    assert done["director_root_version"] == done["versions"]["root"] == 4
    for repository in REPOSITORIES:
        for version in (1, 2, 3):
            path = f"{repository}/{version}.root.json"
            assert new.rest.expect(200, "GET", path).body == old.rest.expect(200, "GET", path).body
    old.server.stop()

    devices = [moved(own, new), moved(shared, new)]
    for device in devices:
        assert device.cycle() is Outcome.NO_UPDATES, device.last_error
        name, data_bytes = new.send(device)
        assert device.cycle() is Outcome.INSTALLED, device.last_error
        assert device.installed_image() == name
        assert versions_followed(device) == ([1, 2, 3, 4], [1, 2, 3, 4])
        assert [call.path for call in device.calls if call.path == "/director/ecus"] == []
    # The Secondary too, by the key with which it had registered over there.
    dash, _ = new.send(devices[0], "cluster-s32")
    assert devices[0].cycle() is Outcome.INSTALLED, devices[0].last_error
    assert devices[0].installed_image("fleet-car-dash") == dash
    # What the old server listed can be installed from here.
    assert first_image is not None
    content = new.rest.expect(200, "GET", f"{USER_REPO}/targets/{first_image}").body
    new.assign(new.multi_target_update({HARDWARE_ID: (first_image, content)}), "shared-car")
    assert devices[1].cycle() is Outcome.INSTALLED, devices[1].last_error

    # Our own client, which trusts the provisioned CA alone.
    settings = json.loads((ours.directory / "device.json").read_bytes())
    settings["uptane"]["server"] = new.device_url
    (ours.directory / "device.json").write_text(json.dumps(settings))
    (ours.directory / "identity" / "ca.pem").write_bytes(Path(new.server.endpoints["ca_file"]).read_bytes())
    image = new.new_image("gw")
    new.assign(new.multi_target_update({"gw": image}), "our-car")
    for _ in range(3):
        assert ours.round() == 0
    ecus = new.rest.expect(200, "GET", f"{DIRECTOR}/admin/devices/our-car").json
    assert {ecu["id"]: (ecu["image"] or {}).get("filepath") for ecu in ecus}["our-car-gw"] == image[0]
    trusted = ours.running(capsys)["repositories"]
    assert {each["origin"] for each in trusted.values()} == {"imported"}, "its first roots came with its bundle"

    # TUF's own client, from the root that it began with over there.
    name, data_bytes = new.new_image()
    fetcher = device_port(devices[0], tmp_path / "tls")
    assert download(updater(tmp_path / "tuf", f"{new.device_url}/tuf/", fetcher, tuf_root), name) == data_bytes

    # A device that neither server has seen, by the authority that came over with its rule.
    stranger = new.own_pki_device(fleet, "fleet-newcomer")
    assert stranger.cycle() is Outcome.NO_UPDATES, stranger.last_error
    refused = new.own_pki_device(fleet, "other-newcomer")
    assert refused.cycle() is Outcome.NOT_PROVISIONED
    # Whom the old server kept out doesn't come in by that rule either.
    for thief in (moved(stolen, new), new.own_pki_device(fleet, "fleet-stolen")):
        thief.cycle()
        assert {call.status for call in thief.calls} == {403}


def test_a_root_that_never_was_on_a_server_is_signed_by_file_and_stays_with_its_holder(
    tmp_path: Path, new: UptaneRoad, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the production level: `overair sign` approves the handover, and signs on afterwards for the new server."""
    with ServerProcess(tmp_path / "production") as server:
        road = UptaneRoad(server, tmp_path / "devices")
        tool = SigningTool(server, tmp_path / "alice", monkeypatch)
        device = road.own_pki_device(road.fleet(), "car-1")
        device.cycle()
        tool.keys("root", "root-1")
        tool.keys("targets", "targets-1")
        tool.run("take-offline", "--yes")
        tool.run("keys", "new", "director-root", "--role", "root")
        tool.run("take-offline", "--repository", "director", "--root", "director-root", "--yes")
        name = tool.add("gateway", b"signed for the old server", HARDWARE_ID)
        tool.push()
        road.assign(road.multi_target_update({HARDWARE_ID: (name, b"signed for the old server")}), "car-1")
        assert device.cycle() is Outcome.INSTALLED, device.last_error
        export = tmp_path / "export"
        assert "1 images" in told("export", "--from", server.data, "--out", export)

    data = ("--data", new.server.data, "--level", "production")
    assert "1 targets" in told("import", export, "--dry-run", *data)
    words = told("import", export, *data, code=2)
    assert "needs roots signed by the old root keys" in words
    requests = migrate("import", export, *data, code=2)["requests"]
    assert all(path in words for path in requests.values())
    assert "waits for signatures over" in told("status", export)
    signatures: list[str | Path] = []
    for request in requests.values():
        refused = tool.run("approve", request, "--yes", code=4)
        assert "another server" in refused["error"]["message"]
        signatures += ["--signature", tool.run("approve", request, "--yes", "--move")["signatures"]]
    assert "read back as a device that follows" in told("import", export, *signatures, *data)
    assert migrate("status", export)["import"] == "done"

    device = moved(device, new)
    assert device.cycle() is Outcome.NO_UPDATES, device.last_error
    # The same people sign on, for the new server.
    onward = SigningTool(new.server, tmp_path / "alice-onward", monkeypatch)
    for key in ("root-1", "targets-1", "director-root"):
        for suffix in (".key", ".pub.json"):
            source = tmp_path / "alice" / "tree" / "keys" / f"{key}{suffix}"
            (tmp_path / "alice-onward" / "tree" / "keys" / source.name).write_bytes(source.read_bytes())
    second = onward.add("gateway-new", b"signed for the new server", HARDWARE_ID)
    onward.push()
    new.assign(new.multi_target_update({HARDWARE_ID: (second, b"signed for the new server")}), "car-1")
    assert device.cycle() is Outcome.INSTALLED, device.last_error
    assert device.installed_image() == second


def test_the_new_server_killed_between_any_two_steps_shows_nothing_half_done(tmp_path: Path, new: UptaneRoad) -> None:
    with ServerProcess(tmp_path / "leaving") as server:
        road = UptaneRoad(server, tmp_path / "devices")
        road.new_image()
        device = road.own_pki_device(road.fleet(), "car-1")
        device.cycle()
        export = tmp_path / "export"
        migrate("export", "--from", server.data, "--out", export)
        keys = tuple(root_keys(road, tmp_path / "keys"))

    def importer(after_step: Callable[[str], None]) -> Importer:
        target = TargetServer.of(operator_of(new.server.data), WallClock())
        options = ImportOptions(key_files=keys)
        return Importer(ExportDirectory(export), target, options, clock=WallClock(), after_step=after_step)

    def killed_after(step: str) -> Callable[[str], None]:
        return lambda name: new.server.kill() if name == step else None

    own_root = new.rest.expect(200, "GET", f"{USER_REPO}/root.json").body
    for step in ("uploaded", "taken over"):
        with pytest.raises(CommandEnded):
            importer(killed_after(step)).run()
        new.server.start()
        root = road_of(new.server, tmp_path / "again").rest.expect(200, "GET", f"{USER_REPO}/root.json")
        assert (root.body == own_root) is (step == "uploaded")
        assert root.json["signed"]["version"] == (1 if step == "uploaded" else 2)
    assert importer(lambda step: None).run().state == "done"
    after = road_of(new.server, tmp_path / "after")
    device = moved(device, after)
    after.send(device)
    assert device.cycle() is Outcome.INSTALLED, device.last_error
