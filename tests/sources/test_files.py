"""The walk over real trees."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsd.errors import SourceError
from opsd.events import Recorder
from opsd.sources import files
from opsd.sources.files import PART_ENTRIES, FileTree, _cuts
from opsd.sources.options import FilesSource
from opsd.sources.protocol import FoundFolder

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def plant(folder: Path, *names: str) -> None:
    """Make files, and folders where a name ends with a slash."""
    for name in names:
        path = folder / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text(name)


def walk(*paths: Path | str, reporter: Recorder | None = None, **options: Any) -> list[FoundFolder]:
    tree = FileTree("www", FilesSource(paths=tuple(map(str, paths)), **options), reporter or Recorder())
    return list(tree.folders())


def below(folder: Path, found: list[FoundFolder]) -> list[str]:
    """All entries under a folder, by path relative to it."""
    prefix = os.fsencode(folder) + b"/"
    paths = [each.path.rstrip(b"/") + b"/" + name for each in found for name, _ in each.entries]
    return [os.fsdecode(path.removeprefix(prefix)) for path in paths if path.startswith(prefix)]


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A folder whose own path has no symlink in it."""
    return tmp_path.resolve()


def test_folders_come_by_the_parts_of_their_paths_and_entries_by_name(top: Path) -> None:
    plant(top, "a/z", "a-b/x", "a/b/y", "B/q", "a.c")
    found = walk(top)
    paths = [folder.path for folder in found]
    assert paths == sorted(paths, key=lambda path: [part for part in path.split(b"/") if part])
    assert below(top, found) == ["B", "a", "a-b", "a.c", "B/q", "a/b", "a/z", "a/b/y", "a-b/x"]


def test_parents_list_only_the_way_to_the_roots(top: Path) -> None:
    plant(top, "one/x", "two/deep/y", "other/z")
    found = walk(top / "two/deep", top / "one")
    ways = {folder.path: [name for name, _ in folder.entries] for folder in found if not folder.complete}
    assert ways[os.fsencode(top)] == [b"one", b"two"]
    assert ways[os.fsencode(top / "two")] == [b"deep"]
    assert ways[b"/"] == [top.parts[1].encode()]
    assert [os.fsdecode(folder.path) for folder in found if folder.complete] == [
        str(top / "one"),
        str(top / "two/deep"),
    ]


def test_overlapping_roots_are_walked_once(top: Path) -> None:
    plant(top, "a/b/c")
    tree = FileTree("www", FilesSource(paths=(str(top / "a"), str(top / "a/b"), str(top / "a/"))), Recorder())
    assert tree.roots == (os.fsencode(top / "a"),)
    assert below(top, list(tree.folders())) == ["a", "a/b", "a/b/c"]


def test_a_root_inside_an_excluded_folder_is_kept(top: Path) -> None:
    plant(top, "cache/x", "cache/keep/y", "cache/keep/y.tmp")
    found = walk(top, top / "cache/keep", exclude=(f"{top}/cache/", "*.tmp"))
    assert below(top, found) == ["cache", "cache/keep", "cache/keep/y"]


def test_a_root_may_be_a_file(top: Path) -> None:
    plant(top, "one", "two")
    assert below(top, walk(top / "one")) == ["one"]


def test_a_symlink_as_root_is_kept_as_a_link_and_said_to_be_one(top: Path) -> None:
    plant(top, "real/x")
    (top / "link").symlink_to("real")
    heard = Recorder()
    assert below(top, walk(top / "link", reporter=heard)) == ["link"]
    assert "only the link" in heard.warnings[0].problem


def test_a_slash_at_the_end_takes_what_a_symlink_leads_to_and_the_link(top: Path) -> None:
    plant(top, "real/x")
    (top / "link").symlink_to(top / "real")
    assert below(top, walk(f"{top}/link/")) == ["link", "real", "real/x"]


