"""The software package catalogue through boto3."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import JobId, ThingName
from overair.server.access.actions import operation_table
from tests.server.packages.conftest import ROLE, Catalogue

ARN = "arn:aws:iot:us-east-1:123456789012:package/app"
TOKEN = "t" * 36


def code_of(call: Any, **request: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**request)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] < 500, caught.value
    return str(caught.value.response["Error"]["Code"])


def version(catalogue: Catalogue, name: str, *actions: str, **more: Any) -> None:
    catalogue.iot.create_package_version(packageName="app", versionName=name, **more)
    for action in actions:
        catalogue.iot.update_package_version(packageName="app", versionName=name, action=action)


def test_a_package_is_told_as_it_was_made_and_changed(catalogue: Catalogue) -> None:
    iot = catalogue.iot
    made = iot.create_package(packageName="app", description="an app", tags={"team": "x"})
    assert (made["packageName"], made["packageArn"], made["description"]) == ("app", ARN, "an app")
    assert catalogue.tags.tags[ARN] == {"team": "x"}
    assert "defaultVersionName" not in iot.get_package(packageName="app")
    version(catalogue, "1.0", "PUBLISH")
    catalogue.clock.advance(milliseconds=5_000)
    iot.update_package(packageName="app", description="the app", defaultVersionName="1.0")
    told = iot.get_package(packageName="app")
    assert (told["description"], told["defaultVersionName"]) == ("the app", "1.0")
    assert (told["lastModifiedDate"] - told["creationDate"]).total_seconds() == 5
    iot.update_package(packageName="app", unsetDefaultVersion=True)
    told = iot.get_package(packageName="app")
    assert (told["description"], told.get("defaultVersionName")) == ("the app", None)


def test_a_version_is_a_draft_until_it_is_published_and_then_stays_what_it_was(catalogue: Catalogue) -> None:
    iot = catalogue.iot
    iot.create_package(packageName="app")
    pinned = catalogue.buckets.put("firmware", "app.bin", b"x")
    where = {"s3Location": {"bucket": "firmware", "key": "app.bin", "version": pinned}}
    made = iot.create_package_version(
        packageName="app",
        versionName="1.0",
        description="first",
        attributes={"s3URL": "https://x", "size": "1"},
        artifact=where,
        recipe='{"a": 1}',
    )
    assert (made["status"], made["packageVersionArn"]) == ("DRAFT", f"{ARN}/version/1.0")
    assert made["attributes"] == {"s3URL": "https://x", "size": "1"}
    this = {"packageName": "app", "versionName": "1.0"}
    iot.update_package_version(**this, attributes={"size": "2"}, action="PUBLISH")
    told = iot.get_package_version(**this)
    assert (told["status"], told["attributes"], told["recipe"]) == ("PUBLISHED", {"size": "2"}, '{"a": 1}')
    assert (told["artifact"], told["description"]) == (where, "first")
    assert code_of(iot.update_package_version, **this, attributes={"size": "3"}) == "ConflictException"
    assert code_of(iot.update_package_version, **this, artifact=where) == "ConflictException"
    assert code_of(iot.update_package_version, **this, action="PUBLISH") == "ConflictException"
    iot.update_package_version(**this, description="told anew", recipe='{"b": 2}')
    iot.update_package_version(**this, action="DEPRECATE")
    assert code_of(iot.update_package_version, **this, recipe="{}") == "ConflictException"
    iot.update_package_version(**this, action="PUBLISH")
    told = iot.get_package_version(**this)
    assert (told["status"], told["recipe"], told["description"]) == ("PUBLISHED", '{"b": 2}', "told anew")


def test_a_draft_is_no_default_and_cannot_be_deprecated(catalogue: Catalogue) -> None:
    catalogue.iot.create_package(packageName="app")
    version(catalogue, "1.0")
    change = catalogue.iot.update_package
    assert code_of(change, packageName="app", defaultVersionName="1.0") == "ConflictException"
    assert code_of(change, packageName="app", defaultVersionName="2.0") == "ResourceNotFoundException"
    assert code_of(change, packageName="app", defaultVersionName="1.0", unsetDefaultVersion=True) == "ValidationException"
    deprecate = {"packageName": "app", "versionName": "1.0", "action": "DEPRECATE"}
    assert code_of(catalogue.iot.update_package_version, **deprecate) == "ConflictException"


def test_packages_and_versions_are_listed_page_by_page(catalogue: Catalogue) -> None:
    iot = catalogue.iot
    for name in ("b", "app", "c"):
        iot.create_package(packageName=name)
    first = iot.list_packages(maxResults=2)
    rest = iot.list_packages(maxResults=2, nextToken=first["nextToken"])
    assert [each["packageName"] for each in first["packageSummaries"] + rest["packageSummaries"]] == ["app", "b", "c"]
    version(catalogue, "2.0")
    version(catalogue, "1.0", "PUBLISH")
    first = iot.list_package_versions(packageName="app", maxResults=1)
    rest = iot.list_package_versions(packageName="app", maxResults=1, nextToken=first["nextToken"])
    found = first["packageVersionSummaries"] + rest["packageVersionSummaries"]
    assert [(each["versionName"], each["status"]) for each in found] == [("1.0", "PUBLISHED"), ("2.0", "DRAFT")]
    drafts = iot.list_package_versions(packageName="app", status="DRAFT")["packageVersionSummaries"]
    assert [each["versionName"] for each in drafts] == ["2.0"]


def test_what_is_used_cannot_be_deleted_and_what_is_gone_may_be_deleted_again(catalogue: Catalogue) -> None:
    iot = catalogue.iot
    iot.create_package(packageName="app", tags={"a": "b"})
    version(catalogue, "1.0", "PUBLISH", tags={"c": "d"})
    assert catalogue.tags.tags[f"{ARN}/version/1.0"] == {"c": "d"}
    iot.update_package(packageName="app", defaultVersionName="1.0")
    assert code_of(iot.delete_package, packageName="app") == "ValidationException"
    assert code_of(iot.delete_package_version, packageName="app", versionName="1.0") == "ValidationException"
    iot.update_package(packageName="app", unsetDefaultVersion=True)
    for _ in range(2):
        iot.delete_package_version(packageName="app", versionName="1.0")
        iot.delete_package(packageName="app")
    assert code_of(iot.get_package, packageName="app") == "ResourceNotFoundException"
    assert catalogue.tags.tags == {}


def test_a_request_that_is_repeated_with_its_token_changes_nothing_more(catalogue: Catalogue) -> None:
    iot = catalogue.iot
    package = {"packageName": "app", "description": "d", "clientToken": TOKEN}
    iot.create_package(**package)
    assert iot.create_package(**package)["packageArn"] == ARN
    assert code_of(iot.create_package, **{**package, "description": "e"}) == "ConflictException"
    assert code_of(iot.create_package, packageName="app", description="d") == "ConflictException"
    made = {"packageName": "app", "versionName": "1.0", "attributes": {"a": "1"}, "clientToken": TOKEN}
    iot.create_package_version(**made)
    catalogue.clock.advance(milliseconds=1_000)
    assert iot.create_package_version(**made)["attributes"] == {"a": "1"}
    assert code_of(iot.create_package_version, **{**made, "attributes": {"a": "2"}}) == "ConflictException"
    change = {"packageName": "app", "versionName": "1.0", "action": "PUBLISH", "clientToken": "u" * 36}
    iot.update_package_version(**change)
    iot.update_package_version(**change)


def test_what_cannot_be_a_package_is_refused_by_the_name_that_these_operations_have_for_it(catalogue: Catalogue) -> None:
    iot, careless = catalogue.iot, catalogue.careless
    iot.create_package(packageName="app")
    assert code_of(careless.create_package, packageName="a b") == "ValidationException"
    assert code_of(careless.create_package, packageName="a" * 129) == "ValidationException"
    made = {"packageName": "app", "versionName": "1.0"}
    assert code_of(careless.create_package_version, **{**made, "versionName": "$null"}) == "ValidationException"
    assert code_of(iot.create_package_version, **{**made, "packageName": "none"}) == "ValidationException"
    assert code_of(iot.list_package_versions, packageName="none") == "ValidationException"
    assert code_of(iot.create_package_version, **made, attributes={"a": "x" * 3072}) == "ValidationException"
    assert code_of(careless.create_package_version, **made, recipe="x" * 3073) == "ValidationException"
    assert code_of(iot.get_package_version, **made) == "ResourceNotFoundException"
    assert code_of(iot.update_package_version, **made, action="PUBLISH") == "ResourceNotFoundException"
    assert code_of(careless.update_package_version, **made, action="BURN") == "ValidationException"
    nowhere = {"s3Location": {"bucket": "firmware", "key": "gone.bin"}}
    assert code_of(iot.create_package_version, **made, artifact=nowhere) == "ValidationException"
    assert code_of(iot.create_package_version, **made, artifact={"s3Location": {"bucket": "b"}}) == "ValidationException"
    catalogue.buckets.put("firmware", "gone.bin", b"x")
    catalogue.rights.denied.add("s3:GetObject")
    assert code_of(iot.create_package_version, **made, artifact=nowhere) == "AccessDeniedException"


def test_bills_of_materials_are_refused_by_name(catalogue: Catalogue) -> None:
    this = {"packageName": "app", "versionName": "1.0"}
    sbom = {"s3Location": {"bucket": "b", "key": "k", "version": "v"}}
    with pytest.raises(ClientError, match="doesn't have the operation AssociateSbomWithPackageVersion") as caught:
        catalogue.iot.associate_sbom_with_package_version(**this, sbom=sbom)
    assert caught.value.response["Error"]["Code"] == "NotImplementedException"
    assert code_of(catalogue.iot.disassociate_sbom_from_package_version, **this) == "NotImplementedException"
    assert code_of(catalogue.iot.list_sbom_validation_results, **this) == "NotImplementedException"


def test_version_updates_by_jobs_need_a_role_that_trusts_the_service_and_may_be_passed(catalogue: Catalogue) -> None:
    iot = catalogue.iot
    change = iot.update_package_configuration
    assert iot.get_package_configuration()["versionUpdateByJobsConfig"] == {"enabled": False}
    assert code_of(change, versionUpdateByJobsConfig={"enabled": True}) == "ValidationException"
    assert code_of(change, versionUpdateByJobsConfig={"enabled": True, "roleArn": ROLE + "x"}) == "ValidationException"
    catalogue.rights.denied.add("iam:PassRole")
    assert code_of(change, versionUpdateByJobsConfig={"enabled": True, "roleArn": ROLE}) == "AccessDeniedException"
    catalogue.rights.denied.clear()
    change(versionUpdateByJobsConfig={"enabled": True, "roleArn": ROLE})
    change(versionUpdateByJobsConfig={"enabled": False})
    assert iot.get_package_configuration()["versionUpdateByJobsConfig"] == {"enabled": False, "roleArn": ROLE}


def test_what_jobs_have_put_on_a_thing_is_read_as_its_reserved_shadow(catalogue: Catalogue) -> None:
    account, thing = catalogue.place.account, ThingName("dev")
    catalogue.registry.things.add("dev")
    catalogue.iot.create_package(packageName="app")
    version(catalogue, "1.0")

    def succeed(*versions: tuple[str, str]) -> None:
        catalogue.work.run_blocking(
            lambda tx: catalogue.installed.succeeded(tx, account, thing, JobId("J"), versions, now=Instant(9_000))
        )

    def shadow(name: str = "dev") -> Any:
        read = catalogue.data.get_thing_shadow(thingName=name, shadowName="$package")["payload"].read()
        return json.loads(read)

    succeed(("app", "1.0"))
    read = {"thingName": "dev", "shadowName": "$package"}
    assert code_of(catalogue.data.get_thing_shadow, **read) == "ResourceNotFoundException"
    catalogue.iot.update_package_configuration(versionUpdateByJobsConfig={"enabled": True, "roleArn": ROLE})
    succeed(("app", "1.0"), ("gone", "1.0"))
    assert shadow()["state"] == {"reported": {"app": {"version": "1.0"}}}
    assert shadow()["metadata"] == {"reported": {"app": {"version": {"timestamp": 9}}}}
    assert shadow()["version"] == 1
    succeed(("app", "$null"))
    assert (shadow()["state"], shadow()["version"]) == ({"reported": {}}, 2)
    assert code_of(catalogue.data.get_thing_shadow, **{**read, "thingName": "no"}) == "ResourceNotFoundException"
    assert code_of(catalogue.data.get_thing_shadow, thingName="dev") == "NotImplementedException"
    assert code_of(catalogue.data.get_thing_shadow, thingName="dev", shadowName="mine") == "NotImplementedException"
    catalogue.work.run_blocking(lambda tx: catalogue.installed.thing_deleted(tx, account, thing))
    assert code_of(catalogue.data.get_thing_shadow, **read) == "ResourceNotFoundException"


def test_who_makes_a_job_or_changes_a_version_needs_the_right_to_it_on_that_version(place: Place) -> None:
    def resources(operation: str, request: dict[str, Any]) -> list[str]:
        needs = operation_table()["iot", operation]
        return [arn for need in needs if need.applies(request) for arn in need.resources(place, request)]

    named = f"{ARN}/version/$default"
    job = {"jobId": "J", "targets": [], "destinationPackageVersions": [named]}
    assert named in resources("CreateJob", job)
    assert named in resources("CreateJobTemplate", {"jobTemplateId": "T", "destinationPackageVersions": [named]})
    this = {"packageName": "app", "versionName": "1.0"}
    for change in ("CreatePackageVersion", "UpdatePackageVersion", "DeletePackageVersion"):
        assert resources(change, this) == [ARN, f"{ARN}/version/1.0"]
