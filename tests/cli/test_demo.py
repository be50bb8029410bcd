"""What `make demo` runs: it ends as promised, in time, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.server_process import clean_environment


def test_the_demo_goes_as_promised_and_leaves_no_process_behind(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "overair.cli.main", "demo", "--json"],
        capture_output=True,
        text=True,
        timeout=150,
        env=clean_environment(TMPDIR=str(tmp_path)),
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    rounds = json.loads(ended.stdout)["rounds"]
    assert [len(each["devices"]) for each in rounds] == [3, 3, 3, 5, 5]
    statuses = [{device["status"] for device in each["devices"]} for each in rounds]
    assert statuses == [{"SUCCEEDED"}, {"FAILED"}, {"FAILED"}, {"SUCCEEDED"}, {"SUCCEEDED"}]
    assert [{device["to"] for device in each["devices"]} for each in rounds] == [{"2.0.0"}] * 3 + [{"4.0.0"}, {"5.0.0"}]
    for each in rounds:
        blocks = {device["device"]: device["blocks"] for device in each["devices"]}
        assert all(blocks[device] > 0 for device in ("kitchen", "attic", "garage"))
    assert "signature" in rounds[1]["devices"][0]["reason"]
    # A vehicle's ECUs are beside the devices in the same job, before and after the keys have left the server.
    assert {device["device"] for device in rounds[3]["devices"]} >= {"car gateway", "car door"}
    assert {device["from"] for device in rounds[4]["devices"]} == {"4.0.0"}
    assert "can't sign 5.0.0" in ended.stderr
    assert list(tmp_path.iterdir()) == []
    left = [
        pid for pid in Path("/proc").iterdir() if pid.name.isdigit() and str(tmp_path).encode() in _command_line(int(pid.name))
    ]
    assert left == []


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
