"""What an alert says, short and long."""

from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsd.clock import SECOND
from opsd.monitor.alerts import Event, Incident
from opsd.monitor.messages import SHORT, message
from opsd.monitor.problems import Problem, Severity
from opsd.monitor.spool import Note

PARIS = ZoneInfo("Europe/Paris")
FOUR = 1_795_662_000 * SECOND  # 2026-11-26 04:00 in Paris
HOUR = 3600 * SECOND


def note(title: str, event: Event = Event.OPENED, severity: Severity = Severity.WARNING, step: str = "run it") -> Note:
    problem = Problem(key=title.replace(" ", "."), severity=severity, title=title, next_step=step, since=FOUR)
    ended = FOUR + 2 * HOUR if event is Event.ENDED else None
    gone = FOUR + HOUR if event is Event.ENDED else None
    incident = Incident(problem=problem, opened=FOUR, told=FOUR, gone=gone, ended=ended)
    return Note(number=1, incident=incident, event=event, queued=FOUR)


@pytest.mark.parametrize(
    ("notes", "short"),
    [
        ([note("backup is late", step="opsd status")], "opsd web1: backup is late. Next: opsd status"),
        ([note("backup is late", Event.REPEATED)], "opsd web1: still: backup is late. Next: run it"),
        ([note("a"), note("b", severity=Severity.CRITICAL)], "opsd web1: 2 problems: b; a. Next: opsd status"),
        ([note("a", Event.REPEATED)] * 2, "opsd web1: still 2 problems: a; a. Next: opsd status"),
        ([note("a", Event.ENDED), note("b", Event.ENDED)], "opsd web1: all clear, this has ended: a; b"),
        ([note("a", Event.ENDED), note("b")], "opsd web1: b; ended: a. Next: run it"),
    ],
)
def test_the_short_text_names_host_problem_and_next_step(notes: list[Note], short: str) -> None:
    assert message("web1", notes, PARIS).short == short


def test_the_long_text_says_since_when_in_the_zone_of_the_site_and_how_to_acknowledge() -> None:
    found = message("web1", [note("backup is late"), note("copy is late", Event.ENDED)], PARIS)
    assert "WARNING: backup is late\n  since: 2026-11-26 04:00 CET\n  next: run it\n" in found.long
    assert "copy is late (from 2026-11-26 04:00 CET to 2026-11-26 05:00 CET)" in found.long
    assert "opsd ack backup.is.late" in found.long


@pytest.mark.parametrize(
    ("title", "told"),
    [
        ("the last backup failed: source www: /srv/smith/a b/c: no such file", "source www: (path): no such file"),
        ("the disk of /var/lib/opsd is full", "the disk of (path) is full"),
        ("can't read '/srv/smith/x'", "can't read '(path)'"),
        ("copy sftp://paris/web1 is late, 1/3 of it", "copy sftp://paris/web1 is late, 1/3 of it"),
    ],
)
def test_no_path_gets_into_a_message(title: str, told: str) -> None:
    for event in Event:
        found = message("web1", [note(title, event)], PARIS)
        assert told in found.short
        assert told in found.long
        assert "smith" not in found.short + found.long.partition("opsd ack")[0]


def test_no_path_of_a_next_step_gets_into_a_message_either() -> None:
    given = note("t")
    problem = replace(given.incident.problem, next_step="setfacl -m u:1:rX /srv/smith/x")
    found = message("web1", [replace(given, incident=replace(given.incident, problem=problem))], PARIS)
    assert "setfacl -m u:1:rX (path)" in found.short
    assert "setfacl -m u:1:rX (path)" in found.long


def test_the_worst_that_is_open_decides_how_loud_it_is() -> None:
    worse = note("b", severity=Severity.CRITICAL)
    assert message("web1", [note("a"), worse], PARIS).severity is Severity.CRITICAL
    assert message("web1", [note("b", Event.ENDED, Severity.CRITICAL)], PARIS).severity is None


def test_one_long_title_does_not_hide_the_others() -> None:
    short = message("web1", [note(f"{name} is late " * 20) for name in ("backup", "copy", "drill")], PARIS).short
    assert all(f"{name} is late" in short for name in ("backup", "copy", "drill"))
    assert short.endswith("Next: opsd status")


@pytest.mark.parametrize("event", Event)
def test_what_is_too_long_for_an_sms_is_cut_where_it_hurts_least(event: Event) -> None:
    found = message("w" * 253, [note("late " * 100, event, step="run it " * 50)], PARIS).short
    assert SHORT - 1 <= len(found) <= SHORT
    assert found.startswith("opsd www")
    assert event is Event.ENDED or " Next: run it run it" in found


@settings(max_examples=40)
@given(
    st.text(),
    st.lists(
        st.tuples(st.text(), st.sampled_from(Event), st.sampled_from(Severity), st.text()), min_size=1, max_size=6
    ),
)
def test_the_short_text_is_one_sms_whatever_is_wrong(host: str, parts: list[tuple[str, Event, Severity, str]]) -> None:
    found = message(host, [note(*each) for each in parts], PARIS)
    assert len(found.short) <= SHORT
    assert found.short.isprintable()
    assert found.long.replace("\n", "").isprintable()
