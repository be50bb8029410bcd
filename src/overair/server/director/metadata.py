"""What a vehicle is told: targets, snapshot and timestamp of its own, signed when something has changed or nears its end.

An idle vehicle's poll is one read and no signature. Uptane reference §4.4, §5.4, §13.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import NotFound
from overair.basics.ids import AccountId, EcuSerial, IdSource, MultiTargetUpdateId, ThingName
from overair.basics.work import Tx
from overair.server.director.approvals import Approvals
from overair.server.director.documents import assigned_targets, next_version, signed_set, stay_targets, targets_body
from overair.server.director.model import Assignment, DeviceStatus, DirectorView, Image, Registered, View
from overair.server.director.multi_target_update import NotAffected, TargetUpdate, evaluate
from overair.server.director.ports import ImageTargets, UpdateStore, VehicleStore
from overair.server.director.settlement import status_details
from overair.server.jobs.model import STARTED, Execution, Report
from overair.server.jobs.service import JobsService
from overair.server.roots.lifetimes import LIFETIMES
from overair.server.roots.service import RootsService
from overair.wire.job_messages import ExecutionStatus
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role, TargetFile
from overair.wire.uptane.reports import ResultCode

_LIFETIME: Final = LIFETIMES[Repository.DIRECTOR, Role.TARGETS]
_STAY_CORRELATION: Final = "urn:overair:stay:"
_JOB_CORRELATION: Final = "urn:overair:job:"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What a vehicle is to be told now."""

    view: View
    execution: Execution | None
    targets: Mapping[str, TargetFile]
    correlation_id: str


