"""The vehicle as its Primary knows it: which ECUs there are, what runs on each, and what each says of itself."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from overair.agent.uptane.ecu_key import EcuKey
from overair.agent.uptane.ledger import Ledger
from overair.agent.uptane.own_install import OwnInstall
from overair.agent.uptane.secondaries import SecondaryAway, SecondaryIdentity, SecondaryPort, SecondaryRefuses
from overair.agent.uptane.state import InstalledTarget, KnownEcu
from overair.wire.uptane.canonical import read
from overair.wire.uptane.ecus import Ecu, registration_body
from overair.wire.uptane.hashing import agree
from overair.wire.uptane.keys import read_public_key
from overair.wire.uptane.manifest import (
    UNKNOWN_IMAGE,
    VersionReport,
    build_manifest,
    is_signed_by,
    read_signed_report,
    sign_report,
)
from overair.wire.uptane.metadata import TargetFile
from overair.wire.uptane.refusals import MetadataRefused

LOG = logging.getLogger("overair.uptane")

REPORT_SIZE_BYTES_MAX: Final = 64 * 1024
COUNTERS_RESERVED: Final = 100
"""Report counters that one write to the disk covers: those that a restart loses are gaps, which are allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetSecondary:
    """A Secondary that answered in this round."""

    port: SecondaryPort
    identity: SecondaryIdentity


class Vehicle:
    """Keeps its part of the Primary's state."""

    def __init__(
        self,
        *,
        key: EcuKey,
        serial: str,
        hardware_id: str,
        own_install: OwnInstall,
        secondaries: Mapping[str, SecondaryPort],
        ledger: Ledger,
    ) -> None:
        self._key = key
        self.serial = serial
        self._hardware_id = hardware_id
        self._own_install = own_install
        self._secondaries = secondaries
        self._ledger = ledger
        self._counter = ledger.state.counter
        self.met: dict[str, MetSecondary] = {}

    # --- who is there ---

    def meet(self) -> None:
        """Ask every Secondary who it is and what it runs. One that is away stays as it was known."""
        before = self._ledger.state.ecus
        ecus = {serial: ecu for serial, ecu in before.items() if ecu.place in self._secondaries}
        own = KnownEcu(hardware_id=self._hardware_id, key=self._key.public_key.to_json(), installed=self.own_image)
        ecus[self.serial] = own
        self.met = {}
        for place, port in self._secondaries.items():
            try:
                identity = port.describe()
                if identity.serial == self.serial or identity.serial in self.met:
                    raise SecondaryAway(f"it says that it is {identity.serial!r}, as another ECU does")
                reported = replace(self._reported(port.report(), identity, before.get(identity.serial)), place=place)
            except (SecondaryAway, SecondaryRefuses) as error:
                LOG.warning("the Secondary %s is away: %s", place, error)
                continue
            # An ECU that stood in this place before is gone.
            ecus = {serial: ecu for serial, ecu in ecus.items() if ecu.place != place} | {identity.serial: reported}
            self.met[identity.serial] = MetSecondary(port=port, identity=identity)
        if ecus != before:
            self._ledger.save_ecus(ecus)

    @staticmethod
    def _reported(data: bytes, identity: SecondaryIdentity, known: KnownEcu | None) -> KnownEcu:
        try:
            report = read_signed_report(read(data, size_bytes_max=REPORT_SIZE_BYTES_MAX))
        except MetadataRefused as error:
            raise SecondaryAway(f"the report of {identity.serial} can't be read: {error.message}") from None
        if report.report.ecu != identity.serial or not is_signed_by(identity.key, report.signed_bytes, report.signatures):
            raise SecondaryAway(f"the report of {identity.serial} isn't signed by its key")
        key = identity.key.to_json()
        if known is not None and known.key != key:
            LOG.warning(
                "THE ECU %s HAS ANOTHER KEY THAN BEFORE: it is registered anew, which the server may refuse", identity.serial
            )
        installed = _remembered(report.report.installed, None if known is None else known.installed)
        return KnownEcu(hardware_id=identity.hardware_id, key=key, installed=installed, report=data)

    @property
    def never_met(self) -> set[str]:
        """Secondaries of the settings of which nothing is known yet."""
        return self._secondaries.keys() - {ecu.place for ecu in self._ledger.state.ecus.values()}

    @property
    def own_image(self) -> InstalledTarget | None:
        """What the Primary runs."""
        known = self._ledger.state.ecus.get(self.serial)
        return self._own_install.running(None if known is None else known.installed)

    @property
    def hardware_ids(self) -> Mapping[str, str]:
        """Of the ECUs that the Director knows, by serial."""
        state = self._ledger.state
        return {serial: ecu.hardware_id for serial, ecu in state.ecus.items() if serial in state.registered}

    @property
    def installed(self) -> Mapping[str, TargetFile | None]:
        """What runs on each, by serial."""
        return {
            serial: None if ecu.installed is None else ecu.installed.file for serial, ecu in self._ledger.state.ecus.items()
        }

    # --- what the Director is told ---

    @property
    def to_register(self) -> bytes | None:
        """The body of a registration, where it would say something new."""
        state = self._ledger.state
        if {serial: _word(ecu) for serial, ecu in state.ecus.items()} == state.registered:
            return None
        ecus = [
            Ecu(serial=serial, hardware_id=ecu.hardware_id, key=read_public_key(ecu.key)) for serial, ecu in state.ecus.items()
        ]
        return registration_body(self.serial, ecus)

    def registered(self) -> None:
        """The Director has taken what ``to_register`` said."""
        state = self._ledger.state
        self._ledger.save(registered={serial: _word(ecu) for serial, ecu in state.ecus.items()})

    def manifest(self) -> bytes:
        """The next manifest: the Primary's own report, and the last one of each Secondary that the Director knows."""
        state = self._ledger.state
        installed = None if self.serial not in state.ecus else state.ecus[self.serial].installed
        own = VersionReport(
            ecu=self.serial,
            installed=UNKNOWN_IMAGE if installed is None else replace(installed.file, custom={}),
            attacks_detected=state.attacks,
            report_counter=self._next_counter(),
        )
        reports: dict[str, Mapping[str, object]] = {self.serial: sign_report(own, self._key)}
        for serial, ecu in state.ecus.items():
            if serial != self.serial and serial in state.registered and ecu.report is not None:
                reports[serial] = json.loads(ecu.report)
        return build_manifest(self.serial, reports, self._key, installation_report=state.report)

    def _next_counter(self) -> int:
        self._counter += 1
        if self._counter > self._ledger.state.counter:
            self._ledger.save(counter=self._counter + COUNTERS_RESERVED)
        return self._counter


def _word(ecu: KnownEcu) -> str:
    return f"{ecu.hardware_id} {read_public_key(ecu.key).id}"


def _remembered(reported: TargetFile, known: InstalledTarget | None) -> InstalledTarget | None:
    """What an ECU says that it runs; its report has no release counter, so the one that came with the same image is kept."""
    if reported.name == UNKNOWN_IMAGE.name:
        return None
    if known is not None and known.name == reported.name and agree(known.hashes, reported.hashes):
        return known
    return InstalledTarget.of(reported)
