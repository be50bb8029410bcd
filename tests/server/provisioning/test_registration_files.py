"""Lines of a file, read in turns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overair.server.provisioning import registration_files
from overair.server.provisioning.registration_files import Line, read_lines
from overair.server.provisioning.registration_task_model import LINE_SIZE_BYTES_MAX


def all_lines(data: bytes, *, at_once: int) -> list[Line]:
    found: list[Line] = []
    while True:
        position = found[-1].end_bytes if found else 0
        page = read_lines(
            lambda offset, size: data[offset : offset + size],
            position_bytes=position,
            size_bytes=len(data),
            lines_before=len(found),
            lines_max=at_once,
        )
        if not page:
            return found
        found += page


@given(st.lists(st.binary(max_size=30).filter(lambda text: b"\n" not in text and not text.endswith(b"\r"))), st.integers(1, 5))
def test_whatever_a_turn_takes_the_lines_are_the_files(texts: list[bytes], at_once: int) -> None:
    lines = all_lines(b"".join(text + b"\r\n" for text in texts), at_once=at_once)
    assert [line.text for line in lines] == texts
    assert [line.number for line in lines] == list(range(1, len(texts) + 1))


def test_the_last_line_needs_no_end() -> None:
    assert [line.text for line in all_lines(b"a\nb", at_once=9)] == [b"a", b"b"]
    assert all_lines(b"", at_once=9) == []


def test_a_line_that_is_too_long_is_passed_over_and_the_next_is_read() -> None:
    for length in (LINE_SIZE_BYTES_MAX + 1, 3 * registration_files.WINDOW_SIZE_BYTES + 7):
        lines = all_lines(b"a\n" + b"x" * length + b"\nb\n", at_once=2)
        assert [line.text for line in lines] == [b"a", None, b"b"]
    assert [line.text for line in all_lines(b"x" * (2 * registration_files.WINDOW_SIZE_BYTES), at_once=2)] == [None]
