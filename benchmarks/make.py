"""Make the bench's input from a seed: a tree of files, a disk image, and what a day changes in both.

The same seed and scale give the same names and bytes. Text is cut from one pool in pieces of some hundred bytes, so it
compresses like source code but neither repeats nor deduplicates by accident. `day_two` keeps what it replaces, so that
`day_one` brings the first day back for the next round.
"""

import gzip
import itertools
import json
import multiprocessing
import os
import random
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SEED = 20250901
PAGE = 8192
MEBIBYTE = 1 << 20
CHANGED_PAGES = 0.01

# Counts at scale 1: 55,000 files, 1.7 GiB.
SOURCE_FOLDERS = 600
SOURCES_PER_FOLDER = 80
MAN_FOLDERS = 20
PAGES_PER_FOLDER = 335
CLIENTS = 280
LOGS = 40
LOG_BYTES = 10 * MEBIBYTE
IMAGE_BYTES = 2048 * MEBIBYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the input lies and how large it is; `files` and `image` are separate sources."""

    folder: Path
    scale: float

    @property
    def files(self) -> Path:
        return self.folder / "input" / "files"

    @property
    def image(self) -> Path:
        return self.folder / "input" / "image" / "disk.img"

    @property
    def undo(self) -> Path:
        return self.folder / "input" / "undo"

    @property
    def made(self) -> Path:
        return self.folder / "input" / "made.json"

    def count(self, full: int) -> int:
        return max(1, round(full * self.scale))


def words(rng: random.Random, count: int) -> list[bytes]:
    """Return short pieces such as programs are made of: names, operators, ends of line with indentation."""
    syllables = [a + b for a in "bcdfglmnprstv" for b in ("a", "e", "i", "o", "un", "er", "ist", "or")]
    names = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(count)]
    shapes = ["{} ", "{}.", "{}(", "{}, ", "{})", "{} = ", "return {}", "if {}:\n        ", "{};\n    ", "{}\n"]
    return [rng.choice(shapes).format(name).encode() for name in names]


def text_pool() -> bytes:
    """Return 32 MiB of text in which common words are common (Zipf's law)."""
    rng = random.Random(SEED)
    vocabulary = words(rng, 20_000)
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(vocabulary))))
    return b"".join(rng.choices(vocabulary, cum_weights=weights, k=4_000_000))[: 32 * MEBIBYTE]


class Writer:
    """Writes files below a folder from its own stretch of random numbers; one a process and part of the tree."""

    def __init__(self, name: str, pool: bytes) -> None:
        self.rng = random.Random(f"{SEED} {name}")
        self.pool = pool

    def text(self, size: int) -> bytes:
        rng, pool, pieces, have = self.rng, self.pool, [], 0
        while have < size:
            length = rng.randint(100, 900)
            start = rng.randrange(len(pool) - length)
            pieces.append(pool[start : start + length])
            have += length
        return b"".join(pieces)[:size]

    def log_lines(self, size: int) -> Iterator[bytes]:
        """Yield lines of a web server's log, about `size` bytes together."""
        rng, have, clock = self.rng, 0, 1_756_684_800
        paths = [f"/{self.text(12).hex()[:10]}/{n}" for n in range(300)]
        hosts = [f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}" for _ in range(200)]
        while have < size:
            clock += rng.randrange(3)
            number = rng.getrandbits(60)
            line = (
                f'{hosts[number % 200]} - - [{clock}] "GET {paths[(number >> 8) % 300]} HTTP/1.1" '
                f'200 {(number >> 20) % 90_000} "-" "Mozilla/5.0 (X11; Linux x86_64)" {number % 9973}\n'
            ).encode()
            have += len(line)
            yield line

    def page(self, kind: float) -> bytes:
        """Return one page of the image: a fifth empty, three tenths incompressible, the rest rows of text."""
        if kind < 0.2:
            return bytes(PAGE)
        return self.rng.randbytes(PAGE) if kind < 0.5 else self.text(PAGE)


def small(rng: random.Random) -> int:
    """Return the size of a source file: 1 to 30 KiB, the small ones more often."""
    return int(1024 * 30 ** (rng.random() ** 0.9))


def put(path: Path, content: bytes) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(content)


_pool = b""


def _start(pool: bytes) -> None:
    global _pool  # noqa: PLW0603 - a worker process gets the pool once
    _pool = pool


def make_sources(folder: Path) -> None:
    writer = Writer(f"source {folder.name}", _pool)
    folder.mkdir(parents=True)
    for number in range(SOURCES_PER_FOLDER):
        put(folder / f"module_{number:03}.py", writer.text(small(writer.rng)))


def make_manuals(folder: Path) -> None:
    writer = Writer(f"man {folder.name}", _pool)
    folder.mkdir(parents=True)
    for number in range(PAGES_PER_FOLDER):
        put(folder / f"page{number:04}.1.gz", gzip.compress(writer.text(small(writer.rng)), 6, mtime=0))


def make_client(folder: Path) -> None:
    writer = Writer(f"client {folder.name}", _pool)
    folder.mkdir(parents=True)
    size = int(50 * 1024 * 400 ** writer.rng.random())
    put(folder / "scan.bin", writer.rng.randbytes(size))


