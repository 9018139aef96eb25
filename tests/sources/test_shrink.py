"""What must not count as a good snapshot."""

import pytest

from opsd.sources.shrink import RootTotals, lost_mounts, refuse_lost_mounts, refuse_shrink, shrink


def totals(files: int, size: int, *, path: bytes = b"/srv", mount: bool = False) -> RootTotals:
    return RootTotals(path=path, files=files, bytes=size, mount=mount)


@pytest.mark.parametrize(
    "before,now,refused",
    [
        ((100, 100), (50, 50), False),
        ((100, 100), (49, 100), True),
        ((100, 100), (100, 49), True),
        ((0, 0), (0, 0), False),
    ],
)
def test_a_root_shrinks_when_over_half_of_its_files_or_bytes_are_gone(
    *, before: tuple[int, int], now: tuple[int, int], refused: bool
) -> None:
    assert (shrink(totals(*before), totals(*now)) is not None) is refused


def test_the_error_names_what_was_lost_and_the_way_to_accept_it() -> None:
    error = refuse_shrink("www", [totals(1000, 5)], [totals(1, 5)])
    assert str(error) == "source www: /srv has 1 files, had 1,000"
    assert error is not None
    assert "--accept-shrink" in (error.hint or "")


def test_a_root_that_is_no_longer_named_or_new_is_no_loss() -> None:
    assert refuse_shrink("www", [totals(1000, 5)], [totals(1, 1, path=b"/new")]) is None
    assert lost_mounts([totals(1, 1, mount=True)], {b"/new": False}) == ()


def test_a_root_that_was_a_mount_point_and_is_none_now_is_refused() -> None:
    before = [totals(9, 9, mount=True), totals(9, 9, path=b"/etc")]
    assert lost_mounts(before, {b"/srv": False, b"/etc": False}) == (b"/srv",)
    assert lost_mounts(before, {b"/srv": True, b"/etc": False}) == ()
    error = refuse_lost_mounts("www", before, {b"/srv": False})
    assert "/srv was a mount point" in str(error)
    assert refuse_lost_mounts("www", before, {b"/srv": True}) is None
