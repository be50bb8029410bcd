"""The file that ``overair sign image`` writes and ``overair ship`` reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.wire.custom_signature import CustomSignature, MalformedSignature, algorithm_for, read_custom_signature
from overair.wire.image_signature import SignatureAlgorithm
from tests.support.code_signing import credential

PAIR = credential()


def made(signature: bytes = b"\x30\x00", name: str = "release.pem") -> CustomSignature:
    return CustomSignature(
        signature=signature,
        algorithm=SignatureAlgorithm.ECDSA_SHA256,
        certificate_pem=PAIR.certificate_pem.decode(),
        certificate_name=name,
    )


@given(st.binary(min_size=1, max_size=384), st.text(min_size=1, max_size=255))
def test_what_was_written_is_read_again(signature: bytes, name: str) -> None:
    assert read_custom_signature(made(signature, name).to_json()) == made(signature, name)


def test_the_algorithm_is_the_keys() -> None:
    assert algorithm_for(PAIR.key.public_key()) is SignatureAlgorithm.ECDSA_SHA256
    assert algorithm_for(credential(kind="rsa-2048").key.public_key()) is SignatureAlgorithm.RSA_SHA256


def _without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        *above, last = path
        for name in above:
            document = document[name]
        del document[last]

    return change


def _with(value: object, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        *above, last = path
        for name in above:
            document = document[name]
        document[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _without("customCodeSigning"),
        _without("customCodeSigning", "signature"),
        _without("customCodeSigning", "certificateChain", "inlineDocument"),
        _without("customCodeSigning", "certificateChain", "certificateName"),
        _without("customCodeSigning", "signatureAlgorithm"),
        _with("SHA1", "customCodeSigning", "hashAlgorithm"),
        _with("DSA", "customCodeSigning", "signatureAlgorithm"),
        _with("***", "customCodeSigning", "signature", "inlineDocument"),
        _with("A" * 2000, "customCodeSigning", "signature", "inlineDocument"),
        _with([], "customCodeSigning", "signature"),
        _with("n" * 256, "customCodeSigning", "certificateChain", "certificateName"),
        _with("no certificate", "customCodeSigning", "certificateChain", "inlineDocument"),
        _with("\u00e9" * 10, "customCodeSigning", "certificateChain", "inlineDocument"),
        _with(7, "customCodeSigning", "certificateChain", "inlineDocument"),
    ],
)
def test_a_file_that_no_device_could_use_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(made().to_json())
    change(document)
    with pytest.raises(MalformedSignature):
        read_custom_signature(json.dumps(document).encode())


@given(st.binary(max_size=300))
def test_any_other_bytes_are_refused_as_such(data: bytes) -> None:
    with pytest.raises(MalformedSignature):
        read_custom_signature(data)
