"""Why aktualizr refuses metadata, by the names that its log gives (Uptane reference §5.5)."""

from __future__ import annotations


class UptaneError(Exception):
    """Any of them."""


class SecurityException(UptaneError):
    """Rollback, a wrong type, a method that isn't known."""


class MetadataFetchFailure(UptaneError):
    pass


class InvalidMetadata(UptaneError):
    pass


class ExpiredMetadata(UptaneError):
    pass


class BadKeyId(UptaneError):
    """One signature, and it is no good."""


class UnmetThreshold(UptaneError):
    pass


class NonUniqueSignatures(UptaneError):
    pass


class IllegalThreshold(UptaneError):
    pass


class RootRotationError(UptaneError):
    pass


class VersionMismatch(UptaneError):
    pass


class TargetMismatch(UptaneError):
    pass


class TargetContentMismatch(UptaneError):
    pass


class BadEcuId(UptaneError):
    pass


class BadHardwareId(UptaneError):
    pass


class DelegationMissing(UptaneError):
    pass


class DelegationHashMismatch(UptaneError):
    pass
