"""Measure how fast this machine can do each thing that a backup must do, on all cores, with the libraries that opsd uses.

The sum is what a first backup would take if nothing were lost between the parts: the distance that is left to gain.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import blake3
import pyfastcdc
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MEBIBYTE = 1 << 20
CORES = os.cpu_count() or 1
SAMPLE = 96 * MEBIBYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Speeds in bytes a second, and the times of one first backup that follow from them, in seconds."""

    speeds: dict[str, float]
    seconds: dict[str, float]

    @property
    def ideal(self) -> float:
        """Computing and the disk side by side, each without a pause: the longer of both."""
        disk = self.seconds["reading"] + self.seconds["writing"]
        return max(disk, sum(self.seconds.values()) - disk)


def _files(folder: Path) -> list[Path]:
    return [Path(parent) / name for parent, _, names in os.walk(folder) for name in sorted(names)]


def _read(paths: list[Path]) -> int:
    """Read files whole into one reused buffer; return the bytes."""
    buffer, total = bytearray(MEBIBYTE), 0
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        while count := os.readv(descriptor, [buffer]):
            total += count
        os.close(descriptor)
    return total


def _sample(paths: list[Path]) -> list[bytes]:
    """Return mebibytes of the input as frames will be: evenly from all files, small ones gathered."""
    blocks: list[bytes] = []
    gathered = bytearray()
    total = sum(path.stat().st_size for path in paths)
    step = max(1, total // SAMPLE)
    for path in paths[::step]:
        gathered += path.read_bytes()
        while len(gathered) >= MEBIBYTE:
            blocks.append(bytes(gathered[:MEBIBYTE]))
            del gathered[:MEBIBYTE]
    return blocks or [bytes(gathered)]


def _workers() -> dict[str, Callable[[list[bytes]], object]]:
    """Return what one thread does with its blocks, by name, with buffers of its own."""

    def cut(mine: list[bytes]) -> None:
        cutter = pyfastcdc.FastCDC(avg_size=MEBIBYTE, min_size=MEBIBYTE // 4, max_size=4 * MEBIBYTE)
        for block in mine:
            list(cutter.cut_buf(block))

    def identify(mine: list[bytes]) -> None:
        for block in mine:
            blake3.blake3(block, key=bytes(32)).digest()

    def compress(mine: list[bytes]) -> None:
        compressor = zstandard.ZstdCompressor(level=3)
        buffer = bytearray(MEBIBYTE)
        for block in mine:
            with compressor.stream_reader(block, size=len(block)) as reader:
                while reader.readinto(buffer):
                    pass

    def encrypt(mine: list[bytes]) -> None:
        cipher = AESGCM(bytes(32))
        buffer = bytearray(MEBIBYTE + 16)
        for block in mine:
            cipher.encrypt_into(bytes(12), block, None, memoryview(buffer)[: len(block) + 16])

    def name(mine: list[bytes]) -> None:
        for block in mine:
            hashlib.sha256(block).digest()

    return {"cutting": cut, "BLAKE3": identify, "zstd 3": compress, "AES-256-GCM": encrypt, "SHA-256": name}


def _speed(work: Callable[[list[bytes]], object], blocks: list[bytes]) -> float:
    """Return bytes a second of `work` on all cores, the best of three."""
    shares = [blocks[core::CORES] for core in range(CORES)]
    best = float("inf")
    with ThreadPoolExecutor(CORES) as threads:
        for _ in range(3):
            start = time.perf_counter()
            list(threads.map(work, shares))
            best = min(best, time.perf_counter() - start)
    return sum(map(len, blocks)) / best


def _read_speed(paths: list[Path]) -> float:
    start = time.perf_counter()
    with ThreadPoolExecutor(CORES) as threads:
        total = sum(threads.map(_read, [paths[core::CORES] for core in range(CORES)]))
    return total / (time.perf_counter() - start)


def _write_speed(folder: Path, blocks: list[bytes], total: int) -> float:
    """Return bytes a second into new files of 32 MiB, each synced, as packs are."""

    def write(first: int) -> None:
        for number in range(first, -(-total // (32 * MEBIBYTE)), CORES):
            path = folder / f"limit-{number}"
            with path.open("wb", buffering=0) as file:
                for position in range(32):
                    file.write(blocks[(number + position) % len(blocks)])
                os.fsync(file.fileno())
            path.unlink()

    start = time.perf_counter()
    with ThreadPoolExecutor(CORES) as threads:
        list(threads.map(write, range(CORES)))
    return total / (time.perf_counter() - start)


def _stages(total: int, stored: int) -> Iterator[tuple[str, int]]:
    """Yield how many bytes pass each stage: all of them before compression, the stored ones after it."""
    yield from (("reading", total), ("cutting", total), ("BLAKE3", total), ("zstd 3", total))
    yield from (("AES-256-GCM", stored), ("SHA-256", stored), ("writing", stored))


def measure(source: Path, scratch: Path, stored: int) -> Limit:
    """Measure on the tree `source`; `stored` is what the repository weighs after the first backup of it."""
    paths = _files(source)
    speeds = {"reading": _read_speed(paths)}
    blocks = _sample(paths)
    speeds |= {name: _speed(work, blocks) for name, work in _workers().items()}
    speeds["writing"] = _write_speed(scratch, blocks, max(stored, MEBIBYTE))
    total = sum(path.stat().st_size for path in paths)
    return Limit(speeds=speeds, seconds={name: size / speeds[name] for name, size in _stages(total, stored)})
