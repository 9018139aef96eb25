"""How memory is taken from the system."""

import ctypes
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from opsd.repository.allocation import in_huge_pages

MEBIBYTE = 1024 * 1024
SIZE = 64 * MEBIBYTE
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def touched() -> None:
    """Take so much from the heap, write to all of it, and give it back."""
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    place = ctypes.c_void_p(library.malloc(ctypes.c_size_t(SIZE)))
    ctypes.memset(place, 1, SIZE)
    library.free(place)


def faults(work: Callable[[], None]) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="this kernel gives no huge pages"
)
def test_a_large_piece_costs_few_page_faults() -> None:
    with in_huge_pages(SIZE):
        assert faults(touched) < SIZE // resource.getpagesize() // 4


def test_the_piece_is_given_back_to_the_system() -> None:
    ctypes.CDLL(None).malloc_trim(0)
    before = resident()
    with in_huge_pages(SIZE):
        touched()
    assert resident() < before + 16 * MEBIBYTE


def test_more_than_there_can_be_is_no_error() -> None:
    with in_huge_pages(1 << 60):
        touched()
