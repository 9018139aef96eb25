"""Page maps: files that are updated in place, stored by fixed blocks compared by position with the last snapshot's.

Promise: a page that did not change costs 22 bytes in a hunk and no look-up; pages of zero bytes cost nothing; the snapshot stays
total, there is no chain. docs/format.md, Page maps.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from opsd.errors import ObjectDamaged
from opsd.repository.format import pack_map, unpack_map
from opsd.values import dataclass

HUNK_PAGES: Final = 1024
_PAGE: Final = struct.Struct("<16sHI")
PAGE_ROW_BYTES: Final = _PAGE.size
ZERO_PLACE: Final = 0xFFFF
PAGE_LIMIT: Final = 4 * 1024 * 1024


class PagePlace(NamedTuple):
    """A page: 16 bytes of its blob id, birth id and number; birth is None for a page of zero bytes."""

    prefix: bytes
    birth: bytes | None
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PageHunk:
    """Up to 1,024 pages in order, of `page_bytes` each."""

    page_bytes: int
    births: tuple[bytes, ...]
    rows: bytes

    def __len__(self) -> int:
        return len(self.rows) // PAGE_ROW_BYTES

    def row(self, place: int) -> bytes:
        """A page's 22 bytes; empty where there is none."""
        return self.rows[place * PAGE_ROW_BYTES : (place + 1) * PAGE_ROW_BYTES]

    def pages(self) -> list[PagePlace]:
        """All pages in order."""
        births = self.births
        return [
            PagePlace(prefix, None if seat == ZERO_PLACE else births[seat], number)
            for prefix, seat, number in _PAGE.iter_unpack(self.rows)
        ]


def encode_page_hunk(page_bytes: int, pages: Sequence[PagePlace]) -> bytes:
    """A hunk's bytes."""
    seats: dict[bytes, int] = {}
    rows = []
    for prefix, birth, number in pages:
        seat = ZERO_PLACE if birth is None else seats.setdefault(birth, len(seats))
        rows.append(_PAGE.pack(prefix, seat, number))
    return pack_map([page_bytes, b"".join(seats), b"".join(rows)])


def decode_page_hunk(content: bytes) -> PageHunk:
    """A hunk.

    Raises:
        ObjectDamaged: it is none.
    """
    try:
        page_bytes, births, rows = unpack_map("a page map", content)
        table = tuple(births[start : start + 16] for start in range(0, len(births), 16))
        hunk = PageHunk(page_bytes=page_bytes, births=table, rows=rows)
        whole = len(rows) % PAGE_ROW_BYTES == 0 and len(hunk) <= HUNK_PAGES and 0 < page_bytes <= PAGE_LIMIT
        if whole and all(page.birth is None or len(page.birth) == 16 for page in hunk.pages()):
            return hunk
    except (TypeError, ValueError, IndexError) as error:
        raise ObjectDamaged("a page map", "a hunk of it can't be parsed") from error
    raise ObjectDamaged("a page map", "a hunk of it can't be parsed")
