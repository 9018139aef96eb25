"""A restore gives back everything, writes nowhere else, and can be cut off at any moment."""

import errno
import fcntl
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from opsd.errors import IntegrityError, RestoreError, StoreUnavailable, TryLater
from opsd.events import Recorder
from opsd.model import Entry, EntryType, Folder, SourceTree
from opsd.restore import beneath
from opsd.restore.apply import apply, plan_restore
from opsd.restore.protocol import Pieces
from opsd.restore.request import Overwrite, RestoreRequest
from opsd.restore.result import Result
from tests.restore.conftest import (
    DEFAULT_ACL,
    NOBODY,
    as_nobody,
    make_exotic,
    make_socket,
    needs_root,
    open_up,
)
from tests.support.reader import MTIME, MemoryReader, entry, observe, scan

ROOT = os.geteuid() == 0


def fresh(target: Path, **more: object) -> RestoreRequest:
    return RestoreRequest(snapshot="ab12", target=os.fsencode(target), **more)  # type: ignore[arg-type] # keywords of the request


def restore(reader: MemoryReader, request: RestoreRequest, deletions: tuple[bytes, ...] = ()) -> Result:
    return apply(reader, request, Recorder(), deletions)


def in_place(target: Path, **more: object) -> RestoreRequest:
    return fresh(target, in_place=True, **more)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An ordinary small tree."""
    root = tmp_path / "source"
    (root / "sub" / "subsub").mkdir(parents=True)
    (root / "a").write_bytes(b"a" * 100)
    (root / "sub" / "b").write_bytes(b"b" * 200_000)
    (root / "sub" / "subsub" / "c").write_bytes(b"c")
    (root / "link").symlink_to("a")
    return root


class TestEverything:
    def test_one_of_everything_comes_back_whole(self, tmp_path: Path) -> None:
        make_exotic(tmp_path / "source", privileged=ROOT)
        result = restore(scan(tmp_path / "source"), fresh(tmp_path / "out", subtree=b"/srv/www"))
        assert result.warnings == ()
        assert observe(tmp_path / "out") == observe(tmp_path / "source")
        assert result.written["hard links"] == 4 + ROOT
        if ROOT:
            assert (result.written["devices"], result.written["setuid"]) == (2, 1)

    def test_it_comes_back_through_kernels_without_openat2(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(beneath, "_OPENAT2", 100_000)
        make_exotic(tmp_path / "source", privileged=ROOT)
        restore(scan(tmp_path / "source"), fresh(tmp_path / "out", subtree=b"/srv/www"))
        assert observe(tmp_path / "out") == observe(tmp_path / "source")

    def test_sparse_files_stay_sparse(self, tmp_path: Path) -> None:
        make_exotic(tmp_path / "source", privileged=False)
        restore(scan(tmp_path / "source"), fresh(tmp_path / "out", subtree=b"/srv/www"))
        assert (tmp_path / "out/sparse").stat().st_blocks * 512 < 65_536
        assert (tmp_path / "out/zeros").stat().st_blocks == 0

    def test_a_whole_source_goes_below_its_label_with_its_full_path(self, tmp_path: Path, source: Path) -> None:
        result = restore(scan(source), fresh(tmp_path / "not/there/yet"))
        assert observe(tmp_path / "not/there/yet/www/srv/www") == observe(source)
        assert os.listdir(tmp_path / "not/there/yet") == ["www"]
        assert result.exit_code == 0
        assert result.size == 200_101

    def test_an_ordinary_user_gets_all_but_owners_with_one_warning_a_kind(self, tmp_path: Path) -> None:
        make_exotic(tmp_path / "source", privileged=ROOT)
        reader = scan(tmp_path / "source")
        (tmp_path / "home").mkdir()
        os.chown(tmp_path / "home", NOBODY if ROOT else -1, -1)
        open_up(tmp_path)

        def work() -> None:
            result = restore(reader, fresh(tmp_path / "home/out", subtree=b"/srv/www"))
            assert result.exit_code == (3 if ROOT else 0)
            assert len(result.warnings) <= 6
            assert restore(reader, in_place(tmp_path / "home/again")).damaged == ()

        (tmp_path / "home/again").mkdir()
        (tmp_path / "home/again").chmod(0o777)
        as_nobody(work)
        given = {path: (mode, *rest[:2]) for path, (mode, _, *rest) in observe(tmp_path / "home/out").items()}
        asked = {path: (mode, *rest[:2]) for path, (mode, _, *rest) in observe(tmp_path / "source").items()}
        for name in (b"null", b"disk", b"disk again"):
            asked.pop(name, None)
        if ROOT:
            asked[b"setuid"] = (oct(stat.S_IFREG | 0o755), *asked[b"setuid"][1:])
        assert given == asked

    def test_sockets_are_counted_and_left_out(self, tmp_path: Path, source: Path) -> None:
        make_socket(source / "s")
        result = restore(scan(source), fresh(tmp_path / "out"))
        assert result.skipped == 1
        assert result.warnings == ()

    def test_a_tree_deeper_than_may_be_open_or_named_comes_back(self, tmp_path: Path) -> None:
        reader = MemoryReader()
        path, folders = b"", {}
        for _ in range(600):
            folders[path or b"/"] = [entry(b"d" * 10, mode=0o700), reader.file(b"f", b"x")]
            path += b"/" + b"d" * 10
        folders[path] = [reader.file(b"bottom", b"end"), reader.file(b"more", b"end")]
        reader.add("s", folders)
        result = restore(reader, fresh(tmp_path / "out"))
        assert (result.written["files"], result.written["folders"], result.warnings) == (602, 601, ())
        with_fd = os.open(tmp_path / "out/s", os.O_RDONLY)
        try:
            with beneath.folder(with_fd, path[1:], beneath.LISTED) as bottom:
                assert sorted(os.listdir(bottom)) == ["bottom", "more"]
                assert os.fstat(bottom).st_mtime_ns == MTIME
        finally:
            os.close(with_fd)
        subprocess.run(["rm", "-rf", str(tmp_path / "out")], check=True)

    def test_an_acl_of_the_target_is_not_handed_down(self, tmp_path: Path, source: Path) -> None:
        (tmp_path / "out").mkdir()
        os.setxattr(tmp_path / "out", "system.posix_acl_default", DEFAULT_ACL)
        restore(scan(source), fresh(tmp_path / "out"))
        assert observe(tmp_path / "out/www/srv/www") == observe(source)
        restore(scan(source), in_place(tmp_path / "out"))
        assert observe(tmp_path / "out/srv/www") == observe(source)

    def test_a_target_that_hands_an_acl_down_gets_the_folders_own_metadata(self, tmp_path: Path, source: Path) -> None:
        (tmp_path / "out").mkdir()
        os.setxattr(tmp_path / "out", "system.posix_acl_default", DEFAULT_ACL)
        restore(scan(source), fresh(tmp_path / "out", subtree=b"/srv/www"))
        assert observe(tmp_path / "out") == observe(source)

    def test_folders_are_closed_to_others_until_they_are_whole(self, tmp_path: Path, source: Path) -> None:
        seen = []

        class Looking(MemoryReader):
            def _pieces(self, wanted: Entry) -> Pieces:
                seen.append(stat.S_IMODE((tmp_path / "out/www/srv").stat().st_mode))
                yield from super()._pieces(wanted)

        restore(Looking(**vars(scan(source))), fresh(tmp_path / "out"))
        assert set(seen[1:]) == {0o700}
        assert stat.S_IMODE((tmp_path / "out/www/srv").stat().st_mode) == 0o755

    def test_owners_go_by_name_unless_numbers_are_asked_for(self, tmp_path: Path) -> None:
        if not ROOT:
            pytest.skip("needs root")
        reader = MemoryReader()
        reader.add("s", {b"/": [reader.file(b"f", b"x", uid=4711, gid=4712)]})
        folder = reader.sources["s"][0]
        reader.sources["s"] = [replace(folder, users={4711: b"nobody"}, groups={4712: b"no such group"})]
        restore(reader, fresh(tmp_path / "names"))
        restore(reader, fresh(tmp_path / "numbers", numeric_owner=True))
        found = [
            (each.stat().st_uid, each.stat().st_gid) for each in (tmp_path / "names/s/f", tmp_path / "numbers/s/f")
        ]
        assert found == [(NOBODY, 4712), (4711, 4712)]


class TestPartial:
    def test_the_content_of_a_folder_goes_directly_into_the_target(self, tmp_path: Path, source: Path) -> None:
        restore(scan(source), fresh(tmp_path / "out", subtree=b"/srv/www/sub/"))
        assert observe(tmp_path / "out") == observe(source / "sub")

    def test_a_single_file_goes_directly_into_the_target(self, tmp_path: Path, source: Path) -> None:
        restore(scan(source), fresh(tmp_path / "out", subtree=b"/srv/www/sub/b"))
        assert os.listdir(tmp_path / "out") == ["b"]

    def test_patterns_bring_what_they_select_and_the_way_to_it(self, tmp_path: Path, source: Path) -> None:
        result = restore(scan(source), fresh(tmp_path / "out", patterns=("c", "/srv/www/a")))
        found = sorted(observe(tmp_path / "out/www/srv/www"))
        assert found == [b"", b"a", b"sub", b"sub/subsub", b"sub/subsub/c"]
        assert result.written["files"] == 2
        assert (tmp_path / "out/www/srv/www/sub").stat().st_mtime_ns == (source / "sub").stat().st_mtime_ns

    def test_an_unknown_source_or_path_is_an_error_that_makes_nothing(self, tmp_path: Path, source: Path) -> None:
        for wrong in ({"sources": ("x",)}, {"subtree": b"/srv/wwww"}):
            with pytest.raises(RestoreError):
                restore(scan(source), fresh(tmp_path / "out", **wrong))
        assert not (tmp_path / "out").exists()


class TestTarget:
    def test_a_target_that_holds_something_is_refused_and_named(self, tmp_path: Path, source: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/precious").write_bytes(b"x")
        with pytest.raises(RestoreError, match="not empty: it holds precious"):
            restore(scan(source), fresh(tmp_path / "out"))
        assert os.listdir(tmp_path / "out") == ["precious"]

    def test_a_target_that_is_a_file_is_refused(self, tmp_path: Path, source: Path) -> None:
        (tmp_path / "out").write_bytes(b"x")
        with pytest.raises(RestoreError, match="can't be restored to"):
            restore(scan(source), fresh(tmp_path / "out"))

    def test_two_restores_never_write_to_one_target(self, tmp_path: Path, source: Path) -> None:
        (tmp_path / "out").mkdir()
        held = os.open(tmp_path / "out", os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(TryLater):
                restore(scan(source), fresh(tmp_path / "out"))
        finally:
            os.close(held)

    @needs_root
    def test_a_read_only_target_is_an_error(self, tmp_path: Path, source: Path) -> None:
        (tmp_path / "disk").mkdir()
        with mounted(tmp_path / "disk", "ro"), pytest.raises(RestoreError, match="read-only"):
            restore(scan(source), fresh(tmp_path / "disk/out"))

    @needs_root
    def test_a_full_disk_is_an_error_and_the_same_command_goes_on_after(self, tmp_path: Path, source: Path) -> None:
        reader = scan(source)
        (tmp_path / "disk").mkdir()
        (source / "z").write_bytes(os.urandom(600_000))
        reader = scan(source)
        for disk in mounts(tmp_path / "disk", "size=512k"):
            with pytest.raises(RestoreError, match="no room left") as caught:
                restore(reader, fresh(disk / "out"))
            assert "same command" in str(caught.value.hint)
            subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
            result = restore(reader, fresh(disk / "out"))
            assert result.resumed
            assert result.unchanged >= 2
            assert observe(disk / "out/www/srv/www") == observe(source)
            assert os.listdir(disk / "out") == ["www"]

    def test_a_name_that_the_file_system_refuses_is_a_warning(self, tmp_path: Path) -> None:
        reader = MemoryReader()
        reader.add("s", {b"/": [reader.file(b"f" * 300, b"x"), reader.file(b"g", b"x")]})
        result = restore(reader, fresh(tmp_path / "out"))
        assert os.listdir(tmp_path / "out/s") == ["g"]
        assert (result.exit_code, result.warning_count) == (3, 1)
        assert "refuses the name" in result.warnings[0].problem

    def test_names_too_long_for_folders_cost_what_is_in_them(self, tmp_path: Path) -> None:
        reader = MemoryReader()
        long = b"d" * 300
        reader.add("s", {b"/": [entry(long), reader.file(b"g", b"x")], b"/" + long: [reader.file(b"f", b"x")]})
        result = restore(reader, fresh(tmp_path / "out"))
        assert os.listdir(tmp_path / "out/s") == ["g"]
        assert (result.exit_code, result.warning_count) == (3, 2)

    def test_fifty_thousand_failures_of_a_kind_are_one_warning(self, tmp_path: Path) -> None:
        reader = MemoryReader()
        reader.add("s", {b"/": [reader.file(b"%03d" % number + b"f" * 300, b"x") for number in range(500)]})
        result = restore(reader, fresh(tmp_path / "out"))
        assert (len(result.warnings), result.warning_count) == (1, 500)
        assert "and 497 more" in result.warnings[0].subject


class TestHostile:
    def hostile(self, tmp_path: Path, reader: MemoryReader, **more: object) -> Result:
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside/victim").write_bytes(b"untouched")
        before = observe(tmp_path / "outside")
        result = restore(reader, fresh(tmp_path / "out", **more))
        assert observe(tmp_path / "outside") == before
        assert result.exit_code == 4
        return result

    def test_a_path_through_a_symlink_is_not_taken(self, tmp_path: Path) -> None:
        reader = MemoryReader()
        link = entry(b"d", EntryType.SYMLINK, target=os.fsencode(tmp_path / "outside"))
        files = [reader.file(b"new", b"x"), reader.file(b"victim", b"spoilt")]
        reader.add("s", {b"/": [link], b"/d": files})
        assert "no folder" in self.hostile(tmp_path, reader).damaged[0].problem

    @pytest.mark.parametrize("name", [b"..", b".", b"", b"a/b", b"../outside/new", b"nul\0"])
    def test_a_name_that_is_none_is_not_taken(self, tmp_path: Path, name: bytes) -> None:
        reader = MemoryReader()
        reader.add("s", {b"/": [reader.file(name, b"spoilt")]})
        assert "can't be trusted" in self.hostile(tmp_path, reader).damaged[0].problem

    @pytest.mark.parametrize("path", [b"/../outside", b"relative", b"//a", b"/a/../../outside", b"/a/", b""])
    def test_a_folder_path_that_is_none_is_not_taken(self, tmp_path: Path, path: bytes) -> None:
        reader = MemoryReader()
        reader.add("s", {b"/": [entry(b"a")], path: [reader.file(b"victim", b"spoilt")]})
        assert self.hostile(tmp_path, reader).damaged

    def test_a_name_given_twice_is_not_taken(self, tmp_path: Path) -> None:
        reader = MemoryReader()
        link = entry(b"d", EntryType.SYMLINK, target=os.fsencode(tmp_path / "outside"))
        reader.add("s", {b"/": [link, entry(b"d")], b"/d": [reader.file(b"victim", b"spoilt")]})
        assert "there twice" in self.hostile(tmp_path, reader).damaged[0].problem

    def test_folders_out_of_order_are_not_taken(self, tmp_path: Path) -> None:
        reader = MemoryReader()
        reader.add("s", {b"/b": [], b"/a": []})
        assert "out of order" in self.hostile(tmp_path, reader).damaged[0].problem

    def test_a_hard_link_through_a_symlink_links_nothing_outside(self, tmp_path: Path) -> None:
        reader = MemoryReader()
        link = entry(b"d", EntryType.SYMLINK, target=os.fsencode(tmp_path / "outside"))
        reader.add(
            "s",
            {
                b"/": [link, reader.file(b"other", b"spoilt", link=b"1")],
                b"/d": [reader.file(b"victim", b"spoilt", link=b"1")],
            },
        )
        self.hostile(tmp_path, reader)
        assert (tmp_path / "outside/victim").stat().st_nlink == 1

    def test_a_hard_link_whose_first_name_is_a_symlink_outside_gets_nothing_of_it(self, tmp_path: Path) -> None:
        reader = MemoryReader()
        first = entry(b"a", EntryType.SYMLINK, target=os.fsencode(tmp_path / "outside/victim"), link=b"1")
        reader.add("s", {b"/": [first, reader.file(b"b", b"spoilt", link=b"1"), reader.file(b"c", b"y", link=b"1")]})
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside/victim").write_bytes(b"untouched")
        restore(reader, fresh(tmp_path / "out"))
        assert (tmp_path / "outside/victim").stat().st_nlink == 1
        assert (tmp_path / "outside/victim").read_bytes() == b"untouched"

    def test_a_label_that_leads_elsewhere_is_not_taken(self, tmp_path: Path) -> None:
        reader = MemoryReader()
        reader.add("../outside", {b"/": [reader.file(b"victim", b"spoilt")]})
        self.hostile(tmp_path, reader)

    def test_two_sources_with_one_path_do_not_write_through_each_other(self, tmp_path: Path) -> None:
        reader = MemoryReader()
        link = entry(b"d", EntryType.SYMLINK, target=os.fsencode(tmp_path / "outside"))
        reader.add("one", {b"/": [entry(b"srv")], b"/srv": [link]})
        reader.add(
            "two", {b"/": [entry(b"srv")], b"/srv": [entry(b"d")], b"/srv/d": [reader.file(b"victim", b"spoilt")]}
        )
        self.hostile(tmp_path, reader, subtree=b"/srv")

    def test_in_place_a_symlink_that_stands_there_is_replaced_not_followed(self, tmp_path: Path) -> None:
        reader = MemoryReader()
        reader.add("s", {b"/": [entry(b"d")], b"/d": [reader.file(b"victim", b"restored")]})
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside/victim").write_bytes(b"untouched")
        (tmp_path / "root").mkdir()
        (tmp_path / "root/d").symlink_to(tmp_path / "outside")
        (tmp_path / "root/victim").symlink_to(tmp_path / "outside/victim")
        restore(reader, in_place(tmp_path / "root"))
        assert (tmp_path / "outside/victim").read_bytes() == b"untouched"
        assert (tmp_path / "root/d/victim").read_bytes() == b"restored"
        assert not (tmp_path / "root/d").is_symlink()

    def test_in_place_a_symlink_instead_of_a_file_is_replaced_not_written_through(self, tmp_path: Path) -> None:
        reader = MemoryReader()
        reader.add("s", {b"/": [reader.file(b"f", b"restored")]})
        (tmp_path / "victim").write_bytes(b"untouched")
        (tmp_path / "root").mkdir()
        (tmp_path / "root/f").symlink_to(tmp_path / "victim")
        (tmp_path / "root/.opsd-restore.part").symlink_to(tmp_path / "victim")
        restore(reader, in_place(tmp_path / "root"))
        assert (tmp_path / "victim").read_bytes() == b"untouched"
        assert (tmp_path / "root/f").read_bytes() == b"restored"

    def test_in_place_another_name_of_someone_elses_file_is_replaced_not_changed(self, tmp_path: Path) -> None:
        reader = MemoryReader()
        reader.add("s", {b"/": [reader.file(b"f", b"same", mode=0o777)]})
        (tmp_path / "victim").write_bytes(b"same")
        (tmp_path / "victim").chmod(0o600)
        (tmp_path / "root").mkdir()
        os.link(tmp_path / "victim", tmp_path / "root/f")
        restore(reader, in_place(tmp_path / "root"))
        assert stat.S_IMODE((tmp_path / "victim").stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "root/f").stat().st_mode) == 0o777


class TestDamage:
    def test_a_damaged_file_is_left_out_and_named_and_the_rest_comes_back(self, tmp_path: Path, source: Path) -> None:
        reader = scan(source)
        reader.damaged.add(reader.keep(b"b" * 200_000))
        result = restore(reader, fresh(tmp_path / "out"))
        assert result.exit_code == 4
        assert [each.path for each in result.damaged] == ["www/srv/www/sub/b"]
        assert "packs/00/00ff" in result.damaged[0].problem
        assert not (tmp_path / "out/www/srv/www/sub/b").exists()
        assert (tmp_path / "out/www/srv/www/sub/subsub/c").read_bytes() == b"c"

    def test_a_damaged_file_in_place_leaves_the_old_one(self, tmp_path: Path, source: Path) -> None:
        reader = scan(source)
        reader.damaged.add(reader.keep(b"b" * 200_000))
        old = tmp_path / "root/srv/www/sub"
        old.mkdir(parents=True)
        (old / "b").write_bytes(b"old")
        result = restore(reader, in_place(tmp_path / "root"))
        assert result.exit_code == 4
        assert sorted(os.listdir(old)) == ["b", "subsub"]
        assert (old / "b").read_bytes() == b"old"

    def test_further_names_of_a_damaged_file_are_named_too(self, tmp_path: Path, source: Path) -> None:
        os.link(source / "a", source / "sub/again")
        reader = scan(source)
        reader.damaged.add(reader.keep(b"a" * 100))
        result = restore(reader, fresh(tmp_path / "out", subtree=b"/srv/www"))
        assert sorted(each.path for each in result.damaged) == ["a", "sub/again"]

    @pytest.mark.parametrize("size", [99, 101])
    def test_more_or_less_content_than_the_listing_says_is_damage(self, tmp_path: Path, size: int) -> None:
        reader = MemoryReader()
        reader.add("s", {b"/": [reader.file(b"f", b"x" * 100, size=size)]})
        result = restore(reader, fresh(tmp_path / "out"))
        assert result.exit_code == 4
        assert os.listdir(tmp_path / "out/s") == []

    def test_a_listing_that_breaks_off_costs_what_comes_after(self, tmp_path: Path, source: Path) -> None:
        class Broken(MemoryReader):
            def folders(self, tree: SourceTree, under: bytes = b"/") -> Iterator[Folder]:
                for folder in super().folders(tree, under):
                    if folder.path.endswith(b"subsub"):
                        raise IntegrityError("a listing is damaged")
                    yield folder

        reader = Broken(**vars(scan(source)))
        result = restore(reader, fresh(tmp_path / "out"))
        assert [each.path for each in result.damaged] == ["source www"]
        assert (tmp_path / "out/www/srv/www/sub/b").exists()


class TestInPlace:
    def test_only_what_differs_is_written(self, tmp_path: Path, source: Path) -> None:
        reader = scan(source)
        root = tmp_path / "root"
        root.mkdir()
        restore(reader, in_place(root))
        before = {path: os.lstat(os.fsencode(root) + b"/" + path).st_ino for path in observe(root)}
        (root / "srv/www/a").write_bytes(b"A" * 100)
        os.utime(root / "srv/www/a", ns=((source / "a").stat().st_mtime_ns,) * 2)
        (root / "srv/www/sub/subsub/c").chmod(0o600)
        reader.asked.clear()
        result = restore(reader, in_place(root))
        assert reader.asked == [b"a"]
        assert (result.written, result.adjusted) == ({"files": 1}, 1)
        assert observe(root / "srv/www") == observe(source)
        after = {path: os.lstat(os.fsencode(root) + b"/" + path).st_ino for path in observe(root)}
        assert [path for path in after if after[path] != before[path]] == [b"srv/www/a"]

    def test_a_changed_byte_under_the_same_time_is_found_but_not_by_the_quick_way(
        self, tmp_path: Path, source: Path
    ) -> None:
        reader = scan(source)
        root = tmp_path / "root"
        root.mkdir()
        restore(reader, in_place(root))
        (root / "srv/www/a").write_bytes(b"A" * 100)
        os.utime(root / "srv/www/a", ns=((source / "a").stat().st_mtime_ns,) * 2)
        assert restore(reader, in_place(root, overwrite=Overwrite.QUICK)).written == {}
        assert restore(reader, in_place(root, overwrite=Overwrite.NEVER)).written == {}
        assert (root / "srv/www/a").read_bytes() == b"A" * 100
        assert restore(reader, in_place(root)).written == {"files": 1}

    def test_everything_exotic_is_put_right_in_place(self, tmp_path: Path) -> None:
        make_exotic(tmp_path / "source", privileged=ROOT)
        root = tmp_path / "root"
        root.mkdir()
        reader = scan(tmp_path / "source")
        restore(reader, in_place(root))
        assert observe(root / "srv/www") == observe(tmp_path / "source")
        here = root / "srv/www"
        (here / "plain").write_bytes(b"changed")
        os.setxattr(here / "large", "user.extra", b"x")
        (here / "a third name").unlink()
        (here / "a third name").write_bytes(b"one file, three names")
        (here / "dangling").unlink()
        (here / "dangling").symlink_to("elsewhere")
        (here / "pipe").unlink()
        (here / "pipe").mkdir()
        (here / "empty").rmdir()
        (here / "empty").write_bytes(b"a file")
        os.removexattr(here / "deep", "user.note")
        assert restore(reader, in_place(root)).warnings == ()
        assert observe(root / "srv/www") == observe(tmp_path / "source")
        assert restore(reader, in_place(root)).written == {}

    def test_nothing_that_the_snapshot_lacks_goes_without_delete(self, tmp_path: Path, source: Path) -> None:
        reader, root = scan(source), tmp_path / "root"
        (root / "srv/www/new/er").mkdir(parents=True)
        (root / "srv/beside").write_bytes(b"x")
        assert plan_restore(reader, in_place(root)).deletions == ()
        restore(reader, in_place(root), (b"srv/www/new",))
        assert (root / "srv/www/new/er").exists()
        request = in_place(root, delete=True)
        planned = plan_restore(reader, request)
        assert planned.deletions == (b"srv/www/new",)
        (root / "srv/www/later").write_bytes(b"came after the plan")
        assert restore(reader, request, planned.deletions).deleted == 1
        assert not (root / "srv/www/new").exists()
        assert (root / "srv/beside").exists()
        assert (root / "srv/www/later").exists()
        (root / "srv/www/later").unlink()
        restore(reader, request)
        assert observe(root / "srv/www") == observe(source)

    def test_nothing_is_deleted_when_something_could_not_be_restored(self, tmp_path: Path, source: Path) -> None:
        reader, root = scan(source), tmp_path / "root"
        (root / "srv/www/new").mkdir(parents=True)
        reader.damaged.add(reader.keep(b"b" * 200_000))
        request = in_place(root, delete=True)
        result = restore(reader, request, plan_restore(reader, request).deletions)
        assert (result.exit_code, result.deleted) == (4, 0)
        assert (root / "srv/www/new").is_dir()

    def test_a_folder_in_the_way_of_a_file_goes_only_with_delete(self, tmp_path: Path, source: Path) -> None:
        reader, root = scan(source), tmp_path / "root"
        (root / "srv/www/a/full").mkdir(parents=True)
        result = restore(reader, in_place(root))
        assert result.exit_code == 3
        assert (root / "srv/www/a/full").is_dir()
        request = in_place(root, delete=True)
        planned = plan_restore(reader, request)
        assert planned.deletions == (b"srv/www/a",)
        result = restore(reader, request, planned.deletions)
        assert (result.exit_code, result.deleted) == (0, 1)
        assert observe(root / "srv/www") == observe(source)

    def test_another_sources_files_and_opsds_own_are_never_deleted(self, tmp_path: Path, source: Path) -> None:
        root = tmp_path / "root"
        (root / "srv/www/cache").mkdir(parents=True)
        (root / "srv/www/cache/x").write_bytes(b"other source")
        (root / "srv/www/repository").mkdir()
        (root / "srv/www/repository/pack").write_bytes(b"precious")
        (root / "srv/www/stray").write_bytes(b"x")
        reader = scan(source)
        reader.add("other", {b"/": []}, roots=(b"/srv/www/cache",))
        request = in_place(root, delete=True, sources=("www",), keep=(b"/srv/www/repository",))
        assert plan_restore(reader, request).deletions == (b"srv/www/stray",)

    @needs_root
    def test_what_is_mounted_is_never_deleted(self, tmp_path: Path, source: Path) -> None:
        (source / "mnt").mkdir()
        reader, root = scan(source), tmp_path / "root"
        (root / "srv/www/mnt").mkdir(parents=True)
        (root / "srv/www/other/mnt").mkdir(parents=True)
        with mounted(root / "srv/www/mnt"), mounted(root / "srv/www/other/mnt"):
            (root / "srv/www/mnt/x").write_bytes(b"x")
            (root / "srv/www/other/mnt/x").write_bytes(b"x")
            request = in_place(root, delete=True)
            planned = plan_restore(reader, request)
            assert planned.deletions == (b"srv/www/other",)
            assert restore(reader, request, planned.deletions).exit_code == 3
            assert (root / "srv/www/mnt/x").exists()
            assert (root / "srv/www/other/mnt/x").exists()

    def test_folders_above_the_roots_stay_as_they_are(self, tmp_path: Path, source: Path) -> None:
        reader, root = scan(source), tmp_path / "root"
        (root / "srv").mkdir(parents=True)
        (root / "srv").chmod(0o710)
        restore(reader, in_place(root))
        assert stat.S_IMODE((root / "srv").stat().st_mode) == 0o710

    def test_a_journal_does_not_outlive_the_database_it_belongs_to(self, tmp_path: Path) -> None:
        reader = MemoryReader()
        reader.add("s", {b"/": [reader.file(b"crm.db", b"SQLite format 3\0 as it was")]})
        root = tmp_path / "root"
        root.mkdir()
        (root / "crm.db").write_bytes(b"SQLite format 3\0 as it is")
        (root / "crm.db-wal").write_bytes(b"frames")
        result = restore(reader, in_place(root))
        assert sorted(os.listdir(root)) == ["crm.db", "crm.db-wal.before-restore"]
        assert result.exit_code == 3

    def test_two_names_of_one_file_that_were_parted_are_joined_again(self, tmp_path: Path, source: Path) -> None:
        os.link(source / "a", source / "z")
        reader, root = scan(source), tmp_path / "root"
        root.mkdir()
        restore(reader, in_place(root))
        (root / "srv/www/z").unlink()
        (root / "srv/www/z").write_bytes(b"a" * 100)
        restore(reader, in_place(root))
        assert observe(root / "srv/www") == observe(source)

    def test_two_names_of_one_symlink_or_fifo_that_were_parted_are_joined_again(
        self, tmp_path: Path, source: Path
    ) -> None:
        os.mkfifo(source / "pipe", 0o600)
        for name in ("link", "pipe"):
            os.link(source / name, source / "sub" / name, follow_symlinks=False)
        reader, root = scan(source), tmp_path / "root"
        root.mkdir()
        restore(reader, in_place(root))
        assert observe(root / "srv/www") == observe(source)
        for name in ("link", "pipe"):
            (root / "srv/www/sub" / name).unlink()
        (root / "srv/www/sub/link").symlink_to("a")
        os.mkfifo(root / "srv/www/sub/pipe", 0o600)
        assert restore(reader, in_place(root)).written == {"hard links": 2}
        assert observe(root / "srv/www") == observe(source)
        assert restore(reader, in_place(root)).written == {}


def test_what_is_no_file_comes_back_even_if_its_first_name_does_not(tmp_path: Path) -> None:
    reader = MemoryReader()
    names = [b"a" * 256, b"one", b"two"]
    entries = [entry(name, EntryType.SYMLINK, target=b"x", link=b"1") for name in names]
    reader.add("s", {b"/": [replace(each, link=None) for each in entries[1:]]})
    restore(reader, fresh(tmp_path / "old", subtree=b"/"))
    reader.add("s", {b"/": entries})
    for request in (fresh(tmp_path / "out", subtree=b"/"), in_place(tmp_path / "old", subtree=b"/")):
        result = restore(reader, request)
        assert (result.damaged, result.warning_count) == ((), 1)
        assert result.written == {"symlinks": 1, "hard links": 1}
        where = Path(os.fsdecode(request.target))
        assert (where / "one").lstat().st_ino == (where / "two").lstat().st_ino
        assert os.readlink(where / "two") == "x"


class Stopping(MemoryReader):
    """Stops the world before the n-th content."""

    countdown = 0

    def _pieces(self, wanted: Entry) -> Pieces:
        self.countdown -= 1
        for number, piece in enumerate(super()._pieces(wanted)):
            if self.countdown == 0 and number == 1:
                self.stop()
            yield piece
        if self.countdown == 0:
            self.stop()

    def stop(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def killed_at(number: int, source: Path, request: RestoreRequest) -> None:
    child = os.fork()
    if child == 0:
        try:
            reader = Stopping(**vars(scan(source)))
            reader.countdown = number
            restore(reader, request)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


class TestCutOff:
    @pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
    def test_killed_at_any_content_the_same_command_goes_on(self, tmp_path: Path, number: int) -> None:
        make_exotic(tmp_path / "source", privileged=ROOT)
        request = fresh(tmp_path / "out")
        killed_at(number, tmp_path / "source", request)
        reader = scan(tmp_path / "source")
        result = restore(reader, request)
        assert result.resumed
        assert observe(tmp_path / "out/www/srv/www") == observe(tmp_path / "source")
        assert os.listdir(tmp_path / "out") == ["www"]
        assert len(reader.asked) < 9

    def test_killed_in_place_nothing_half_is_seen_and_the_next_cleans_up(self, tmp_path: Path, source: Path) -> None:
        root = tmp_path / "root/srv/www/sub"
        root.mkdir(parents=True)
        (root / "b").write_bytes(b"old")
        killed_at(2, source, in_place(tmp_path / "root"))
        assert (root / "b").read_bytes() == b"old"
        restore(scan(source), in_place(tmp_path / "root"))
        assert observe(tmp_path / "root/srv/www") == observe(source)

    def test_a_cut_off_restore_is_not_taken_for_another_one(self, tmp_path: Path, source: Path) -> None:
        killed_at(2, source, fresh(tmp_path / "out"))
        with pytest.raises(RestoreError, match="another restore"):
            restore(scan(source), fresh(tmp_path / "out", sources=("www",)))

    def test_a_store_that_goes_away_leaves_no_half_file_and_a_restore_that_goes_on(
        self, tmp_path: Path, source: Path
    ) -> None:
        class Gone(Stopping):
            def stop(self) -> None:
                raise StoreUnavailable("gone")

        reader = Gone(**vars(scan(source)))
        reader.countdown = 2
        with pytest.raises(StoreUnavailable):
            restore(reader, fresh(tmp_path / "out"))
        assert not (tmp_path / "out/www/srv/www/sub/b").exists()
        assert restore(scan(source), fresh(tmp_path / "out")).resumed
        assert observe(tmp_path / "out/www/srv/www") == observe(source)

    def test_an_ordinary_user_goes_on_behind_folders_that_were_closed(self, tmp_path: Path) -> None:
        reader = MemoryReader()
        reader.add(
            "s",
            {
                b"/": [entry(b"closed", mode=0), entry(b"later", mode=0o500)],
                b"/closed": [reader.file(b"f", b"x", mode=0), reader.file(b"g", b"y" * 100_000)],
                b"/later": [reader.file(b"z", b"zz")],
            },
        )
        (tmp_path / "home").mkdir()
        os.chown(tmp_path / "home", NOBODY if ROOT else -1, -1)
        open_up(tmp_path)

        def work() -> None:
            request = fresh(tmp_path / "home/out")
            stopping = Stopping(**vars(reader))
            stopping.countdown = 3
            stopping.stop = stop  # type: ignore[method-assign] # a child of a child would be hard to wait for
            with pytest.raises(StoreUnavailable):
                restore(stopping, request)
            result = restore(reader, request)
            assert result.resumed
            assert {each.problem for each in result.warnings} <= {"the owner could not be set: operation not permitted"}

        def stop() -> None:
            raise StoreUnavailable("gone")

        as_nobody(work)
        found = {path: value[0] for path, value in observe(tmp_path / "home/out/s").items()}
        assert found[b"closed"] == oct(stat.S_IFDIR)
        assert found[b"closed/f"] == oct(stat.S_IFREG)
        assert set(found) == {b"", b"closed", b"closed/f", b"closed/g", b"later", b"later/z"}


class mounted:  # noqa: N801 - reads as a word in `with`
    """A tmpfs mounted on a folder."""

    def __init__(self, folder: Path, options: str = "size=4m") -> None:
        self.folder = folder
        self.options = options

    def __enter__(self) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", self.options, "none", str(self.folder)], check=True)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)


def mounts(folder: Path, options: str) -> Iterator[Path]:
    with mounted(folder, options):
        yield folder


def test_links_that_the_target_cannot_hold_become_copies(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.link(source / "a", source / "sub/again")
    os.link(source / "link", source / "sub/link", follow_symlinks=False)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    reader = scan(source)
    monkeypatch.setattr(os, "link", refuse)
    result = restore(reader, fresh(tmp_path / "out", subtree=b"/srv/www"))
    assert (tmp_path / "out/sub/again").read_bytes() == b"a" * 100
    assert os.readlink(tmp_path / "out/sub/link") == "a"
    assert (result.exit_code, result.warning_count) == (3, 2)
