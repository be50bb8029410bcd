"""Updates of several files, of which one fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from overair.agent.states import Event
from overair.wire.job_document import DocumentFile
from overair.wire.job_messages import ExecutionStatus
from tests.support.device import Signer, cached_image
from tests.support.machine import Machine

SIGNER = Signer()
IMAGE = cached_image("2.0.0")
SETTINGS = b"settings" * 2000
MODEL = b"model" * 3000


def good() -> dict[str, tuple[DocumentFile, bytes]]:
    return {
        "firmware": (SIGNER.file(IMAGE), IMAGE),
        "settings": (SIGNER.file(SETTINGS, path="settings", file_type=1, file_id=1), SETTINGS),
        "models/voice": (SIGNER.file(MODEL, path="models/voice", file_type=2, file_id=2), MODEL),
    }


def bad(name: str) -> dict[str, tuple[DocumentFile, bytes]]:
    """The same with one file that its signer didn't sign."""
    files = good()
    entry, data = files[name]
    other = SIGNER.file(data, signed=b"other", path=entry.path, file_type=entry.file_type, file_id=entry.file_id)
    return files | {name: (other, data)}


@pytest.mark.parametrize(
    ("failing", "stored"),
    [("settings", []), ("models/voice", ["settings"]), ("firmware", ["models/voice", "settings"])],
)
def test_the_first_file_that_fails_ends_the_update_and_is_named(tmp_path: Path, failing: str, stored: list[str]) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    execution = machine.cloud.ship("job", *bad(failing).values())
    machine.run()
    assert (execution.status, execution.details) == (
        ExecutionStatus.FAILED,
        {"reason": "0x000000e3: 0x00000000", "file": failing},
    )
    assert machine.boots == ["1.0.0"], "firmware comes last: with a file missing it isn't installed"
    files = machine.directory.files
    assert sorted(str(path.relative_to(files)) for path in files.rglob("*") if path.is_file()) == stored
    assert not list(machine.directory.slots.glob("receiving.*"))
    retry = machine.cloud.ship("job", *good().values())
    machine.run()
    assert (retry.number, retry.status, machine.version) == (2, ExecutionStatus.SUCCEEDED, "2.0.0")
    assert (files / "models/voice").read_bytes() == MODEL


def test_a_file_whose_stream_has_nothing_of_it_fails_the_others_with_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    execution = machine.cloud.ship("job", *good().values())
    del machine.cloud.files[2]
    machine.run()
    assert execution.details == {"reason": "0x00000008: 0x00000000", "file": "models/voice"}
    assert machine.version == "1.0.0"


def test_a_name_that_could_not_be_told_is_left_out(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    entry = SIGNER.file(SETTINGS, signed=b"other", path="a\u200bb", file_type=1, file_id=1)
    execution = machine.cloud.ship("job", (SIGNER.file(IMAGE), IMAGE), (entry, SETTINGS))
    machine.run()
    assert execution.details == {"reason": "0x000000e3: 0x00000000"}


def test_progress_is_told_for_each_file_by_itself_in_the_c_agents_form(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    execution = machine.cloud.ship("job", *good().values())
    machine.run()
    told = [details["receive"] for update in execution.history if "receive" in (details := dict(update.status_details or {}))]
    blocks = [-(-len(data) // 1024) for data in (SETTINGS, MODEL, IMAGE)]
    first = [f"1/{total}" for total in blocks]
    assert [line for line in told if line.startswith("1/")] == first
    assert told[:2] == first[:2]


def test_an_update_that_is_suspended_between_two_files_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    execution = machine.cloud.ship("job", *good().values())
    agent = machine.boot()
    agent.signal(Event.START)
    sent_first = -(-len(SETTINGS) // 1024)
    machine.cloud.block_hook = lambda sent: agent.signal(Event.SUSPEND) if sent == sent_first else None
    machine.settle(agent)
    machine.cloud.block_hook = None
    agent.signal(Event.RESUME)
    machine.run()
    assert (execution.status, machine.version) == (ExecutionStatus.SUCCEEDED, "2.0.0")
