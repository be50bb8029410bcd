"""Which ECUs a vehicle has (Uptane reference §3.4)."""

from __future__ import annotations

import pytest

from overair.basics.errors import Conflict, NotFound, PreconditionFailed
from overair.basics.ids import EcuSerial
from overair.server.director.model import AnomalyKind, DeviceStatus
from overair.server.director.service import DeviceQuery
from tests.support.director_room import DirectorRoom, EcuKey, Vehicle


@pytest.fixture
def car(room: DirectorRoom) -> Vehicle:
    return room.vehicle("car-1", gw="imx8", dash="s32")


def anomalies(room: DirectorRoom, thing: str = "car-1") -> dict[tuple[AnomalyKind, str], int]:
    return {(anomaly.kind, anomaly.serial): anomaly.count for anomaly in room.facts(thing).anomalies}


def test_a_vehicle_registers_its_ecus_and_its_identity_is_complete(room: DirectorRoom, car: Vehicle) -> None:
    facts = room.facts("car-1")
    assert facts.device.primary == "gw"
    assert facts.device.status is DeviceStatus.UP_TO_DATE
    assert [(ecu.serial, ecu.hardware_id, ecu.is_primary, ecu.key) for ecu in facts.ecus] == [
        ("dash", "s32", False, car.keys["dash"].public_key),
        ("gw", "imx8", True, car.keys["gw"].public_key),
    ]
    assert room.enrolment.complete == ["car-1"]


def test_the_same_list_again_changes_nothing(room: DirectorRoom, car: Vehicle) -> None:
    before = room.facts("car-1")
    again = car.register()
    assert (again.is_new, again.refusal) == (False, None)
    assert room.facts("car-1") == before


def test_a_first_registration_is_told_from_a_later_one(room: DirectorRoom) -> None:
    room.add_things("car-2")
    car = Vehicle(room, "car-2", {"gw": "imx8"})
    assert car.register().is_new
    assert not car.register().is_new


def test_two_vehicles_may_have_ecus_of_the_same_serial(room: DirectorRoom, car: Vehicle) -> None:
    other = room.vehicle("car-2", gw="imx8", dash="s32")
    assert room.facts("car-2").ecus[0].key == other.keys["dash"].public_key
    assert room.facts("car-1").ecus[0].key == car.keys["dash"].public_key


def swap(car: Vehicle, old: str, new: str) -> None:
    car.ecus[new] = car.ecus.pop(old)
    car.keys[new] = EcuKey()
    car.installed[new] = car.installed.pop(old)


def test_a_replaced_ecu_is_retired_and_its_serial_never_comes_back(room: DirectorRoom, car: Vehicle) -> None:
    swap(car, "dash", "dash-b")
    assert car.register().refusal is None
    facts = room.facts("car-1")
    assert [ecu.serial for ecu in facts.ecus] == ["dash-b", "gw"]
    assert [ecu.serial for ecu in facts.retired] == ["dash"]
    swap(car, "dash-b", "dash")
    refusal = car.register().refusal
    assert isinstance(refusal, Conflict)
    assert refusal.subject == "ecu-reuse"
    assert [ecu.serial for ecu in room.facts("car-1").ecus] == ["dash-b", "gw"], "nothing changed"


def test_what_runs_on_an_ecu_survives_the_swap_of_another(room: DirectorRoom, car: Vehicle) -> None:
    car.installed["gw"] = room.images.add("gateway-1", "imx8").file
    car.send()
    swap(car, "dash", "dash-b")
    car.register()
    installed = car.known.ecus[EcuSerial("gw")].installed
    assert installed is not None
    assert installed.image.name == "gateway-1"


def test_while_an_assignment_runs_ecus_dont_change(room: DirectorRoom, car: Vehicle) -> None:
    room.ship("A", room.update(imx8=room.images.add("gateway-2", "imx8")), room.thing_arn("car-1"))
    car.refresh()
    assert car.register().refusal is None, "the same list is no change"
    swap(car, "dash", "dash-b")
    refusal = car.register().refusal
    assert isinstance(refusal, PreconditionFailed)
    assert refusal.subject == "ecu-assignment"
    room.cancel("A")
    assert car.register().refusal is None


