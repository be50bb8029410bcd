"""What is written down about a change. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from overair.basics.clock import Instant
from overair.basics.ids import AccountId


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """Who changed what, when, from where. Never what was in the request: that may be a secret."""

    account: AccountId
    at: Instant
    record_id: str
    """A UUID."""
    principal_arn: str
    access_key_id: str
    service: str
    operation: str
    resource: str
    """The ARN (or ``*``) that the operation was authorised for."""
    request_id: str
    source_ip: str
