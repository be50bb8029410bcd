"""ACM as boto3 sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.basics.work import Tx
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

    def users_of_certificate(self, tx: Tx, place: Place, certificate_arn: str) -> Sequence[str]:
        return self.users


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


def test_a_chain_comes_back_and_a_second_import_keeps_the_arn(acm: Any) -> None:
    arn = acm.import_certificate(Certificate=LEAF.certificate_pem, PrivateKey=LEAF.key_pem, CertificateChain=LEAF.chain_pem)[
        "CertificateArn"
    ]
    assert acm.get_certificate(CertificateArn=arn)["CertificateChain"].encode() == ROOT.certificate_pem
    again = acm.import_certificate(CertificateArn=arn, Certificate=OTHER.certificate_pem, PrivateKey=OTHER.key_pem)
    assert again["CertificateArn"] == arn
    assert acm.describe_certificate(CertificateArn=arn)["Certificate"]["KeyAlgorithm"] == "RSA_2048"
    with pytest.raises(ClientError) as refused:
        acm.import_certificate(
            CertificateArn=arn, Certificate=OTHER.certificate_pem, PrivateKey=OTHER.key_pem, Tags=[{"Key": "k"}]
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
