"""Updates and whom they are assigned to, as OTA Connect's operators ask for it (Uptane reference §11).

An assignment is a job: what is made here shows in ``describe-job-execution`` and ``overair watch`` like every other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId, EcuSerial, IdSource, JobId, MultiTargetUpdateId, ThingName
from overair.basics.work import Tx
from overair.server.director.model import CORRELATION_ID_LENGTH_MAX, DirectorJob, Image, Origin, Registered
from overair.server.director.multi_target_update import (
    MultiTargetUpdate,
    NotAffected,
    Reason,
    TargetUpdate,
    evaluate,
    read_targets,
)
from overair.server.director.ports import ImageTargets, UpdateStore, VehicleStore
from overair.server.jobs.model import FULFILMENT_ID, STARTED, TARGETS_MAX, Execution, JobPlan
from overair.server.jobs.service import JobsService

DEVICES_MAX: Final = 1_000
"""Of one request."""
NO_ECU: Final = EcuSerial("")
"""Stands for the vehicle where it has no ECU to name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """Whom an update reaches, and why the others aren't reached: by ECU."""

    things: tuple[ThingName, ...]
    not_affected: Mapping[ThingName, Mapping[EcuSerial, Reason]]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedAssignment:
    """One assignment that hasn't ended."""

    execution: Execution
    correlation_id: str
    targets: Mapping[EcuSerial, tuple[Image, str | None]]
    """Image and, where the update names one, URI."""
    created_at: Instant

    @property
    def in_flight(self) -> bool:
        """The vehicle has fetched it."""
        return self.execution.status in STARTED


