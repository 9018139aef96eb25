"""Random trees go through the engine and come back the same, whole, in place and after a cut."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsd.events import Recorder
from opsd.model import Entry, Folder, SourceTree
from opsd.repository.reader import SnapshotReader
from opsd.restore.apply import apply, plan_restore
from opsd.restore.protocol import Key, Pieces
from opsd.restore.protocol import SnapshotReader as Protocol
from opsd.restore.request import RestoreRequest
from tests.support.engine import World, files
from tests.support.reader import observe

NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"a.b", b"ab", b"B", b"\xff", b"new\nline", b" ", b"-rf", b".opsd", b"\xc3\xa9"]),
    st.binary(min_size=1, max_size=12).filter(lambda name: not {0, 47} & set(name) and name not in {b".", b".."}),
)
CONTENTS = st.one_of(
    st.binary(max_size=64),
    st.integers(1, 300_000).map(lambda size: (bytes(range(251)) * (size // 251 + 1))[:size]),
    st.integers(1, 90_000).map(bytes),
)
FILES = st.tuples(st.just("file"), CONTENTS, st.sampled_from([0o644, 0o600, 0o755, 0o400, 0]))
HOLES = st.tuples(st.just("sparse"), st.integers(1, 400_000), st.binary(max_size=20))
LINKS = st.tuples(st.just("symlink"), st.binary(min_size=1, max_size=30).filter(lambda target: b"\0" not in target))
SAME = st.tuples(st.just("again"))
FIFOS = st.tuples(st.just("fifo"))
TREES = st.recursive(
    st.dictionaries(NAMES, st.one_of(FILES, HOLES, LINKS, SAME, FIFOS), max_size=6),
    lambda inner: st.dictionaries(NAMES, st.one_of(FILES, SAME, LINKS, inner), max_size=5),
    max_leaves=30,
)
MOMENTS = st.integers(-(2**31) * 10**9, 2**33 * 10**9)
EXAMPLES = settings(max_examples=25, suppress_health_check=list(HealthCheck))


def build(folder: bytes, tree: dict[bytes, object], moment: int, seen: list[bytes]) -> None:
    os.makedirs(folder, exist_ok=True)
    for name, node in tree.items():
        path = folder + b"/" + name
        match node:
            case dict():
                build(path, node, moment, seen)
            case ("file", bytes(content), int(mode)):
                Path(os.fsdecode(path)).write_bytes(content)
                os.chmod(path, mode)
                seen.append(path)
            case ("sparse", int(hole), bytes(end)):
                Path(os.fsdecode(path)).write_bytes(b"start")
                with open(path, "r+b") as file:
                    file.seek(hole)
                    file.write(end)
                    file.truncate(max(hole, hole + len(end), 5))
            case ("symlink", bytes(target)):
                os.symlink(target, path)
                seen.append(path)
            case ("fifo",):
                os.mkfifo(path)
                seen.append(path)
            case _ if seen:
                os.link(seen[moment % len(seen)], path, follow_symlinks=False)
        if os.path.lexists(path):
            os.utime(path, ns=(moment, moment + len(seen)), follow_symlinks=False)
    os.utime(folder, ns=(moment, moment))


@contextmanager
def backed_up(tree: dict[bytes, object], moment: int) -> Iterator[tuple[Path, Protocol]]:
    """The tree on disk, and a snapshot of it."""
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        build(os.fsencode(here / "source"), tree, moment, [])
        world = World.new(here / "host")
        world.backup(files(here / "source"))
        repository = world.open(reader=True)
        reader: SnapshotReader = repository.reader(repository.find("latest"))
        yield here, reader


@EXAMPLES
@given(tree=TREES, moment=MOMENTS)
def test_a_tree_comes_back_the_same(tree: dict[bytes, object], moment: int) -> None:
    with backed_up(tree, moment) as (here, reader):
        request = RestoreRequest(snapshot="x", target=os.fsencode(here / "out"), subtree=os.fsencode(here / "source"))
        result = apply(reader, request, Recorder())
        assert (result.warnings, result.damaged) == ((), ())
        assert observe(here / "out") == observe(here / "source")


@EXAMPLES
@given(tree=TREES, other=TREES, moment=MOMENTS)
def test_any_other_tree_is_made_the_same_in_place(
    tree: dict[bytes, object], other: dict[bytes, object], moment: int
) -> None:
    with backed_up(tree, moment) as (here, reader):
        # Never below the machine's own root: what is tested here deletes.
        place = os.fsencode(here / "root") + os.fsencode(here / "source")
        build(place, other, moment + 1, [])
        request = RestoreRequest(snapshot="x", target=os.fsencode(here / "root"), in_place=True, delete=True)
        planned = plan_restore(reader, request)
        result = apply(reader, request, Recorder(), planned.deletions)
        assert (result.warnings, result.damaged) == ((), ())
        assert observe(Path(os.fsdecode(place))) == observe(here / "source")
        assert apply(reader, request, Recorder(), plan_restore(reader, request).deletions).written == {}


class Cut:
    """A reader that fails after so many pieces."""

    def __init__(self, reader: Protocol, after: int) -> None:
        self._reader = reader
        self._left = after

    def trees(self) -> tuple[SourceTree, ...]:
        return self._reader.trees()

    def folders(self, tree: SourceTree, under: bytes = b"/") -> Iterator[Folder]:
        return self._reader.folders(tree, under)

    def same(self, tree: SourceTree, entry: Entry, descriptor: int) -> bool:
        return self._reader.same(tree, entry, descriptor)

    def contents(self, entries: Iterable[tuple[Key, Entry]]) -> Iterator[tuple[Key, Pieces]]:
        for key, pieces in self._reader.contents(entries):
            yield key, self._cut(pieces)

    def _cut(self, pieces: Pieces) -> Pieces:
        for piece in pieces:
            if self._left == 0:
                raise Stop
            self._left -= 1
            yield piece


class Stop(Exception):
    """The restore ends here."""


@EXAMPLES
@given(tree=TREES, moment=MOMENTS, after=st.integers(0, 12))
def test_a_restore_cut_at_any_piece_goes_on_to_the_same_end(tree: dict[bytes, object], moment: int, after: int) -> None:
    with backed_up(tree, moment) as (here, reader):
        request = RestoreRequest(snapshot="x", target=os.fsencode(here / "out"), subtree=os.fsencode(here / "source"))
        try:
            apply(Cut(reader, after), request, Recorder())
        except Stop:
            assert apply(reader, request, Recorder()).resumed
        assert observe(here / "out") == observe(here / "source")
