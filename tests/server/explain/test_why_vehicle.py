"""``overair why`` of a Uptane device: its rounds, its ECUs, and what stands in its way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from overair.basics.clock import Instant
from overair.basics.ids import CertificateId, EcuSerial, JobId, ThingName
from overair.server.broker.model import ClientPresence
from overair.server.certificates.model import CertificateStatus
from overair.server.director.model import (
    Anomaly,
    AnomalyKind,
    Cancelled,
    CancelWay,
    Device,
    DeviceStatus,
    DirectorView,
    Ecu,
    Image,
    Installed,
    KeyChange,
    LeftOut,
    View,
)
from overair.server.director.service import VehicleFacts
from overair.server.explain.model import Facts, HeldCertificate, explain
from overair.server.jobs.model import Execution
from overair.wire.job_messages import ExecutionStatus
from overair.wire.uptane.keys import read_public_key

CAR = ThingName("car-1")
KEY = read_public_key({"keytype": "ED25519", "keyval": {"public": "ab" * 32}})
T0 = Instant(1_767_225_600_000)
LATER = Instant(T0 + 60_000)


def ecu(serial: str, hardware_id: str, runs: str = "", *, primary: bool = False) -> Ecu:
    image = Image(name=runs, length=3, hashes={"sha256": "c0" * 32})
    return Ecu(
        serial=EcuSerial(serial),
        hardware_id=hardware_id,
        key=KEY,
        is_primary=primary,
        registered_at=T0,
        installed=Installed(image=image, since=T0) if runs else None,
    )


def vehicle(*, status: DeviceStatus = DeviceStatus.UP_TO_DATE, seen: Instant | None = T0, **more: Any) -> VehicleFacts:
    given: dict[str, Any] = {
        "ecus": [ecu("gw-1", "gw", "app-2.0.0", primary=True), ecu("tcu-1", "tcu")],
        "retired": [],
        "key_changes": [],
        "assignments": [],
        "view": None,
        "left_out": [],
        "last_report": None,
        "anomalies": [],
    }
    device = Device(thing=CAR, primary=EcuSerial("gw-1"), registration=1, status=status, created_at=T0, last_seen_at=seen)
    return VehicleFacts(device=device, **(given | more))


def execution(status: ExecutionStatus, **details: str) -> Execution:
    return Execution(
        thing=CAR,
        job=JobId("roll-7"),
        job_sequence=1,
        number=1,
        status=status,
        status_details=details,
        queued_at=T0,
        started_at=None if status is ExecutionStatus.QUEUED else T0,
        last_updated_at=T0,
        fulfilment="mtu-1",
    )


def chain(facts: VehicleFacts, **more: Any) -> str:
    held = [HeldCertificate(id=CertificateId("c" * 64), status=CertificateStatus.ACTIVE)]
    given: dict[str, Any] = {
        "thing": CAR,
        "certificates": held,
        "pending": [],
        "last": None,
        "rolling_out": [],
        "updates": [],
        "vehicle": facts,
    }
    return "\n".join(explain(Facts(**(given | more)), ClientPresence(connected=False), {}, now=LATER))


def test_its_ecus_and_its_last_round_stand_in_place_of_a_connection_that_it_never_has() -> None:
    told = chain(vehicle())
    assert "gw-1 (gw, Primary) runs app-2.0.0; tcu-1 (tcu) runs nothing known" in told
    assert "It asked last at 2026-01-01 00:00:00 UTC." in told
    assert "connected" not in told
    assert "iot:Connect" not in told


@pytest.mark.parametrize(
    ("status", "seen", "expected"),
    [
        (DeviceStatus.OUTDATED, T0, "it is told at its next round"),
        (DeviceStatus.OUTDATED, None, "it is told at its next round"),
        (DeviceStatus.OUTDATED, LATER, "has not fetched its targets"),
        (DeviceStatus.UPDATE_SCHEDULED, LATER, "waits for its driver to approve"),
    ],
)
def test_a_queued_job_waits_for_a_round_or_for_the_driver_or_for_what_is_in_the_way(
    status: DeviceStatus, seen: Instant | None, expected: str
) -> None:
    assert expected in chain(vehicle(status=status, seen=seen), pending=[execution(ExecutionStatus.QUEUED)])


def test_what_it_said_last_of_its_job_is_told_and_what_waits_behind_it() -> None:
    doing = execution(ExecutionStatus.IN_PROGRESS, correlationId="urn:x", reason="downloading (tcu-1)")
    waiting = replace(execution(ExecutionStatus.QUEUED), job=JobId("roll-8"))
    told = chain(vehicle(status=DeviceStatus.UPDATE_PENDING), pending=[doing, waiting])
    assert "is at job roll-7" in told
    assert "downloading (tcu-1)" in told
    assert "Queued behind roll-7, one at a time: roll-8." in told


def test_how_it_ended_is_told_in_its_own_words() -> None:
    told = chain(vehicle(), last=execution(ExecutionStatus.FAILED, reason="INSTALL_FAILED: no space left."))
    assert "has refused or failed job roll-7" in told
    assert "Its own words: INSTALL_FAILED: no space left.\n" in told


def test_jobs_that_left_it_out_are_reasons_while_nothing_newer_was_done() -> None:
    left = LeftOut(thing=CAR, code="x", message="None of its ECUs is of that hardware id.", at=LATER)
    facts = vehicle(left_out=[(JobId("roll-9"), left)])
    assert "Job roll-9 left it out: None of its ECUs" in chain(facts)
    newer = replace(execution(ExecutionStatus.SUCCEEDED), queued_at=Instant(LATER + 1))
    assert "roll-9" not in chain(facts, last=newer)


def test_keys_that_wait_oddities_blocks_and_certificates_are_told() -> None:
    anomaly = Anomaly(kind=AnomalyKind.REPLAY, serial="gw-1", detail="Counter 3 after 7.", first_at=T0, last_at=T0, count=4)
    facts = vehicle(key_changes=[KeyChange(serial=EcuSerial("tcu-1"), key=KEY, asked_at=T0)], anomalies=[anomaly])
    revoked = [HeldCertificate(id=CertificateId("c" * 64), status=CertificateStatus.REVOKED)]
    told = chain(facts, blocked=True, certificates=revoked)
    assert "tcu-1 came with another key" in told
    assert "4 times: replay of ECU gw-1: Counter 3 after 7." in told
    assert "An operator has blocked it" in told
    assert "is REVOKED" in told


def test_what_it_may_still_install_after_a_cancel_is_told_with_its_end() -> None:
    cancelled = Cancelled(job=JobId("roll-7"), number=1, way=CancelWay.EXPIRY, at=T0, held_until=LATER)
    view = DirectorView(
        version=1,
        view=View.EMPTY,
        job=None,
        number=None,
        correlation_id="",
        root_version=1,
        signed_at=T0,
        expires_at=LATER,
        targets=b"",
        snapshot=b"",
        timestamp=b"",
        cancelled=cancelled,
    )
    assert "It may still install what job roll-7 had given it, until 2026-01-01 00:01:00 UTC" in chain(vehicle(view=view))
