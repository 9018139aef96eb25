"""How opsd does from far away: `python -m benchmarks.far [--files 100000] [--mebibytes 2048]`.

A bucket of `rclone serve s3` stands behind a proxy that adds 40 ms to each round trip, a new connection's too, and lets 100 Mbit/s
through each way. With an empty state and cache one small file of many is restored, then one large file; then a night in which nothing
changed is backed up and copied. Told are seconds, requests, and the share of the link. Goals: 3 s and 40 requests; 0.8; 60 requests.
"""

import argparse
import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.s3 import KEY, SECRET, rclone_server

ROUND_TRIP_SECONDS = 0.040
LINK_BYTES = 100_000_000 / 8
BLOCK = 1 << 16
MIB = 1 << 20
ROOT = Path(__file__).parents[1]


@dataclass(slots=True)
class Link:
    """A line to a server: how long each block takes, and how many requests went up."""

    target: int
    port: int = 0
    requests: int = 0
    connections: int = 0
    free: dict[str, float] = field(default_factory=lambda: {"up": 0.0, "down": 0.0})

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await asyncio.sleep(ROUND_TRIP_SECONDS)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        await asyncio.gather(self._pass(reader, up_writer, "up"), self._pass(up_reader, writer, "down"))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        """Deliver each block after its turn on the line and half a round trip."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)
        delivering = asyncio.create_task(_deliver(waiting, writer))
        with suppress(OSError):
            while block := await reader.read(BLOCK):
                if way == "up":
                    self.requests += block.count(b" HTTP/1.1\r\n")
                now = time.monotonic()
                self.free[way] = max(now, self.free[way]) + len(block) / LINK_BYTES
                await waiting.put((self.free[way] + ROUND_TRIP_SECONDS / 2, block))
        await waiting.put((0.0, b""))
        await delivering


async def _deliver(waiting: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while (item := await waiting.get())[1]:
            await asyncio.sleep(max(0.0, item[0] - time.monotonic()))
            writer.write(item[1])
            await writer.drain()
        writer.close()
    while not waiting.empty():
        waiting.get_nowait()


@contextmanager
def far(target: int) -> Iterator[Link]:
    """A line to a port of this machine, for the time of the context."""
    link = Link(target)
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def serve() -> None:
        server = await asyncio.start_server(link.connected, "127.0.0.1", 0)
        link.port = server.sockets[0].getsockname()[1]
        ready.set()
        await server.serve_forever()

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(serving)

    serving = loop.create_task(serve())
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield link
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join()


@dataclass(frozen=True, slots=True)
class Bench:
    """The folder with everything, and the passphrase's file."""

    folder: Path

    @property
    def source(self) -> Path:
        return self.folder / "source"

    def make(self, files: int, mebibytes: int) -> None:
        """Small files, a thousand a folder, and one large one."""
        dice = random.Random(1)
        for number in range(files):
            path = self.source / "small" / f"{number // 1000:03}" / f"{number:06}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(dice.randbytes(dice.randint(50, 1500)))
        with (self.source / "large").open("wb") as large:
            for _ in range(mebibytes):
                large.write(os.urandom(MIB))

    def configuration(self, name: str, port: int) -> Path:
        """A configuration with a state of its own, whose copy is in the bucket at that port."""
        secret = self.folder / "passphrase"
        if not secret.exists():
            secret.write_text("far away\n")
            secret.chmod(0o600)
        path = self.folder / f"{name}.yaml"
        path.write_text(
            f"version: 1\ntimezone: UTC\nrepository: {self.folder}/repository\nstate: {self.folder}/{name}\n"
            f"passphrase: {{file: {secret}}}\nsources: {{all: {{files: {{paths: [{self.source}]}}}}}}\n"
            f"copies: {{cold: {{s3: {{endpoint: 'http://127.0.0.1:{port}', bucket: bucket, prefix: host, "
            "access_key: {env: FAR_KEY}, secret_key: {env: FAR_SECRET}}}}\n"
        )
        return path

    def opsd(self, configuration: Path, *arguments: str) -> float:
        """Run to the end; returns the seconds."""
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "opsd", "-c", str(configuration), *arguments],
            check=True,
            cwd=ROOT,
            env={**os.environ, "FAR_KEY": KEY, "FAR_SECRET": SECRET},
            stdout=subprocess.DEVNULL,
        )
        return time.monotonic() - began

    def tell(self, what: str, link: Link, size: int, configuration: Path, *arguments: str) -> None:
        """Run far away, and print what it took."""
        link.requests = link.connections = 0
        seconds = self.opsd(configuration, *arguments)
        share = f"{size / seconds / LINK_BYTES:5.2f} of the link" if size else ""
        print(f"{what:28} {seconds:7.1f} s {link.requests:5} requests {link.connections:3} connections {share}")


def main() -> None:
    """Make, fill the bucket from near, then measure from far."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--mebibytes", type=int, default=2048)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="opsd-far-", dir="/var/tmp") as name:
        bench = Bench(Path(name))
        bench.make(given.files, given.mebibytes)
        with rclone_server(bench.folder) as server, far(server.port) as link:
            (bench.folder / "served" / "bucket").mkdir()
            near = bench.configuration("host", server.port)
            bench.opsd(near, "init")
            bench.opsd(near, "backup")
            bench.opsd(near, "copy")
            one = bench.source / "small" / "000" / f"{given.files // 2 % 1000:06}"
            away = bench.configuration("elsewhere", link.port)
            to = str(bench.folder / "back")
            bench.tell("one small file", link, 0, away, "restore", f"latest:{one}", "--from", "cold", "--to", to)
            shutil.rmtree(to)
            shutil.rmtree(bench.folder / "elsewhere", ignore_errors=True)
            large = f"latest:{bench.source / 'large'}"
            bench.tell(
                "one large file", link, given.mebibytes * MIB, away, "restore", large, "--from", "cold", "--to", to
            )
            host = bench.configuration("host", link.port)
            bench.tell("an unchanged backup", link, 0, host, "backup")
            bench.tell("its copy", link, 0, host, "copy")


if __name__ == "__main__":
    main()
