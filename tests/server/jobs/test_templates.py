"""Job templates, an account's own and the managed ones, through boto3; and what a job takes from them."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from overair.basics.errors import InvalidRequest
from overair.server.jobs.managed_templates import MANAGED_TEMPLATES
from overair.wire.strict_json import decode
from tests.server.jobs.test_operator_api import FULL, ROLE, Door, code_of, door  # noqa: F401

SETTINGS = {name: value for name, value in FULL.items() if name not in ("targetSelection", "description")}
WINDOWS = [{"startTime": "cron(0 2 * * ? *)", "durationInMinutes": 60}]
ARN = "arn:aws:iot:us-east-1:123456789012:jobtemplate/T"
DOWNLOAD = "arn:aws:iot:us-east-1::jobtemplate/AWS-Download-File:1.0"


def test_a_template_is_described_as_it_was_made_and_a_job_takes_it_all(door: Door) -> None:  # noqa: F811
    made = door.iot.create_job_template(
        jobTemplateId="T",
        description="of a template",
        document='{"a": 1}',
        maintenanceWindows=WINDOWS,
        tags=[{"Key": "team", "Value": "x"}],
        **SETTINGS,
    )
    assert (made["jobTemplateArn"], made["jobTemplateId"]) == (ARN, "T")
    assert door.room.tags.tags[ARN] == {"team": "x"}
    template = door.iot.describe_job_template(jobTemplateId="T")
    assert {name: template[name] for name in SETTINGS} == SETTINGS
    assert (template["document"], template["description"]) == ('{"a": 1}', "of a template")
    assert template["maintenanceWindows"] == WINDOWS
    door.iot.create_job(jobId="J", targets=[door.room.group_arn("g")], jobTemplateArn=ARN, targetSelection="CONTINUOUS")
    job = door.iot.describe_job(jobId="J")["job"]
    assert {name: job[name] for name in SETTINGS} == SETTINGS
    assert (job["description"], job["jobTemplateArn"], job["status"]) == ("of a template", ARN, "SCHEDULED")
    assert job["schedulingConfig"] == {"maintenanceWindows": WINDOWS}
    assert [start["startTime"] for start in job["scheduledJobRollouts"]] == [f"2026-01-{day:02} 02:00" for day in range(1, 8)]
    assert door.iot.get_job_document(jobId="J")["document"] == '{"a": 1}'


def test_the_requests_members_go_before_the_templates(door: Door) -> None:  # noqa: F811
    door.iot.create_job_template(jobTemplateId="T", description="t", document='{"a": 1}', **SETTINGS)
    door.iot.create_job(
        jobId="J",
        targets=[door.room.thing_arn("a")],
        jobTemplateArn=ARN,
        document='{"b": 2}',
        description="mine",
        timeoutConfig={"inProgressTimeoutInMinutes": 7},
        jobExecutionsRolloutConfig={"maximumPerMinute": 9},
    )
    job = door.iot.describe_job(jobId="J")["job"]
    assert (job["description"], job["timeoutConfig"]) == ("mine", {"inProgressTimeoutInMinutes": 7})
    assert job["jobExecutionsRolloutConfig"] == {"maximumPerMinute": 9}
    assert job["abortConfig"] == FULL["abortConfig"]
    assert door.iot.get_job_document(jobId="J")["document"] == '{"b": 2}'


def test_a_template_is_made_from_a_job(door: Door) -> None:  # noqa: F811
    made = door.iot.create_job(jobId="J", targets=[door.room.thing_arn("a")], document='{"a": 1}', **FULL)
    door.iot.create_job_template(jobTemplateId="T", description="t", jobArn=made["jobArn"])
    template = door.iot.describe_job_template(jobTemplateId="T")
    assert {name: template[name] for name in SETTINGS} == SETTINGS
    assert (template["document"], template["description"]) == ('{"a": 1}', "t")
    assert (
        code_of(door.iot.create_job_template, jobTemplateId="U", description="t", jobArn=made["jobArn"] + "x")
        == "ResourceNotFoundException"
    )


def test_templates_are_listed_page_by_page_and_deleted(door: Door) -> None:  # noqa: F811
    for name in ("c", "a", "b"):
        door.iot.create_job_template(jobTemplateId=name, description=name, document="{}")
    first = door.iot.list_job_templates(maxResults=2)
    rest = door.iot.list_job_templates(maxResults=2, nextToken=first["nextToken"])
    assert [each["jobTemplateId"] for each in first["jobTemplates"] + rest["jobTemplates"]] == ["a", "b", "c"]
    assert "nextToken" not in rest
    door.iot.delete_job_template(jobTemplateId="b")
    assert [each["jobTemplateId"] for each in door.iot.list_job_templates()["jobTemplates"]] == ["a", "c"]
    assert code_of(door.iot.delete_job_template, jobTemplateId="b") == "ResourceNotFoundException"
    assert code_of(door.iot.describe_job_template, jobTemplateId="b") == "ResourceNotFoundException"


def test_what_is_no_template_is_refused(door: Door) -> None:  # noqa: F811
    door.iot.create_job_template(jobTemplateId="T", description="t", document="{}")
    create = door.iot.create_job_template
    assert code_of(create, jobTemplateId="T", description="t", document="{}") == "ConflictException"
    for more in (
        {},
        {"document": "{}", "documentSource": "https://s3.amazonaws.com/b/k"},
        {"document": "["},
        {"document": "{}", "maintenanceWindows": [{"startTime": "cron(1)", "durationInMinutes": 5}]},
        {"document": "{}", "presignedUrlConfig": {"roleArn": ROLE + "x"}},
    ):
        assert code_of(create, jobTemplateId="U", description="t", **more) == "InvalidRequestException", more
    door.rights.denied.add("iam:PassRole")
    assert code_of(create, jobTemplateId="U", description="t", document="{}", presignedUrlConfig={"roleArn": ROLE}) == (
        "AccessDeniedException"
    )
    for arn in (ARN + "x", "arn:aws:iot:us-east-1:999999999999:jobtemplate/T", "arn:aws:iot:us-east-1::jobtemplate/AWS-Nope"):
        request = {"jobId": "J", "targets": [door.room.thing_arn("a")], "jobTemplateArn": arn}
        assert code_of(door.iot.create_job, **request) == "ResourceNotFoundException"


def test_managed_templates_are_listed_and_described(door: Door) -> None:  # noqa: F811
    first = door.iot.list_managed_job_templates(maxResults=5)
    rest = door.iot.list_managed_job_templates(maxResults=5, nextToken=first["nextToken"])
    names = [each["templateName"] for each in first["managedJobTemplates"] + rest["managedJobTemplates"]]
    assert names == sorted(MANAGED_TEMPLATES)
    assert len(names) == 8
    only = door.iot.list_managed_job_templates(templateName="AWS-Reboot")["managedJobTemplates"]
    assert [each["templateArn"] for each in only] == ["arn:aws:iot:us-east-1::jobtemplate/AWS-Reboot:1.0"]
    described = door.iot.describe_managed_job_template(templateName="AWS-Reboot")
    assert json.loads(described["document"]) == {
        "version": "1.0",
        "steps": [
            {
                "action": {
                    "name": "Reboot",
                    "type": "runHandler",
                    "input": {"handler": "reboot.sh", "path": "${aws:iot:parameter:pathToHandler}"},
                    "runAsUser": "${aws:iot:parameter:runAsUser}",
                }
            }
        ],
    }
    assert {parameter["key"]: parameter["optional"] for parameter in described["documentParameters"]} == {
        "runAsUser": True,
        "pathToHandler": True,
    }
    assert code_of(door.iot.describe_managed_job_template, templateName="AWS-Nope") == "ResourceNotFoundException"
    assert (
        code_of(door.iot.describe_managed_job_template, templateName="AWS-Reboot", templateVersion="2.0")
        == "ResourceNotFoundException"
    )


def test_a_job_from_a_managed_template_has_its_parameters_filled(door: Door) -> None:  # noqa: F811
    parameters = {"downloadUrl": 'https://host/"q"\\', "filePath": "/x"}
    door.iot.create_job(jobId="J", targets=[door.room.thing_arn("a")], jobTemplateArn=DOWNLOAD, documentParameters=parameters)
    job = door.iot.describe_job(jobId="J")["job"]
    assert (job["documentParameters"], job["jobTemplateArn"]) == (parameters, DOWNLOAD)
    action = json.loads(door.iot.get_job_document(jobId="J")["document"])["steps"][0]["action"]
    assert action["input"] == {"handler": "download-file.sh", "args": ['https://host/"q"\\', "/x"], "path": ""}
    assert action["runAsUser"] == ""
    for wrong in ({"filePath": "/x"}, {**parameters, "more": "x"}, {**parameters, "runAsUser": "two words"}):
        request = {"jobId": "K", "targets": [door.room.thing_arn("a")], "documentParameters": wrong}
        assert code_of(door.iot.create_job, jobTemplateArn=DOWNLOAD, **request) == "InvalidRequestException", wrong
    assert (
        code_of(
            door.iot.create_job, jobId="K", targets=[door.room.thing_arn("a")], document="{}", documentParameters={"a": "b"}
        )
        == "InvalidRequestException"
    )


@pytest.mark.parametrize("name", sorted(MANAGED_TEMPLATES))
def test_every_managed_document_can_be_filled_with_anything_that_its_rules_let_through(name: str) -> None:
    template = MANAGED_TEMPLATES[name]
    values = {parameter.key: '"\\\n${aws:iot:parameter:x}é' for parameter in template.parameters if not parameter.optional}
    filled = decode(template.filled(values).encode(), size_bytes_max=32_768, depth_max=8)
    assert isinstance(filled, dict)
    if values:
        with pytest.raises(InvalidRequest):
            template.filled({})


def test_event_configurations_say_what_is_published(door: Door) -> None:  # noqa: F811
    off = {"JOB": {"Enabled": False}, "JOB_EXECUTION": {"Enabled": False}}
    assert door.iot.describe_event_configurations()["eventConfigurations"] == off
    door.iot.update_event_configurations(eventConfigurations={"JOB": {"Enabled": True}, "THING": {"Enabled": False}})
    described = door.iot.describe_event_configurations()
    assert described["eventConfigurations"] == {**off, "JOB": {"Enabled": True}}
    assert described["lastModifiedDate"].timestamp() == 1767225600
    with pytest.raises(ClientError) as caught:
        door.iot.update_event_configurations(eventConfigurations={"THING": {"Enabled": True}, "JOB": {"Enabled": False}})
    assert "THING" in caught.value.response["Error"]["Message"]
    assert door.iot.describe_event_configurations()["eventConfigurations"]["JOB"] == {"Enabled": True}


def test_a_schedule_is_described_as_it_was_asked_for(door: Door) -> None:  # noqa: F811
    config = {"startTime": "2026-02-01 10:00", "endTime": "2026-03-01 10:00", "endBehavior": "FORCE_CANCEL"}
    target = door.room.thing_arn("a")
    door.iot.create_job(jobId="J", targets=[target], document="{}", schedulingConfig=config)
    job = door.iot.describe_job(jobId="J")["job"]
    assert (job["schedulingConfig"], job["status"]) == (config, "SCHEDULED")
    assert job["scheduledJobRollouts"] == [{"startTime": "2026-02-01 10:00"}]
    assert [each["jobId"] for each in door.iot.list_jobs(status="SCHEDULED")["jobs"]] == ["J"]
    for wrong in (
        {"endBehavior": "CANCEL"},
        {"startTime": "yesterday"},
        {"startTime": "2026-01-01 00:10"},
        {"maintenanceWindows": WINDOWS},
    ):
        request = {"jobId": "K", "targets": [target], "document": "{}", "schedulingConfig": wrong}
        assert code_of(door.iot.create_job, **request) == "InvalidRequestException", wrong
