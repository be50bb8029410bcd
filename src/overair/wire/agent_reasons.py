"""What an agent's ``statusDetails`` mean, for people. The codes are those of the C agent (wire reference §7.3, §7.6)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

AGENT_CODES: Final[Mapping[int, str]] = {
    0x06: "it could not ask for its job",
    0x07: "it could not begin the transfer",
    0x08: "it could not ask for blocks",
    0x0B: "it could not report its status",
    0x0C: "the job document could not be used",
    0x0D: "the document names no protocol that the device speaks",
    0x0E: "too many requests for blocks stayed unanswered",
    0x0F: "the image is older than the one that runs, and downgrades aren't allowed",
    0x10: "the image has the same version as the one that runs",
    0x11: "the new image did not last: the device went back to the one before",
    0x12: "there is no job to act on",
    0x13: "the application aborted it",
    0x14: "a request could not be encoded as CBOR",
    0x15: "a block could not be decoded as CBOR",
    0x16: "the new image could not be activated",
    0x17: "the file is larger than the device can count",
    0xE0: "the platform layer was not ready, or a block was out of range or undecodable",
    0xE1: "the device ran out of memory",
    0xE2: "the platform layer was called without a file",
    0xE3: "the image's signature does not verify",
    0xE4: "the image file could not be made",
    0xE5: "the image is too large for the device",
    0xE6: "the boot information could not be written",
    0xE7: "the signer's certificate on the device could not be used",
    0xE8: "the platform can't be in that image state",
    0xE9: "aborting failed",
    0xEA: "rejecting the image failed",
    0xEB: "committing the image failed",
    0xEC: "activating the image failed",
    0xED: "the half-received file could not be dropped",
    0xEE: "the received file could not be closed",
    0xF0: "the image is encrypted and could not be decrypted",
}
"""Those up to 0xEE are the C agent's, those above are ours."""
DECRYPTION_CODES: Final[Mapping[int, str]] = {
    1: "none of its recipients' keys is on the device",
    2: "the head of the encrypted image can't be read",
    3: "a part of it was changed, moved or cut off",
    4: "its format is unknown to the device",
}
"""Second word after ``0x000000f0``."""
DECRYPTION_FAILED: Final = 0xF0
DOCUMENT_CODES: Final[Mapping[int, str]] = {
    1: "there was no document",
    3: "the file size is zero",
    4: "it is no OTA document, or a field is missing or malformed",
    5: "the file is too large for the device's block bitmap",
    7: "there is no active job",
}
"""Second word after ``0x0000000c``."""
_JOB_PARSER_ERROR: Final = 0x0C

OLD_AGENT_CODES: Final[Mapping[int, str]] = {
    0x01: "the image's signature does not verify",
    0x02: "the signer's certificate on the device could not be used",
    0x03: "the device ran out of memory",
    0x04: "the new image could not be activated",
    0x05: "committing the image failed",
    0x06: "rejecting the image failed",
    0x07: "aborting failed",
    0x08: "it could not publish",
    0x09: "the platform can't be in that image state",
    0x0A: "there is no job to act on",
    0x0B: "it has no room for another file",
    0x0C: "it could not begin the transfer over HTTP",
    0x0D: "a request over HTTP failed",
    0x10: "the half-received file could not be dropped",
    0x11: "the received file could not be closed",
    0x12: "the image file could not be made",
    0x13: "the boot information could not be written",
    0x14: "the image is too large for the device",
    0x20: "the platform layer was called without a file",
    0x21: "too many requests for blocks stayed unanswered",
    0x22: "the image is older than the one that runs, and downgrades aren't allowed",
    0x23: "the image has the same version as the one that runs",
    0x24: "the job document could not be used",
    0x25: "a request could not be encoded as CBOR",
    0x26: "the new image did not last: the device went back to the one before",
    0x27: "a block could not be taken in",
    0x28: "the application aborted it",
    0x29: "the device can't restart by itself",
    0x2A: "a topic is longer than the device's buffer",
    0x2B: "the timer of the self-test could not be started",
    0x2C: "the agent's queue of events was full",
    0x2D: "the document names no protocol that the device speaks",
    0x2E: "the agent was stopped",
}
"""Of the agents before 2021, which write a main code above 24 bits of its own (``kOTA_Err_…`` of amazon-freertos)."""
OLD_DOCUMENT_CODES: Final[Mapping[int, str]] = {
    1: "it was busy with another job",
    2: "it has no job id",
    3: "it was busy with this job already",
    4: "the file size is zero",
    5: "it is no OTA document, or a field is missing or malformed",
    6: "the device's own description of documents is wrong",
    7: "it has no room for another file",
    8: "there is no active job",
}
"""Second word after ``0x24000000``."""
_OLD_JOB_PARSER_ERROR: Final = 0x24000000


