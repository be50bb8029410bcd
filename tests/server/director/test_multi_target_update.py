"""Whom an update affects, and what operators may write into one."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest, OverairError, Unsupported
from overair.basics.ids import EcuSerial, MultiTargetUpdateId, ThingName
from overair.server.director.documents import assigned_targets, stay_targets
from overair.server.director.model import Device, DeviceStatus, Ecu, Image, Installed, Registered
from overair.server.director.multi_target_update import (
    MultiTargetUpdate,
    NotAffected,
    TargetUpdate,
    evaluate,
    read_targets,
    targets_members,
)
from tests.support.director_room import CataloguedImage, EcuKey, Images

KEY = EcuKey().public_key
GW, DASH = EcuSerial("gw"), EcuSerial("dash")


def vehicle(**installed: Image | None) -> Registered:
    hardware = {"gw": "imx8", "dash": "s32"}
    ecus = {
        EcuSerial(serial): Ecu(
            serial=EcuSerial(serial),
            hardware_id=hardware[serial],
            key=KEY,
            is_primary=serial == "gw",
            registered_at=Instant(0),
            installed=None if image is None else Installed(image=image, since=Instant(0)),
        )
        for serial, image in installed.items()
    }
    device = Device(thing=ThingName("car-1"), primary=GW, registration=1, status=DeviceStatus.UP_TO_DATE, created_at=Instant(0))
    return Registered(device=device, ecus=ecus)


def as_image(found: CataloguedImage) -> Image:
    return Image(name=found.name, length=found.length, hashes=found.hashes)


def update(**targets: TargetUpdate) -> MultiTargetUpdate:
    return MultiTargetUpdate(id=MultiTargetUpdateId("mtu"), targets=targets, created_at=Instant(0))


@pytest.fixture
def images() -> Images:
    return Images()


def test_each_ecu_gets_what_its_hardware_is_for(images: Images) -> None:
    gateway, cluster = images.add("gw-2", "imx8"), images.add("dash-2", "s32")
    made = update(imx8=TargetUpdate(to=as_image(gateway)), s32=TargetUpdate(to=as_image(cluster)))
    found = evaluate(made, vehicle(gw=None, dash=None), images.targets.get)
    assert {serial: target.to.name for serial, target in found.updates.items()} == {GW: "gw-2", DASH: "dash-2"}
    assert found.reasons == {}


def test_a_vehicle_without_such_hardware_is_told_which_there_is(images: Images) -> None:
    made = update(other=TargetUpdate(to=as_image(images.add("x", "other"))))
    found = evaluate(made, vehicle(gw=None, dash=None), images.targets.get)
    assert found.reason.code is NotAffected.NO_COMPATIBLE_HARDWARE
    assert "imx8, s32" in found.reason.message
    assert list(found.reasons) == [GW]


def test_what_is_installed_already_is_not_installed_again(images: Images) -> None:
    gateway, cluster = images.add("gw-2", "imx8"), images.add("dash-2", "s32")
    made = update(imx8=TargetUpdate(to=as_image(gateway)), s32=TargetUpdate(to=as_image(cluster)))
    found = evaluate(made, vehicle(gw=as_image(gateway), dash=None), images.targets.get)
    assert list(found.updates) == [DASH]
    assert found.reasons[GW].code is NotAffected.ALREADY_INSTALLED
    found = evaluate(made, vehicle(gw=as_image(gateway), dash=as_image(cluster)), images.targets.get)
    assert found.updates == {}
    assert found.reason.code is NotAffected.ALREADY_INSTALLED


def test_an_update_from_one_image_is_for_ecus_that_run_it(images: Images) -> None:
    old, new = images.add("gw-1", "imx8"), images.add("gw-2", "imx8")
    made = update(imx8=TargetUpdate(to=as_image(new), only_from=as_image(old)))
    assert list(evaluate(made, vehicle(gw=as_image(old)), images.targets.get).updates) == [GW]
    for runs in (None, as_image(images.add("gw-0", "imx8"))):
        assert evaluate(made, vehicle(gw=runs), images.targets.get).reason.code is NotAffected.NOT_IN_UPDATE


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda images: images.targets.pop("gw-2"), NotAffected.TARGET_MISSING),
        (lambda images: images.add("gw-2", "imx8", content=b"other"), NotAffected.TARGET_DIFFERS),
        (lambda images: images.add("gw-2", "imx9"), NotAffected.HARDWARE_NOT_IN_TARGET),
    ],
)
def test_what_the_vehicle_would_refuse_after_its_download_is_told_before_and_keeps_the_bundle_whole(
    images: Images, spoil: Any, code: NotAffected
) -> None:
    gateway, cluster = images.add("gw-2", "imx8"), images.add("dash-2", "s32")
    made = update(imx8=TargetUpdate(to=as_image(gateway)), s32=TargetUpdate(to=as_image(cluster)))
    spoil(images)
    found = evaluate(made, vehicle(gw=None, dash=None), images.targets.get)
    assert found.updates == {}, "the other ECU doesn't get its part alone"
    assert found.reason.code is code


def test_an_update_for_one_ecu_leaves_its_likes_alone(images: Images) -> None:
    made = MultiTargetUpdate(
        id=MultiTargetUpdateId("mtu"),
        targets={"imx8": TargetUpdate(to=as_image(images.add("gw-2", "imx8")))},
        created_at=Instant(0),
        only_ecus=frozenset({EcuSerial("another")}),
    )
    assert evaluate(made, vehicle(gw=None), images.targets.get).updates == {}


# What operators write -----------------------------------------------------------------------------------------------------

TO = {"target": "gw-2", "checksum": {"method": "sha256", "hash": "ab" * 32}, "targetLength": 7, "uri": None}


def test_an_update_is_told_as_it_was_given() -> None:
    members = {
        "imx8": {
            "from": {**TO, "target": "gw-1", "userDefinedCustom": None},
            "to": {**TO, "uri": "https://cdn.example/gw-2", "userDefinedCustom": {"acme": 1}},
            "targetFormat": "BINARY",
            "generateDiff": False,
        }
    }
    assert targets_members(update(**read_targets({"targets": members}))) == members


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({}, "targets"),
        ({"targets": {}}, "targets"),
        ({"targets": {"": {"to": TO}}}, "targets."),
        ({"targets": {"imx8": {}}}, "targets.imx8.to"),
        ({"targets": {"imx8": {"to": {**TO, "target": ""}}}}, "targets.imx8.to.target"),
        ({"targets": {"imx8": {"to": {**TO, "target": "ü"}}}}, "targets.imx8.to.target"),
        ({"targets": {"imx8": {"to": {**TO, "targetLength": -1}}}}, "targets.imx8.to.targetLength"),
        ({"targets": {"imx8": {"to": {**TO, "targetLength": True}}}}, "targets.imx8.to.targetLength"),
        (
            {"targets": {"imx8": {"to": {**TO, "checksum": {"method": "sha512", "hash": "ab" * 32}}}}},
            "targets.imx8.to.checksum",
        ),
        ({"targets": {"imx8": {"to": {**TO, "uri": "ftp://x"}}}}, "targets.imx8.to.uri"),
        ({"targets": {"imx8": {"to": TO, "from": 7}}}, "targets.imx8.from"),
        ({"targets": {"imx8": {"to": TO, "targetFormat": "ZIP"}}}, "targets.imx8.targetFormat"),
    ],
)
def test_what_makes_no_update_is_refused_with_the_member(members: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_targets(members)
    assert refused.value.details["field"] == field


def test_one_name_is_one_image() -> None:
    other = {**TO, "checksum": {"method": "sha256", "hash": "cd" * 32}}
    with pytest.raises(InvalidRequest, match="a name means one image"):
        read_targets({"targets": {"imx8": {"to": TO}, "s32": {"to": other}}})


def test_static_deltas_are_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="OSTree"):
        read_targets({"targets": {"imx8": {"to": TO, "generateDiff": True}}})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(members=st.dictionaries(st.sampled_from(["targets", "x"]), json_values))
def test_arbitrary_updates_raise_their_own_error_alone(members: dict[str, Any]) -> None:
    with suppress(OverairError):
        read_targets(members)


# Targets ------------------------------------------------------------------------------------------------------------------


def test_every_ecu_stands_in_one_entry(images: Images) -> None:
    both = TargetUpdate(to=as_image(images.add("both", "imx8", "s32")))
    targets = assigned_targets({GW: both, DASH: both}, {GW: "imx8", DASH: "s32"})
    assert {name: dict(target.ecus) for name, target in targets.items()} == {"both": {"gw": "imx8", "dash": "s32"}}


def test_nobody_is_told_to_stay_with_what_is_not_known() -> None:
    unknown = Image(
        name="unknown", length=0, hashes={"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
    )
    assert stay_targets(vehicle(gw=unknown, dash=None).ecus, [GW, DASH], lambda image: True) == {}


def test_an_ecu_that_runs_something_else_by_now_is_not_named_for_the_old_image(images: Images) -> None:
    both, newer = as_image(images.add("both", "imx8", "s32")), as_image(images.add("dash-3", "s32"))
    ecus = dict(vehicle(gw=both, dash=newer).ecus)
    gateway = ecus[GW]
    assert gateway.installed is not None
    installed = Installed(image=both, since=Instant(0), named_for={GW: "imx8", DASH: "s32"})
    ecus[GW] = Ecu(serial=GW, hardware_id="imx8", key=KEY, is_primary=True, registered_at=Instant(0), installed=installed)
    targets = stay_targets(ecus, [GW, DASH], lambda image: True)
    assert {name: dict(target.ecus) for name, target in targets.items()} == {
        "both": {"gw": "imx8"},
        "dash-3": {"dash": "s32"},
    }
