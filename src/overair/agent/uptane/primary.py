"""The Primary: one round after the other, each from the manifest to the report (Uptane reference §5, §8.4 to §8.6).

A round: whoever is there is met; what isn't registered is; the manifest goes out, changed or not; the Director's metadata are
brought up to date; if they want something new, the Image repository's are too, and both must agree; images are fetched, handed
out and installed; the next manifest tells how it ended. Whatever counts is on the disk before the next step, so a round that is
cut is done again and nothing of it twice.

Without the gateway an update that had come whole is installed all the same, if its metadata are still good.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from overair.agent.platform import ResetRequested
from overair.agent.progress import NoProgress, Progress, ProgressSink
from overair.agent.server_trust import ServerTrust
from overair.agent.uptane.distribution import Distribution, EcusAway
from overair.agent.uptane.downloads import Downloads, UpdateFailed
from overair.agent.uptane.gateway import Gateway
from overair.agent.uptane.https import BadStatus, Oversized, SlowRetrieval, Stopped, TransportFailed
from overair.agent.uptane.identity import BadIdentity, NoIdentity
from overair.agent.uptane.image_files import ImageFiles
from overair.agent.uptane.ledger import Ledger, key_of
from overair.agent.uptane.metadata_store import StoredMetadataDamaged
from overair.agent.uptane.outcomes import Kind, Outcome
from overair.agent.uptane.own_install import OwnInstall
from overair.agent.uptane.provisioning import error_of
from overair.agent.uptane.refresh import DocumentMissing, Fetch
from overair.agent.uptane.renewal import Renewal
from overair.agent.uptane.repository import TrustedRepository
from overair.agent.uptane.state import ClientState, InstalledTarget
from overair.agent.uptane.telemetry import Telemetry
from overair.agent.uptane.time_floor import SecureTime
from overair.agent.uptane.vehicle import Vehicle
from overair.wire.uptane.events import EventKind
from overair.wire.uptane.matching import VerifiedTarget, check_director_targets, match
from overair.wire.uptane.metadata import Repository, Targets
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.reports import ResultCode, result_of
from overair.wire.uptane.verdicts import Refused

LOG = logging.getLogger("overair.uptane")

SECONDARIES_WAIT_S: Final = 60.0
"""How long the first registration waits for Secondaries that were never met."""
PASSES_MAX: Final = 3
"""The Director is asked again after a download, which may have taken hours; so often at most in one round."""
BACK_OFF_S_MAX: Final = 3600.0
TRUST_FIRST_AFTER_S: Final = 60.0
TRUST_EVERY_S: Final = 6 * 3600.0
PROGRESS_UNIT_BYTES: Final = 64 * 1024
_MISTAKES: Final = frozenset({Reason.TARGET_MISMATCH, Reason.BAD_HARDWARE_ID, Reason.BAD_ECU_ID})
"""More often an operator's than an attacker's; reported with the update."""


@dataclass(slots=True, kw_only=True)
class Parts:
    """What a Primary is put together of (``assembly.py``)."""

    vehicle: Vehicle
    own_install: OwnInstall
    gateway: Gateway
    repositories: Mapping[Repository, TrustedRepository]
    images: ImageFiles
    time: SecureTime
    ledger: Ledger
    telemetry: Telemetry
    renewal: Renewal | None
    trust: ServerTrust | None
    """None: whom the device trusts is what its files say, and nobody else's affair."""
    version: str
    """Of the program or image that this runs in, for whoever watches."""
    chance: Random
    monotonic: Callable[[], float]
    pause: Callable[[float], bool]
    polling_s: float
    progress: ProgressSink = field(default_factory=NoProgress)