def make_log(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.writelines(Writer(f"log {path.name}", _pool).log_lines(LOG_BYTES))


def make_image_part(path: Path, part: int, pages: int) -> None:
    """Write one part of the image, in runs of pages of one kind."""
    writer = Writer(f"image {part}", _pool)
    with path.open("r+b") as file:
        file.seek(part * pages * PAGE)
        left = pages
        while left:
            run = min(left, writer.rng.randint(16, 512))
            kind = writer.rng.random()
            file.write(b"".join(writer.page(kind) for _ in range(run)))
            left -= run


def make(place: Place) -> None:
    """Make the first day; nothing to do if this size lies there already."""
    wanted = {"seed": SEED, "scale": place.scale}
    if place.made.exists() and json.loads(place.made.read_text()) == wanted:
        day_one(place)
        return
    shutil.rmtree(place.folder / "input", ignore_errors=True)
    place.image.parent.mkdir(parents=True)
    parts, pages = 16, place.count(IMAGE_BYTES // 16 // PAGE)
    with place.image.open("wb") as file:
        file.truncate(parts * pages * PAGE)
    files = place.files
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=spawn, initializer=_start, initargs=(text_pool(),)) as workers:
        jobs = [workers.submit(make_image_part, place.image, part, pages) for part in range(parts)]
        folders = [
            files / "src" / f"project_{n % 20:02}" / f"package_{n:03}" for n in range(place.count(SOURCE_FOLDERS))
        ]
        jobs += [workers.submit(make_sources, folder) for folder in folders]
        jobs += [workers.submit(make_manuals, files / "man" / f"man{n:02}") for n in range(place.count(MAN_FOLDERS))]
        jobs += [workers.submit(make_client, files / "clients" / f"c{n:04}") for n in range(place.count(CLIENTS))]
        jobs += [workers.submit(make_log, files / "logs" / f"web-{n:02}.log") for n in range(place.count(LOGS))]
        for job in jobs:
            job.result()
    place.made.write_text(json.dumps(wanted))


def _keep(place: Place, path: Path) -> None:
    """Copy a file aside before it changes."""
    kept = place.undo / "files" / path.relative_to(place.files)
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, kept)


def _change_files(place: Place, writer: Writer) -> list[str]:
    """Edit 1 % of the small files and clients, delete 0.3 %, add 0.3 %; return what was added."""
    paths = sorted(path for path in place.files.rglob("*") if path.is_file() and path.suffix != ".log")
    chosen = writer.rng.sample(paths, k=max(4, len(paths) * 13 // 1000))
    deleted, edited = chosen[: len(chosen) * 3 // 13], chosen[len(chosen) * 3 // 13 :]
    for path in chosen:
        _keep(place, path)
    for path in deleted:
        path.unlink()
    for path in edited:
        content = path.read_bytes()
        middle = writer.rng.randrange(len(content))
        put(path, content[:middle] + writer.text(writer.rng.randint(10, 400)) + content[middle + 50 :])
    added = [path.with_name(f"new_{number}{path.suffix}") for number, path in enumerate(deleted)]
    for path in added:
        put(path, writer.text(small(writer.rng)))
    return [str(path.relative_to(place.files)) for path in added]


def _append_to_logs(place: Place, writer: Writer) -> dict[str, int]:
    """Append a tenth of a day to every fourth log; return the lengths before."""
    lengths = {}
    for path in sorted(place.files.glob("logs/*.log"))[::4]:
        lengths[path.name] = path.stat().st_size
        with path.open("ab") as file:
            file.writelines(writer.log_lines(LOG_BYTES // 10))
    return lengths


def _update_pages(place: Place, writer: Writer) -> list[int]:
    """Write 1 % of the image's pages anew, scattered; return their numbers, the old ones are kept aside in this order."""
    count = place.image.stat().st_size // PAGE
    numbers = sorted(writer.rng.sample(range(count), k=max(1, int(count * CHANGED_PAGES))))
    with place.image.open("r+b", buffering=0) as image, (place.undo / "pages").open("wb") as kept:
        for number in numbers:
            kept.write(os.pread(image.fileno(), PAGE, number * PAGE))
            os.pwrite(image.fileno(), writer.text(PAGE), number * PAGE)
    return numbers


def day_two(place: Place) -> None:
    """Change in place what a day changes: 1 to 2 % of the files, a quarter of the logs, 1 % of the image's pages."""
    place.undo.mkdir()
    writer = Writer("day two", text_pool())
    changes = {
        "added": _change_files(place, writer),
        "logs": _append_to_logs(place, writer),
        "pages": _update_pages(place, writer),
    }
    (place.undo / "changes.json").write_text(json.dumps(changes))


def day_one(place: Place) -> None:
    """Bring the first day's bytes back, if a day has passed."""
    if not place.undo.exists():
        return
    if not (place.undo / "changes.json").exists():
        place.made.unlink()
        make(place)
        return
    changes = json.loads((place.undo / "changes.json").read_text())
    for name in changes["added"]:
        (place.files / name).unlink(missing_ok=True)
    for name, length in changes["logs"].items():
        os.truncate(place.files / "logs" / name, length)
    with place.image.open("r+b", buffering=0) as image, (place.undo / "pages").open("rb") as kept:
        for number in changes["pages"]:
            os.pwrite(image.fileno(), kept.read(PAGE), number * PAGE)
    shutil.copytree(place.undo / "files", place.files, dirs_exist_ok=True)
    shutil.rmtree(place.undo)


if __name__ == "__main__":
    here = Place(folder=Path(sys.argv[1]), scale=float(sys.argv[2]) if len(sys.argv) > 2 else 1.0)
    make(here)
    print(f"made {here.files} and {here.image}")
