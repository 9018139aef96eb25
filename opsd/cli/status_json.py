"""The answer of `opsd status --json`."""

from collections.abc import Callable
from datetime import tzinfo
from typing import Any

from opsd import clock
from opsd.app.status import Row, Status
from opsd.monitor.health import JobHealth
from opsd.monitor.observed import PlaceSeen
from opsd.monitor.problems import Problem
from opsd.monitor.state import Run

Moment = Callable[[int], str | None]


def as_json(found: Status, zone: tzinfo) -> dict[str, Any]:
    """All of it; its shape stands in the help."""
    health, observed = found.health, found.observed
    pause, drill = health.pause, observed.drill

    def moment(time: int) -> str | None:
        return clock.iso(time, zone) if time else None

    return {
        "kept": health.is_kept,
        "overdue": health.is_overdue,
        "exit_code": health.exit_code,
        "host": observed.host,
        "time": moment(health.time),
        "pause": {"until": moment(pause.until), "reason": pause.reason} if pause else None,
        "problems": [_problem(each, moment) for each in health.problems],
        "sources": [_source(row, moment) for row in found.rows],
        "places": [_place(name, place, moment) for name, place in observed.places.items()],
        "jobs": [_job(each, moment) for each in health.jobs],
        "tiers": {name: {"kept": tier.kept, "required": tier.required} for name, tier in observed.tiers.items()},
        "drill": {"time": moment(drill.time), "verdict": drill.verdict or None, "green": moment(drill.green)},
        "kit_used": moment(observed.kit_used),
        "uncovered": {"databases": observed.uncovered_databases, "folders": observed.uncovered_folders},
    }


def _problem(problem: Problem, moment: Moment) -> dict[str, Any]:
    return {
        "key": problem.key,
        "severity": str(problem.severity),
        "title": problem.title,
        "next_step": problem.next_step,
        "since": moment(problem.since),
    }


def _source(row: Row, moment: Moment) -> dict[str, Any]:
    return {
        "name": row.name,
        "host": row.is_host,
        "outcome": row.seen.outcome or None,
        "files": row.seen.files,
        "bytes": row.seen.bytes,
        "warnings": row.seen.warnings,
        "restorable_to": moment(row.restorable),
        "proof": row.proof or None,
        "proved_to": moment(row.proved),
        "places": [
            {
                "place": name,
                "stored": moment(point.stored),
                "verified": moment(point.verified),
                "restored": moment(point.restored),
            }
            for name, point in row.points.items()
        ],
    }


def _place(name: str, place: PlaceSeen, moment: Moment) -> dict[str, Any]:
    names = ("snapshots", "missing", "lost", "damaged", "bytes", "free", "read_share", "vouched_share")
    return {
        "name": name,
        "kind": place.kind,
        "looked": moment(place.looked),
        "error": place.error or None,
        "hint": place.hint or None,
        "newest": moment(place.newest),
        **{each: getattr(place, each) for each in names},
    }


def _job(job: JobHealth, moment: Moment) -> dict[str, Any]:
    return {
        "job": job.job,
        "last_attempt": moment(job.attempt.started) if job.attempt else None,
        "last_outcome": job.attempt.outcome if job.attempt else None,
        "last_success": moment(job.success.started) if job.success else None,
        "next": moment(job.due),
        "after": job.after or None,
        "deadline": moment(job.deadline),
        "overdue": job.is_overdue,
        "running": _running(job.running, moment) if job.running else None,
    }


def _running(run: Run, moment: Moment) -> dict[str, Any]:
    return {"since": moment(run.started), "stage": run.stage, "files": run.files, "bytes": run.bytes}