class Primary:
    """Sequences one vehicle's updates."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._vehicle = parts.vehicle
        self._gateway = parts.gateway
        self._ledger = parts.ledger
        self._downloads = Downloads(
            parts.gateway,
            parts.images,
            parts.ledger,
            pause=parts.pause,
            chance=parts.chance,
            watch=self._show_download,
        )
        self._started_s = parts.monotonic()
        self._trust_asked_again_s = self._started_s + TRUST_FIRST_AFTER_S * (1 + parts.chance.random())
        self._settled = False
        self._last: Outcome | None = None

    # --- rounds ---

    def delay_s(self, failures: int) -> float:
        """How long to wait for the next round, after so many that went wrong in a row."""
        polling_s, chance = self._parts.polling_s, self._parts.chance
        if failures:
            return max(1.0, chance.uniform(0, min(BACK_OFF_S_MAX, polling_s * 2 ** min(failures, 12))))
        # Devices that were switched on together don't stay together.
        return polling_s * chance.uniform(0.9, 1.1)

    def round(self) -> Outcome:
        """One round, from the manifest to the report. Raises ``ResetRequested``."""
        outcome = self._told(self._round)
        if not outcome.well or outcome != self._last:
            LOG.log(logging.INFO if outcome.well else logging.WARNING, "%s %s", outcome.kind, outcome.message)
        self._last = outcome
        self._show("waiting", reason=outcome.message or None)
        return outcome

    def _told(self, work: Callable[[], Outcome]) -> Outcome:
        """Whatever may go wrong outside of this device, as an outcome."""
        try:
            return work()
        except (SlowRetrieval, Oversized) as error:
            self._ledger.note_attack(f"{type(error).__name__}: {error}")
            return Outcome(kind=Kind.UNREACHABLE, message=str(error))
        except BadStatus as error:
            kind = Kind.UNREACHABLE if error.status >= 500 or error.status == 429 else Kind.REFUSED
            return Outcome(kind=kind, message=str(error))
        except (TransportFailed, NoIdentity) as error:
            return Outcome(kind=Kind.UNREACHABLE, message=str(error))
        except MetadataRefused as error:
            self._parts.time.forget_heard()
            self._ledger.note_attack(f"{error.reason}: {error.message}")
            return Outcome(kind=Kind.REFUSED, message=f"{error.reason}: {error.message}")
        except (BadIdentity, DocumentMissing, StoredMetadataDamaged) as error:
            return Outcome(kind=Kind.REFUSED, message=str(error))
        except EcusAway as error:
            return Outcome(kind=Kind.WAITING, message=str(error))
        except OSError as error:
            return Outcome(kind=Kind.REFUSED, message=f"The device's disk fails: {error}")

    def _round(self) -> Outcome:
        self._settle()
        self._vehicle.meet()
        self._show("checking")
        try:
            refused = self._register()
            if refused is not None:
                return refused
            self._send_manifest()
        except TransportFailed as error:
            return self._without_gateway(error)
        self._parts.telemetry.tell(self._gateway, self._vehicle.own_image)
        if self._parts.renewal is not None:
            self._parts.renewal.run_if_due(self._parts.time.now())
        self._follow_trust()
        try:
            outcome = Outcome(kind=Kind.WAITING, message="The machine must restart.") if self._restarts else self._update()
        except ResetRequested:
            self._send_events()
            raise
        self._send_events()
        if self._state.report is not None:
            self._vehicle.meet()
            self._send_manifest()
        return outcome

    # --- before the gateway is asked ---

    def _settle(self) -> None:
        """Once after a start: how did what needed a restart end?"""
        if self._settled:
            return
        update = self._state.update
        result = self._parts.own_install.settle(update, self._ledger.note_restart)
        self._settled = True
        if result is not None and update is not None:
            self._ledger.told(EventKind.INSTALLATION_COMPLETED, self._vehicle.serial, result.success)
            self._ledger.done(self._vehicle.serial, update.wanted[self._vehicle.serial], result)
            self._ledger.finish_if_complete(self._vehicle.hardware_ids)

    @property
    def _restarts(self) -> bool:
        update = self._state.update
        return update is not None and self._parts.own_install.waits_for_restart(update)

    def _register(self) -> Outcome | None:
        """Have the Director know this vehicle's ECUs. A refusal ends the round only where it knows none of them."""
        body = self._vehicle.to_register
        if body is None:
            return None
        first = not self._state.registered
        never_met = self._vehicle.never_met
        if first and never_met and self._parts.monotonic() - self._started_s < SECONDARIES_WAIT_S:
            raise EcusAway(f"The first registration waits for the Secondaries {', '.join(sorted(never_met))}.")
        self._show("registering")
        answer = self._gateway.register(body)
        if answer.ok:
            self._vehicle.registered()
            return None
        code, description = error_of(answer)
        message = f"The Director doesn't register this vehicle's ECUs ({code or answer.status}): {description}"
        if first:
            return Outcome(kind=Kind.REFUSED, message=message)
        LOG.warning("%s", message)
        return None

    def _follow_trust(self) -> None:
        """Whom the server names is trusted; asked some hours apart. What fails is tried again then."""
        trust, now_s = self._parts.trust, self._parts.monotonic()
        if trust is None or now_s < self._trust_asked_again_s:
            return
        self._trust_asked_again_s = now_s + TRUST_EVERY_S
        try:
            if trust.refresh():
                self._gateway.close()
        except (TransportFailed, BadIdentity, NoIdentity, OSError) as error:
            LOG.warning("whom the server names to trust isn't known: %s", error)

    def _send_manifest(self) -> None:
        state = self._state
        answer = self._gateway.send_manifest(self._vehicle.manifest())
        director = self._parts.repositories[Repository.DIRECTOR].trusted
        self._parts.time.hear(answer.date, not_after=None if director is None else director.root.expires)
        if answer.ok:
            if state.report is not None or state.attacks:
                self._ledger.save(report=None, attacks="")
            return
        code, description = error_of(answer)
        message = f"The Director refuses the manifest ({code or answer.status}): {description}"
        if answer.status in (401, 403) or answer.status >= 500:
            raise BadStatus(answer.status, message)
        LOG.warning("%s", message)

    def _without_gateway(self, error: TransportFailed) -> Outcome:
        """What had come whole before the line was lost is verified anew and installed; else there is nothing to do."""
        director, image = (self._parts.repositories[kind].trusted for kind in (Repository.DIRECTOR, Repository.IMAGE))
        update = self._state.update
        if isinstance(error, Stopped) or self._restarts or director is None or image is None or update is None:
            raise error
        if director.targets is None or key_of(director.targets) != update.key:
            raise error
        try:
            wanted = self._matched(self._parts.repositories[Repository.IMAGE], lambda name, size_bytes_max: None)
            if not wanted or not self._downloads.all_here(wanted):
                raise error
            LOG.info("the gateway can't be reached; installing what came before")
            return self._install(wanted)
        except UpdateFailed:
            # Without the gateway nobody hears of it, and with it the documents may be better: then it is judged.
            raise error from None

    # --- what is wanted ---

    def _update(self) -> Outcome:
        for _ in range(PASSES_MAX):
            targets = self._director_targets()
            key = key_of(targets)
            if self._ledger.leave_others(key):
                self._parts.images.keep_only([])
            if key == self._state.failed:
                return Outcome(kind=Kind.NOTHING_NEW, message="The update that failed is still the one that is wanted.")
            try:
                wanted = self._verified(targets, key)
                if not wanted:
                    return self._nothing_more()
                if self._downloads.fetch(wanted):
                    continue  # hours may have passed: is it still wanted?
                return self._install(wanted)
            except UpdateFailed as error:
                self._parts.images.keep_only([])
                return self._ledger.end(error.result)
        return Outcome(kind=Kind.WAITING, message="The Director changes its mind faster than images come.")

    def _director_targets(self) -> Targets:
        director = self._parts.repositories[Repository.DIRECTOR]
        trusted = director.refresh(self._gateway.fetch(Repository.DIRECTOR))
        targets = trusted.targets
        assert targets is not None
        if self._parts.time.confirm(until=min(targets.expires, trusted.root.expires)):
            self._ledger.save(floor=self._parts.time.floor)
        return targets

    def _verified(self, targets: Targets, key: str) -> Sequence[VerifiedTarget]:
        """What both repositories want here and isn't there yet.

        Raises:
            UpdateFailed: they don't agree, or it isn't for this vehicle.
            TransportFailed, DocumentMissing
        """
        new = check_director_targets(targets, self._vehicle.hardware_ids, self._vehicle.installed)
        if isinstance(new, Refused):
            self._ledger.begin(key, targets, {})
            raise self._refused(new)
        if not new:
            return ()
        self._ledger.begin(key, targets, {each.ecu: each.target for each in new})
        image, fetch = self._parts.repositories[Repository.IMAGE], self._gateway.fetch(Repository.IMAGE)
        try:
            image.refresh(fetch)
        except MetadataRefused as error:
            raise self._refused(Refused(error.reason, error.message, error.field)) from None
        return self._matched(image, fetch)

    def _matched(self, image: TrustedRepository, fetch: Fetch) -> Sequence[VerifiedTarget]:
        director = self._parts.repositories[Repository.DIRECTOR].trusted
        assert director is not None
        assert image.trusted is not None
        ecus, installed = self._vehicle.hardware_ids, self._vehicle.installed
        search = match(director, image.trusted, ecus=ecus, installed=installed, now=self._parts.time.now())
        found = image.search(search, fetch)
        if isinstance(found, Refused):
            raise self._refused(found)
        return found

    def _refused(self, refused: Refused) -> UpdateFailed:
        if refused.reason not in _MISTAKES:
            self._ledger.note_attack(f"{refused.reason}: {refused.message}")
        return UpdateFailed(result_of(ResultCode.VERIFICATION_FAILED, f"{refused.reason}: {refused.message}"))

    def _nothing_more(self) -> Outcome:
        """Everything that is wanted runs. What was installed just before a cut, and not noted, counts as done."""
        update = self._state.update
        if update is not None:
            for serial in sorted(update.wanted.keys() - update.results.keys()):
                self._ledger.done(serial, update.wanted[serial], result_of(ResultCode.OK, "It runs already."))
        finished = self._ledger.finish_if_complete(self._vehicle.hardware_ids)
        self._parts.images.keep_only([])
        return finished or Outcome(kind=Kind.NOTHING_NEW)

    # --- installing ---

    def _install(self, targets: Sequence[VerifiedTarget]) -> Outcome:
        self._show("installing")
        Distribution(
            vehicle=self._vehicle,
            images=self._parts.images,
            own_install=self._parts.own_install,
            repositories=self._parts.repositories,
            fetches={kind: self._gateway.fetch(kind) for kind in Repository},
            now=self._parts.time.now(),
            told=self._ledger.told,
            done=lambda serial, target, result: self._ledger.done(serial, InstalledTarget.of(target.target), result),
            note=self._ledger.note_restart,
        ).run(targets)
        finished = self._ledger.finish_if_complete(self._vehicle.hardware_ids)
        if finished is None:
            return Outcome(kind=Kind.WAITING, message="The installation takes effect after a restart.")
        self._parts.images.keep_only([])
        return finished

    # --- what is told ---

    def _send_events(self) -> None:
        """At least once each; an answer that can't take them drops them, as aktualizr does (Uptane reference §3.6)."""
        batch = len(self._state.events)
        while batch and self._state.events:
            events = self._state.events[:batch]
            try:
                answer = self._gateway.send_events(events)
            except (TransportFailed, NoIdentity) as error:
                LOG.info("events wait: %s", error)
                return
            if answer.status == 413 and batch > 1:
                batch //= 2
            elif answer.ok or answer.status in (404, 413):
                self._ledger.save(events=self._state.events[len(events) :])
            else:
                LOG.info("events wait: status %s", answer.status)
                return

    def _show(self, state: str, *, reason: str | None = None) -> None:
        self._parts.progress.show(self._progress(state, reason))

    def _show_download(self, target: VerifiedTarget, received: int, resumed: int) -> None:
        unit = PROGRESS_UNIT_BYTES
        shown = self._progress("downloading", None)
        self._parts.progress.show(
            replace(
                shown,
                path=target.name,
                received_blocks=-(-received // unit),
                total_blocks=-(-target.length // unit),
                resumed_blocks=resumed // unit,
            )
        )

    def _progress(self, state: str, reason: str | None) -> Progress:
        update, last = self._state.update, self._last
        return Progress(
            state=state,
            version=self._parts.version,
            job=None if update is None else update.correlation_id,
            status=None if last is None else last.kind.value,
            reason=reason,
        )

    @property
    def _state(self) -> ClientState:
        return self._ledger.state
