"""What a check comes to, also where it can't be carried out."""

from collections.abc import Iterator

import pytest

from opsd.errors import SourceError
from opsd.verify.findings import Check, Finding, State, carried_out, failure, fine, warning, worst


def broken(error: Exception) -> list[Finding]:
    def ask() -> Iterator[Finding]:
        yield fine("x", "so far")
        raise error

    return carried_out(Check(group="g", subject="x", ask=ask))


def test_findings_get_the_group_of_their_check() -> None:
    (found,) = carried_out(Check(group="copies", subject="x", ask=lambda: [fine("x", "is well")]))
    assert (found.group, found.state) == ("copies", State.OK)


def test_a_foreseen_error_is_a_failed_check_with_its_hint() -> None:
    (found,) = broken(SourceError("x", "is gone", hint="find it"))
    assert (found.state, found.text, found.next_step) == (State.FAILED, "source x: is gone", "find it")


def test_an_error_of_the_system_names_its_file() -> None:
    (found,) = broken(PermissionError(13, "Permission denied", "/srv"))
    assert (found.state, found.text) == (State.FAILED, "/srv: permission denied")


def test_a_check_that_is_itself_broken_is_a_finding_and_no_traceback() -> None:
    (found,) = broken(ZeroDivisionError("division by zero"))
    assert found.state is State.WARNING
    assert "ZeroDivisionError" in found.text


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([fine("x", "")], 0),
        ([fine("x", ""), warning("x", "")], 3),
        ([warning("x", ""), failure("x", "")], 1),
        ([], 0),
    ],
)
def test_the_worst_finding_is_the_exit_code(found: list[Finding], code: int) -> None:
    assert worst(found) == code
