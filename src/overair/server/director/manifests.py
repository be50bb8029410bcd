"""What a vehicle says runs on it, and how an update went: ``PUT /director/manifest`` (Uptane reference §6.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import InvalidRequest, NotFound, OverairError
from overair.basics.ids import AccountId, EcuSerial, ThingName
from overair.basics.work import Tx
from overair.server.director.model import (
    CORRELATION_ID_LENGTH_MAX,
    RAW_REPORT_SIZE_BYTES_MAX,
    AnomalyKind,
    Assignment,
    Image,
    InstallationReport,
    Installed,
    Registered,
    View,
)
from overair.server.director.ports import OddityStore, RecordStore, UpdateStore, VehicleStore
from overair.server.director.settlement import (
    REPORT_UNREADABLE,
    RESULT_CODE_LENGTH_MAX,
    Settlement,
    printable,
    settle,
    status_details,
)
from overair.server.jobs.model import STARTED, Execution, Report
from overair.server.jobs.service import JobsService
from overair.wire.job_messages import ExecutionStatus
from overair.wire.uptane import reports as wire
from overair.wire.uptane.manifest import ManifestProblem, ManifestRefused, VehicleManifest, VerifiedManifest, verify_manifest

_ODD: Final[Mapping[ManifestProblem, AnomalyKind]] = {
    ManifestProblem.SIGNATURE_NOT_VALID: AnomalyKind.BAD_SIGNATURE,
    ManifestProblem.ECU_NOT_PRIMARY: AnomalyKind.WRONG_PRIMARY,
    ManifestProblem.ECU_NOT_REGISTERED: AnomalyKind.UNKNOWN_ECU,
}
_SUBJECTS: Final[Mapping[ManifestProblem, str]] = {
    ManifestProblem.SIGNATURE_NOT_VALID: "manifest-signature",
    ManifestProblem.ECU_NOT_PRIMARY: "primary-ecu",
    ManifestProblem.ECU_NOT_REGISTERED: "manifest-signature",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A manifest held against one registration of its vehicle. Signatures are checked outside of the writer's transaction."""

    manifest: VehicleManifest
    registration: int
    verdict: VerifiedManifest | ManifestRefused


