"""The afr_ota document, as the C agents read it (wire reference §5.1)."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.wire.job_document import (
    FILE_SIZE_BYTES_MAX,
    DocumentFile,
    FileSignature,
    HashAlgorithm,
    MalformedDocument,
    OtaDocument,
    SignatureAlgorithm,
    TransferProtocol,
    build,
    count_tokens,
    findings,
    parse,
)

SIGNATURE = FileSignature(
    hash_algorithm=HashAlgorithm.SHA256, signature_algorithm=SignatureAlgorithm.ECDSA, value=b"\x30\x45\x02\x21\xff\xfb\xef"
)
FILE = DocumentFile(
    path="/device/updates",
    size_bytes=409600,
    file_id=0,
    certificate_path="/certificates/authcert.pem",
    file_type=0,
    signature=SIGNATURE,
)
DOCUMENT = OtaDocument(
    protocols=(TransferProtocol.MQTT,), files=(FILE,), stream_name="AFR_OTA-0ba01295-9417-4ba7-9a99-4b31fb03d252"
)


def test_a_document_is_written_compactly_with_bare_integers_and_no_escapes() -> None:
    assert build(DOCUMENT) == (
        '{"afr_ota":{"protocols":["MQTT"],"streamname":"AFR_OTA-0ba01295-9417-4ba7-9a99-4b31fb03d252",'
        '"files":[{"filepath":"/device/updates","filesize":409600,"fileid":0,'
        '"certfile":"/certificates/authcert.pem","fileType":0,"sig-sha256-ecdsa":"MEUCIf/77w=="}]}}'
    )


def test_an_http_document_carries_url_and_scheme_and_both_protocols_fit_the_agents_buffer() -> None:
    file = dataclasses.replace(
        FILE, url="${aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/b/k}", auth_scheme="aws.s3.presigned"
    )
    both = dataclasses.replace(DOCUMENT, protocols=(TransferProtocol.HTTP, TransferProtocol.MQTT), files=(file,))
    text = build(both)
    assert '"protocols":["HTTP","MQTT"]' in text
    assert '"update_data_url":"${aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/b/k}"' in text
    assert '"auth_scheme":"aws.s3.presigned"' in text
    assert not [finding for finding in findings(both) if finding.fatal]


NAMES = st.text(st.characters(min_codepoint=32, blacklist_characters='"\\', blacklist_categories=("Cc", "Cs")), max_size=40)
SIGNATURES = st.builds(
    FileSignature,
    hash_algorithm=st.sampled_from(HashAlgorithm),
    signature_algorithm=st.sampled_from(SignatureAlgorithm),
    value=st.binary(min_size=1, max_size=384),
)
FILES = st.builds(
    DocumentFile,
    path=NAMES,
    size_bytes=st.integers(1, FILE_SIZE_BYTES_MAX),
    file_id=st.integers(0, 255),
    certificate_path=NAMES,
    file_type=st.none() | st.integers(0, 255),
    signature=st.none() | SIGNATURES,
    url=st.none() | NAMES,
    auth_scheme=st.none() | NAMES,
)
DOCUMENTS = st.builds(
    OtaDocument,
    protocols=st.lists(st.sampled_from(TransferProtocol), min_size=1, unique=True).map(tuple),
    files=st.lists(FILES, min_size=1, max_size=3).map(tuple),
    stream_name=st.none() | NAMES,
)


@given(document=DOCUMENTS)
def test_what_is_built_parses_to_the_same_document_and_holds_no_escape(document: OtaDocument) -> None:
    text = build(document)
    assert parse(text) == document
    assert "\\" not in text


@given(raw=st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_the_readers_own_error(raw: bytes) -> None:
    with pytest.raises(MalformedDocument):
        parse(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["protocols", "files", "filesize", "fileid", "sig-sha1-rsa", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(value=JSON)
def test_members_of_the_wrong_type_raise_only_the_readers_own_error(value: object) -> None:
    with contextlib.suppress(MalformedDocument):
        parse(json.dumps({"afr_ota": value}))


@pytest.mark.parametrize("size", ["600.0", "0", "-1", '"600"', "true", "4294963201", "6e2"])
def test_a_file_size_that_is_no_bare_positive_integer_is_refused(size: str) -> None:
    text = build(DOCUMENT).replace("409600", size)
    with pytest.raises(MalformedDocument, match="filesize"):
        parse(text)


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\nb", "a\x00b"])
def test_text_that_would_need_an_escape_is_refused(text: str) -> None:
    with pytest.raises(MalformedDocument):
        build(dataclasses.replace(DOCUMENT, files=(dataclasses.replace(FILE, path=text),)))


def test_unknown_members_are_skipped_and_key_order_is_free() -> None:
    document = json.loads(build(DOCUMENT))["afr_ota"]
    document["files"][0]["attr"] = 3
    reordered = {"other": {"filesize": 1}, "files": document["files"], "streamname": document["streamname"]}
    assert parse(json.dumps({"afr_ota": {**reordered, "protocols": document["protocols"]}})) == DOCUMENT


def test_two_signatures_on_one_file_are_refused() -> None:
    text = build(DOCUMENT).replace('"fileType":0', '"sig-sha256-rsa":"AAAA"')
    with pytest.raises(MalformedDocument, match="more than one signature"):
        parse(text)


def test_a_signature_of_an_rsa_4096_key_is_fatal_and_a_long_stream_name_is_a_warning() -> None:
    long_signature = dataclasses.replace(SIGNATURE, value=bytes(512))
    file = dataclasses.replace(FILE, signature=long_signature)
    found = findings(dataclasses.replace(DOCUMENT, files=(file,), stream_name="s" * 45))
    assert [finding.fatal for finding in found] == [False, True]
    assert "45 characters" in found[0].message
    assert "512 bytes" in found[1].message


def test_one_file_fits_the_agents_of_2018_and_two_do_not() -> None:
    assert findings(DOCUMENT) == []
    assert any("JSON tokens" in finding.message for finding in findings(dataclasses.replace(DOCUMENT, files=(FILE, FILE))))


def test_tokens_are_counted_as_the_old_parser_does() -> None:
    assert count_tokens({"a": 1, "b": [1, {"c": "d"}]}) == 9
