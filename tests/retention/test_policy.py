"""What stays and why: single cases by hand, and whole histories against an oracle."""

import itertools
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd.errors import ConfigurationError
from opsd.retention.policy import DEFAULT_RULES, Candidate, Rules, Verdict, decide
from tests.retention.oracle import DAY, HOUR, SECOND, ZONES, expected, moment, snapshot

UTC = ZoneInfo("UTC")
NOW = moment("2025-01-01 12:00")


def judge(*candidates: Candidate, rules: Rules = DEFAULT_RULES, now: int = NOW) -> list[tuple[str, ...]]:
    return [verdict.reasons for verdict in decide(candidates, rules, now, UTC)]


def kept(verdicts: Sequence[Verdict]) -> set[str]:
    return {verdict.id for verdict in verdicts if verdict.keep}


def every_night(first: str, count: int, **other: Any) -> list[Candidate]:
    return [snapshot(moment(first) + night * DAY, **other) for night in range(count)]


# --- histories -------------------------------------------------------------------------------------------------------

counts = st.integers(0, 5)
spans = st.none() | st.integers(1, 24 * 60).map(lambda hours: timedelta(hours=hours))
some_rules = st.builds(
    Rules,
    keep_last=counts,
    keep_within=spans,
    keep_hourly=counts,
    keep_daily=counts,
    keep_weekly=counts,
    keep_monthly=counts,
    keep_yearly=counts,
).filter(lambda rules: rules.keep_within is not None or any((rules.keep_last, *rules.counts)))
zones = st.sampled_from(ZONES).map(ZoneInfo)
#: Gaps from minutes to months, so that hours, days, weeks, months and years are all crossed.
gaps = st.sampled_from([10 * 60, 3600, 5 * 3600, 86_400, 86_400, 90_000, 7 * 86_400, 31 * 86_400, 200 * 86_400])


@st.composite
def runs(draw: st.DrawFn) -> list[Candidate]:
    """Complete, honest runs of one job, in order."""
    at = draw(st.integers(moment("2019-12-01 00:00"), moment("2020-03-01 00:00")))
    starts = [at := at + gap * SECOND for gap in draw(st.lists(gaps, min_size=1, max_size=40))]
    return [snapshot(start, number) for number, start in enumerate(starts, 1)]


@st.composite
def mixed(draw: st.DrawFn) -> list[Candidate]:
    """Runs of several hosts and jobs, some incomplete, held, tagged, or with a date that can't be true."""
    return [
        snapshot(
            one.started + draw(st.sampled_from([0] * 6 + [-40 * DAY, 3 * HOUR, 400 * DAY])),
            number,
            received=one.received,
            host=draw(st.sampled_from(["one", "two"])),
            job=draw(st.sampled_from(["all", "all", "part", "safety"])),
            writer=draw(st.sampled_from([b"a", b"a", b"b"])),
            complete=draw(st.sampled_from([True, True, False])),
            held=draw(st.sampled_from([False] * 5 + [True])),
            tags=frozenset(draw(st.sampled_from([(), (), ("gold",), ("tin",)]))),
            sources={label: draw(st.booleans()) for label in ("www", "crm")},
        )
        for number, one in enumerate(draw(runs()), 1)
    ]


@given(runs(), some_rules, zones)
def test_what_rules_keep_is_what_the_oracle_keeps(history: list[Candidate], rules: Rules, zone: ZoneInfo) -> None:
    now = history[-1].started
    newest = history[-1].id
    assert kept(decide(history, rules, now, zone)) == expected(history, rules, now, zone) | {newest}


@given(runs(), some_rules, zones)
def test_a_prune_after_every_run_ends_where_one_prune_at_the_end_does(
    history: list[Candidate], rules: Rules, zone: ZoneInfo
) -> None:
    standing: list[Candidate] = []
    for run in history:
        standing.append(run)
        stays = kept(decide(standing, rules, run.started, zone))
        standing = [one for one in standing if one.id in stays]
    assert {one.id for one in standing} == kept(decide(history, rules, history[-1].started, zone))


@given(mixed(), some_rules, zones)
def test_deciding_again_about_what_stayed_changes_nothing(
    history: list[Candidate], rules: Rules, zone: ZoneInfo
) -> None:
    first = [verdict for verdict in decide(history, rules, NOW, zone) if verdict.keep]
    stays = {verdict.id for verdict in first}
    assert list(decide([one for one in history if one.id in stays], rules, NOW, zone)) == first


