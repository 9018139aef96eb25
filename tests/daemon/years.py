"""Years of a host in seconds: the daemon's own keeper on a clock that moves from event to event, jobs that end as they are told to.

The state is the real one, on disk; the repository is what the real rules of retention keep of the snapshots that the backups took,
or, with `World`, a real one in memory.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from opsd.clock import DAY, SECOND, FixedClock, stamp
from opsd.daemon.keeper import Keeper
from opsd.daemon.schedule import Start
from opsd.monitor.deadlines import JOBS, Plan
from opsd.monitor.state import Run, State
from opsd.retention import policy
from opsd.retention.policy import DEFAULT_RULES
from opsd.settings import Settings
from opsd.sources.options import FilesSource, SourceSettings

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE


class Repository:
    """What the rules keep of the snapshots that were taken."""

    def __init__(self, zone: object) -> None:
        self._zone = zone
        self.times: list[int] = []

    def backup(self, now: int) -> None:
        self.times.insert(0, now)

    def prune(self, now: int) -> None:
        moments = [policy.moment(each, self._zone) for each in sorted(self.times, reverse=True)]  # type: ignore[arg-type]
        chosen = policy.choose(moments, DEFAULT_RULES, now)
        self.times = [moments[place].started for place in sorted(chosen)]


@dataclass(slots=True)
class Jobs:
    """Stands for the runner: a job takes `minutes`, and ends as `outcome` says."""

    clock: FixedClock
    state: State
    repository: Repository
    outcome: Callable[[Start], str] = lambda _: "done"
    minutes: dict[str, int] = field(default_factory=lambda: {"backup": 25, "copy": 20, "check": 30, "drill": 240})
    running: dict[str, tuple[int, Run]] = field(default_factory=dict)

    @property
    def jobs(self) -> frozenset[str]:
        return frozenset(self.running)

    def start(self, start: Start) -> bool:
        now = self.clock.now()
        assert start.job not in self.running
        run = Run(
            id=f"{stamp(now)}-{start.job}",
            job=start.job,
            cause="daemon",
            slot=start.slot,
            attempt=start.attempt,
            started=now,
        )
        self.running[start.job] = (now + self.minutes.get(start.job, 5) * MINUTE, run)
        return True

    def end_due(self) -> None:
        now = self.clock.now()
        for job, (ends, run) in list(self.running.items()):
            if ends <= now:
                del self.running[job]
                self._end(run, now, self.outcome(Start(job=job, slot=run.slot, attempt=run.attempt)))

    def _end(self, run: Run, now: int, outcome: str) -> None:
        if outcome == "done":
            {"backup": self.repository.backup, "prune": self.repository.prune}.get(run.job, lambda _: None)(
                run.started if run.job == "backup" else now
            )
        code = {"done": 0, "postponed": 75}.get(outcome, 1)
        self.state.put([replace(run, ended=now, outcome=outcome, exit_code=code)])

    def cut(self) -> None:
        """The power goes: what ran was interrupted."""
        now = self.clock.now()
        self.state.put(replace(run, outcome="interrupted", ended=now) for _, run in self.running.values())
        self.running.clear()


@dataclass(slots=True)
class Host:
    """A host through the years."""

    settings: Settings
    clock: FixedClock
    state: State
    jobs: Jobs
    keeper: Keeper | None = None

    @classmethod
    def new(cls, folder: Path, zone: str, start: int, backup: str = "04:00") -> Self:
        settings = Settings(
            timezone=zone,
            repository="/r",
            state=folder,
            sources=(SourceSettings(label="www", options=FilesSource(paths=("/srv",))),),
        )
        settings = replace(settings, schedule=replace(settings.schedule, backup=backup))
        clock = FixedClock(start)
        state = State.open(folder, start)
        return cls(settings=settings, clock=clock, state=state, jobs=Jobs(clock, state, Repository(settings.zone)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.keeper:
            self.keeper.close()
        self.state.close()

    @property
    def plan(self) -> Plan:
        assert self.keeper
        return self.keeper.plan

    def boot(self) -> None:
        self.keeper = Keeper(self.settings, self.clock)
        times = {job: at for job, at in self.keeper.plan.times.items() if job != "self-check"}
        self.keeper.plan = replace(self.keeper.plan, times=times)

    def down(self) -> None:
        assert self.keeper
        self.jobs.cut()
        self.keeper.close()
        self.keeper = None

    def tick(self) -> None:
        assert self.keeper
        self.jobs.end_due()
        self.keeper.tick(self.jobs)

    def until(self, end: int, step: int = 6 * HOUR) -> None:
        """Live on to a moment: from one event to the next, and at least every so often."""
        while self.clock.now() < end:
            self.tick()
            now = self.clock.now()
            wakes = [self.plan.next(job, now) for job in self.plan.times]
            wakes += [ends for ends, _ in self.jobs.running.values() if ends > now] + [now + step, end]
            if any(run.outcome not in {"done", "missed", "skipped"} for run in self.newest()):
                wakes.append(now + 5 * MINUTE)
            self.clock.advance(min(wakes) - now)

    def live(self, days: int, seed: int) -> None:
        """Live through outages, and a clock that now and then runs ahead for an hour's work and is put right."""
        start = self.clock.now()
        self.boot()
        for number, (down, up) in enumerate(outages(start, days, seed)):
            self.until(down)
            self.down()
            self.clock.advance(up - down)
            self.boot()
            if number % 7 == 3:
                self.tick()
                self.jump(30 * HOUR)
                self.until(self.clock.now() + HOUR)
                self.jump(-30 * HOUR)
                self.tick()
        self.until(start + days * DAY)

    def jump(self, span: int) -> None:
        """Set the clock; what runs takes no more and no less time for it."""
        self.clock.advance(span)
        self.jobs.running = {job: (ends + span, run) for job, (ends, run) in self.jobs.running.items()}

    def newest(self) -> Iterator[Run]:
        for job in JOBS:
            yield from self.state.runs(job, most=1)

    def runs(self, job: str) -> list[Run]:
        return self.state.runs(job, most=100_000)


def outages(start: int, days: int, seed: int) -> list[tuple[int, int]]:
    """When the host is down: (from, to), an hour to three days each, about every three weeks, none in the last day."""
    chosen = random.Random(seed)
    found: list[tuple[int, int]] = []
    at = start
    while True:
        at += chosen.randint(8, 35) * DAY + chosen.randint(0, 24 * 60) * MINUTE
        length = chosen.choice([1, 5, 12, 30, 72]) * HOUR + chosen.randint(0, 59) * MINUTE
        if at + length > start + (days - 1) * DAY:
            return found
        found.append((at, at + length))
        at += length
