"""Why a document isn't believed: the names that aktualizr uses where it has one (Uptane reference §5.5)."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """One rule that a document, or a set of documents, broke."""

    INVALID_METADATA = "InvalidMetadata"
    """Not JSON as we read it, a member missing or of the wrong type, a name that breaks its rule."""
    WRONG_TYPE = "WrongType"
    """``_type`` names another role."""
    UNSUPPORTED_METHOD = "UnsupportedMethod"
    """A signature without a method, or a method or kind of key that clients refuse the whole document for."""
    BAD_KEY_ID = "BadKeyId"
    """The only signature is by a key that the role doesn't have, or it doesn't verify."""
    UNMET_THRESHOLD = "UnmetThreshold"
    NON_UNIQUE_SIGNATURES = "NonUniqueSignatures"
    ILLEGAL_THRESHOLD = "IllegalThreshold"
    EXPIRED_METADATA = "ExpiredMetadata"
    ROOT_ROTATION = "RootRotationError"
    ROLLBACK = "Rollback"
    """Older than what is trusted already."""
    VERSION_MISMATCH = "VersionMismatch"
    """Not the version that the document above it names."""
    HASH_MISMATCH = "MetadataHashMismatch"
    """Not the bytes that the document above it names."""
    OVERSIZED = "OversizedMetadata"
    DELEGATION_MISSING = "DelegationMissing"
    DELEGATION_HASH_MISMATCH = "DelegationHashMismatch"
    TARGET_MISMATCH = "TargetMismatch"
    """Director and Image repository don't say the same of a target."""
    TARGET_HASH_MISMATCH = "TargetHashMismatch"
    OVERSIZED_TARGET = "OversizedTarget"
    TARGET_CONTENT_MISMATCH = "TargetContentMismatch"
    """A file name that is installed with other content."""
    BAD_ECU_ID = "BadEcuId"
    BAD_HARDWARE_ID = "BadHardwareId"
    OUT_OF_ORDER = "OutOfOrder"
    """Asked to believe a document before the one that vouches for it."""


class MetadataRefused(Exception):
    """A document that isn't believed. ``field``: the path of the offending member (``signed.keys.ab12``), if any."""

    def __init__(self, reason: Reason, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
