"""The seven codes of the 2018 guide's table, and how each plane spells them today (docs/behaviours.md)."""

from __future__ import annotations

import pytest

from overair.basics.errors import AccessDenied, AlreadyExists, Conflict, InvalidRequest, NotFound, VersionConflict
from overair.server.error_codes import Plane, code_for

SPELLINGS: dict[str, tuple[BaseException, dict[Plane, str]]] = {
    "ResourceAlreadyExist": (
        AlreadyExists("x"),
        {"iot": "ResourceAlreadyExistsException", "streams_2018": "ResourceAlreadyExist", "signer": "ConflictException"},
    ),
    "ResourceNotFound": (
        NotFound("x"),
        {
            "iot": "ResourceNotFoundException",
            "iot-jobs-data": "ResourceNotFoundException",
            "signer": "ResourceNotFoundException",
            "jobs_topic": "ResourceNotFound",
            "streams_topic": "ResourceNotFound",
            "streams_2018": "ResourceNotFound",
        },
    ),
    "InvalidRequest": (
        InvalidRequest("x"),
        {
            "iot": "InvalidRequestException",
            "iot-jobs-data": "InvalidRequestException",
            "signer": "ValidationException",
            "jobs_topic": "InvalidRequest",
            "streams_topic": "InvalidRequest",
            "streams_2018": "InvalidRequest",
        },
    ),
    "VersionConflict": (
        VersionConflict("x"),
        {
            "iot": "VersionConflictException",
            "jobs_topic": "VersionMismatch",
            "streams_topic": "VersionMismatch",
            "streams_2018": "VersionConflict",
        },
    ),
    "Unauthorized": (
        AccessDenied("x"),
        {"iot": "AccessDeniedException", "streams_topic": "Unauthorized", "streams_2018": "Unauthorized"},
    ),
    "StreamingFileConflict": (
        Conflict("x"),
        {"streams_topic": "ETagMismatch", "streams_2018": "StreamingFileConflict"},
    ),
    "InternalFailure": (
        ZeroDivisionError("x"),
        {
            "iot": "InternalFailureException",
            "iot-jobs-data": "InternalServerException",
            "signer": "InternalServiceErrorException",
            "jobs_topic": "InternalError",
            "streams_topic": "InternalError",
            "streams_2018": "InternalFailure",
        },
    ),
}


@pytest.mark.parametrize("code", SPELLINGS)
def test_each_code_of_2018_has_its_spelling_on_every_plane(code: str) -> None:
    error, spellings = SPELLINGS[code]
    assert {plane: code_for(plane, error) for plane in spellings} == spellings
