from __future__ import annotations

import contextlib
import io
import json
import zipfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.wire.image import ImageManifest, ImageVersion, InvalidImage, parse_manifest, read_manifest

MANIFEST: dict[str, Any] = {"name": "demo", "version": "1.2.3", "hardware_id": "posix-1"}


def archive(**files: bytes) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, data in files.items():
            target.writestr(name.replace("_dot_", "."), data)
    return stream


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 65_535))
def test_a_version_is_one_with_its_text_and_its_word(major: int, minor: int, build: int) -> None:
    version = ImageVersion(major=major, minor=minor, build=build)
    assert ImageVersion.parse(str(version)) == version == ImageVersion.from_word(version.word)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_versions_are_ordered_as_their_words(one: int, other: int) -> None:
    assert (ImageVersion.from_word(one) < ImageVersion.from_word(other)) is (one < other)


@pytest.mark.parametrize(
    "text", ["", "1", "1.2", "1.2.3.4", "01.2.3", "256.0.0", "0.256.0", "0.0.65536", "1.2.x", "-1.2.3", "1.2.3\n", "１.2.3"]
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(InvalidImage):
        ImageVersion.parse(text)


def test_a_manifest_is_read_with_its_defaults() -> None:
    assert parse_manifest(json.dumps(MANIFEST).encode()) == ImageManifest(
        name="demo", version=ImageVersion(major=1, minor=2, build=3), hardware_id="posix-1"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"name": "../x"},
        {"version": 1},
        {"hardware_id": ""},
        {"allow_downgrade": "yes"},
        {"entry": "../main.py"},
        {"entry": "/main.py"},
        {"entry": "a\\b.py"},
        {"entry": "main"},
        {"surprise": 1},
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidImage):
        parse_manifest(json.dumps(MANIFEST | change).encode())


def test_an_image_is_a_zip_with_one_manifest_and_its_entry() -> None:
    manifest = json.dumps(MANIFEST).encode()
    assert read_manifest(archive(image_dot_json=manifest, __main___dot_py=b"")).name == "demo"
    for broken in (io.BytesIO(b"PK"), io.BytesIO(), archive(), archive(image_dot_json=manifest), archive(image_dot_json=b"{}")):
        with pytest.raises(InvalidImage):
            read_manifest(broken)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_zip_is_an_image_or_our_own_error(position: int, byte: int) -> None:
    data = bytearray(archive(image_dot_json=json.dumps(MANIFEST).encode(), __main___dot_py=b"pass").getvalue())
    data[position % len(data)] = byte
    with contextlib.suppress(InvalidImage):
        read_manifest(io.BytesIO(data))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_manifest_packed_in_a_way_that_devices_cannot_unpack_is_refused(method: int) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as target:
        target.writestr("image.json", json.dumps(MANIFEST))
        target.writestr("__main__.py", "")
    with pytest.raises(InvalidImage, match="stored or deflated"):
        read_manifest(stream)
