"""tools/rescue.py against repositories that tests/compat/vectors.py made from the document."""

import importlib.util
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.compat.vectors import PASSPHRASE, STARTED, Frame, Signer, Vector, entry, hunk, packed

SCRIPT = Path(__file__).parents[2] / "tools" / "rescue.py"
MTIME = 1_700_000_000_123_456_789

Run = Callable[..., subprocess.CompletedProcess[str]]


def load() -> ModuleType:
    specification = importlib.util.spec_from_file_location("rescue", SCRIPT)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


rescue = load()


@pytest.fixture
def vector(tmp_path: Path) -> Vector:
    """A repository with settings and both kinds of key slot, but no snapshot yet."""
    vector = Vector(folder=tmp_path / "repository")
    vector.settings()
    vector.slot("passphrase")
    vector.slot("kit")
    return vector


@pytest.fixture
def run(vector: Vector, tmp_path: Path) -> Run:
    """Run the script on the repository, by default with the right passphrase."""
    secret = tmp_path / "secret"
    secret.write_text(PASSPHRASE + "\n")

    def call(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": os.environ["PATH"], **(environment or {"OPSD_PASSPHRASE_FILE": str(secret)})}
        command = [sys.executable, str(SCRIPT), str(vector.folder), *map(str, words)]
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)

    return call


def store(
    vector: Vector, folders: list[tuple[bytes, list[list[Any]]]], *, label: str = "files", birth: str = "listing"
) -> str:
    """A snapshot with one source whose whole listing is one hunk; its id."""
    ((reference,),) = vector.pack(Frame(blobs=[hunk(*folders)], method=1), birth=birth + " hunk")
    first = [folders[0][0], folders[0][1][0][0], reference, 1, 1, 0]
    ((root,),) = vector.pack(Frame(blobs=[packed([first])]), birth=birth)
    return vector.snapshot({label: root})


