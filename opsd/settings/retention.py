"""The section `retention`, of the repository and of a copy.

Promise: rules that would let everything go are a mistake.
"""

from collections.abc import Iterator
from typing import Final

from opsd.errors import ConfigurationError
from opsd.retention.policy import Rules
from opsd.settings import values
from opsd.settings.shapes import Key, Record
from opsd.settings.values import number


def _meaning(rules: Rules) -> Iterator[str]:
    try:
        rules.require_meaning()
    except ConfigurationError as error:
        yield from (mistake.partition(": ")[2] for mistake in error.mistakes)


_count = number(0, 100_000)
RETENTION: Final = Record(
    build=Rules,
    keys={
        "keep_last": Key(_count, "The newest snapshots, so many."),
        "keep_within": Key(values.SPAN, "Everything that is younger than this.", sample="48h"),
        "keep_hourly": Key(_count, "One for each of so many hours."),
        "keep_daily": Key(_count, "One for each of so many days."),
        "keep_weekly": Key(_count, "One for each of so many weeks."),
        "keep_monthly": Key(_count, "One for each of so many months that a finer rule does not hold already."),
        "keep_yearly": Key(_count, "One for each of so many years that a finer rule does not hold already."),
        "keep_tags": Key(values.TEXTS, "Everything that bears one of these tags."),
    },
    check=_meaning,
)
