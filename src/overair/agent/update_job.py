"""What an execution asks of this device."""

from __future__ import annotations

from dataclasses import dataclass, replace

from overair.agent.reports import ExecutionId, ParserSubCode
from overair.agent.self_test import parse_version_word
from overair.wire.job_document import DocumentFile, MalformedDocument, TransferProtocol, parse
from overair.wire.job_message_parsing import parse_execution_reply


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


def read_job(payload: bytes, primary: TransferProtocol = TransferProtocol.MQTT) -> UpdateJob | None:
    """Read a reply to ``$next/get`` or a ``notify-next``; None where nothing is pending. A job that offers both protocols is
    done by ``primary``; the order in its document doesn't matter.

    Raises:
        MalformedMessage: the message itself can't be read.
        JobRefused: the job isn't an OTA update, or one that can't be followed.
    """
    execution = parse_execution_reply(payload).execution
    if execution is None or execution.job_document is None:
        return None
    name = ExecutionId(job_id=execution.job_id, number=execution.execution_number)
    try:
        document = parse(execution.job_document)
    except MalformedDocument as error:
        raise JobRefused(name, ParserSubCode.NON_CONFORMING_DOCUMENT, str(error)) from None
    firmware = [file for file in document.files if not file.file_type]
    if len(firmware) > 1:
        raise JobRefused(name, ParserSubCode.BAD_MODEL, "Two images can't both be installed.")
    chosen = primary if primary in document.protocols else document.protocols[0]
    over_mqtt = chosen is TransferProtocol.MQTT
    if not (document.stream_name if over_mqtt else all(file.url for file in document.files)):
        raise JobRefused(name, ParserSubCode.BAD_MODEL, "The job names neither a stream nor a URL for each file.")
    details = execution.status_details or {}
    return UpdateJob(
        execution=name,
        files=(*(file for file in document.files if file.file_type), *firmware),
        stream_name=document.stream_name if over_mqtt else None,
        self_test="self_test" in details,
        updated_by=parse_version_word(details.get("updatedBy")),
    )
