"""What a vehicle says of an installation: results, by ECU and as a whole (Uptane reference §6.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from overair.wire.uptane.fields import array_at, malformed, object_at
from overair.wire.uptane.refusals import MetadataRefused

CONTENT_TYPE: Final = "application/vnd.com.here.otac.installationReport.v1"
ITEMS_MAX: Final = 1024


class ResultCode(StrEnum):
    """What an installation ends with; anything else is an integrator's own word."""

    OK = "OK"
    ALREADY_PROCESSED = "ALREADY_PROCESSED"
    VERIFICATION_FAILED = "VERIFICATION_FAILED"
    INSTALL_FAILED = "INSTALL_FAILED"
    DOWNLOAD_FAILED = "DOWNLOAD_FAILED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    GENERAL_ERROR = "GENERAL_ERROR"
    NEED_COMPLETION = "NEED_COMPLETION"
    """Written; takes effect with the next boot."""
    CUSTOM_ERROR = "CUSTOM_ERROR"
    OPERATION_CANCELLED = "OPERATION_CANCELLED"
    UNKNOWN = "UNKNOWN"


SUCCESSES: Final = frozenset({ResultCode.OK, ResultCode.ALREADY_PROCESSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallationResult:
    """How it ended. ``code`` is a ``ResultCode`` or an integrator's own word."""

    success: bool
    code: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallationReport:
    """How an update ended on a vehicle. No items: it failed before anything was installed."""

    correlation_id: str
    result: InstallationResult
    items: Mapping[str, InstallationResult]
    """By ECU serial."""
    raw_report: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableReport:
    """A report that can't be understood: the manifest round it still counts."""

    problem: str


def result_of(code: ResultCode, description: str = "") -> InstallationResult:
    """A result with a known code; which codes are successes isn't the caller's to say."""
    return InstallationResult(success=code in SUCCESSES, code=code.value, description=description)


def overall_code(items: Iterable[tuple[str, InstallationResult]]) -> str:
    """The vehicle's code for its ECUs' results, each given with the ECU's hardware id: OK, or ``hwid:CODE`` of those that
    failed, joined by bars."""
    failed = [f"{hardware_id}:{result.code}" for hardware_id, result in items if not result.success]
    return "|".join(failed) or ResultCode.OK.value


def report_to_json(report: InstallationReport) -> dict[str, object]:
    """``installation_report`` of a manifest."""
    return {
        "content_type": CONTENT_TYPE,
        "report": {
            "correlation_id": report.correlation_id,
            "raw_report": report.raw_report,
            "result": _result_to_json(report.result),
            "items": [{"ecu": serial, "result": _result_to_json(result)} for serial, result in report.items.items()],
        },
    }


def read_report(value: object, path: str = "signed.installation_report") -> InstallationReport | UnreadableReport:
    """Read ``installation_report``. Never refuses: what can't be understood is a value too (Uptane reference §6.1, step 12)."""
    try:
        return _read_report(value, path)
    except MetadataRefused as error:
        return UnreadableReport(problem=f"{error.field}: {error.message}")


def read_operation_result(custom: Mapping[str, object]) -> InstallationResult | None:
    """What clients of the second form said in an ECU's own ``custom``: numbers, of which 0 and 1 are successes."""
    value = custom.get("operation_result")
    if not isinstance(value, Mapping):
        return None
    code, text = value.get("result_code"), value.get("result_text")
    if not isinstance(code, int) or isinstance(code, bool):
        return None
    return InstallationResult(success=code in (0, 1), code=str(code), description=text if isinstance(text, str) else "")


def _read_report(value: object, path: str) -> InstallationReport:
    envelope = object_at(value, path)
    if envelope.get("content_type") != CONTENT_TYPE:
        raise malformed(f"The report's content type isn't {CONTENT_TYPE}.", f"{path}.content_type")
    report = object_at(envelope.get("report"), f"{path}.report")
    rows = array_at(report.get("items", []), f"{path}.report.items")
    if len(rows) > ITEMS_MAX:
        raise malformed(f"A report has at most {ITEMS_MAX} items.", f"{path}.report.items")
    items: dict[str, InstallationResult] = {}
    for number, row in enumerate(rows):
        place = f"{path}.report.items[{number}]"
        item = object_at(row, place)
        serial = item.get("ecu")
        if not isinstance(serial, str) or serial in items:
            raise malformed("An item names its ECU, and no other item does.", f"{place}.ecu")
        items[serial] = _read_result(item.get("result"), f"{place}.result")
    return InstallationReport(
        correlation_id=_text(report.get("correlation_id")),
        result=_read_result(report.get("result"), f"{path}.report.result"),
        items=items,
        raw_report=_text(report.get("raw_report")),
    )


def _read_result(value: object, path: str) -> InstallationResult:
    result = object_at(value, path)
    success, code = result.get("success"), result.get("code")
    if not isinstance(success, bool):
        raise malformed("success is true or false.", f"{path}.success")
    if not isinstance(code, str | int) or isinstance(code, bool):
        raise malformed("A result has a code.", f"{path}.code")
    return InstallationResult(success=success, code=str(code), description=_text(result.get("description")))


def _result_to_json(result: InstallationResult) -> dict[str, object]:
    return {"success": result.success, "code": result.code, "description": result.description}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