@given(mixed(), some_rules, st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(history: list[Candidate], rules: Rules, chance: random.Random) -> None:
    shuffled = list(history)
    chance.shuffle(shuffled)
    assert set(decide(shuffled, rules, NOW, UTC)) == set(decide(history, rules, NOW, UTC))
    assert [verdict.id for verdict in decide(shuffled, rules, NOW, UTC)] == [one.id for one in shuffled]


@given(runs(), some_rules, zones, st.sampled_from(["last", "hourly", "daily", "weekly", "monthly", "yearly"]))
def test_a_larger_rule_drops_nothing_that_a_smaller_one_kept(
    history: list[Candidate], rules: Rules, zone: ZoneInfo, name: str
) -> None:
    numbers = {field: getattr(rules, field) for field in rules.__slots__}
    larger = Rules(**{**numbers, f"keep_{name}": numbers[f"keep_{name}"] + 1})
    now = history[-1].started
    assert kept(decide(history, rules, now, zone)) <= kept(decide(history, larger, now, zone))


@given(mixed(), some_rules)
def test_held_and_tagged_snapshots_stay(history: list[Candidate], rules: Rules) -> None:
    tagged = Rules(**{**{field: getattr(rules, field) for field in rules.__slots__}, "keep_tags": ("gold", "lead")})
    stays = kept(decide(history, tagged, NOW, UTC))
    assert {one.id for one in history if one.held or "gold" in one.tags} <= stays


@given(mixed(), some_rules)
def test_a_hold_or_a_tag_takes_no_place_of_another(history: list[Candidate], rules: Rules) -> None:
    free = [snapshot(one.started, **{**_fields(one), "held": False}) for one in history]
    assert kept(decide(free, rules, NOW, UTC)) <= kept(decide(history, rules, NOW, UTC))


@given(runs(), some_rules, st.data())
def test_a_snapshot_from_the_future_or_an_incomplete_one_displaces_nothing(
    history: list[Candidate], rules: Rules, data: st.DataObject
) -> None:
    after = data.draw(st.sampled_from(history))
    ahead = data.draw(st.integers(HOUR + 1, 1000 * DAY))
    future = snapshot(after.received + ahead, 500, received=after.received)
    torn = snapshot(after.started + 1, 501, complete=False)
    now = history[-1].started
    alone = kept(decide(history, rules, now, UTC))
    verdicts = decide([*history, future, torn], rules, now, UTC)
    assert alone <= kept(verdicts)
    assert Verdict(id=future.id, keep=True, reasons=("clock",)) in verdicts


@given(runs(), some_rules, st.data())
def test_a_forged_date_in_the_past_never_displaces_what_stood_before(
    history: list[Candidate], rules: Rules, data: st.DataObject
) -> None:
    """A host that was broken into writes emptied snapshots dated into older months; prunes go on for a year after."""
    newest = history[-1]
    forged = [
        snapshot(
            data.draw(st.integers(newest.started - 300 * DAY, newest.started - 1)), 100 + n, received=newest.received
        )
        for n in range(3)
    ]
    later = [snapshot(newest.started + n * 20 * DAY, 200 + n) for n in range(1, 20)]
    with_forged, without = [*history, *forged], list(history)
    for run in later:
        with_forged, without = [*with_forged, run], [*without, run]
        with_forged = _pruned(with_forged, rules, run.started)
        without = _pruned(without, rules, run.started)
        assert {one.id for one in without} <= {one.id for one in with_forged}
        assert {one.id for one in forged} <= {one.id for one in with_forged}


def _pruned(history: Sequence[Candidate], rules: Rules, now: int) -> list[Candidate]:
    stays = kept(decide(history, rules, now, UTC))
    return [one for one in history if one.id in stays]


def _fields(one: Candidate) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__slots__ if name != "started"}


@given(mixed(), some_rules)
def test_every_host_keeps_a_newest_good_snapshot_of_every_source(history: list[Candidate], rules: Rules) -> None:
    stays = kept(decide(history, rules, NOW, UTC))
    for host, job, label in itertools.product(("one", "two"), ("all",), ("www", "crm")):
        mine = [one for one in history if (one.host, one.job) == (host, job) and one.sources[label]]
        assert not mine or any(one.id in stays for one in mine)


@given(runs(), some_rules, zones)
def test_no_rule_takes_more_than_its_number(history: list[Candidate], rules: Rules, zone: ZoneInfo) -> None:
    verdicts = decide(history, rules, history[-1].started, zone)
    taken = [verdict.reasons[0] for verdict in verdicts if verdict.keep]
    assert taken.count("last") == min(rules.keep_last, len(history))
    for name in ("hourly", "daily", "weekly", "monthly", "yearly"):
        assert taken.count(name) <= getattr(rules, f"keep_{name}")


