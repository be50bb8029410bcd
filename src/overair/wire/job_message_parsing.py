"""Reading Jobs messages: requests on the server, replies and notifications on the agent (wire reference §2).

Every parser raises MalformedMessage and nothing else, whatever bytes it is given.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final, cast

import msgspec

from overair.wire.job_messages import (
    CLIENT_TOKEN_SIZE_BYTES_MAX,
    DEPTH_MAX,
    DEVICE_STATUSES,
    LONG_MAX,
    PAYLOAD_SIZE_BYTES_MAX,
    STATUS_DETAILS_PAIRS_MAX,
    STATUS_DETAILS_VALUE_LENGTH_MAX,
    STEP_TIMEOUT_CANCEL,
    STEP_TIMEOUT_MINUTES_MAX,
    DescribeRequest,
    ExecutionReply,
    ExecutionState,
    ExecutionStatus,
    ExecutionSummary,
    ExecutionView,
    MalformedMessage,
    PendingChanged,
    PendingReply,
    PendingRequest,
    Rejection,
    RejectionCode,
    StartNextRequest,
    UpdateReply,
    UpdateRequest,
)
from overair.wire.strict_json import MalformedJson, decode

_DETAILS_KEY: Final = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_DIGITS: Final = re.compile(r"[0-9]{1,18}")


def parse_pending_request(payload: bytes) -> PendingRequest:
    """Raises MalformedMessage, as every parser of requests here does; a payload of no bytes counts as ``{}``."""
    return PendingRequest(client_token=_request(payload).token)


def parse_describe_request(payload: bytes) -> DescribeRequest:
    reader = _request(payload)
    return DescribeRequest(
        client_token=reader.token,
        execution_number=reader.whole("executionNumber", 0, LONG_MAX),
        include_job_document=reader.flag("includeJobDocument", absent=True),
    )


def parse_start_next_request(payload: bytes) -> StartNextRequest:
    reader = _request(payload)
    return StartNextRequest(
        client_token=reader.token,
        status_details=reader.status_details(),
        step_timeout_minutes=reader.step_timeout(may_stop=False),
    )


def parse_update_request(payload: bytes) -> UpdateRequest:
    reader = _request(payload)
    status = reader.members.get("status")
    if not isinstance(status, str) or status not in DEVICE_STATUSES:
        raise reader.refusal("status must be one of IN_PROGRESS, SUCCEEDED, FAILED and REJECTED.")
    return UpdateRequest(
        status=ExecutionStatus(status),
        client_token=reader.token,
        status_details=reader.status_details(),
        expected_version=reader.expected_version(),
        execution_number=reader.whole("executionNumber", 0, LONG_MAX),
        include_job_execution_state=reader.flag("includeJobExecutionState", absent=False),
        include_job_document=reader.flag("includeJobDocument", absent=False),
        step_timeout_minutes=reader.step_timeout(),
    )


def check_status_details(details: Mapping[str, object]) -> str | None:
    """What is wrong with status details, or None: at most 10 pairs, names of 1 to 128 of ``[a-zA-Z0-9:_-]``, values of 1 to
    1024 characters without control characters (the model's ``[^\\p{C}]+``)."""
    if len(details) > STATUS_DETAILS_PAIRS_MAX:
        return f"statusDetails has {len(details)} pairs; it may have {STATUS_DETAILS_PAIRS_MAX}."
    for key, value in details.items():
        if _DETAILS_KEY.fullmatch(key) is None:
            return f"The statusDetails key {key[:128]!r} must be 1 to 128 of the characters a-z, A-Z, 0-9, ':', '_' and '-'."
        if not isinstance(value, str):
            return f"The statusDetails value of {key!r} must be a string."
        if not 1 <= len(value) <= STATUS_DETAILS_VALUE_LENGTH_MAX:
            return f"The statusDetails value of {key!r} must have 1 to {STATUS_DETAILS_VALUE_LENGTH_MAX} characters."
        if not value.isprintable() and any(unicodedata.category(character)[0] == "C" for character in value):
            return f"The statusDetails value of {key!r} must not hold control characters."
    return None


def parse_execution_reply(payload: bytes) -> ExecutionReply:
    """Read ``get/accepted``, ``start-next/accepted`` or ``notify-next``. ``"execution":{}`` counts as none.

    Raises:
        MalformedMessage: not a JSON object, or a member is absent or of another type.
    """
    reader = _reply(payload)
    execution = reader.members.get("execution")
    view = _view(reader.nested("execution")) if execution else None
    return ExecutionReply(timestamp_s=reader.time("timestamp"), execution=view, client_token=reader.token)


def parse_pending_reply(payload: bytes) -> PendingReply:
    reader = _reply(payload)
    return PendingReply(
        timestamp_s=reader.time("timestamp"),
        in_progress=_summaries(reader, "inProgressJobs"),
        queued=_summaries(reader, "queuedJobs"),
        client_token=reader.token,
    )


def parse_pending_changed(payload: bytes) -> PendingChanged:
    reader = _reply(payload)
    jobs = reader.nested("jobs")
    return PendingChanged(
        timestamp_s=reader.time("timestamp"), in_progress=_summaries(jobs, "IN_PROGRESS"), queued=_summaries(jobs, "QUEUED")
    )


def parse_update_reply(payload: bytes) -> UpdateReply:
    reader = _reply(payload)
    return UpdateReply(
        timestamp_s=reader.time("timestamp"),
        client_token=reader.token,
        execution_state=_state(reader) if "executionState" in reader.members else None,
        job_document=_document(reader),
    )


def parse_rejection(payload: bytes) -> Rejection:
    reader = _reply(payload)
    return Rejection(
        timestamp_s=reader.time("timestamp"),
        code=reader.text("code"),
        message=reader.text("message"),
        client_token=reader.token,
        execution_state=_state(reader) if "executionState" in reader.members else None,
    )


class _Reader:
    """Members of one JSON object, taken by type."""

    __slots__ = ("members", "token")

    def __init__(self, members: Mapping[str, object], token: str | None) -> None:
        self.members = members
        self.token = token

    def refusal(self, message: str) -> MalformedMessage:
        return MalformedMessage(RejectionCode.INVALID_REQUEST, message, client_token=self.token)

    def whole(self, name: str, low: int, high: int) -> int | None:
        value = self.members.get(name)
        if value is None:
            return None
        if type(value) is not int or not low <= value <= high:
            raise self.refusal(f"{name} must be a whole number from {low} to {high}.")
        return value

    def time(self, name: str) -> int:
        value = self.whole(name, 0, LONG_MAX)
        if value is None:
            raise self.refusal(f"{name} is absent.")
        return value

    def flag(self, name: str, *, absent: bool) -> bool:
        value = self.members.get(name)
        if value is None:
            return absent
        if not isinstance(value, bool):
            raise self.refusal(f"{name} must be true or false.")
        return value

    def text(self, name: str) -> str:
        value = self.members.get(name)
        if not isinstance(value, str):
            raise self.refusal(f"{name} must be a string.")
        return value

    def nested(self, name: str) -> _Reader:
        value = self.members.get(name)
        if not isinstance(value, dict):
            raise self.refusal(f"{name} must be an object.")
        return _Reader(cast("Mapping[str, object]", value), self.token)

    def expected_version(self) -> int | None:
        """A number, or digits in a string as the guide's samples and the C Jobs library send it (checklist 9)."""
        value = self.members.get("expectedVersion")
        if isinstance(value, str) and _DIGITS.fullmatch(value):
            return int(value)
        return self.whole("expectedVersion", 0, LONG_MAX)

    def status_details(self) -> Mapping[str, str] | None:
        value = self.members.get("statusDetails")
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.refusal("statusDetails must be an object of strings.")
        wrong = check_status_details(value)
        if wrong is not None:
            raise self.refusal(wrong)
        return cast("Mapping[str, str]", value)

    def step_timeout(self, *, may_stop: bool = True) -> int | None:
        """``may_stop``: whether -1 has a meaning; a start has no timer to stop yet."""
        value = self.whole("stepTimeoutInMinutes", STEP_TIMEOUT_CANCEL, STEP_TIMEOUT_MINUTES_MAX)
        if value is None or value > 0 or (may_stop and value == STEP_TIMEOUT_CANCEL):
            return value
        stop = ", or -1 to stop the timer" if may_stop else ""
        raise self.refusal(f"stepTimeoutInMinutes must be 1 to {STEP_TIMEOUT_MINUTES_MAX}{stop}.")


def _request(payload: bytes) -> _Reader:
    """The members of a request, its token checked. Unknown members are ignored."""
    members = _object(payload) if payload else {}
    token = members.get("clientToken")
    if token is None:
        return _Reader(members, None)
    if not isinstance(token, str) or len(token.encode()) > CLIENT_TOKEN_SIZE_BYTES_MAX:
        raise MalformedMessage(
            RejectionCode.INVALID_REQUEST, f"clientToken must be a string of at most {CLIENT_TOKEN_SIZE_BYTES_MAX} bytes."
        )
    return _Reader(members, token)


def _reply(payload: bytes) -> _Reader:
    members = _object(payload)
    token = members.get("clientToken")
    return _Reader(members, token if isinstance(token, str) else None)


def _object(payload: bytes) -> Mapping[str, object]:
    try:
        value = decode(payload, size_bytes_max=PAYLOAD_SIZE_BYTES_MAX, depth_max=DEPTH_MAX)
    except MalformedJson as error:
        raise MalformedMessage(RejectionCode.INVALID_JSON, f"The payload is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise MalformedMessage(RejectionCode.INVALID_JSON, "The payload must be a JSON object.")
    return cast("Mapping[str, object]", value)


def _status(reader: _Reader) -> ExecutionStatus:
    try:
        return ExecutionStatus(reader.text("status"))
    except ValueError as error:
        raise reader.refusal("status is none that a job execution can have.") from error


def _details(reader: _Reader) -> Mapping[str, str] | None:
    value = reader.members.get("statusDetails")
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise reader.refusal("statusDetails must be an object of strings.")
    return cast("Mapping[str, str]", value)


def _document(reader: _Reader) -> str | None:
    value = reader.members.get("jobDocument")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise reader.refusal("jobDocument must be an object.")
    return msgspec.json.encode(value).decode()


def _state(reader: _Reader) -> ExecutionState:
    state = reader.nested("executionState")
    return ExecutionState(status=_status(state), version_number=state.time("versionNumber"), status_details=_details(state))


def _view(reader: _Reader) -> ExecutionView:
    members = reader.members
    return ExecutionView(
        job_id=reader.text("jobId"),
        status=_status(reader),
        queued_at_s=reader.time("queuedAt"),
        last_updated_at_s=reader.time("lastUpdatedAt"),
        execution_number=reader.time("executionNumber"),
        version_number=reader.time("versionNumber"),
        thing_name=reader.text("thingName") if "thingName" in members else None,
        status_details=_details(reader),
        started_at_s=reader.whole("startedAt", 0, LONG_MAX),
        approximate_seconds_before_timed_out=reader.whole("approximateSecondsBeforeTimedOut", 0, LONG_MAX),
        job_document=_document(reader),
    )


def _summaries(reader: _Reader, name: str) -> tuple[ExecutionSummary, ...]:
    value = reader.members.get(name, [])
    if not isinstance(value, list):
        raise reader.refusal(f"{name} must be an array.")
    summaries = []
    for item in value:
        if not isinstance(item, dict):
            raise reader.refusal(f"{name} must hold objects.")
        entry = _Reader(item, reader.token)
        summaries.append(
            ExecutionSummary(
                job_id=entry.text("jobId"),
                queued_at_s=entry.time("queuedAt"),
                last_updated_at_s=entry.time("lastUpdatedAt"),
                execution_number=entry.time("executionNumber"),
                version_number=entry.time("versionNumber"),
                started_at_s=entry.whole("startedAt", 0, LONG_MAX),
            )
        )
    return tuple(summaries)
