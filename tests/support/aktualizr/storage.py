"""What aktualizr's database keeps: it outlives the process."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from tests.support.aktualizr.curl import TlsCredentials
from tests.support.aktualizr.keys import EcuKey
from tests.support.aktualizr.metadata import Target


class Repository:
    """Metadata of one repository: every root, and the latest of each other role."""

    def __init__(self) -> None:
        self.roots: dict[int, bytes] = {}
        self.roles: dict[str, bytes] = {}
        self.delegations: dict[str, bytes] = {}

    @property
    def latest_root(self) -> bytes | None:
        return self.roots[max(self.roots)] if self.roots else None


@dataclass(frozen=True, slots=True)
class InstallationResult:
    """How an installation ended, on one ECU or on the device."""

    code: str
    description: str
    success: bool

    @classmethod
    def of(cls, code: str, description: str = "", *, text: str | None = None) -> InstallationResult:
        """``text`` replaces the code's name; what counts as success follows the code."""
        return cls(text if text is not None else code, description, code in ("OK", "ALREADY_PROCESSED"))

    @property
    def needs_completion(self) -> bool:
        return self.code == "NEED_COMPLETION"

    def to_json(self) -> dict[str, object]:
        return {"code": self.code, "description": self.description, "success": self.success}


@dataclass(slots=True)
class DeviceResult:
    result: InstallationResult
    raw_report: str
    correlation_id: str


@dataclass(slots=True)
class Storage:
    """One device's."""

    device_id: str = ""
    tls: TlsCredentials | None = None
    primary_key: EcuKey | None = None
    ecus: list[tuple[str, str]] = field(default_factory=list)
    """Serial and hardware id of what was registered; the Primary first."""
    report_counter: int = 0
    director: Repository = field(default_factory=Repository)
    image: Repository = field(default_factory=Repository)
    installed: dict[str, Target] = field(default_factory=dict)
    pending: dict[str, tuple[Target, str]] = field(default_factory=dict)
    """By serial: what waits for a reboot, and for which correlation id."""
    ecu_results: dict[str, InstallationResult] = field(default_factory=dict)
    device_result: DeviceResult | None = None
    reported_hashes: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    manifests_of_secondaries: dict[str, dict[str, Any]] = field(default_factory=dict)
    image_files: dict[str, bytearray] = field(default_factory=dict)
    """Downloads by target name, whole or not."""

    def copy(self) -> Storage:
        """As a backup of the device's disk would be."""
        return copy.deepcopy(self)