# --- calendars -------------------------------------------------------------------------------------------------------


def test_only_the_newest_complete_run_of_a_day_stays() -> None:
    morning, noon, torn = snapshot("2024-12-30 04:00"), snapshot("2024-12-30 12:00"), snapshot("2024-12-30 20:00")
    torn = snapshot(torn.started, complete=False)
    later = snapshot("2024-12-31 04:00")
    assert judge(morning, noon, torn, later) == [(), ("daily",), ("incomplete",), ("daily", "newest")]


def test_missed_nights_make_the_daily_rule_reach_further_back() -> None:
    nights = [one for place, one in enumerate(every_night("2024-11-01 04:00", 60)) if place % 2]
    reasons = judge(*nights, now=moment("2024-12-31 04:00"))
    assert reasons == [("daily",)] * 29 + [("daily", "newest")]


def test_a_leap_days_snapshot_is_its_months_end() -> None:
    nights = every_night("2024-02-01 04:00", 60)
    reasons = judge(*nights, rules=Rules(keep_daily=1, keep_monthly=2), now=nights[-1].started)
    assert [one.id for one, why in zip(nights, reasons, strict=True) if why] == [
        snapshot("2024-02-29 04:00").id,
        snapshot("2024-03-31 04:00").id,
    ]


def test_a_month_that_a_week_touches_keeps_its_own_end() -> None:
    """Saturday 30 November ends the month, Sunday 1 December the week: the weekly rule alone would let it go."""
    nights = every_night("2024-11-20 04:00", 12)
    reasons = judge(*nights, rules=Rules(keep_weekly=4, keep_monthly=12), now=nights[-1].started)
    assert {one.id: why for one, why in zip(nights, reasons, strict=True) if why} == {
        snapshot("2024-11-24 04:00").id: ("weekly",),
        snapshot("2024-11-30 04:00").id: ("monthly",),
        snapshot("2024-12-01 04:00").id: ("weekly", "newest"),
    }


def test_an_hour_that_comes_twice_is_two() -> None:
    paris = ZoneInfo("Europe/Paris")
    summer, winter = snapshot("2024-10-27 00:30"), snapshot("2024-10-27 01:30")
    verdicts = decide([summer, winter], Rules(keep_hourly=2), winter.started, paris)
    assert [verdict.reasons for verdict in verdicts] == [("hourly",), ("hourly", "newest")]


def test_the_day_is_the_sites_not_utcs() -> None:
    evening, night = snapshot("2024-06-01 22:30"), snapshot("2024-06-01 23:30")
    rules = Rules(keep_daily=2)
    assert [one.keep for one in decide([evening, night], rules, NOW, UTC)] == [False, True]
    assert [one.keep for one in decide([evening, night], rules, NOW, ZoneInfo("Europe/London"))] == [True, True]


def test_within_keeps_all_that_is_complete_in_the_span_to_the_nanosecond() -> None:
    rules = Rules(keep_within=timedelta(days=2))
    edge, too_old, torn = snapshot(NOW - 2 * DAY), snapshot(NOW - 2 * DAY - 1), snapshot(NOW - DAY, complete=False)
    assert judge(too_old, edge, torn, snapshot(NOW), rules=rules) == [
        (),
        ("within",),
        ("incomplete",),
        ("within", "newest"),
    ]


def test_a_snapshot_dated_before_1970_has_its_place() -> None:
    assert judge(snapshot(-5 * DAY, 1), snapshot("2024-12-31 04:00"))[0] == ("daily",)


# --- jobs, incomplete runs, sources ----------------------------------------------------------------------------------


def test_partial_and_safety_runs_never_stand_for_a_run_of_everything() -> None:
    whole = snapshot("2024-12-30 04:00")
    part, safety = snapshot("2024-12-30 05:00", job="part"), snapshot("2024-12-30 06:00", job="safety")
    assert judge(whole, part, safety) == [("daily", "newest"), ("daily",), ("safety", "newest")]


def test_a_safety_snapshot_goes_after_thirty_days_unless_nothing_newer_is_good() -> None:
    old = snapshot(NOW - 30 * DAY - 1, job="safety", sources={"www": True})
    edge = snapshot(NOW - 30 * DAY, job="safety", complete=False, sources={"www": False})
    assert judge(old, edge) == [("newest",), ("safety",)]
    assert judge(old, edge, snapshot(NOW, sources={"www": True}))[0] == ()


