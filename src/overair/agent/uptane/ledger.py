"""The Primary's state and every way in which it changes: each change is one file replaced, before the next step is taken."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from overair.agent.uptane.outcomes import Kind, Outcome
from overair.agent.uptane.state import (
    ATTACKS_LENGTH_MAX,
    EVENTS_MAX,
    ClientState,
    InstalledTarget,
    KnownEcu,
    StateStore,
    UpdateUnderWay,
)
from overair.basics.clock import Instant
from overair.basics.ids import IdSource
from overair.wire.uptane.canonical import canonical
from overair.wire.uptane.events import Event, EventKind
from overair.wire.uptane.metadata import TargetFile, Targets
from overair.wire.uptane.reports import InstallationReport, InstallationResult, ResultCode, overall_code, result_of

LOG = logging.getLogger("overair.uptane")

NOT_BEGUN: Final = "Not begun, since another ECU failed."
WITHDRAWN: Final = "The Director withdrew the update."


class Ledger:
    """Holds the state; nothing else writes it."""

    def __init__(self, store: StateStore, *, ids: IdSource) -> None:
        self._store = store
        self._ids = ids
        self._state = store.read()
        self.clock: Callable[[], Instant] = lambda: Instant(0)
        """Set once the time is known, which needs this state's floor."""

    @property
    def state(self) -> ClientState:
        return self._state

    def save(self, **changes: object) -> None:
        """Replace some members; writes only where something changes."""
        state = replace(self._state, **changes)  # type: ignore[arg-type]
        if state != self._state:
            self._store.write(state)
            self._state = state

    # --- ECUs ---

    def save_ecus(self, ecus: Mapping[str, KnownEcu]) -> None:
        self.save(ecus=dict(ecus))

    # --- an update ---

    def begin(self, key: str, targets: Targets, wanted: Mapping[str, TargetFile]) -> None:
        """Note what is wanted, if it isn't noted."""
        if self._state.update is not None:
            return
        LOG.info("the update %s is wanted for %s", targets.correlation_id, sorted(wanted))
        chosen = {serial: InstalledTarget.of(target) for serial, target in wanted.items()}
        self.save(update=UpdateUnderWay(key=key, correlation_id=targets.correlation_id, wanted=chosen))

    def leave_others(self, key: str) -> bool:
        """Let go what was under way, or had failed, and isn't wanted any more. True: something was under way."""
        if self._state.failed and self._state.failed != key:
            self.save(failed="")
        update = self._state.update
        if update is None or update.key == key:
            return False
        LOG.info("the update %s is withdrawn", update.correlation_id)
        if update.results:
            self.end(result_of(ResultCode.OPERATION_CANCELLED, WITHDRAWN))
        self.save(update=None, failed="")
        return True

    def done(self, serial: str, image: InstalledTarget, result: InstallationResult) -> None:
        """An ECU is done, well or not."""
        LOG.info("%s: %s %s", serial, result.code, result.description)
        state = self._state
        assert state.update is not None
        ecus = dict(state.ecus)
        if result.success and serial in ecus:
            ecus[serial] = replace(ecus[serial], installed=image)
        results = state.update.results | {serial: result}
        self.save(ecus=ecus, update=replace(state.update, results=results, activated_sha256=None, restart=None))

    def note_restart(self, activated_sha256: str | None, restart: str | None, reason: str) -> None:
        """The Primary's image takes effect after a restart: what will show then how it went."""
        if self._state.update is not None:
            update = replace(self._state.update, activated_sha256=activated_sha256, restart=restart, reason=reason)
            self.save(update=update)

    def count_failure(self) -> int:
        """A round brought no image; how many there were."""
        update = self._state.update
        assert update is not None
        self.save(update=replace(update, failures=update.failures + 1))
        return update.failures + 1

    def finish_if_complete(self, hardware_ids: Mapping[str, str]) -> Outcome | None:
        """End the update if every ECU is done, or one has failed; None: it goes on."""
        update = self._state.update
        if update is None:
            return None
        failed = [result for result in update.results.values() if not result.success]
        if not failed:
            if update.wanted.keys() - update.results.keys():
                return None
            return self.end(result_of(ResultCode.OK, "Every ECU runs what was wanted."))
        cancelled = result_of(ResultCode.OPERATION_CANCELLED, NOT_BEGUN)
        results = {serial: update.results.get(serial, cancelled) for serial in update.wanted}
        code = overall_code((hardware_ids.get(serial, serial), result) for serial, result in results.items())
        return self.end(InstallationResult(success=False, code=code, description=failed[0].description), items=results)

    def end(self, result: InstallationResult, *, items: Mapping[str, InstallationResult] | None = None) -> Outcome:
        """The update is over: what is reported replaces it in one step."""
        update = self._state.update
        assert update is not None
        report = InstallationReport(
            correlation_id=update.correlation_id,
            result=result,
            items=dict(update.results if items is None else items),
            raw_report=result.description,
        )
        self.save(update=None, report=report, failed="" if result.success else update.key)
        kind = Kind.INSTALLED if result.success else Kind.FAILED
        return Outcome(kind=kind, message=f"{update.correlation_id}: {result.code} {result.description}".strip())

    # --- what is told ---

    def told(self, kind: EventKind, serial: str, success: bool | None = None) -> None:
        """An event of an ECU."""
        self.told_of((serial,), kind, success)

    def told_of(self, serials: Iterable[str], kind: EventKind, success: bool | None = None) -> None:
        """The same event of several ECUs."""
        update = self._state.update
        members: dict[str, object] = {"correlationId": "" if update is None else update.correlation_id}
        if success is not None:
            members["success"] = success
        events = tuple(
            Event(id=self._ids.uuid(), kind=kind.value, device_time=self.clock(), members={**members, "ecu": serial})
            for serial in serials
        )
        self.save(events=(*self._state.events, *events)[-EVENTS_MAX:])

    def note_attack(self, message: str) -> None:
        """What looks like an attack, for the next manifest; the first such thing is the one that is told."""
        if not self._state.attacks:
            self.save(attacks=message[:ATTACKS_LENGTH_MAX])


def key_of(targets: Targets) -> str:
    """Names what Director targets want, apart from their version and dates: a document that is signed anew wants the same."""
    wanted = {
        serial: [target.name, target.length, dict(target.hashes), hardware_id]
        for target in targets.targets.values()
        for serial, hardware_id in target.ecus.items()
    }
    return hashlib.sha256(canonical([targets.correlation_id, wanted])).hexdigest()
