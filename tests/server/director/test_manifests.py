"""What vehicles say runs on them, and how their updates went (Uptane reference §6.1)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import EcuSerial, ThingName
from overair.server.director.model import (
    INSTALLATIONS_KEPT_MAX,
    REPORTS_KEPT_MAX,
    AnomalyKind,
    AssignmentOutcome,
    DeviceStatus,
    InstallationReport,
)
from overair.wire.job_messages import ExecutionStatus
from overair.wire.uptane.canonical import canonical
from overair.wire.uptane.manifest import UNKNOWN_IMAGE, read_manifest
from tests.support.director_room import DirectorRoom, EcuKey, Vehicle

S = ExecutionStatus


@pytest.fixture
def car(room: DirectorRoom) -> Vehicle:
    return room.vehicle("car-1", gw="imx8", dash="s32")


def anomalies(room: DirectorRoom) -> dict[AnomalyKind, tuple[str, int]]:
    return {anomaly.kind: (anomaly.serial, anomaly.count) for anomaly in room.facts("car-1").anomalies}


def reports(room: DirectorRoom) -> list[InstallationReport]:
    found = room.work.read_blocking(
        lambda tx: room.director.views.reports(tx, room.account, ThingName("car-1"), offset=0, limit=100)
    )
    return list(found[1])


def test_what_runs_on_each_ecu_is_kept_with_its_history(room: DirectorRoom, car: Vehicle) -> None:
    assert car.send() is None
    for name in ("gateway-1", "gateway-2"):
        room.clock.advance(milliseconds=1000)
        car.installed["gw"] = room.images.add(name, "imx8").file
        assert car.send() is None
        assert car.send() is None, "the same again is no news"
    installed = car.known.ecus[EcuSerial("gw")].installed
    assert installed is not None
    assert (installed.image.name, installed.since) == ("gateway-2", room.clock.now())
    views = room.director.views
    total, history = room.work.read_blocking(
        lambda tx: views.installations(tx, room.account, car.thing, EcuSerial("gw"), offset=0, limit=10)
    )
    assert total == 3
    assert [record.image.name for record in history] == ["gateway-2", "gateway-1", UNKNOWN_IMAGE.name]


def test_the_history_of_an_ecu_is_bounded(room: DirectorRoom, car: Vehicle) -> None:
    images = [room.images.add(f"gateway-{number}", "imx8").file for number in range(2)]
    for number in range(INSTALLATIONS_KEPT_MAX + 5):
        car.installed["gw"] = images[number % 2]
        car.send(leave_out=["dash"])
    views = room.director.views
    total, _ = room.work.read_blocking(
        lambda tx: views.installations(tx, room.account, car.thing, EcuSerial("gw"), offset=0, limit=10)
    )
    assert total == INSTALLATIONS_KEPT_MAX


def test_an_unregistered_vehicle_is_told_so(room: DirectorRoom) -> None:
    room.add_things("car-9")
    car = Vehicle(room, "car-9", {"gw": "imx8"})
    with pytest.raises(NotFound, match="/director/ecus"):
        car.send()


def test_a_manifest_of_another_primarys_key_is_refused_and_noted(room: DirectorRoom, car: Vehicle) -> None:
    refusal = car.send(keys={"gw": EcuKey()})
    assert isinstance(refusal, InvalidRequest)
    assert refusal.subject == "manifest-signature"
    assert anomalies(room) == {AnomalyKind.BAD_SIGNATURE: ("gw", 1)}
    assert room.device("car-1").last_manifest_at is None


def test_a_secondarys_report_must_be_signed_by_its_own_key(room: DirectorRoom, car: Vehicle) -> None:
    refusal = car.send(keys={"dash": EcuKey()})
    assert refusal is not None
    assert refusal.subject == "manifest-signature"
    assert "dash" in str(refusal.details["field"])


def test_a_primary_that_isnt_the_registered_one_is_refused(room: DirectorRoom, car: Vehicle) -> None:
    car.primary = "dash"
    refusal = car.send()
    assert refusal is not None
    assert refusal.subject == "primary-ecu"
    assert AnomalyKind.WRONG_PRIMARY in anomalies(room)


def test_an_unknown_ecu_is_refused_and_noted(room: DirectorRoom, car: Vehicle) -> None:
    car.keys["ghost"], car.installed["ghost"] = EcuKey(), UNKNOWN_IMAGE
    refusal = car.send()
    assert refusal is not None
    assert refusal.subject == "manifest-signature"
    assert AnomalyKind.UNKNOWN_ECU in anomalies(room)


def test_a_missing_ecu_and_a_detected_attack_are_noted_and_block_nothing(room: DirectorRoom, car: Vehicle) -> None:
    assert car.send(leave_out=["dash"], attacks="freeze attack on timestamp") is None
    assert car.send(leave_out=["dash"]) is None
    assert anomalies(room) == {AnomalyKind.MISSING_ECU: ("dash", 2), AnomalyKind.ATTACK_DETECTED: ("gw", 1)}
    room.work.run_blocking(lambda tx: room.director.views.forget_anomalies(tx, room.account, car.thing))
    assert anomalies(room) == {}


# Replays ------------------------------------------------------------------------------------------------------------------


def test_a_manifest_counts_once(room: DirectorRoom, car: Vehicle) -> None:
    body = car.manifest()
    assert car.send(body) is None
    refusal = car.send(body)
    assert isinstance(refusal, InvalidRequest)
    assert refusal.subject == "manifest-replay"
    assert anomalies(room) == {AnomalyKind.REPLAY: ("gw", 1)}


def test_gaps_are_fine_and_steps_back_are_not(room: DirectorRoom, car: Vehicle) -> None:
    assert car.send(counter=10) is None
    assert car.send(counter=11) is None
    assert car.send(counter=50) is None
    assert car.send(counter=49) is not None
    assert room.device("car-1").report_counter == 50


def test_a_captured_manifest_brings_no_old_state_back(room: DirectorRoom, car: Vehicle) -> None:
    old = car.manifest()
    car.installed["gw"] = room.images.add("gateway-2", "imx8").file
    car.send()
    assert car.send(old) is not None
    installed = car.known.ecus[EcuSerial("gw")].installed
    assert installed is not None
    assert installed.image.name == "gateway-2"


def test_a_client_that_never_counts_is_heard_and_noted(room: DirectorRoom, car: Vehicle) -> None:
    assert car.send(counter=None) is None
    assert AnomalyKind.NO_COUNTER in anomalies(room)


def test_whoever_has_counted_once_must_go_on_counting(room: DirectorRoom, car: Vehicle) -> None:
    assert car.send() is None
    refusal = car.send(counter=None)
    assert refusal is not None
    assert refusal.subject == "manifest-replay"


def test_an_operator_lets_a_vehicle_that_lost_its_storage_begin_again(room: DirectorRoom, car: Vehicle) -> None:
    car.send(counter=50)
    assert car.send(counter=1) is not None
    room.work.run_blocking(lambda tx: room.director.registrations.allow_counter_from(tx, room.account, car.thing))
    assert car.send(counter=1) is None
    assert car.send(counter=1) is not None


def test_what_was_judged_by_an_older_registration_is_judged_again(room: DirectorRoom, car: Vehicle) -> None:
    manifests = room.director.manifests
    read = read_manifest(car.manifest())
    judged = room.work.read_blocking(lambda tx: manifests.judge(tx, room.account, car.thing, read))
    car.ecus["extra"], car.keys["extra"] = "s32", EcuKey()
    car.installed["extra"] = UNKNOWN_IMAGE
    car.register()
    assert room.work.run_blocking(lambda tx: manifests.take(tx, room.place, car.thing, judged)) is None
    assert anomalies(room) == {AnomalyKind.MISSING_ECU: ("extra", 1)}


# Reports ------------------------------------------------------------------------------------------------------------------


def ship(room: DirectorRoom, car: Vehicle, job: str = "A") -> None:
    gateway, cluster = room.images.add(f"gateway-{job}", "imx8"), room.images.add(f"dash-{job}", "s32")
    room.ship(job, room.update(imx8=gateway, s32=cluster), room.thing_arn("car-1"))
    car.refresh()


def test_a_report_of_success_ends_the_execution_with_its_words(room: DirectorRoom, car: Vehicle) -> None:
    ship(room, car)
    car.install()
    assert car.send(report=car.report()) is None
    execution = car.execution("A")
    assert execution.status is S.SUCCEEDED
    assert execution.status_details == {
        "resultCode": "OK",
        "description": "OK, it says",
        "correlationId": "urn:overair:job:A",
        "ecus": "dash=OK,gw=OK",
    }
    [assignment] = room.facts("car-1").assignments
    assert (assignment.outcome, assignment.result_code) == (AssignmentOutcome.INSTALLED, "OK")
    assert assignment.installed == {"gw", "dash"}
    assert room.device("car-1").status is DeviceStatus.UP_TO_DATE
    installed = car.known.ecus[EcuSerial("gw")].installed
    assert installed is not None
    assert installed.named_for == {"gw": "imx8"}


def test_without_a_report_what_the_ecus_show_is_enough(room: DirectorRoom, car: Vehicle) -> None:
    ship(room, car)
    car.install("gw")
    car.send()
    assert car.execution("A").status is S.IN_PROGRESS
    assert room.facts("car-1").assignments[0].installed == {"gw"}
    car.install("dash")
    car.send()
    assert car.execution("A").status is S.SUCCEEDED


def test_of_a_success_that_shows_on_some_ecus_alone_the_others_are_waited_for(room: DirectorRoom, car: Vehicle) -> None:
    ship(room, car)
    car.install("gw")
    car.send(report=car.report())
    assert car.execution("A").status is S.IN_PROGRESS


def test_a_success_that_shows_nowhere_is_cancelled_and_taken_back(room: DirectorRoom, car: Vehicle) -> None:
    ship(room, car)
    car.send(report=car.report())
    execution = car.execution("A")
    assert execution.status is S.CANCELED
    assert execution.status_details["resultCode"] == "NOTHING_INSTALLED"
    car.refresh()
    assert car.would_install() == {}


def test_a_failure_ends_it_whatever_is_installed(room: DirectorRoom, car: Vehicle) -> None:
    ship(room, car)
    car.install("gw")
    assert car.fail("s32:INSTALL_FAILED") is None
    execution = car.execution("A")
    assert execution.status is S.FAILED
    assert execution.status_details["reason"] == "s32:INSTALL_FAILED: s32:INSTALL_FAILED, it says"
    assert room.device("car-1").status is DeviceStatus.ERROR
    assert room.facts("car-1").assignments[0].outcome is AssignmentOutcome.FAILED


def test_a_report_that_comes_twice_is_kept_once_and_ends_nothing_twice(room: DirectorRoom, car: Vehicle) -> None:
    """After a failed call the same report comes again, with a higher counter."""
    ship(room, car)
    report = car.report("INSTALL_FAILED")
    car.send(report=report)
    ship(room, car, "B")
    car.send(report=report)
    assert len(reports(room)) == 1
    assert car.execution("B").status is S.IN_PROGRESS


def test_a_report_on_another_correlation_id_is_kept_and_ends_nothing(room: DirectorRoom, car: Vehicle) -> None:
    ship(room, car)
    car.send(report=car.report("INSTALL_FAILED", correlation_id="urn:another"))
    assert car.execution("A").status is S.IN_PROGRESS
    assert [report.correlation_id for report in reports(room)] == ["urn:another"]


def test_a_late_success_still_says_under_which_map_the_image_came(room: DirectorRoom, car: Vehicle) -> None:
    image = room.images.add("both-1", "imx8", "s32")
    room.ship("A", room.update(imx8=image, s32=image), room.thing_arn("car-1"))
    car.refresh()
    room.cancel("A")
    car.install()
    car.send(report=car.report())
    assert car.execution("A").status is S.CANCELED
    installed = car.known.ecus[EcuSerial("gw")].installed
    assert installed is not None
    assert installed.named_for == {"gw": "imx8", "dash": "s32"}


def with_report(car: Vehicle, report: Any) -> bytes:
    """A manifest with a report of any shape, signed as it must be."""
    envelope = json.loads(car.manifest())
    envelope["signed"]["installation_report"] = report
    key = car.keys[car.primary]
    envelope["signatures"][0]["sig"] = base64.b64encode(key.sign(canonical(envelope["signed"]))).decode()
    return canonical(envelope)


def test_a_report_that_cant_be_understood_cancels_and_is_kept_as_it_came(room: DirectorRoom, car: Vehicle) -> None:
    ship(room, car)
    assert car.send(with_report(car, {"content_type": "text/poetry", "report": ["ode"]})) is None
    execution = car.execution("A")
    assert execution.status is S.CANCELED
    assert execution.status_details["resultCode"] == "REPORT_UNREADABLE"
    [kept] = reports(room)
    assert json.loads(kept.raw) == {"content_type": "text/poetry", "report": ["ode"]}


def test_reports_are_kept_raw_with_items_of_ecus_that_nobody_knows(room: DirectorRoom, car: Vehicle) -> None:
    result = {"success": False, "code": "INSTALL_FAILED", "description": "no room"}
    raw = {
        "content_type": "application/vnd.com.here.otac.installationReport.v1",
        "report": {
            "correlation_id": "urn:a",
            "raw_report": "long words",
            "result": result,
            "items": [{"ecu": "ghost", "result": result}],
            "acme": {"more": True},
        },
    }
    assert car.send(with_report(car, raw)) is None
    [kept] = reports(room)
    assert json.loads(kept.raw) == raw
    assert kept.ecus == {"ghost": "INSTALL_FAILED"}


def test_reports_are_bounded(room: DirectorRoom, car: Vehicle) -> None:
    for number in range(REPORTS_KEPT_MAX + 3):
        car.send(report=car.report("INSTALL_FAILED", correlation_id=f"urn:{number}"), leave_out=["dash"])
    kept = reports(room)
    assert len(kept) == REPORTS_KEPT_MAX
    assert kept[0].correlation_id == f"urn:{REPORTS_KEPT_MAX + 2}"


def test_hostile_words_are_kept_printable(room: DirectorRoom, car: Vehicle) -> None:
    ship(room, car)
    report = car.report("BAD\u0000CODE\n\x1b[31m" + "x" * 3000, success=False)
    assert car.send(report=report) is None
    execution = car.execution("A")
    assert execution.status is S.FAILED
    assert all(value.isprintable() for value in execution.status_details.values())
