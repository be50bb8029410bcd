"""A rollout drawn in 80 columns: one bar over the whole fleet, its stages in words, and why devices didn't take it.

Each stage has a glyph of its own as well as a colour, so that a terminal without colours tells them apart.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.text import Text

WIDTH: Final = 80
CAUSES_SHOWN_MAX: Final = 5
CAUSE_LINES_MAX: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where a thing can be, and how it is drawn."""

    member: str
    """In the answer of DescribeRollout."""
    word: str
    glyph: str
    style: str
    is_open: bool = True
    """Something more will come of it."""


STAGES: Final = (
    Stage(member="succeeded", word="done", glyph="█", style="green", is_open=False),
    Stage(member="selfTest", word="self-test", glyph="▓", style="cyan"),
    Stage(member="downloading", word="downloading", glyph="▒", style="blue"),
    Stage(member="begun", word="begun", glyph="░", style="blue"),
    Stage(member="notified", word="notified", glyph="-", style="yellow"),
    Stage(member="queued", word="queued", glyph="·", style="yellow"),
    Stage(member="waiting", word="waiting", glyph=" ", style="dim"),
    Stage(member="canceled", word="cancelled", glyph="x", style="magenta", is_open=False),
    Stage(member="removed", word="removed", glyph="x", style="magenta", is_open=False),
    Stage(member="timedOut", word="timed out", glyph="✗", style="red", is_open=False),
    Stage(member="rejected", word="rejected", glyph="✗", style="red", is_open=False),
    Stage(member="failed", word="failed", glyph="✗", style="red", is_open=False),
)
"""In the order of the bar: what is done grows from the left, what failed from the right."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """An answer of DescribeRollout."""

    answer: Mapping[str, Any]

    def count(self, stage: Stage) -> int:
        return int(self.answer.get(stage.member, 0))

    @property
    def total(self) -> int:
        return sum(self.count(stage) for stage in STAGES)

    @property
    def open(self) -> int:
        """Things of which something more will come."""
        return sum(self.count(stage) for stage in STAGES if stage.is_open)

    @property
    def ended(self) -> int:
        return self.total - self.open

    @property
    def download_percent(self) -> int | None:
        """Of the blocks of all that download now."""
        total = int(self.answer.get("blocksTotal", 0))
        return int(self.answer["blocksReceived"]) * 100 // total if total else None

    @property
    def causes(self) -> Sequence[Mapping[str, Any]]:
        causes: Sequence[Mapping[str, Any]] = self.answer.get("causes", ())
        return causes

    def to_json(self) -> dict[str, Any]:
        return {
            "stages": {stage.word.replace("-", "_").replace(" ", "_"): self.count(stage) for stage in STAGES},
            "download_percent": self.download_percent,
            "causes": [{"status": each["status"], "reason": each["reason"], "count": each["count"]} for each in self.causes],
        }


def cells(counts: Sequence[int], width: int) -> list[int]:
    """How many cells each count gets of ``width``: in proportion, and at least one where there is anything at all."""
    total = sum(counts)
    if total == 0:
        return [0] * len(counts)
    shares = [count * width / total for count in counts]
    given = [max(1, int(share)) if count else 0 for count, share in zip(counts, shares, strict=True)]
    # What rounding left over goes where most was cut off; what the ones took too much comes off the largest.
    while sum(given) < width:
        given[max(range(len(given)), key=lambda index: shares[index] - given[index])] += 1
    while sum(given) > width:
        given[max(range(len(given)), key=lambda index: given[index])] -= 1
    return given


def lines(job: str, rollout: Rollout, *, elapsed_s: float | None, width: int = WIDTH) -> list[Text]:
    """The picture, line by line, none longer than ``width``."""
    answer = rollout.answer
    rate = answer.get("ratePerMinute")
    head = f"  {answer['status'].replace('_', ' ').lower()}" + (f", {rate:,} a minute" if rate else "")
    room = width - len(head)
    name = job if len(job) <= room else f"{job[: room - 1]}…"
    picture = [Text.assemble((name, "bold"), head, no_wrap=True)]
    took = "" if elapsed_s is None else f"  {int(elapsed_s) // 3600}:{int(elapsed_s) // 60 % 60:02}:{int(elapsed_s) % 60:02}"
    share = rollout.ended * 100 // rollout.total if rollout.total else 0
    tail = f" {share:3} %{took}"
    bar = Text("▕", no_wrap=True)
    for stage, many in zip(STAGES, cells([rollout.count(stage) for stage in STAGES], width - len(tail) - 2), strict=True):
        bar.append(stage.glyph * many, stage.style)
    bar.append(" " * (width - len(tail) - 1 - bar.cell_len))
    bar.append("▏")
    picture.append(bar.append(tail))
    picture += _legend(rollout, width)
    for cause in rollout.causes[:CAUSES_SHOWN_MAX]:
        picture += _cause(cause, width)
    if len(rollout.causes) > CAUSES_SHOWN_MAX:
        picture.append(Text(f"        … and {len(rollout.causes) - CAUSES_SHOWN_MAX} more causes", style="dim"))
    return picture


def _cause(cause: Mapping[str, Any], width: int) -> list[Text]:
    """How many failed so, and why, in a few lines: what tells one code from another stands at the end."""
    head = f"{cause['count']:>7,} ✗ "
    room = max(1, width - len(head))
    words = textwrap.wrap(cause["reason"], room, max_lines=CAUSE_LINES_MAX, placeholder="…") or [""]
    first = Text.assemble((head, "red"), (words[0], "default"), no_wrap=True)
    found = [first, *(Text(" " * len(head) + following, no_wrap=True) for following in words[1:])]
    for line in found:
        line.truncate(width, overflow="ellipsis")
    return found


def _legend(rollout: Rollout, width: int) -> list[Text]:
    """What the glyphs stand for, of those stages that have anybody in them."""
    found: list[Text] = []
    line = Text(no_wrap=True)
    for stage in STAGES:
        if not (count := rollout.count(stage)):
            continue
        percent = rollout.download_percent if stage.member == "downloading" else None
        glyph = stage.glyph.strip() or "○"
        entry = Text.assemble((glyph, stage.style), f" {stage.word} {count:,}{'' if percent is None else f' ({percent} %)'}")
        gap = 3 if line.cell_len else 1
        if line.cell_len and line.cell_len + gap + entry.cell_len > width:
            found.append(line)
            line, gap = Text(no_wrap=True), 1
        line.append(" " * gap)
        line.append(entry)
    if not line.cell_len:
        line.append(" nobody has it yet", "dim")
    return [*found, line]
