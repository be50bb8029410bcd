"""What jobs take from the catalogue of software packages, and what they write down of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.arn import Place
from overair.basics.errors import InvalidRequest, NotFound, OverairError
from overair.basics.ids import AccountId, JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.model import Given, Job, JobPlan, JobSettings, JobTemplate, PresignConfig
from overair.server.jobs.packages import JobPackages, check_placeholders
from overair.server.packages.installed import InstalledPackages
from overair.server.packages.model import Artifact, PackageVersion, VersionAction
from overair.server.packages.service import PackagesService, VersionContent
from overair.server.packages.store import SqlPackageStore
from overair.wire.job_messages import ExecutionStatus
from tests.support.jobs_room import AnyPackage, JobsRoom
from tests.support.streams_room import Buckets

ROLE = "arn:aws:iam::123456789012:role/r"
ARN = "arn:aws:iot:us-east-1:123456789012:package/app/version/"
ATTRIBUTES = {"url": "https://s3.us-east-1.amazonaws.com/b/k", "note": 'a "quoted" \\ line'}
SIGNED = JobSettings(presign=PresignConfig(role_arn=ROLE))
APP = "${aws:iot:package:app:version:1.0:"
LATEST = "${aws:iot:package:app:version:$default:"


NO_UNIT = cast("Tx", None)


class Shelf:
    """The real catalogue behind the jobs room, with one package in it."""

    def __init__(self, room: JobsRoom) -> None:
        self.room = room
        room.add_things("a")
        room.roles.assumable.add(ROLE)
        self.buckets = Buckets(room.place)
        self.pinned = self.buckets.put("firmware", "app/1 0.bin", b"x")
        store = SqlPackageStore()
        self.packages = PackagesService(store=store, roles=room.roles, objects=self.buckets, tags=room.tags, clock=room.clock)
        self.installed = InstalledPackages(store=store, things=room.registry)
        room.jobs.deploys_from(self.packages, self.installed)
        self.write(lambda tx: self.packages.create(tx, room.place, "app"))
        self.add("1.0", attributes=ATTRIBUTES, artifact=Artifact(bucket="firmware", key="app/1 0.bin", version=self.pinned))

    def write(self, unit: Any) -> Any:
        return self.room.work.run_blocking(unit)

    def add(self, name: str, *, publish: bool = True, **content: Any) -> None:
        place = self.room.place

        def unit(tx: Tx) -> None:
            self.packages.create_version(tx, place, "app", name, VersionContent(**content))
            if publish:
                publishing = VersionAction.PUBLISH
                self.packages.change_version(tx, place.account, "app", name, VersionContent(), action=publishing)

        self.write(unit)

    def default(self, name: str) -> None:
        self.write(lambda tx: self.packages.change(tx, self.room.place.account, "app", default_version=name))

    def create(self, job: str, document: object, *versions: str, settings: JobSettings = SIGNED, selection: Any = None) -> Job:
        plan = JobPlan(
            id=JobId(job),
            targets=(self.room.thing_arn("a"),),
            document=json.dumps(document),
            destination_package_versions=tuple(ARN + version for version in versions),
            settings=settings,
        )
        return self.write(lambda tx: self.room.jobs.create(tx, self.room.place, plan))  # type: ignore[no-any-return]

    async def read(self, job: str) -> Any:
        """The document as the device gets it."""
        return (await self.room.told(f"$aws/things/a/jobs/{job}/get"))["execution"]["jobDocument"]

    async def succeed(self, job: str) -> None:
        await self.room.told(f"$aws/things/a/jobs/{job}/update", {"status": "SUCCEEDED"})

    def on(self, thing: str = "a") -> dict[str, str | None]:
        account = self.room.place.account
        found = self.room.work.read_blocking(lambda tx: self.installed.of_thing(tx, account, ThingName(thing)))
        return {each.package: each.version for each in found}


@pytest.fixture
def shelf(room: JobsRoom) -> Shelf:
    return Shelf(room)


async def test_a_device_gets_attributes_filled_in_and_an_artifact_as_a_url_signed_at_each_read(shelf: Shelf) -> None:
    shelf.create(
        "J",
        {
            "number": 1.10,
            "url": f"<{APP}attributes:url}}>",
            "note": APP + "attributes:note}",
            "all": APP + "attributes}",
            "image": APP + "artifact:s3-presigned-url}",
            "again": ["${aws:iot:package::version::artifact-location:s3-presigned-url}"],
            "nested": "${aws:iot:s3-presigned-url:" + APP + "attributes:url}}",
        },
        "1.0",
    )
    first, second = await shelf.read("J"), await shelf.read("J")
    assert (first["url"], first["note"]) == (f"<{ATTRIBUTES['url']}>", ATTRIBUTES["note"])
    assert (first["all"], first["number"]) == (ATTRIBUTES, 1.1)
    for place in ("image", "nested"):
        assert first[place].split("&n=")[0] == second[place].split("&n=")[0]
        assert first[place] != second[place]
    assert first["image"].startswith(f"https://host/firmware/app/1 0.bin?v={shelf.pinned}&")
    assert first["again"][0].startswith(f"https://host/firmware/app/1 0.bin?v={shelf.pinned}&")
    assert first["nested"].startswith("https://host/b/k?v=None&")


async def test_a_job_keeps_what_it_was_made_with_whatever_becomes_of_the_catalogue(shelf: Shelf) -> None:
    shelf.default("1.0")
    shelf.add("2.0", attributes={"url": "two"})
    asked = {"url": LATEST + "attributes:url}"}
    job = shelf.create("J", asked, "$default")
    assert job.destination_package_versions == (ARN + "1.0",)
    shelf.default("2.0")
    shelf.write(lambda tx: shelf.packages.delete_version(tx, shelf.room.place, "app", "1.0"))
    assert await shelf.read("J") == {"url": ATTRIBUTES["url"]}
    given = shelf.room.work.read_blocking(lambda tx: shelf.room.jobs.given(tx, job))
    assert given == Given(document=json.dumps(asked), package_versions=(ARN + "$default",))
    shelf.create("K", asked, "$default")
    assert await shelf.read("K") == {"url": "two"}


def test_a_job_brings_only_versions_that_are_there_and_published(shelf: Shelf) -> None:
    shelf.add("2.0", publish=False)
    refusals: list[tuple[type[OverairError], str, tuple[str, ...]]] = [
        (NotFound, "has no version '3.0'", ("3.0",)),
        (InvalidRequest, "is DRAFT: publish it", ("2.0",)),
        (InvalidRequest, "has no default version", ("$default",)),
        (InvalidRequest, "names one package twice", ("1.0", "2.0")),
        (InvalidRequest, "is no package version of this account", ("$latest",)),
    ]
    for kind, words, versions in refusals:
        with pytest.raises(kind, match=words.replace("'", ".")):
            shelf.create("J", {}, *versions)
    deprecating = VersionAction.DEPRECATE
    account = shelf.room.place.account
    shelf.write(lambda tx: shelf.packages.change_version(tx, account, "app", "1.0", VersionContent(), action=deprecating))
    assert shelf.create("J", {}, "1.0", "1.0").destination_package_versions == (ARN + "1.0",)
    with pytest.raises(NotFound):
        shelf.write(lambda tx: shelf.packages.deployable(tx, account, "none", "1.0"))


def test_a_document_that_cannot_be_filled_is_refused_and_no_job_is_made(shelf: Shelf) -> None:
    shelf.add("2.0", attributes={"trap": "${aws:iot:s3-presigned-url:https://s3.amazonaws.com/b/k}", "long": "x" * 3000})
    second = APP.replace("1.0", "2.0")
    for words, document, version, settings in (
        ("has no attribute other", {"a": APP + "attributes:other}"}, "1.0", SIGNED),
        ("has no artifact", {"a": second + "artifact:s3-presigned-url}"}, "2.0", SIGNED),
        ("no presignedUrlConfig", {"a": APP + "artifact:s3-presigned-url}"}, "1.0", JobSettings()),
        ("holds a placeholder itself", {"a": second + "attributes:trap}"}, "2.0", SIGNED),
        ("holds a placeholder itself", {"a": second + "attributes}"}, "2.0", SIGNED),
        ("more than 32768 bytes", {"a": [second + "attributes:long}"] * 11}, "2.0", SIGNED),
        ("10 are allowed", {"a": [APP + "artifact:s3-presigned-url}"] * 11}, "1.0", SIGNED),
        ("isn't in destinationPackageVersions", {"a": APP + "attributes:url}"}, "2.0", SIGNED),
    ):
        with pytest.raises(InvalidRequest, match=words):
            shelf.create("J", document, version, settings=settings)
    assert shelf.room.heard() == []


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"a": APP + "attributes:url"}, "is no placeholder"),
        ({"a": APP + "color}"}, "is no placeholder"),
        ({"a": APP + "attributes} "}, "must be a value by itself"),
        ({APP + "attributes}": 1}, "must be a value by itself"),
        ({"a": "${aws:iot:s3-presigned-url:" + APP + "artifact:s3-presigned-url}}"}, "inside of another placeholder"),
        ({"a": "${aws:iot:package:app:version:$null:attributes:url}"}, "names \\$null"),
        ({"a": "${aws:iot:package:app:version::attributes:url}"}, "leaves out one of name and version"),
        ({"a": "${aws:iot:package::version::attributes:url}"}, "the job brings 2"),
        ({"a": LATEST + "attributes:url}"}, "isn't in destinationPackageVersions"),
        ({"a": APP.replace("app", "apq") + "attributes:url}"}, "isn't in destinationPackageVersions"),
    ],
)
def test_a_placeholder_that_has_no_meaning_is_refused(document: object, words: str) -> None:
    named = [("app", "1.0"), ("other", "$default")]
    check_placeholders(json.dumps({"a": APP + "attributes:url}", "b": {"c": [APP + "attributes}"]}}), named)
    with pytest.raises(InvalidRequest, match=words):
        check_placeholders(json.dumps(document), named)
    with pytest.raises(InvalidRequest, match="with JSON's escapes"):
        check_placeholders('{"a": "\\u0024{aws:iot:package:app:version:1.0:attributes:url}"}', named)


async def test_what_a_job_has_put_on_a_thing_is_written_down_where_the_account_wants_it(shelf: Shelf) -> None:
    shelf.add("2.0")
    shelf.create("J", {}, "1.0")
    await shelf.succeed("J")
    with pytest.raises(NotFound):
        shelf.on()
    shelf.write(lambda tx: shelf.packages.configure(tx, shelf.room.place, enabled=True, role_arn=ROLE))
    shelf.default("2.0")
    shelf.create("K", {}, "$default")
    shelf.create("L", {}, "1.0")
    await shelf.succeed("K")
    assert shelf.on() == {"app": "2.0"}
    await shelf.room.told("$aws/things/a/jobs/L/update", {"status": "FAILED"})
    assert shelf.on() == {"app": "2.0"}
    shelf.create("M", {}, "$null")
    await shelf.succeed("M")
    assert shelf.on() == {"app": None}


async def test_a_version_that_was_deleted_meanwhile_is_not_written_down_and_the_job_succeeds(shelf: Shelf) -> None:
    shelf.write(lambda tx: shelf.packages.configure(tx, shelf.room.place, enabled=True, role_arn=ROLE))
    shelf.create("J", {}, "1.0")
    shelf.write(lambda tx: shelf.packages.delete_version(tx, shelf.room.place, "app", "1.0"))
    await shelf.succeed("J")
    assert shelf.room.execution("a", "J").status is ExecutionStatus.SUCCEEDED
    with pytest.raises(NotFound):
        shelf.on()


async def test_a_templates_jobs_mean_what_is_the_default_when_they_are_made(shelf: Shelf) -> None:
    place, now = shelf.room.place, shelf.room.clock.now()

    def template(name: str, document: str) -> JobTemplate:
        packages = (ARN + "$default",)
        return JobTemplate(
            id=name,
            place=place,
            description="d",
            document=document,
            settings=SIGNED,
            created_at=now,
            destination_package_versions=packages,
        )

    # There is no default yet: a template is looked at for itself alone.
    asked = {"url": LATEST + "attributes:url}"}
    shelf.write(lambda tx: shelf.room.jobs.templates.create(tx, template("T", json.dumps(asked)), {}))
    with pytest.raises(InvalidRequest, match="isn't in destinationPackageVersions"):
        shelf.write(lambda tx: shelf.room.jobs.templates.create(tx, template("U", json.dumps({"a": APP + "attributes}"})), {}))
    shelf.default("1.0")
    made = shelf.room.work.read_blocking(lambda tx: shelf.room.jobs.templates.find(tx, place.account, "T"))
    shelf.create("J", json.loads(made.document), "$default")
    assert await shelf.read("J") == {"url": ATTRIBUTES["url"]}


class OnePackage:
    """A catalogue of one version."""

    def __init__(self, attributes: dict[str, str]) -> None:
        self.attributes = attributes

    def deployable(self, tx: Tx, account: AccountId, package: str, version: str) -> PackageVersion:
        found = AnyPackage().deployable(tx, account, package, version)
        return replace(found, attributes=self.attributes)


VALUES = st.text(max_size=60).filter(lambda text: "${aws:" not in text)


@given(value=VALUES, before=VALUES, after=VALUES, number=st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_whatever_a_value_holds_the_document_says_just_that(value: str, before: str, after: str, number: float) -> None:
    packages = JobPackages()
    packages.catalogue = OnePackage({"key": value})
    asked = {before: [APP + "attributes}", number], "text": before + APP + "attributes:key}" + after, "last": '"' + after}
    place = Place("us-east-1", AccountId("123456789012"))
    filled = packages.fill(NO_UNIT, place, json.dumps(asked), [ARN + "1.0"], signed=False)
    told = {before: [{"key": value}, number], "text": before + value + after, "last": '"' + after}
    assert json.loads(filled.document) == told