def test_another_key_for_a_known_ecu_waits_for_an_operators_word(room: DirectorRoom, car: Vehicle) -> None:
    stolen, car.keys["dash"] = car.keys["dash"], EcuKey()
    for _ in range(2):
        refusal = car.register().refusal
        assert isinstance(refusal, Conflict)
        assert refusal.subject == "ecu-key"
    assert anomalies(room) == {(AnomalyKind.KEY_CHANGE, "dash"): 2}
    [change] = room.facts("car-1").key_changes
    assert (change.serial, change.key) == ("dash", car.keys["dash"].public_key)
    assert car.known.ecus[EcuSerial("dash")].key == stolen.public_key

    registrations = room.director.registrations
    room.work.run_blocking(lambda tx: registrations.approve_key(tx, room.account, car.thing, EcuSerial("dash")))
    assert car.register().refusal is None
    assert car.known.ecus[EcuSerial("dash")].key == car.keys["dash"].public_key
    assert car.send() is None
    assert room.facts("car-1").key_changes == []


def test_approval_is_for_the_key_that_was_seen_and_no_other(room: DirectorRoom, car: Vehicle) -> None:
    registrations = room.director.registrations
    car.keys["dash"] = EcuKey()
    car.register()
    room.work.run_blocking(lambda tx: registrations.approve_key(tx, room.account, car.thing, EcuSerial("dash")))
    car.keys["dash"] = EcuKey()
    assert isinstance(car.register().refusal, Conflict)


def test_a_declined_key_is_forgotten(room: DirectorRoom, car: Vehicle) -> None:
    registrations = room.director.registrations
    car.keys["dash"] = EcuKey()
    car.register()
    room.work.run_blocking(lambda tx: registrations.decline_key(tx, room.account, car.thing, EcuSerial("dash")))
    with pytest.raises(NotFound):
        room.work.run_blocking(lambda tx: registrations.approve_key(tx, room.account, car.thing, EcuSerial("dash")))


def test_a_new_primary_counts_its_manifests_anew(room: DirectorRoom, car: Vehicle) -> None:
    car.counter = 41
    assert car.send() is None
    assert room.device("car-1").report_counter == 42
    swap(car, "gw", "gw-b")
    car.ecus = {"gw-b": car.ecus["gw-b"], "dash": car.ecus["dash"]}
    car.primary, car.counter = "gw-b", 0
    assert car.register().refusal is None
    assert room.device("car-1").report_counter is None
    assert car.send() is None


def test_a_changed_hardware_id_is_taken_and_noted(room: DirectorRoom, car: Vehicle) -> None:
    car.ecus["dash"] = "s32-b"
    assert car.register().refusal is None
    assert car.known.ecus[EcuSerial("dash")].hardware_id == "s32-b"
    assert anomalies(room) == {(AnomalyKind.HARDWARE_CHANGE, "dash"): 1}


def test_a_swapped_ecu_is_in_no_targets_any_more(room: DirectorRoom, car: Vehicle) -> None:
    """A stale serial would make the vehicle refuse everything (§5.1)."""
    image = room.images.add("both-1", "imx8", "s32")
    room.ship("A", room.update(imx8=image, s32=image), room.thing_arn("car-1"))
    swap(car, "dash", "dash-b")
    car.register()
    car.refresh()
    assert car.kept["both-1"].ecus == {"gw": "imx8", "dash-b": "s32"}


def test_a_deleted_thing_is_forgotten_whole(room: DirectorRoom, car: Vehicle) -> None:
    car.send()
    room.work.run_blocking(lambda tx: room.director.thing_deleted(tx, room.account, car.thing))
    with pytest.raises(NotFound):
        room.facts("car-1")
    assert not room.work.read_blocking(lambda tx: room.director.views.page(tx, room.account, DeviceQuery(offset=0, limit=10)))[
        0
    ]
