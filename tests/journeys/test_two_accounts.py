"""Two accounts on one server: whatever the second one's root asks with the first one's names, it gets and changes nothing."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import urllib3
from sqlalchemy import select

from overair.basics.arn import Place
from overair.basics.clock import WallClock
from overair.basics.ids import AccountId, RandomIds
from overair.basics.work import Tx
from overair.server import first_start
from overair.server.app import Server, build_server
from overair.server.config import Settings
from overair.server.storage.schema import metadata
from overair.server.storage.work import sql
from tests.support import pki
from tests.support.listening import EventLoopThread, loop_thread
from tests.support.model_walk import ModelWalk, signed
from tests.support.server_process import MODELS

OWNER, STRANGER = AccountId("111122223333"), AccountId("999988887777")
ROUNDS = 6
SECRET = "only-in-the-first-account"
POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'


class TwoAccounts:
    """A server with the first account furnished, and keys of both."""

    def __init__(self, server: Server, thread: EventLoopThread, endpoints: dict[str, Any], data: Path) -> None:
        self.server, self.thread, self.endpoints = server, thread, endpoints
        self.keys = {OWNER: json.loads((data / "root-key.json").read_text())}
        other = Place(endpoints["region"], STRANGER)
        made = thread.run(server.joined.work.run(lambda tx: first_start.seed(tx, server.joined.first, other)))
        self.keys[STRANGER] = {"access_key_id": made.root_key_id, "secret_access_key": made.root_secret.reveal()}

    def client(self, service: str) -> Any:
        key = self.keys[OWNER]
        session = boto3.Session()
        session._loader.search_paths.append(str(MODELS))
        return session.client(
            service,
            endpoint_url=self.endpoints["plain_http_url"],
            region_name=self.endpoints["region"],
            aws_access_key_id=key["access_key_id"],
            aws_secret_access_key=key["secret_access_key"],
        )

    def rows_of(self, account: AccountId) -> dict[str, list[Any]]:
        def read(tx: Tx) -> dict[str, list[Any]]:
            return {
                table.name: sorted(sql(tx).execute(select(table).where(table.c.account == account)).all(), key=repr)
                for table in metadata.sorted_tables
                if "account" in table.c and not table.name.startswith("test_")  # other tests' own tables
            }

        return self.thread.run(self.server.joined.work.read(read))


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[TwoAccounts]:
    data = tmp_path / "data"
    settings = Settings(data=data, account=OWNER, operator_port=0, mqtt_port=0, device_port=0, plain_http=0)
    server = build_server(settings, clock=WallClock(), ids=RandomIds())
    with loop_thread() as thread:
        endpoints = thread.run(server.start())
        try:
            yield TwoAccounts(server, thread, endpoints, data)
        finally:
            thread.run(server.stop(drain_timeout_s=1))


def furnish(accounts: TwoAccounts) -> dict[str, str]:
    """Something of everything in the first account; names by member."""
    at, iot, s3 = accounts.endpoints, accounts.client("iot"), accounts.client("s3")
    bucket, role = at["bucket"], at["ota_role_arn"]
    thing = iot.create_thing(thingName="owned-thing", attributePayload={"attributes": {"a": SECRET}})["thingArn"]
    iot.create_thing_type(thingTypeName="owned-type")
    group = iot.create_thing_group(thingGroupName="owned-group")["thingGroupArn"]
    iot.add_thing_to_thing_group(thingGroupName="owned-group", thingName="owned-thing")
    certificate = iot.create_keys_and_certificate(setAsActive=True)
    policy = iot.create_policy(policyName="owned-policy", policyDocument=POLICY)["policyArn"]
    iot.attach_policy(policyName="owned-policy", target=certificate["certificateArn"])
    iot.attach_thing_principal(thingName="owned-thing", principal=certificate["certificateArn"])
    version = s3.put_object(Bucket=bucket, Key="owned-key", Body=SECRET.encode())["VersionId"]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="owned-upload")["UploadId"]
    where = {"bucket": bucket, "key": "owned-key", "version": version}
    iot.create_stream(streamId="owned-stream", roleArn=role, files=[{"fileId": 0, "s3Location": where}])
    job = iot.create_job(jobId="owned-job", targets=[thing, group], document=json.dumps({"a": SECRET}))["jobArn"]
    accounts.client("iam").create_user(UserName="owned-user")
    key = accounts.client("iam").create_access_key(UserName="owned-user")["AccessKey"]["AccessKeyId"]
    own = accounts.client("iam").create_policy(PolicyName="owned-managed", PolicyDocument=POLICY)["Policy"]["Arn"]
    signer = accounts.client("acm").list_certificates()["CertificateSummaryList"][0]["CertificateArn"]
    signing = accounts.client("signer").start_signing_job(
        source={"s3": {"bucketName": bucket, "key": "owned-key", "version": version}},
        destination={"s3": {"bucketName": bucket, "prefix": "SignedImages/"}},
        profileName=at["signing_profile"],
    )["jobId"]
    overair = accounts.client("overair")
    credential = overair.create_provisioning_credential(name=SECRET)["credential"]["credentialId"]
    (authority,) = overair.register_fleet_certificate_authority(certificatePem=pki.authority("Owned root").pem)["authorities"]
    overair.block_device(thingName="owned-blocked", reason=SECRET)
    overair.block_certificate(certificateId="0" * 64, reason=SECRET)
    accounts.client("signer").get_waiter("successful_signing_job").wait(jobId=signing, WaiterConfig={"Delay": 1})
    return {
        "thingname": "owned-thing",
        "thingarn": thing,
        "thingtypename": "owned-type",
        "thinggroupname": "owned-group",
        "thinggrouparn": group,
        "parentgroupname": "owned-group",
        "policyname": "owned-policy",
        "policydocument": POLICY,
        "certificateid": certificate["certificateId"],
        "certificatearn": signer,
        "principal": certificate["certificateArn"],
        "target": certificate["certificateArn"],
        "streamid": "owned-stream",
        "jobid": "owned-job",
        "rolearn": role,
        "username": "owned-user",
        "credentialid": credential,
        "authorityid": authority["authorityId"],
        "accesskeyid": key,
        "policyarn": own,
        "bucket": bucket,
        "key": "owned-key",
        "versionid": version,
        "uploadid": upload,
        "copysource": f"{bucket}/owned-key",
        "resourcearn": random.Random(1).choice((thing, job, policy)),
    }


@pytest.mark.timeout(300)
def test_an_account_reads_and_changes_nothing_of_another(accounts: TwoAccounts) -> None:
    names = furnish(accounts)
    walk = ModelWalk(names, random.Random(20261121))
    before = accounts.rows_of(OWNER)
    pool = urllib3.PoolManager(retries=False, maxsize=2)
    url, region = accounts.endpoints["plain_http_url"], accounts.endpoints["region"]
    statuses: Counter[int] = Counter()
    leaks, failures = [], []
    for service, operation in walk.operations() * ROUNDS:
        if operation not in accounts.server.joined.operator_door.services[service].bound or operation in KEEPS_THE_STRANGER_IN:
            continue
        wire = walk.request(service, operation)
        address, headers = signed(wire, url, accounts.keys[STRANGER], service=walk.models[service].signing_name, region=region)
        answer = pool.request(wire.method, address, body=wire.body, headers=headers)
        statuses[answer.status // 100] += 1
        if answer.status >= 500 and answer.status != 501:
            failures.append((operation, answer.status))
        sent = repr(wire).encode()
        # The stranger's own trail repeats the names that he asked for, and his own bucket may have such a name.
        repeats = operation in ("ListAuditRecords", "ListBuckets")
        words = (SECRET.encode(),) if repeats else (SECRET.encode(), OWNER.encode())
        if answer.status < 300 and any(word in answer.data and word not in sent for word in words):
            leaks.append((operation, answer.data[:600]))
    assert not failures
    assert not leaks
    assert statuses[4] > 300
    assert statuses[2] > 50, "a walk that is always refused shows little"
    after = accounts.rows_of(OWNER)
    assert {name: rows for name, rows in after.items() if rows != before[name]} == {}


KEEPS_THE_STRANGER_IN = {"DeleteAccessKey", "UpdateAccessKey"}


def test_what_is_named_by_arn_or_id_is_told_as_absent_or_forbidden(accounts: TwoAccounts) -> None:
    names, stranger = furnish(accounts), accounts.keys[STRANGER]

    def client(service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=accounts.endpoints["plain_http_url"],
            region_name=accounts.endpoints["region"],
            aws_access_key_id=stranger["access_key_id"],
            aws_secret_access_key=stranger["secret_access_key"],
        )

    iot, s3, iam, sts, signer = (client(name) for name in ("iot", "s3", "iam", "sts", "signer"))
    own_role = f"arn:aws:iam::{STRANGER}:role/{first_start.ROLE_NAME}"
    own_bucket = first_start.default_bucket(STRANGER)
    iot.create_thing(thingName="mine")
    mine = f"arn:aws:iot:{accounts.endpoints['region']}:{STRANGER}:thing/mine"
    s3.put_object(Bucket=own_bucket, Key="k", Body=b"x")
    where = {"bucket": names["bucket"], "key": "owned-key"}
    signing = {"startSigningJobParameter": {"signingProfileName": first_start.PROFILE_NAME, "destination": {"s3Destination": {"bucket": names["bucket"]}}}}  # fmt: skip  # noqa: E501
    attempts = {
        "a job for their thing": lambda: iot.create_job(jobId="j", targets=[names["thingarn"]], document="{}"),
        "a job for their group": lambda: iot.create_job(jobId="j", targets=[names["thinggrouparn"]], document="{}"),
        "a job from their object": lambda: iot.create_job(
            jobId="j", targets=[mine], documentSource=f"https://s3.amazonaws.com/{names['bucket']}/owned-key"
        ),
        "a stream of their object": lambda: iot.create_stream(
            streamId="s", roleArn=own_role, files=[{"fileId": 0, "s3Location": where}]
        ),
        "a stream with their role": lambda: iot.create_stream(
            streamId="s", roleArn=names["rolearn"], files=[{"fileId": 0, "s3Location": {"bucket": own_bucket, "key": "k"}}]
        ),
        "an update with their role": lambda: iot.create_ota_update(
            otaUpdateId="u",
            targets=[mine],
            roleArn=names["rolearn"],
            files=[{"fileName": "f", "fileLocation": {"s3Location": where}, "codeSigning": signing}],
        ),
        "their role": lambda: sts.assume_role(RoleArn=names["rolearn"], RoleSessionName="xx"),
        "their policy for our user": lambda: iam.attach_role_policy(
            RoleName=first_start.ROLE_NAME, PolicyArn=names["policyarn"]
        ),
        "their certificate for our thing": lambda: iot.attach_thing_principal(thingName="mine", principal=names["principal"]),
        "their certificate's things": lambda: iot.list_principal_things(principal=names["principal"]),
        "their certificate": lambda: iot.describe_certificate(certificateId=names["certificateid"]),
        "their certificate's end": lambda: iot.update_certificate(certificateId=names["certificateid"], newStatus="REVOKED"),
        "their signer for our profile": lambda: signer.put_signing_profile(
            profileName="mine", platformId=first_start.PLATFORM, signingMaterial={"certificateArn": names["certificatearn"]}
        ),
        "their object's copy": lambda: s3.copy_object(Bucket=own_bucket, Key="stolen", CopySource=names["copysource"]),
        "their object": lambda: s3.get_object(Bucket=names["bucket"], Key="owned-key"),
        "their bucket": lambda: s3.list_objects_v2(Bucket=names["bucket"]),
        "their bucket's policy": lambda: s3.put_bucket_policy(
            Bucket=names["bucket"],
            Policy='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*"}]}',
        ),
        "their tags": lambda: iot.tag_resource(resourceArn=names["thingarn"], tags=[{"Key": "a", "Value": "b"}]),
        "their key's last use": lambda: iam.get_access_key_last_used(AccessKeyId=names["accesskeyid"]),
    }
    done = []
    for what, attempt in attempts.items():
        try:
            attempt()
        except sts.exceptions.ClientError as refused:
            status = refused.response["ResponseMetadata"]["HTTPStatusCode"]
            if not 400 <= status < 500:
                done.append((what, status))
        else:
            done.append((what, 200))
    assert done == []
