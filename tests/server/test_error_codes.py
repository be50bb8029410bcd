"""The table of codes against the models and the reference."""

from __future__ import annotations

import pytest

from overair.basics import errors
from overair.server.aws_protocol.models import SERVICES, load_model
from overair.server.error_codes import CODES, HTTP_STATUSES, INTERNAL_FAILURE, as_named_by, code_for

COMMON = {
    # What the cloud answers for every service, in no model (wire reference §10.2), and our own NotImplementedException.
    "AccessDeniedException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "IncompleteSignatureException",
    "RequestExpired",
    "UnrecognizedClientException",
    "ExpiredTokenException",
    "NotImplementedException",
    "UnknownOperationException",
    "SerializationException",
    "RequestEntityTooLargeException",
    "InternalFailure",
    "ServiceUnavailable",
}


@pytest.mark.parametrize("service", [name for name in SERVICES if name not in ("s3", "iam", "sts")])
def test_every_code_is_one_of_the_services_model_or_common_to_all(service: str) -> None:
    model = load_model(service)
    told = {*CODES[service].values(), INTERNAL_FAILURE[service]}  # type: ignore[index]
    assert told - model.error_shapes.keys() - COMMON == set()


@pytest.mark.parametrize(
    ("plane", "error", "code"),
    [
        ("iot", errors.NotFound("x", subject="thing"), "ResourceNotFoundException"),
        ("iot", errors.InvalidRequest("x", subject="policy"), "MalformedPolicyException"),
        ("iot-jobs-data", errors.VersionConflict("x"), "InvalidRequestException"),
        ("jobs_topic", errors.VersionConflict("x"), "VersionMismatch"),
        ("streams_2018", errors.VersionConflict("x"), "VersionConflict"),
        ("s3", errors.NotFound("x", subject="bucket"), "NoSuchBucket"),
        ("s3", errors.NotAuthenticated("x", subject="signature"), "SignatureDoesNotMatch"),
        ("sts", errors.NotAuthenticated("x", subject="access-key"), "InvalidClientTokenId"),
        ("acm", errors.Unavailable("x"), "ServiceUnavailable"),
        ("rest", errors.PreconditionFailed("x", subject="role-checksum"), "role_checksum_mismatch"),
        ("device", errors.NotFound("x", subject="root-role"), "root_role_not_found"),
        ("device", errors.AlreadyExists("x", subject="device"), "device_already_registered"),
        ("iot", ZeroDivisionError(), "InternalFailureException"),
        ("iam", errors.TerminalState("x"), "ServiceFailure"),
    ],
)
def test_a_kind_and_its_subject_have_one_code_in_each_plane(plane: str, error: Exception, code: str) -> None:
    assert code_for(plane, error) == code  # type: ignore[arg-type]


def test_a_kind_of_its_own_counts_as_its_parent() -> None:
    class Vanished(errors.NotFound):
        pass

    assert code_for("iot", Vanished("x")) == "ResourceNotFoundException"


def test_statuses_of_the_iot_model_are_the_references() -> None:
    statuses = load_model("iot").error_statuses
    assert statuses["LimitExceededException"] == 410
    assert statuses["CertificateStateException"] == 406
    assert statuses["UnauthorizedException"] == 401
    assert statuses["ThrottlingException"] == 400
    assert load_model("iot-jobs-data").error_statuses["ThrottlingException"] == 429


def test_only_our_own_failures_are_5xx() -> None:
    fives = {code for code, status in HTTP_STATUSES.items() if status >= 500}
    assert fives == {
        "InternalError",
        "InternalFailure",
        "InternalFailureException",
        "InternalServerException",
        "InternalServiceErrorException",
        "ServiceFailure",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "SlowDown",
        "clock_went_back",
        "internal_server_error",
        "temporarily_unavailable",
    }


@pytest.mark.parametrize("plane", ["rest", "device"])
def test_plain_rest_has_a_code_for_every_kind(plane: str) -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.OverairError)]
    rows = CODES[plane]  # type: ignore[index]
    assert {kind for kind in kinds if kind is not errors.OverairError} <= rows.keys()
    assert HTTP_STATUSES[INTERNAL_FAILURE[plane]] == 500  # type: ignore[index]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("role_checksum_mismatch", 412),
        ("role_checksum_not_provided", 428),
        ("role_keys_not_found", 412),
        ("invalid_version_bump", 409),
        ("root_role_not_found", 404),
        ("device_already_registered", 409),
        ("ecu_replacement_disabled", 409),
        ("replace_ecu_assignment_exists", 412),
        ("ecu_reuse_not_allowed", 409),
        ("assignment_in_flight", 409),
        ("device_blocked", 403),
    ],
)
def test_statuses_of_plain_rest_are_the_references(code: str, status: int) -> None:
    """Uptane reference §3.2, §3.4, §9.3, §11, §12; those with 400 are left out of the table."""
    assert HTTP_STATUSES[code] == status


@pytest.mark.parametrize(
    "code", ["invalid_offline_targets", "payload_signature_invalid", "signature_not_valid", "primary_is_not_listed_for_device"]
)
def test_what_is_wrong_in_a_body_is_400(code: str) -> None:
    assert code not in HTTP_STATUSES
    assert code in {*CODES["rest"].values(), *CODES["device"].values()}


def test_a_newer_operation_is_refused_by_a_name_that_its_model_has() -> None:
    """Of the operations of ``iot`` whose models know no ``InvalidRequestException``."""
    operations = load_model("iot").operations.values()
    newer = [operation for operation in operations if "ValidationException" in operation.errors]
    assert {"CreatePackage", "GetPackageVersion", "UpdatePackageConfiguration"} <= {operation.name for operation in newer}
    for operation in newer:
        for code in ("InvalidRequestException", "ResourceNotFoundException", "ConflictException"):
            assert as_named_by(operation.errors, code) in operation.errors
    for operation in operations:
        if operation not in newer:
            assert as_named_by(operation.errors, "InvalidRequestException") == "InvalidRequestException"
