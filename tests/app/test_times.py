"""Moments as people type them."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from opsd.app.times import parse_since, parse_time
from opsd.clock import SECOND, local
from opsd.errors import UsageError

PARIS = ZoneInfo("Europe/Paris")
NOW = int(datetime(2026, 11, 24, 12, 30, tzinfo=UTC).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("typed", "last"),
    [
        ("2026-11-24", "2026-11-24 23:59:59.999999"),
        ("today", "2026-11-24 23:59:59.999999"),
        ("yesterday", "2026-11-23 23:59:59.999999"),
        ("2026-11-24 04:00", "2026-11-24 04:00:59.999999"),
        ("2026-11-24T04:00:07", "2026-11-24 04:00:07.999999"),
        ("2026-11-24T03:00:07+00:00", "2026-11-24 04:00:07.999999"),
        ("2026-11-24T04:00:07.5", "2026-11-24 04:00:07.500000"),
        ("2026-10-25", "2026-10-25 23:59:59.999999"),
        ("now", "2026-11-24 13:30:00.000000"),
    ],
)
def test_what_is_typed_means_its_end(typed: str, last: str) -> None:
    assert f"{local(parse_time(typed, PARIS, NOW), PARIS):%Y-%m-%d %H:%M:%S.%f}" == last


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("2026-11-24", "2026-11-24 00:00:00"),
        ("yesterday", "2026-11-23 00:00:00"),
        ("2026-11-24 04:00", "2026-11-24 04:00:00"),
    ],
)
def test_since_what_is_typed_means_since_its_beginning(typed: str, first: str) -> None:
    assert f"{local(parse_since(typed, PARIS, NOW), PARIS):%Y-%m-%d %H:%M:%S}" == first


@pytest.mark.parametrize("typed", ["soon", "", "2026-13-01", "24.11.2026", "9999-12-31", "2999-01-01", "0001-01-01"])
def test_what_is_no_time_that_can_be_kept_is_a_usage_error(typed: str) -> None:
    with pytest.raises(UsageError):
        parse_time(typed, PARIS, NOW)
