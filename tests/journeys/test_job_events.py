"""What an account hears of its jobs on ``$aws/events/…``, by a real client, from the making of a job to its end."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.field_device import Device, Identity, enroll
from tests.support.server_process import ServerProcess


@pytest.fixture
def watcher(server: ServerProcess, tmp_path: Path) -> Iterator[Device]:
    """A monitoring application: it may hear events, and nothing else."""
    region, account = server.endpoints["region"], server.endpoints["account"]
    arn = f"arn:aws:iot:{region}:{account}"
    statements = [
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": f"{arn}:client/*"},
        {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": f"{arn}:topicfilter/$aws/events/job*"},
        {"Effect": "Allow", "Action": "iot:Receive", "Resource": f"{arn}:topic/$aws/events/job*"},
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    identity = enroll(server, tmp_path, f"watcher-{uuid.uuid4().hex}", policy_document=policy)
    with Device(server, identity) as device:
        assert [code.value for code in device.subscribe("$aws/events/job/#", "$aws/events/jobExecution/#")] == [1, 1]
        yield device


@contextmanager
def told_of(server: ServerProcess, **kinds: bool) -> Iterator[None]:
    """Event configurations for a while; the server is shared."""
    iot = server.client("iot")

    def configure(wanted: dict[str, bool]) -> None:
        iot.update_event_configurations(eventConfigurations={kind: {"Enabled": on} for kind, on in wanted.items()})

    configure(kinds)
    try:
        yield
    finally:
        configure(dict.fromkeys(kinds, False))


def make(server: ServerProcess, *devices: Identity, **more: Any) -> str:
    job = f"job-{uuid.uuid4().hex}"
    targets = [device.thing_arn for device in devices]
    server.client("iot").create_job(jobId=job, targets=targets, document="{}", **more)
    return job


def report(device: Device, job: str, status: str, **details: str) -> None:
    answer = device.ask(device.jobs(f"{job}/update"), {"status": status, "statusDetails": details})
    assert answer["_topic"].endswith("/accepted"), answer


def heard(watcher: Device, *expected: str) -> list[dict[str, Any]]:
    """The next events, whose topics are these."""
    messages = [watcher.next_message() for _ in expected]
    assert [topic.removeprefix("$aws/events/") for topic, _ in messages] == list(expected)
    return [json.loads(payload) for _, payload in messages]


def test_a_client_hears_the_whole_life_of_a_job_once_events_are_enabled(
    server: ServerProcess, watcher: Device, tmp_path: Path
) -> None:
    one, two = (enroll(server, tmp_path, f"device-{uuid.uuid4().hex}") for _ in range(2))
    iot = server.client("iot")
    with Device(server, one) as first, Device(server, two) as second:
        report(first, make(server, one), "SUCCEEDED")
        with told_of(server, JOB=True, JOB_EXECUTION=True):
            # Nothing of the job before comes: nobody had asked for it.
            job = make(server, one, two, description="d")
            report(first, job, "IN_PROGRESS")
            report(first, job, "SUCCEEDED", reason="fine")
            report(second, job, "FAILED", reason="not fine")
            succeeded, failed, completed = heard(
                watcher, f"jobExecution/{job}/succeeded", f"jobExecution/{job}/failed", f"job/{job}/completed"
            )
            assert succeeded.keys() == {
                "eventType",
                "eventId",
                "timestamp",
                "operation",
                "jobId",
                "thingArn",
                "status",
                "statusDetails",
            }
            assert (succeeded["eventType"], succeeded["operation"], succeeded["status"]) == (
                "JOB_EXECUTION",
                "succeeded",
                "SUCCEEDED",
            )
            assert (succeeded["thingArn"], succeeded["statusDetails"]) == (one.thing_arn, {"reason": "fine"})
            assert (failed["thingArn"], failed["statusDetails"]) == (two.thing_arn, {"reason": "not fine"})
            assert (completed["eventType"], completed["operation"], completed["status"]) == ("JOB", "completed", "COMPLETED")
            assert completed["jobProcessDetails"] == {
                "numberOfCanceledThings": 0,
                "numberOfRejectedThings": 0,
                "numberOfFailedThings": 1,
                "numberOfRemovedThings": 0,
                "numberOfSucceededThings": 1,
                "numberOfTimedOutThings": 0,
            }
            assert completed["targets"] == [one.thing_arn, two.thing_arn]
            # The event's own time is in seconds, the job's are in milliseconds.
            assert completed["timestamp"] < 10**10 < completed["createdAt"] <= completed["completedAt"]

            withdrawn = make(server, one, two)
            report(first, withdrawn, "REJECTED")
            iot.cancel_job(jobId=withdrawn, comment="enough")
            iot.delete_job(jobId=withdrawn)
            events = heard(
                watcher,
                f"jobExecution/{withdrawn}/rejected",
                f"job/{withdrawn}/cancellation_in_progress",
                f"jobExecution/{withdrawn}/canceled",
                f"job/{withdrawn}/canceled",
                f"job/{withdrawn}/deletion_in_progress",
                f"jobExecution/{withdrawn}/deleted",
                f"jobExecution/{withdrawn}/deleted",
                f"job/{withdrawn}/deleted",
            )
            assert events[1]["comment"] == "enough"
            assert len({event["eventId"] for event in events}) == len(events)
        report(first, make(server, one), "SUCCEEDED")
        with told_of(server, JOB=True):
            # What happened meanwhile is not made up for, and executions were not asked for.
            job = make(server, one)
            report(first, job, "SUCCEEDED")
            heard(watcher, f"job/{job}/completed")
    assert watcher.received.empty()
