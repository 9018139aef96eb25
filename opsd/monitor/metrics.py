"""What Prometheus is told: the state as numbers, worked out when it changes and held until it changes again.

Promise: a scrape renders nothing and asks nobody: it gets bytes that were made before, and the figures of this process. What passes with
time (a deadline, a recovery point) is told as a moment, so it needs no refresh. No label holds a path, a table or a customer: only
words of opsd's own, labels of sources and names of places. docs/metrics.md lists all of it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from opsd import clock
from opsd.model import Outcome
from opsd.monitor.deadlines import JOBS, Past, Plan, deadline
from opsd.monitor.observed import DrillSeen, Observed, PlaceSeen, Point, SourceSeen
from opsd.monitor.problems import Problem, Severity
from opsd.monitor.state import INTERRUPTED, MISDATED, MISSED, NEVER_RAN, RUNNING, SKIPPED, Run
from opsd.values import dataclass

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: How a run can end; all are told of each job, since nobody can see a counter rise that was not there before.
OUTCOMES: Final = (
    "done", "warnings", "failed", "refused", "postponed", "stopped", INTERRUPTED, SKIPPED, MISSED, MISDATED
)  # fmt: skip
VERDICTS: Final = ("green", "deviating", "failed", "red")
#: What the stages of jobs are called here, by the words that they begin with; the rest of their names may be a database's.
STAGES: Final = {
    "open": "open",
    "storing": "store",
    "objects": "objects",
    "index": "index",
    "data": "data",
    "checksums": "checksums",
    "copy to ": "copy",
    "restore ": "restore",
    "start ": "start",
    "compare ": "compare",
    "checks": "checks",
    "take down": "take-down",
    "export": "export",
}
_READ: Final = "read"
_OTHER: Final = "other"
_COPY: Final = "copy"
_PULL: Final = "pull"


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A metric: what it tells, its labels, and whether it only ever rises."""

    help: str
    labels: tuple[str, ...] = ()
    is_counter: bool = False


def _of(help: str, *labels: str) -> Definition:  # noqa: A002 - the exposition's word
    return Definition(help=help, labels=labels)


