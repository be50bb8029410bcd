"""Why a Uptane device is where it is: it asks by itself and is never connected, so its rounds are looked at. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from overair.basics.clock import Instant, as_datetime
from overair.basics.ids import EcuSerial
from overair.server.director.model import CancelWay, DeviceStatus, Ecu
from overair.server.director.service import VehicleFacts
from overair.server.jobs.model import Execution
from overair.wire.job_messages import ExecutionStatus

NAMED_MAX: Final = 5
SERIAL_SHOWN_MAX: Final = 16


def under_way(vehicle: VehicleFacts, first: Execution) -> list[str]:
    """What it does with the job that it is at, or why it hasn't begun."""
    thing, seen = vehicle.device.thing, vehicle.device.last_seen_at
    if first.status is ExecutionStatus.IN_PROGRESS:
        words = first.status_details.get("reason") or "it has fetched its targets, and has reported nothing yet"
        return [f"{thing} is at job {first.job} since {_moment(first.started_at or first.queued_at)}: {words}."]
    chain = [f"{thing} has not started job {first.job}, which is queued for it since {_moment(first.queued_at)}."]
    if vehicle.device.status is DeviceStatus.UPDATE_SCHEDULED:
        chain.append("It waits for its driver to approve the campaign.")
    elif seen is None or seen <= first.queued_at:
        chain.append("It has not asked since; it is told at its next round, which it begins by itself.")
    else:
        chain.append(
            "It has asked since, and has not fetched its targets: a manifest that was refused, or a document that it did not "
            "believe, stands in its log and below."
        )
    return chain


def standing(vehicle: VehicleFacts, *, since: Instant | None, blocked: bool) -> list[str]:
    """What is known of it whatever it does. ``since``: what was left out before is no reason for anything now."""
    chain = [f"Its ECUs: {_ecus(vehicle.ecus)}."] if vehicle.ecus else ["It has registered no ECUs yet."]
    seen = vehicle.device.last_seen_at
    if blocked:
        chain.append("An operator has blocked it: nothing that it asks is answered until it is unblocked.")
    chain.append(f"It asked last at {_moment(seen)}." if seen is not None else "It has never asked for anything.")
    for job, left in [each for each in vehicle.left_out if since is None or each[1].at >= since][:NAMED_MAX]:
        chain.append(f"Job {job} left it out: {left.message}")
    for change in vehicle.key_changes[:NAMED_MAX]:
        chain.append(
            f"ECU {_short(change.serial)} came with another key at {_moment(change.asked_at)}: nothing that it signs is "
            "believed until an operator approves the key."
        )
    cancelled = vehicle.view.cancelled if vehicle.view is not None else None
    if cancelled is not None and cancelled.way is CancelWay.EXPIRY and cancelled.held_until is not None:
        chain.append(
            f"It may still install what job {cancelled.job} had given it, until {_moment(cancelled.held_until)}: the "
            "Director's root is offline, and nothing else takes it back."
        )
    for anomaly in vehicle.anomalies[:NAMED_MAX]:
        times = f", {anomaly.count} times" if anomaly.count > 1 else ""
        ecu = f" of ECU {_short(EcuSerial(anomaly.serial))}" if anomaly.serial else ""
        chain.append(f"Seen at {_moment(anomaly.last_at)}{times}: {anomaly.kind.value}{ecu}: {anomaly.detail}")
    return chain


def _ecus(ecus: Sequence[Ecu]) -> str:
    shown = [
        f"{_short(ecu.serial)} ({ecu.hardware_id}{', Primary' if ecu.is_primary else ''}) runs {_runs(ecu)}"
        for ecu in ecus[:NAMED_MAX]
    ]
    more = f"; and {len(ecus) - NAMED_MAX} more" if len(ecus) > NAMED_MAX else ""
    return "; ".join(shown) + more


def _runs(ecu: Ecu) -> str:
    if ecu.installed is None or not ecu.installed.image.is_known:
        return "nothing known"
    return ecu.installed.image.name


def _short(serial: EcuSerial) -> str:
    return serial if len(serial) <= SERIAL_SHOWN_MAX else f"{serial[: SERIAL_SHOWN_MAX - 1]}…"


def _moment(instant: Instant) -> str:
    return as_datetime(instant).strftime("%Y-%m-%d %H:%M:%S UTC")
