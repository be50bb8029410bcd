from __future__ import annotations

import itertools
from pathlib import Path

from overair.agent.progress import Progress, ProgressFile, read_progress


def receiving(received: int, total: int = 1000) -> Progress:
    return Progress(state="waiting_for_file_block", version="1.0.0", job="j", received_blocks=received, total_blocks=total)


def test_blocks_are_shown_in_steps_and_the_last_one_always(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    file = ProgressFile(path)
    shown = []
    for received in range(1001):
        file.show(receiving(received))
        moment = read_progress(path)
        assert moment is not None
        shown.append(moment.received_blocks)
    assert shown[-1] == 1000
    assert len(set(shown)) <= 202
    assert all(before <= after for before, after in itertools.pairwise(shown))


def test_what_was_received_last_is_remembered_over_the_end_of_its_job_and_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    ProgressFile(path).show(receiving(1000))
    ProgressFile(path).show(Progress(state="waiting_for_job", version="2.0.0"))
    moment = read_progress(path)
    assert moment is not None
    assert (moment.job, moment.total_blocks) == (None, 0)
    assert (moment.last_job, moment.last_received_blocks, moment.last_total_blocks) == ("j", 1000, 1000)


def test_a_damaged_file_is_no_moment(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    for content in ("", "{", "[]", '{"state": 1, "unknown": 2}'):
        path.write_text(content)
        assert read_progress(path) is None
    ProgressFile(path).show(receiving(1))
    assert read_progress(path) is not None
