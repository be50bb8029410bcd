"""Jobs messages, both directions, with the payloads of the wire reference (§2)."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.wire import job_message_parsing as parsing
from overair.wire.job_document import (
    TOKENS_MAX,
    DocumentFile,
    FileSignature,
    HashAlgorithm,
    OtaDocument,
    SignatureAlgorithm,
    TransferProtocol,
    build,
    count_tokens,
)
from overair.wire.job_messages import (
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
    describe_topic,
)

SUMMARY_A = ExecutionSummary(
    job_id="A",
    queued_at_s=1699999000,
    started_at_s=1699999100,
    last_updated_at_s=1699999100,
    execution_number=1,
    version_number=2,
)
SUMMARY_B = ExecutionSummary(
    job_id="B", queued_at_s=1699999500, last_updated_at_s=1699999500, execution_number=1, version_number=1
)


def test_the_pending_reply_is_the_reference_byte_for_byte() -> None:
    reply = PendingReply(client_token="c-1", timestamp_s=1700000000, in_progress=(SUMMARY_A,), queued=(SUMMARY_B,))
    assert reply.to_json() == (
        b'{"clientToken":"c-1","timestamp":1700000000,'
        b'"inProgressJobs":[{"jobId":"A","queuedAt":1699999000,"startedAt":1699999100,"lastUpdatedAt":1699999100,'
        b'"executionNumber":1,"versionNumber":2}],'
        b'"queuedJobs":[{"jobId":"B","queuedAt":1699999500,"lastUpdatedAt":1699999500,"executionNumber":1,"versionNumber":1}]}'
    )
    assert parsing.parse_pending_reply(reply.to_json()) == reply


def test_the_describe_reply_is_the_reference_byte_for_byte() -> None:
    reply = ExecutionReply(
        client_token="0:dev-1",
        timestamp_s=1700000000,
        execution=ExecutionView(
            job_id="AFR_OTA-rel-7",
            thing_name="dev-1",
            status=ExecutionStatus.QUEUED,
            status_details={"self_test": "ready", "updatedBy": "0x01000000"},
            queued_at_s=1699999000,
            started_at_s=1699999100,
            last_updated_at_s=1699999100,
            version_number=1,
            execution_number=1,
            approximate_seconds_before_timed_out=3541,
            job_document='{"afr_ota":{}}',
        ),
    )
    assert reply.to_json() == (
        b'{"clientToken":"0:dev-1","timestamp":1700000000,'
        b'"execution":{"jobId":"AFR_OTA-rel-7","thingName":"dev-1","status":"QUEUED",'
        b'"statusDetails":{"self_test":"ready","updatedBy":"0x01000000"},'
        b'"queuedAt":1699999000,"startedAt":1699999100,"lastUpdatedAt":1699999100,'
        b'"versionNumber":1,"executionNumber":1,"approximateSecondsBeforeTimedOut":3541,'
        b'"jobDocument":{"afr_ota":{}}}}'
    )
    assert parsing.parse_execution_reply(reply.to_json()) == reply


def test_an_empty_queue_has_token_and_timestamp_only() -> None:
    assert ExecutionReply(client_token="0:dev-1", timestamp_s=1700000000).to_json() == (
        b'{"clientToken":"0:dev-1","timestamp":1700000000}'
    )
    assert parsing.parse_execution_reply(b'{"timestamp":1700000000,"execution":{}}') == ExecutionReply(timestamp_s=1700000000)


def test_the_update_reply_and_the_rejection_are_the_reference_byte_for_byte() -> None:
    state = ExecutionState(status=ExecutionStatus.IN_PROGRESS, version_number=3, status_details={"receive": "64/100"})
    assert UpdateReply(timestamp_s=1700000000).to_json() == b'{"timestamp":1700000000}'
    reply = UpdateReply(client_token="c", timestamp_s=1, execution_state=state, job_document='{"a":1}')
    assert reply.to_json() == (
        b'{"clientToken":"c","timestamp":1,"executionState":{"status":"IN_PROGRESS","statusDetails":{"receive":"64/100"},'
        b'"versionNumber":3},"jobDocument":{"a":1}}'
    )
    assert parsing.parse_update_reply(reply.to_json()) == reply
    rejection = Rejection(
        client_token="c-9",
        timestamp_s=1700000000,
        code=RejectionCode.VERSION_MISMATCH,
        message="Expected version 2 does not match current version 3",
        execution_state=state,
    )
    assert rejection.to_json() == (
        b'{"clientToken":"c-9","timestamp":1700000000,"code":"VersionMismatch",'
        b'"message":"Expected version 2 does not match current version 3",'
        b'"executionState":{"status":"IN_PROGRESS","statusDetails":{"receive":"64/100"},"versionNumber":3}}'
    )
    assert parsing.parse_rejection(rejection.to_json()) == rejection


def test_notify_has_a_status_key_only_for_statuses_with_entries() -> None:
    assert PendingChanged(timestamp_s=1700000000).to_json() == b'{"timestamp":1700000000,"jobs":{}}'
    changed = PendingChanged(timestamp_s=1700000000, queued=(SUMMARY_B,))
    assert list(json.loads(changed.to_json())["jobs"]) == ["QUEUED"]
    assert parsing.parse_pending_changed(changed.to_json()) == changed


def test_the_agents_odd_token_comes_back_unchanged() -> None:
    assert parsing.parse_describe_request(b'{"clientToken":":dev-1"}') == DescribeRequest(client_token=":dev-1")


def test_no_bytes_count_as_an_empty_object() -> None:
    assert parsing.parse_describe_request(b"") == DescribeRequest()
    assert parsing.parse_pending_request(b"") == PendingRequest()


@pytest.mark.parametrize("version", ["1", '"1"'])
def test_an_expected_version_may_be_a_number_or_its_digits_in_a_string(version: str) -> None:
    request = parsing.parse_update_request(b'{"status":"SUCCEEDED","expectedVersion":' + version.encode() + b"}")
    assert request.expected_version == 1


@pytest.mark.parametrize(
    "payload",
    [
        b'{"status":"QUEUED"}',
        b'{"status":"CANCELED"}',
        b'{"status":"in_progress"}',
        b"{}",
        b'{"status":"IN_PROGRESS","statusDetails":{"a":1}}',
        b'{"status":"IN_PROGRESS","statusDetails":{"a b":"c"}}',
        b'{"status":"IN_PROGRESS","statusDetails":{"a":""}}',
        b'{"status":"IN_PROGRESS","statusDetails":{"a":"x\\u0007"}}',
        b'{"status":"IN_PROGRESS","statusDetails":{"a":"\\u200b"}}',
        b'{"status":"IN_PROGRESS","statusDetails":[]}',
        b'{"status":"IN_PROGRESS","expectedVersion":"one"}',
        b'{"status":"IN_PROGRESS","expectedVersion":1.5}',
        b'{"status":"IN_PROGRESS","stepTimeoutInMinutes":0}',
        b'{"status":"IN_PROGRESS","stepTimeoutInMinutes":10081}',
        b'{"status":"IN_PROGRESS","includeJobDocument":"yes"}',
        b'{"status":"IN_PROGRESS","clientToken":"' + b"x" * 65 + b'"}',
        b'{"status":"IN_PROGRESS","statusDetails":' + json.dumps({str(n): "v" for n in range(11)}).encode() + b"}",
        b'{"status":"IN_PROGRESS","statusDetails":{"a":"' + b"x" * 1025 + b'"}}',
    ],
)
def test_a_request_that_breaks_a_rule_is_an_invalid_request(payload: bytes) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parsing.parse_update_request(payload)
    assert caught.value.code is RejectionCode.INVALID_REQUEST


@pytest.mark.parametrize("payload", [b"{", b"[]", b"\xff", b'{"a":1,"a":2}', b"nul", b'{"a":NaN}', b"1", b"[" * 100000])
def test_what_is_no_json_object_is_invalid_json(payload: bytes) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parsing.parse_update_request(payload)
    assert caught.value.code is RejectionCode.INVALID_JSON
    assert caught.value.client_token is None


def test_status_details_may_hold_any_printable_text_and_spaces_of_any_language() -> None:
    details = {"reason": "accepted  v2.0.0", "where": "K\u00f6ln\u00a0\u6771\u4eac", "a:b_c-d": "x" * 1024}
    payload = json.dumps({"status": "FAILED", "statusDetails": details}).encode()
    assert parsing.parse_update_request(payload).status_details == details


TOKENS = st.none() | st.text(st.characters(blacklist_categories=("Cs",)), max_size=16)
DETAILS = st.none() | st.dictionaries(st.from_regex(r"\A[a-zA-Z0-9:_-]{1,8}\Z"), st.from_regex(r"\A[ -~]{1,20}\Z"), max_size=10)
START_STEP = st.none() | st.integers(1, 10080)
STEP = START_STEP | st.just(-1)


@given(
    request=st.builds(
        UpdateRequest,
        status=st.sampled_from(["IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"]).map(ExecutionStatus),
        client_token=TOKENS,
        status_details=DETAILS,
        expected_version=st.none() | st.integers(0, 2**63 - 1),
        execution_number=st.none() | st.integers(0, 2**63 - 1),
        include_job_execution_state=st.booleans(),
        include_job_document=st.booleans(),
        step_timeout_minutes=STEP,
    )
)
def test_an_update_survives_the_round_trip(request: UpdateRequest) -> None:
    assert parsing.parse_update_request(request.to_json()) == request


@given(
    describe=st.builds(
        DescribeRequest,
        client_token=TOKENS,
        execution_number=st.none() | st.integers(0, 9),
        include_job_document=st.booleans(),
    ),
    start=st.builds(StartNextRequest, client_token=TOKENS, status_details=DETAILS, step_timeout_minutes=START_STEP),
    pending=st.builds(PendingRequest, client_token=TOKENS),
)
def test_the_other_requests_survive_the_round_trip(
    describe: DescribeRequest, start: StartNextRequest, pending: PendingRequest
) -> None:
    assert parsing.parse_describe_request(describe.to_json()) == describe
    assert parsing.parse_start_next_request(start.to_json()) == start
    assert parsing.parse_pending_request(pending.to_json()) == pending


PARSERS = [
    parsing.parse_pending_request,
    parsing.parse_describe_request,
    parsing.parse_start_next_request,
    parsing.parse_update_request,
    parsing.parse_execution_reply,
    parsing.parse_pending_reply,
    parsing.parse_pending_changed,
    parsing.parse_update_reply,
    parsing.parse_rejection,
]
KEYS = [
    "clientToken",
    "status",
    "statusDetails",
    "execution",
    "timestamp",
    "jobs",
    "executionState",
    "jobId",
    "expectedVersion",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=10,
)


@given(payload=st.binary(max_size=200) | st.dictionaries(st.sampled_from(KEYS), VALUES).map(lambda v: json.dumps(v).encode()))
def test_every_parser_meets_arbitrary_bytes_with_its_own_error_alone(payload: bytes) -> None:
    for parse in PARSERS:
        with contextlib.suppress(MalformedMessage):
            parse(payload)


def test_a_lone_surrogate_is_invalid_json() -> None:
    with pytest.raises(MalformedMessage):
        parsing.parse_pending_request(b'{"clientToken":"\\ud800"}')


def test_the_describe_topic_keeps_next() -> None:
    assert describe_topic("dev-1") == "$aws/things/dev-1/jobs/$next/get"


def test_the_fullest_reply_with_a_one_file_document_is_read_by_agents_of_2018() -> None:
    """Checklist 23, 24 and 59: few tokens, no key twice, no top-level key named like a file's, small."""
    file = DocumentFile(
        path="/device/updates",
        size_bytes=409600,
        file_id=0,
        certificate_path="/certificates/authcert.pem",
        file_type=0,
        signature=FileSignature(
            hash_algorithm=HashAlgorithm.SHA256, signature_algorithm=SignatureAlgorithm.ECDSA, value=bytes(72)
        ),
        url="https://host/" + "x" * 900,
        auth_scheme="aws.s3.presigned",
    )
    document = OtaDocument(
        protocols=(TransferProtocol.MQTT, TransferProtocol.HTTP), files=(file,), stream_name="AFR_OTA-" + "0" * 36
    )
    view = ExecutionView(
        job_id="AFR_OTA-rel-7",
        status=ExecutionStatus.IN_PROGRESS,
        status_details={"self_test": "ready", "updatedBy": "0x01000000"},
        queued_at_s=1,
        started_at_s=2,
        last_updated_at_s=3,
        version_number=4,
        execution_number=5,
        approximate_seconds_before_timed_out=6,
        job_document=build(document),
    )
    raw = ExecutionReply(client_token="0:dev-1", timestamp_s=1700000000, execution=view).to_json()
    keys: list[str] = []
    reply = json.loads(raw, object_pairs_hook=lambda pairs: keys.extend(key for key, _ in pairs) or dict(pairs))
    assert count_tokens(reply) <= TOKENS_MAX
    assert len(keys) == len(set(keys))
    assert set(reply) == {"clientToken", "timestamp", "execution"}
    assert len(raw) <= 4096 + 1530
