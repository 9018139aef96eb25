"""The figures that the daemon keeps: when they are worked out, and what happens where nobody can listen."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from opsd.app.pausing import pause
from opsd.clock import DAY, SECOND, FixedClock
from opsd.daemon.keeper import Look, Trouble
from opsd.daemon.watching import Watch
from opsd.monitor import spool
from opsd.monitor.alert_options import AlertSettings
from opsd.monitor.deadlines import Past
from opsd.monitor.health import Pause
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
    metrics.tick(replace(look, now=NOON + 60 * SECOND, changed=False))
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
