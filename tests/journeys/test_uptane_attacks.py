"""Attack stories over the real road: a thief with the server's keys, in the server's place, before unmodified aktualizr.

What a set of documents may be is told as stories in ``tests/wire/uptane/test_attacks.py``, what our own client does about it in
``tests/agent/uptane/test_attacks.py``. Here the keys are a real server's, out of a copy of its state directory, and the thief
answers on a port with the server's own TLS certificate: the device has no way to tell him from it but by what is signed.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from overair.cli import device_main
from overair.wire.uptane.metadata import Repository, Role
from overair.wire.uptane.metadata_reading import read_document, read_targets
from tests.support.aktualizr.device import Aktualizr, Outcome
from tests.support.aktualizr.errors import ExpiredMetadata
from tests.support.fleet_pki import FleetAuthority
from tests.support.server_process import ServerProcess
from tests.support.signing_tool import SigningTool
from tests.support.thief import EVIL_NAME, Loot, Thief
from tests.support.uptane_road import HARDWARE_ID, UptaneRoad

DIRECTOR, IMAGE = Repository.DIRECTOR, Repository.IMAGE


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UptaneRoad]:
    folder = tmp_path_factory.mktemp("attacks")
    with ServerProcess(folder / "data") as server:
        yield UptaneRoad(server, folder / "devices")


@pytest.fixture(scope="module")
def fleet(road: UptaneRoad) -> FleetAuthority:
    return road.fleet()


@pytest.fixture(scope="module")
def loot(road: UptaneRoad, fleet: FleetAuthority) -> Loot:
    """At the default level: every key of both repositories."""
    return Loot(road.server, road.folder / "stolen")


@pytest.fixture
def victim(road: UptaneRoad, fleet: FleetAuthority) -> Aktualizr:
    """A device that has been updated once and runs an image that is signed."""
    device = road.own_pki_device(fleet, road.name("victim"))
    device.cycle()
    road.send(device)
    assert device.cycle() is Outcome.INSTALLED, device.last_error
    return device


@pytest.fixture
def thief(road: UptaneRoad, loot: Loot, victim: Aktualizr) -> Iterator[Thief]:
    assert victim.storage.tls is not None
    thief = Thief(road.server, loot, victim.storage.tls)
    with thief.https:
        yield thief


def lured(victim: Aktualizr, thief: Thief) -> Aktualizr:
    """The device's next process, whose server is the thief."""
    return victim.restart(configuration=replace(victim.configuration, server_url=thief.url))


def polls(device: Aktualizr) -> None:
    """Some rounds, whatever they come to."""
    for _ in range(2):
        device.cycle()


@pytest.mark.parametrize("role", list(Role))
def test_one_key_of_the_director_stolen_installs_nothing_of_the_thiefs(victim: Aktualizr, thief: Thief, role: Role) -> None:
    runs = victim.installed_image()
    if role is Role.ROOT:
        thief.take_over_root(DIRECTOR)
    thief.direct(victim.serial, HARDWARE_ID, (DIRECTOR, role))
    device = lured(victim, thief)

    polls(device)  # the Image repository as it is
    refused = [device.last_error]
    thief.republish()
    polls(device)  # and as he would have it

    assert all([*refused, device.last_error])
    assert device.installed_image() == runs
    assert EVIL_NAME not in device.storage.image_files


@pytest.mark.parametrize("role", list(Role))
def test_one_key_of_the_image_repository_stolen_installs_nothing_of_the_thiefs(
    road: UptaneRoad, victim: Aktualizr, thief: Thief, role: Role
) -> None:
    """Here the genuine Director gives an update, so that the device looks at the Image repository at all."""
    runs = victim.installed_image()
    road.send(victim)
    if role is Role.ROOT:
        thief.take_over_root(IMAGE)
    thief.republish((IMAGE, role))
    device = lured(victim, thief)

    polls(device)

    # At most what the Director really assigned and the Image repository's targets role really signed.
    assert device.installed_image() in (runs, *device.storage.image_files)
    assert EVIL_NAME not in device.storage.image_files
    if role is not Role.ROOT:
        assert device.installed_image() == runs
        assert device.last_error is not None


def test_director_timestamp_and_snapshot_keys_together_install_nothing_that_image_targets_did_not_sign(
    victim: Aktualizr, thief: Thief
) -> None:
    runs = victim.installed_image()
    online = [(DIRECTOR, role) for role in Role] + [(IMAGE, Role.SNAPSHOT), (IMAGE, Role.TIMESTAMP)]
    thief.direct(victim.serial, HARDWARE_ID, *online)
    thief.republish(*online)
    device = lured(victim, thief)

    polls(device)

    assert device.installed_image() == runs
    assert EVIL_NAME not in device.storage.image_files
    assert device.last_error is not None


def test_the_same_keys_and_an_image_that_is_signed_for_other_hardware_install_nothing(
    road: UptaneRoad, victim: Aktualizr, thief: Thief
) -> None:
    runs = victim.installed_image()
    name, _ = road.new_image("another-board")
    signed = read_targets(read_document(thief.genuine("/repo/targets.json"), Role.TARGETS)).targets[name]
    thief.direct(victim.serial, HARDWARE_ID, *[(DIRECTOR, role) for role in Role], image=signed)
    device = lured(victim, thief)

    polls(device)

    assert device.installed_image() == runs
    assert name not in device.storage.image_files


def test_with_every_key_of_the_default_level_the_thief_ships_which_is_why_keys_go_offline(
    victim: Aktualizr, thief: Thief
) -> None:
    everything = [(repository, role) for repository in Repository for role in Role]
    thief.direct(victim.serial, HARDWARE_ID, *everything)
    thief.republish(*everything)
    device = lured(victim, thief)

    assert device.cycle() is Outcome.INSTALLED, device.last_error

    assert device.installed_image() == EVIL_NAME