#: What the daemon and its jobs are at; told anew each time.
_AT_WORK: Final[Mapping[str, Definition]] = {
    "opsd_build_info": _of("Always 1; the version that runs", "version"),
    "opsd_promise_kept": _of("1 while nothing critical is wrong and nothing is overdue, as opsd judges"),
    "opsd_problems": _of("What 'opsd status' names as wrong", "severity"),
    "opsd_updated_timestamp_seconds": _of("When these figures were worked out"),
    "opsd_state_begun_timestamp_seconds": _of("When state.sqlite was begun; what came before is not known"),
    "opsd_paused_until_timestamp_seconds": _of("When the pause ends; 0 or in the past: none"),
    "opsd_configuration_reload_success": _of("1 if the newest configuration is in force, 0 if it was refused"),
    "opsd_configuration_reload_success_timestamp_seconds": _of("When the configuration in force was loaded"),
    "opsd_job_runs_total": Definition(help="Runs that ended", labels=("job", "outcome"), is_counter=True),
    "opsd_job_deadline_timestamp_seconds": _of("When the job's next success must be there", "job"),
    "opsd_job_last_success_timestamp_seconds": _of("When a run last did what the job is for; 0: never", "job"),
    "opsd_job_last_attempt_timestamp_seconds": _of("When a run last ended, or began if it hasn't; 0: never", "job"),
    "opsd_job_running": _of("1 while a run is at work", "job"),
    "opsd_job_last_run_duration_seconds": _of("How long the newest run that ended took", "job"),
    "opsd_job_last_run_stage_duration_seconds": _of("How long it spent in each stage", "job", "stage"),
}
#: What stands, as the last look found it.
_STANDING: Final[Mapping[str, Definition]] = {
    "opsd_observed_timestamp_seconds": _of("When the self-check last looked at what is really there"),
    "opsd_source_outcome": _of("1 for how the source ended in its newest snapshot", "source", "outcome"),
    "opsd_source_bytes": _of("What it held there", "source"),
    "opsd_source_files": _of("Files that it held there", "source"),
    "opsd_source_added_bytes": _of("What of it was new", "source"),
    "opsd_source_unreadable": _of("What of it could not be read", "source"),
    "opsd_recovery_point_timestamp_seconds": _of(
        "To what moment a source can be restored from a place: stored, verified (every byte read again), "
        "restored (by a green drill); 0: never",
        "source",
        "place",
        "state",
    ),
    "opsd_place_readable": _of("1 if the place could be read at the last look", "place"),
    "opsd_place_snapshots": _of("Complete snapshots there", "place"),
    "opsd_place_newest_snapshot_timestamp_seconds": _of("The newest of these; 0: none", "place"),
    "opsd_place_lost_snapshots": _of("Snapshots that are gone, and no prune dropped them", "place"),
    "opsd_place_oldest_unread_timestamp_seconds": _of(
        "When what has waited longest there was put, or last read; not told where nothing waits", "place"
    ),
    "opsd_place_bytes": _of("What is stored there", "place"),
    "opsd_place_free_bytes": _of("Room on its disk, where that is known", "place"),
    "opsd_place_verified_ratio": _of(
        "The part of it that was proved in the last 30 days: read, or only vouched for by its store", "place", "state"
    ),
    "opsd_copy_missing_snapshots": _of("Snapshots of the repository that the copy lacks", "place"),
    "opsd_copy_lag_seconds": _of("How much older its newest snapshot is than the repository's", "place"),
    "opsd_copy_completed_timestamp_seconds": _of("When it was last brought up to date; 0: never", "place"),
    "opsd_retention_snapshots": _of("Snapshots that a rule of retention keeps", "tier"),
    "opsd_retention_required_snapshots": _of("How many it would keep if no night had been missed", "tier"),
    "opsd_drill_timestamp_seconds": _of("When the newest drill began; 0: never"),
    "opsd_drill_green_timestamp_seconds": _of("When the newest green one began; 0: never"),
    "opsd_drill_verdict": _of("1 for the verdict of the newest drill", "outcome"),
    "opsd_drill_recovery_time_seconds": _of("How long the newest drill took to have all back"),
    "opsd_drill_recovery_time_target_seconds": _of("How long it may take, where a target is set"),
    "opsd_drill_recovery_point_seconds": _of("How old what it gave back was"),
    "opsd_drill_recovery_point_target_seconds": _of("How old that may be, where a target is set"),
    "opsd_kit_used_timestamp_seconds": _of("When a person last drilled with the recovery kit; 0: never"),
    "opsd_repository_created_timestamp_seconds": _of("When the repository was created"),
    "opsd_uncovered_databases": _of("Databases found on this host that no source has, where somebody looked"),
    "opsd_uncovered_folders": _of("Folders found on this host that no source has, where somebody looked"),
}
#: All that there is, by name, but the `process_*` of the client library.
METRICS: Final[Mapping[str, Definition]] = {**_AT_WORK, **_STANDING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What only the daemon itself knows. Times are ns UTC, 0 for never."""

    version: str
    reloaded: bool = True
    reload_time: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that the figures come from, at one moment; `counts`: runs by job and outcome, as the state counts them.

    `is_overdue` and `problems` are as `opsd status` judges.
    """

    now: int
    service: Service
    plan: Plan
    past: Past
    counts: Mapping[tuple[str, str], int]
    observed: Observed | None
    paused_until: int = 0
    is_overdue: bool = False
    problems: Sequence[Problem] = ()


class Exposition:
    """The page that is held; `show` replaces it, from any thread."""

    def __init__(self) -> None:
        self._observed: Observed | None = None
        self._standing = b""
        self._text = b""
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    def show(self, view: View) -> None:
        """Hold the figures of another moment; what stands is rendered anew only where it is not as before: it may be thousands of lines."""
        if not self._standing or view.observed != self._observed:
            self._standing = _rendered(_families(_STANDING, _observed(view.observed)))
            self._observed = view.observed
        self._text = _rendered(_families(_AT_WORK, chain(_service(view), _jobs(view)))) + self._standing

    def text(self) -> bytes:
        """The page, in the text format 0.0.4 of Prometheus; empty before the first `show`."""
        return self._text and self._text + generate_latest(self._process)


class _Held(Collector):
    """Families, for the client library."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


def _rendered(families: Sequence[Metric]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Held(families))
    return generate_latest(registry)


#: A metric's name, the values of its labels, and its value.
_Sample = tuple[str, tuple[str, ...], float]


def _families(definitions: Mapping[str, Definition], samples: Iterable[_Sample]) -> Sequence[Metric]:
    """These metrics, each once, in their order."""
    found: dict[str, GaugeMetricFamily | CounterMetricFamily] = {
        name: (CounterMetricFamily if each.is_counter else GaugeMetricFamily)(name, each.help, labels=each.labels)
        for name, each in definitions.items()
    }
    for name, labels, value in samples:
        found[name].add_metric(labels, value)
    return tuple(found.values())


def stage_name(job: str, stage: str) -> str:
    """What a stage is called here: one of a few words, whatever the source, the copy or the database is called."""
    for begin, name in STAGES.items():
        if stage == begin or (begin.endswith(" ") and stage.startswith(begin)):
            return name
    return _READ if job == "backup" else _OTHER  # A backup's other stages are called as its sources.


def _service(view: View) -> Iterator[_Sample]:
    service = view.service
    yield "opsd_build_info", (service.version,), 1
    is_critical = any(each.severity == Severity.CRITICAL for each in view.problems)
    yield "opsd_promise_kept", (), not (view.is_overdue or is_critical)
    for severity in Severity:
        yield "opsd_problems", (severity,), sum(each.severity == severity for each in view.problems)
    yield "opsd_updated_timestamp_seconds", (), _seconds(view.now)
    yield "opsd_state_begun_timestamp_seconds", (), _seconds(view.past.since)
    yield "opsd_paused_until_timestamp_seconds", (), _seconds(view.paused_until)
    yield "opsd_configuration_reload_success", (), service.reloaded
    yield "opsd_configuration_reload_success_timestamp_seconds", (), _seconds(service.reload_time)


def _jobs(view: View) -> Iterator[_Sample]:
    told = {job for job, _ in view.counts}
    for job in (*(job for job in JOBS if job in told | set(view.plan.jobs)), *sorted(told - set(JOBS))):
        for outcome in OUTCOMES:
            yield "opsd_job_runs_total", (job, outcome), view.counts.get((job, outcome), 0)
        yield "opsd_job_running", (job,), view.counts.get((job, RUNNING), 0) > 0
    for job in view.plan.jobs:
        runs = [run for run in view.past.of(job, view.now) if _was_tried(run)]
        good = view.past.good(job, view.now)
        yield "opsd_job_deadline_timestamp_seconds", (job,), _seconds(deadline(view.plan, view.past, job, view.now))
        yield "opsd_job_last_success_timestamp_seconds", (job,), _seconds(good.ended) if good else 0
        yield (
            "opsd_job_last_attempt_timestamp_seconds",
            (job,),
            _seconds(max(runs[0].started, runs[0].ended) if runs else 0),
        )
        yield from _durations(job, next((run for run in runs if run.ended), None))


def _was_tried(run: Run) -> bool:
    return not run.part and run.outcome not in NEVER_RAN | {MISDATED}


def _durations(job: str, run: Run | None) -> Iterator[_Sample]:
    if run is None:
        return
    yield "opsd_job_last_run_duration_seconds", (job,), run.seconds
    spent: dict[str, float] = {}
    for stage, seconds in run.stages:
        name = stage_name(job, stage)
        spent[name] = spent.get(name, 0.0) + seconds
    for name, seconds in spent.items():
        yield "opsd_job_last_run_stage_duration_seconds", (job, name), seconds


def _observed(observed: Observed | None) -> Iterator[_Sample]:
    if observed is None:
        return
    yield "opsd_observed_timestamp_seconds", (), _seconds(observed.time)
    for label, source in observed.sources.items():
        yield from _source(label, source)
    repository = next((each for each in observed.places.values() if each.kind == "repository"), None)
    for name, place in observed.places.items():
        yield from _place(name, place)
        # Of a source that the configuration names no more, snapshots are left; nobody is to be woken for their age.
        for label in place.points if place.kind == _PULL else observed.sources:
            yield from _point(label, name, place.points.get(label, Point()))
        if place.kind == _COPY:
            yield from _copy(name, place, repository)
    for name, tier in observed.tiers.items():
        yield "opsd_retention_snapshots", (name,), tier.kept
        yield "opsd_retention_required_snapshots", (name,), tier.required
    yield from _drill(observed.drill)
    yield "opsd_kit_used_timestamp_seconds", (), _seconds(observed.kit_used)
    yield from _known("opsd_repository_created_timestamp_seconds", _seconds(observed.kit_made) or None)
    yield from _known("opsd_uncovered_databases", observed.uncovered_databases)
    yield from _known("opsd_uncovered_folders", observed.uncovered_folders)


def _source(label: str, source: SourceSeen) -> Iterator[_Sample]:
    for outcome in Outcome:
        yield "opsd_source_outcome", (label, outcome), source.outcome == outcome
    yield "opsd_source_bytes", (label,), source.bytes
    yield "opsd_source_files", (label,), source.files
    yield "opsd_source_added_bytes", (label,), source.added_bytes
    yield "opsd_source_unreadable", (label,), source.warnings


def _place(name: str, place: PlaceSeen) -> Iterator[_Sample]:
    yield "opsd_place_readable", (name,), not place.error
    yield "opsd_place_snapshots", (name,), place.snapshots
    yield "opsd_place_newest_snapshot_timestamp_seconds", (name,), _seconds(place.newest)
    yield "opsd_place_lost_snapshots", (name,), place.lost
    yield from _known("opsd_place_oldest_unread_timestamp_seconds", _seconds(place.unread) or None, name)
    yield "opsd_place_bytes", (name,), place.bytes
    yield from _known("opsd_place_free_bytes", place.free, name)
    if place.verify != "off":
        yield "opsd_place_verified_ratio", (name, "read"), place.read_share
        yield "opsd_place_verified_ratio", (name, "vouched"), place.vouched_share


def _point(label: str, place: str, point: Point) -> Iterator[_Sample]:
    for state in ("stored", "verified", "restored"):
        yield "opsd_recovery_point_timestamp_seconds", (label, place, state), _seconds(getattr(point, state))


def _copy(name: str, copy: PlaceSeen, repository: PlaceSeen | None) -> Iterator[_Sample]:
    yield "opsd_copy_missing_snapshots", (name,), copy.missing
    yield "opsd_copy_completed_timestamp_seconds", (name,), _seconds(copy.completed)
    if repository and repository.newest and copy.newest:
        yield "opsd_copy_lag_seconds", (name,), max(0.0, _seconds(repository.newest - copy.newest))


def _drill(drill: DrillSeen) -> Iterator[_Sample]:
    yield "opsd_drill_timestamp_seconds", (), _seconds(drill.time)
    yield "opsd_drill_green_timestamp_seconds", (), _seconds(drill.green)
    for verdict in VERDICTS:
        yield "opsd_drill_verdict", (verdict,), drill.verdict == verdict
    if drill.time:
        yield "opsd_drill_recovery_time_seconds", (), drill.recovery_time
        yield "opsd_drill_recovery_point_seconds", (), drill.recovery_point
    yield from _known("opsd_drill_recovery_time_target_seconds", drill.recovery_time_target)
    yield from _known("opsd_drill_recovery_point_target_seconds", drill.recovery_point_target)


def _known(name: str, value: float | None, *labels: str) -> Iterator[_Sample]:
    """A figure that may be unknown; then it is not there, rather than wrong."""
    if value is not None:
        yield name, labels, value


def _seconds(moment: int) -> float:
    return moment / clock.SECOND