def test_hosts_have_calendars_of_their_own() -> None:
    here, there = snapshot("2024-12-30 04:00", host="here"), snapshot("2024-12-30 05:00", host="there")
    assert judge(here, there) == [("daily", "newest"), ("daily", "newest")]


def test_an_incomplete_snapshot_goes_once_it_is_older_than_the_finest_rules_oldest() -> None:
    rules = Rules(keep_daily=2, keep_monthly=2)
    nights = every_night("2024-12-20 04:00", 10)
    before, after = snapshot(nights[-2].started - 1, complete=False), snapshot(nights[-2].started + 1, complete=False)
    assert judge(*nights, before, after, rules=rules)[-2:] == [(), ("incomplete",)]


def test_incomplete_snapshots_stay_where_nothing_is_complete() -> None:
    torn = every_night("2020-01-01 04:00", 40, complete=False)
    assert judge(*torn) == [("incomplete",)] * 40


def test_the_newest_good_snapshot_of_a_source_stays_though_its_run_was_incomplete() -> None:
    old = snapshot("2023-01-05 04:00", complete=False, sources={"www": True, "crm": False})
    newer = snapshot("2023-01-06 04:00", complete=False, sources={"www": False, "crm": False})
    nights = every_night("2024-01-01 04:00", 366, sources={"crm": True})
    assert judge(old, newer, *nights)[:2] == [("newest",), ()]


def test_a_good_source_in_a_partial_run_does_not_release_the_last_whole_run() -> None:
    whole = snapshot("2020-01-01 04:00", complete=False, sources={"www": True})
    part = snapshot("2024-12-31 04:00", job="part", sources={"www": True})
    recent = snapshot("2024-12-31 05:00", sources={"crm": True})
    assert judge(whole, part, recent)[0] == ("newest",)


def test_the_last_snapshot_of_a_dead_host_stays() -> None:
    assert judge(snapshot("2001-01-01 04:00"), rules=Rules(keep_within=timedelta(days=1))) == [("newest",)]


# --- clocks ----------------------------------------------------------------------------------------------------------


def test_an_hour_of_difference_between_clocks_is_no_offence() -> None:
    at = moment("2024-12-31 04:00")
    assert judge(snapshot(at, received=at - HOUR)) == [("daily", "newest")]
    assert judge(snapshot(at, received=at - HOUR - 1)) == [("clock",)]


def test_a_date_before_the_newest_predecessors_neither_counts_nor_goes() -> None:
    """The clock was set back to 2001; what shows it stays too, or the date would pass later."""
    nights = every_night("2024-01-01 04:00", 60)
    back = snapshot("2001-01-01 04:00", nights[9].sequence + 1)
    reasons = judge(*nights, back, rules=Rules(keep_daily=3), now=nights[-1].started)
    assert reasons[-1] == ("clock",)
    assert [one.id for one, why in zip(nights, reasons, strict=False) if why] == [
        nights[9].id,
        *(one.id for one in nights[-3:]),
    ]
    assert reasons[9] == ("witness",)


def test_sequences_of_two_writers_on_one_host_are_not_compared() -> None:
    """A host installed anew counts from one again."""
    old = every_night("2024-11-01 04:00", 5, writer=b"old")
    new = [snapshot("2024-12-30 04:00", 1, writer=b"new"), snapshot("2024-12-31 04:00", 2, writer=b"new")]
    assert "clock" not in itertools.chain(*judge(*old, *new))


def test_an_incomplete_or_mistrusted_predecessor_convicts_nobody() -> None:
    torn = snapshot("2024-12-31 06:00", 1, complete=False)
    future = snapshot("2024-12-31 08:00", 2, received=moment("2024-12-31 06:10"))
    honest = snapshot("2024-12-31 05:00", 3)
    assert judge(torn, future, honest) == [("incomplete",), ("clock",), ("daily", "newest")]


# --- rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rules, mistake",
    [
        (Rules(), "no rule keeps anything"),
        (Rules(keep_tags=("gold",)), "no rule keeps anything"),
        (Rules(keep_daily=-1, keep_monthly=1), "keep_daily: -1 is negative"),
        (Rules(keep_last=-1), "keep_last: -1 is negative"),
        (Rules(keep_within=timedelta(0)), "keep_within: must be longer"),
    ],
    ids=str,
)
def test_rules_that_would_let_everything_go_are_a_mistake(rules: Rules, mistake: str) -> None:
    with pytest.raises(ConfigurationError, match=mistake):
        decide([], rules, NOW, UTC)


def test_no_candidates_have_no_verdicts() -> None:
    assert decide([], DEFAULT_RULES, NOW, UTC) == ()
