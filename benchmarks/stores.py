"""Copy packs to and from real servers on this machine, opsd's stores beside rclone: `python -m benchmarks.stores`.

SFTP goes to one OpenSSH server with one cipher, S3 to `rclone serve s3`. Each step is one whole process (start, login and all),
files and servers are in memory, and rounds alternate, so that a slow minute hits both. Needs what the tests need. opsd syncs every
file twice, and sends what the server checks; rclone syncs nothing.
"""

import argparse
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from opsd.clock import SystemClock
from opsd.storage.s3 import S3Store
from opsd.storage.s3_client import S3Options
from opsd.storage.sftp import SftpStore
from opsd.storage.sftp_session import SftpOptions
from tests.support.s3 import KEY, SECRET, S3Server, rclone_server
from tests.support.sshd import Server, running_server

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
CIPHER = "aes128-gcm@openssh.com"
TRANSFERS = 4


@dataclass(frozen=True, slots=True)
class Figure:
    """One process: seconds that passed, and processor seconds of the client."""

    wall: float
    processor: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bench runs. `folder` holds `source`, `restored` and what the servers serve."""

    folder: Path
    sftp: Server
    s3: S3Server

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def restored(self) -> Path:
        return self.folder / "restored"


def make_packs(folder: Path, count: int, size: int) -> None:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:04}").write_bytes(os.urandom(size))


def run(command: list[str], environment: dict[str, str]) -> Figure:
    """Run one process to its end; raise SystemExit if it failed."""
    start = time.perf_counter()
    child = os.posix_spawnp(command[0], command, {**os.environ, **environment})
    _, code, usage = os.wait4(child, 0)
    if code:
        raise SystemExit(f"{' '.join(command)} failed")
    return Figure(time.perf_counter() - start, usage.ru_utime + usage.ru_stime)


def opsd(place: Place, kind: str, way: str) -> Figure:
    server = place.sftp.port if kind == "sftp" else place.s3.port
    command = [sys.executable, "-m", "benchmarks.stores", "--worker", kind, way, str(server), str(place.folder)]
    return run([*command, str(place.sftp.folder)], {})


def rclone(place: Place, kind: str, way: str) -> Figure:
    there = f":{kind}:{place.folder / 'sftp/packs' if kind == 'sftp' else 'bucket/packs'}"
    ends = [str(place.source), there] if way == "put" else [there, str(place.restored)]
    program = str(Path(sys.executable).with_name("rclone"))
    command = [program, "copy", "--config", "/dev/null", "--transfers", str(TRANSFERS), *ends]
    if kind == "sftp":
        options = {"HOST": "127.0.0.1", "PORT": str(place.sftp.port), "USER": "root", "CIPHERS": CIPHER}
        options |= {
            "KEY_FILE": str(place.sftp.key),
            "KNOWN_HOSTS_FILE": str(place.sftp.known_hosts),
            "SHELL_TYPE": "none",
        }
    else:
        options = {"PROVIDER": "Other", "ENDPOINT": f"http://127.0.0.1:{place.s3.port}", "ACCESS_KEY_ID": KEY}
        options |= {"SECRET_ACCESS_KEY": SECRET}
    return run(command, {f"RCLONE_{kind.upper()}_{name}": value for name, value in options.items()})


def empty(place: Place, way: str) -> None:
    """Make a step start with nothing where it writes."""
    if way == "get":
        shutil.rmtree(place.restored, ignore_errors=True)
        place.restored.mkdir()
        return
    shutil.rmtree(place.folder / "sftp", ignore_errors=True)
    SftpStore.create(place.sftp.options(place.folder / "sftp")).close()
    client = place.s3.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="bucket"):
        for entry in page.get("Contents", ()):
            client.delete_object(Bucket="bucket", Key=entry["Key"])


def worker(kind: str, way: str, port: int, folder: Path, ssh: Path) -> None:
    """Copy all packs, several at a time, as one process."""
    names: queue.SimpleQueue[str] = queue.SimpleQueue()
    for path in (folder / "source").iterdir():
        names.put(path.name)
    store: SftpStore | S3Store
    if kind == "sftp":
        options = SftpOptions(
            host="127.0.0.1",
            port=port,
            user="root",
            path=str(folder / "sftp"),
            key=ssh / "login",
            known_hosts=ssh / "known_hosts",
            connections=TRANSFERS,
        )
        store = SftpStore(options)
    else:
        endpoint = f"http://127.0.0.1:{port}"
        store = S3Store(S3Options(bucket="bucket", endpoint=endpoint, access_key=KEY, secret_key=SECRET), SystemClock())

    def taken() -> str | None:
        try:
            return names.get_nowait()
        except queue.Empty:
            return None

    def fetch(name: str, buffer: memoryview) -> None:
        length = store.read_into(f"packs/{name}", 0, buffer)
        (folder / "restored" / name).write_bytes(buffer[:length])

    def work() -> None:
        buffer = memoryview(bytearray(32 << 20 if way == "get" else 0))
        while (name := taken()) is not None:
            if way == "put":
                store.put(f"packs/{name}", folder / "source" / name)
            else:
                fetch(name, buffer)

    with closing(store):
        threads = [threading.Thread(target=work) for _ in range(TRANSFERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


TOOLS: dict[str, Callable[[Place, str, str], Figure]] = {"opsd": opsd, "rclone": rclone}


@contextmanager
def prepared(packs: int) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="opsd-stores-", dir=MEMORY))
    try:
        make_packs(folder / "source", packs, 32 << 20)
        (folder / "s3").mkdir()
        with ExitStack() as stack:
            sftp = stack.enter_context(running_server())
            s3 = stack.enter_context(rclone_server(folder / "s3"))
            s3.client().create_bucket(Bucket="bucket")
            yield Place(folder, sftp, s3)
    finally:
        shutil.rmtree(folder)


def main() -> int:
    """Run the rounds and print a line per step: the best of each, and how they compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stores", description=__doc__)
    parser.add_argument("--packs", type=int, default=32, help="of 32 MiB each")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    figures: dict[tuple[str, str], list[Figure]] = {}
    with prepared(asked.packs) as place:
        for _ in range(asked.rounds):
            for kind in ("sftp", "s3"):
                for name, tool in TOOLS.items():
                    for way in ("put", "get"):
                        empty(place, way)
                        figures.setdefault((f"{kind} {way}", name), []).append(tool(place, kind, way))
    size = asked.packs * 32 * 1.048576
    print(f"{asked.packs} packs of 32 MiB, best of {asked.rounds}: MB/s (processor seconds of the client)")
    for step in dict.fromkeys(step for step, _ in figures):
        best = {name: min(figures[step, name], key=lambda figure: figure.wall) for name in TOOLS}
        words = "  ".join(f"{name} {size / figure.wall:5.0f} ({figure.processor:.1f})" for name, figure in best.items())
        print(f"{step:9} {words}  opsd/rclone {best['rclone'].wall / best['opsd'].wall:.2f}")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], sys.argv[3], int(sys.argv[4]), Path(sys.argv[5]), Path(sys.argv[6]))
        sys.exit(0)
    sys.exit(main())
