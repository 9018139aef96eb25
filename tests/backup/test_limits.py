"""A copy goes as fast as the hour allows."""

from datetime import UTC
from zoneinfo import ZoneInfo

import pytest

from opsd.backup.limits import Limit, Throttle, rate_at
from opsd.clock import DAY, SECOND, FixedClock

MIDNIGHT = 1_800_057_600 * SECOND
HOUR = 3600 * SECOND
BY_DAY = Limit(begin=8 * 60, end=19 * 60, rate=1000)
BY_NIGHT = Limit(begin=22 * 60, end=6 * 60, rate=50)


@pytest.mark.parametrize(
    ("hour", "rate"), [(0, 50), (5.99, 50), (6, None), (8, 1000), (18.99, 1000), (19, None), (22, 50), (23.99, 50)]
)
def test_a_limit_holds_in_its_hours_also_through_midnight(hour: float, rate: int | None) -> None:
    assert rate_at([BY_DAY, BY_NIGHT], MIDNIGHT + int(hour * HOUR), UTC) == rate


def test_the_lowest_of_several_limits_counts_and_hours_are_the_sites() -> None:
    always = Limit(begin=0, end=0, rate=700)
    assert rate_at([BY_DAY, always], MIDNIGHT + 12 * HOUR, UTC) == 700
    assert rate_at([BY_DAY], MIDNIGHT + 7 * HOUR, UTC) is None
    assert rate_at([BY_DAY], MIDNIGHT + 7 * HOUR, ZoneInfo("Europe/Paris")) == 1000


class Slept:
    """A clock that sleeping moves."""

    def __init__(self, moment: int) -> None:
        self.clock = FixedClock(moment)
        self.seconds = 0.0

    def __call__(self, seconds: float) -> None:
        self.seconds += seconds
        self.clock.advance(int(seconds * SECOND))


def throttled(begin: int, *limits: Limit) -> tuple[Throttle, Slept]:
    slept = Slept(begin)
    return Throttle(limits, UTC, slept.clock, slept), slept


def test_no_more_passes_than_the_rate_allows_but_for_one_piece() -> None:
    throttle, slept = throttled(MIDNIGHT + 12 * HOUR, BY_DAY)
    for _ in range(11):
        throttle.take(500)
    assert slept.seconds == pytest.approx(5.0)


def test_an_idle_hour_gives_no_credit() -> None:
    throttle, slept = throttled(MIDNIGHT + 12 * HOUR, BY_DAY)
    throttle.take(500)
    slept.clock.advance(HOUR)
    throttle.take(500)
    throttle.take(500)
    assert slept.seconds == pytest.approx(0.5)


def test_a_wait_ends_with_the_hours_of_its_limit() -> None:
    throttle, slept = throttled(MIDNIGHT + 19 * HOUR - 3 * SECOND, BY_DAY)
    throttle.take(3600 * 1000)
    throttle.take(1)
    assert slept.seconds == pytest.approx(3.0)


def test_a_clock_that_is_set_back_makes_nobody_wait_longer() -> None:
    throttle, slept = throttled(MIDNIGHT + 12 * HOUR, BY_DAY)
    throttle.take(2000)
    slept.clock.advance(-DAY)
    throttle.take(1)
    assert slept.seconds == pytest.approx(2.0)


def test_without_limits_nobody_waits() -> None:
    throttle, slept = throttled(MIDNIGHT)
    throttle.take(1 << 40)
    assert not throttle
    assert slept.seconds == 0
