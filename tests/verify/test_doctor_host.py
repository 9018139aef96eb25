"""What the machine itself may spoil."""

import pytest

from opsd.clock import SECOND
from opsd.verify import doctor_host
from opsd.verify.findings import Finding, State


def states(found: list[Finding]) -> list[State]:
    return [each.state for each in found]


@pytest.mark.parametrize(
    ("version", "mended"),
    [
        ((3, 6, 23), True),
        ((3, 7, 0), False),
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 53, 0), True),
    ],
)
def test_libraries_with_the_fault_of_write_ahead_logs_are_known(version: tuple[int, ...], *, mended: bool) -> None:
    assert doctor_host.sqlite_is_mended(version) is mended


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ((13, 23), State.WARNING),
        ((15, 19), State.WARNING),
        ((15, 20), State.OK),
        ((17, 11), State.WARNING),
        ((17, 12), State.OK),
        ((18, 6), State.WARNING),
        ((19, 0), State.OK),
    ],
)
def test_programs_that_a_crafted_dump_can_misuse_are_named(version: tuple[int, int], state: State) -> None:
    (found,) = doctor_host.postgresql_programs("pg", version)
    assert found.state is state
    assert (found.next_step is None) is (state is State.OK)


def test_a_clock_behind_the_newest_snapshot_fails_the_night() -> None:
    assert list(doctor_host.clock_went_on(5 * SECOND, 5 * SECOND)) == []
    (found,) = doctor_host.clock_went_on(5 * SECOND, 9 * SECOND)
    assert found.state is State.FAILED
    assert "4 s" in found.text


def test_the_kernel_tells_whether_its_clock_is_kept_right() -> None:
    (found,) = doctor_host.clock_is_set()
    assert found.subject == "clock"
    assert found.state is not State.FAILED


@pytest.mark.parametrize(("seconds", "state"), [(-1000, State.FAILED), (901, State.FAILED), (61, State.WARNING)])
def test_a_server_whose_clock_is_another_is_told(seconds: int, state: State) -> None:
    assert states(list(doctor_host.clock_beside("s3", 0, seconds * SECOND))) == [state]
    assert list(doctor_host.clock_beside("s3", 0, 60 * SECOND)) == []


def test_a_program_that_is_not_there_is_named() -> None:
    assert list(doctor_host.program_there("x", ["sh"])) == []
    (found,) = doctor_host.program_there("x", ["/no/such/program"])
    assert "/no/such/program" in found.text
