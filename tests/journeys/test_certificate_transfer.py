"""A certificate that changes hands between two accounts of a server, with boto3 on both sides and paho as its device."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.paho_device import PahoDevice
from tests.support.server_process import ServerProcess

ANYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}


@pytest.fixture
def theirs(server: ServerProcess) -> Any:
    """The root of another account."""
    made = server.client("overair").create_account(name=f"other-{uuid.uuid4().hex[:8]}")
    client = server.client("iot", aws_access_key_id=made["accessKeyId"], aws_secret_access_key=made["secretAccessKey"])
    client.account = made["accountId"]
    return client


def test_a_certificate_changes_hands(server: ServerProcess, theirs: Any, tmp_path: Path) -> None:
    ours, unique = server.client("iot"), uuid.uuid4().hex[:8]
    made = ours.create_keys_and_certificate()
    identity = made["certificateId"]
    moved = ours.transfer_certificate(certificateId=identity, targetAwsAccount=theirs.account, transferMessage="for you")
    assert moved["transferredCertificateArn"].split(":")[4:] == [theirs.account, f"cert/{identity}"]
    [out] = [each for each in ours.list_outgoing_certificates()["outgoingCertificates"] if each["certificateId"] == identity]
    assert (out["transferredTo"], out["transferMessage"]) == (theirs.account, "for you")
    assert identity in {each["certificateId"] for each in theirs.list_certificates()["certificates"]}
    offered = theirs.describe_certificate(certificateId=identity)["certificateDescription"]
    assert (offered["status"], offered["ownedBy"]) == ("PENDING_TRANSFER", server.endpoints["account"])
    for client in (ours, theirs):
        with pytest.raises((client.exceptions.CertificateStateException, client.exceptions.ResourceNotFoundException)):
            client.update_certificate(certificateId=identity, newStatus="ACTIVE")

    theirs.reject_certificate_transfer(certificateId=identity, rejectReason="which device?")
    back = ours.describe_certificate(certificateId=identity)["certificateDescription"]
    assert (back["status"], back["transferData"]["rejectReason"]) == ("INACTIVE", "which device?")
    with pytest.raises(ours.exceptions.TransferAlreadyCompletedException):
        ours.cancel_certificate_transfer(certificateId=identity)
    ours.transfer_certificate(certificateId=identity, targetAwsAccount=theirs.account)
    ours.cancel_certificate_transfer(certificateId=identity)
    ours.create_policy(policyName=f"p-{unique}", policyDocument=json.dumps(ANYTHING))
    ours.attach_policy(policyName=f"p-{unique}", target=made["certificateArn"])
    with pytest.raises(ours.exceptions.TransferConflictException):
        ours.transfer_certificate(certificateId=identity, targetAwsAccount=theirs.account)
    ours.detach_policy(policyName=f"p-{unique}", target=made["certificateArn"])

    ours.transfer_certificate(certificateId=identity, targetAwsAccount=theirs.account, transferMessage="dev-1's")
    theirs.accept_certificate_transfer(certificateId=identity, setAsActive=True)
    taken = theirs.describe_certificate(certificateId=identity)["certificateDescription"]
    assert (taken["status"], taken["ownedBy"], taken["previousOwnedBy"]) == (
        "ACTIVE",
        theirs.account,
        server.endpoints["account"],
    )
    assert taken["transferData"].keys() == {"transferMessage", "transferDate", "acceptDate"}
    with pytest.raises(ours.exceptions.ResourceNotFoundException):
        ours.describe_certificate(certificateId=identity)

    theirs.create_policy(policyName="p", policyDocument=json.dumps(ANYTHING))
    theirs.attach_policy(policyName="p", target=taken["certificateArn"])
    with PahoDevice(server.endpoints, tmp_path, f"dev-{unique}", made) as device:
        assert device.subscribe("theirs") == 1
        with PahoDevice(server.endpoints, tmp_path / "ours", f"ours-{unique}", trusted(ours, unique)) as other:
            other.publish("theirs", b"from another account")
        device.publish("theirs", b"from its own")
        assert device.message() == ("theirs", b"from its own")


def trusted(iot: Any, unique: str) -> dict[str, Any]:
    made: dict[str, Any] = iot.create_keys_and_certificate(setAsActive=True)
    iot.attach_policy(policyName=f"p-{unique}", target=made["certificateArn"])
    return made
