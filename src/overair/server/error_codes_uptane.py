"""The rows of ``error_codes`` for plain REST: planes ``rest`` (operators) and ``device`` (the device door).

To add one: raise a kind of ``basics.errors`` with a subject, put ``(Kind, "subject"): "code"`` into the plane's rows (into
``_BOTH`` if operators and devices both can meet it), and give the code its status in ``STATUSES`` unless that is 400. A code
has one status wherever it stands. Codes that OTA Connect's clients know are spelt as there (Uptane reference §3.2, §3.4, §6.1,
§9.3, §12); ours follow their fashion. Refusals of the device door itself (``rest.operations.DeviceRefusal``) name their code
directly: those stand in ``STATUSES`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overair.basics.errors import (
    AccessDenied,
    AlreadyExists,
    Conflict,
    InvalidRequest,
    InvalidStateTransition,
    LimitExceeded,
    NotAuthenticated,
    NotFound,
    OverairError,
    PreconditionFailed,
    TerminalState,
    Throttled,
    Unavailable,
    Unsupported,
    VersionConflict,
)

Rows = Mapping[type[OverairError] | tuple[type[OverairError], str], str]

_BOTH: Final[Rows] = {
    InvalidRequest: "invalid_request",
    (InvalidRequest, "malformed-body"): "invalid_entity",
    (InvalidRequest, "incomplete-body"): "incomplete_body",
    (InvalidRequest, "body-too-large"): "entity_too_large",
    (InvalidRequest, "too-large"): "entity_too_large",
    (InvalidRequest, "content-length"): "length_required",
    (InvalidRequest, "digest"): "digest_mismatch",
    (InvalidRequest, "invalid-digest"): "digest_mismatch",
    (InvalidRequest, "body-sha256"): "digest_mismatch",
    (InvalidRequest, "path"): "invalid_path",
    (InvalidRequest, "path-too-long"): "path_too_long",
    (InvalidRequest, "method"): "method_not_allowed",
    (InvalidRequest, "range"): "range_not_satisfiable",
    NotFound: "missing_entity",
    (NotFound, "path"): "unknown_path",
    (NotFound, "root-role"): "root_role_not_found",
    AlreadyExists: "conflicting_entity",
    VersionConflict: "version_conflict",
    InvalidStateTransition: "invalid_state",
    TerminalState: "invalid_state",
    Conflict: "conflict",
    LimitExceeded: "limit_exceeded",
    PreconditionFailed: "precondition_failed",
    AccessDenied: "access_denied",
    NotAuthenticated: "invalid_credentials",
    Unsupported: "not_supported",
    Throttled: "too_many_requests",
    Unavailable: "temporarily_unavailable",
}

REST: Final[Rows] = {
    **_BOTH,
    (NotAuthenticated, "missing-token"): "missing_credentials",
    (NotAuthenticated, "bearer-token"): "invalid_token",
    # Signed documents that are pushed (§9.3, §9.4).
    (PreconditionFailed, "role-checksum"): "role_checksum_mismatch",
    (PreconditionFailed, "role-checksum-missing"): "role_checksum_not_provided",
    (InvalidRequest, "offline-targets"): "invalid_offline_targets",
    (InvalidRequest, "payload-signature"): "payload_signature_invalid",
    (InvalidRequest, "delegated-target"): "invalid_delegated_target",
    (InvalidRequest, "delegations-not-defined"): "delegations_not_defined",
    (VersionConflict, "version-bump"): "invalid_version_bump",
    (Conflict, "role-keys-offline"): "role_keys_not_found",
    # Assignments (§11).
    (Conflict, "assignment-in-flight"): "assignment_in_flight",
}

DEVICE: Final[Rows] = {
    **_BOTH,
    # Provisioning (§3.2, §12).
    (AlreadyExists, "device"): "device_already_registered",
    (InvalidRequest, "device-id"): "device_id_invalid",
    (InvalidRequest, "ttl"): "ttl_invalid",
    (InvalidRequest, "certificate-signing-request"): "certificate_signing_request_invalid",
    (InvalidRequest, "certificate-validation"): "certificate_signing_request_invalid",
    (Conflict, "shared-provisioning-off"): "shared_provisioning_off",
    (AccessDenied, "credential-revoked"): "credential_revoked",
    (AccessDenied, "credential-expired"): "credential_expired",
    (AccessDenied, "credential-exhausted"): "credential_exhausted",
    (AccessDenied, "device-blocked"): "device_blocked",
    (NotFound, "renewal"): "renewal_not_offered",
    # Registration of ECUs (§3.4).
    (InvalidRequest, "primary-not-listed"): "primary_is_not_listed_for_device",
    (AlreadyExists, "ecu"): "ecu_already_registered",
    (Conflict, "ecu-replacement"): "ecu_replacement_disabled",
    (Conflict, "ecu-reuse"): "ecu_reuse_not_allowed",
    (PreconditionFailed, "ecu-assignment"): "replace_ecu_assignment_exists",
    # Manifests (§6.1).
    (InvalidRequest, "manifest-signature"): "signature_not_valid",
    (InvalidRequest, "primary-ecu"): "ecu_not_primary",
}

INTERNAL: Final = "internal_server_error"

STATUSES: Final[Mapping[str, int]] = {
    "access_denied": 403,
    "assignment_in_flight": 409,
    "certificate_authority_expired": 403,
    "certificate_authority_withdrawn": 403,
    "certificate_chain_invalid": 403,
    "certificate_chain_too_deep": 403,
    "certificate_common_name_invalid": 403,
    "certificate_expired": 403,
    "certificate_inactive": 403,
    "certificate_not_yet_valid": 403,
    "certificate_required": 401,
    "certificate_revoked": 403,
    "certificate_unknown": 403,
    "certificate_unreadable": 403,
    "certificate_with_several_common_names": 403,
    "certificate_without_common_name": 403,
    "certificate_without_thing": 403,
    "certificate_wrong_purpose": 403,
    "conflict": 409,
    "conflicting_entity": 409,
    "credential_exhausted": 403,
    "credential_expired": 403,
    "credential_not_allowed_here": 403,
    "credential_revoked": 403,
    "device_already_registered": 409,
    "device_awaits_approval": 403,
    "device_blocked": 403,
    "device_certificate_not_allowed_here": 403,
    "device_key_mismatch": 403,
    "device_not_registered": 403,
    "ecu_already_registered": 409,
    "ecu_replacement_disabled": 409,
    "ecu_reuse_not_allowed": 409,
    "entity_too_large": 413,
    "foreign_certificate_authority": 403,
    "internal_server_error": 500,
    "invalid_credentials": 401,
    "invalid_state": 409,
    "invalid_token": 401,
    "invalid_version_bump": 409,
    "length_required": 411,
    "limit_exceeded": 409,
    "method_not_allowed": 405,
    "missing_credentials": 401,
    "missing_entity": 404,
    "path_too_long": 414,
    "precondition_failed": 412,
    "range_not_satisfiable": 416,
    "replace_ecu_assignment_exists": 412,
    "role_checksum_mismatch": 412,
    "role_checksum_not_provided": 428,
    "renewal_not_offered": 404,
    "role_keys_not_found": 412,
    "root_role_not_found": 404,
    "shared_provisioning_off": 403,
    "temporarily_unavailable": 503,
    "too_many_requests": 429,
    "unknown_path": 404,
    "version_conflict": 409,
}
"""What isn't here is 400."""