class TrustRefusal(IntEnum):
    """Second word after ``0x000000e7`` where a device was sent certificates of signers and didn't take them."""

    NO_DOCUMENT = 0x540001
    OTHER_NAME = 0x540002
    NOT_NEWER = 0x540003
    STILL_NEEDED = 0x540004


TRUST_REFUSALS: Final[Mapping[int, str]] = {
    TrustRefusal.NO_DOCUMENT: "what was sent is no trust document",
    TrustRefusal.OTHER_NAME: "the trust document is for another name",
    TrustRefusal.NOT_NEWER: "the trust document is older than what the device has",
    TrustRefusal.STILL_NEEDED: "an image that the device boots was signed by a certificate that would go",
}
_BAD_SIGNER_CERTIFICATE: Final = 0xE7

_OF_SIGNATURES: Final = frozenset({0xE3, 0xE7})
_OLD_OF_SIGNATURES: Final = frozenset({0x01, 0x02})
"""Main words of agents before 2021."""

_ENDED: Final = re.compile(r"(rejected|aborted): 0x([0-9a-fA-F]{1,8})")
_FAILED: Final = re.compile(r"0x([0-9a-fA-F]{1,8}): (0x[0-9a-fA-F]{1,8}|-?[0-9]{1,10})")
_RECEIVED: Final = re.compile(r"(\d{1,10})/(\d{1,10})")
_ACCEPTED: Final = re.compile(r"accepted\s+v(\S+)")
_STORED: Final = re.compile(r"accepted v0\.0\.([0-9]{1,3})")
_NO_FIRMWARE: Final = "v0.0.0"


def reason_in_words(reason: str, *, updated_by: str = "") -> str:
    """A ``reason`` of an execution that has ended, decoded; one in other words is given back as it is.

    ``rejected: 0x0000000f`` → ``rejected: the image is older than …``. The device's own text stays behind it in brackets.
    ``updated_by`` is the ``updatedBy`` beside it: it tells a file that was stored from firmware that runs.
    """
    text = " ".join(reason.split())
    ended = _ENDED.fullmatch(text)
    if ended is not None:
        return f"{ended[1]}: {_code_in_words(int(ended[2], 16))} [{text}]"
    failed = _FAILED.fullmatch(text)
    if failed is not None:
        # Agents before 2021 write the second word as a decimal number.
        main, sub = int(failed[1], 16), int(failed[2], 16 if failed[2].startswith("0x") else 10)
        words = _code_in_words(main)
        if main == _JOB_PARSER_ERROR and sub in DOCUMENT_CODES:
            words = f"{words}: {DOCUMENT_CODES[sub]}"
        elif main == DECRYPTION_FAILED and sub in DECRYPTION_CODES:
            words = f"{words}: {DECRYPTION_CODES[sub]}"
        elif main == _OLD_JOB_PARSER_ERROR and sub in OLD_DOCUMENT_CODES:
            words = f"{words}: {OLD_DOCUMENT_CODES[sub]}"
        elif main == _BAD_SIGNER_CERTIFICATE and sub in TRUST_REFUSALS:
            words = TRUST_REFUSALS[sub]
        elif sub:
            words = f"{words} (detail {sub:#x})"
        return f"{words} [{text}]"
    stored = _STORED.fullmatch(text)
    if stored is not None and updated_by.strip() == _NO_FIRMWARE:
        return f"stored as a file of type {stored[1]} [{text}]"
    accepted = _ACCEPTED.fullmatch(text)
    if accepted is not None:
        return f"accepted version {accepted[1]}"
    return text


def blocks_received(details: Mapping[str, str]) -> tuple[int, int] | None:
    """(received, total) where the agent has said so: ``receive`` reads ``64/256``."""
    match = _RECEIVED.fullmatch(details.get("receive", ""))
    return (int(match[1]), int(match[2])) if match is not None else None


def is_signature_refusal(reason: str) -> bool:
    """Whether a device says that the signature doesn't verify, or that it has no certificate to verify it with."""
    failed = _FAILED.fullmatch(" ".join(reason.split()))
    if failed is None:
        return False
    main = int(failed[1], 16)
    if main == _BAD_SIGNER_CERTIFICATE and failed[2].startswith("0x") and int(failed[2], 16) in TRUST_REFUSALS:
        return False  # it verified what it was sent, and didn't want it
    return main in _OF_SIGNATURES or (main > 0xFFFFFF and (main >> 24) in _OF_SIGNATURES | _OLD_OF_SIGNATURES)


def _code_in_words(code: int) -> str:
    if code > 0xFFFFFF:
        # A platform layer's word: its main code above 24 bits of its own.
        main, sub = code >> 24, code & 0xFFFFFF
        known = OLD_AGENT_CODES.get(main) or AGENT_CODES.get(main, f"code {main:#x}")
        return known + (f" (detail {sub:#x})" if sub else "")
    return AGENT_CODES.get(code, "the application gave no code" if code == 0 else f"code {code:#x}")
