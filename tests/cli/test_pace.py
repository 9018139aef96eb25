"""How far a stage is, in words."""

import pytest

from opsd.cli.pace import Pace, span, text
from opsd.events import Total

KIB, MIB, GIB = 1024, 1024**2, 1024**3


def pace(total: Total, *, files: int = 0, size: int = 0, seconds: float = 60.0) -> Pace:
    return Pace(name="www", total=total, files=files, size=size, seconds=seconds, rate=98.1 * MIB)


LAST_TIME = Total(files=20_000, size=int(3.4 * GIB), estimated=True)


def test_an_estimate_is_marked_wherever_it_is_used() -> None:
    shown = text(pace(LAST_TIME, files=5_000, size=int(1.2 * GIB)), 120)
    assert shown == "www  ~35%  1.2 of ~3.4 GiB  5,000 of ~20,000 files  98.1 MiB/s  ~2 min left"


def test_what_is_known_is_no_estimate_but_for_the_time() -> None:
    shown = text(pace(Total(size=2 * GIB), size=500 * MIB), 120)
    assert shown == "www  24%  500.0 MiB of 2.0 GiB  98.1 MiB/s  ~3 min left"


def test_files_that_did_not_change_count_though_nobody_reads_them() -> None:
    assert pace(LAST_TIME, files=10_000).left == pytest.approx(60)


def test_more_than_the_last_time_ends_the_estimate() -> None:
    shown = text(pace(LAST_TIME, files=20_001, size=GIB), 120)
    assert shown == "www  1.0 of ~3.4 GiB  20,001 files  98.1 MiB/s"


def test_the_first_time_nothing_is_foretold() -> None:
    shown = text(pace(Total(), files=1, size=5 * KIB), 120)
    assert shown == "www  5.0 KiB  1 file  98.1 MiB/s"


def test_the_first_moments_tell_no_time() -> None:
    assert pace(LAST_TIME, files=5_000, seconds=1.0).left is None
    assert pace(LAST_TIME, seconds=60.0).left is None


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_a_narrow_terminal_gets_the_most_important(width: int) -> None:
    far = Total(files=20_000_000, size=888 * GIB, estimated=True)
    shown = text(pace(far, files=1_234_567, size=int(123.4 * GIB)), width)
    assert len(shown) <= width
    assert shown.startswith("www  ~13%") is (width >= 60)
    assert ("888.0 GiB" in shown) is (width >= 40)


def test_a_name_can_not_move_the_cursor() -> None:
    evil = Pace(name="a\x1b[2J\n", total=Total(), files=0, size=0, seconds=0, rate=0)
    assert text(evil, 80) == r"a\x1b[2J\n"


@pytest.mark.parametrize(("seconds", "shown"), [(0.2, "1 s"), (40, "40 s"), (190, "3 min"), (7800, "2 h 10 min")])
def test_a_span_is_coarse(seconds: float, shown: str) -> None:
    assert span(seconds) == shown
