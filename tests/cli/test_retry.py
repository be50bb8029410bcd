"""Which jobs another attempt becomes: one, one over a group where the things are many, two where the Director served some."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from overair.cli import retry, uptane_rest


class NotThere(Exception):
    pass


@dataclass
class Iot:
    """What a server would be asked, noted."""

    update: dict[str, Any] | None = None
    described: dict[str, Any] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    members: list[str] = field(default_factory=list)

    class exceptions:
        ResourceNotFoundException = NotThere

    def get_job_document(self, *, jobId: str) -> dict[str, Any]:
        return {"document": '{"afr_ota":{}}'}

    def get_ota_update(self, *, otaUpdateId: str) -> dict[str, Any]:
        if self.update is None:
            raise NotThere
        return {"otaUpdateInfo": self.update}

    def describe_job(self, *, jobId: str) -> dict[str, Any]:
        return {"job": self.described}

    def create_thing_group(self, *, thingGroupName: str, **_: Any) -> dict[str, Any]:
        return {"thingGroupArn": f"arn:group/{thingGroupName}"}

    def add_thing_to_thing_group(self, *, thingGroupName: str, thingName: str) -> None:
        self.members.append(thingName)

    def create_job(self, **job: Any) -> None:
        self.jobs.append(job)


class Desk:
    def __init__(self, iot: Iot) -> None:
        self.iot = iot
        self.endpoints = type("Endpoints", (), {"region": "us-east-1", "account": "123456789012"})()

    def client(self, service: str) -> Iot:
        return self.iot


def test_few_things_are_targets_of_their_own_and_the_settings_come_along() -> None:
    iot = Iot(described={"abortConfig": {"criteriaList": [1]}, "timeoutConfig": {}, "targets": ["arn:whoever"]})
    desk: Any = Desk(iot)
    (attempt,) = retry.attempts_of(desk, "AFR_OTA-rel", ["a", "b"])
    assert attempt.job.startswith("retry-rel-")
    retry.create(desk, "AFR_OTA-rel", attempt)
    (job,) = iot.jobs
    assert job["targets"] == [f"arn:aws:iot:us-east-1:123456789012:thing/{thing}" for thing in "ab"]
    assert (job["document"], job["abortConfig"]) == ('{"afr_ota":{}}', {"criteriaList": [1]})
    assert "timeoutConfig" not in job
    assert "2 things that had failed" in job["description"]


def test_many_things_are_put_into_a_group_of_the_jobs_name() -> None:
    desk: Any = Desk(Iot())
    things = [f"t-{number}" for number in range(retry.TARGETS_MAX + 1)]
    (attempt,) = retry.attempts_of(desk, "plain", things)
    retry.create(desk, "plain", attempt)
    assert desk.iot.jobs[0]["targets"] == [f"arn:group/{attempt.job}"]
    assert desk.iot.members == things


def test_what_the_director_brought_is_brought_by_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uptane_rest.UptaneRest, "__init__", lambda self, operator: None)
    monkeypatch.setattr(uptane_rest.UptaneRest, "registered", lambda self: frozenset({"car"}))
    desk: Any = Desk(Iot(update={"additionalParameters": {"uptaneMultiTargetUpdate": "mtu-1"}}))
    board, car = retry.attempts_of(desk, "AFR_OTA-rel", ["board", "car"])
    assert (board.things, board.document) == (("board",), '{"afr_ota":{}}')
    assert (car.things, car.document) == (("car",), '{"uptane": {"multiTargetUpdate": "mtu-1"}}')
    assert [attempt.things for attempt in retry.attempts_of(desk, "AFR_OTA-rel", ["car"])] == [("car",)]
