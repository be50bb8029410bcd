"""The status updates that an agent sends, spelt as the C agent spells them (wire reference §7.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import msgspec

from overair.wire.image import ImageVersion
from overair.wire.job_messages import ExecutionStatus, UpdateRequest

PROGRESS_EVERY_BLOCKS: Final = 64


class AgentErrorCode(IntEnum):
    """Main codes of the agent itself."""

    NONE = 0x0
    REQUEST_JOB_FAILED = 0x6
    INIT_FILE_TRANSFER_FAILED = 0x7
    REQUEST_FILE_BLOCK_FAILED = 0x8
    UPDATE_JOB_STATUS_FAILED = 0xB
    JOB_PARSER_ERROR = 0xC
    INVALID_DATA_PROTOCOL = 0xD
    MOMENTUM_ABORT = 0xE
    DOWNGRADE_NOT_ALLOWED = 0xF
    SAME_FIRMWARE_VERSION = 0x10
    IMAGE_STATE_MISMATCH = 0x11
    NO_ACTIVE_JOB = 0x12
    USER_ABORT = 0x13
    CBOR_DECODE = 0x15
    ACTIVATE_FAILED = 0x16
    FILE_SIZE_OVERFLOW = 0x17


class ParserSubCode(IntEnum):
    """Sub codes of JOB_PARSER_ERROR."""

    NULL_JOB = 1
    ZERO_FILE_SIZE = 3
    NON_CONFORMING_DOCUMENT = 4
    BAD_MODEL = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionId:
    """One attempt of this device at one job; a retry has the same job and the next number."""

    job_id: str
    number: int | None
    """None: the server's message didn't say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One status update."""

    status: ExecutionStatus
    details: Mapping[str, str]
    qos: int = 1

    def to_json(self, execution_number: int | None = None) -> bytes:
        """No token, no expected version: as the C agent sends it. A report that may come late names its execution."""
        return UpdateRequest(status=self.status, status_details=self.details, execution_number=execution_number).to_json()

    @property
    def final(self) -> bool:
        """The execution ends with it."""
        return self.status is not ExecutionStatus.IN_PROGRESS


def _word(number: int) -> str:
    return f"0x{number:08x}"


def receiving(received: int, total: int) -> Report:
    """Progress, after the first block and every 64th."""
    return Report(status=ExecutionStatus.IN_PROGRESS, details={"receive": f"{received}/{total}"}, qos=0)


def self_test_ready(running: ImageVersion) -> Report:
    """All received and verified; about to restart into it."""
    details = {"self_test": "ready", "updatedBy": _word(running.word)}
    return Report(status=ExecutionStatus.IN_PROGRESS, details=details)


def self_test_active(running: ImageVersion) -> Report:
    """Restarted into the new image, which tests itself."""
    details = {"self_test": "active", "updatedBy": _word(running.word)}
    return Report(status=ExecutionStatus.IN_PROGRESS, details=details)


def accepted(new: ImageVersion, updated_by: ImageVersion) -> Report:
    """The image on trial has accepted itself. Two blanks stand before each v."""
    details = {"reason": f"accepted  v{new}", "updatedBy": f"  v{updated_by}"}
    return Report(status=ExecutionStatus.SUCCEEDED, details=details)


def stored(file_type: int) -> Report:
    """A file that isn't firmware is verified and in its place."""
    details = {"reason": f"accepted  v0.0.{file_type}", "updatedBy": "  v0.0.0"}
    return Report(status=ExecutionStatus.SUCCEEDED, details=details)


def rejected(code: int) -> Report:
    """The image, or its version, was rejected."""
    return Report(status=ExecutionStatus.FAILED, details={"reason": f"rejected: {_word(code)}"})


def aborted(code: int) -> Report:
    """The work was given up."""
    return Report(status=ExecutionStatus.FAILED, details={"reason": f"aborted: {_word(code)}"})


def failed(main: int, sub: int = 0) -> Report:
    """Ingest, signature or parse failure."""
    return Report(status=ExecutionStatus.FAILED, details={"reason": f"{_word(main)}: {_word(sub)}"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReport:
    """A final report that must reach the server even if the device restarts first."""

    job: str
    execution_number: int | None = None
    """None: kept by an agent that didn't note it."""
    payload: str
    """The update's JSON text."""
    running_version: str
    """Of the image that made it: after a roll-back another image runs, and the report no longer holds."""

    def to_bytes(self) -> bytes:
        members = {"job": self.job, "execution_number": self.execution_number, "payload": self.payload}
        return msgspec.json.encode(members | {"running_version": self.running_version})


class _StoredReportMembers(msgspec.Struct):
    job: str
    payload: str
    running_version: str
    execution_number: int | None = None


def parse_stored_report(data: bytes) -> StoredReport | None:
    """Read what ``to_bytes`` wrote; None if it can't be read, for a report must never stop a device from starting."""
    try:
        members = msgspec.json.decode(data, type=_StoredReportMembers)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return StoredReport(
        job=members.job,
        execution_number=members.execution_number,
        payload=members.payload,
        running_version=members.running_version,
    )
