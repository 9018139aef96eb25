"""Locks of what must not go are lengthened in time, and never shortened."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from opsd.backup.renewal import Renewal
from opsd.clock import DAY, SECOND, FixedClock
from opsd.storage.retry import RetryingStore, bucket_of
from opsd.storage.s3 import S3Store
from tests.support.s3 import S3Server

pytest_plugins = ["tests.support.stores"]

START = 1_900_000_000 * SECOND
NAMES = ["packs/ab/" + "c" * 64, "snapshots/" + "d" * 64, "settings/" + "e" * 64]


@pytest.fixture
def store(checking_moto: S3Server) -> Iterator[RetryingStore]:
    bucket = checking_moto.new_bucket(ObjectLockEnabledForBucket=True)
    with S3Store.create(checking_moto.options(bucket, object_lock_days=40), FixedClock(START)) as made:
        for name in NAMES:
            made.put(name, b"x")
        yield RetryingStore(made)


def renewal(store: RetryingStore, folder: Path, days: int = 40) -> Renewal:
    bucket = bucket_of(store)
    assert bucket
    return Renewal(bucket=bucket, days=days, file=folder / "state" / "cold.locks")


def days_left(store: RetryingStore, now: int) -> list[int]:
    bucket = bucket_of(store)
    assert bucket
    return [((bucket.locked_until(name) or 0) - now) // DAY for name in NAMES]


def test_night_after_night_nothing_that_is_named_is_ever_locked_for_less_than_half_of_the_days(
    store: RetryingStore, tmp_path: Path
) -> None:
    extended = []
    for night in range(120):
        now = START + night * DAY
        one = renewal(store, tmp_path)
        if one.is_due(now):
            extended.append(one.renew(NAMES[:2], now))
        assert min(days_left(store, now)[:2]) >= 20
    assert days_left(store, START)[2] == 40
    assert 2 < sum(1 for count in extended if count) < 10


def test_a_lock_never_shrinks_and_what_is_gone_is_passed_over(store: RetryingStore, tmp_path: Path) -> None:
    bucket = bucket_of(store)
    assert bucket
    bucket.retain(NAMES[0], START + 400 * DAY)
    assert renewal(store, tmp_path).renew([*NAMES, "packs/ab/" + "f" * 64], START + 20 * DAY) == 2
    assert days_left(store, START) == [400, 60, 60]


def test_other_days_in_the_configuration_or_a_lost_memory_make_it_due(store: RetryingStore, tmp_path: Path) -> None:
    renewal(store, tmp_path).renew(NAMES, START)
    assert not renewal(store, tmp_path).is_due(START + 9 * DAY)
    assert renewal(store, tmp_path).is_due(START + 10 * DAY)
    assert renewal(store, tmp_path, days=90).is_due(START)
    (tmp_path / "state" / "cold.locks").write_text("rubbish")
    assert renewal(store, tmp_path).is_due(START)