class DirectorMetadata:
    """Serves each vehicle its own documents. The first request for an assignment's begins its execution."""

    def __init__(
        self,
        *,
        vehicles: VehicleStore,
        updates: UpdateStore,
        approvals: Approvals,
        jobs: JobsService,
        roots: RootsService,
        images: ImageTargets,
        clock: Clock,
        ids: IdSource,
        life_began: Instant | None = None,
    ) -> None:
        self._vehicles = vehicles
        self._updates = updates
        self._approvals = approvals
        self._jobs = jobs
        self._roots = roots
        self._images = images
        self._clock = clock
        self._ids = ids
        self._life_began = clock.now() if life_began is None else life_began
        """What was signed in an earlier life of the server is signed anew: it may come out of a backup, and then vehicles hold
        higher versions already."""

    def current(self, tx: Tx, account: AccountId, thing: ThingName) -> DirectorView | None:
        """What is served as it is; None: ``refresh`` it. Reads only."""
        view = self._updates.find_view(tx, account, thing)
        if view is None or not view.is_for(self._jobs.device.fulfilled_next(tx, account, thing)):
            return None
        return view if self._is_fresh(tx, account, view) else None

    def refresh(self, tx: Tx, place: Place, thing: ThingName) -> DirectorView:
        """Make what is to be served, and keep it.

        Raises:
            NotFound: the vehicle has registered no ECUs. Subject ``vehicle``.
            Conflict: the Director's keys aren't here. Subject ``role-keys-offline``.
            Unavailable: the clock went back. Subject ``clock``.
        """
        account = place.account
        vehicle = self._vehicles.registered(tx, account, thing)
        if vehicle is None:
            raise NotFound(f"{thing} has registered no ECUs. Post them to /director/ecus first.", subject="vehicle")
        standing = self._updates.find_view(tx, account, thing)
        following = self._jobs.device.fulfilled_next(tx, account, thing)
        if standing is not None and standing.is_for(following) and self._is_fresh(tx, account, standing):
            return standing
        view = self._signed(tx, account, thing, self._wanted(tx, place, vehicle, following))
        self._updates.put_view(tx, account, thing, view)
        return view

    def renew(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """Sign anew at the next request, whatever is served now."""
        self._updates.set_stale(tx, account, thing)

    # What is wanted -------------------------------------------------------------------------------------------------------

    def _wanted(self, tx: Tx, place: Place, vehicle: Registered, execution: Execution | None) -> _Wanted:
        account, thing = place.account, vehicle.device.thing
        while execution is not None:
            if execution.status in STARTED:
                return self._carried_on(tx, account, vehicle, execution)
            if not self._approvals.has_approved(tx, account, thing, execution.job):
                self._vehicles.set_status(tx, account, [thing], DeviceStatus.UPDATE_SCHEDULED)
                break
            begun = self._begun(tx, place, vehicle, execution)
            if begun is not None:
                return begun
            # One that turned out to have nothing left to install has ended, and the next one has its turn.
            execution = self._jobs.device.fulfilled_next(tx, account, thing)
        return self._nothing_new(tx, account, vehicle, execution)

    def _begun(self, tx: Tx, place: Place, vehicle: Registered, execution: Execution) -> _Wanted | None:
        """Begin what ``$next`` names; None where nothing of it is left to do, and it has ended."""
        account = place.account
        assert execution.fulfilment is not None
        update = self._updates.find_update(tx, account, MultiTargetUpdateId(execution.fulfilment))
        assert update is not None, "an update is never deleted"
        evaluation = evaluate(update, vehicle, lambda name: self._images.find_target(tx, account, name))
        if not evaluation.updates:
            reason = evaluation.reason
            done = reason.code is NotAffected.ALREADY_INSTALLED
            code = ResultCode.ALREADY_PROCESSED.value if done else reason.code.value
            report = Report(
                status=ExecutionStatus.SUCCEEDED if done else ExecutionStatus.FAILED,
                status_details=status_details(code, reason.message, ""),
                execution_number=execution.number,
            )
            self._jobs.device.fulfil(tx, place, execution.thing, execution.job, report)
            return None
        correlation_id = self._correlation_id(tx, account, execution)
        self._updates.add_assignment(
            tx,
            account,
            Assignment(
                thing=execution.thing,
                job=execution.job,
                number=execution.number,
                update=update.id,
                correlation_id=correlation_id,
                targets={serial: target.to for serial, target in evaluation.updates.items()},
                created_at=self._clock.now(),
            ),
        )
        started = self._jobs.device.start_fulfilled(tx, place, execution, status_details={"correlationId": correlation_id})
        self._vehicles.set_status(tx, account, [execution.thing], DeviceStatus.UPDATE_PENDING)
        return _assigned(vehicle, started, evaluation.updates, correlation_id)

    def _carried_on(self, tx: Tx, account: AccountId, vehicle: Registered, execution: Execution) -> _Wanted:
        """The same assignment again: the same targets, whatever part of it is installed by now."""
        assert execution.fulfilment is not None
        update = self._updates.find_update(tx, account, MultiTargetUpdateId(execution.fulfilment))
        assignment = self._updates.attempt(tx, account, execution.thing, execution.job, execution.number)
        assert update is not None
        assert assignment is not None, "an execution begins with its assignment"
        updates = {
            serial: update.targets[vehicle.ecus[serial].hardware_id]
            for serial in assignment.targets
            if serial in vehicle.ecus and vehicle.ecus[serial].hardware_id in update.targets
        }
        return _assigned(vehicle, execution, updates, assignment.correlation_id)

    def _nothing_new(self, tx: Tx, account: AccountId, vehicle: Registered, waiting: Execution | None) -> _Wanted:
        empty = _Wanted(view=View.EMPTY, execution=waiting, targets={}, correlation_id="")
        standing = self._updates.find_view(tx, account, vehicle.device.thing)
        if standing is None or not standing.must_stay or standing.cancelled is None:
            return empty
        cancelled = standing.cancelled
        assignment = self._updates.attempt(tx, account, vehicle.device.thing, cancelled.job, cancelled.number)
        targets = stay_targets(
            vehicle.ecus,
            assignment.targets if assignment is not None else (),
            lambda image: self.is_catalogued(tx, account, image),
        )
        if not targets:
            return empty
        correlation_id = f"{_STAY_CORRELATION}{self._ids.uuid()}"
        return _Wanted(view=View.STAY, execution=waiting, targets=targets, correlation_id=correlation_id)

    def is_catalogued(self, tx: Tx, account: AccountId, image: Image) -> bool:
        """Whether the Image repository still has exactly this image."""
        found = self._images.find_target(tx, account, image.name)
        return found is not None and Image(name=found.name, length=found.length, hashes=found.hashes).is_same(image)

    def _correlation_id(self, tx: Tx, account: AccountId, execution: Execution) -> str:
        """What reports of this attempt echo: never empty, and never one that this vehicle has had before."""
        job = self._updates.find_job(tx, account, execution.job)
        base = job.correlation_id if job is not None else f"{_JOB_CORRELATION}{execution.job}"
        wanted = base if execution.number == 1 else f"{base}:{execution.number}"
        if self._updates.correlated(tx, account, execution.thing, wanted) is not None:
            return f"{base}:{self._ids.uuid()}"
        return wanted

    # How it is signed -----------------------------------------------------------------------------------------------------

    def _signed(self, tx: Tx, account: AccountId, thing: ThingName, wanted: _Wanted) -> DirectorView:
        # Read again: what ended on the way has left its word there.
        standing = self._updates.find_view(tx, account, thing)
        now = self._roots.signing_instant(tx, account, Repository.DIRECTOR, remember=False)
        expires = Instant((now + _LIFETIME.lasts_ms) // 1000 * 1000)
        body = targets_body(
            thing,
            wanted.targets,
            correlation_id=wanted.correlation_id,
            version=next_version(standing.version if standing is not None else 0, now),
            expires=expires,
        )
        root_version, signers = self._roots.online_signers(tx, account, Repository.DIRECTOR)
        by = (signers[Role.TARGETS], signers[Role.SNAPSHOT], signers[Role.TIMESTAMP])
        targets, snapshot, timestamp = signed_set(body, by=by)
        execution = wanted.execution
        is_assigned = wanted.view is View.ASSIGNMENT
        return DirectorView(
            version=body.version,
            view=wanted.view,
            job=None if execution is None else execution.job,
            number=None if execution is None else execution.number,
            correlation_id=wanted.correlation_id,
            root_version=root_version,
            signed_at=now,
            expires_at=expires,
            targets=targets,
            snapshot=snapshot,
            timestamp=timestamp,
            must_stay=standing is not None and standing.must_stay and not is_assigned,
            # A new assignment takes the place of whatever the vehicle still held.
            cancelled=None if standing is None or is_assigned else standing.cancelled,
        )

    def _is_fresh(self, tx: Tx, account: AccountId, view: DirectorView) -> bool:
        now = self._clock.now()
        return (
            not view.is_stale
            and view.signed_at >= self._life_began
            and view.expires_at - now > _LIFETIME.renewed_before_ms
            and view.root_version == self._root_version(tx, account)
        )

    def _root_version(self, tx: Tx, account: AccountId) -> int:
        return self._roots.newest_version(tx, account, Repository.DIRECTOR, Flavour.UPTANE)


def _assigned(
    vehicle: Registered, execution: Execution, updates: Mapping[EcuSerial, TargetUpdate], correlation_id: str
) -> _Wanted:
    hardware = {serial: vehicle.ecus[serial].hardware_id for serial in updates}
    return _Wanted(
        view=View.ASSIGNMENT,
        execution=execution,
        targets=assigned_targets(updates, hardware),
        correlation_id=correlation_id,
    )
