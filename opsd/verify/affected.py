"""What a damaged pack affects: which snapshots, and in them which files.

Promise: nothing that may be hit is left out; where the list of names is hit itself, that is said.
"""

from collections.abc import Collection, Iterator

from opsd.errors import IntegrityError, KeyMissing
from opsd.model import Entry, EntryType
from opsd.repository.blobs import BlobReader
from opsd.repository.pagemap import decode_page_hunk
from opsd.repository.reader import SnapshotReader
from opsd.repository.references import FrameSet
from opsd.values import dataclass

Frame = tuple[bytes, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A damaged pack: what is wrong, the frames that may be hit, or all frames of some births where its footer can't be read."""

    problem: str
    frames: frozenset[Frame] = frozenset()
    births: frozenset[bytes] = frozenset()

    def touches(self, needed: FrameSet, whole: Collection[Frame]) -> bool:
        """Whether one of these frames stands in no whole pack and may be hit."""
        if any(frame in needed and frame not in whole for frame in self.frames):
            return True
        return bool(self.births) and any(frame[0] in self.births and frame not in whole for frame in needed.frames())


def paths_hit(reader: SnapshotReader, damage: Damage, whole: Collection[Frame]) -> Iterator[str]:
    """`SOURCE:PATH` of the files in a snapshot whose content stands in damaged frames."""
    try:
        for tree in reader.trees():
            for folder in reader.folders(tree):
                for entry in folder.entries:
                    if entry.type is EntryType.FILE and _is_hit(reader.blobs, entry, damage, whole):
                        path = folder.path.rstrip(b"/") + b"/" + entry.name
                        yield f"{tree.label}:{path.decode('utf-8', 'backslashreplace')}"
    except (IntegrityError, KeyMissing):
        yield "(the list of names itself is affected)"


def _is_hit(blobs: BlobReader, entry: Entry, damage: Damage, whole: Collection[Frame]) -> bool:
    """Whether an entry's content stands in damaged frames, or can't be found because of them."""
    try:
        return damage.touches(_frames_of_entry(blobs, entry), whole)
    except IntegrityError:
        return True


def _frames_of_entry(blobs: BlobReader, entry: Entry) -> FrameSet:
    found = FrameSet()
    for content in (entry.content, entry.pages):
        for reference in () if content is None else blobs.references(content):
            found.add(*reference.frame)
            if content is entry.pages:
                for page in decode_page_hunk(bytes(blobs.blob(reference))).pages():
                    if page.birth is not None:
                        found.add(page.birth, page.number >> 16)
    return found
