"""Version reports of ECUs and the manifest of the whole device (Uptane reference §6.1)."""

from __future__ import annotations

import hashlib

from tests.support.aktualizr.metadata import Target

TIME_CONSTANT = "1970-01-01T00:00:00Z"
REPORT_CONTENT_TYPE = "application/vnd.com.here.otac.installationReport.v1"
SHA256_OF_NOTHING = hashlib.sha256(b"").hexdigest()


def version_report(serial: str, filepath: str, length: int, sha256: str, *, attacks_detected: str = "") -> dict[str, object]:
    """What an ECU signs."""
    return {
        "attacks_detected": attacks_detected,
        "ecu_serial": serial,
        "installed_image": {"fileinfo": {"hashes": {"sha256": sha256}, "length": length}, "filepath": filepath},
        "previous_timeserver_time": TIME_CONSTANT,
        "timeserver_time": TIME_CONSTANT,
    }


def report_of_target(serial: str, installed: Target | None) -> dict[str, object]:
    """Of a Primary: ``unknown`` before its first update."""
    if installed is None:
        return version_report(serial, "unknown", 0, SHA256_OF_NOTHING)
    return version_report(serial, installed.name, installed.length, installed.sha256)