def test_symlinks_on_the_way_to_a_root_are_recorded_with_the_place_they_lead_to(top: Path) -> None:
    plant(top, "disk/data/x", "disk/other", "home/me/")
    (top / "home/me/data").symlink_to("../../disk")
    tree = FileTree("www", FilesSource(paths=(str(top / "home/me/data/data"),)), Recorder())
    assert tree.roots == (os.fsencode(top / "disk/data"),)
    assert below(top, list(tree.folders())) == ["disk", "home", "disk/data", "disk/data/x", "home/me", "home/me/data"]


def test_a_relative_root_begins_at_the_working_folder(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(top, "a/x", "b/y")
    monkeypatch.chdir(top / "b")
    assert below(top, walk("../a")) == ["a", "a/x"]


def test_all_missing_roots_are_named_before_anything_is_read(top: Path) -> None:
    plant(top, "a")
    with pytest.raises(SourceError, match=r"source www: .*gone: no such file.*; .*lost: no such file"):
        walk(top / "gone", top / "a", top / "lost")


def test_a_circle_of_symlinks_on_the_way_is_an_error_not_a_hang(top: Path) -> None:
    (top / "a").symlink_to("b")
    (top / "b").symlink_to("a")
    with pytest.raises(SourceError, match="symlinks"):
        walk(top / "a" / "x")


def test_symlinks_below_a_root_are_never_followed(top: Path) -> None:
    plant(top, "root/x", "outside/secret")
    (top / "root/out").symlink_to(top / "outside")
    assert below(top, walk(top / "root")) == ["root", "root/out", "root/x"]


def test_a_folder_that_was_swapped_for_a_symlink_is_not_read(top: Path) -> None:
    plant(top, "root/a/x", "outside/secret")
    heard = Recorder()
    folders = FileTree("www", FilesSource(paths=(str(top / "root"),)), heard).folders()
    found = []
    for folder in folders:
        found.append(folder)
        if folder.path == os.fsencode(top / "root"):
            (top / "root/a").rename(top / "root/b")
            (top / "root/a").symlink_to(top / "outside")
    assert below(top, found) == ["root", "root/a"]
    assert heard.warnings[0].subject == str(top / "root/a")


def test_a_folder_above_that_was_swapped_for_a_symlink_is_noticed_too(top: Path) -> None:
    plant(top, "root/a/deep/x", "outside/deep/secret")
    heard = Recorder()
    found = []
    for folder in FileTree("www", FilesSource(paths=(str(top / "root"),)), heard).folders():
        found.append(folder)
        if folder.path == os.fsencode(top / "root/a"):
            (top / "root/a").rename(top / "root/b")
            (top / "root/a").symlink_to(top / "outside")
    assert below(top, found) == ["root", "root/a", "root/a/deep"]
    assert "replaced" in heard.warnings[0].problem


def test_every_kind_of_entry_is_found(top: Path) -> None:
    plant(top, "file", "folder/")
    os.mkfifo(top / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(top / "sock"))
        assert below(top, walk(top)) == ["file", "folder", "pipe", "sock"]


def test_names_that_are_not_utf8_are_sorted_as_bytes(top: Path) -> None:
    names = [b"\xff", b"\xf0\x9f\x98\x80", b"\xee\x80\x80", b"a\n", b"\x80"]
    for name in names:
        Path(os.fsdecode(os.fsencode(top) + b"/" + name)).touch()
    found = walk(top)[-1]
    assert [name for name, _ in found.entries] == sorted(names)


def test_an_entry_that_vanishes_is_a_counted_warning(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(top, "a", "b")
    listed = os.listdir(top)
    original: Callable[[int], list[str]] = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: [*original(folder), "ghost"])
    heard = Recorder()
    tree = FileTree("www", FilesSource(paths=(str(top),)), heard)
    assert below(top, list(tree.folders())) == sorted(listed)
    assert tree.warnings == 1
    assert heard.warnings[0].subject == str(top / "ghost")


@needs_root
def test_a_folder_without_permission_is_a_counted_warning_and_the_rest_is_walked(top: Path) -> None:
    plant(top, "closed/x", "open/y")
    for folder in (top, *top.parents[:3]):
        folder.chmod(0o755)
    (top / "closed").chmod(0)
    script = (
        "import os, sys; from opsd.events import Recorder; from opsd.sources.options import FilesSource\n"
        "from opsd.sources.files import FileTree; os.setuid(65534)\n"
        "tree = FileTree('www', FilesSource(paths=(sys.argv[1],)), Recorder())\n"
        "print([name for folder in tree.folders() for name, _ in folder.entries][-3:], tree.warnings)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(top)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[b'closed', b'open', b'y'] 1"


def test_excluded_folders_are_not_entered(top: Path) -> None:
    plant(top, "www/cache/deep/x", "www/a.tmp", "www/b", "sub/cache/y")
    assert below(top, walk(top, exclude=("*.tmp", f"{top}/www/cache/"))) == [
        "sub",
        "www",
        "sub/cache",
        "sub/cache/y",
        "www/b",
    ]


def test_an_include_beats_an_exclude_with_all_below_it(top: Path) -> None:
    plant(top, "cache/keep/a.tmp", "cache/keep/b", "cache/drop/c", "cache/d", "x.tmp", "y.tmp")
    found = walk(top, exclude=("*.tmp", f"{top}/cache/"), include=(f"{top}/cache/keep/", "y.tmp"))
    assert below(top, found) == ["cache", "y.tmp", "cache/keep", "cache/keep/a.tmp", "cache/keep/b"]
    assert {os.path.basename(folder.path): folder.complete for folder in found}[b"cache"] is False


def test_of_a_tagged_cache_only_the_tag_is_kept(top: Path) -> None:
    signature = "Signature: 8a477f597d28d172789f06886806bc55\n# a cache"
    plant(top, "c/big", "c/sub/x", "fake/CACHEDIR.TAG", "fake/kept")
    (top / "c/CACHEDIR.TAG").write_text(signature)
    kept = ["c", "fake", "c/CACHEDIR.TAG", "fake/CACHEDIR.TAG", "fake/kept"]
    assert below(top, walk(top)) == kept
    assert "c/sub/x" in below(top, walk(top, exclude_caches=False))


def test_own_folders_are_listed_but_not_entered(top: Path) -> None:
    plant(top, "repo/packs/x", "a")
    heard = Recorder()
    options = FilesSource(paths=(str(top),))
    found = list(FileTree("www", options, heard, skip=frozenset({os.fsencode(top / "repo")})).folders())
    assert below(top, found) == ["a", "repo"]
    assert len(heard.lines) == 1
    with pytest.raises(SourceError, match="own"):
        FileTree("www", options, heard, skip=frozenset({os.fsencode(top)}))


def test_a_frozen_root_is_read_where_the_snapshot_shows_it(top: Path) -> None:
    plant(top, "live/a", "live/nested/now", "shot/a", "shot/b", "shot/nested/")
    frozen = {
        os.fsencode(top / "live"): os.fsencode(top / "shot"),
        os.fsencode(top / "live/nested"): os.fsencode(top / "live/nested"),
    }
    found = list(FileTree("www", FilesSource(paths=(str(top / "live"),)), Recorder(), frozen=frozen).folders())
    assert below(top, found) == ["live", "live/a", "live/b", "live/nested", "live/nested/now"]
    real = {folder.path: folder.real for folder in found}
    assert real[os.fsencode(top / "live")] == os.fsencode(top / "shot")


def test_a_large_folder_comes_in_parts_before_what_is_in_it(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PART_ENTRIES", 3)
    plant(top, "a/x", "b", "c", "d", "e/y", "f", "g")
    found = walk(top)[-5:]
    assert [(folder.part, len(folder.entries)) for folder in found] == [(0, 3), (1, 3), (2, 1), (0, 1), (0, 1)]


def test_a_tree_deeper_than_the_longest_path_is_walked_to_its_end(top: Path) -> None:
    descriptor = os.open(top, os.O_RDONLY)
    name = "d" * 200
    for _ in range(60):
        os.mkdir(name, dir_fd=descriptor)
        inner = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("end", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    found = walk(top)
    assert found[-1].entries[0][0] == b"end"
    assert len(found[-1].path) > 12_000


def test_a_tree_of_many_levels_needs_no_recursion(top: Path) -> None:
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    assert len(below(top, walk(top))) == 1500
    subprocess.run(["rm", "-rf", str(top / "d")], check=True)


@pytest.mark.parametrize(
    "before, after",
    [
        ([], [b"x", b"x-wal"]),
        ([b"x"], [b"x-wal"]),
        ([b"x"], [b"x-shm", b"x-wal"]),
        ([b"x", b"x!", b"x!!"], [b"x-", b"x-journal", b"x.y"]),
        ([b"x", b"x-journal"], [b"x-wal"]),
    ],
)
def test_a_database_and_its_journals_come_in_one_part(before: list[bytes], after: list[bytes]) -> None:
    names = [b"%05d" % number for number in range(PART_ENTRIES - len(before))] + before + after + [b"y", b"z"]
    parts = [names[cut] for cut in _cuts(names)]
    assert [name for part in parts for name in part] == names
    assert all((b"x" in part) == (b"x-wal" in part or b"x-journal" in part) for part in parts)
    assert len(parts) == 2


@pytest.mark.parametrize("count", [0, 1, PART_ENTRIES - 1, PART_ENTRIES, PART_ENTRIES + 1, 3 * PART_ENTRIES])
def test_parts_of_a_very_large_folder_are_all_of_it(count: int) -> None:
    names = [b"%05d" % number for number in range(count)]
    parts = [names[cut] for cut in _cuts(names)]
    assert [name for part in parts for name in part] == names
    assert len(parts) == max(1, -(-count // PART_ENTRIES))


@pytest.fixture
def mounted(top: Path) -> Iterator[Path]:
    """A folder with another file system mounted at `disk`."""
    plant(top, "disk/", "a")
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(top / "disk")], check=False, capture_output=True).returncode:
        pytest.skip("can't mount here")
    plant(top, "disk/x", "disk/sub/y")
    yield top
    subprocess.run(["umount", str(top / "disk")], check=True)


def test_one_file_system_lists_mount_points_as_empty_folders(mounted: Path) -> None:
    assert below(mounted, walk(mounted, one_file_system=True)) == ["a", "disk"]
    assert "disk/sub/y" in below(mounted, walk(mounted))


def test_a_root_on_another_file_system_is_walked_even_inside_another_root(mounted: Path) -> None:
    assert "disk/sub/y" in below(mounted, walk(mounted, mounted / "disk", one_file_system=True))
    assert below(mounted, walk(mounted, mounted / "disk/sub", one_file_system=True))[-3:] == [
        "disk",
        "disk/sub",
        "disk/sub/y",
    ]


def test_a_tree_knows_which_roots_are_mount_points(mounted: Path) -> None:
    tree = FileTree("www", FilesSource(paths=(str(mounted / "disk"), str(mounted / "a"))), Recorder())
    assert tree.mounts() == {os.fsencode(mounted / "disk"): True, os.fsencode(mounted / "a"): False}


_NAMES = st.sampled_from(["a", "b", "c.tmp", "d e", "a.b"])
_TREES = st.recursive(st.none(), lambda inner: st.dictionaries(_NAMES, inner, max_size=4), max_leaves=12)


@settings(max_examples=40)
@given(tree=st.dictionaries(_NAMES, _TREES, max_size=4))
def test_any_tree_is_listed_as_a_plain_recursion_lists_it(
    tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    top = tmp_path_factory.mktemp("tree").resolve()

    def grow(folder: Path, inside: dict[str, Any]) -> Iterator[str]:
        for name in sorted(inside):
            if inside[name] is None:
                (folder / name).touch()
            else:
                (folder / name).mkdir()
        yield from (str((folder / name).relative_to(top)) for name in sorted(inside) if not name.endswith(".tmp"))
        for name in sorted(inside):
            if inside[name] is not None:
                listed = list(grow(folder / name, inside[name]))
                yield from listed if not name.endswith(".tmp") else []

    expected = list(grow(top, tree))
    assert below(top, walk(top, exclude=("*.tmp",))) == expected
