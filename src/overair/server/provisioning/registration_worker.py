"""Drives bulk registrations: some lines of each task at a time, so that none keeps another one waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from overair.basics.errors import OverairError, Throttled, Unavailable
from overair.basics.work import Work
from overair.server.objects.contents import ContentStore
from overair.server.provisioning.registration_files import Line, read_lines
from overair.server.provisioning.registration_task_model import LINES_MAX, RegistrationTask, ReportType, TaskStatus
from overair.server.provisioning.registration_tasks import RegistrationTasks
from overair.server.provisioning.template_language import Template

LINES_AT_ONCE: Final = 32
TASKS_PER_ROUND: Final = 16
LINE: Final = "registration.line"
ADVANCED: Final = "registration.advanced"
ENDED: Final = "registration.ended"
STEPS: Final = (LINE, ADVANCED, ENDED)
"""The commits after which a task may be cut."""

logger = structlog.get_logger("overair.provisioning")


class RegistrationWorker:
    """Goes on with every unfinished task, oldest first. A worker (``workers.loop.Worker``).

    ``after_step`` is told each step's name right after its commit; production does nothing there.
    """

    name = "thing-registrations"

    def __init__(
        self,
        *,
        work: Work,
        tasks: RegistrationTasks,
        contents: ContentStore,
        after_step: Callable[[str], None] = lambda step: None,
    ) -> None:
        self._work = work
        self._tasks = tasks
        self._contents = contents
        self._after_step = after_step

    async def run_once(self) -> bool:
        """Some lines of each unfinished task. What is our own fault (a disk that doesn't answer) is raised once the others had
        their turn, and the task waits."""
        unfinished = await self._work.read(lambda tx: self._tasks.unfinished(tx, limit=TASKS_PER_ROUND))
        faults: list[Exception] = []
        for task in unfinished:
            try:
                await self._go_on(task)
            except Exception as fault:
                faults.append(fault)
        if faults:
            raise ExceptionGroup("Some registration tasks could not go on now.", faults)
        if unfinished:
            return True
        if not await self._work.read(self._tasks.has_old):
            return False
        return await self._work.run(self._tasks.sweep) > 0

    async def _go_on(self, task: RegistrationTask) -> None:
        if task.status is TaskStatus.CANCELLING:
            await self._end(task, TaskStatus.CANCELLED)
            return
        try:
            file = await self._work.read(lambda tx: self._tasks.file_of(tx, task))
        except (Unavailable, Throttled):
            raise
        except OverairError as error:
            logger.warning("registration task failed", account=task.account, task=task.id, reason=error.message)
            await self._end(task, TaskStatus.FAILED, error.message)
            return

        def read() -> list[Line]:
            return list(
                read_lines(
                    lambda offset, size: self._contents.read(file.content_id, offset, size),
                    position_bytes=task.position_bytes,
                    size_bytes=task.size_bytes,
                    lines_before=task.lines,
                    lines_max=min(LINES_AT_ONCE, LINES_MAX - task.lines),
                )
            )

        lines = await asyncio.to_thread(read)
        if not lines:
            await self._end(task, TaskStatus.COMPLETED)
            return
        template = Template.read(task.template_body)
        # Handed over together, so that the commits are: each line is still a unit of its own.
        outcomes = await asyncio.gather(*(self._register(task, template, line) for line in lines))
        await self._work.run(lambda tx: self._tasks.advance(tx, task, lines, outcomes))
        self._after_step(ADVANCED)

    async def _register(self, task: RegistrationTask, template: Template, line: Line) -> ReportType | None:
        try:
            outcome = await self._work.run(lambda tx: self._tasks.register_line(tx, task, template, line))
        except (Unavailable, Throttled):
            raise
        except OverairError as error:
            refusal = error
            outcome = await self._work.run(lambda tx: self._tasks.refuse_line(tx, task, line, refusal))
        self._after_step(LINE)
        return outcome

    async def _end(self, task: RegistrationTask, status: TaskStatus, message: str = "") -> None:
        await self._work.run(lambda tx: self._tasks.end(tx, task, status, message))
        logger.info("registration task ended", account=task.account, task=task.id, status=status.value)
        self._after_step(ENDED)
