"""`overair migrate export` against OTA Connect over real HTTPS: what it reads, believes, resumes and refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from overair.basics.redacted import Redacted
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.migrate import devices
from overair.cli.migrate.exporting import ExportOptions
from overair.cli.migrate.source import Access
from overair.wire.uptane.metadata import Repository, Role
from tests.cli.migrate.conftest import AUTHORITY, Export
from tests.support.old_server import OldServer, described
from tests.support.ota_connect import CLIENT_ID, CLIENT_SECRET, OldDevice, OtaConnect
from tests.support.scripted_https import Answer, Received


class Cut(Exception):
    """The power fails."""


def files(export: Export) -> dict[str, bytes]:
    """All of the directory, but for what says when."""
    root = export.directory.path
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "export.json"
    }


def test_everything_is_read_as_it_is_served(export: Export, old: OldServer) -> None:
    told = export()
    found = files(export)
    for repository in Repository:
        for version, root in enumerate(old.roots(repository), start=1):
            assert found[f"{repository}/roots/{version}.root.json"] == root
    for role in ("targets", "snapshot", "timestamp"):
        assert found[f"image/{role}.json"] == old.image.files[f"{role}.json"]
    assert found["image/delegations/vendor-b.json"] == old.image.files["delegations/vendor-b.json"]
    for content in old.contents.values():
        assert found[f"image/files/{hashlib.sha256(content).hexdigest()}"] == content
    assert told.roots == {"image": 3, "director": 3}
    assert (told.targets, told.images, told.images_elsewhere, told.images_missing) == (4, 3, ["dash-7"], [])
    assert told.fingerprints["image"] == hashlib.sha256(old.image.files["1.root.json"]).hexdigest()
    assert told.flavours == {}  # OTA Connect has no TUF flavour, whatever it is asked
    assert json.loads((export.directory.path / "export.json").read_bytes())["format"] == "overair-export/1"


def test_devices_come_with_certificates_ecus_keys_and_what_runs_on_them(export: Export) -> None:
    told = export()
    assert (told.devices, told.devices_without_certificate, told.devices_with_problems) == (3, ["car-3"], {})
    (device,) = [each for each in export.directory.devices() if each["deviceId"] == "car-1"]
    original = export.server.devices[0]
    assert device["certificates"] == [original.certificate]
    assert device["ecus"] == {
        "primary_ecu_serial": "car-1-primary",
        "ecus": [
            {"ecu_serial": serial, "hardware_identifier": hardware_id, "clientKey": key.to_json()}
            for serial, (hardware_id, key) in original.ecus.items()
        ],
    }
    assert device["installed"] == {
        "car-1-primary": {"filepath": "gateway-1", "fileinfo": {"length": 11, "hashes": {"sha256": "ab" * 32}}}
    }
    assert (device["deviceName"], device["deviceType"]) == ("Car car-1", "Vehicle")


def test_an_export_that_is_cut_after_any_step_is_gone_on_with_and_ends_the_same(export: Export) -> None:
    steps: list[str] = []
    export(after_step=steps.append)
    whole = files(export)
    assert len(steps) > 8
    kinds = [step.split(" ")[0] for step in steps]
    for number in sorted({kinds.index(kind) for kind in kinds}):
        shutil.rmtree(export.directory.path)
        export.server.asked.clear()
        left = iter(range(number, -1, -1))
        with pytest.raises(Cut):
            export(after_step=lambda step, left=left: None if next(left) else _raise(Cut(step)))  # type: ignore[misc]
        export()
        assert files(export) == whole
        # What was whole isn't read again.
        asked = Counter(path for path in export.server.asked if "/targets/" in path)
        assert set(asked.values()) == {1}


def test_a_cut_export_is_known_as_one(export: Export) -> None:
    with pytest.raises(Cut):
        export(after_step=lambda step: _raise(Cut(step)))
    with pytest.raises(CommandEnded) as ended:
        export.directory.index()
    assert ended.value.code is ExitCode.USAGE


def _raise(error: Exception) -> None:
    raise error


def test_a_whole_export_made_again_follows_what_has_changed(export: Export, old: OldServer) -> None:
    export()
    old.put("gateway-3", b"gateway three")
    del export.server.devices[0]
    told = export()
    assert (told.targets, told.devices) == (5, 2)
    assert [each["deviceId"] for each in export.directory.devices()] == ["car-2", "car-3"]


def test_a_download_that_breaks_off_goes_on_where_it_stopped(export: Export, old: OldServer) -> None:
    content = bytes(range(256)) * 4000
    old.put("large-1", content)
    ranges: list[str] = []

    def break_off(path: str, request: Received) -> Answer | None:
        if path.endswith("/targets/large-1"):
            ranges.append(request.headers.get("range", ""))
            if len(ranges) == 1:
                return Answer(200, content, cut_after_bytes=700_000)
        return None

    export.server.intervene = break_off
    told = export()
    assert told.images == 4
    assert ranges[0] == ""
    assert ranges[1].startswith("bytes=")
    assert export.directory.image_file(hashlib.sha256(content).hexdigest()).read_bytes() == content


@pytest.mark.parametrize(
    "sent", [b"gateway ONE", b"gateway one and more", b"gatew", b""], ids=["other bytes", "longer", "shorter", "nothing"]
)
def test_bytes_that_are_not_what_targets_say_are_not_taken(export: Export, sent: bytes) -> None:
    export.server.intervene = lambda path, request: Answer(200, sent) if path.endswith("/targets/gateway-1") else None
    told = export()
    assert told.images_missing == ["gateway-1"]
    assert any("gateway-1" in warning for warning in told.warnings)
    assert not export.directory.image_file(hashlib.sha256(b"gateway one").hexdigest()).exists()


def test_an_image_that_the_server_has_lost_is_told(export: Export, old: OldServer) -> None:
    del old.contents["gateway-2"]
    told = export()
    assert told.images_missing == ["gateway-2"]


def test_an_image_may_lie_where_a_redirect_leads(export: Export, old: OldServer) -> None:
    old.contents["elsewhere"] = b"gateway one"

    def redirect(path: str, request: Received) -> Answer | None:
        if path.endswith("/targets/gateway-1"):
            return Answer(302, b"", {"Location": f"{export.server.url}/api/v1/user_repo/targets/elsewhere"})
        return None

    export.server.intervene = redirect
    assert export().images == 3


@pytest.mark.parametrize("location", ["http://plain.example/image", ""], ids=["plain", "round and round"])
def test_a_redirect_without_tls_or_without_end_is_refused(export: Export, location: str) -> None:
    def redirect(path: str, request: Received) -> Answer | None:
        return Answer(302, b"", {"Location": location or request.path}) if "/targets/" in path else None

    export.server.intervene = redirect
    with pytest.raises(CommandEnded) as ended:
        export()
    assert ended.value.code is ExitCode.REFUSED


def test_an_ostree_commit_stays_in_treehub(export: Export, old: OldServer) -> None:
    old.image.add_target(described("os-1", b"", "gw-imx8", targetFormat="OSTREE"))
    told = export()
    assert "os-1" in told.images_elsewhere
    assert any("TreeHub" in warning for warning in told.warnings)


# What isn't believed --------------------------------------------------------------------------------------------------------


def test_a_chain_that_cannot_be_followed_is_refused(export: Export, old: OldServer) -> None:
    old.image.files["2.root.json"] = old.director.files["2.root.json"]
    with pytest.raises(CommandEnded, match="Root version 2 of the image repository can't be followed"):
        export()


def test_documents_that_the_chain_does_not_vouch_for_are_refused(export: Export, old: OldServer) -> None:
    old.image.files["targets.json"] = old.image.signed(old.image.targets, old.director.keys[Role.TARGETS])
    with pytest.raises(CommandEnded, match="can't be believed"):
        export()


def test_documents_of_two_moments_are_read_again(export: Export, old: OldServer) -> None:
    first = dict(old.image.files)
    old.put("gateway-5", b"gateway five")
    stale = [first["snapshot.json"]]

    def once(path: str, request: Received) -> Answer | None:
        return Answer(200, stale.pop()) if stale and path.endswith("/snapshot.json") else None

    export.server.intervene = once
    assert export().targets == 5


def test_a_chain_without_the_pinned_root_is_refused(export: Export, old: OldServer, tmp_path: Path) -> None:
    stranger = OldServer(old.now)
    for pins, entries in (
        ({"image": stranger.image.files["2.root.json"]}, {}),
        ({"director": stranger.director.files["1.root.json"]}, {}),
        ({}, {"root__json": stranger.image.files["1.root.json"]}),
    ):
        named = str(export.server.bundle(tmp_path / "pinned.zip", **entries))
        with pytest.raises(CommandEnded, match="pinned"):
            export(ExportOptions(pins=pins), named=named)
    pins = {"image": old.image.files["2.root.json"], "director": old.director.files["3.root.json"]}
    export(ExportOptions(pins=pins))


def test_a_server_of_another_authority_is_told_nothing(export: Export, tmp_path: Path) -> None:
    from tests.support.authority import Authority

    named = str(export.server.bundle(tmp_path / "credentials.zip"))
    with pytest.raises(CommandEnded) as ended:
        export(named=named, access=Access(ca=Authority().pem))
    assert ended.value.code is ExitCode.UNREACHABLE
    assert export.server.asked == []


@pytest.mark.parametrize("status", [404, 424])
def test_both_ways_to_say_that_there_is_no_next_root_are_understood(export: Export, status: int) -> None:
    export.server.no_such_root = status
    assert export().roots["image"] == 3


def test_a_failing_server_is_not_taken_for_the_end_of_the_chain(export: Export) -> None:
    export.server.no_such_root = 503
    with pytest.raises(CommandEnded, match=r"Root version 4 .* can't be had"):
        export()


def test_a_device_of_which_something_is_broken_is_told_and_kept_without_it(export: Export) -> None:
    def broken(path: str, request: Received) -> Answer | None:
        if path.endswith("car-1-dash/public_key"):
            return Answer(500, b"{}")
        return Answer(200, b'{"credentials":7}') if "000000000001/public_credentials" in path else None

    export.server.intervene = broken
    told = export()
    assert set(told.devices_with_problems) == {"car-1", "car-2"}
    (device,) = [each for each in export.directory.devices() if each["deviceId"] == "car-1"]
    assert device["ecus"] is None


def test_a_list_of_devices_that_cannot_be_understood_ends_the_export(export: Export) -> None:
    export.server.devices.append(OldDevice(uuid="../../etc", device_id="x"))
    with pytest.raises(CommandEnded, match="can't be understood"):
        export()


def test_more_devices_than_a_page_holds_all_come_once(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "PAGE", 5)
    first = export.server.devices[0]
    export.server.devices = [
        OldDevice(uuid=f"device-{number}", device_id=f"car-{number}", certificate=first.certificate) for number in range(12)
    ]
    told = export()
    assert told.devices == 12
    assert len(list(export.directory.devices())) == 12


# By which right -------------------------------------------------------------------------------------------------------------


def test_an_address_with_an_oauth2_client_is_as_good_as_a_bundle(export: Export) -> None:
    access = Access(client_id=CLIENT_ID, secret=Redacted(CLIENT_SECRET), ca=AUTHORITY.pem)
    assert export(named=export.server.url, access=access).images == 3
    with pytest.raises(CommandEnded) as ended:
        export(named=export.server.url, access=Access(client_id=CLIENT_ID, secret=Redacted("wrong"), ca=AUTHORITY.pem))
    assert ended.value.code is ExitCode.REFUSED
    with pytest.raises(CommandEnded) as ended:
        export(named=export.server.url, access=Access(ca=AUTHORITY.pem))
    assert ended.value.code is ExitCode.REFUSED


@pytest.mark.parametrize("password", [b"", b"secret"])
def test_a_bundle_may_prove_itself_by_a_client_certificate(old: OldServer, tmp_path: Path, password: bytes) -> None:
    from tests.support.fleet_pki import FleetAuthority

    with OtaConnect(old, AUTHORITY, by_certificate=True) as server:
        export = Export(server, tmp_path, FleetAuthority())
        entries = {"client_auth__p12": server.client_p12(password), "server__p12": server.server_p12()}
        named = str(server.bundle(tmp_path / "credentials.zip", **entries))
        told = export(named=named, access=Access(password=Redacted(password.decode()) if password else None))
        assert told.images == 3
        assert "/oauth2/token" not in server.asked
        if password:
            with pytest.raises(CommandEnded, match="doesn't open"):
                export(named=named)


def test_a_director_without_a_gateway_before_it_is_found(old: OldServer, tmp_path: Path) -> None:
    from tests.support.fleet_pki import FleetAuthority

    with OtaConnect(old, AUTHORITY, director="") as server:
        assert Export(server, tmp_path, FleetAuthority())().roots["director"] == 3


@pytest.mark.parametrize(
    "named", ["http://plain.example", "ftp://x", "nowhere.zip", "https://"], ids=["plain", "ftp", "no file", "no host"]
)
def test_what_names_no_server_is_a_usage_error(export: Export, named: str) -> None:
    with pytest.raises(CommandEnded) as ended:
        export(named=named)
    assert ended.value.code is ExitCode.USAGE


def test_a_bundle_without_a_right_or_without_an_address_is_a_usage_error(export: Export, tmp_path: Path) -> None:
    import zipfile

    for entries in ({"treehub.json": "{}"}, {"tufrepo.url": "https://x.example", "treehub.json": "{}"}, {"tufrepo.url": "x"}):
        path = tmp_path / "bad.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in entries.items():
                archive.writestr(name, text)
        with pytest.raises(CommandEnded) as ended:
            export(named=str(path))
        assert ended.value.code is ExitCode.USAGE
