"""The registry as boto3 sees it: answers, pages, repeats and refusals of each operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import CertificateSigningRequestBuilder

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.server.certificates.operator_api import CertificatesOperatorApi
from overair.server.certificates.x509 import certificate_from_pem, common_name, fingerprint
from overair.server.devices.admission import Admissions
from overair.server.devices.operator_api import DevicesOperatorApi
from overair.server.devices.policies_operator_api import PoliciesOperatorApi
from overair.server.devices.store import SqlAdmissionStore
from overair.server.devices.tags_operator_api import TagsOperatorApi
from overair.server.devices.thing_groups_operator_api import ThingGroupsOperatorApi
from overair.server.devices.thing_types_operator_api import ThingTypesOperatorApi
from overair.server.devices.trials import TrialsService
from overair.server.devices.trials_operator_api import TrialsOperatorApi
from overair.server.storage.work import SqlWork
from tests.support.operator_door import OperatorDoor, operator_door
from tests.support.registry import Registry

STEM = "arn:aws:iot:us-east-1:123456789012:"
ANYTHING = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
NOTHING = ANYTHING.replace("Allow", "Deny")


@pytest.fixture
def door(work: SqlWork, place: Place, clock: SettableClock, ids: SeededIds) -> Iterator[OperatorDoor]:
    registry = Registry(work, clock, ids)
    trials = TrialsService(
        admissions=Admissions(store=SqlAdmissionStore(), certificates=registry.certificates),
        certificates=registry.certificates,
        policies=registry.policies,
        clock=clock,
    )
    doors = (
        CertificatesOperatorApi(work=work, certificates=registry.certificates, transfers=registry.transfers),
        DevicesOperatorApi(work=work, devices=registry.devices, endpoint_host="ota.example.com"),
        ThingTypesOperatorApi(work=work, types=registry.types),
        ThingGroupsOperatorApi(work=work, groups=registry.groups),
        PoliciesOperatorApi(work=work, policies=registry.policies),
        TagsOperatorApi(work=work, tags=registry.tags),
        TrialsOperatorApi(work=work, trials=trials),
    )
    with operator_door(place, clock, *doors) as door:
        yield door


@pytest.fixture
def iot(door: OperatorDoor) -> Any:
    return door.client("iot")


class Refused:
    """Expects a refusal with one code (and status), and keeps it."""

    def __init__(self, code: str, status: int) -> None:
        self.expected = (code, status)
        self.response: dict[str, Any] = {}

    def __enter__(self) -> Refused:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        assert isinstance(error, ClientError), f"expected {self.expected}, not {error!r}"
        self.response = error.response
        assert (error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]) == self.expected
        assert error.response["Error"]["Message"]
        return True


def members(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def walk(iot: Any, operation: str, key: str, size_member: str, token: tuple[str, str], **arguments: Any) -> list[Any]:
    """Every page of two, by hand, so that not every list needs a paginator."""
    found: list[Any] = []
    pages = 0
    while True:
        answer = getattr(iot, operation)(**arguments, **{size_member: 2})
        assert len(answer[key]) <= 2
        found += answer[key]
        pages += 1
        if token[0] not in answer:
            return found
        assert pages < 50
        arguments[token[1]] = answer[token[0]]


def by_token(iot: Any, operation: str, key: str, **arguments: Any) -> list[Any]:
    return walk(iot, operation, key, "maxResults", ("nextToken", "nextToken"), **arguments)


def by_marker(iot: Any, operation: str, key: str, **arguments: Any) -> list[Any]:
    return walk(iot, operation, key, "pageSize", ("nextMarker", "marker"), **arguments)


def test_the_endpoint_is_a_bare_host_name(iot: Any) -> None:
    for arguments in ({}, {"endpointType": "iot:Data"}, {"endpointType": "iot:Data-ATS"}):
        assert members(iot.describe_endpoint(**arguments)) == {"endpointAddress": "ota.example.com"}
    with Refused("InvalidRequestException", 400):
        iot.describe_endpoint(endpointType="iot:Nonsense")
    with Refused("NotImplementedException", 400):
        iot.describe_endpoint(endpointType="iot:CredentialProvider")


def test_things(iot: Any) -> None:
    made = members(iot.create_thing(thingName="dev:1", attributePayload={"attributes": {"site": "north"}}))
    assert made == {"thingName": "dev:1", "thingArn": STEM + "thing/dev:1", "thingId": made["thingId"]}
    assert members(iot.create_thing(thingName="dev:1", attributePayload={"attributes": {"site": "north"}})) == made
    with Refused("ResourceAlreadyExistsException", 409) as refused:
        iot.create_thing(thingName="dev:1")
    assert (refused.response["resourceId"], refused.response["resourceArn"]) == ("dev:1", STEM + "thing/dev:1")
    assert members(iot.describe_thing(thingName="dev:1")) == {
        "defaultClientId": "dev:1",
        "thingName": "dev:1",
        "thingId": made["thingId"],
        "thingArn": STEM + "thing/dev:1",
        "attributes": {"site": "north"},
        "version": 1,
    }
    assert members(iot.update_thing(thingName="dev:1", attributePayload={"attributes": {"a": "1"}, "merge": True})) == {}
    with Refused("VersionConflictException", 409):
        iot.update_thing(thingName="dev:1", expectedVersion=1, attributePayload={"attributes": {}})
    described = iot.describe_thing(thingName="dev:1")
    assert (described["attributes"], described["version"]) == ({"site": "north", "a": "1"}, 2)
    for number in range(4):
        iot.create_thing(thingName=f"more-{number}")
    assert [thing["thingName"] for thing in by_token(iot, "list_things", "things")] == [
        "dev:1",
        "more-0",
        "more-1",
        "more-2",
        "more-3",
    ]
    [found] = iot.list_things(attributeName="site", attributeValue="nor", usePrefixAttributeValue=True)["things"]
    assert found == {
        "thingName": "dev:1",
        "thingArn": STEM + "thing/dev:1",
        "attributes": {"site": "north", "a": "1"},
        "version": 2,
    }
    assert members(iot.delete_thing(thingName="dev:1")) == {}
    assert members(iot.delete_thing(thingName="dev:1")) == {}
    for call in (iot.describe_thing, iot.update_thing):
        with Refused("ResourceNotFoundException", 404):
            call(thingName="dev:1")
    with Refused("ResourceNotFoundException", 404):
        iot.create_thing(thingName="x", billingGroupName="b")
    with Refused("ResourceNotFoundException", 404):
        iot.create_thing(thingName="x", thingTypeName="absent")
    with Refused("InvalidRequestException", 400):
        iot.list_things(attributeValue="alone")
    for token in ("nonsense", "W10=", "eyJhIjoxfQ==", "WzFd", "IiI="):
        with Refused("InvalidRequestException", 400):
            iot.list_things(nextToken=token)


def test_thing_types(iot: Any, clock: SettableClock) -> None:
    properties = {"thingTypeDescription": "measures", "searchableAttributes": ["site"]}
    made = members(iot.create_thing_type(thingTypeName="sensor", thingTypeProperties=properties))
    assert made == {"thingTypeName": "sensor", "thingTypeArn": STEM + "thingtype/sensor", "thingTypeId": made["thingTypeId"]}
    assert members(iot.create_thing_type(thingTypeName="sensor", thingTypeProperties=properties)) == made
    with Refused("ResourceAlreadyExistsException", 409):
        iot.create_thing_type(thingTypeName="sensor")
    described = members(iot.describe_thing_type(thingTypeName="sensor"))
    metadata = described.pop("thingTypeMetadata")
    assert described == {**made, "thingTypeProperties": properties}
    assert metadata["deprecated"] is False
    assert metadata["creationDate"].timestamp() * 1000 == clock.now()
    propagating = [{"userPropertyKey": "site", "thingAttribute": "site"}]
    change = {"searchableAttributes": ["room"], "mqtt5Configuration": {"propagatingAttributes": propagating}}
    iot.update_thing_type(thingTypeName="sensor", thingTypeProperties=change)
    changed = iot.describe_thing_type(thingTypeName="sensor")["thingTypeProperties"]
    assert changed == {"thingTypeDescription": "measures", **change}
    for number in range(3):
        iot.create_thing_type(thingTypeName=f"t{number}")
    names = [row["thingTypeName"] for row in by_token(iot, "list_thing_types", "thingTypes")]
    assert names == ["sensor", "t0", "t1", "t2"]
    [one] = iot.list_thing_types(thingTypeName="t1")["thingTypes"]
    assert one["thingTypeName"] == "t1"
    with Refused("InvalidRequestException", 400):
        iot.delete_thing_type(thingTypeName="t1")
    iot.deprecate_thing_type(thingTypeName="t1")
    assert iot.describe_thing_type(thingTypeName="t1")["thingTypeMetadata"]["deprecated"] is True
    with Refused("InvalidRequestException", 400):
        iot.delete_thing_type(thingTypeName="t1")
    clock.advance(milliseconds=5 * 60 * 1000)
    iot.delete_thing_type(thingTypeName="t1")
    for call in (iot.describe_thing_type, iot.deprecate_thing_type, iot.delete_thing_type):
        with Refused("ResourceNotFoundException", 404):
            call(thingTypeName="t1")


def test_thing_groups(iot: Any) -> None:
    made = members(iot.create_thing_group(thingGroupName="root"))
    assert made == {"thingGroupName": "root", "thingGroupArn": STEM + "thinggroup/root", "thingGroupId": made["thingGroupId"]}
    assert members(iot.create_thing_group(thingGroupName="root")) == made
    properties = {"thingGroupDescription": "below", "attributePayload": {"attributes": {"a": "1"}}}
    iot.create_thing_group(thingGroupName="mid", parentGroupName="root", thingGroupProperties=properties)
    iot.create_thing_group(thingGroupName="leaf", parentGroupName="mid")
    with Refused("ResourceAlreadyExistsException", 409):
        iot.create_thing_group(thingGroupName="mid")
    with Refused("ResourceNotFoundException", 404):
        iot.create_thing_group(thingGroupName="x", parentGroupName="absent")
    described = members(iot.describe_thing_group(thingGroupName="leaf"))
    assert described["thingGroupMetadata"].pop("creationDate")
    assert described == {
        "thingGroupName": "leaf",
        "thingGroupArn": STEM + "thinggroup/leaf",
        "thingGroupId": described["thingGroupId"],
        "version": 1,
        "thingGroupProperties": {"attributePayload": {"attributes": {}}},
        "thingGroupMetadata": {
            "parentGroupName": "mid",
            "rootToParentThingGroups": [
                {"groupName": "root", "groupArn": STEM + "thinggroup/root"},
                {"groupName": "mid", "groupArn": STEM + "thinggroup/mid"},
            ],
        },
    }
    assert iot.describe_thing_group(thingGroupName="mid")["thingGroupProperties"] == properties
    change = {"attributePayload": {"attributes": {"b": "2"}, "merge": True}}
    assert iot.update_thing_group(thingGroupName="mid", thingGroupProperties=change)["version"] == 2
    with Refused("VersionConflictException", 409):
        iot.update_thing_group(thingGroupName="mid", thingGroupProperties=change, expectedVersion=1)

    def names(**arguments: Any) -> list[str]:
        return [row["groupName"] for row in by_token(iot, "list_thing_groups", "thingGroups", **arguments)]

    assert names() == ["leaf", "mid", "root"]
    assert names(recursive=False) == ["root"]
    assert names(parentGroup="root") == ["mid"]
    assert names(parentGroup="root", recursive=True) == ["leaf", "mid"]
    assert names(namePrefixFilter="m") == ["mid"]
    for number in range(5):
        iot.create_thing(thingName=f"dev-{number}")
        iot.add_thing_to_thing_group(thingGroupName="leaf" if number % 2 else "mid", thingName=f"dev-{number}")
    iot.add_thing_to_thing_group(thingGroupArn=STEM + "thinggroup/mid", thingArn=STEM + "thing/dev-1")
    assert by_token(iot, "list_things_in_thing_group", "things", thingGroupName="mid") == ["dev-0", "dev-1", "dev-2", "dev-4"]
    everyone = [f"dev-{number}" for number in range(5)]
    assert by_token(iot, "list_things_in_thing_group", "things", thingGroupName="root", recursive=True) == everyone
    assert by_token(iot, "list_things_in_thing_group", "things", thingGroupName="root") == []
    groups = by_token(iot, "list_thing_groups_for_thing", "thingGroups", thingName="dev-1")
    assert [row["groupName"] for row in groups] == ["leaf", "mid"]
    iot.remove_thing_from_thing_group(thingGroupName="leaf", thingName="dev-1")
    iot.remove_thing_from_thing_group(thingGroupName="leaf", thingName="dev-1")
    iot.update_thing_groups_for_thing(thingName="dev-1", thingGroupsToAdd=["root"], thingGroupsToRemove=["mid"])
    groups = iot.list_thing_groups_for_thing(thingName="dev-1")["thingGroups"]
    assert groups == [{"groupName": "root", "groupArn": STEM + "thinggroup/root"}]
    with Refused("InvalidRequestException", 400):
        iot.add_thing_to_thing_group(thingName="dev-1")
    with Refused("InvalidRequestException", 400):
        iot.add_thing_to_thing_group(thingGroupName="leaf", thingGroupArn=STEM + "thinggroup/mid", thingName="dev-1")
    with Refused("ResourceNotFoundException", 404):
        iot.add_thing_to_thing_group(thingGroupName="leaf", thingName="absent")
    with Refused("InvalidRequestException", 400):
        iot.delete_thing_group(thingGroupName="mid")
    iot.delete_thing_group(thingGroupName="leaf")
    iot.delete_thing_group(thingGroupName="leaf")
    with Refused("ResourceNotFoundException", 404):
        iot.list_things_in_thing_group(thingGroupName="leaf")


def test_certificates(iot: Any, place: Place, clock: SettableClock) -> None:
    made = members(iot.create_keys_and_certificate(setAsActive=True))
    certificate = certificate_from_pem(made["certificatePem"].encode())
    assert made["certificateId"] == fingerprint(certificate)
    assert made["certificateArn"] == place.iot("cert", made["certificateId"])
    private = serialization.load_pem_private_key(made["keyPair"]["PrivateKey"].encode(), None)
    public = serialization.load_pem_public_key(made["keyPair"]["PublicKey"].encode())
    assert private.public_key() == public == certificate.public_key()
    assert certificate.subject == common_name("AWS IoT Certificate")
    described = iot.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]
    assert described["status"] == "ACTIVE"
    assert described["validity"]["notAfter"].isoformat().startswith("2049-12-31T23:59:59")
    assert (described["ownedBy"], described["customerVersion"], described["certificateMode"]) == (
        "123456789012",
        1,
        "DEFAULT",
    )

    key = ec.generate_private_key(ec.SECP256R1())
    request = CertificateSigningRequestBuilder().subject_name(common_name("dev-1")).sign(key, hashes.SHA256())
    csr = request.public_bytes(serialization.Encoding.PEM).decode()
    one, two = (iot.create_certificate_from_csr(certificateSigningRequest=csr)["certificateId"] for _ in range(2))
    assert one != two
    assert iot.describe_certificate(certificateId=one)["certificateDescription"]["status"] == "INACTIVE"
    with Refused("InvalidRequestException", 400):
        iot.create_certificate_from_csr(certificateSigningRequest="nonsense")

    with Refused("ResourceAlreadyExistsException", 409) as refused:
        iot.register_certificate_without_ca(certificatePem=made["certificatePem"])
    assert refused.response["resourceId"] == made["certificateId"]
    assert refused.response["resourceArn"] == made["certificateArn"]
    iot.update_certificate(certificateId=two, newStatus="REVOKED")
    iot.delete_certificate(certificateId=two)
    with Refused("InvalidRequestException", 400):
        iot.register_certificate_without_ca(certificatePem="-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----")

    assert sorted(row["certificateId"] for row in by_marker(iot, "list_certificates", "certificates")) == sorted(
        [made["certificateId"], one]
    )
    with Refused("CertificateStateException", 406):
        iot.delete_certificate(certificateId=made["certificateId"])
    with Refused("InvalidRequestException", 400):
        iot.update_certificate(certificateId=made["certificateId"], newStatus="PENDING_ACTIVATION")
    iot.update_certificate(certificateId=one, newStatus="REVOKED")
    with Refused("CertificateStateException", 406):
        iot.update_certificate(certificateId=one, newStatus="ACTIVE")
    for call in (iot.describe_certificate, iot.delete_certificate):
        with Refused("ResourceNotFoundException", 404):
            call(certificateId="0" * 64)
    with Refused("NotImplementedException", 400):
        iot.register_ca_certificate(caCertificate="x")


def test_a_certificate_that_was_deleted_may_be_registered_again_without_its_authority(iot: Any) -> None:
    made = iot.create_keys_and_certificate()
    iot.delete_certificate(certificateId=made["certificateId"])
    again = iot.register_certificate_without_ca(certificatePem=made["certificatePem"], status="ACTIVE")
    assert again["certificateId"] == made["certificateId"]
    described = iot.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]
    assert (described["status"], described["certificateMode"]) == ("ACTIVE", "SNI_ONLY")


def test_attachments_of_things(iot: Any) -> None:
    arns = sorted(iot.create_keys_and_certificate(setAsActive=True)["certificateArn"] for _ in range(3))
    for number in range(3):
        iot.create_thing(thingName=f"dev-{number}")
    for arn in arns:
        assert members(iot.attach_thing_principal(thingName="dev-0", principal=arn)) == {}
        iot.attach_thing_principal(thingName="dev-0", principal=arn)
    assert by_token(iot, "list_thing_principals", "principals", thingName="dev-0") == arns
    assert by_token(iot, "list_thing_principals_v2", "thingPrincipalObjects", thingName="dev-0") == [
        {"principal": arn, "thingPrincipalType": "NON_EXCLUSIVE_THING"} for arn in arns
    ]
    iot.attach_thing_principal(thingName="dev-1", principal=arns[0])
    iot.attach_thing_principal(thingName="dev-2", principal=arns[0])
    assert by_token(iot, "list_principal_things", "things", principal=arns[0]) == ["dev-0", "dev-1", "dev-2"]
    assert [
        row["thingName"] for row in by_token(iot, "list_principal_things_v2", "principalThingObjects", principal=arns[0])
    ] == ["dev-0", "dev-1", "dev-2"]
    assert iot.list_principal_things_v2(principal=arns[0], thingPrincipalType="EXCLUSIVE_THING")["principalThingObjects"] == []
    with Refused("InvalidRequestException", 400):
        iot.delete_thing(thingName="dev-1")
    iot.update_certificate(certificateId=arns[0][-64:], newStatus="INACTIVE")
    with Refused("DeleteConflictException", 409):
        iot.delete_certificate(certificateId=arns[0][-64:])
    for _ in range(2):
        iot.detach_thing_principal(thingName="dev-1", principal=arns[0])
    iot.delete_thing(thingName="dev-1")
    with Refused("ResourceNotFoundException", 404):
        iot.attach_thing_principal(thingName="absent", principal=arns[0])
    with Refused("InvalidRequestException", 400):
        iot.attach_thing_principal(thingName="dev-0", principal="nonsense")


def test_policies_and_versions(iot: Any) -> None:
    made = members(iot.create_policy(policyName="p=1", policyDocument=ANYTHING))
    assert made == {
        "policyName": "p=1",
        "policyArn": STEM + "policy/p=1",
        "policyDocument": ANYTHING,
        "policyVersionId": "1",
    }
    with Refused("ResourceAlreadyExistsException", 409):
        iot.create_policy(policyName="p=1", policyDocument=ANYTHING)
    with Refused("MalformedPolicyException", 400):
        iot.create_policy(policyName="q", policyDocument="{}")
    second = members(iot.create_policy_version(policyName="p=1", policyDocument=NOTHING, setAsDefault=True))
    assert second == {
        "policyArn": STEM + "policy/p=1",
        "policyDocument": NOTHING,
        "policyVersionId": "2",
        "isDefaultVersion": True,
    }
    found = iot.get_policy(policyName="p=1")
    assert (found["policyDocument"], found["defaultVersionId"]) == (NOTHING, "2")
    first = iot.get_policy_version(policyName="p=1", policyVersionId="1")
    assert (first["policyDocument"], first["isDefaultVersion"]) == (ANYTHING, False)
    iot.set_default_policy_version(policyName="p=1", policyVersionId="1")
    listed = iot.list_policy_versions(policyName="p=1")["policyVersions"]
    assert [(row["versionId"], row["isDefaultVersion"]) for row in listed] == [("2", False), ("1", True)]
    for _ in range(3):
        iot.create_policy_version(policyName="p=1", policyDocument=ANYTHING)
    with Refused("VersionsLimitExceededException", 409):
        iot.create_policy_version(policyName="p=1", policyDocument=ANYTHING)
    with Refused("DeleteConflictException", 409):
        iot.delete_policy(policyName="p=1")
    with Refused("DeleteConflictException", 409):
        iot.delete_policy_version(policyName="p=1", policyVersionId="1")
    for number in range(2, 6):
        iot.delete_policy_version(policyName="p=1", policyVersionId=str(number))
    for version in ("2", "0", "99999999999999999999"):
        with Refused("ResourceNotFoundException", 404):
            iot.get_policy_version(policyName="p=1", policyVersionId=version)
    iot.delete_policy(policyName="p=1")
    with Refused("ResourceNotFoundException", 404):
        iot.get_policy(policyName="p=1")
    for number in range(5):
        iot.create_policy(policyName=f"p{number}", policyDocument=ANYTHING)
    names = [row["policyName"] for row in by_marker(iot, "list_policies", "policies")]
    assert names == ["p4", "p3", "p2", "p1", "p0"]
    assert [row["policyName"] for row in by_marker(iot, "list_policies", "policies", ascendingOrder=True)] == names[::-1]
    with Refused("InvalidRequestException", 400):
        iot.list_policies(marker="AAAA")


def test_attachments_of_policies_by_new_and_old_operations(iot: Any) -> None:
    arns = sorted(iot.create_keys_and_certificate(setAsActive=True)["certificateArn"] for _ in range(3))
    for name in ("a", "b", "c"):
        iot.create_policy(policyName=name, policyDocument=ANYTHING)
    iot.create_thing_group(thingGroupName="root")
    iot.create_thing_group(thingGroupName="leaf", parentGroupName="root")
    for name in ("a", "b", "c"):
        assert members(iot.attach_policy(policyName=name, target=arns[0])) == {}
    iot.attach_policy(policyName="a", target=arns[0])
    iot.attach_principal_policy(policyName="a", principal=arns[1])
    iot.attach_principal_policy(policyName="a", principal=arns[2])
    iot.attach_policy(policyName="a", target=STEM + "thinggroup/root")
    iot.attach_policy(policyName="b", target=STEM + "thinggroup/leaf")
    attached = by_marker(iot, "list_attached_policies", "policies", target=arns[0])
    assert attached == [{"policyName": name, "policyArn": STEM + f"policy/{name}"} for name in ("a", "b", "c")]
    assert by_marker(iot, "list_principal_policies", "policies", principal=arns[0]) == attached
    leaf = STEM + "thinggroup/leaf"
    assert [row["policyName"] for row in iot.list_attached_policies(target=leaf)["policies"]] == ["b"]
    assert [row["policyName"] for row in iot.list_attached_policies(target=leaf, recursive=True)["policies"]] == ["a", "b"]
    assert by_marker(iot, "list_targets_for_policy", "targets", policyName="a") == [*arns, STEM + "thinggroup/root"]
    assert by_marker(iot, "list_policy_principals", "principals", policyName="a") == arns
    with Refused("DeleteConflictException", 409):
        iot.delete_policy(policyName="c")
    for _ in range(2):
        iot.detach_policy(policyName="c", target=arns[0])
    iot.delete_policy(policyName="c")
    iot.detach_principal_policy(policyName="a", principal=arns[2])
    assert iot.list_principal_policies(principal=arns[2])["policies"] == []
    effective = iot.get_effective_policies(principal=arns[1])["effectivePolicies"]
    assert effective == [{"policyName": "a", "policyArn": STEM + "policy/a", "policyDocument": ANYTHING}]
    with Refused("ResourceNotFoundException", 404):
        iot.attach_policy(policyName="absent", target=arns[0])
    with Refused("InvalidRequestException", 400):
        iot.attach_policy(policyName="a", target="nonsense")
    [result] = iot.test_authorization(
        principal=arns[1], authInfos=[{"actionType": "CONNECT", "resources": [STEM + "client/x"]}], clientId="x"
    )["authResults"]
    assert result["authDecision"] == "ALLOWED"
    assert result["allowed"]["policies"] == [{"policyName": "a", "policyArn": STEM + "policy/a"}]


def test_tags(iot: Any) -> None:
    iot.create_policy(policyName="p", policyDocument=ANYTHING, tags=[{"Key": "team", "Value": "a"}])
    iot.create_thing_group(thingGroupName="g", tags=[{"Key": "site", "Value": "north"}])
    iot.create_thing_type(thingTypeName="t", tags=[{"Key": "kind"}])
    assert iot.list_tags_for_resource(resourceArn=STEM + "thinggroup/g")["tags"] == [{"Key": "site", "Value": "north"}]
    assert iot.list_tags_for_resource(resourceArn=STEM + "thingtype/t")["tags"] == [{"Key": "kind", "Value": ""}]
    arn = STEM + "policy/p"
    assert members(iot.tag_resource(resourceArn=arn, tags=[{"Key": "b", "Value": "2"}, {"Key": "team", "Value": "z"}])) == {}
    assert iot.list_tags_for_resource(resourceArn=arn)["tags"] == [
        {"Key": "b", "Value": "2"},
        {"Key": "team", "Value": "z"},
    ]
    iot.untag_resource(resourceArn=arn, tagKeys=["b", "absent"])
    assert iot.list_tags_for_resource(resourceArn=arn)["tags"] == [{"Key": "team", "Value": "z"}]
    with Refused("ResourceNotFoundException", 404):
        iot.list_tags_for_resource(resourceArn=STEM + "policy/absent")
    with Refused("InvalidRequestException", 400):
        iot.tag_resource(resourceArn="nonsense", tags=[{"Key": "k", "Value": "v"}])
    with Refused("LimitExceededException", 410):
        iot.tag_resource(resourceArn=arn, tags=[{"Key": f"k{n}", "Value": "v"} for n in range(50)])


REFUSED_BY_DATABASES: list[tuple[str, dict[str, Any]]] = [
    ("attach_policy", {"policyName": "p", "target": STEM + "thinggroup/a\0b"}),
    ("detach_policy", {"policyName": "p", "target": STEM + "cert/a\0b"}),
    ("list_attached_policies", {"target": STEM + "thinggroup/\0"}),
    ("tag_resource", {"resourceArn": STEM + "policy/\0", "tags": [{"Key": "k", "Value": "v"}]}),
    ("tag_resource", {"resourceArn": STEM + "policy/p", "tags": [{"Key": "k", "Value": "\0"}]}),
    ("add_thing_to_thing_group", {"thingName": "dev-1", "thingGroupArn": STEM + "thinggroup/\0"}),
    ("get_effective_policies", {"principal": STEM + "cert/\0"}),
    ("list_things", {"nextToken": "WyJcdTAwMDAiXQ=="}),
    ("list_things", {"nextToken": "WyJcdWQ4MDAiXQ=="}),
    ("list_policies", {"marker": "WzkyMjMzNzIwMzY4NTQ3NzU4MDgsImEiXQ=="}),
]


def test_characters_and_numbers_that_a_database_refuses_are_refused_before(iot: Any) -> None:
    iot.create_thing(thingName="dev-1")
    iot.create_policy(policyName="p", policyDocument=ANYTHING)
    for operation, arguments in REFUSED_BY_DATABASES:
        with Refused("InvalidRequestException", 400):
            getattr(iot, operation)(**arguments)


AGAINST_THE_MODEL: list[tuple[str, dict[str, Any]]] = [
    ("create_thing", {"thingName": "a/b"}),
    ("create_thing", {"thingName": "x" * 129}),
    ("create_thing", {"thingName": "ok", "attributePayload": {"attributes": {"bad name": "v"}}}),
    ("create_thing", {"thingName": "ok", "attributePayload": {"attributes": {"a": "bad value"}}}),
    ("create_thing_group", {"thingGroupName": "a b"}),
    ("create_thing_type", {"thingTypeName": "ä"}),
    ("create_policy", {"policyName": "a/b", "policyDocument": ANYTHING}),
    ("describe_certificate", {"certificateId": "z" * 64}),
    ("list_things", {"maxResults": 251}),
    ("list_policies", {"pageSize": 0}),
]


def test_what_breaks_the_models_patterns_is_refused(door: OperatorDoor) -> None:
    iot = door.client("iot", careless=True)
    for operation, arguments in AGAINST_THE_MODEL:
        with pytest.raises(ClientError) as refused:
            getattr(iot, operation)(**arguments)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400, (operation, arguments)
