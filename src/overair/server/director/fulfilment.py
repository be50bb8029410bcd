"""Jobs' ``Fulfilment``: who of a job's things the Director serves, and what becomes of an assignment that has ended.

Design §6; Uptane reference §5.4 for taking back what a vehicle may hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from overair.basics.clock import Clock
from overair.basics.errors import NotFound
from overair.basics.ids import AccountId, EcuSerial, JobId, MultiTargetUpdateId, ThingName
from overair.basics.work import Tx
from overair.server.director.documents import stay_targets
from overair.server.director.metadata import DirectorMetadata
from overair.server.director.model import (
    OUTCOMES,
    STATUS_AFTER,
    Assignment,
    Cancelled,
    CancelWay,
    DeviceStatus,
    DirectorView,
    LeftOut,
    Registered,
    View,
)
from overair.server.director.multi_target_update import MultiTargetUpdate, NotAffected, evaluate
from overair.server.director.ports import ImageTargets, UpdateStore, VehicleStore
from overair.server.director.settlement import RESULT_CODE, RESULT_CODE_LENGTH_MAX
from overair.server.jobs.model import STARTED, Execution, Job
from overair.server.jobs.service import Chosen, JobsService
from overair.server.roots.service import RootsService
from overair.wire.job_messages import ExecutionStatus
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role

_TAKEN_BACK = frozenset(
    {ExecutionStatus.CANCELED, ExecutionStatus.TIMED_OUT, ExecutionStatus.REMOVED, ExecutionStatus.REJECTED}
)
"""Ends that the vehicle itself didn't bring about: it may still hold what it was given."""


