"""The file in a form comes out whole, however the form is cut on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, lists, sampled_from

from overair.basics.errors import InvalidRequest
from overair.server.image_repository.form_data import boundary_of, file_in

BOUNDARY = b"xYzZY"


def form(content: bytes, *, before: bytes = b"", after: bytes = b"") -> bytes:
    head = b'Content-Disposition: form-data; name="file"; filename="a.bin"\r\nContent-Type: application/octet-stream'
    file = b"--" + BOUNDARY + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n"
    return before + file + after + b"--" + BOUNDARY + b"--\r\n"


def field(name: bytes, value: bytes) -> bytes:
    return b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n' + value + b"\r\n"


def read(data: bytes, sizes: list[int]) -> bytes:
    async def chunks() -> AsyncIterator[bytes]:
        rest = data
        for size in sizes:
            yield rest[:size]
            rest = rest[size:]
        if rest:
            yield rest

    async def whole() -> bytes:
        return b"".join([piece async for piece in file_in(chunks(), BOUNDARY)])

    return asyncio.run(whole())


tricky = sampled_from([b"", b"\r\n", b"--", BOUNDARY, b"\r\n--xYz", b"\r\n--xYzZ", b"\n", b"filename="])


@given(
    lists(tricky | binary(max_size=20), max_size=6).map(b"".join).filter(lambda content: b"\r\n--" + BOUNDARY not in content),
    lists(integers(0, 40), max_size=12),
    sampled_from([b"", field(b"note", b""), field(b"note", b"hello")]),
    sampled_from([b"", field(b"more", b"x"), form(b"second")]),
)
def test_a_file_comes_out_as_it_went_in(content: bytes, sizes: list[int], before: bytes, after: bytes) -> None:
    assert read(form(content, before=before, after=after), sizes) == content


@given(binary(max_size=200).filter(lambda data: b"filename=" not in data), lists(integers(0, 40), max_size=8))
def test_what_has_no_file_is_refused_and_never_a_fault(data: bytes, sizes: list[int]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(data, sizes)
    assert refused.value.subject == "form"


@pytest.mark.parametrize("cut", [10, 60, 150])
def test_a_form_that_ends_early_is_refused(cut: int) -> None:
    with pytest.raises(InvalidRequest):
        read(form(b"content" * 20)[:cut], [])


def test_headers_that_never_end_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        read(b"--" + BOUNDARY + b"\r\n" + b"x" * 20_000, [1000] * 20)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("application/octet-stream", None),
        ("", None),
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data; charset=utf-8; Boundary="a b"', b"a b"),
    ],
)
def test_the_boundary_stands_in_the_content_type(content_type: str, boundary: bytes | None) -> None:
    assert boundary_of(content_type) == boundary


def test_a_form_without_a_boundary_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        boundary_of("multipart/form-data")
