"""Installing what was downloaded, on the Primary and on its Secondaries, and what is reported of it (Uptane reference §6.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.support.aktualizr.events import ReportQueue
from tests.support.aktualizr.metadata import Target
from tests.support.aktualizr.package_manager import PackageManagerNone
from tests.support.aktualizr.provisioner import Provisioner
from tests.support.aktualizr.secondary import VirtualSecondary
from tests.support.aktualizr.storage import DeviceResult, InstallationResult, Storage


class Installer:
    def __init__(
        self,
        storage: Storage,
        provisioner: Provisioner,
        secondaries: Mapping[str, VirtualSecondary],
        package_manager: PackageManagerNone,
        queue: ReportQueue,
    ) -> None:
        self._storage, self._provisioner, self._secondaries = storage, provisioner, secondaries
        self._package_manager, self._queue = package_manager, queue

    def install(self, updates: Sequence[Target], correlation_id: str) -> tuple[InstallationResult, str]:
        """Metadata to every Secondary that is meant, then the images; result and raw report of the device."""
        refused = self._send_metadata(updates)
        if refused:
            text = "|".join(f"{hardware_id}:{code}" for hardware_id, code in refused)
            description = "Sending metadata to one or more ECUs failed"
            return InstallationResult.of("VERIFICATION_FAILED", description, text=text), description
        for target in updates:
            if self._provisioner.serial in target.ecus:
                self._install_on_primary(target, correlation_id)
                break
        for target in updates:
            for serial in sorted(target.ecus):
                if serial != self._provisioner.serial:
                    self._install_on_secondary(self._secondaries[serial], target, correlation_id)
        return self.device_result()

    def finish_after_reboot(self) -> bool:
        """What waited for a reboot is installed by the start that follows it; the report goes out with the next manifest."""
        serial = self._provisioner.serial
        pending = self._storage.pending.pop(serial, None)
        if pending is None:
            return False
        target, correlation_id = pending
        self._storage.ecu_results[serial] = InstallationResult.of("OK", "Installing fake package was successful")
        self._storage.installed[serial] = target
        self._queue.enqueue("EcuInstallationCompleted", ecu=serial, correlation_id=correlation_id, success=True)
        self._storage.device_result = DeviceResult(*self.device_result(), correlation_id)
        return True

    def device_result(self) -> tuple[InstallationResult, str]:
        """One result of all ECUs'; failures as ``hardware id:code``, joined."""
        failed = []
        for serial, result in self.results():
            if result.needs_completion:
                text = f"ECU needs completion/finalization to be installed: {serial}"
                return InstallationResult.of("NEED_COMPLETION", text), text
            if not result.success:
                failed.append(f"{self._provisioner.hardware_id_of(serial)}:{result.code}")
        if failed:
            text = "Installation failed on one or more ECUs"
            return InstallationResult.of("INSTALL_FAILED", text, text="|".join(failed)), text
        return InstallationResult.of("OK", "Device has been successfully installed"), "Installation succesful"

    def results(self) -> list[tuple[str, InstallationResult]]:
        """Of each ECU, in the order of their registration."""
        order = [serial for serial, _ in self._storage.ecus]
        return sorted(self._storage.ecu_results.items(), key=lambda item: order.index(item[0]))

    def _send_metadata(self, updates: Sequence[Target]) -> list[tuple[str, str]]:
        refused = []
        for target in updates:
            for serial, hardware_id in sorted(target.ecus.items()):
                secondary = self._secondaries.get(serial)
                if secondary is None:
                    continue
                result = secondary.put_metadata(self._storage.director, self._storage.image)
                if not result.success:
                    refused.append((hardware_id, result.code))
        return refused

    def _install_on_primary(self, target: Target, correlation_id: str) -> None:
        serial = self._provisioner.serial
        self._queue.enqueue("EcuInstallationStarted", ecu=serial, correlation_id=correlation_id)
        result = self._package_manager.install()
        self._storage.ecu_results[serial] = result
        if result.needs_completion:
            self._storage.pending[serial] = (target, correlation_id)
            self._queue.enqueue("EcuInstallationApplied", ecu=serial, correlation_id=correlation_id)
            return
        if result.success:
            # With the map of ECUs that the Director gave: a later document is compared with it.
            self._storage.installed[serial] = target
        self._queue.enqueue("EcuInstallationCompleted", ecu=serial, correlation_id=correlation_id, success=result.success)

    def _install_on_secondary(self, secondary: VirtualSecondary, target: Target, correlation_id: str) -> None:
        serial = secondary.serial
        self._queue.enqueue("EcuInstallationStarted", ecu=serial, correlation_id=correlation_id)
        result = secondary.install(target, self._package_manager.file_of(target))
        self._queue.enqueue("EcuInstallationCompleted", ecu=serial, correlation_id=correlation_id, success=result.success)
        if result.success:
            self._storage.installed[serial] = target
        self._storage.ecu_results[serial] = result
