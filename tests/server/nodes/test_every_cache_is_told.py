"""What a unit drops from this process's memory after its commit, the server's other processes hear of too, or needn't."""

from __future__ import annotations

import re
from pathlib import Path

import overair.server

SERVER = Path(overair.server.__file__).parent

NOT_TOLD = {
    "certificates/authorities.py": "puts in, and drops nothing: an account's device authority is made once and never changed",
    "jobs/lifecycle.py": "wakes the planner, which `cluster.wakes` does in every process",
    "jobs/service.py": "wakes the planner, which `cluster.wakes` does in every process",
    "fleet_index/configurations.py": "remembered for no longer than SPREAD_MS, and asked of the records again",
    "fleet_index/dynamic_groups.py": "wakes the builder, which `cluster.wakes` does in every process",
    "fleet_index/indexing.py": "looks whether a new thing is connected to this process",
}
"""By file: why it tells nobody."""


def test_whoever_acts_after_a_commit_tells_the_other_processes_or_has_a_reason_not_to() -> None:
    silent = []
    for path in sorted(SERVER.rglob("*.py")):
        name, source = str(path.relative_to(SERVER)), path.read_text()
        if name.startswith("storage/"):
            continue
        acts, tells = source.count(".after_commit("), source.count(".tell_nodes(")
        if acts > tells and name not in NOT_TOLD:
            silent.append(f"{name}: {acts} after_commit, {tells} tell_nodes")
    assert silent == []


def test_no_reason_outlives_its_file() -> None:
    assert [name for name in NOT_TOLD if ".after_commit(" not in (SERVER / name).read_text()] == []


def test_every_kind_of_news_has_a_listener() -> None:
    source = "\n".join(path.read_text() for path in SERVER.rglob("*.py"))
    assert set(re.findall(r"News\(\"([a-z-]+)\"", source)) == set(re.findall(r"hears\(\"([a-z-]+)\"", source))
