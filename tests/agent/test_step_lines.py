from __future__ import annotations

import json
import os
import pty
import select
from pathlib import Path

import pytest

from overair.agent.progress import Progress
from overair.agent.settings import JSON_VARIABLE
from overair.agent.step_lines import SerialPort, StepLines, in_words, write_to_stdout


def receiving(received: int, total: int = 1000) -> Progress:
    return Progress(
        state="waiting_for_file_block",
        version="1.0.0",
        job="AFR_OTA-x",
        path="firmware",
        received_blocks=received,
        total_blocks=total,
    )


def test_a_line_says_what_runs_what_is_done_and_what_was_told_in_words() -> None:
    assert in_words(Progress(state="waiting_for_job", version="1.0.0")) == "version 1.0.0; waits for work"
    assert in_words(receiving(250)) == "version 1.0.0; job AFR_OTA-x; receives 'firmware': 250/1000 blocks (25 %)"
    failed = Progress(state="waiting_for_job", version="1.0.0", status="FAILED", reason="0x000000e3: 0x00000000")
    assert in_words(failed) == (
        "version 1.0.0; waits for work; told FAILED (the image's signature does not verify [0x000000e3: 0x00000000])"
    )


def test_each_step_is_one_line_and_a_download_is_told_in_tenths() -> None:
    lines: list[str] = []
    sink = StepLines(lines.append)
    sink.show(Progress(state="requesting_job", version="1.0.0"))
    sink.show(Progress(state="requesting_job", version="1.0.0"))
    for received in range(1001):
        sink.show(receiving(received))
    assert len(lines) == 12
    assert lines[-1].endswith("1000/1000 blocks (100 %)")


def test_under_a_boot_loader_that_speaks_json_a_step_is_an_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_to_stdout("one")
    monkeypatch.setenv(JSON_VARIABLE, "json")
    write_to_stdout("two")
    plain, spoken = capsys.readouterr().out.splitlines()
    assert plain == "step: one"
    assert json.loads(spoken) == {"step": "two"}


def read_all(descriptor: int) -> bytes:
    data = b""
    while select.select([descriptor], [], [], 2)[0]:
        data += os.read(descriptor, 4096)
        if data.endswith(b"\n"):
            break
    return data


def test_a_serial_port_gets_the_line_in_a_terminals_fashion() -> None:
    ours, theirs = pty.openpty()
    port = SerialPort(os.ttyname(theirs), baud=115_200)
    port.write("version 1.0.0; \x1b[31mred\n; Grüße")
    assert read_all(ours) == "version 1.0.0; ?[31mred?; Grüße\r\n".encode()
    port.close()
    os.close(ours)
    os.close(theirs)


def test_a_serial_port_that_is_gone_or_full_stops_nothing_and_is_opened_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ttyS7"
    port = SerialPort(str(path), baud=115_200)
    port.write("lost")
    port.write("lost too")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    os.mkfifo(path)
    port.write("no reader")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    port.write("heard")
    assert read_all(reader) == b"heard\r\n"
    for _ in range(100):
        port.write("x" * 4000)
    os.close(reader)
    port.write("nobody")


def test_a_speed_that_no_terminal_has_is_said(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = pty.openpty()
    SerialPort(os.ttyname(theirs), baud=12_345).write("x")
    assert "no terminal runs at 12345 baud" in caplog.text
    os.close(ours)
    os.close(theirs)
