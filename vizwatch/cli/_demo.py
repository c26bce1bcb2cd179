"""``vizwatch demo``: four jobs with different fates, on an emulated cloud, watched to their ends."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import attrs
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vizwatch import Client, JobStatus, Settings, Transition, VizwatchError
from vizwatch.cli._errors import ExitCode
from vizwatch.cli._output import Output, cell, status_cell, table
from vizwatch.emulator import Emulator

_SPEED: Final = 3.0
_DEADLINE: Final = 40.0
_SETTINGS: Final = Settings(poll_interval=0.25, poll_interval_min=0.05)

Act = Callable[[Client, Emulator, int], Awaitable[None]]


async def _stop(client: Client, _: Emulator, job_id: int) -> None:
    await client.stop_job(job_id)


async def _restart(client: Client, _: Emulator, job_id: int) -> None:
    await client.restart_job(job_id)


async def _delete(client: Client, _: Emulator, job_id: int) -> None:
    await client.delete_job(job_id)


async def _fail(_: Client, cloud: Emulator, job_id: int) -> None:
    cloud.set_status(job_id, JobStatus.FAILED)


@attrs.frozen
class Step:
    """A status that a job comes to, and what is done to the job some seconds after that was seen."""

    status: JobStatus | None
    act: Act | None = None
    after: float = 0.0


_START: Final = tuple(map(Step, (JobStatus.INIT, JobStatus.SUBMIT_TRYING, JobStatus.WAITING)))
_STOPPED: Final = (Step(JobStatus.RUNNING, _stop, after=0.8), Step(JobStatus.KILLING))


@attrs.frozen
class Fate:
    """What is to happen to a job."""

    job_name: str
    story: str
    steps: tuple[Step, ...]


FATES: Final = (
    Fate("to-be-stopped", "runs and is stopped", (*_START, *_STOPPED, Step(JobStatus.KILLED))),
    Fate(
        "to-fail",
        "runs and fails",
        (*_START, Step(JobStatus.RUNNING, _fail, after=1.6), Step(JobStatus.FAILED)),
    ),
    Fate(
        "to-be-deleted",
        "is deleted under the watch",
        (*_START, Step(JobStatus.RUNNING, _delete, after=1.2), Step(JobStatus.KILLING), Step(None)),
    ),
    Fate(
        "to-be-restarted",
        "is stopped, restarted and stopped again",
        (
            *_START,
            *_STOPPED,
            Step(JobStatus.KILLED, _restart, after=0.4),
            *_START,
            *_STOPPED,
            Step(JobStatus.KILLED),
        ),
    ),
)


@attrs.define
class Story:
    """What has happened to a job so far, beside its fate."""

    fate: Fate
    job_id: int
    seen: list[JobStatus | None] = attrs.field(factory=list)
    error: str | None = None
    _at: int = -1

    def saw(self, status: JobStatus | None) -> Step | None:
        """Finds the status in what is still to come; one that came and went between two looks is passed."""
        self.seen.append(status)
        for at, step in enumerate(self.fate.steps[self._at + 1 :], self._at + 1):
            if step.status == status:
                self._at = at
                return step
        self.error = f"{_name(status)} was not to come"
        return None

    @property
    def is_over(self) -> bool:
        """Whether the last step is reached, or none that was to come."""
        return self.error is not None or self._at == len(self.fate.steps) - 1

    @property
    def went_wrong(self) -> str | None:
        """What was not as scripted."""
        if self.error is not None or self.is_over:
            return self.error
        return f"ended before {_name(self.fate.steps[-1].status)}"


async def demonstrate(output: Output, fates: tuple[Fate, ...] = FATES) -> ExitCode:
    """Runs the demonstration; fails if anything does not go as scripted."""
    started = anyio.current_time()
    async with (
        Emulator(speed=_SPEED) as cloud,
        Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=_SETTINGS) as client,
    ):
        _say(output, f"An emulated cloud listens at {cloud.endpoint}. Its jobs:")
        stories = []
        for fate in fates:
            job = await client.create_job(fate.job_name, "/demo/logs/", job_desc=fate.story)
            stories.append(Story(fate, job.job_id))
        if not output.as_json:
            output.jobs(await client.list_jobs().collect())
        _say(output, "\nEach is watched to its end:")
        with Live(console=output.console, auto_refresh=False) if output.is_live else _nothing() as live:
            await _watch_all(stories, client, cloud, _Show(output, stories, live))
    return _conclude(output, stories, anyio.current_time() - started)


def _say(output: Output, text: str) -> None:
    if not output.as_json:
        output.text(text)


def _nothing() -> contextlib.nullcontext[None]:
    return contextlib.nullcontext()


@attrs.frozen
class _Show:
    """Shows what happens: in a table that is drawn anew, or in lines."""

    output: Output
    stories: list[Story]
    live: Live | None

    def __call__(self, transition: Transition) -> None:
        if self.live is None:
            self.output.transition(transition)
        else:
            self.live.update(_progress(self.stories), refresh=True)


async def _watch_all(stories: list[Story], client: Client, cloud: Emulator, show: _Show) -> None:
    async with anyio.create_task_group() as tasks:
        for story in stories:
            tasks.start_soon(_watch, story, client, cloud, show)


async def _watch(story: Story, client: Client, cloud: Emulator, show: _Show) -> None:
    try:
        async with client.watch(story.job_id, timeout=_DEADLINE, follow_restarts=True) as watch:
            async for transition in watch:
                step = story.saw(transition.current)
                show(transition)
                if story.is_over:
                    break
                if step is not None and step.act is not None:
                    await anyio.sleep(step.after)
                    await step.act(client, cloud, story.job_id)
    except VizwatchError as error:
        story.error = str(error)


def _progress(stories: list[Story]) -> Table:
    made = table("ID", "NAME", "STATUS", "SEEN", flexible=("SEEN",))
    for story in stories:
        trail = Text(" → ").join(map(status_cell, story.seen))
        now = status_cell(story.seen[-1]) if story.seen else cell(None)
        made.add_row(cell(story.job_id), cell(story.fate.job_name), now, trail)
    return made


def _conclude(output: Output, stories: list[Story], seconds: float) -> ExitCode:
    went_well = not any(story.went_wrong for story in stories)
    if output.as_json:
        summary = [_summary(story) for story in stories]
        output.object({"summary": summary, "as_scripted": went_well, "seconds": round(seconds, 3)})
    else:
        output.text("")
        output.text(_summary_table(stories))
        ending = "Everything went as scripted" if went_well else "Not everything went as scripted"
        output.text(f"\n{ending}, in {seconds:.1f} s.")
    return ExitCode.DONE if went_well else ExitCode.FAILED


def _summary(story: Story) -> dict[str, Any]:
    return {
        "job_id": story.job_id,
        "job_name": story.fate.job_name,
        "fate": story.fate.story,
        "transitions": len(story.seen),
        "seen": [_name(status) for status in story.seen],
        "ended_as": _name(story.seen[-1]) if story.seen else None,
        "went_wrong": story.went_wrong,
    }


def _summary_table(stories: list[Story]) -> Table:
    made = table("ID", "NAME", "FATE", "CHANGES", "ENDED AS", "AS SCRIPTED", flexible=("FATE", "AS SCRIPTED"))
    for story in stories:
        wrong = story.went_wrong
        made.add_row(
            cell(story.job_id),
            cell(story.fate.job_name),
            cell(story.fate.story),
            cell(len(story.seen)),
            status_cell(story.seen[-1]) if story.seen else cell(None),
            cell("yes") if wrong is None else cell(f"no: {wrong}", 200, style="red"),
        )
    return made


def _name(status: JobStatus | None) -> str:
    return "deleted" if status is None else status.name
