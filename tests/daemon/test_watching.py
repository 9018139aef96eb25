"""The figures that the daemon keeps: when they are worked out, and what happens where nobody can listen."""

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from opsd.app.pausing import pause
from opsd.clock import DAY, SECOND, FixedClock
from opsd.daemon.keeper import Look, Trouble
from opsd.daemon.watching import Watch
from opsd.errors import StorageError
from opsd.monitor import spool
from opsd.monitor.alert_options import AlertSettings
from opsd.monitor.deadlines import Past, deadline
from opsd.monitor.health import Pause
from opsd.monitor.observed import Observed, PlaceSeen, Point, SourceSeen
from opsd.monitor.state import State
from opsd.settings import Settings
from opsd.settings.schedule import Metrics as Stated
from tests.support.figures import NOON, OBSERVED, PLAN, run


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOON)


@pytest.fixture
def look(tmp_path: Path) -> Iterator[Look]:
    settings = Settings(state=tmp_path, metrics=Stated(listen=f"unix:{tmp_path}/s"))
    with State.open(tmp_path, NOON - DAY) as state:
        state.put([run("backup", NOON - DAY)])
        past = Past(runs={"backup": state.runs("backup")}, since=state.since)
        yield Look(settings=settings, plan=PLAN, past=past, state=state, now=NOON, trouble={}, changed=True)


@pytest.fixture
def metrics(clock: FixedClock, look: Look) -> Iterator[Watch]:
    metrics = Watch(clock, None)
    metrics.start(look.settings)
    yield metrics
    metrics.stop()


def page(look: Look) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(look.settings.metrics.listen.removeprefix("unix:"))
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        return client.makefile(encoding="utf-8", newline="\n").read()


def test_before_the_first_look_there_are_no_figures(metrics: Watch, look: Look) -> None:
    assert "503" in page(look).splitlines()[0]
    metrics.tick(look)
    assert "200" in page(look).splitlines()[0]


def test_what_the_state_holds_is_told(metrics: Watch, look: Look) -> None:
    look.state.remember("observed", NOON, OBSERVED.as_json())
    pause(look.state, Pause(until=NOON + DAY, reason="a move"), NOON)
    metrics.tick(look)
    told = page(look)
    assert 'opsd_job_runs_total{job="backup",outcome="done"} 1.0' in told
    assert 'opsd_place_snapshots{place="repository"} 42.0' in told
    assert "opsd_paused_until_timestamp_seconds 1.7957808e+09" in told
    assert "opsd_configuration_reload_success 1.0" in told


def test_what_another_version_observed_is_left_out(metrics: Watch, look: Look) -> None:
    look.state.remember("observed", NOON, {"time": 1, "places": 3})
    metrics.tick(look)
    told = page(look)
    assert "opsd_promise_kept" in told
    assert "opsd_place_snapshots{" not in told


def test_figures_are_worked_out_when_something_changed_and_else_once_a_minute(metrics: Watch, look: Look) -> None:
    metrics.tick(look)
    before = page(look)
    look.state.put([run("backup", NOON)])
    metrics.tick(replace(look, changed=False, now=NOON + 10 * SECOND))
    runs = 'opsd_job_runs_total{job="backup",outcome="done"} 2.0'
    assert runs not in page(look)
    metrics.tick(replace(look, changed=False, now=NOON + 60 * SECOND))
    assert runs in page(look)
    metrics.tick(replace(look, changed=False, now=NOON - DAY))
    assert page(look) != before


def test_what_a_failed_look_has_missed_the_next_one_tells(metrics: Watch, look: Look) -> None:
    metrics.tick(look)
    look.state.remember("observed", NOON, OBSERVED.as_json())
    with State.open(look.settings.state, NOON) as closed:
        pass
    with pytest.raises(StorageError):
        metrics.tick(replace(look, state=closed))
    metrics.tick(replace(look, changed=False))
    assert 'opsd_place_snapshots{place="repository"} 42.0' in page(look)


def test_a_refused_configuration_is_told(metrics: Watch, look: Look) -> None:
    metrics.tick(replace(look, trouble={"configuration.invalid": Trouble(text="t", hint="h")}))
    assert "opsd_configuration_reload_success 0.0" in page(look)