class DirectorFulfilment:
    """``jobs.ports.Fulfilment``."""

    def __init__(
        self,
        *,
        vehicles: VehicleStore,
        updates: UpdateStore,
        metadata: DirectorMetadata,
        jobs: JobsService,
        roots: RootsService,
        images: ImageTargets,
        clock: Clock,
    ) -> None:
        self._vehicles = vehicles
        self._updates = updates
        self._metadata = metadata
        self._jobs = jobs
        self._roots = roots
        self._images = images
        self._clock = clock

    def require(self, tx: Tx, account: AccountId, fulfilment: str) -> None:
        """See ``jobs.ports.Fulfilment``. Raises NotFound, subject ``multi-target-update``."""
        if self._updates.find_update(tx, account, MultiTargetUpdateId(fulfilment)) is None:
            raise NotFound(
                f"There is no multi-target update {fulfilment[:64]!r} in this account. Make it with "
                "POST /api/v1/director/multi_target_updates.",
                subject="multi-target-update",
            )

    def may_queue(self, tx: Tx, job: Job, things: Sequence[ThingName]) -> Chosen:
        """See ``jobs.ports.Fulfilment``."""
        account = job.place.account
        if job.fulfilment is None and not self._vehicles.has_any(tx, account):
            return Chosen(by_document=things)
        vehicles = self._vehicles.registered_among(tx, account, things)
        if job.fulfilment is None and not vehicles:
            return Chosen(by_document=things)
        document = msgspec.json.decode(self._jobs.document(tx, account, job.id))
        update = None
        if job.fulfilment is not None:
            update = self._updates.find_update(tx, account, MultiTargetUpdateId(job.fulfilment))
        has_document = any(member != "uptane" for member in document) or job.fulfilment is None
        by_document: list[ThingName] = []
        fulfilled: list[ThingName] = []
        left_out: list[LeftOut] = []
        for thing in things:
            vehicle = vehicles.get(thing)
            if vehicle is None and has_document:
                by_document.append(thing)
            elif vehicle is None:
                message = "It has no ECUs, and the job has no document for things without."
                left_out.append(self._left_out(thing, NotAffected.NO_ECUS, message))
            elif update is None and "afr_ota" in document:
                message = "Its images come by the Uptane Director alone, and the update names no multi-target update."
                left_out.append(self._left_out(thing, NotAffected.NO_UPDATE, message))
            elif update is None:
                by_document.append(thing)
            else:
                reason = self._why_not(tx, account, update, vehicle)
                if reason is None:
                    fulfilled.append(thing)
                else:
                    left_out.append(reason)
        self._updates.put_left_out(tx, account, job.id, left_out)
        if job.fulfilment is not None:
            self._updates.take_in(tx, account, job.id, [*by_document, *fulfilled])
        return Chosen(by_document=by_document, fulfilled=fulfilled)

    def queued(self, tx: Tx, job: Job, things: Sequence[ThingName]) -> None:
        """See ``jobs.ports.Fulfilment``."""
        idle = [
            thing
            for thing, vehicle in self._vehicles.registered_among(tx, job.place.account, things).items()
            if vehicle.device.status is not DeviceStatus.UPDATE_PENDING
        ]
        self._vehicles.set_status(tx, job.place.account, idle, DeviceStatus.OUTDATED)

    def ended(self, tx: Tx, job: Job, execution: Execution) -> None:
        """See ``jobs.ports.Fulfilment``."""
        account, thing = job.place.account, execution.thing
        vehicle = self._vehicles.registered(tx, account, thing)
        if vehicle is None:
            return  # the thing itself is gone
        assignment = self._updates.attempt(tx, account, thing, execution.job, execution.number)
        if assignment is not None and assignment.ended_at is None:
            code = execution.status_details.get(RESULT_CODE, execution.status.value)
            ended = replace(
                assignment,
                ended_at=self._clock.now(),
                outcome=OUTCOMES[execution.status],
                result_code=code[:RESULT_CODE_LENGTH_MAX],
                installed=_installed_at_the_end(assignment, execution),
            )
            self._updates.save_assignment(tx, account, ended)
        view = self._updates.find_view(tx, account, thing)
        if view is not None:
            if execution.status in _TAKEN_BACK:
                view = self._taken_back(tx, job, execution, vehicle, assignment, view)
            self._updates.put_view(tx, account, thing, replace(view, is_stale=True))
        self._vehicles.set_status(tx, account, [thing], self._status(tx, account, execution))

    def forget(self, tx: Tx, account: AccountId, job: JobId) -> None:
        """See ``jobs.ports.Fulfilment``."""
        self._updates.forget_job(tx, account, job)

    # ------------------------------------------------------------------------------------------------------------------

    def _why_not(self, tx: Tx, account: AccountId, update: MultiTargetUpdate, vehicle: Registered) -> LeftOut | None:
        evaluation = evaluate(update, vehicle, lambda name: self._images.find_target(tx, account, name))
        if evaluation.updates:
            return None
        reason = evaluation.reason
        return LeftOut(
            thing=vehicle.device.thing,
            code=reason.code.value,
            message=reason.message,
            at=self._clock.now(),
            ecus={serial: each.code.value for serial, each in evaluation.reasons.items()},
        )

    def _left_out(self, thing: ThingName, code: NotAffected, message: str) -> LeftOut:
        return LeftOut(thing=thing, code=code.value, message=message, at=self._clock.now())

    def _taken_back(
        self,
        tx: Tx,
        job: Job,
        execution: Execution,
        vehicle: Registered,
        assignment: Assignment | None,
        view: DirectorView,
    ) -> DirectorView:
        """Keep what the vehicle may hold from being installed (§5.4)."""
        account = job.place.account
        cancelled = Cancelled(job=execution.job, number=execution.number, way=CancelWay.NEVER_FETCHED, at=self._clock.now())
        if assignment is None or view.view is not View.ASSIGNMENT or not view.is_for(execution):
            return replace(view, cancelled=view.cancelled or cancelled)
        stay = stay_targets(vehicle.ecus, assignment.targets, lambda image: self._metadata.is_catalogued(tx, account, image))
        if stay:
            return replace(view, must_stay=True, cancelled=replace(cancelled, way=CancelWay.STAY))
        if self._roots.is_online(tx, account, Repository.DIRECTOR, Role.ROOT):
            # One new root serves every vehicle that was given something under the one before.
            if view.root_version == self._roots.newest_version(tx, account, Repository.DIRECTOR, Flavour.UPTANE):
                self._roots.renew(tx, job.place, Repository.DIRECTOR)
            return replace(view, must_stay=False, cancelled=replace(cancelled, way=CancelWay.ROOT_ROTATION))
        held = replace(cancelled, way=CancelWay.EXPIRY, held_until=view.expires_at)
        return replace(view, must_stay=False, cancelled=held)

    def _status(self, tx: Tx, account: AccountId, ended: Execution) -> DeviceStatus:
        following = self._jobs.device.fulfilled_next(tx, account, ended.thing)
        if following is None:
            return STATUS_AFTER[ended.status]
        return DeviceStatus.UPDATE_PENDING if following.status in STARTED else DeviceStatus.OUTDATED


def _installed_at_the_end(assignment: Assignment, ended: Execution) -> frozenset[EcuSerial]:
    if ended.status is ExecutionStatus.SUCCEEDED:
        return frozenset(assignment.targets)
    return assignment.installed