def test_files_come_back_raw_compressed_empty_and_in_depth(vector: Vector, run: Run, tmp_path: Path) -> None:
    raw, compressed = vector.pack(Frame(blobs=[b"one ", b"two"]), Frame(blobs=[b"x" * 100_000], method=1))
    deep = vector.pack(Frame(blobs=[raw[0], raw[1]]), birth="deep")[0]
    store(
        vector,
        [
            (b"/", [entry(b"etc", 2, mode=0o750, mtime=MTIME)]),
            (
                b"/etc",
                [
                    entry(b"deep", 1, [1, b"".join(deep)], size=7),
                    entry(b"empty", 1, b""),
                    entry(b"large", 1, compressed[0], size=100_000),
                    entry(b"link", 3, target=b"raw", mode=0o777),
                    entry(b"raw", 1, b"".join(raw), size=7, mode=0o4755 if os.geteuid() == 0 else 0o755),
                ],
            ),
        ],
    )
    done = run("restore", "latest", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    etc = tmp_path / "out/files/etc"
    assert (etc / "raw").read_bytes() == b"one two" == (etc / "deep").read_bytes()
    assert (etc / "large").read_bytes() == b"x" * 100_000
    assert (etc / "empty").read_bytes() == b""
    assert stat.S_IMODE((etc / "raw").stat().st_mode) & 0o777 == 0o755
    assert (etc / "raw").stat().st_mtime_ns == MTIME == etc.stat().st_mtime_ns
    assert stat.S_IMODE(etc.stat().st_mode) == 0o750


def test_holes_page_maps_and_what_is_no_file_come_back(vector: Vector, run: Run, tmp_path: Path) -> None:
    blob, pages = vector.pack(Frame(blobs=[b"abcdef"]), Frame(blobs=[b"P" * 4096, b"Q" * 100], kind=2))
    rows = b"".join(page[:16] + b"\0\0" + page[52:56] for page in pages)
    map_hunk = packed([4096, pages[0][36:52], rows[:22] + bytes(16) + b"\xff\xff" + bytes(4) + rows[22:]])
    (map_reference,) = vector.pack(Frame(blobs=[map_hunk], domain=0), birth="map")[0]
    store(
        vector,
        [
            (
                b"/",
                [
                    entry(b"base", 1, None, size=8292, pages=map_reference),
                    entry(b"first", 1, blob[0], size=6, link=b"1"),
                    entry(b"pipe", 4, link=b"2"),
                    entry(b"pipe again", 4, link=b"2"),
                    entry(b"second", 1, blob[0], size=6, link=b"1"),
                    entry(
                        b"sparse",
                        1,
                        blob[0],
                        size=1 << 20,
                        extents=[[4096, 4], [65536, 2]],
                        xattrs={b"user.note": b"kept"},
                    ),
                    entry(b"way", 3, target=b"../nowhere", mode=0o777, link=b"3"),
                    entry(b"way again", 3, target=b"../nowhere", mode=0o777, link=b"3"),
                ],
            )
        ],
    )
    done = run("restore", "latest", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    root = tmp_path / "out/files"
    assert (root / "base").read_bytes() == b"P" * 4096 + bytes(4096) + b"Q" * 100
    expected = bytearray(1 << 20)
    expected[4096:4100], expected[65536:65538] = b"abcd", b"ef"
    assert (root / "sparse").read_bytes() == expected
    assert (root / "sparse").stat().st_blocks * 512 < 1 << 19
    assert os.getxattr(root / "sparse", "user.note") == b"kept"
    for one, other in (("first", "second"), ("pipe", "pipe again"), ("way", "way again")):
        assert (root / one).lstat().st_ino == (root / other).lstat().st_ino
    assert stat.S_ISFIFO((root / "pipe").stat().st_mode)
    assert (root / "way").readlink() == Path("../nowhere")


def test_list_tells_what_there_is(vector: Vector, run: Run) -> None:
    whole = vector.snapshot({"files": b"", "db": b""})
    part = vector.snapshot({"files": b""}, complete=False, started=STARTED + 3600 * 10**9)
    done = run("list")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()[-2:]
    for text in (whole[:16], "2026-11-24T04:00:00Z", "db1", "all", "files,db", "12345"):
        assert text in first
    assert part[:16] in second
    assert "incomplete" in second
    assert "incomplete" not in first


def test_the_recovery_kit_opens_too_however_it_is_typed(vector: Vector, run: Run, tmp_path: Path) -> None:
    vector.snapshot({"files": b""})
    kit = tmp_path / "kit"
    for text in (vector.kit, vector.kit.lower().replace("-", " ").replace("0", "o").replace("1", "l")):
        kit.write_text(text + "\n")
        assert run("list", OPSD_KIT_FILE=str(kit)).returncode == 0
        assert run("list", OPSD_PASSPHRASE_FILE=str(kit)).returncode == 0


def test_a_mistyped_kit_is_told(vector: Vector, run: Run, tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    kit.write_text(("2" if vector.kit[0] == "1" else "1") + vector.kit[1:])
    done = run("list", OPSD_KIT_FILE=str(kit))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no recovery kit" in done.stderr


def test_a_wrong_passphrase_is_one_line_and_exit_1(run: Run, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("wrong\n")
    done = run("list", OPSD_PASSPHRASE_FILE=str(tmp_path / "wrong"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no key slot here opens" in done.stderr


def test_a_damaged_blob_costs_its_file_only(vector: Vector, run: Run, tmp_path: Path) -> None:
    ((bad,),) = vector.pack(Frame(blobs=[b"bad" * 9]), birth="bad")
    pack = next(path for path in vector.folder.glob("packs/*/*") if path.is_file())
    ((good,),) = vector.pack(Frame(blobs=[b"good"]), birth="good")
    store(vector, [(b"/", [entry(b"bad", 1, bad, size=27), entry(b"good", 1, good, size=4)])])
    content = bytearray(pack.read_bytes())
    content[26 + 1182 + 50] ^= 1  # in the frame
    pack.write_bytes(content)
    done = run("restore", "latest", tmp_path / "out")
    assert done.returncode == 4
    assert "files/bad: damaged: no pack holds" in done.stderr
    assert sorted(os.listdir(tmp_path / "out/files")) == ["bad.part", "good"]


def test_a_second_copy_of_a_blob_is_taken_where_the_first_is_damaged(vector: Vector, run: Run, tmp_path: Path) -> None:
    ((reference,),) = vector.pack(Frame(blobs=[b"kept"]), birth="bad")
    next(path for path in vector.folder.glob("packs/*/*") if path.is_file()).unlink()
    vector.pack(Frame(blobs=[b"other", b"kept"]), birth="elsewhere")
    store(vector, [(b"/", [entry(b"file", 1, reference, size=4)])])
    assert run("restore", "latest", tmp_path / "out").returncode == 0
    assert (tmp_path / "out/files/file").read_bytes() == b"kept"


def test_nothing_goes_through_a_symlink_or_out_of_the_folder(vector: Vector, run: Run, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o755)
    ((reference,),) = vector.pack(Frame(blobs=[b"evil"]))
    store(
        vector,
        [
            (
                b"/",
                [
                    entry(b"..", 1, reference, size=4),
                    entry(b"a/b", 1, reference, size=4),
                    entry(b"way", 3, target=os.fsencode(outside)),
                    entry(b"way", 2, mode=0o777),
                ],
            ),
            (b"/../..", [entry(b"high", 1, reference, size=4)]),
            (b"/way", [entry(b"file", 1, reference, size=4)]),
        ],
    )
    done = run("restore", "latest", tmp_path / "out")
    assert done.returncode == 4
    assert done.stderr.count("its name leads elsewhere") == 3
    assert list(outside.iterdir()) == []
    assert stat.S_IMODE(outside.stat().st_mode) == 0o755
    assert not list(tmp_path.rglob("high"))
    assert (tmp_path / "out/files/way/file").read_bytes() == b"evil"


def test_what_a_stranger_signed_does_not_count(vector: Vector, run: Run) -> None:
    vector.snapshot({"files": b""})
    vector.writer = Signer(name="stranger")
    forged = vector.snapshot({"files": b""})
    vector.owner, vector.number = Signer(name="stranger"), 2
    vector.settings()
    done = run("list")
    assert done.returncode == 4
    assert done.stderr.count("damaged") == 2
    assert forged[:16] not in done.stdout


@pytest.mark.parametrize("place", [-3373, -1])
def test_one_of_the_two_signatures_alone_does_not_do(vector: Vector, run: Run, place: int) -> None:
    vector.snapshot({"files": b""})
    path = next(vector.folder.glob("snapshots/*"))
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.unlink()
    vector.put("snapshots/20261124T040000.000000000Z-", bytes(content))
    done = run("list")
    assert (done.returncode, done.stdout) == (4, "")


def test_a_blob_that_is_not_what_its_id_says_is_refused(vector: Vector, run: Run, tmp_path: Path) -> None:
    ((reference,),) = vector.pack(Frame(blobs=[b"fake"], claimed=[b"true"]), birth="fake")
    store(vector, [(b"/", [entry(b"file", 1, reference, size=4)])])
    assert run("restore", "latest", tmp_path / "out").returncode == 4
    assert not (tmp_path / "out/files/file").exists()


def test_an_object_under_another_name_does_not_count(vector: Vector, run: Run) -> None:
    name = vector.snapshot({"files": b""})
    path = next(vector.folder.glob("snapshots/*"))
    path.rename(path.with_name(path.name[:-64] + name[::-1]))
    done = run("list")
    assert done.returncode == 4
    assert "does not match its name" in done.stderr


def test_a_pack_without_a_readable_footer_is_named_and_the_rest_comes_back(
    vector: Vector, run: Run, tmp_path: Path
) -> None:
    ((good,),) = vector.pack(Frame(blobs=[b"good"]), birth="good")
    store(vector, [(b"/", [entry(b"good", 1, good, size=4)])])
    cut = vector.folder / "packs/ff" / ("f" * 64)
    cut.parent.mkdir(exist_ok=True)
    cut.write_bytes(b"OPSD\x04\x01\x01\x00" + bytes(100))
    done = run("restore", "latest", tmp_path / "out")
    assert done.returncode == 4
    assert cut.name in done.stderr
    assert (tmp_path / "out/files/good").read_bytes() == b"good"


def test_a_damaged_listing_costs_its_source_only(vector: Vector, run: Run, tmp_path: Path) -> None:
    ((good,),) = vector.pack(Frame(blobs=[b"good"]), birth="good")
    ((listing,),) = vector.pack(Frame(blobs=[hunk((b"/", [entry(b"file", 1, good, size=4)]))]), birth="listing")
    ((root,),) = vector.pack(Frame(blobs=[packed([[b"/", b"file", listing, 1, 1, 4]])]), birth="root")
    vector.snapshot({"lost": bytes(56), "kept": root})
    done = run("restore", "latest", tmp_path / "out")
    assert done.returncode == 4
    assert "source lost: damaged" in done.stderr
    assert (tmp_path / "out/kept/file").read_bytes() == b"good"


def test_snapshots_of_a_writer_who_is_named_no_longer_still_open(vector: Vector, run: Run) -> None:
    snapshot = vector.snapshot({"files": b""})
    vector.number = 2
    vector.settings([Signer(name="another")])
    done = run("list")
    assert (done.returncode, done.stderr) == (0, "")
    assert snapshot[:16] in done.stdout


def test_a_newer_format_is_told(vector: Vector, run: Run) -> None:
    vector.put("snapshots/20261124T040000.000000000Z-", b"OPSD\x06\x02\x01\x00 and what comes")
    done = run("list")
    assert done.returncode == 1
    assert "newer opsd" in done.stderr


def test_a_folder_that_is_not_empty_is_left_alone(vector: Vector, run: Run, tmp_path: Path) -> None:
    vector.snapshot({"files": b""})
    (tmp_path / "mine").touch()
    done = run("restore", "latest", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is not empty" in done.stderr


@pytest.mark.parametrize("wanted", ["", "0123456789"])
def test_a_beginning_that_fits_no_single_snapshot_is_told(
    vector: Vector, run: Run, tmp_path: Path, wanted: str
) -> None:
    vector.snapshot({"files": b""})
    vector.snapshot({"files": b""})
    done = run("restore", wanted, tmp_path / "out")
    assert done.returncode == 1
    assert f"snapshots fit {wanted!r}" in done.stderr


def test_it_stays_short_and_imports_nothing_of_opsd() -> None:
    text = SCRIPT.read_text()
    assert len(text.splitlines()) <= 300
    assert "import opsd" not in text
    assert "from opsd" not in text


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text() | st.binary(), inner, max_size=20),
    max_leaves=30,
)


@given(values)
def test_every_messagepack_value_is_read(value: Any) -> None:
    assert rescue.Cursor(msgpack.packb(value)).only() == value


@pytest.mark.parametrize(
    "content",
    [b"", b"\xc1", b"\xd4\x01a", b"\x00\x00", b"\x92\x00", b"\xa1\xff", b"\x82\xa1a\x00\xa1a\x00", b"\x81\x90\x00"],
)
def test_messagepack_that_is_cut_doubled_or_extended_is_refused(content: bytes) -> None:
    with pytest.raises(rescue.DAMAGE):
        rescue.Cursor(content).only()


def test_a_key_pair_counts_only_for_the_domain_for_which_the_settings_name_it(vector: Vector) -> None:
    repository = rescue.Repository.__new__(rescue.Repository)
    repository.pairs, repository.named = {}, {(2, vector.public_pair["id"])}
    stranger = vector.pair | {"x25519": bytes([1]) * 32, "id": vector.public_pair["id"]}
    repository.learn({"domains": [{"number": 2, "keys": [stranger]}, {"number": 3, "keys": [vector.pair]}]})
    assert repository.pairs == {}
    repository.learn({"domains": [{"number": 2, "keys": [stranger, vector.pair]}]})
    assert set(repository.pairs) == {vector.public_pair["id"]}