def test_the_whole_server_stolen_at_the_production_level_ships_nothing_of_the_thiefs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ServerProcess(tmp_path / "data") as server:
        road = UptaneRoad(server, tmp_path / "devices")
        victim = road.own_pki_device(road.fleet(), "victim")
        victim.cycle()
        SigningTool(server, tmp_path / "signer", monkeypatch).take_offline()
        loot = Loot(server, tmp_path / "stolen")
        assert set(Role) - {role for at, role in loot.keys if at is IMAGE} == {Role.ROOT, Role.TARGETS}
        assert victim.storage.tls is not None
        thief = Thief(server, loot, victim.storage.tls)
        thief.direct(victim.serial, HARDWARE_ID, *loot.keys)
        thief.republish(*loot.keys)
        with thief.https:
            device = lured(victim, thief)
            polls(device)

        assert device.installed_image() is None
        assert EVIL_NAME not in device.storage.image_files
        assert device.last_error is not None


def test_a_thief_who_repeats_what_the_server_said_is_found_out_when_it_expires(
    road: UptaneRoad, victim: Aktualizr, thief: Thief
) -> None:
    runs = victim.installed_image()
    road.send(victim)
    for path in ("/director/targets.json", "/repo/timestamp.json", "/repo/snapshot.json", "/repo/targets.json"):
        thief.forged[path] = thief.genuine(path)
    late = (datetime.now(UTC) + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    configuration = replace(victim.configuration, server_url=thief.url)
    device = Aktualizr(configuration, storage=victim.storage, now=lambda: late)

    polls(device)

    assert isinstance(device.last_error, ExpiredMetadata)
    assert device.installed_image() == runs


def test_a_stolen_director_key_is_worth_nothing_once_the_root_names_another(
    road: UptaneRoad, victim: Aktualizr, thief: Thief
) -> None:
    thief.direct(victim.serial, HARDWARE_ID, (DIRECTOR, Role.TARGETS))
    road.rest.expect((200, 204), "PUT", "/api/v1/director/admin/repo/root/rotate")
    assert victim.cycle() is Outcome.NO_UPDATES  # it has the new root
    runs = victim.installed_image()
    device = lured(victim, thief)

    polls(device)

    assert device.installed_image() == runs
    assert device.last_error is not None


class OwnPrimary:
    """Our client as its commands run it, round by round."""

    def __init__(self, road: UptaneRoad, fleet: FleetAuthority, name: str) -> None:
        files = road.import_files(name, fleet.device(name))
        self.name, self.tls = name, files.tls()
        self.directory = road.folder / f"{name}-device"
        self._command(
            *("provision", "--certificate", files.certificate, "--private-key", files.private_key, "--ca", files.anchors),
            *("--server", road.device_url, "--hardware-id", HARDWARE_ID, "--ecu-serial", f"{name}-primary"),
            *("--install-file", "installed"),
        )

    def round(self) -> str:
        return str(self._command("once", codes=(0, 2, 3))["outcome"])

    def told(self) -> dict[str, Any]:
        return self._command("status")

    def runs(self) -> str:
        (ecu,) = self.told()["ecus"].values()
        return str(ecu["image"])

    def calls(self, server_url: str) -> None:
        """From now on, this address."""
        path = self.directory / "device.json"
        path.write_text(json.dumps(_with_server(json.loads(path.read_text()), server_url)))

    def _command(self, *words: str | Path, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
        action, *more = words
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            status = device_main.main(["uptane", str(action), str(self.directory), *map(str, more), "--json"])
        assert status in codes, (words, status, said.getvalue())
        return dict(json.loads(said.getvalue()))


def _with_server(document: Any, server_url: str) -> Any:
    """Every ``server`` in a document, replaced."""
    if not isinstance(document, dict):
        return document
    return {name: server_url if name == "server" else _with_server(each, server_url) for name, each in document.items()}


def test_our_own_client_goes_back_to_nothing_older_though_director_timestamp_and_snapshot_are_the_thiefs(
    road: UptaneRoad, fleet: FleetAuthority, tmp_path: Path
) -> None:
    victim = OwnPrimary(road, fleet, road.name("own"))
    assert victim.round() == "nothing-new"
    names = []
    for counter in (1, 2):
        name = road.name("counted")
        road.upload(name, name.encode() * 50, HARDWARE_ID, release_counter=counter)
        road.assign(road.multi_target_update({HARDWARE_ID: (name, name.encode() * 50)}), victim.name)
        assert victim.round() == "installed"
        names.append(name)
    older, newer = names

    thief = Thief(road.server, Loot(road.server, tmp_path / "stolen"), victim.tls)
    online = [(DIRECTOR, role) for role in Role] + [(IMAGE, Role.SNAPSHOT), (IMAGE, Role.TIMESTAMP)]
    signed = read_targets(read_document(thief.genuine("/repo/targets.json"), Role.TARGETS)).targets
    with thief.https:
        victim.calls(thief.url)
        thief.direct(f"{victim.name}-primary", HARDWARE_ID, *online, image=signed[older])
        assert victim.round() == "failed"
        assert "Rollback" in json.dumps(victim.told())
        assert victim.runs() == newer
        thief.direct(f"{victim.name}-primary", HARDWARE_ID, *online)
        assert victim.round() == "failed"
        assert "TargetMismatch" in json.dumps(victim.told())
        thief.direct(f"{victim.name}-primary", HARDWARE_ID, *online)
        thief.republish(*online)
        assert victim.round() == "failed"
        assert "BadKeyId: image targets" in json.dumps(victim.told())
    assert victim.runs() == newer
