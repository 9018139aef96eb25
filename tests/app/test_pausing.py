"""Until when a pause holds, as people type it."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from opsd.app.pausing import end_of
from opsd.clock import SECOND
from opsd.errors import UsageError

PARIS = ZoneInfo("Europe/Paris")
NOW = int(datetime(2026, 11, 26, 19, 20, tzinfo=PARIS).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("08:00", "2026-11-27T08:00:00+01:00"),
        ("20:00", "2026-11-26T20:00:00+01:00"),
        ("2026-11-27 08:00", "2026-11-27T08:00:00+01:00"),
        ("2026-11-27T08:00:00Z", "2026-11-27T09:00:00+01:00"),
        ("2027-03-28 02:30", "2027-03-28T03:30:00+02:00"),
    ],
)
def test_it_ends_on_the_minute_that_was_named(text: str, end: str) -> None:
    assert end_of(text, PARIS, NOW) == int(datetime.fromisoformat(end).timestamp()) * SECOND


def test_a_day_is_over_at_midnight() -> None:
    midnight = int(datetime(2026, 11, 28, tzinfo=PARIS).timestamp()) * SECOND
    assert end_of("2026-11-27", PARIS, NOW) == midnight - 1


@pytest.mark.parametrize("text", ["", "nonsense", "24:00", "2h", "yesterday", "2026-11-26 19:00"])
def test_what_has_passed_or_is_no_time_is_refused_with_what_would_do(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        end_of(text, PARIS, NOW)
    assert refused.value.hint
    assert "yesterday" not in str(refused.value.hint)