class Manifests:
    """Believes what the ECUs have signed, once."""

    def __init__(
        self,
        *,
        vehicles: VehicleStore,
        oddities: OddityStore,
        updates: UpdateStore,
        records: RecordStore,
        jobs: JobsService,
        clock: Clock,
    ) -> None:
        self._vehicles = vehicles
        self._oddities = oddities
        self._updates = updates
        self._records = records
        self._jobs = jobs
        self._clock = clock

    def judge(self, tx: Tx, account: AccountId, thing: ThingName, manifest: VehicleManifest) -> Judged:
        """Check every signature with the registered keys. Writes nothing: a reader does it.

        Raises:
            NotFound: the vehicle has registered no ECUs. Subject ``vehicle``.
        """
        return _judged(self._registered(tx, account, thing), manifest)

    def take(self, tx: Tx, place: Place, thing: ThingName, judged: Judged) -> OverairError | None:
        """Believe a manifest, and settle what it settles. A refusal is returned, not raised: what is odd must be kept.

        Raises:
            NotFound: the vehicle has registered no ECUs. Subject ``vehicle``.
        """
        account, now = place.account, self._clock.now()
        vehicle = self._registered(tx, account, thing)
        if vehicle.device.registration != judged.registration:
            judged = _judged(vehicle, judged.manifest)
        verdict, manifest = judged.verdict, judged.manifest
        if isinstance(verdict, ManifestRefused):
            detail = f"{verdict.message} ({verdict.field[:128]})"
            self._record(tx, account, thing, _ODD[verdict.problem], manifest.primary, detail, now=now)
            return InvalidRequest(verdict.message, subject=_SUBJECTS[verdict.problem], details={"field": verdict.field})
        refusal = self._replayed(tx, account, thing, vehicle, manifest.report_counter, now=now)
        if refusal is not None:
            return refusal
        counter = manifest.report_counter
        self._vehicles.heard(
            tx,
            account,
            thing,
            registration=vehicle.device.registration,
            counter=vehicle.device.report_counter if counter is None else counter,
            now=now,
        )
        self._note_oddities(tx, account, thing, verdict, now=now)
        self._settle(tx, place, thing, vehicle, manifest, now=now)
        return None

    # ------------------------------------------------------------------------------------------------------------------

    def _registered(self, tx: Tx, account: AccountId, thing: ThingName) -> Registered:
        found = self._vehicles.registered(tx, account, thing)
        if found is None:
            raise NotFound(
                f"{thing} has registered no ECUs. Post them to /director/ecus first.",
                subject="vehicle",
            )
        return found

    def _replayed(
        self, tx: Tx, account: AccountId, thing: ThingName, vehicle: Registered, counter: int | None, *, now: Instant
    ) -> OverairError | None:
        last = vehicle.device.report_counter
        primary = vehicle.primary.serial
        if counter is None:
            detail = "The Primary's report has no report_counter."
            self._record(tx, account, thing, AnomalyKind.NO_COUNTER, primary, detail, now=now)
        elif last is None or counter > last:
            return None
        else:
            detail = f"report_counter {counter} came after {last}."
            self._record(tx, account, thing, AnomalyKind.REPLAY, primary, detail, now=now)
        if last is None:
            return None
        said = "without a report_counter" if counter is None else f"with report_counter {counter}"
        return InvalidRequest(
            f"A manifest came {said} after {last}: each manifest counts one higher than any before it. A vehicle that lost its "
            f"storage is let begin again by DELETE /api/v1/director/admin/devices/{thing}/report_counter.",
            subject="manifest-replay",
            details={"field": f"signed.ecu_version_manifests.{primary}.signed.report_counter"},
        )

    def _note_oddities(self, tx: Tx, account: AccountId, thing: ThingName, verified: VerifiedManifest, *, now: Instant) -> None:
        for serial in verified.missing:
            detail = "Registered, and absent from the manifest: the Primary can't reach it."
            self._record(tx, account, thing, AnomalyKind.MISSING_ECU, serial, detail, now=now)
        for serial, signed in verified.manifest.reports.items():
            if signed.report.attacks_detected:
                detail = signed.report.attacks_detected
                self._record(tx, account, thing, AnomalyKind.ATTACK_DETECTED, serial, detail, now=now)

    def _record(
        self, tx: Tx, account: AccountId, thing: ThingName, kind: AnomalyKind, serial: str, detail: str, *, now: Instant
    ) -> None:
        self._oddities.record(tx, account, thing, kind, printable(serial, 64), printable(detail), now=now)

    def _settle(
        self, tx: Tx, place: Place, thing: ThingName, vehicle: Registered, manifest: VehicleManifest, *, now: Instant
    ) -> None:
        account = place.account
        execution = self._jobs.device.fulfilled_next(tx, account, thing)
        assignment = None
        if execution is not None and execution.status in STARTED:
            assignment = self._updates.attempt(tx, account, thing, execution.job, execution.number)
        shown = {
            EcuSerial(serial): Image(name=target.name, length=target.length, hashes=target.hashes)
            for serial, target in manifest.installed.items()
        }
        report = manifest.installation_report
        origin = assignment
        if origin is None and isinstance(report, wire.InstallationReport):
            # Late, and yet what runs now came by it.
            origin = self._updates.correlated(tx, account, thing, report.correlation_id)
        self._keep_installed(tx, account, thing, vehicle, origin, shown, now=now)
        settlement = None
        if assignment is not None:
            before = {serial: ecu.installed.image for serial, ecu in vehicle.ecus.items() if ecu.installed is not None}
            settlement = settle(assignment, before | shown, report)
        if report is not None:
            self._keep_report(tx, account, thing, report, manifest, now=now)
        if execution is not None and assignment is not None and settlement is not None:
            self._carry_out(tx, place, execution, assignment, settlement, report)

    def _keep_installed(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        vehicle: Registered,
        assignment: Assignment | None,
        shown: Mapping[EcuSerial, Image],
        *,
        now: Instant,
    ) -> None:
        changed = False
        for serial, image in shown.items():
            standing = vehicle.ecus[serial].installed
            target = assignment.targets.get(serial) if assignment is not None else None
            is_target = target is not None and image.is_same(target)
            named_for = None
            if is_target and assignment is not None:
                named_for = assignment.map_of(image, vehicle.ecus)
            if standing is None or standing.image != image:
                correlation_id = assignment.correlation_id if is_target and assignment is not None else ""
                installed = Installed(image=image, since=now, named_for=named_for)
                self._vehicles.set_installed(tx, account, thing, serial, installed, correlation_id=correlation_id)
                changed = True
            elif named_for is not None and standing.named_for != named_for:
                self._vehicles.set_named_for(tx, account, thing, serial, named_for)
        if changed:
            view = self._updates.find_view(tx, account, thing)
            if view is not None and view.view is View.STAY:
                # It tells the vehicle to stay with what runs, which is something else by now.
                self._updates.set_stale(tx, account, thing)

    def _keep_report(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        report: wire.InstallationReport | wire.UnreadableReport,
        manifest: VehicleManifest,
        *,
        now: Instant,
    ) -> None:
        raw = msgspec.json.encode(msgspec.json.decode(manifest.raw)["signed"]["installation_report"])
        if isinstance(report, wire.InstallationReport):
            result, correlation_id, items = report.result, report.correlation_id, report.items
        else:
            result = wire.InstallationResult(success=False, code=REPORT_UNREADABLE, description=report.problem)
            correlation_id, items = "", {}
        kept = InstallationReport(
            sequence=0,
            correlation_id=printable(correlation_id, CORRELATION_ID_LENGTH_MAX),
            success=result.success,
            code=printable(result.code, RESULT_CODE_LENGTH_MAX),
            description=printable(result.description),
            received_at=now,
            raw=raw[:RAW_REPORT_SIZE_BYTES_MAX].decode(errors="ignore"),
            ecus={printable(serial, 64): printable(each.code, RESULT_CODE_LENGTH_MAX) for serial, each in items.items()},
        )
        # After a failed call the same report comes again, under a higher counter.
        self._records.add_report(tx, account, thing, kept, hashlib.sha256(raw).hexdigest())

    def _carry_out(
        self,
        tx: Tx,
        place: Place,
        execution: Execution,
        assignment: Assignment,
        settlement: Settlement,
        report: wire.InstallationReport | wire.UnreadableReport | None,
    ) -> None:
        account = place.account
        # The end of an execution writes the assignment too.
        if settlement.installed != assignment.installed and settlement.status is not ExecutionStatus.SUCCEEDED:
            self._updates.save_assignment(tx, account, replace(assignment, installed=settlement.installed))
        if settlement.status is None:
            return
        results: dict[str, str] = dict.fromkeys(settlement.installed, "OK")
        if isinstance(report, wire.InstallationReport) and settlement.is_about_it:
            results |= {serial: result.code for serial, result in report.items.items()}
        details = status_details(settlement.code, settlement.description, assignment.correlation_id, results)
        if settlement.status is ExecutionStatus.CANCELED:
            self._jobs.executions.cancel(tx, account, execution.thing, execution.job, force=True, status_details=details)
            return
        ended = Report(status=settlement.status, status_details=details, execution_number=execution.number)
        self._jobs.device.fulfil(tx, place, execution.thing, execution.job, ended)


def _judged(vehicle: Registered, manifest: VehicleManifest) -> Judged:
    keys = {str(serial): ecu.key for serial, ecu in vehicle.ecus.items()}
    verdict = verify_manifest(manifest, keys, primary=vehicle.primary.serial)
    return Judged(manifest=manifest, registration=vehicle.device.registration, verdict=verdict)
