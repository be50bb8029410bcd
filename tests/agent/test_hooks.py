from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overair.agent.device_directory import BadDeviceDirectory, read_settings, write_settings
from overair.agent.hooks import LINES_LOGGED_MAX, OUTPUT_LENGTH_MAX, BadHooks, Hooks, HookSettings, parse_hooks
from tests.support.device import Signer, make_device

GOOD: dict[str, Any] = {"version": ["cat", "/v"], "install": ["rauc", "install"], "reboot": ["reboot"], "timeout_s": 5}


def running(*argv: str, timeout_s: int = 20) -> Hooks:
    return Hooks(HookSettings(version=("true",), install=argv, timeout_s=timeout_s))


def test_settings_are_read_and_written_alike(tmp_path: Path) -> None:
    hooks = parse_hooks(GOOD)
    assert hooks.to_json() == GOOD
    directory, settings = make_device(tmp_path / "d", Signer(), hooks=hooks)
    assert read_settings(directory) == settings
    write_settings(directory, replace(settings, hooks=None))
    assert b"hooks" not in directory.device_file.read_bytes(), "images of an earlier library refuse what they don't know"


@pytest.mark.parametrize(
    "changes",
    [
        {"version": None},
        {"install": "rauc install"},
        {"install": []},
        {"install": [""]},
        {"install": ["a\x00b"]},
        {"install": ["a"] * 65},
        {"install": ["a", 7]},
        {"timeout_s": 0},
        {"timeout_s": "5"},
        {"unknown": ["x"]},
    ],
)
def test_settings_that_break_a_rule_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadHooks):
        parse_hooks(GOOD | changes)
    with pytest.raises(BadHooks):
        parse_hooks({name: value for name, value in GOOD.items() if name != "version"})


def test_a_device_with_bad_hooks_says_so(tmp_path: Path) -> None:
    directory, _ = make_device(tmp_path / "d", Signer(), hooks=parse_hooks(GOOD))
    directory.device_file.write_text(directory.device_file.read_text().replace('"rauc"', "7"))
    with pytest.raises(BadDeviceDirectory, match="hooks: each word of install"):
        read_settings(directory)


def test_no_shell_reads_the_words(tmp_path: Path) -> None:
    ended = running(sys.executable, "-c", "import sys; print(sys.argv[1:])").run("install", "$HOME; touch x", "*")
    assert (ended.status, ended.last_line) == (0, "['$HOME; touch x', '*']")


def test_the_environment_and_standard_input_are_handed_over() -> None:
    ended = running("sh", "-c", 'echo "$OVERAIR_HOOK $OVERAIR_JOB"; cat').run(
        "install", variables={"OVERAIR_JOB": "j-1"}, stdin=b"{}"
    )
    assert ended.output == "install j-1\n{}"


def test_standard_input_that_nobody_reads_does_no_harm() -> None:
    assert running("true").run("install", stdin=bytes(1_000_000)).done


def test_one_that_is_not_there_is_done_and_one_that_cannot_be_run_is_not() -> None:
    assert Hooks(HookSettings(version=("true",), install=("true",))).run("commit").done
    ended = running("/nowhere/at/all").run("install")
    assert (ended.status, ended.done) == (None, False)
    assert "No such file" in ended.output


def test_one_that_does_not_end_in_time_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"(echo $$; exec sleep 100) & echo $! > {pid_file}; echo begun; sleep 100"
    started = time.monotonic()
    ended = running("sh", "-c", script, timeout_s=1).run("install")
    assert (ended.status, ended.output) == (None, "install didn't end within 1 s")
    assert time.monotonic() - started < 30
    _wait_for_end(int(pid_file.read_text()))


def test_children_left_behind_do_not_hold_the_agent(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    ended = running("sh", "-c", f"sleep 100 & echo $! > {pid_file}; echo done").run("install")
    assert (ended.status, ended.last_line) == (0, "done")
    _wait_for_end(int(pid_file.read_text()))


def _wait_for_end(pid: int) -> None:
    """A killed process whose parent is gone is collected by init in its own time: what counts is that it no longer runs."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state in "ZX":
            return
        os.sched_yield()
    raise AssertionError(f"process {pid} still runs")


def test_output_goes_into_the_log_and_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ended = running("sh", "-c", "seq 1 5000; head -c 3000000 /dev/zero | tr '\\0' x").run("install")
    assert ended.done
    assert len(ended.output) == OUTPUT_LENGTH_MAX
    said = [record.getMessage() for record in caplog.records if " says" in record.getMessage()]
    assert said[:2] == ["install says: 1", "install says: 2"]
    assert len(said) == LINES_LOGGED_MAX + 1
    assert all(len(line) <= OUTPUT_LENGTH_MAX + 20 for line in said)
