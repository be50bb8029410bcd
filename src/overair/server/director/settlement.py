"""What a manifest means for the assignment that is open on its vehicle. Pure: one table (Uptane reference §6.1, steps 7 to 12).

| report | all ECUs show their target | some do | none does |
|---|---|---|---|
| none | succeeds | goes on | goes on |
| on another correlation id | succeeds | goes on | goes on |
| failed | fails | fails | fails |
| needs a reboot to complete | goes on | goes on | goes on |
| succeeded | succeeds | goes on | cancelled |
| not to be understood | succeeds | cancelled | cancelled |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from overair.basics.ids import EcuSerial
from overair.server.director.model import Assignment, Image
from overair.wire.job_messages import STATUS_DETAILS_VALUE_LENGTH_MAX, ExecutionStatus
from overair.wire.uptane.reports import InstallationReport, ResultCode, UnreadableReport

NOTHING_INSTALLED: Final = "NOTHING_INSTALLED"
"""The vehicle says that all went well, and no ECU shows its target."""
REPORT_UNREADABLE: Final = "REPORT_UNREADABLE"
RESULT_CODE_LENGTH_MAX: Final = 128
RESULT_CODE: Final = "resultCode"
"""The member of an execution's status details."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What becomes of the assignment. ``status`` None: it goes on."""

    status: ExecutionStatus | None
    code: str
    description: str
    installed: frozenset[EcuSerial]
    """ECUs that show their target, now or before."""
    is_about_it: bool
    """Whether the report, if there is one, is about this assignment."""


def settle(
    assignment: Assignment, installed: Mapping[EcuSerial, Image], report: InstallationReport | UnreadableReport | None
) -> Settlement:
    """``installed``: what runs on the vehicle's ECUs, as far as it is known, this manifest included."""
    shown = frozenset(
        serial for serial, target in assignment.targets.items() if serial in installed and installed[serial].is_same(target)
    )
    done = shown == frozenset(assignment.targets)
    is_about_it = True
    status: ExecutionStatus | None = ExecutionStatus.SUCCEEDED if done else None
    code, description = ResultCode.OK.value, ""
    match report:
        case InstallationReport() if report.correlation_id not in ("", assignment.correlation_id):
            is_about_it = False
        case InstallationReport():
            code, description = report.result.code, report.result.description
            if report.result.success:
                if not shown:
                    status = ExecutionStatus.CANCELED
                    code = NOTHING_INSTALLED
                    description = f"The vehicle reported {report.result.code}, but no ECU shows its target."
            elif report.result.code == ResultCode.NEED_COMPLETION:
                status = None
            else:
                status = ExecutionStatus.FAILED
        case UnreadableReport() if not done:
            status = ExecutionStatus.CANCELED
            code, description = REPORT_UNREADABLE, report.problem
        case _:
            description = "Every ECU's manifest shows its target."
    return Settlement(
        status=status,
        code=code[:RESULT_CODE_LENGTH_MAX] or ResultCode.UNKNOWN.value,
        description=description,
        installed=shown,
        is_about_it=is_about_it,
    )


def status_details(code: str, description: str, correlation_id: str, ecus: Mapping[str, str] | None = None) -> dict[str, str]:
    """The same for whoever follows the job: printable, within the bounds of the Jobs API. ``ecus``: serial → result code."""
    listed = ",".join(f"{serial}={result}" for serial, result in sorted((ecus or {}).items()))
    words = f"{code}: {description}" if description else code
    values = {
        RESULT_CODE: code,
        "description": description,
        "correlationId": correlation_id,
        "ecus": listed,
        "reason": words if code != ResultCode.OK else "",
    }
    return {name: printed for name, value in values.items() if (printed := printable(value))}


def printable(text: str, length_max: int = STATUS_DETAILS_VALUE_LENGTH_MAX) -> str:
    """One line without control characters, cut to its bound."""
    line = " ".join(text.split())[:length_max]
    return line if line.isprintable() else "".join(character if character.isprintable() else "?" for character in line)
