"""What the agent is doing, for whoever wants to watch: a file that is replaced at each step."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from overair.agent.download import FileDownload
from overair.agent.reports import Report
from overair.agent.states import State
from overair.wire.image import ImageVersion

LOG = logging.getLogger("overair.agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One moment of the agent's work."""

    state: str
    """A state of ``agent.states`` in lower case; of a Uptane Primary: provisioning, registering, checking, downloading,
    installing, waiting."""
    version: str
    """Of the running image."""
    job: str | None = None
    """The job, or the correlation id of a Uptane update."""
    path: str | None = None
    """The file that is being received."""
    received_blocks: int = 0
    total_blocks: int = 0
    resumed_blocks: int = 0
    """Blocks that an earlier run of the agent had brought to the disk."""
    last_job: str | None = None
    """The job whose file was received last, also after it ended and over restarts; the next two tell of that file."""
    last_received_blocks: int = 0
    last_total_blocks: int = 0
    status: str | None = None
    """The last status reported for the job."""
    reason: str | None = None


def moment(state: State, version: ImageVersion, job: str | None, file: FileDownload | None, last: Report | None) -> Progress:
    """What an agent is at: the job and the file that it has now, and the last that it reported."""
    return Progress(
        state=state.name.lower(),
        version=str(version),
        job=job,
        path=None if file is None else file.context.file.path,
        received_blocks=0 if file is None else file.received,
        total_blocks=0 if file is None else file.total,
        resumed_blocks=0 if file is None else file.resumed_blocks,
        status=None if last is None else last.status.value,
        reason=None if last is None else last.details.get("reason"),
    )


class ProgressSink(Protocol):
    """Who hears of progress."""

    def show(self, progress: Progress) -> None:
        """Called at each step on the agent's thread; must be quick."""
        ...


class NoProgress:
    """Nobody watches."""

    def show(self, progress: Progress) -> None:
        return


class ProgressSinks:
    """Several watch."""

    def __init__(self, *sinks: ProgressSink) -> None:
        self._sinks = sinks

    def show(self, progress: Progress) -> None:
        for sink in self._sinks:
            sink.show(progress)


class ProgressFile:
    """Writes ``run/progress.json`` by rename: a reader sees a whole moment. Not durable, and needn't be; on a full disk nobody
    watches, and the agent goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = read_progress(path)
        self._failing = False

    def show(self, progress: Progress) -> None:
        if progress.job is not None and progress.total_blocks:
            progress = _remembering(progress, progress.job, progress.received_blocks, progress.total_blocks)
        elif self._last is not None:
            last = self._last
            progress = _remembering(progress, last.last_job, last.last_received_blocks, last.last_total_blocks)
        if self._last is not None and not _worth_showing(self._last, progress):
            return
        self._last = progress
        temporary = self._path.with_name(self._path.name + ".new")
        try:
            temporary.write_text(json.dumps(asdict(progress)) + "\n")
            temporary.replace(self._path)
        except OSError as error:
            if not self._failing:
                LOG.warning("progress can't be shown: %s", error)
            self._failing = True
        else:
            self._failing = False


def _remembering(progress: Progress, job: str | None, received: int, total: int) -> Progress:
    return replace(progress, last_job=job, last_received_blocks=received, last_total_blocks=total)


def _worth_showing(last: Progress, new: Progress) -> bool:
    """Blocks alone are worth it in steps of half a percent: nobody sees more, and each step is a file written."""
    if replace(new, received_blocks=last.received_blocks, last_received_blocks=last.last_received_blocks) != last:
        return True
    advance = new.received_blocks - last.received_blocks
    return advance < 0 or advance >= max(1, new.total_blocks // 200) or 0 < advance == new.total_blocks - last.received_blocks


def read_progress(path: Path) -> Progress | None:
    """The last moment that was written; None where there is none yet, or it is damaged."""
    try:
        return Progress(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
