"""What the demo shows: bars while blocks flow, a table for each round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from overair.agent.progress import Progress
from overair.cli.watch import Follow

BAR_WIDTH = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Where one device ended in one round."""

    device: str
    from_version: str
    to_version: str
    blocks: int | None
    """None: it doesn't come in blocks."""
    seconds: float
    status: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One image shipped to every device."""

    name: str
    expected_status: str
    expected_version: str
    outcomes: tuple[Outcome, ...]

    @property
    def went_as_promised(self) -> bool:
        return all(each.status == self.expected_status and each.to_version == self.expected_version for each in self.outcomes)


def bars(
    followed: Sequence[Follow], progress: dict[str, Progress | None], job: str, ended: dict[str, float], elapsed: float
) -> Table:
    table = Table.grid(padding=(0, 2))
    by_thing = {each.thing: each for each in followed}
    for device, moment in progress.items():
        follow = by_thing.get(device)
        received, total = (0, 0)
        if moment is not None and moment.last_job == job:
            received, total = moment.last_received_blocks, moment.last_total_blocks
        full = BAR_WIDTH * received // total if total else 0
        status = follow.status if follow else "QUEUED"
        colour = {"SUCCEEDED": "green", "FAILED": "red", "REJECTED": "red"}.get(status, "cyan")
        what = follow.what if follow and device in ended else (moment.state.replace("_", " ") if moment else "booting")
        table.add_row(
            device,
            f"[{colour}]{'━' * full}[/{colour}][dim]{'━' * (BAR_WIDTH - full)}[/dim]",
            f"{received:>4}/{total or '?':<4}",
            f"[{colour}]{status:<11}[/{colour}]",
            f"{ended.get(device, elapsed):4.1f} s",
            what,
        )
    for follow in followed:
        if follow.thing in progress:
            continue
        colour = {"SUCCEEDED": "green", "FAILED": "red", "REJECTED": "red"}.get(follow.status, "cyan")
        done = BAR_WIDTH if follow.thing in ended else 0
        table.add_row(
            follow.thing,
            f"[{colour}]{'━' * done}[/{colour}][dim]{'━' * (BAR_WIDTH - done)}[/dim]",
            "",
            f"[{colour}]{follow.status:<11}[/{colour}]",
            f"{ended.get(follow.thing, elapsed):4.1f} s",
            follow.what or "waits for its next round",
        )
    return table


def print_table(console: Console, shown: Round) -> None:
    table = Table("device", "from", "to", "blocks", "seconds", "status", "reason", title=shown.name, title_justify="left")
    for each in shown.outcomes:
        colour = "green" if each.status == "SUCCEEDED" else "red"
        table.add_row(
            each.device,
            each.from_version,
            each.to_version,
            "-" if each.blocks is None else str(each.blocks),
            f"{each.seconds:.1f}",
            f"[{colour}]{each.status}[/{colour}]",
            each.reason,
        )
    console.print()
    console.print(table)
