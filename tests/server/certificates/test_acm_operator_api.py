"""ACM as boto3 sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.basics.work import Tx
from overair.server.aws_protocol.operations import operations_of
from overair.server.certificates.acm_operator_api import AcmOperatorApi
from overair.server.storage.work import SqlWork
from tests.support.code_signing import BORN, credential
from tests.support.operator_door import operator_door
from tests.support.registry import Registry

SIGNER, OTHER = credential(name="signer@example.com"), credential(kind="rsa-2048", name="Other")
ROOT = credential(name="Root", authority=True)
LEAF = credential(name="Leaf", issuer=ROOT)


class Profiles:
    """Signing, as far as certificates know it."""

    def __init__(self) -> None:
        self.users: list[str] = []
        self.replaced: list[tuple[str, bool]] = []

    def users_of_certificate(self, tx: Tx, place: Place, certificate_arn: str) -> Sequence[str]:
        return self.users

    def certificate_replaced(self, tx: Tx, place: Place, certificate_arn: str, *, self_signed: bool) -> None:
        self.replaced.append((certificate_arn, self_signed))


@pytest.fixture
def profiles() -> Profiles:
    return Profiles()


@pytest.fixture
def acm(work: SqlWork, place: Place, clock: SettableClock, ids: SeededIds, profiles: Profiles) -> Iterator[Any]:
    registry = Registry(work, clock, ids)
    registry.acm.used_by(profiles)
    with operator_door(place, clock, AcmOperatorApi(work=work, acm=registry.acm)) as door:
        yield door.client("acm")


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return str(error.value.response["Error"]["Code"])


def test_a_signer_is_imported_and_shown(acm: Any, profiles: Profiles) -> None:
    arn = acm.import_certificate(
        Certificate=SIGNER.certificate_pem, PrivateKey=SIGNER.key_pem, Tags=[{"Key": "team", "Value": "a"}]
    )["CertificateArn"]
    assert arn.startswith("arn:aws:acm:us-east-1:123456789012:certificate/")
    profiles.users = ["arn:aws:signer:us-east-1:123456789012:/signing-profiles/firmware"]
    shown = acm.describe_certificate(CertificateArn=arn)["Certificate"]
    assert {name: shown[name] for name in ("CertificateArn", "DomainName", "Subject", "Issuer", "Status", "Type")} == {
        "CertificateArn": arn,
        "DomainName": "signer@example.com",
        "Subject": "CN=signer@example.com",
        "Issuer": "CN=signer@example.com",
        "Status": "ISSUED",
        "Type": "IMPORTED",
    }
    assert (shown["KeyAlgorithm"], shown["SignatureAlgorithm"]) == ("EC_prime256v1", "SHA256WITHECDSA")
    assert shown["KeyUsages"] == [{"Name": "DIGITAL_SIGNATURE"}]
    assert shown["ExtendedKeyUsages"] == [{"Name": "CODE_SIGNING", "OID": "1.3.6.1.5.5.7.3.3"}]
    assert shown["InUseBy"] == profiles.users
    assert shown["NotBefore"] == BORN
    assert (
        shown["Serial"].replace(":", "")
        == SIGNER.certificate.serial_number.to_bytes((SIGNER.certificate.serial_number.bit_length() + 7) // 8, "big").hex()
    )
    assert acm.list_tags_for_certificate(CertificateArn=arn)["Tags"] == [{"Key": "team", "Value": "a"}]
    got = acm.get_certificate(CertificateArn=arn)
    assert got["Certificate"].encode() == SIGNER.certificate_pem
    assert "CertificateChain" not in got
    [summary] = acm.list_certificates(Includes={"extendedKeyUsage": ["CODE_SIGNING"]})["CertificateSummaryList"]
    assert (summary["CertificateArn"], summary["InUse"], summary["Type"]) == (arn, True, "IMPORTED")
    with pytest.raises(ClientError) as refused:
        acm.delete_certificate(CertificateArn=arn)
    assert code_of(refused) == "ResourceInUseException"
    profiles.users = []
    acm.delete_certificate(CertificateArn=arn)
    for call in (acm.describe_certificate, acm.get_certificate, acm.delete_certificate):
        with pytest.raises(ClientError) as refused:
            call(CertificateArn=arn)
        assert code_of(refused) == "ResourceNotFoundException"


def test_a_chain_comes_back_and_a_second_import_keeps_the_arn(acm: Any, profiles: Profiles) -> None:
    arn = acm.import_certificate(Certificate=LEAF.certificate_pem, PrivateKey=LEAF.key_pem, CertificateChain=LEAF.chain_pem)[
        "CertificateArn"
    ]
    assert acm.get_certificate(CertificateArn=arn)["CertificateChain"].encode() == ROOT.certificate_pem
    again = acm.import_certificate(CertificateArn=arn, Certificate=SIGNER.certificate_pem, PrivateKey=SIGNER.key_pem)
    assert again["CertificateArn"] == arn
    assert acm.describe_certificate(CertificateArn=arn)["Certificate"]["Subject"] == "CN=signer@example.com"
    assert profiles.replaced == [(arn, True)]
    with pytest.raises(ClientError, match="kind and size of the key stay") as refused:
        acm.import_certificate(CertificateArn=arn, Certificate=OTHER.certificate_pem, PrivateKey=OTHER.key_pem)
    assert code_of(refused) == "ValidationException"
    with pytest.raises(ClientError) as refused:
        acm.import_certificate(
            CertificateArn=arn, Certificate=SIGNER.certificate_pem, PrivateKey=SIGNER.key_pem, Tags=[{"Key": "k"}]
        )
    assert code_of(refused) == "InvalidTagException"


def test_lists_page(acm: Any, clock: SettableClock) -> None:
    arns = []
    for _ in range(5):
        arns.append(acm.import_certificate(Certificate=SIGNER.certificate_pem, PrivateKey=SIGNER.key_pem)["CertificateArn"])
        clock.advance(milliseconds=1)
    pages = list(acm.get_paginator("list_certificates").paginate(PaginationConfig={"PageSize": 2}))
    assert [len(page["CertificateSummaryList"]) for page in pages] == [2, 2, 1]
    seen = [row["CertificateArn"] for page in pages for row in page["CertificateSummaryList"]]
    assert seen == arns[::-1]
    upwards = acm.list_certificates(SortBy="CREATED_AT", SortOrder="ASCENDING")["CertificateSummaryList"]
    assert [row["CertificateArn"] for row in upwards] == arns
    with pytest.raises(ClientError) as refused:
        acm.list_certificates(NextToken="nonsense")
    assert code_of(refused) == "ValidationException"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"Certificate": b"nonsense", "PrivateKey": SIGNER.key_pem}, "ValidationException"),
        ({"Certificate": SIGNER.certificate_pem, "PrivateKey": b"nonsense"}, "ValidationException"),
        ({"Certificate": SIGNER.certificate_pem, "PrivateKey": OTHER.key_pem}, "ValidationException"),
        ({"Certificate": SIGNER.certificate_pem * 2, "PrivateKey": SIGNER.key_pem}, "ValidationException"),
        (
            {"Certificate": LEAF.certificate_pem, "PrivateKey": LEAF.key_pem, "CertificateChain": b"nonsense"},
            "ValidationException",
        ),
        (
            {
                "Certificate": SIGNER.certificate_pem,
                "PrivateKey": SIGNER.key_pem,
                "CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/absent",
            },
            "ResourceNotFoundException",
        ),
        (
            {
                "Certificate": SIGNER.certificate_pem,
                "PrivateKey": SIGNER.key_pem,
                "CertificateArn": "arn:aws:acm:us-east-1:123456789012:other/absent",
            },
            "InvalidArnException",
        ),
    ],
)
def test_what_cannot_be_imported_is_refused(acm: Any, arguments: dict[str, Any], code: str) -> None:
    with pytest.raises(ClientError) as refused:
        acm.import_certificate(**arguments)
    assert code_of(refused) == code
    assert acm.list_certificates()["CertificateSummaryList"] == []


def test_tags_are_added_and_removed(acm: Any) -> None:
    arn = acm.import_certificate(Certificate=SIGNER.certificate_pem, PrivateKey=SIGNER.key_pem)["CertificateArn"]
    acm.add_tags_to_certificate(CertificateArn=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b"}])
    acm.remove_tags_from_certificate(CertificateArn=arn, Tags=[{"Key": "a", "Value": "other"}, {"Key": "b"}])
    assert acm.list_tags_for_certificate(CertificateArn=arn)["Tags"] == [{"Key": "a", "Value": "1"}]
    with pytest.raises(ClientError) as refused:
        acm.add_tags_to_certificate(CertificateArn=arn, Tags=[{"Key": f"k{n}"} for n in range(50)])
    assert code_of(refused) == "TooManyTagsException"


@pytest.mark.parametrize(
    ("call", "more", "code", "words"),
    [
        ("export_certificate", {"Passphrase": b"four words"}, "ValidationException", "is not a private certificate"),
        ("renew_certificate", {}, "ValidationException", "Import the new one"),
        ("revoke_certificate", {"RevocationReason": "KEY_COMPROMISE"}, "ValidationException", "RevokeSigningProfile"),
        (
            "update_certificate_options",
            {"Options": {"CertificateTransparencyLoggingPreference": "DISABLED"}},
            "InvalidStateException",
            "options can't be changed",
        ),
        (
            "resend_validation_email",
            {"Domain": "example.com", "ValidationDomain": "example.com"},
            "InvalidStateException",
            "nobody validates",
        ),
    ],
)
def test_what_is_not_for_imported_certificates_is_refused_as_aws_refuses_it(
    acm: Any, call: str, more: dict[str, Any], code: str, words: str
) -> None:
    arn = acm.import_certificate(Certificate=SIGNER.certificate_pem, PrivateKey=SIGNER.key_pem)["CertificateArn"]
    with pytest.raises(ClientError, match=words) as refused:
        getattr(acm, call)(CertificateArn=arn, **more)
    assert code_of(refused) == code
    assert "PRIVATE KEY" not in str(refused.value.response)
    with pytest.raises(ClientError) as refused:
        getattr(acm, call)(CertificateArn=arn[:-4] + "none", **more)
    assert code_of(refused) == "ResourceNotFoundException"


def test_a_certificate_carries_tags_by_its_resource_arn_too(acm: Any) -> None:
    arn = acm.import_certificate(Certificate=SIGNER.certificate_pem, PrivateKey=SIGNER.key_pem)["CertificateArn"]
    acm.tag_resource(ResourceArn=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b"}])
    acm.untag_resource(ResourceArn=arn, TagKeys=["b", "c"])
    assert acm.list_tags_for_resource(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "1"}]
    assert acm.list_certificate_domain_validations(CertificateArn=arn)["DomainValidationSummaryList"] == []


ACME = (
    "CreateAcmeDomainValidation",
    "CreateAcmeEndpoint",
    "CreateAcmeExternalAccountBinding",
    "DeleteAcmeDomainValidation",
    "DeleteAcmeEndpoint",
    "DeleteAcmeExternalAccountBinding",
    "DescribeAcmeAccount",
    "DescribeAcmeDomainValidation",
    "DescribeAcmeEndpoint",
    "DescribeAcmeExternalAccountBinding",
    "GetAcmeExternalAccountBindingCredentials",
    "ListAcmeAccounts",
    "ListAcmeDomainValidations",
    "ListAcmeEndpoints",
    "ListAcmeExternalAccountBindings",
    "RevokeAcmeAccount",
    "RevokeAcmeExternalAccountBinding",
    "UpdateAcmeDomainValidation",
    "UpdateAcmeEndpoint",
)
# Operations of ACM that aren't here, and why. Each is refused by its name.
REFUSED = {
    "RequestCertificate": "nobody here vouches for names on the Internet: import a certificate",
    "SearchCertificates": "ListCertificates has the filters that signing needs",
    "GetAccountConfiguration": "warnings before something ends come at the same days for all that ends",
    "PutAccountConfiguration": "warnings before something ends come at the same days for all that ends",
    **dict.fromkeys(ACME, "ACM issues no certificates here, so that nobody asks for one by ACME"),
}


def test_every_operation_of_acm_is_served_or_stands_in_the_list_of_those_that_are_not() -> None:
    model = botocore.session.get_session().get_service_model("acm")
    served = {name for _, name, _ in operations_of(AcmOperatorApi(work=None, acm=None))}  # type: ignore[arg-type]
    assert served | REFUSED.keys() == set(model.operation_names)
    assert not served & REFUSED.keys()


def test_an_operation_that_is_not_here_is_refused_by_name(acm: Any) -> None:
    with pytest.raises(ClientError, match="RequestCertificate"):
        acm.request_certificate(DomainName="example.com")
    with pytest.raises(ClientError, match="ListAcmeEndpoints"):
        acm.list_acme_endpoints()


PAGES = {"MaxItems": 1, "NextToken": "not one of ours"}
FILTERS = {
    "CertificateStatuses": ["EXPIRED"],
    "CertificateKeyPairOrigins": ["ACME"],
    "Includes": [
        {"extendedKeyUsage": ["EMAIL_PROTECTION"]},
        {"keyUsage": ["CRL_SIGNING"]},
        {"keyTypes": ["RSA_2048"]},
        {"exportOption": "ENABLED"},
        {"managedBy": "CLOUDFRONT"},
    ],
    "SortOrder": ["ASCENDING"],
}


def test_no_member_of_a_list_or_an_import_is_ignored_in_silence(acm: Any, clock: SettableClock) -> None:
    """The other operations have nothing but the certificate that they are about, and tags."""
    model = botocore.session.get_session().get_service_model("acm")
    members = set(model.operation_model("ListCertificates").input_shape.members)
    assert members == {*PAGES, *FILTERS, "SortBy"}, "SortBy has one value, which is how lists are sorted"
    for pair in (SIGNER, LEAF):
        acm.import_certificate(Certificate=pair.certificate_pem, PrivateKey=pair.key_pem)
        clock.advance(milliseconds=1)

    def listed(**request: Any) -> Any:
        try:
            return acm.list_certificates(SortBy="CREATED_AT", SortOrder="DESCENDING", **request)["CertificateSummaryList"]
        except ClientError as error:
            return error.response["Error"]["Code"]

    without = listed()
    assert len(without) == 2
    for member, values in (*PAGES.items(), *((name, value) for name, value in FILTERS.items() if name != "SortOrder")):
        for value in values if member == "Includes" else [values]:
            assert listed(**{member: value}) != without, (member, value)