def test_an_address_that_is_taken_stops_nothing_and_is_tried_again(clock: FixedClock, look: Look) -> None:
    path = look.settings.metrics.listen.removeprefix("unix:")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        metrics = Watch(clock, None)
        metrics.start(look.settings)
        metrics.tick(look)
        assert metrics.is_alive()
    os.unlink(path)
    for seconds in range(10, 70, 10):  # Also while a job runs, which is a change each time.
        metrics.tick(replace(look, now=NOON + seconds * SECOND))
    assert "opsd_promise_kept" in page(look)
    metrics.stop()


def test_a_new_configuration_moves_it_and_off_ends_it(metrics: Watch, look: Look, tmp_path: Path) -> None:
    metrics.tick(look)
    moved = replace(look, settings=replace(look.settings, metrics=Stated(listen=f"unix:{tmp_path}/t")))
    metrics.start(moved.settings)
    metrics.tick(moved)
    assert "opsd_promise_kept" in page(moved)
    assert not (tmp_path / "s").exists()
    metrics.start(replace(look.settings, metrics=Stated(listen="off")))
    assert not (tmp_path / "t").exists()
    assert metrics.is_alive()


def test_people_are_told_again_on_time_also_where_nothing_changes(clock: FixedClock, look: Look) -> None:
    settings = replace(look.settings, alerts=AlertSettings(repeat=10.0))
    watch = Watch(clock, None)
    watch.start(settings)
    overdue = replace(look, settings=settings, now=NOON + 2 * DAY)
    watch.tick(replace(overdue, now=overdue.now - 10 * SECOND))
    for seconds in (0, 10, 20):
        now = overdue.now + seconds * SECOND
        watch.tick(replace(overdue, now=now, changed=False))
        with spool.opened(settings.state, pytest.fail) as opened:
            told = {each.key: each.told for each in opened.incidents()}
        assert told["backup.overdue"] == now
    watch.stop()


def test_what_a_sleep_or_a_restart_left_behind_is_told_by_the_tick_after_the_one_that_starts_what_is_due(
    clock: FixedClock, look: Look
) -> None:
    watch = Watch(clock, None)
    watch.start(look.settings)
    for seconds, is_told in ((0, False), (10, True), (20, True)):
        watch.tick(replace(look, now=NOON + 2 * DAY + seconds * SECOND))
        with spool.opened(look.settings.state, pytest.fail) as opened:
            assert bool(opened.incidents()) is is_told
            known = len(opened.incidents())
    watch.tick(replace(look, now=NOON + 9 * DAY))
    with spool.opened(look.settings.state, pytest.fail) as opened:
        assert len(opened.incidents()) == known


def test_a_deadline_that_passes_is_told_within_a_minute_though_nothing_changes(metrics: Watch, look: Look) -> None:
    past = Past(runs={"backup": [run("backup", NOON)]}, since=NOON)
    nightly = replace(look, plan=replace(PLAN, times={"backup": "04:00"}, after={}), past=past)
    metrics.tick(nightly)
    assert "opsd_promise_kept 1.0" in page(look)
    passes = deadline(nightly.plan, past, "backup", NOON)
    for now in (*range(passes - 70 * SECOND, passes + 60 * SECOND, 10 * SECOND), passes + 60 * SECOND):
        metrics.tick(replace(nightly, now=now, changed=False))
    assert "opsd_promise_kept 0.0" in page(look)


def test_the_spool_is_left_alone_until_something_is_due(metrics: Watch, look: Look) -> None:
    late = replace(look, now=NOON + 2 * DAY)
    metrics.tick(replace(late, now=late.now - 10 * SECOND))
    metrics.tick(late)
    file = look.settings.state / spool.FILE
    file.unlink()
    metrics.tick(replace(late, now=late.now + 50 * SECOND, changed=False))
    assert not file.exists()
    metrics.tick(replace(late, now=late.now + 60 * SECOND, changed=False))
    assert file.exists()


def test_an_idle_minute_takes_little_although_500_sources_are_in_trouble(metrics: Watch, look: Look) -> None:
    sources = {f"source-{number}": SourceSeen(outcome="failed") for number in range(500)}
    place = PlaceSeen(kind="repository", points=dict.fromkeys(sources, Point(stored=NOON)))
    observed = Observed(time=NOON, sources=sources, places={"repository": place})
    look.state.remember("observed", NOON, observed.as_json())
    metrics.tick(look)

    def minute(number: int) -> float:
        begin = time.process_time()
        for tick in range(6):
            metrics.tick(replace(look, now=NOON + (60 * number + 10 * tick) * SECOND, changed=False))
        return time.process_time() - begin

    assert min(minute(number) for number in range(1, 6)) < 0.06  # A thousandth of a core.