class Assignments:
    """Multi-target updates, and what is assigned of them to vehicles named one by one."""

    def __init__(
        self,
        *,
        vehicles: VehicleStore,
        updates: UpdateStore,
        jobs: JobsService,
        images: ImageTargets,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._vehicles = vehicles
        self._updates = updates
        self._jobs = jobs
        self._images = images
        self._clock = clock
        self._ids = ids

    # Multi-target updates -------------------------------------------------------------------------------------------------

    def create_update(self, tx: Tx, account: AccountId, members: Mapping[str, object]) -> MultiTargetUpdate:
        """Keep an update as it was asked for. A target that is in the Image repository must be what is there.

        Raises:
            InvalidRequest: subject ``multi-target-update``.
            Unsupported: subject ``generate-diff``.
        """
        targets = read_targets(members)
        for hardware_id, target in targets.items():
            found = self._images.find_target(tx, account, target.to.name)
            if found is None:
                continue  # it may be pushed later; whoever assigns it is told while it isn't there
            listed = Image(name=found.name, length=found.length, hashes=found.hashes)
            path = f"targets.{hardware_id[:64]}.to"
            if not listed.is_same(target.to):
                raise InvalidRequest(
                    f"{target.to.name} in the Image repository has {found.length} bytes and SHA-256 {listed.sha256}; the "
                    "update says otherwise, and no vehicle would take it.",
                    subject="multi-target-update",
                    details={"field": path},
                )
            if hardware_id not in found.hardware_ids:
                raise InvalidRequest(
                    f"{target.to.name} is signed for hardware {', '.join(found.hardware_ids)}, not for {hardware_id}.",
                    subject="multi-target-update",
                    details={"field": path},
                )
        made = MultiTargetUpdate(id=MultiTargetUpdateId(self._ids.uuid()), targets=targets, created_at=self._clock.now())
        self._updates.add_update(tx, account, made)
        return made

    def find_update(self, tx: Tx, account: AccountId, update_id: str) -> MultiTargetUpdate:
        """Raises NotFound, subject ``multi-target-update``."""
        found = None
        if FULFILMENT_ID.fullmatch(update_id):
            found = self._updates.find_update(tx, account, MultiTargetUpdateId(update_id))
        if found is None:
            raise NotFound(
                f"There is no multi-target update {update_id[:64]!r} in this account.",
                subject="multi-target-update",
                details={"field": "mtuId"},
            )
        return found

    # Assignments ----------------------------------------------------------------------------------------------------------

    def affected(self, tx: Tx, account: AccountId, update_id: str, things: Sequence[ThingName]) -> Affected:
        """Whom an update would reach now; nothing is changed.

        Raises:
            NotFound: subject ``multi-target-update``.
        """
        update = self.find_update(tx, account, update_id)
        vehicles = self._vehicles.registered_among(tx, account, things) if things else {}
        queues = self._jobs.executions.pending_of(tx, account, things)
        reached: list[ThingName] = []
        reasons: dict[ThingName, Mapping[EcuSerial, Reason]] = {}
        for thing in things:
            vehicle = vehicles.get(thing)
            if vehicle is None:
                message = f"{thing} has registered no ECUs."
                reasons[thing] = {NO_ECU: Reason(code=NotAffected.NO_ECUS, message=message)}
            elif any(execution.fulfilled for execution in queues.get(thing, ())):
                message = "It has an assignment already, which hasn't ended."
                reasons[thing] = {vehicle.primary.serial: Reason(code=NotAffected.RUNNING, message=message)}
            else:
                evaluation = evaluate(update, vehicle, lambda name: self._images.find_target(tx, account, name))
                if evaluation.updates:
                    reached.append(thing)
                else:
                    reasons[thing] = evaluation.reasons
        return Affected(things=tuple(reached), not_affected=reasons)

    def assign(
        self,
        tx: Tx,
        place: Place,
        update_id: str,
        things: Sequence[ThingName],
        *,
        correlation_id: str,
        origin: Origin = Origin.ASSIGNMENT,
    ) -> Affected:
        """Assign an update to those of some things that it affects, as jobs.

        Raises:
            NotFound: subject ``multi-target-update``.
            InvalidRequest: a correlation id that is empty or too long, or too many things. Subject ``assignment``.
        """
        if not 1 <= len(correlation_id) <= CORRELATION_ID_LENGTH_MAX or not correlation_id.isprintable():
            raise InvalidRequest(
                f"correlationId has 1 to {CORRELATION_ID_LENGTH_MAX} printable characters: without one, vehicles don't report "
                "failures before the installation.",
                subject="assignment",
                details={"field": "correlationId"},
            )
        if len(things) > DEVICES_MAX:
            raise InvalidRequest(
                f"One request names at most {DEVICES_MAX} devices. For more, make a campaign over a group.",
                subject="assignment",
                details={"field": "devices"},
            )
        affected = self.affected(tx, place.account, update_id, things)
        for first in range(0, len(affected.things), TARGETS_MAX):
            self._create_job(tx, place, update_id, affected.things[first : first + TARGETS_MAX], correlation_id, origin)
        return affected

    def of(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[QueuedAssignment]:
        """A vehicle's assignments that haven't ended, in the order in which it gets them."""
        vehicle = self._vehicles.registered(tx, account, thing)
        if vehicle is None:
            return []
        queue = self._jobs.executions.pending_of(tx, account, [thing]).get(thing, ())
        return [self._queued(tx, account, vehicle, execution) for execution in queue if execution.fulfilled]

    def cancel(self, tx: Tx, account: AccountId, thing: ThingName, *, force: bool) -> bool:
        """Cancel all that is assigned to a vehicle and hasn't ended. False: there was nothing.

        Raises:
            Conflict: the vehicle has fetched one, and there is no ``force``. Subject ``assignment-in-flight``.
        """
        queue = self._jobs.executions.pending_of(tx, account, [thing]).get(thing, ())
        assigned = [execution for execution in queue if execution.fulfilled]
        if not force and any(execution.status in STARTED for execution in assigned):
            raise Conflict(
                f"{thing} has fetched its assignment and may be installing it. Send x-trx-force: true to take it back all the "
                "same.",
                subject="assignment-in-flight",
            )
        for execution in assigned:
            self._jobs.executions.cancel(tx, account, thing, execution.job, force=force)
        return bool(assigned)

    # ------------------------------------------------------------------------------------------------------------------

    def _create_job(
        self,
        tx: Tx,
        place: Place,
        update_id: str,
        things: Sequence[ThingName],
        correlation_id: str,
        origin: Origin,
    ) -> None:
        job = JobId(f"{origin.value}-{self._ids.uuid()}")
        self._updates.add_job(tx, place.account, DirectorJob(job=job, origin=origin, correlation_id=correlation_id))
        self._jobs.create(tx, place, uptane_job(place, job, update_id, [place.iot("thing", thing) for thing in things]))

    def _queued(self, tx: Tx, account: AccountId, vehicle: Registered, execution: Execution) -> QueuedAssignment:
        assert execution.fulfilment is not None
        update = self._updates.find_update(tx, account, MultiTargetUpdateId(execution.fulfilment))
        assert update is not None, "an update is never deleted"
        assignment = self._updates.attempt(tx, account, execution.thing, execution.job, execution.number)
        if assignment is None:
            evaluation = evaluate(update, vehicle, lambda name: self._images.find_target(tx, account, name))
            targets = {serial: (target.to, target.uri) for serial, target in evaluation.updates.items()}
            known = self._updates.find_job(tx, account, execution.job)
            correlation_id = known.correlation_id if known is not None else ""
        else:
            targets = {serial: (image, _uri(update.targets, vehicle, serial)) for serial, image in assignment.targets.items()}
            correlation_id = assignment.correlation_id
        return QueuedAssignment(
            execution=execution, correlation_id=correlation_id, targets=targets, created_at=execution.queued_at
        )


def uptane_job(place: Place, job: JobId, update_id: str, targets: Sequence[str]) -> JobPlan:
    """A job for vehicles alone: its document says only where they get it from."""
    document = json.dumps({"uptane": {"multiTargetUpdate": update_id}})
    return JobPlan(id=job, targets=tuple(targets), document=document, fulfilment=update_id)


def _uri(targets: Mapping[str, TargetUpdate], vehicle: Registered, serial: EcuSerial) -> str | None:
    ecu = vehicle.ecus.get(serial)
    target = targets.get(ecu.hardware_id) if ecu is not None else None
    return target.uri if target is not None else None
