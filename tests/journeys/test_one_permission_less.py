"""An operator, and the service role, each with one permission less: exactly the calls that need it are refused, by name.

The permissions are those that the guides tell operators to create (wire reference §12); every call is boto3's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.code_signing import credential
from tests.support.paho_device import PahoDevice
from tests.support.server_process import ServerProcess

WHOLE_TIMEOUT_S = 20.0
DENIED = {"AccessDenied", "AccessDeniedException"}
IMAGE = b"firmware 2.0.0 " * 1000


def document(actions: list[str]) -> str:
    statements = [{"Effect": "Allow", "Action": actions, "Resource": "*"}] if actions else []
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


@dataclass
class World:
    """A bucket, an image, a thing and a user whose permissions the tests change."""

    server: ServerProcess
    user: dict[str, str]
    version: str
    clients: dict[tuple[str, str], Any] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    number: int = 0

    @property
    def bucket(self) -> str:
        return str(self.server.endpoints["bucket"])

    @property
    def thing(self) -> str:
        return f"arn:aws:iot:{self.server.endpoints['region']}:{self.server.endpoints['account']}:thing/permitted"

    @property
    def role(self) -> str:
        return str(self.server.endpoints["ota_role_arn"])

    @property
    def profile(self) -> str:
        return str(self.server.endpoints["signing_profile"])

    def new(self, kind: str) -> str:
        self.number += 1
        return f"perm-{kind}-{self.number}"

    def client(self, service: str, who: str = "permitted") -> Any:
        """The user's own, or the root's. Making one takes boto3 a while, so they are kept."""
        if (service, who) not in self.clients:
            keys = {"aws_access_key_id": self.user["AccessKeyId"], "aws_secret_access_key": self.user["SecretAccessKey"]}
            self.clients[service, who] = self.server.client(service, **(keys if who == "permitted" else {}))
        return self.clients[service, who]

    def root(self, service: str) -> Any:
        return self.client(service, "root")

    def once(self, kind: str) -> str:
        """One stream, job, update or signing job to look at, made by the root."""
        if kind not in self.made:
            makers = {"stream": self.create_stream, "job": self.create_job, "update": self.create_update}
            self.made[kind] = signing_job(self, self.root("signer")) if kind == "signing" else makers[kind](self.root("iot"))
        return self.made[kind]

    def permit(self, actions: list[str]) -> None:
        self.root("iam").put_user_policy(UserName="permitted", PolicyName="p", PolicyDocument=document(actions))

    def file(self, **signing: Any) -> dict[str, Any]:
        location = {"bucket": self.bucket, "key": "permitted.bin", "version": self.version}
        signing = signing or {"startSigningJobParameter": {"signingProfileName": self.profile}}
        return {"fileName": "/device/updates", "fileLocation": {"s3Location": location}, "codeSigning": signing}

    def create_update(self, iot: Any, **more: Any) -> str:
        update = self.new("update")
        iot.create_ota_update(
            otaUpdateId=update, targets=[self.thing], files=[self.file()], roleArn=more.pop("roleArn", self.role), **more
        )
        return update

    def create_stream(self, iot: Any) -> str:
        stream = self.new("stream")
        s3 = {"bucket": self.bucket, "key": "permitted.bin"}
        iot.create_stream(streamId=stream, files=[{"fileId": 1, "s3Location": s3}], roleArn=self.role)
        return stream

    def create_job(self, iot: Any) -> str:
        job = self.new("job")
        iot.create_job(jobId=job, targets=[self.thing], document="{}")
        return job


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ServerProcess(tmp_path_factory.mktemp("permissions") / "data") as server:
        iam = server.client("iam")
        iam.create_user(UserName="permitted")
        key = iam.create_access_key(UserName="permitted")["AccessKey"]
        uploaded = server.client("s3").put_object(Bucket=server.endpoints["bucket"], Key="permitted.bin", Body=IMAGE)
        server.client("iot").create_thing(thingName="permitted")
        yield World(server=server, user=key, version=uploaded["VersionId"])


Call = Callable[[World, Any], object]


def signing_job(world: World, signer: Any) -> str:
    source = {"s3": {"bucketName": world.bucket, "key": "permitted.bin", "version": world.version}}
    destination = {"s3": {"bucketName": world.bucket, "prefix": "signed/"}}
    return str(
        signer.start_signing_job(
            source=source, destination=destination, profileName=world.profile, clientRequestToken=world.new("token")
        )["jobId"]
    )


def import_certificate(world: World, acm: Any) -> object:
    given = credential()
    return acm.import_certificate(Certificate=given.certificate_pem, PrivateKey=given.key_pem)


CALLS: dict[str, tuple[str, set[str], Call]] = {
    "ListBuckets": ("s3", {"s3:ListAllMyBuckets"}, lambda w, s3: s3.list_buckets()),
    "CreateBucket": ("s3", {"s3:CreateBucket"}, lambda w, s3: s3.create_bucket(Bucket=w.new("bucket"))),
    "PutBucketVersioning": (
        "s3",
        {"s3:PutBucketVersioning"},
        lambda w, s3: s3.put_bucket_versioning(Bucket=w.bucket, VersioningConfiguration={"Status": "Enabled"}),
    ),
    "GetBucketLocation": ("s3", {"s3:GetBucketLocation"}, lambda w, s3: s3.get_bucket_location(Bucket=w.bucket)),
    "ListObjectsV2": ("s3", {"s3:ListBucket"}, lambda w, s3: s3.list_objects_v2(Bucket=w.bucket)),
    "ListObjectVersions": ("s3", {"s3:ListBucketVersions"}, lambda w, s3: s3.list_object_versions(Bucket=w.bucket)),
    "PutObject": ("s3", {"s3:PutObject"}, lambda w, s3: s3.put_object(Bucket=w.bucket, Key="other", Body=b"x")),
    "GetObject": ("s3", {"s3:GetObject"}, lambda w, s3: s3.get_object(Bucket=w.bucket, Key="permitted.bin")["Body"].read()),
    "GetObjectVersion": (
        "s3",
        {"s3:GetObjectVersion"},
        lambda w, s3: s3.get_object(Bucket=w.bucket, Key="permitted.bin", VersionId=w.version)["Body"].read(),
    ),
    "ImportCertificate": ("acm", {"acm:ImportCertificate"}, import_certificate),
    "ListCertificates": ("acm", {"acm:ListCertificates"}, lambda w, acm: acm.list_certificates()),
    "ListRoles": ("iam", {"iam:ListRoles"}, lambda w, iam: iam.list_roles()),
    "StartSigningJob": ("signer", {"signer:StartSigningJob", "s3:GetObjectVersion", "s3:PutObject"}, signing_job),
    "DescribeSigningJob": (
        "signer",
        {"signer:DescribeSigningJob"},
        lambda w, signer: signer.describe_signing_job(jobId=w.once("signing")),
    ),
    "ListSigningJobs": ("signer", {"signer:ListSigningJobs"}, lambda w, signer: signer.list_signing_jobs()),
    "GetSigningProfile": (
        "signer",
        {"signer:GetSigningProfile"},
        lambda w, signer: signer.get_signing_profile(profileName=w.profile),
    ),
    "ListSigningProfiles": ("signer", {"signer:ListSigningProfiles"}, lambda w, signer: signer.list_signing_profiles()),
    "CreateStream": ("iot", {"iot:CreateStream", "iam:PassRole"}, lambda w, iot: w.create_stream(iot)),
    "DescribeStream": (
        "iot",
        {"iot:DescribeStream"},
        lambda w, iot: iot.describe_stream(streamId=w.once("stream")),
    ),
    "ListStreams": ("iot", {"iot:ListStreams"}, lambda w, iot: iot.list_streams()),
    "DeleteStream": ("iot", {"iot:DeleteStream"}, lambda w, iot: iot.delete_stream(streamId=w.create_stream(w.root("iot")))),
    "CreateJob": ("iot", {"iot:CreateJob"}, lambda w, iot: w.create_job(iot)),
    "DescribeJob": ("iot", {"iot:DescribeJob"}, lambda w, iot: iot.describe_job(jobId=w.once("job"))),
    "ListJobs": ("iot", {"iot:ListJobs"}, lambda w, iot: iot.list_jobs()),
    "CancelJob": ("iot", {"iot:CancelJob"}, lambda w, iot: iot.cancel_job(jobId=w.create_job(w.root("iot")))),
    "CreateOTAUpdate": ("iot", {"iot:CreateOTAUpdate", "iam:PassRole"}, lambda w, iot: w.create_update(iot)),
    "GetOTAUpdate": (
        "iot",
        {"iot:GetOTAUpdate"},
        lambda w, iot: iot.get_ota_update(otaUpdateId=w.once("update")),
    ),
    "ListOTAUpdates": ("iot", {"iot:ListOTAUpdates"}, lambda w, iot: iot.list_ota_updates()),
    "ListThings": ("iot", {"iot:ListThings"}, lambda w, iot: iot.list_things()),
    "DescribeEndpoint": ("iot", {"iot:DescribeEndpoint"}, lambda w, iot: iot.describe_endpoint()),
}
"""(service, permissions that it needs, call). Other calls that one needs first are made by the root."""

ACTIONS = sorted(set().union(*(needs for _, needs, _ in CALLS.values())))


def refused(world: World) -> dict[str, str]:
    """The calls that are denied, with what was said."""
    found: dict[str, str] = {}
    for name, (service, _, call) in CALLS.items():
        try:
            call(world, world.client(service))
        except ClientError as error:
            if error.response["Error"]["Code"] not in DENIED:
                raise
            found[name] = error.response["Error"]["Message"]
    return found


def test_with_every_permission_nothing_is_denied_and_with_none_everything(world: World) -> None:
    world.permit(ACTIONS)
    assert refused(world) == {}
    world.permit([])
    assert set(refused(world)) == set(CALLS)


@pytest.mark.parametrize("action", ACTIONS)
def test_an_operator_without_one_permission_is_denied_exactly_what_needs_it(world: World, action: str) -> None:
    world.permit([other for other in ACTIONS if other != action])
    found = refused(world)
    assert set(found) == {name for name, (_, needs, _) in CALLS.items() if action in needs}
    for message in found.values():
        assert message.startswith(f"User: arn:aws:iam::{world.server.endpoints['account']}:user/permitted is not authorized")
        assert f"to perform: {action} on resource: " in message
        assert message.endswith(f"because no identity-based policy allows the {action} action")


def test_the_2018_name_of_creating_an_update_is_still_a_permission_for_it(world: World) -> None:
    world.permit(["iot:CreateDeployment" if action == "iot:CreateOTAUpdate" else action for action in ACTIONS])
    assert refused(world) == {}


# The service role -----------------------------------------------------------------------------------------------------

ROLE_ACTIONS = {
    "s3:GetObjectVersion",
    "s3:PutObject",
    "signer:GetSigningProfile",
    "signer:StartSigningJob",
    "signer:DescribeSigningJob",
    "iot:CreateStream",
    "iot:CreateJob",
    "iam:PassRole",
}
TRUST = {"Effect": "Allow", "Principal": {"Service": "iot.amazonaws.com"}, "Action": "sts:AssumeRole"}


def make_role(world: World, actions: set[str], trust: dict[str, Any] = TRUST) -> str:
    iam, name = world.root("iam"), world.new("role")
    trusted = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    arn = str(iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusted)["Role"]["Arn"])
    if actions:
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document(sorted(actions)))
    return arn


def outcome(world: World, role: str) -> dict[str, Any]:
    """Create an update under a role, and what became of it."""
    iot = world.root("iot")
    update = world.create_update(iot, roleArn=role)
    deadline = time.monotonic() + WHOLE_TIMEOUT_S
    while time.monotonic() < deadline:
        info: dict[str, Any] = iot.get_ota_update(otaUpdateId=update)["otaUpdateInfo"]
        if info["otaUpdateStatus"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
            return info
        time.sleep(0.05)  # GetOTAUpdate is the only way to learn it (wire reference §1.1, step 8)
    raise AssertionError(f"{update} is still being created after {WHOLE_TIMEOUT_S} s.")


def test_a_role_with_every_permission_carries_the_update_through(world: World) -> None:
    assert outcome(world, make_role(world, ROLE_ACTIONS))["otaUpdateStatus"] == "CREATE_COMPLETE"


@pytest.mark.parametrize("action", sorted(ROLE_ACTIONS))
def test_a_role_without_one_permission_fails_the_update_naming_it(world: World, action: str) -> None:
    info = outcome(world, make_role(world, ROLE_ACTIONS - {action}))
    assert info["otaUpdateStatus"] == "CREATE_FAILED"
    assert info["errorInfo"]["code"] == "AccessDeniedException"
    assert f"is not authorized to perform: {action} on resource: " in info["errorInfo"]["message"]


@pytest.mark.parametrize(
    "trust",
    [
        {**TRUST, "Principal": {"Service": "lambda.amazonaws.com"}},
        {**TRUST, "Condition": {"StringEquals": {"aws:SourceAccount": "999999999999"}}},
        {**TRUST, "Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:iot:*:999999999999:*"}}},
    ],
    ids=["another service", "another account", "another source"],
)
def test_a_role_that_does_not_trust_the_service_fails_the_update(world: World, trust: dict[str, Any]) -> None:
    info = outcome(world, make_role(world, ROLE_ACTIONS, trust))
    assert info["otaUpdateStatus"] == "CREATE_FAILED"
    assert "cannot be assumed" in info["errorInfo"]["message"]


def test_a_role_that_trusts_the_service_for_this_account_alone_is_taken_on(world: World) -> None:
    place = world.server.endpoints
    condition = {
        "StringEquals": {"aws:SourceAccount": place["account"]},
        "ArnLike": {"aws:SourceArn": f"arn:aws:iot:{place['region']}:{place['account']}:*"},
    }
    assert (
        outcome(world, make_role(world, ROLE_ACTIONS, {**TRUST, "Condition": condition}))["otaUpdateStatus"]
        == "CREATE_COMPLETE"
    )


def test_a_bucket_policy_gives_the_service_what_the_role_lacks_and_can_take_it_away(world: World) -> None:
    s3 = world.root("s3")
    statement = {
        "Principal": {"Service": "iot.amazonaws.com"},
        "Action": "s3:GetObjectVersion",
        "Resource": f"arn:aws:s3:::{world.bucket}/*",
    }
    poor = make_role(world, ROLE_ACTIONS - {"s3:GetObjectVersion"})
    rich = make_role(world, ROLE_ACTIONS)
    try:
        for effect, role, status in (("Allow", poor, "CREATE_COMPLETE"), ("Deny", rich, "CREATE_FAILED")):
            policy = {"Version": "2012-10-17", "Statement": [{"Effect": effect, **statement}]}
            s3.put_bucket_policy(Bucket=world.bucket, Policy=json.dumps(policy))
            info = outcome(world, role)
            assert info["otaUpdateStatus"] == status, info.get("errorInfo")
        assert "s3:GetObjectVersion" in info["errorInfo"]["message"]
    finally:
        s3.delete_bucket_policy(Bucket=world.bucket)


# A download under way ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", ["inline policy", "attached policy", "trust", "bucket policy"])
def test_a_grant_taken_away_stops_a_download_before_that_is_answered(world: World, tmp_path: Path, taken: str) -> None:
    iot, iam, s3 = world.root("iot"), world.root("iam"), world.root("s3")
    role = make_role(world, set() if taken == "attached policy" else ROLE_ACTIONS)
    name = role.rpartition("/")[2]
    if taken == "attached policy":
        iam.attach_role_policy(RoleName=name, PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
    stream, thing = world.new("stream"), world.new("device")
    s3_location = {"bucket": world.bucket, "key": "permitted.bin", "version": world.version}
    iot.create_stream(streamId=stream, files=[{"fileId": 0, "s3Location": s3_location}], roleArn=role)
    iot.create_thing(thingName=thing)
    certificate = iot.create_keys_and_certificate(setAsActive=True)
    iot.create_policy(policyName=thing, policyDocument=document(["iot:*"]))
    iot.attach_policy(policyName=thing, target=certificate["certificateArn"])
    iot.attach_thing_principal(thingName=thing, principal=certificate["certificateArn"])
    stem = f"$aws/things/{thing}/streams/{stream}"
    ask = json.dumps({"f": 0, "l": 4096, "n": 1}).encode()
    with PahoDevice(world.server.endpoints, tmp_path, thing, certificate) as device:
        device.subscribe(f"{stem}/data/json")
        device.subscribe(f"{stem}/rejected/json")
        device.publish(f"{stem}/get/json", ask)
        assert device.message()[0] == f"{stem}/data/json"
        try:
            if taken == "inline policy":
                iam.delete_role_policy(RoleName=name, PolicyName="p")
            elif taken == "attached policy":
                iam.detach_role_policy(RoleName=name, PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
            elif taken == "trust":
                nobody = {**TRUST, "Principal": {"Service": "lambda.amazonaws.com"}}
                trusted = json.dumps({"Version": "2012-10-17", "Statement": [nobody]})
                iam.update_assume_role_policy(RoleName=name, PolicyDocument=trusted)
            else:
                everything = {"Effect": "Deny", "Principal": {"Service": "iot.amazonaws.com"}, "Action": "s3:Get*"}
                statement = {**everything, "Resource": f"arn:aws:s3:::{world.bucket}/*"}
                policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
                s3.put_bucket_policy(Bucket=world.bucket, Policy=policy)
            device.publish(f"{stem}/get/json", ask)
            topic, payload = device.message()
            assert (topic, json.loads(payload)["o"]) == (f"{stem}/rejected/json", "Unauthorized")
        finally:
            s3.delete_bucket_policy(Bucket=world.bucket)
