"""What is told when: each rule of docs/decisions/0030-alerts.md, as a story of a few ticks."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from opsd.clock import DAY, SECOND
from opsd.monitor.alerts import SETTLING, Event, Incident, acknowledged, decide, next_time, reported
from opsd.monitor.problems import Problem, Severity

MINUTE = 60 * SECOND
REPEAT = 15 * MINUTE
START = 1_800_000_000 * SECOND


def problem(key: str, severity: Severity = Severity.WARNING) -> Problem:
    return Problem(key=key, severity=severity, title=f"{key} is wrong", next_step="look", since=START)


@dataclass(slots=True)
class Story:
    """Tick by tick: what is told at each."""

    now: int = START
    incidents: tuple[Incident, ...] = ()
    repeat: int = REPEAT
    told: list[dict[str, Event]] = field(default_factory=list)

    def tick(self, present: str | Iterable[Problem] = "", after: int = MINUTE) -> dict[str, Event]:
        problems = [problem(each) for each in present.split()] if isinstance(present, str) else list(present)
        self.now += after
        decision = decide(self.incidents, problems, self.now, self.repeat)
        self.incidents = tuple(each for each in decision.incidents if each.ended is None)
        self.told.append(dict(decision.events))
        return dict(decision.events)

    def acknowledge(self) -> None:
        self.incidents = tuple(acknowledged(each, self.now) for each in self.incidents)


def test_a_problem_is_told_once_when_it_opens_and_again_after_each_repeat() -> None:
    story = Story()
    assert story.tick("a") == {"a": Event.OPENED}
    assert [story.tick("a") for _ in range(14)] == [{}] * 14
    assert story.tick("a") == {"a": Event.REPEATED}
    assert story.tick("a") == {}


def test_an_acknowledged_incident_is_not_repeated_but_its_end_is_told() -> None:
    story = Story()
    story.tick("a")
    story.acknowledge()
    assert [story.tick("a", after=REPEAT) for _ in range(5)] == [{}] * 5
    assert story.tick("") == {}
    assert story.tick("", after=SETTLING) == {"a": Event.ENDED}
    assert story.incidents == ()
    assert story.tick("a") == {"a": Event.OPENED}


def test_a_problem_that_comes_back_before_it_has_settled_never_left() -> None:
    story = Story()
    story.tick("a")
    for _ in range(3):
        assert story.tick("") == {}
        assert story.tick("a") == {}
    assert story.incidents[0].gone is None


def test_the_all_clear_comes_once_the_problem_stayed_away() -> None:
    story = Story()
    story.tick("a")
    assert [story.tick("") for _ in range(5)] == [{}] * 5
    assert story.tick("") == {"a": Event.ENDED}
    assert story.tick("") == {}


def test_a_problem_is_told_with_its_beginning_although_each_look_dates_it_anew() -> None:
    story = Story()
    story.tick([problem("a")])
    before = story.incidents
    story.tick([replace(problem("a"), since=START + 5 * MINUTE)])
    assert story.incidents == before
    story.tick([replace(problem("a"), since=START - 5 * MINUTE)])
    assert story.incidents[0].problem.since == START - 5 * MINUTE


def test_a_short_repeat_shortens_the_wait_for_the_all_clear() -> None:
    story = Story(repeat=SECOND)
    story.tick("a", after=SECOND)
    story.tick("", after=SECOND)
    assert story.tick("", after=SECOND) == {"a": Event.ENDED}


def test_what_another_problem_tells_from_now_on_goes_without_an_all_clear() -> None:
    story = Story()
    story.tick("backup.failed")
    exact = replace(problem("source.www.failed"), covers=("backup.failed",))
    decision = decide(story.incidents, [exact], story.now, 15 * MINUTE)
    assert dict(decision.events) == {"source.www.failed": Event.OPENED}
    assert [(each.key, each.ended is None) for each in decision.incidents] == [
        ("backup.failed", False),
        ("source.www.failed", True),
    ]


def test_an_incident_began_when_it_was_first_seen_however_often_somebody_looks() -> None:
    story = Story()
    story.tick([replace(problem("a"), since=5 * SECOND)])
    story.tick([replace(problem("a"), since=9 * SECOND)])
    assert story.incidents[0].problem.since == 5 * SECOND


def test_many_problems_at_once_are_one_message() -> None:
    keys = [f"p{number}" for number in range(50)]
    story = Story()
    assert story.tick(" ".join(keys)) == dict.fromkeys(keys, Event.OPENED)


def test_a_message_names_all_that_is_open_so_that_there_is_one_reminder_for_all() -> None:
    story = Story()
    story.tick("a")
    assert story.tick("a b", after=10 * MINUTE) == {"a": Event.REPEATED, "b": Event.OPENED}
    assert story.tick("a b", after=10 * MINUTE) == {}
    assert story.tick("a b", after=5 * MINUTE) == {"a": Event.REPEATED, "b": Event.REPEATED}


def test_an_acknowledged_incident_is_not_named_with_others() -> None:
    story = Story()
    story.tick("a")
    story.acknowledge()
    assert story.tick("a b") == {"b": Event.OPENED}


def test_what_becomes_critical_is_told_at_once_and_again_though_it_was_acknowledged() -> None:
    story = Story()
    story.tick("a")
    story.acknowledge()
    worse = [problem("a", Severity.CRITICAL)]
    assert story.tick(worse) == {"a": Event.OPENED}
    assert story.tick(worse, after=REPEAT) == {"a": Event.REPEATED}
    assert story.tick("a") == {}


def test_a_clock_that_is_set_back_silences_nothing() -> None:
    story = Story()
    story.tick("a")
    assert story.tick("a", after=-365 * DAY) == {"a": Event.REPEATED}
    assert story.tick("a", after=REPEAT) == {"a": Event.REPEATED}
    story.tick("")
    assert story.tick("", after=-365 * DAY) == {}
    assert story.tick("", after=SETTLING) == {"a": Event.ENDED}


def test_a_unit_that_failed_stays_until_it_is_acknowledged() -> None:
    story = Story()
    story.tick("a")
    decision = reported(story.incidents, problem("unit.x.failed", Severity.CRITICAL), story.now, REPEAT)
    assert dict(decision.events) == {"a": Event.REPEATED, "unit.x.failed": Event.OPENED}
    story.incidents = decision.incidents
    assert story.tick("a", after=REPEAT) == {"a": Event.REPEATED, "unit.x.failed": Event.REPEATED}
    again = reported(story.incidents, problem("unit.x.failed", Severity.CRITICAL), story.now + SECOND, REPEAT)
    assert again.events == ()
    ended = [each for each in (acknowledged(each, story.now) for each in story.incidents) if each.ended]
    assert [each.key for each in ended] == ["unit.x.failed"]


@given(st.lists(st.tuples(st.sets(st.sampled_from("abc")), st.integers(1, 30)), min_size=1, max_size=60))
def test_whatever_comes_and_goes_nothing_open_is_silent_for_longer_than_a_repeat_and_ends_are_told_once(
    ticks: list[tuple[set[str], int]],
) -> None:
    story = Story()
    open_keys: set[str] = set()
    heard: dict[str, int] = {}
    for present, minutes in ticks:
        told = story.tick(" ".join(present), after=minutes * MINUTE)
        opened = {key for key, event in told.items() if event is Event.OPENED}
        ended = {key for key, event in told.items() if event is Event.ENDED}
        assert opened.isdisjoint(open_keys)
        assert ended <= open_keys
        assert ended.isdisjoint(present)
        open_keys = (open_keys | opened) - ended
        assert present <= open_keys == {each.key for each in story.incidents}
        heard |= dict.fromkeys(told, story.now)
        assert all(story.now - heard[key] < REPEAT for key in present)


@given(st.lists(st.tuples(st.sampled_from(["", "a", "a b", "b", "ack"]), st.integers(1, 20)), max_size=12))
def test_between_two_times_at_which_something_is_due_nothing_changes_by_itself(ticks: list[tuple[str, int]]) -> None:
    story, present = Story(), ""
    for what, minutes in ticks:
        if what == "ack":
            story.acknowledge()
        else:
            present = what
        story.tick(present, after=minutes * MINUTE)
    due = next_time(story.incidents, REPEAT)
    problems = [problem(each) for each in present.split()]
    early = decide(story.incidents, problems, min(due - 1, story.now + DAY), REPEAT)
    assert (early.incidents, early.events) == (story.incidents, ())
    assert due > story.now + DAY or decide(story.incidents, problems, due, REPEAT).events
