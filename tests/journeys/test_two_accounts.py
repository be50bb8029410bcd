"""Two accounts on one server: whatever the second one's root asks with the first one's names, it gets and changes nothing."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from overair.basics.ids import AccountId
from overair.server import first_start
from tests.support.accounts import Accounts, furnish, server_of_accounts
from tests.support.model_walk import ModelWalk
from tests.support.paho_device import PahoDevice

OWNER, STRANGER = AccountId("111122223333"), AccountId("999988887777")
ROUNDS = 5
SECRET = "only-in-the-first-account"


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    with server_of_accounts(tmp_path_factory.mktemp("accounts") / "data", OWNER, STRANGER) as running:
        yield running


@pytest.mark.timeout(300)
def test_an_account_reads_and_changes_nothing_of_another(tmp_path: Path) -> None:
    with server_of_accounts(tmp_path / "data", OWNER, STRANGER) as accounts:
        walk_with_anothers_names(accounts)


def walk_with_anothers_names(accounts: Accounts) -> None:
    names = furnish(accounts, OWNER, prefix="owned", secret=SECRET)
    # The role of that name is in both accounts: by its name the stranger would find his own.
    walk = ModelWalk({member: name for member, name in names.items() if member != "rolename"}, random.Random(20261121))
    before = accounts.rows_of(OWNER)
    statuses: Counter[int] = Counter()
    leaks, failures = [], []
    requests = [
        (operation, walk.models[service].signing_name, walk.request(service, operation))
        for service, operation in accounts.bound(walk) * ROUNDS
        if operation not in KEEPS_THE_STRANGER_IN
    ]
    requests += [(what, "overair", wire) for what, wire in accounts.rest_requests(names, reads_alone=False)]
    for operation, service, wire in requests:
        answer = accounts.send(wire, STRANGER, service=service)
        statuses[answer.status // 100] += 1
        if answer.status >= 500 and answer.status != 501:
            failures.append((operation, answer.status))
        sent = repr(wire).encode()
        # The stranger's own trail repeats the names that he asked for, and his own bucket may have such a name.
        repeats = operation in ("ListAuditRecords", "ListAuditChain", "ListBuckets")
        words = (SECRET.encode(),) if repeats else (SECRET.encode(), OWNER.encode())
        if answer.status < 300 and any(word in answer.body and word not in sent for word in words):
            leaks.append((operation, answer.body[:600]))
    assert not failures
    assert not leaks
    assert statuses[4] > 300
    assert statuses[2] > 50, "a walk that is always refused shows little"
    after = accounts.rows_of(OWNER)
    assert {name: rows for name, rows in after.items() if rows != before[name]} == {}


KEEPS_THE_STRANGER_IN = {"DeleteAccessKey", "UpdateAccessKey"}


def test_what_is_named_by_arn_or_id_is_told_as_absent_or_forbidden(accounts: Accounts) -> None:
    names = furnish(accounts, OWNER, prefix="owned", secret=SECRET)
    iot, s3, iam, sts, signer = (accounts.client(name, STRANGER) for name in ("iot", "s3", "iam", "sts", "signer"))
    own_role = f"arn:aws:iam::{STRANGER}:role/{first_start.ROLE_NAME}"
    own_bucket = first_start.default_bucket(STRANGER)
    iot.create_thing(thingName="mine")
    mine = f"arn:aws:iot:{accounts.endpoints['region']}:{STRANGER}:thing/mine"
    s3.put_object(Bucket=own_bucket, Key="k", Body=b"x")
    where = {"bucket": names["bucket"], "key": "owned-key"}
    destination = {"s3Destination": {"bucket": names["bucket"]}}
    signing = {"startSigningJobParameter": {"signingProfileName": first_start.PROFILE_NAME, "destination": destination}}
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
        "their profile": lambda: signer.get_signing_profile(profileName=first_start.PROFILE_NAME, profileOwner=OWNER),
        "their profile's signature": lambda: signer.sign_payload(
            profileName=first_start.PROFILE_NAME, profileOwner=OWNER, payload=b"x", payloadFormat="raw"
        ),
        "our right to their profile": lambda: signer.add_profile_permission(
            profileName="mine", action="signer:SignPayload", principal=OWNER, statementId="s"
        ),
        "their object's copy": lambda: s3.copy_object(Bucket=own_bucket, Key="stolen", CopySource=names["copysource"]),
        "their object": lambda: s3.get_object(Bucket=names["bucket"], Key="owned-key"),
        "their bucket": lambda: s3.list_objects_v2(Bucket=names["bucket"]),
        "their bucket's policy": lambda: s3.put_bucket_policy(
            Bucket=names["bucket"],
            Policy='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*"}]}',
        ),
        "their tags": lambda: iot.tag_resource(resourceArn=names["thingarn"], tags=[{"Key": "a", "Value": "b"}]),
        "their group": lambda: iam.get_group(GroupName=names["groupname"]),
        "their policy for our boundary": lambda: iam.put_role_permissions_boundary(
            RoleName=first_start.ROLE_NAME, PermissionsBoundary=names["policyarn"]
        ),
        "their policy for our session": lambda: sts.assume_role(
            RoleArn=own_role, RoleSessionName="xx", PolicyArns=[{"arn": names["policyarn"]}]
        ),
        "what their user may": lambda: iam.simulate_principal_policy(
            PolicySourceArn=names["policysourcearn"], ActionNames=["iot:ListThings"]
        ),
        "whom their policy touches": lambda: iam.list_entities_for_policy(PolicyArn=names["policyarn"]),
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


def test_a_profile_signs_for_another_account_while_its_owner_permits_it(accounts: Accounts) -> None:
    ours, theirs = accounts.client("signer", OWNER), accounts.client("signer", STRANGER)
    bucket = first_start.default_bucket(STRANGER)
    s3 = accounts.client("s3", STRANGER)
    version = s3.put_object(Bucket=bucket, Key="theirs.bin", Body=b"their image")["VersionId"]

    def start() -> str:
        return str(
            theirs.start_signing_job(
                profileName=first_start.PROFILE_NAME,
                profileOwner=OWNER,
                source={"s3": {"bucketName": bucket, "key": "theirs.bin", "version": version}},
                destination={"s3": {"bucketName": bucket, "prefix": "signed/"}},
            )["jobId"]
        )

    with pytest.raises(theirs.exceptions.AccessDeniedException):
        start()
    granted = ours.add_profile_permission(
        profileName=first_start.PROFILE_NAME, action="signer:StartSigningJob", principal=STRANGER, statementId="sign"
    )
    listed = ours.list_profile_permissions(profileName=first_start.PROFILE_NAME)
    assert (listed["revisionId"], [each["principal"] for each in listed["permissions"]]) == (granted["revisionId"], [STRANGER])
    job = start()
    theirs.get_waiter("successful_signing_job").wait(jobId=job, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    shown = theirs.describe_signing_job(jobId=job)
    assert (shown["jobOwner"], shown["jobInvoker"]) == (OWNER, STRANGER)
    signed = s3.get_object(Bucket=bucket, Key=shown["signedObject"]["s3"]["key"])["Body"].read()
    assert b'"signatureAlgorithm":"SHA256withECDSA"' in signed
    assert [each["jobId"] for each in ours.list_signing_jobs(jobInvoker=STRANGER)["jobs"]] == [job]
    ours.remove_profile_permission(profileName=first_start.PROFILE_NAME, statementId="sign", revisionId=listed["revisionId"])
    with pytest.raises(theirs.exceptions.AccessDeniedException):
        start()


def test_devices_of_one_name_in_two_accounts_never_hear_of_each_other(accounts: Accounts, tmp_path: Path) -> None:
    everything = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]})

    def device(account: AccountId) -> PahoDevice:
        iot = accounts.client("iot", account)
        iot.create_thing(thingName="same")
        iot.create_policy(policyName="everything", policyDocument=everything)
        certificate = iot.create_keys_and_certificate(setAsActive=True)
        iot.attach_policy(policyName="everything", target=certificate["certificateArn"])
        iot.attach_thing_principal(thingName="same", principal=certificate["certificateArn"])
        return PahoDevice(accounts.endpoints, tmp_path / account, "same", certificate)

    def job(account: AccountId) -> None:
        thing = f"arn:aws:iot:{accounts.endpoints['region']}:{account}:thing/same"
        accounts.client("iot", account).create_job(jobId="same-job", targets=[thing], document=json.dumps({"of": account}))

    with device(OWNER) as one, device(STRANGER) as other:
        for each, account in ((one, OWNER), (other, STRANGER)):
            assert each.subscribe("#") == 1
            assert each.subscribe("$aws/things/same/jobs/#") == 1
            accounts.client("iot-data", account).publish(topic="both/retained", qos=1, retain=True, payload=account.encode())
            each.publish("both/say", account.encode())
            job(account)
        heard: dict[str, list[tuple[str, bytes]]] = {OWNER: [], STRANGER: []}
        for each, account in ((one, OWNER), (other, STRANGER)):
            each.publish("both/last", account.encode())
            # On one connection everything before this one has come by then, but for what the workers send: the job.
            while not {"both/last", "$aws/things/same/jobs/notify-next"} <= {topic for topic, _ in heard[account]}:
                heard[account].append(each.message())
        assert not one.cut.is_set(), "the same client id in another account is another client"
        assert not other.cut.is_set()
    for mine, theirs in ((OWNER, STRANGER), (STRANGER, OWNER)):
        topics = {topic for topic, _ in heard[mine]}
        assert {"both/retained", "both/say", "both/last", "$aws/things/same/jobs/notify-next"} <= topics
        assert not [payload for _, payload in heard[mine] if theirs.encode() in payload]
        kept = accounts.client("iot-data", mine).list_retained_messages()["retainedTopics"]
        assert [each["topic"] for each in kept] == ["both/retained"]
        retained = accounts.client("iot-data", mine).get_retained_message(topic="both/retained")
        assert retained["payload"] == mine.encode()


def test_the_first_account_alone_makes_and_lists_accounts(accounts: Accounts) -> None:
    """With boto3's client of our own service."""
    overair = accounts.client("overair", OWNER)
    made = overair.create_account(name="Third")
    assert made["bucket"] == f"overair-{made['accountId']}"
    assert made["secretAccessKey"]
    assert made["signerCertificatePem"].startswith("-----BEGIN CERTIFICATE-----")
    numbers, token = [], {}
    while True:
        page = overair.list_accounts(maxResults=2, **token)
        numbers += [(each["accountId"], each["isFirst"]) for each in page["accounts"]]
        if "nextToken" not in page:
            break
        token = {"nextToken": page["nextToken"]}
    assert numbers == sorted([(OWNER, True), (STRANGER, False), (made["accountId"], False)])
    for refused in (accounts.client("overair", STRANGER).create_account, accounts.client("overair", STRANGER).list_accounts):
        with pytest.raises(ClientError, match="AccessDeniedException"):
            refused()
    with pytest.raises(overair.exceptions.ResourceAlreadyExistsException):
        overair.create_account(accountId=STRANGER)
    records = overair.list_audit_records(maxResults=10)["records"]
    assert [each["operation"] for each in records][:1] == ["CreateAccount"]
    assert made["secretAccessKey"] not in repr(records)
