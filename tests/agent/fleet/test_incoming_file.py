"""What a virtual device learns from the first few bytes of an image."""

from __future__ import annotations

import io
import json
import os
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.agent.fleet.incoming_file import HEAD_SIZE_BYTES_MAX, manifest_told
from overair.agent.image_builder import build_image
from overair.wire.image import ImageVersion

MANIFEST = {"name": "app", "version": "1.2.3", "hardware_id": "posix"}


def zipped(manifest: bytes, *, before: int = 10, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("__main__.py", os.urandom(before))
        archive.writestr("image.json", manifest)
    return stream.getvalue()


def test_an_image_as_the_builder_makes_it_says_its_version_in_its_first_bytes() -> None:
    told = manifest_told(build_image("app", "4.5.6", "posix")[:HEAD_SIZE_BYTES_MAX])
    assert told is not None
    assert told.version == ImageVersion(major=4, minor=5, build=6)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_manifest_is_read_stored_and_deflated(method: int) -> None:
    told = manifest_told(zipped(json.dumps(MANIFEST).encode(), method=method))
    assert told is not None
    assert (told.name, str(told.version)) == ("app", "1.2.3")


@pytest.mark.parametrize(
    "head",
    [
        b"",
        os.urandom(4_000),
        zipped(b"{}"),
        zipped(json.dumps(MANIFEST | {"version": "1.2"}).encode()),
        zipped(json.dumps(MANIFEST).encode(), before=20_000)[:HEAD_SIZE_BYTES_MAX],
        zipped(b" " * 20_000 + json.dumps(MANIFEST).encode()),
        zipped(json.dumps(MANIFEST).encode(), method=zipfile.ZIP_BZIP2),
    ],
)
def test_what_says_no_version_there_has_none(head: bytes) -> None:
    assert manifest_told(head) is None


@given(st.binary(max_size=300), st.integers(0, 200))
def test_any_bytes_are_read_without_an_error(noise: bytes, cut: int) -> None:
    image = zipped(json.dumps(MANIFEST).encode())
    manifest_told(image[:cut] + noise)
    manifest_told(noise)
