"""What an execution asks of this device."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, cast

from overair.agent.other_jobs import OtherJob
from overair.agent.reports import ExecutionId, ParserSubCode
from overair.agent.self_test import parse_version_word
from overair.wire.job_document import (
    JOB_DOCUMENT_DEPTH_MAX,
    JOB_DOCUMENT_SIZE_BYTES_MAX,
    DocumentFile,
    MalformedDocument,
    OtaDocument,
    TransferProtocol,
    parse,
)
from overair.wire.job_message_parsing import parse_execution_reply
from overair.wire.job_messages import DEPTH_MAX, PAYLOAD_SIZE_BYTES_MAX, ExecutionView, MalformedMessage, RejectionCode
from overair.wire.strict_json import MalformedJson, decode

_JOB_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_STREAM_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
"""Both become levels of topics: whatever else they might hold must not."""


class JobRefused(Exception):
    """A job that this device can't do at all; reported as a parser error with this sub code."""

    def __init__(self, execution: ExecutionId, sub_code: ParserSubCode, message: str) -> None:
        super().__init__(message)
        self.execution = execution
        self.sub_code = sub_code


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateJob:
    """One execution of an OTA update. Files come in the order of work: firmware, at most one, is the last."""

    execution: ExecutionId
    files: tuple[DocumentFile, ...]
    """Those that remain to be done."""
    files_total: int = 1
    stream_name: str | None
    """Where the blocks come from; None: each file has a URL instead."""
    self_test: bool
    """The server holds a ``self_test`` detail, whatever its value."""
    updated_by: int | None
    """Version word of the image that installed the one on trial."""

    @property
    def job_id(self) -> str:
        return self.execution.job_id

    @property
    def file(self) -> DocumentFile:
        """The file to work on."""
        return self.files[0]

    @property
    def installs_firmware(self) -> bool:
        """Its last file is a new image."""
        return not self.files[-1].file_type

    def without_first_file(self) -> UpdateJob | None:
        """What remains to do once the first file is in its place."""
        return replace(self, files=self.files[1:]) if len(self.files) > 1 else None

    def same_work(self, other: UpdateJob) -> bool:
        """The same execution of the same job: progress made for one holds for the other."""
        return self.execution == other.execution


def read_job(payload: bytes, primary: TransferProtocol = TransferProtocol.MQTT) -> UpdateJob | OtherJob | None:
    """Read a reply to ``$next/get`` or a ``notify-next``; None where nothing is pending. A job that offers both protocols is
    done by ``primary``; the order in its document doesn't matter.

    Raises:
        MalformedMessage: the message itself can't be read, not even whose execution it speaks of.
        JobRefused: an execution that can't be followed.
    """
    try:
        execution = parse_execution_reply(payload).execution
    except MalformedMessage as error:
        _refuse_by_name(payload, error.message)
        raise
    if execution is None:
        return None
    if _JOB_ID.fullmatch(execution.job_id) is None:
        raise MalformedMessage(RejectionCode.INVALID_REQUEST, f"{execution.job_id[:80]!r} can't be the id of a job.")
    name = ExecutionId(job_id=execution.job_id, number=execution.execution_number)
    if execution.job_document is None:
        raise JobRefused(name, ParserSubCode.NULL_JOB, "The execution has no document.")
    members = _members(name, execution.job_document)
    if "afr_ota" not in members:
        details = execution.status_details or {}
        return OtherJob(execution=name, document=members, status=execution.status, details=details)
    try:
        document = parse(execution.job_document)
    except MalformedDocument as error:
        sub_code = ParserSubCode.ZERO_FILE_SIZE if _names_an_empty_file(members) else ParserSubCode.NON_CONFORMING_DOCUMENT
        raise JobRefused(name, sub_code, str(error)) from None
    return _update(name, execution, document, primary)


def _update(name: ExecutionId, execution: ExecutionView, document: OtaDocument, primary: TransferProtocol) -> UpdateJob:
    firmware = [file for file in document.files if not file.file_type]
    if len(firmware) > 1:
        raise JobRefused(name, ParserSubCode.BAD_MODEL, "Two images can't both be installed.")
    chosen = primary if primary in document.protocols else document.protocols[0]
    over_mqtt = chosen is TransferProtocol.MQTT
    if not (document.stream_name if over_mqtt else all(file.url for file in document.files)):
        raise JobRefused(name, ParserSubCode.BAD_MODEL, "The job names neither a stream nor a URL for each file.")
    if over_mqtt and _STREAM_ID.fullmatch(document.stream_name or "") is None:
        raise JobRefused(name, ParserSubCode.NON_CONFORMING_DOCUMENT, "The stream's name can't be a level of a topic.")
    details = execution.status_details or {}
    return UpdateJob(
        execution=name,
        files=(*(file for file in document.files if file.file_type), *firmware),
        files_total=len(document.files),
        stream_name=document.stream_name if over_mqtt else None,
        self_test="self_test" in details,
        updated_by=parse_version_word(details.get("updatedBy")),
    )


def _members(name: ExecutionId, document: str) -> Mapping[str, object]:
    try:
        root = decode(document.encode(), size_bytes_max=JOB_DOCUMENT_SIZE_BYTES_MAX, depth_max=JOB_DOCUMENT_DEPTH_MAX)
    except MalformedJson as error:
        raise JobRefused(name, ParserSubCode.NON_CONFORMING_DOCUMENT, f"The job document can't be read: {error}") from None
    return cast("Mapping[str, object]", root)


def _names_an_empty_file(members: Mapping[str, object]) -> bool:
    body = members["afr_ota"]
    files = body.get("files") if isinstance(body, dict) else None
    return isinstance(files, list) and any(isinstance(file, dict) and file.get("filesize") == 0 for file in files)


def _refuse_by_name(payload: bytes, message: str) -> None:
    """A message that breaks a rule may still say whose execution it is: then that is told, and doesn't wait for its time-out.

    Raises:
        JobRefused: it does.
    """
    try:
        root = decode(payload, size_bytes_max=PAYLOAD_SIZE_BYTES_MAX, depth_max=DEPTH_MAX)
    except MalformedJson:
        return
    execution = root.get("execution") if isinstance(root, dict) else None
    job_id = execution.get("jobId") if isinstance(execution, dict) else None
    if isinstance(execution, dict) and isinstance(job_id, str) and _JOB_ID.fullmatch(job_id):
        number = execution.get("executionNumber")
        known = number if type(number) is int and 0 < number < 2**53 else None
        raise JobRefused(ExecutionId(job_id=job_id, number=known), ParserSubCode.NON_CONFORMING_DOCUMENT, message)
