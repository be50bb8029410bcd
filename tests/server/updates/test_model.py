from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.basics.errors import InvalidStateTransition
from overair.basics.ids import AccountId, StreamId
from overair.server.updates.model import MAY_BECOME, UNFINISHED, Failure, FileProgress, Update, UpdateStatus
from overair.server.updates.plan import plan_of
from overair.server.updates.steps import Step

PLAN = plan_of(
    {
        "otaUpdateId": "rel-7",
        "targets": ["arn:aws:iot:us-east-1:123456789012:thing/t"],
        "files": [{"fileName": "f", "fileLocation": {"s3Location": {"bucket": "b", "key": "k"}}}],
        "roleArn": "arn:aws:iam::123456789012:role/ota",
    }
)


def update(status: UpdateStatus) -> Update:
    return Update(
        account=AccountId("123456789012"),
        region="us-east-1",
        plan=PLAN,
        status=status,
        step=Step.ASSUME_ROLE,
        stream=StreamId("AFR_OTA-x"),
        stream_made=False,
        progress=(FileProgress(),),
        failure=None,
        created_by="arn",
        created_at=Instant(0),
        modified_at=Instant(0),
    )


@given(start=st.sampled_from(UpdateStatus), end=st.sampled_from(UpdateStatus))
def test_an_update_moves_as_its_table_says(start: UpdateStatus, end: UpdateStatus) -> None:
    if end in MAY_BECOME[start]:
        assert update(start).become(end, now=Instant(1)).status is end
    else:
        with pytest.raises(InvalidStateTransition):
            update(start).become(end, now=Instant(1))


def test_only_what_is_unfinished_can_fail() -> None:
    for status in UpdateStatus:
        if status in UNFINISHED:
            failed = update(status).failed(Failure(code="c", message="m"), now=Instant(1))
            assert (failed.status, failed.step) == (UpdateStatus.CREATE_FAILED, Step.COMPLETE)
        else:
            with pytest.raises(InvalidStateTransition):
                update(status).failed(Failure(code="c", message="m"), now=Instant(1))


def test_the_names_of_what_an_update_makes_follow_from_its_own() -> None:
    made = update(UpdateStatus.CREATE_PENDING)
    assert made.job == "AFR_OTA-rel-7"
    assert made.job_arn == "arn:aws:iot:us-east-1:123456789012:job/AFR_OTA-rel-7"
    assert made.arn == "arn:aws:iot:us-east-1:123456789012:otaupdate/rel-7"
    assert made.is_unsigned
